// What the intake page shows beside its fields: hints, findings, the question, drafts, photos. Writes text only, never HTML.
"use strict";
const Show = (() => {
  const one = (selector, within = document) => within.querySelector(selector);
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const button = (text, act, className = "") => {
    const element = make("button", { type: "button", className, textContent: text });
    element.addEventListener("click", act);
    return element;
  };
  const number = (text) => make("bdi", { lang: "en", textContent: text });
  const quoted = (text) => make("q", { dir: "auto", textContent: text });

  // ---- hints: the rules of intake_hints.py ----
  const signs = { "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b };
  const written = (value) => String(Math.round(value * 10) / 10);
  const hintsFor = (given, rules) => {
    const found = new Map();
    for (const rule of rules) {
      const holds = ([name, sign, value]) => {
        const other = typeof value === "string" ? given[value] : value;
        return given[name] !== undefined && other !== undefined && signs[sign](given[name], other);
      };
      if (found.has(rule.field) || !rule.if.every(holds)) continue;
      const fix = Object.entries(rule.fix).map(([name, [from, factor, added]]) => [name, written(given[from] * factor + added)]);
      found.set(rule.field, { ...rule, fix });
    }
    return found;
  };
  let listed = "";
  const nameOf = (field) => one(`label[for="f-${field}"]`).firstChild.textContent.trim();

  return {
    one, make, button, number, hintsFor,

    hints(found, texts, apply) {
      for (const place of document.querySelectorAll("[data-hint]")) {
        const hint = found.get(place.dataset.hint);
        const field = one(`#f-${place.dataset.hint}`);
        field.toggleAttribute("aria-invalid", Boolean(hint));
        if (hint) field.setAttribute("aria-invalid", "true");
        const fix = hint && hint.fix.length ? hint.fix.map(([name, value]) => `${nameOf(name)} ${value}`).join(", ") : "";
        place.replaceChildren(...(hint ? [make("p", {}, hint.text, " ", ...(fix ? [button(texts.use.replace("{value}", fix), () => apply(hint.fix))] : []))] : []));
      }
    },

    // `states`: the health worker's corrections by code; `correct(finding, value)` is called for each.
    findings(place, read, complaint, states, texts, correct) {
      const focused = document.activeElement && place.contains(document.activeElement) ? document.activeElement : null;
      const lines = read.findings.map((finding) => {
        const options = finding.is_choice ? [[finding.value, texts.there]] : [["present", texts.there], ["absent", texts.not_there]];
        options.push(["not_said", texts.not_said]);
        const legend = make("legend", {}, finding.text, " ", ...(finding.span ? [quoted([...complaint].slice(...finding.span).join(""))] : []));
        const choices = make("div", { className: "choices" });
        for (const [value, text] of options) {
          const box = make("input", { type: "radio", name: `x.${finding.code}.${finding.value}`, value, checked: (states[finding.code] || finding.value) === value });
          box.addEventListener("change", () => correct(finding, value));
          choices.append(make("label", {}, box, ` ${text}`));
        }
        return make("fieldset", { className: "finding" }, legend, choices);
      });
      const strange = read.not_understood.length ? [make("p", { className: "quiet" }, `${texts.not_understood} `, ...read.not_understood.flatMap((word) => [quoted(word), " "]))] : [];
      place.replaceChildren(...lines, ...strange);
      if (focused && focused.name) {
        const same = [...place.querySelectorAll("input")].find((box) => box.name.split(".")[1] === focused.name.split(".")[1] && box.checked);
        if (same) same.focus();
      }
    },

    question(place, question, stop, texts, answer, enter, skip) {
      if (!question) { place.replaceChildren(...(stop ? [make("p", { className: "quiet", textContent: stop })] : [])); return; }
      const buttons = question.answers.map((one_) => button(one_.text, () => answer(question, one_.value), "main"));
      if (!buttons.length) buttons.push(button(texts.enter, () => enter(question), "main"));
      place.replaceChildren(
        make("p", { className: "big", textContent: question.text }),
        make("p", { className: "quiet small", textContent: question.why }),
        make("p", { className: "acts" }, ...buttons, button(texts.skip, () => skip(question))),
      );
    },

    // `acts`: open, remove, print; `held`: numbers that are open in another window.
    drafts(section, drafts, held, current, texts, acts) {
      const others = drafts.filter((draft) => draft.number !== current);
      const now = JSON.stringify(others.map((draft) => [draft.number, draft.state, draft.sending, draft.fields && draft.fields.complaint, draft.problem, held.has(draft.number)]));
      if (now === listed) return; // a button that is replaced under a finger is not pressed
      listed = now;
      const items = others.map((draft) => {
        const state = held.has(draft.number) ? texts.elsewhere : { open: texts.unfinished, queued: draft.sending ? texts.sending : texts.waiting, sent: texts.sent, refused: texts.refused }[draft.state];
        const words = draft.fields ? (draft.fields.complaint || texts.untitled).slice(0, 60) : [draft.levelName, draft.wait].filter(Boolean).join(" · ");
        const item = make("li", {}, number(draft.number), " ", make("strong", { textContent: state }), " ", make("bdi", { dir: "auto", textContent: words }));
        item.dataset.number = draft.number;
        item.dataset.state = draft.state;
        if (draft.problem) item.append(make("span", { className: "small", lang: "en", dir: "ltr", textContent: draft.problem }));
        if (["open", "refused"].includes(draft.state) && !held.has(draft.number)) {
          item.append(button(texts.open, () => acts.open(draft.number)));
          const gone = button(texts.remove, () => { if (gone.textContent === texts.sure) acts.remove(draft.number); else gone.textContent = texts.sure; }, "plain");
          item.append(gone);
        }
        if (draft.state === "sent") item.append(make("a", { className: "button", href: draft.url, textContent: texts.result }));
        if (draft.state !== "open") item.append(button(texts.slip, () => acts.print(draft), "plain"));
        return item;
      });
      one("ul", section).replaceChildren(...items);
      section.hidden = !items.length;
    },

    photo(block, photo, url, advice, texts, said, remove) {
      const element = block.content.cloneNode(true).firstElementChild;
      one("img", element).src = url;
      one("[data-name]", element).textContent = photo.name;
      one("[data-remove]", element).addEventListener("click", remove);
      one(".advice", element).append(...(photo.wrong.length ? photo.wrong.map((code) => advice[code]) : [texts.good_photo]).map((text) => make("li", { textContent: text })));
      element.dataset.wrong = photo.wrong.join(" ");
      for (const select of element.querySelectorAll("select")) {
        const label = one(`label[for="${CSS.escape(select.id)}"]`, element);
        select.id = `${photo.id}-${select.dataset.said}`;
        label.htmlFor = select.id;
        select.removeAttribute("name");
        select.value = photo.said[select.dataset.said] || "";
        select.addEventListener("change", () => said(select.dataset.said, select.value));
      }
      return element;
    },
  };
})();
