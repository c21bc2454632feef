// JSON in boxes and elsewhere: highlighted, with the line marked that an error speaks of.
"use strict";

window.zerosource = window.zerosource || {};

(() => {
  const TOKEN = /("(?:\\.|[^"\\])*"?)(\s*:)?|-?\d[\d.eE+-]*|\b(?:true|false|null)\b|[\s,:[\]{}]+|[^\s,:[\]{}"]+/g;

  function kind(token, isKey) {
    if (token[0] === '"') return isKey ? (token[1] === "$" ? "operator" : "key") : "string";
    if (/^-?\d/.test(token)) return "number";
    if (/^(true|false|null)$/.test(token)) return "word";
    return /^[\s,:[\]{}]+$/.test(token) ? "" : "wrong";
  }

  function span(name, text) {
    const made = document.createElement("span");
    made.className = name;
    made.textContent = text;
    return made;
  }

  function highlight(text, place, wrongLine = 0) {
    place.replaceChildren();
    text.split("\n").forEach((line, index) => {
      if (index) place.append("\n");
      const made = span(index + 1 === wrongLine ? "zs-line-wrong" : "", "");
      for (const [token, text_, colon] of line.matchAll(TOKEN)) {
        const name = kind(token, Boolean(colon));
        const shown = text_ || token;
        made.append(name ? span(`zs-json-${name}`, shown) : shown);
        if (colon) made.append(colon);
      }
      place.append(made);
    });
  }

  // The text of a box is drawn behind it, so that it is a plain box for keyboards and screen readers.
  function dress(box) {
    if (box.dataset.dressed || box.closest("template")) return;
    box.dataset.dressed = "1";
    const wrap = document.createElement("div");
    wrap.className = "zs-json";
    const back = document.createElement("pre");
    back.setAttribute("aria-hidden", "true");
    box.before(wrap);
    wrap.append(back, box);
    box.rows = 1;
    const draw = () => highlight(`${box.value}\n`, back, Number(box.dataset.wrongLine || 0));
    box.addEventListener("input", () => {
      delete box.dataset.wrongLine;
      draw();
    });
    box.addEventListener("zs:draw", draw);
    draw();
  }

  function set(box, value) {
    const short = JSON.stringify(value);
    box.value = short.length <= 60 ? short.replace(/([,:])(?=\S)/g, "$1 ") : JSON.stringify(value, null, 2);
    if (JSON.stringify(read(box)) !== short) box.value = JSON.stringify(value, null, 2);
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }

  function read(box) {
    try {
      return JSON.parse(box.value || "null");
    } catch {
      return undefined;
    }
  }

  function markWrong(box, messages) {
    const found = /Line (\d+)/.exec(messages.join(" "));
    box.dataset.wrongLine = found ? found[1] : "0";
    box.dispatchEvent(new Event("zs:draw"));
  }

  function dressAll(root) {
    root.querySelectorAll("textarea[data-json]").forEach(dress);
    root.querySelectorAll("[data-highlight]").forEach((place) => highlight(place.textContent, place));
  }

  window.zerosource.json = { dressAll, highlight, markWrong, read, set };
  document.addEventListener("DOMContentLoaded", () => dressAll(document));
})();
