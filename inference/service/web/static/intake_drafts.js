// Drafts on this phone: an IndexedDB that keeps what was typed, its photos, and what was sent. Knows no page and no network.
"use strict";
const Drafts = (() => {
  const NAME = "nabz-intake";
  const DAY = 24 * 3600 * 1000;
  const SENT_KEPT = 14 * DAY; // of a sent case its number alone, so that its slip can be printed again
  let opened = null;

  const open = () => {
    opened = opened || new Promise((resolve, reject) => {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore("drafts", { keyPath: "number" });
        request.result.createObjectStore("photos", { keyPath: "id" }).createIndex("number", "number");
      };
      request.onsuccess = () => {
        request.result.onversionchange = () => { request.result.close(); opened = null; };
        request.result.onclose = () => { opened = null; };
        resolve(request.result);
      };
      request.onerror = () => reject(request.error);
      request.onblocked = () => reject(new Error("blocked"));
    }).catch((error) => { opened = null; throw error; });
    return opened;
  };

  // One transaction; what `work` returns is given once it is on the disk.
  const run = async (mode, work) => {
    const database = await open();
    return new Promise((resolve, reject) => {
      const transaction = database.transaction(["drafts", "photos"], mode, { durability: "strict" });
      let answer;
      transaction.oncomplete = () => resolve(answer && answer.result !== undefined ? answer.result : answer);
      transaction.onabort = transaction.onerror = () => reject(transaction.error || new Error("aborted"));
      answer = work(transaction.objectStore("drafts"), transaction.objectStore("photos"));
    });
  };

  const tell = "BroadcastChannel" in window ? new BroadcastChannel(NAME) : null;
  const listeners = [];
  const changed = () => { listeners.forEach((listener) => listener()); if (tell) tell.postMessage("changed"); };
  if (tell) tell.onmessage = () => listeners.forEach((listener) => listener());

  return {
    onChange: (listener) => listeners.push(listener),
    get: (number) => run("readonly", (drafts) => drafts.get(number)).then((found) => (found && found.number ? found : null)),
    async list(owner) {
      const all = await run("readonly", (drafts) => drafts.getAll());
      return all.filter((one) => one.owner === owner).sort((one, other) => other.updated - one.updated);
    },
    // What is being written: never over a draft that was queued or sent meanwhile, in another tab.
    async save(draft) {
      const kept = await run("readwrite", (drafts) => {
        const known = drafts.get(draft.number);
        const answer = { result: true };
        known.onsuccess = () => {
          if (known.result && !["open", "refused"].includes(known.result.state)) answer.result = false;
          else drafts.put({ ...draft, updated: Date.now() });
        };
        return answer;
      });
      changed();
      return kept;
    },
    // A change of a draft that is there; nothing where it has gone.
    async change(number, edit) {
      await run("readwrite", (drafts) => {
        const known = drafts.get(number);
        known.onsuccess = () => { if (known.result) drafts.put({ ...edit(known.result), updated: Date.now() }); };
      });
      changed();
    },
    // The service has it: what the patient said goes, the number stays. Both in one transaction.
    async sent(draft, answer) {
      await run("readwrite", (drafts, photos) => {
        drafts.put({
          number: draft.number, owner: draft.owner, state: "sent", updated: Date.now(), at: draft.at,
          id: answer.id, url: answer.url, level: answer.level, levelName: answer.level_name, wait: answer.wait,
        });
        const own = photos.index("number").getAllKeys(draft.number);
        own.onsuccess = () => own.result.forEach((id) => photos.delete(id));
      });
      changed();
    },
    async remove(number) {
      await run("readwrite", (drafts, photos) => {
        drafts.delete(number);
        const own = photos.index("number").getAllKeys(number);
        own.onsuccess = () => own.result.forEach((id) => photos.delete(id));
      });
      changed();
    },
    async sweep() {
      await run("readwrite", (drafts) => {
        const all = drafts.getAll();
        all.onsuccess = () => all.result.forEach((one) => { if (one.state === "sent" && Date.now() - one.updated > SENT_KEPT) drafts.delete(one.number); });
      });
    },
    // Bytes, not a Blob: what a Blob of IndexedDB rests on has been lost by browsers, bytes have not.
    putPhoto: (id, number, bytes) => run("readwrite", (_, photos) => { photos.put({ id, number, bytes }); }),
    getPhoto: (id) => run("readonly", (_, photos) => photos.get(id)).then((found) => (found && found.bytes ? found.bytes : null)),
    removePhoto: (id) => run("readwrite", (_, photos) => { photos.delete(id); }),
  };
})();
