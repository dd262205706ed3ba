// Single keys, and news of the queue. Every page works without this file. It never writes HTML, and never moves a row.
"use strict";
(() => {
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];

  // ---- keys ----
  const rows = () => all(".list .words");
  const step = (by) => {
    const links = rows();
    const at = links.indexOf(document.activeElement);
    const to = links[Math.min(Math.max(at + by, 0), links.length - 1)];
    if (to) to.focus();
  };
  const open = (name) => {
    const form = one(`[data-act="${name}"]`);
    if (!form) return null;
    const fold = form.closest("details");
    if (fold) fold.open = true;
    return form;
  };
  const send = (name) => { const form = open(name); if (form) form.requestSubmit(); };
  const start = (name) => {
    const form = open(name);
    const field = form && form.querySelector("[data-first]");
    if (field) field.focus();
  };
  const keys = {
    j: () => step(1),
    k: () => step(-1),
    c: () => {
      const row = document.activeElement.closest(".list tr");
      const button = row ? row.querySelector("button[formaction]") : null;
      if (button) button.click(); else send("claim");
    },
    n: () => {
      if (one("#next")) one("#next").requestSubmit();
      else { start("complete"); const box = one('[data-act="complete"] [name="next"]'); if (box) box.checked = true; }
    },
    a: () => send("agree"),
    r: () => send("release"),
    x: () => start("complete"),
    m: () => start("note"),
    b: () => { const back = one("[data-back]"); if (back) back.click(); },
    h: () => all(".heat-switch").forEach((box) => box.click()),
    "/": () => { const find = one("#find"); if (find) find.focus(); },
    "?": () => { const help = one("#keys"); if (help) { if (help.open) help.close(); else help.showModal(); } },
  };
  for (const level of ["1", "2", "3", "4", "5"]) {
    keys[level] = () => {
      const form = open("impression") || open("override");
      const choice = form && form.querySelector(`[name="level"][value="${level}"]`);
      if (!choice) return;
      choice.checked = true;
      (form.querySelector("[data-first]") || form.querySelector("button")).focus();
    };
  }
  const types = (element) => element.isContentEditable || element.matches("textarea, select, input:not([type=radio]):not([type=checkbox]):not([type=submit])");
  if (document.documentElement.hasAttribute("data-keys")) {
    document.addEventListener("keydown", (event) => {
      const target = event.target instanceof Element ? event.target : document.body;
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        const form = target.closest("form");
        if (form) { event.preventDefault(); form.requestSubmit(); }
        return;
      }
      if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
      if (event.key === "Escape" && types(target)) { target.blur(); return; }
      if (types(target) || !Object.hasOwn(keys, event.key)) return;
      if (one("#keys") && one("#keys").open && event.key !== "?") return;
      event.preventDefault();
      keys[event.key]();
    });
  }

  // ---- news: told above the list, shown when the reader asks ----
  const texts = one("#news-texts");
  const news = one("#news");
  if (texts && news && one("[data-live]") && "EventSource" in window) {
    const seen = new Map(); // referral to its level
    const tell = () => {
      const levels = [...seen.values()];
      const urgent = levels.filter((level) => level <= 2).length;
      const words = [levels.length === 1 ? texts.dataset.one : texts.dataset.many.replace("{n}", levels.length)];
      if (urgent) words.push(texts.dataset.urgent.replace("{n}", urgent));
      news.setAttribute("aria-live", urgent ? "assertive" : "polite");
      const link = document.createElement("a");
      link.href = location.href;
      link.textContent = texts.dataset.show;
      news.replaceChildren(words.join(" ") + " ", link);
      news.hidden = false;
    };
    const source = new EventSource("/app/events");
    // A line that broke is tried again by itself; a refusal is not, and then silence would look like a quiet queue.
    source.addEventListener("error", () => {
      if (source.readyState !== EventSource.CLOSED || seen.size) return;
      news.textContent = texts.dataset.off;
      news.hidden = false;
    });
    const hear = (event) => {
      const update = JSON.parse(event.data);
      const isUp = update.level_before !== null && update.level < update.level_before;
      if (update.kind !== "created" && !isUp) return;
      seen.set(update.referral_id, update.level);
      tell();
    };
    source.addEventListener("created", hear);
    source.addEventListener("reassessed", hear);
    addEventListener("pagehide", () => source.close());
  }

  // ---- a form is sent once ----
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.sent && Date.now() - Number(form.dataset.sent) < 3000) event.preventDefault();
    else if (form.method === "post" && form.id !== "claims") form.dataset.sent = String(Date.now());
  });
})();
