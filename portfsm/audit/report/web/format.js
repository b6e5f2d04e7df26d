// Words for people: times in UTC, lengths of time as the command line writes them, and elements made of text and nothing but text.

const pad = (number, width = 2) => String(number).padStart(width, "0");

// A place on the page's time as milliseconds since 1970.
const epochMs = (time) => data.t0_ms + (time * data.unit_us) / 1000;

const dayOf = (time) => new Date(epochMs(time)).toISOString().slice(0, 10);

function clockOf(time, digits = 3) {
  const text = new Date(Math.floor(epochMs(time))).toISOString().slice(11, 23);
  return digits ? text : text.slice(0, 8);
}

// The day only where the window spans several.
const momentOf = (time, digits = 0) => (page.days > 1 ? `${dayOf(time)} ${clockOf(time, digits)}` : clockOf(time, digits));

function duration(units) {
  const us = Math.max(0, units * data.unit_us);
  if (us === 0) return "0 s";
  if (us < 1000) return "<1 ms";
  if (us < 1e6) return `${Math.floor(us / 1000)} ms`;
  const seconds = Math.floor(us / 1e6);
  if (seconds < 60) return `${seconds}.${Math.floor((us % 1e6) / 1e5)} s`;
  const minutes = Math.floor(seconds / 60), hours = Math.floor(seconds / 3600), days = Math.floor(seconds / 86400);
  if (!hours) return `${minutes} min ${pad(seconds % 60)} s`;
  return days ? `${days} d ${pad(hours % 24)} h` : `${hours} h ${pad(minutes % 60)} min`;
}

const durationUs = (us) => duration(us / data.unit_us);
const many = (number, word, words = `${word}s`) => `${number.toLocaleString("en")} ${number === 1 ? word : words}`;
const placeName = (place) => (place.node ? `${place.pool} · ${place.node}` : place.pool);

// An element. Strings among its parts become text: nothing from a log is ever read as HTML.
function make(tag, attributes = {}, ...parts) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...parts.flat().filter((part) => part !== "" && part !== null && part !== undefined));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";
function draw(tag, attributes = {}, ...parts) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...parts);
  return element;
}

// A name from the log; its direction of writing stays its own.
const name = (text) => make("bdi", { class: "name" }, text);
const swatch = (state) => make("span", { class: `sw ${STATES[state]}`, "aria-hidden": "true" });
const byId = (id) => document.getElementById(id);

function table(titles, rows) {
  const head = titles.map((title) => make("th", { scope: "col", class: title.num ? "num" : null }, title.text ?? title));
  const body = rows.map((row) => make("tr", {}, row.map((cell, n) => make("td", { class: titles[n].num ? "num" : titles[n].nowrap ? "nowrap" : null }, cell))));
  return make("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table" }, make("table", {}, make("thead", {}, make("tr", {}, head)), make("tbody", {}, body)));
}

// The first rows, and a button for more: ten thousand rows at once would hold the page up.
function longTable(into, titles, rows, made, step = 50) {
  let shown = 0;
  const parts = [];
  const more = make("button", { class: "more", type: "button", onclick: () => grow() });
  const grow = () => {
    shown += step;
    parts.push(...rows.slice(shown - step, shown).map(made));
    into.replaceChildren(...(rows.length ? [table(titles, parts)] : []), ...(rows.length > shown ? [more] : []));
    more.textContent = `Show ${Math.min(step, rows.length - shown)} more of ${(rows.length - shown).toLocaleString("en")}`;
  };
  grow();
}
