// Keeps the intake page's shell, so that it opens without a connection: the empty form as last seen in each language, its scripts and
// styles. Never an answer with anything of a patient: the page itself says by a header that it holds none. SHELL comes from the service.
"use strict";
const CACHE = `nabz-intake-${SHELL.version}`;
const PAGE = "/app/intake";
const PATIENCE = 3000;

const isShell = (answer) => answer.ok && !answer.redirected && answer.headers.get("Nabz-Shell") === "1";

const keep = async (answer) => {
  const cache = await caches.open(CACHE);
  await cache.put(`${PAGE}?lang=${answer.headers.get("Content-Language")}`, answer.clone());
  await cache.put(PAGE, answer);
};

const kept = async (url) => {
  const cache = await caches.open(CACHE);
  const wanted = url.searchParams.get("lang");
  return (wanted && await cache.match(`${PAGE}?lang=${wanted}`)) || cache.match(PAGE);
};

// Network first; after three seconds, or without a connection, what was kept. What comes late is kept for the next time.
const page = async (event, url) => {
  const fresh = fetch(event.request).then(async (answer) => {
    if (isShell(answer)) await keep(answer.clone());
    return answer;
  });
  event.waitUntil(fresh.catch(() => null));
  const late = new Promise((resolve) => setTimeout(() => resolve(kept(url)), PATIENCE));
  const first = await Promise.race([fresh.catch(() => null), late]);
  return first || await kept(url) || fresh;
};

const file = async (request) => {
  const cache = await caches.open(CACHE);
  return await cache.match(request) || fetch(request);
};

self.addEventListener("install", (event) => {
  event.waitUntil((async () => {
    const cache = await caches.open(CACHE);
    await cache.addAll(SHELL.files);
    const answer = await fetch(PAGE, { cache: "no-store" }); // without a connection the older worker stays, with a page that fits it
    if (isShell(answer)) await keep(answer);
    await self.skipWaiting();
  })());
});

self.addEventListener("activate", (event) => {
  event.waitUntil((async () => {
    const names = await caches.keys();
    await Promise.all(names.filter((name) => name.startsWith("nabz-intake-") && name !== CACHE).map((name) => caches.delete(name)));
    await self.clients.claim();
  })());
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (url.origin !== self.location.origin) return;
  if (event.request.method === "POST" && url.pathname === "/app/sign-out") { // the next one at this phone signs in first
    event.waitUntil(caches.open(CACHE).then(async (cache) => {
      for (const request of await cache.keys()) if (new URL(request.url).pathname === PAGE) await cache.delete(request);
    }));
    return;
  }
  if (event.request.method !== "GET") return;
  if (event.request.mode === "navigate" && url.pathname === PAGE) event.respondWith(page(event, url));
  else if (SHELL.files.includes(url.pathname)) event.respondWith(file(event.request));
});
