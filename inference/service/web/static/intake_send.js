// The way of a draft to the service: photos in pieces, then the case, again and again until it is acknowledged. Knows no form.
"use strict";
const Sender = (() => {
  const FIRST_WAIT = 1000, LONGEST_WAIT = 60000;
  const PIECE_TIME = 30000, CASE_TIME = 60000;
  const API = "/app/api/";
  const TUS = { "Tus-Resumable": "1.0.0" };
  let settings = null, running = false, again = false, timer = 0, wait = FIRST_WAIT;
  const listeners = [];
  const say = (what) => listeners.forEach((listener) => listener(what));

  class Refused extends Error { // the service has said no, and would say it again
    constructor(status, detail) { super(detail); this.status = status; this.detail = detail; }
  }
  class Later extends Error { // no connection, or too much to do
    constructor(why, isOffline = false) { super(why); this.isOffline = isOffline; }
  }

  const ask = async (path, options, milliseconds) => {
    const stop = new AbortController();
    const late = setTimeout(() => stop.abort(), milliseconds);
    try {
      const answer = await fetch(API + path, { credentials: "same-origin", redirect: "error", cache: "no-store", ...options, signal: stop.signal });
      const text = options.method === "HEAD" || answer.status === 204 ? "" : await answer.text();
      return { status: answer.status, headers: answer.headers, text };
    } catch (error) {
      throw new Later(String(error), true);
    } finally {
      clearTimeout(late);
    }
  };
  const parsed = (answer) => { try { return JSON.parse(answer.text); } catch (error) { throw new Later("cut short", true); } };
  const check = (answer) => {
    if (answer.status < 300) return answer;
    if ([408, 429].includes(answer.status) || answer.status >= 500) throw new Later(String(answer.status));
    let detail = "";
    try { detail = JSON.parse(answer.text).detail || ""; } catch (error) { detail = ""; }
    throw new Refused(answer.status, detail);
  };

  // The photo's bytes from where the service stands; a broken line costs one piece at most.
  const upload = async (id, bytes) => {
    const path = `uploads/${id}`;
    const made = check(await ask(path, { method: "POST", headers: { ...TUS, "Upload-Length": String(bytes.byteLength) } }, PIECE_TIME));
    let offset = Number(made.headers.get("Upload-Offset"));
    while (offset < bytes.byteLength) {
      const answer = await ask(path, {
        method: "PATCH",
        headers: { ...TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": String(offset) },
        body: bytes.slice(offset, offset + settings.photo.chunk),
      }, PIECE_TIME);
      if (answer.status === 409) {
        const found = check(await ask(path, { method: "HEAD", headers: TUS }, PIECE_TIME));
        offset = Number(found.headers.get("Upload-Offset"));
      } else {
        offset = Number(check(answer).headers.get("Upload-Offset"));
      }
      wait = FIRST_WAIT; // the line works
    }
  };

  // Gives the ids whose bytes the phone has lost.
  const uploadAll = async (ids) => {
    const lost = [];
    for (const id of ids) {
      const bytes = await Drafts.getPhoto(id);
      if (bytes) await upload(id, bytes);
      else lost.push(id);
    }
    return lost;
  };

  const post = (draft) => ask("intake/send", {
    method: "POST", headers: { "Content-Type": "application/json", "Idempotency-Key": draft.key }, body: draft.payload,
  }, CASE_TIME);

  // The service says that nothing is stored and that these photos are not there: the case goes without what is lost, and says so.
  const withoutLost = async (draft, lost) => {
    const payload = JSON.parse(draft.payload);
    payload.photos = payload.photos.map((one) => (lost.includes(one.upload) ? { ...one, upload: null } : one));
    const uploads = draft.uploads.filter((id) => !lost.includes(id));
    const changed = { ...draft, payload: JSON.stringify(payload), uploads, key: settings.uuid() };
    await Drafts.change(draft.number, (known) => ({ ...known, payload: changed.payload, uploads, key: changed.key }));
    return changed;
  };

  const sendOne = async (draft) => {
    if (!draft.tried) await Drafts.change(draft.number, (known) => ({ ...known, tried: true }));
    const first = draft.tried ? await post(draft) : null; // it may be stored already, and its uploads gone
    let answer = first;
    if (!answer || (answer.status === 409 && parsed(answer).missing)) {
      const lost = await uploadAll(answer ? parsed(answer).missing : draft.uploads);
      answer = await post(lost.length ? await withoutLost(draft, lost) : draft);
    }
    if (answer.status !== 201) { check(answer); throw new Later(String(answer.status)); }
    const stored = parsed(answer);
    await Drafts.sent(draft, stored);
    say({ kind: "stored", draft, stored });
  };

  const failed = async (draft, error) => { // gives whether the others are to be tried
    say({ kind: "waiting", draft });
    if (!(error instanceof Refused)) return !error.isOffline;
    if ([401, 403].includes(error.status)) { say({ kind: "signed-out" }); return false; }
    if (error.status !== 409) await Drafts.change(draft.number, (known) => ({ ...known, state: "refused", tried: false, problem: error.detail }));
    return true;
  };

  // One walk over the queue. Only one tab walks at a time; the service would not store a case twice anyway.
  const walk = async () => {
    let late = null;
    for (const one of (await Drafts.list(settings.owner)).reverse()) {
      const draft = one.state === "queued" ? await Drafts.get(one.number) : null;
      if (!draft || draft.state !== "queued") continue;
      say({ kind: "sending", draft });
      try {
        await sendOne(draft);
        wait = FIRST_WAIT;
      } catch (error) {
        if (!(error instanceof Refused) || error.status === 409) late = error;
        if (!(await failed(draft, error))) break;
      }
    }
    if (late) throw late;
  };

  const pump = async () => {
    clearTimeout(timer);
    if (running) { again = true; return; }
    running = true;
    try {
      do {
        again = false;
        if (navigator.locks) await navigator.locks.request("nabz-send", walk);
        else await walk();
      } while (again);
      say({ kind: "idle" });
    } catch (error) {
      say({ kind: "offline" });
      timer = setTimeout(pump, wait * (0.75 + Math.random() / 2));
      wait = Math.min(2 * wait, LONGEST_WAIT);
    } finally {
      running = false;
      if (again) { again = false; pump(); }
    }
  };
  const now = () => { wait = FIRST_WAIT; pump(); };

  return {
    onNews: (listener) => listeners.push(listener),
    start(given) {
      settings = given;
      addEventListener("online", now);
      document.addEventListener("visibilitychange", () => { if (document.visibilityState === "visible") now(); });
      pump();
    },
    send: now,
    ask: (path, body) => ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }, 15000),
  };
})();
