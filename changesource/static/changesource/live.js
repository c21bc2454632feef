// The live page: asks for a message, shows it, asks for the next. What comes from outside is only ever set as text.
"use strict";

(() => {
  const MAX_LINES = 500;
  const MAX_PREVIEW = 400; // characters of a row in a line that is not open
  const SLOWEST_RETRY = 10000;
  const NO_VIEWER = 4003;
  const NO_WATCHER =
    "No watcher is heard, so nothing is shown here. One is at work where mappings are published and serve (without" +
    " --no-watcher) or manage.py runwatcher runs, with the same REDIS_URL. Replicas get every change all the same.";

  const page = document.getElementById("live");
  const form = page.querySelector("form");
  const { table, key, pause, clear } = form.elements;
  const log = page.querySelector("[data-place=log]");
  const status = page.querySelector("[data-place=status]");
  const figures = Object.fromEntries([...page.querySelectorAll("[data-figure]")].map((at) => [at.dataset.figure, at]));

  let socket;
  let retry = 500;
  let typed;
  let paused = false;
  let missed = 0; // by this connection, as it was last told
  let missedBefore = 0; // what of it is not to be counted
  let passedWhilePaused = 0;

  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const number = (value) => value.toLocaleString("en-US");

  // The status is read out, so it is only touched when it changes.
  const tell = (state, text) => {
    page.dataset.state = state;
    if (status.textContent !== text) status.textContent = text;
  };

  const ask = () => {
    if (socket.readyState === WebSocket.OPEN) {
      socket.send(JSON.stringify({ table: table.value, key: key.value.trim(), paused }));
    }
  };

  const timeOf = (line) => {
    const made = element("time");
    if (line.time !== undefined) {
      const moment = new Date(line.time * 1000).toISOString();
      made.dateTime = moment;
      made.title = `${moment.replace("T", " ").replace(".000Z", " UTC")}, ${line.order}`;
      made.textContent = moment.slice(11, 19);
    }
    return made;
  };

  const NOTES = {
    heartbeat: () => "Heartbeat: an empty transaction",
    missed: (line) => `${number(line.count)} changes are not shown here`,
    paused: (line) => `${number(line.count)} changes passed while the page was paused`,
    large: () => "A transaction too large to be shown; replicas read it from MongoDB",
    refill: (line) => `The rows of ${line.table} are read again from their collection`,
    gap: () => "Changes before this may not have come here (a watcher began, or some were lost on the way); replicas read them from MongoDB",
  };

  const noted = (line) => {
    const made = element("li", "live-note");
    made.dataset.note = line.note;
    made.append(timeOf(line), " ", element("span", "", NOTES[line.note](line)));
    return made;
  };

  const bodyOf = ({ change, frame, bytes }) => {
    const body = element("div", "live-body");
    const shown = new TextEncoder().encode(frame).length;
    if (shown === bytes) {
      body.append(element("h3", "", "The change"), element("pre", "", JSON.stringify(change, null, 2)));
    }
    const part = shown === bytes ? "" : ` (the first ${number(shown)} of ${number(bytes)} bytes)`;
    body.append(element("h3", "", `The frame that is sent for it${part}`), element("pre", "", frame));
    return body;
  };

  const changed = (line) => {
    const { change } = line;
    const made = element("li");
    const details = element("details");
    const summary = element("summary");
    const type = element("span", "live-type", change.type);
    type.dataset.type = change.type;
    const parts = [];
    if (change.key) parts.push(Object.entries(change.key).map(([column, value]) => `${column}: ${JSON.stringify(value)}`).join(", "));
    if (change.type === "truncate") parts.push("every row");
    else if (change.value) parts.push(JSON.stringify(change.value).slice(0, MAX_PREVIEW));
    else if (change.type !== "delete") parts.push(`a row of ${number(line.bytes)} bytes`);
    // Blanks for whoever copies a line, or has it read out.
    const name = element("span", "live-table", change.table);
    summary.append(timeOf(line), " ", type, " ", name, " ", element("span", "live-row", parts.join("  ")));
    details.append(summary);
    // What nobody opens costs no elements.
    details.addEventListener("toggle", () => {
      if (!details.open) return;
      if (details.childElementCount === 1) details.append(bodyOf(line));
      setPaused(true);
    });
    made.append(details);
    return made;
  };

  const show = (lines) => {
    for (const line of lines) {
      // Nothing but heartbeats: the last one will do.
      if (line.note === "heartbeat" && log.firstElementChild?.dataset.note === "heartbeat") log.firstElementChild.remove();
      log.prepend(line.note ? noted(line) : changed(line));
    }
    while (log.childElementCount > MAX_LINES) log.lastElementChild.remove();
  };

  const take = (message) => {
    const filter = message.filter;
    const isOurs = filter.table === table.value && filter.key === key.value.trim();
    const more = message.missed - missed;
    missed = message.missed;
    if (isOurs) {
      if (filter.paused) {
        passedWhilePaused += more;
      } else if (!paused) {
        if (passedWhilePaused) show([{ note: "paused", count: passedWhilePaused }]);
        passedWhilePaused = 0;
      }
      // What was on its way when the page was paused is shown all the same: it would be missed without a word.
      show(message.lines);
    } else {
      missedBefore += more; // by a filter of before
    }
    figures.rate.textContent = number(message.rate < 10 ? message.rate : Math.round(message.rate));
    figures.missed.textContent = number(missed - missedBefore);
    if (!message.heard) {
      tell("trouble", NO_WATCHER);
    } else if (paused) {
      tell("paused", "Paused");
    } else if (isOurs) {
      tell("live", "Live");
    }
    ask();
  };

  const setPaused = (wanted) => {
    if (wanted === paused) return;
    paused = wanted;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on" : "Pause";
    if (paused) tell("paused", "Paused");
    ask();
  };

  const empty = () => {
    log.replaceChildren();
    missedBefore = missed;
    passedWhilePaused = 0;
    figures.missed.textContent = "0";
  };

  const filter = () => {
    clearTimeout(typed);
    page.dataset.state = "asking";
    empty();
    ask();
  };

  const connect = () => {
    const address = new URL("changes", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    socket = new WebSocket(address);
    socket.addEventListener("open", () => {
      retry = 500;
      missed = missedBefore = 0;
      ask();
    });
    socket.addEventListener("message", (event) => take(JSON.parse(event.data)));
    socket.addEventListener("close", (event) => {
      if (event.code === NO_VIEWER) {
        tell("trouble", "You are logged out, or may not look any more. Load the page again to log in.");
        return;
      }
      tell("trouble", "The connection is lost or refused; trying again.");
      setTimeout(connect, retry);
      retry = Math.min(2 * retry, SLOWEST_RETRY);
    });
  };

  key.addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(filter, 300);
  });
  table.addEventListener("change", filter);
  pause.addEventListener("click", () => setPaused(!paused));
  clear.addEventListener("click", empty);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    filter();
  });
  connect();
})();
