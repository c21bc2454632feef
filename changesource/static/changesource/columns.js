// The columns of a table: added, removed, put in order, and marked as the key.
"use strict";

(() => {
  const { json } = window.zerosource;
  let list, total, keyBox;

  const rows = () => [...list.children].filter((row) => !row.hidden);
  const part = (row, name) => row.querySelector(`[name$="-${name}"]`);
  const nameOf = (row) => part(row, "name").value;

  function changed() {
    rows().forEach((row, index) => (part(row, "position").value = index));
    document.querySelector(".zs-empty").hidden = rows().length > 0;
    list.dispatchEvent(new Event("input", { bubbles: true }));
  }

  function keys() {
    const value = json.read(keyBox);
    return Array.isArray(value) ? value : [];
  }

  function setKeys(names) {
    json.set(keyBox, names);
    showKeys();
  }

  function showKeys() {
    const named = keys();
    rows().forEach((row) => (row.querySelector(".zs-key").checked = named.includes(nameOf(row))));
  }

  function open(row, isOpen) {
    row.querySelector(".zs-extra").hidden = !isOpen;
    row.querySelector(".zs-more").setAttribute("aria-expanded", String(isOpen));
  }

  function move(row, step) {
    const shown = rows();
    const other = shown[shown.indexOf(row) + step];
    if (!other) return;
    if (step < 0) other.before(row);
    else other.after(row);
    changed();
  }

  function drag(row, handle) {
    handle.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      handle.focus();
      handle.setPointerCapture(event.pointerId);
      row.classList.add("zs-dragged");
      const follow = (at) => {
        const over = rows().find((other) => {
          const box = other.getBoundingClientRect();
          return other !== row && at.clientY > box.top && at.clientY < box.bottom;
        });
        if (!over) return;
        const box = over.getBoundingClientRect();
        if (at.clientY < box.top + box.height / 2) over.before(row);
        else over.after(row);
      };
      const end = () => {
        row.classList.remove("zs-dragged");
        handle.removeEventListener("pointermove", follow);
        changed();
      };
      handle.addEventListener("pointermove", follow);
      handle.addEventListener("lostpointercapture", end, { once: true });
    });
  }

  function remove(row) {
    const name = nameOf(row);
    part(row, "DELETE").checked = true;
    row.hidden = true;
    if (keys().includes(name)) setKeys(keys().filter((other) => other !== name));
    changed();
  }

  function wire(row) {
    const handle = row.querySelector(".zs-move");
    drag(row, handle);
    handle.addEventListener("keydown", (event) => {
      const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      move(row, step);
      handle.focus();
    });
    row.querySelector(".zs-more").addEventListener("click", () => open(row, row.querySelector(".zs-extra").hidden));
    row.querySelector(".zs-remove").addEventListener("click", () => {
      remove(row);
      document.getElementById("zs-add").focus();
    });
    row.querySelector(".zs-key").addEventListener("change", (event) => {
      const name = nameOf(row);
      const others = keys().filter((other) => other !== name);
      setKeys(event.target.checked ? [...others, name] : others);
    });
    // A column of the key that is renamed stays in the key.
    const name = part(row, "name");
    let before = name.value;
    name.addEventListener("input", () => {
      if (row.querySelector(".zs-key").checked) setKeys(keys().map((key) => (key === before ? name.value : key)));
      before = name.value;
    });
    const extra = row.querySelector(".zs-extra");
    open(row, Boolean(part(row, "expression").value || part(row, "key_type").value || extra.querySelector(".zs-error")));
  }

  function add(values = {}) {
    const holder = document.createElement("ol");
    const template = document.getElementById("zs-new-column");
    holder.innerHTML = template.innerHTML.replaceAll("__prefix__", total.value);
    total.value = Number(total.value) + 1;
    const row = holder.firstElementChild;
    list.append(row);
    for (const name of ["name", "type", "path"]) if (name in values) part(row, name).value = values[name];
    part(row, "optional").checked = Boolean(values.optional);
    json.dressAll(row);
    wire(row);
    return row;
  }

  function tell(row, column) {
    const place = row.querySelector(".zs-seen");
    place.textContent = column.seen;
    const differs = part(row, "type").value !== column.type;
    const misses = column.optional && !part(row, "optional").checked;
    const advice = [differs ? `${column.type} would fit` : "", misses ? "optional would fit" : ""].filter(Boolean);
    if (advice.length) place.textContent += ` · ${advice.join(", ")}`;
    row.classList.toggle("zs-advised", advice.length > 0);
  }

  // Returns how many were added and how many were there before.
  function fill(columns, primaryKey, replace) {
    if (replace) rows().forEach(remove);
    const before = new Map(rows().map((row) => [part(row, "path").value, row]));
    const wasEmpty = before.size === 0;
    let added = 0;
    for (const column of columns) {
      const row = before.get(column.path) || add(column);
      if (!before.has(column.path)) added += 1;
      tell(row, column);
    }
    if (wasEmpty || keys().length === 0) setKeys(primaryKey);
    showKeys();
    changed();
    return { added, kept: before.size };
  }

  function start() {
    const section = document.querySelector("[data-columns]");
    if (!section) return;
    list = document.getElementById("zs-rows");
    total = document.getElementById("id_columns-TOTAL_FORMS");
    keyBox = document.getElementById("id_primary_key");
    [...list.children].forEach((row) => {
      if (part(row, "DELETE").checked) row.hidden = true;
      wire(row);
    });
    const order = (row) => Number(part(row, "position").value);
    list.append(...[...list.children].sort((one, other) => order(one) - order(other)));
    document.getElementById("zs-add").addEventListener("click", () => {
      const row = add();
      changed();
      part(row, "name").focus();
    });
    keyBox.addEventListener("input", showKeys);
    showKeys();
    document.querySelector(".zs-empty").hidden = rows().length > 0;
  }

  window.zerosource.columns = { fill, showExtra: (row) => open(row, true) };
  document.addEventListener("DOMContentLoaded", start);
})();
