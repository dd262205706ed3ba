// The intake page: what is typed is kept on this phone at once, read while there is a connection, and sent until it is acknowledged.
// The same form works without this file. Drafts are kept by intake_drafts.js, sent by intake_send.js, shown by intake_show.js.
"use strict";
(() => {
  const { one } = Show;
  const form = one("#intake"), source = one("#intake-data");
  if (!form || !source || !window.indexedDB || !window.crypto) return;
  const data = JSON.parse(source.dataset.script), texts = data.texts;
  const SAVE_AFTER = 200, READ_AFTER = 700, LOOK_AFTER = 3000;
  const HINT_AFTER = 250; // a hint that appears while a finger is on a button would move the button away from it
  const CURRENT = "nabz-draft";
  let draft = null, release = null, saving = 0, reading = 0, hinting = 0, looking = 0, asked = 0, seen = new Set(), isQueueing = false;
  const busy = new Set();

  // ---- numbers ----
  const random = (n) => crypto.getRandomValues(new Uint8Array(n));
  const newNumber = () => [...random(8)].map((byte) => data.alphabet[byte & 31]).join("").replace(/^(.{4})/, "$1-");
  const uuid = () => {
    const bytes = random(16);
    bytes[6] = (bytes[6] & 15) | 64;
    bytes[8] = (bytes[8] & 63) | 128;
    return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  };
  const latin = (text) => text.replace(/[٠-٩۰-۹]/g, (digit) => String(digit.charCodeAt(0) & 15)).replace(/[,٫]/, ".").trim();
  const numberOf = (text) => { const value = latin(text); return /^[+-]?(\d+\.?\d*|\.\d+)$/.test(value) ? Number(value) : null; };

  // ---- what is typed ----
  const inputs = () => [...form.elements].filter((field) => field.name && field.type !== "hidden" && field.type !== "submit" && field.type !== "button" && !field.closest("#photos, #understood, #question"));
  const collect = () => Object.fromEntries(inputs().filter((field) => field.value && !field.closest("[hidden]")).map((field) => [field.name, field.value.trim()]));
  const isTyped = (fields) => Object.keys(fields).some((name) => name !== "age_unit");
  const isEmpty = () => !isTyped(draft.fields) && !draft.photos.length && !Object.keys(draft.states).length;
  const caseOf = () => {
    const { fields } = draft, made = { case_id: draft.number, vitals: {}, findings: {} };
    for (const name of ["complaint", "sex", "district", "priority"]) if (fields[name]) made[name] = fields[name];
    if (fields.age) {
      const age = numberOf(fields.age);
      made.age_years = age === null ? fields.age : fields.age_unit === "months" ? Math.round(age / 12 * 1e4) / 1e4 : age;
    }
    if (fields.pregnant) made.pregnant = fields.pregnant === "yes";
    for (const name of data.vitals) {
      if (!fields[name]) continue;
      const value = numberOf(fields[name]);
      made.vitals[name] = name === "on_oxygen" ? fields[name] === "yes" : name === "consciousness" || value === null ? fields[name] : value;
    }
    for (const [code, value] of Object.entries(draft.states)) if (value !== "not_said") made.findings[code] = value;
    return made;
  };
  const notSaid = () => Object.keys(draft.states).filter((code) => draft.states[code] === "not_said");
  const photoOf = (photo) => {
    const said = Object.entries(photo.said).filter(([, value]) => value).map(([name, value]) => [name, name === "body_site" ? value : value === "yes"]);
    return { upload: photo.id, name: photo.name, ...Object.fromEntries(said) };
  };

  // ---- keeping it ----
  const blank = () => ({ number: newNumber(), owner: data.owner, state: "open", fields: {}, states: {}, skipped: [], photos: [], tried: false });
  const say = (text, id = "#saved") => { one(id).textContent = text; };
  const keep = async () => {
    clearTimeout(saving);
    saving = 0;
    const mine = draft;
    mine.fields = collect();
    if (isEmpty()) return;
    sessionStorage.setItem(CURRENT, mine.number);
    try {
      if (await Drafts.save(mine)) say(texts.saved);
      else if (mine === draft) await begin(blank()); // another tab has queued it
    } catch (error) { say(texts.not_saved); }
  };
  const keepSoon = () => { if (!saving) saving = setTimeout(keep, SAVE_AFTER); };
  const keepNow = () => { if (saving) keep(); };
  const hold = (number) => new Promise((resolve) => {
    if (!navigator.locks) { resolve(() => {}); return; }
    navigator.locks.request(`nabz-draft-${number}`, { ifAvailable: true }, (lock) => {
      if (!lock) { resolve(null); return null; }
      return new Promise((done) => resolve(done));
    });
  });
  // `isFirst`: the form as the page came, in which somebody may have written before this script was here. Nothing of that is lost.
  const begin = async (next, isFirst = false) => {
    if (!isFirst) form.inert = true; // a letter that came between two drafts would be in neither
    const mine = await hold(next.number);
    if (!mine) return begin(blank(), isFirst);
    const early = isFirst ? collect() : {};
    if (isTyped(early) && isTyped(next.fields)) { mine(); return begin(blank(), true); }
    if (release) release();
    release = mine;
    draft = { ...next, state: "open", problem: "", tried: false, key: null, payload: null };
    sessionStorage.setItem(CURRENT, draft.number);
    if (isTyped(early)) {
      draft.fields = early;
      keepSoon();
    } else {
      form.reset();
      for (const field of inputs()) if (draft.fields[field.name]) field.value = draft.fields[field.name];
    }
    const fold = one("#f-district").closest("details");
    fold.open = fold.open || ["district", "priority", "name", "phone"].some((name) => draft.fields[name]);
    one("#number").textContent = draft.number;
    form.elements.number.value = draft.number;
    form.inert = false;
    seen = new Set();
    say("");
    showPregnant();
    Show.hints(new Map(), texts, apply);
    Show.findings(one("#understood"), { findings: [], not_understood: [] }, "", {}, texts, correct);
    Show.question(one("#question"), null, "", texts);
    await showPhotos();
    showDrafts();
    read();
    return null;
  };

  // ---- hints ----
  const showPregnant = () => {
    const age = numberOf(one("#f-age").value), isYears = one("#f-age_unit").value !== "months";
    const [from, to] = data.pregnancy;
    one("#f-pregnant").closest(".field").hidden = one("#f-sex").value !== "female" || (age !== null && (!isYears || age < from || age > to));
  };
  const hintsSoon = () => { clearTimeout(hinting); hinting = setTimeout(hints, HINT_AFTER); };
  const hints = () => {
    clearTimeout(hinting);
    const given = {}, strange = [];
    for (const name of ["age", ...data.vitals]) {
      const field = one(`#f-${name}`), value = field.value && field.tagName === "INPUT" ? numberOf(field.value) : undefined;
      if (value === null) strange.push(name);
      else if (value !== undefined) given[name] = value;
    }
    const found = Show.hintsFor(given, data.rules);
    for (const name of strange) found.set(name, { code: `${name}?`, text: texts.not_a_number, fix: [] });
    Show.hints(found, texts, apply);
    return [...found.values()].map((hint) => `${hint.code} ${one(`#f-${hint.field || "age"}`).value}`);
  };
  const apply = (fix) => {
    for (const [name, value] of fix) one(`#f-${name}`).value = value;
    hints();
    keepSoon();
    readSoon();
  };

  // ---- reading it ----
  const readSoon = () => { clearTimeout(reading); reading = setTimeout(read, READ_AFTER); };
  const read = async () => {
    clearTimeout(reading);
    draft.fields = collect();
    if (isEmpty() || !navigator.onLine) return;
    asked += 1;
    const turn = asked, complaint = draft.fields.complaint || "";
    let answer = null;
    try { answer = await Sender.ask("intake/read", { case: caseOf(), skipped: draft.skipped }); } catch (error) { return; }
    if (turn !== asked || answer.status !== 200) return;
    const said = JSON.parse(answer.text);
    Show.findings(one("#understood"), said, complaint, draft.states, texts, correct);
    Show.question(one("#question"), said.question, said.stop, texts, reply, enter, skip);
  };
  const correct = (finding, value) => {
    if (value === finding.value && finding.span) delete draft.states[finding.code];
    else if (value === "not_said" && !finding.span) delete draft.states[finding.code];
    else draft.states[finding.code] = value;
    keepSoon();
    readSoon();
  };
  const reply = (question, value) => {
    if (question.kind === "finding") draft.states[question.code] = value;
    else one(`#f-${question.code}`).value = { true: "yes", false: "no" }[value] || value;
    keepSoon();
    read();
  };
  const enter = (question) => one(`#f-${question.code}`).focus();
  const skip = (question) => { draft.skipped.push(question.code); keepSoon(); read(); };

  // ---- photos ----
  const urls = [];
  const showPhotos = async () => {
    urls.splice(0).forEach((url) => URL.revokeObjectURL(url));
    const shown = [];
    for (const photo of draft.photos) {
      const bytes = await Drafts.getPhoto(photo.id).catch(() => null);
      const url = URL.createObjectURL(new Blob(bytes ? [bytes] : [], { type: "image/jpeg" }));
      urls.push(url);
      shown.push(Show.photo(one("#photo-block"), photo, url, data.advice, texts,
        (name, value) => { photo.said[name] = value; keepSoon(); },
        async () => { draft.photos = draft.photos.filter((other) => other !== photo); await keep(); await Drafts.removePhoto(photo.id); await showPhotos(); }));
    }
    one("#photo-list").replaceChildren(...shown);
  };
  const addPhoto = async (file) => {
    const into = draft;
    if (into.photos.length >= data.photo.most) { say(texts.most_photos); return; }
    let ready = null;
    try { ready = await Photo.prepare(file, data.photo, data.gate); } catch (error) { say(texts.no_photo); return; }
    if (ready.bytes.byteLength > data.photo.largest) { say(texts.photo_too_large); return; }
    const photo = { id: uuid(), name: file.name || "photo.jpg", wrong: ready.wrong, said: {} };
    try { await Drafts.putPhoto(photo.id, into.number, ready.bytes); } catch (error) { say(texts.not_saved); return; }
    into.photos.push(photo);
    if (into !== draft) return;
    await keep();
    await showPhotos();
  };

  // ---- sending it ----
  const queue = async () => {
    draft.fields = collect();
    const found = hints(), problems = [];
    if (found.some((hint) => !seen.has(hint))) problems.push(texts.look);
    if (isEmpty() && !seen.has("empty")) { problems.push(texts.empty); found.push("empty"); }
    found.forEach((hint) => seen.add(hint));
    if (problems.length) {
      tell([problems.join(" ")]);
      const first = one('[aria-invalid="true"]') || one("#f-complaint");
      first.focus();
      return;
    }
    clearTimeout(saving);
    const { name, phone } = draft.fields, at = new Date().toISOString();
    const patient = name || phone ? { ...(name && { name }), ...(phone && { phone }) } : null;
    const payload = JSON.stringify({ case: { ...caseOf(), received_at: at }, patient, photos: draft.photos.map(photoOf), not_said: notSaid(), owner: data.owner });
    const queued = { ...draft, state: "queued", key: uuid(), payload, at, uploads: draft.photos.map((photo) => photo.id) };
    try {
      await Drafts.save(queued);
    } catch (error) { say(texts.not_saved); return; }
    tell([`${texts.queued} `, Show.number(queued.number)]);
    await begin(blank());
    Sender.send();
  };
  const tell = (parts) => {
    const line = one("#line");
    line.replaceChildren(...parts);
    line.hidden = false;
    line.scrollIntoView({ block: "nearest" });
  };
  const hear = (news) => {
    if (news.kind === "sending") busy.add(news.draft.number);
    else if (news.draft) busy.delete(news.draft.number);
    if (news.kind === "stored") {
      const { stored } = news;
      tell([`${texts.stored} `, Show.number(news.draft.number), ` · ${stored.level_name}. ${stored.wait} `, Show.make("a", { href: stored.url, textContent: texts.result })]);
    } else if (news.kind === "signed-out") {
      tell([Show.make("a", { href: "/app/sign-in", textContent: texts.sign_in })]);
    } else if (news.kind === "offline" && !navigator.onLine) tell([texts.offline]);
    showDrafts();
  };

  // ---- drafts ----
  const showDrafts = async () => {
    const drafts = await Drafts.list(data.owner).catch(() => []);
    const locks = navigator.locks ? (await navigator.locks.query()).held.map((lock) => lock.name.replace("nabz-draft-", "")) : [];
    const held = new Set(locks.filter((number) => number !== draft.number));
    clearTimeout(looking);
    if (held.size) looking = setTimeout(showDrafts, LOOK_AFTER); // nothing tells when another tab is closed
    Show.drafts(one("#drafts"), drafts.map((one_) => ({ ...one_, sending: busy.has(one_.number) })), held, draft.number, texts, {
      open: async (number) => { keepNow(); const found = await Drafts.get(number); if (found) await begin(found); one("#f-complaint").focus(); },
      remove: (number) => Drafts.remove(number),
      print,
    });
  };
  const print = (sent) => {
    const paper = one("#paper");
    one("[data-number]", paper).textContent = sent.number;
    one("[data-clinic]", paper).textContent = data.clinic;
    one("[data-time]", paper).textContent = new Date(sent.at || sent.updated).toLocaleString(data.language === "ur" ? "ur-PK-u-nu-latn" : "en-GB");
    paper.hidden = false;
    document.body.classList.add("printing-slip");
    addEventListener("afterprint", () => { paper.hidden = true; document.body.classList.remove("printing-slip"); }, { once: true });
    window.print();
  };

  // ---- the page ----
  const worker = () => {
    if (!("serviceWorker" in navigator)) return;
    const trusted = window.trustedTypes ? window.trustedTypes.createPolicy("nabz", { createScriptURL: (url) => { if (url !== "/app/sw.js") throw new TypeError(url); return url; } }) : null;
    navigator.serviceWorker.register(trusted ? trusted.createScriptURL("/app/sw.js") : "/app/sw.js", { scope: "/app/", updateViaCache: "none" }).catch(() => {});
  };
  const takeOver = async () => {
    await Drafts.sweep(); // where there is no keeping, the form stays as it is without this file
    document.querySelectorAll(".no-script, .plain-photo").forEach((element) => element.remove());
    document.querySelectorAll(".with-script").forEach((element) => { element.hidden = false; });
    one("#understood").replaceChildren();
    form.addEventListener("input", (event) => {
      if (event.target.closest("#understood, #question, #photos")) return;
      showPregnant();
      keepSoon();
      readSoon();
    });
    form.addEventListener("change", (event) => { if (!event.target.closest("#understood, #question, #photos")) hintsSoon(); });
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (isQueueing) return;
      isQueueing = true;
      try { await queue(); } finally { isQueueing = false; }
    });
    one("#fresh").addEventListener("click", async () => { form.inert = true; await keep(); await begin(blank()); one("#f-complaint").focus(); });
    one("#photo-file").addEventListener("change", async (event) => { const files = [...event.target.files]; event.target.value = ""; for (const file of files) await addPhoto(file); });
    document.addEventListener("visibilitychange", () => { if (document.visibilityState === "hidden") keepNow(); });
    addEventListener("pagehide", keepNow);
    const last = sessionStorage.getItem(CURRENT), found = last ? await Drafts.get(last) : null;
    await begin(found && found.owner === data.owner && ["open", "refused"].includes(found.state) ? found : blank(), true);
    form.dataset.ready = "1";
  };
  const start = async () => {
    data.uuid = uuid;
    draft = blank();
    try {
      if (!form.hasAttribute("data-plain")) await takeOver();
      Drafts.onChange(showDrafts);
      Sender.onNews(hear);
      Sender.start(data);
    } catch (error) { form.inert = false; say(texts.not_saved); }
    addEventListener("offline", () => tell([texts.offline]));
    addEventListener("online", () => { one("#line").hidden = true; read(); });
    for (const choice of document.querySelectorAll('form[action="/app/choices"]')) {
      choice.addEventListener("submit", (event) => {
        keepNow();
        if (navigator.onLine) return;
        event.preventDefault();
        location.assign(`/app/intake?lang=${event.submitter.value}`);
      });
    }
    worker();
    showDrafts();
  };
  start();
})();
