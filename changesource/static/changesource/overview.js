// Keeps the start page fresh: asks for its parts every few seconds and replaces those that changed.
"use strict";

(() => {
  const EVERY_MS = 3000;
  const page = document.getElementById("overview");
  const stale = document.getElementById("overview-stale");

  function replacePart(old, fresh) {
    const focused = old.contains(document.activeElement) && document.activeElement.getAttribute("href");
    if (old.tagName === "DETAILS") fresh.open = old.open;
    if (old.isEqualNode(fresh)) return;
    old.replaceWith(fresh);
    if (focused) fresh.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  function show(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html").body;
    const wanted = [...fresh.children];
    const known = [...page.children];
    if (known.map((part) => part.id).join() !== wanted.map((part) => part.id).join()) {
      page.replaceChildren(...wanted);
      return;
    }
    known.forEach((old, number) => replacePart(old, wanted[number]));
  }

  async function refresh() {
    const answer = await fetch(page.dataset.url, { credentials: "same-origin", redirect: "manual" });
    if (answer.type === "opaqueredirect" || answer.status === 403) {
      return "You are logged out, so this does not refresh. Load the page again.";
    }
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(await answer.text());
    return "";
  }

  async function loop() {
    if (!document.hidden) {
      try {
        stale.textContent = await refresh();
      } catch {
        stale.textContent = "The server does not answer: this is what it said last.";
      }
    }
    setTimeout(loop, EVERY_MS);
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) refresh().catch(() => {});
  });
  setTimeout(loop, EVERY_MS);
})();
