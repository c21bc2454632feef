// The editor of a table: asks for collections, columns, previews and checks, and shows what is wrong where it is.
"use strict";

(() => {
  const { json, columns } = window.zerosource;
  const WAIT = 500; // milliseconds after the last key
  const byId = (id) => document.getElementById(id);
  let form, urls, timer, asked;

  async function ask(url, body) {
    const answer = await fetch(url, { method: body ? "POST" : "GET", body });
    if (!answer.ok) throw new Error(`The server answered ${answer.status}.`);
    return answer.json();
  }

  const address = (url) => `${url}?id=${urls.id}`;

  function holder(name) {
    const found = form.querySelector(`[data-errors="${CSS.escape(name)}"]`);
    if (found) return found;
    const box = form.elements[name] || form.firstElementChild;
    const made = document.createElement("div");
    made.className = "zs-errors";
    made.dataset.errors = name;
    made.id = `${name || "form"}-errors`;
    (box.closest(".zs-json") || box).after(made);
    return made;
  }

  function clearErrors() {
    form.querySelectorAll(".zs-errors").forEach((place) => place.replaceChildren());
    // Those that came with the page.
    form.querySelectorAll("fieldset .grow > .text-red-600").forEach((place) => place.remove());
    form.querySelectorAll("[aria-invalid]").forEach((box) => {
      box.removeAttribute("aria-invalid");
      if (box.dataset.json !== undefined) json.markWrong(box, []);
    });
  }

  function showErrors(errors) {
    clearErrors();
    for (const [name, messages] of Object.entries(errors)) {
      const place = holder(name);
      for (const message of messages) {
        const line = document.createElement("p");
        line.className = "zs-error";
        line.textContent = message;
        place.append(line);
      }
      const box = form.elements[name];
      if (!(box instanceof HTMLElement)) continue;
      box.setAttribute("aria-invalid", "true");
      box.setAttribute("aria-describedby", place.id);
      if (box.dataset.json !== undefined) json.markWrong(box, messages);
      const row = box.closest(".zs-column");
      if (row && box.closest(".zs-extra")) columns.showExtra(row);
      const details = box.closest("details");
      if (details) details.open = true;
    }
    return Object.keys(errors).length > 0;
  }

  // While one types, what is not there yet is no mistake.
  function begun(errors) {
    const kept = Object.entries(errors).map(([name, messages]) => [
      name,
      messages.filter((message) => !/is required|names no column|needs at least one column/.test(message)),
    ]);
    return Object.fromEntries(kept.filter(([, messages]) => messages.length));
  }

  async function check() {
    asked?.abort();
    asked = new AbortController();
    const body = new FormData(form);
    try {
      const answer = await fetch(address(urls.draft), { method: "POST", body, signal: asked.signal });
      if (!answer.ok) return;
      const found = await answer.json();
      showErrors(begun(found.errors));
      if (found.typescript) byId("zs-typescript").textContent = found.typescript;
      byId("zs-typescript").classList.toggle("zs-stale", !found.typescript);
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    }
  }

  function later() {
    clearTimeout(timer);
    timer = setTimeout(check, WAIT);
  }

  // While something is asked its button says so, and is not pressed twice.
  async function busy(button, place, work) {
    button.disabled = true;
    button.classList.add("zs-busy");
    try {
      await work();
    } catch (error) {
      const line = document.createElement("p");
      line.className = "zs-error";
      line.textContent = error.message;
      place.replaceChildren(line);
    } finally {
      button.disabled = false;
      button.classList.remove("zs-busy");
    }
  }

  function infer(replace) {
    const place = byId("zs-inferred");
    return busy(byId("zs-infer"), place, async () => {
      clearTimeout(timer);
      asked?.abort();
      const found = await ask(address(urls.infer), new FormData(form));
      place.replaceChildren();
      if (showErrors(found.errors)) return;
      place.innerHTML = found.html;
      if (!found.columns.length) return;
      const name = form.elements.name;
      if (!name.value) {
        name.value = found.name;
        name.dataset.proposed = "1";
      }
      const { added, kept } = columns.fill(found.columns, found.primaryKey, replace);
      const idType = form.elements.id_type;
      if (replace || !kept || !idType.value) idType.value = found.idType;
      tellApplied(place, added, kept);
      place.querySelectorAll("[data-field]").forEach((chip) => chip.addEventListener("click", () => only(chip)));
    });
  }

  function tellApplied(place, added, kept) {
    if (!kept) return;
    const told = place.querySelector("[data-applied]");
    told.textContent = `${added} added, ${kept} kept as they are. `;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "zs-link";
    button.textContent = "Use the proposed columns alone";
    button.addEventListener("click", () => infer(true));
    told.append(button);
  }

  function only(chip) {
    const filter = json.read(form.elements.filter) || {};
    json.set(form.elements.filter, { ...filter, [chip.dataset.field]: chip.dataset.value });
    const name = form.elements.name;
    if (name.dataset.proposed) name.value = "";
    return infer(true).then(() => {
      if (name.dataset.proposed) name.value = chip.dataset.value.replace(/[^A-Za-z0-9_-]+/g, "_");
      later();
    });
  }

  function preview() {
    const place = byId("zs-preview");
    return busy(byId("zs-show"), place, async () => {
      const body = new FormData(form);
      body.set("document_id", byId("zs-document-id").value);
      const found = await ask(address(urls.preview), body);
      if (showErrors(found.errors)) {
        place.textContent = "Correct what is marked above first.";
        const wrong = form.querySelector("[aria-invalid]");
        wrong?.focus();
        return;
      }
      place.innerHTML = found.html;
      json.dressAll(place);
    });
  }

  async function loadCollections() {
    const found = await ask(urls.collections);
    const list = byId("zs-collections");
    list.replaceChildren(...found.collections.map((name) => new Option(name, name)));
    if (!found.problem) return;
    const line = document.createElement("p");
    line.className = "zs-note";
    line.textContent = `Which collections there are is not known: ${found.problem}`;
    list.after(line);
  }

  async function loadChecks(place) {
    const answer = await fetch(place.dataset.load);
    if (answer.ok) place.innerHTML = await answer.text();
    else place.textContent = `The server answered ${answer.status}.`;
  }

  function start() {
    const checks = document.querySelector("[data-load]");
    if (checks) loadChecks(checks);
    form = byId("tablemapping_form");
    const place = document.querySelector("[data-editor]");
    if (!form || !place) return;
    urls = place.dataset;
    byId("zs-show")?.addEventListener("click", preview);
    byId("zs-document-id")?.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      preview();
    });
    if (!urls.infer) return;
    loadCollections();
    byId("zs-infer").addEventListener("click", () => infer(false));
    form.addEventListener("input", (event) => {
      if (event.target === byId("zs-document-id")) return;
      if (event.target === form.elements.name) delete form.elements.name.dataset.proposed;
      later();
    });
    form.querySelectorAll(".text-red-600, .zs-error").forEach((error) => {
      const box = error.closest(".grow")?.querySelector("textarea[data-json]");
      if (box) json.markWrong(box, [error.textContent]);
    });
  }

  document.addEventListener("DOMContentLoaded", start);
})();
