// The slip's button. Without this file the browser's own menu prints.
"use strict";
(() => {
  const button = document.querySelector("#print");
  if (!button) return;
  button.hidden = false;
  button.addEventListener("click", () => window.print());
})();
