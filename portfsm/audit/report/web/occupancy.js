// One chart a pool: how many of its ports were in which state, stacked, and when it had none to give.
//
// SVG by hand, not a plotting library: three stacked areas are forty lines, they take their colours from the style sheet (so the dark page
// and the printed one need no second drawing), print as lines and not as dots, and nothing has to be vendored and kept up to date.

const CHART = { height: 80, left: 34, top: 20, bottom: 20 };

function drawCharts() {
  page.heads = [];
  const pools = [...new Set(shownPlaces().map((place) => place.pool))];
  byId("charts").dataset.pools = pools.length;
  byId("charts").replaceChildren(...pools.map((pool) => chart(pool, shownPlaces().filter((place) => place.pool === pool))));
  moveHeads();
}

function chart(pool, members) {
  const nodes = members.length > 1 ? ` on ${members.length} nodes` : "";
  const size = Math.max(1, ...times().map((time) => sizeOf(members, time)));
  const about = data.pools.find((spec) => spec.name === pool);
  const facts = about ? `${about.ranges}${nodes} · hold ${durationUs(about.hold_s * 1e6)} · ${about.order}` : nodes;
  const box = make("div", { class: "chart" }, make("h3", {}, name(pool), make("span", {}, facts)));
  const width = Math.max(240, byId("charts").clientWidth);
  CHART.height = [0, 130, 96, 80][byId("charts").dataset.pools] ?? 64;
  const svg = draw("svg", { height: CHART.height + CHART.top + CHART.bottom, role: "img", "aria-label": inWords(pool, members, size) });
  const x = (time) => CHART.left + ((time - data.window.from) / (data.window.to - data.window.from || 1)) * (width - CHART.left - 1);
  const y = (count) => CHART.top + CHART.height * (1 - count / size);
  const taken = []; // where words stand above the chart
  svg.append(patterns(), ...axes(x, y, size, width), ...areas(members, x, y), ...shortages(members, x, taken), ...marks(members, x, taken), head(x));
  svg.addEventListener("pointerdown", (event) => follow(svg, event, width));
  box.append(svg);
  return box;
}

const times = () => Array.from({ length: data.grid.count }, (_, n) => data.window.from + n * data.grid.step);
const sizeOf = (members, time) => members.reduce((sum, place) => sum + rangesAt(place, time).reduce((all, [low, high]) => all + high - low + 1, 0), 0);

function inWords(pool, members, size) {
  const episodes = members.reduce((sum, place) => sum + place.exhausted.total, 0);
  const most = Math.max(...times().map((_, n) => members.reduce((sum, place) => sum + place.means[0][n], 0)));
  const none = episodes ? `${many(episodes, "episode")} without a free port.` : "Never without a free port.";
  return `Occupancy of pool ${pool}, ${size} ports: at most ${Math.round(most)} allocated on the mean of a step. ${none}`;
}

// Hatching tells states apart where colours do not.
function patterns() {
  const hatch = draw("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, draw("path", { d: "M0 0V6", class: "hatch" }));
  const cross = draw("pattern", { id: "cross", width: 5, height: 5, patternUnits: "userSpaceOnUse" }, draw("path", { d: "M0 0l5 5M5 0l-5 5", class: "cross" }));
  return draw("defs", {}, hatch, cross);
}

function axes(x, y, size, width) {
  const made = [draw("rect", { class: "ground", x: CHART.left, y: CHART.top, width: width - CHART.left - 1, height: CHART.height, rx: 2 })];
  for (const count of [0, size]) made.push(label(CHART.left - 6, y(count) + (count ? 8 : 0), compact(count), "end"));
  const base = CHART.top + CHART.height;
  for (const time of ticks(width)) {
    made.push(draw("path", { class: "tick", d: `M${x(time)} ${base}v4` }), label(Math.min(x(time), width - tickText(time).length * 3.4 - 1), base + 15, tickText(time), "middle"));
  }
  return made;
}

const compact = (count) => (count < 1e5 ? count.toLocaleString("en") : new Intl.NumberFormat("en", { notation: "compact" }).format(count));

function label(x, y, text, anchor, kind = "") {
  const made = draw("text", { x, y, "text-anchor": anchor, class: kind });
  made.textContent = text;
  return made;
}

const NICE_S = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000];

function tickStep(width) {
  const span = ((data.window.to - data.window.from) * data.unit_us) / 1e6;
  return NICE_S.find((step) => span / step <= width / 90) ?? span;
}

// Round times of the clock, not round parts of the window.
function ticks(width) {
  const step = (tickStep(width) * 1e6) / data.unit_us, zero = (data.t0_ms * 1000) / data.unit_us;
  const found = [];
  for (let time = (Math.floor((zero + data.window.from) / step) + 1) * step - zero; time <= data.window.to && found.length < 40; time += step) found.push(time);
  return found;
}

function tickText(time) {
  const step = tickStep(byId("charts").clientWidth);
  if (step >= 86400) return dayOf(time).slice(5);
  return clockOf(time, step < 1 ? 3 : 0).slice(0, step >= 60 ? 5 : step < 1 ? 12 : 8);
}

function areas(members, x, y) {
  const made = [], below = new Array(data.grid.count).fill(0);
  [ALLOCATED, QUARANTINED, BLOCKED].forEach((state) => {
    const lower = below.slice();
    for (const place of members) place.means[state - 1].forEach((mean, n) => (below[n] += mean));
    if (below.every((value, n) => value === lower[n])) return;
    const path = outline(below, lower, x, y);
    made.push(draw("path", { d: path, class: STATES[state] }));
    if (state !== ALLOCATED) made.push(draw("path", { d: path, fill: `url(#${state === BLOCKED ? "cross" : "hatch"})` }));
  });
  return made;
}

// Steps, as means are of steps: a slope would tell of a change that nobody saw.
function outline(upper, lower, x, y) {
  const edge = (n) => x(Math.min(data.window.to, data.window.from + n * data.grid.step)).toFixed(1);
  const over = upper.map((value, n) => `${edge(n)} ${y(value).toFixed(1)}H${edge(n + 1)}`).join("V").replaceAll(/V[\d.-]+ /g, "V");
  const back = [];
  for (let n = lower.length - 1; n >= 0; n--) back.push(`V${y(lower[n]).toFixed(1)}H${edge(n)}`);
  return `M${over}${back.join("")}Z`;
}

function shortages(members, x, taken) {
  const made = [];
  for (const place of members) {
    for (const [since, until] of place.exhausted.listed) {
      const left = x(since), wide = Math.max(2.5, x(until ?? data.window.to) - left);
      made.push(draw("rect", { class: "none veil", x: left, y: CHART.top, width: wide, height: CHART.height }));
      const bar = draw("rect", { class: "none", x: left, y: CHART.top - 4, width: wide, height: 4, rx: 1 });
      bar.append(draw("title"));
      bar.firstChild.textContent = `no port free${place.node ? ` on ${place.node}` : ""}: ${momentOf(since)} for ${duration((until ?? data.window.to) - since)}`;
      made.push(bar);
      const words = `no port free${place.node ? ` on ${place.node}` : ""}`, room = words.length * 6.8 + 10;
      const late = left > x(data.window.to) - room, from = late ? left + wide - room : left;
      if (claim(taken, from, from + room)) made.push(label(late ? left + wide : left, CHART.top - 8, words, late ? "end" : "start", "none"));
    }
  }
  return made;
}

// Words go where none stand yet.
function claim(taken, from, to) {
  if (taken.some(([left, right]) => from < right && left < to)) return false;
  taken.push([from, to]);
  return true;
}

// Openings and changes of policy; a crash is drawn through.
function marks(members, x, taken) {
  const pool = members[0].pool;
  return data.happenings
    .filter(([time, , kind, of]) => time > data.window.from && (kind === "crashed" || kind === "opened" || of === pool))
    .map(([time, seq, kind, , text]) => {
      const line = draw("path", { class: `happening ${kind}`, d: `M${x(time)} ${CHART.top}V${CHART.top + CHART.height + 4}` }, draw("title"));
      line.firstChild.textContent = `${momentOf(time)} ${kindText(kind)} @${seq} ${text}`;
      return kind === "crashed" && claim(taken, x(time) - 18, x(time) + 18) ? draw("g", {}, line, label(x(time), CHART.top - 6, "crash", "middle", "crashed")) : line;
    });
}

function head(x) {
  const line = draw("g", {}, draw("path", { class: "head", d: `M0 ${CHART.top - 4}V${CHART.top + CHART.height + 2}` }), draw("circle", { class: "knob", cx: 0, cy: CHART.top - 3, r: 3.5 }));
  page.heads.push([line, x]);
  return line;
}

function moveHeads() {
  for (const [line, x] of page.heads) line.setAttribute("transform", `translate(${x(page.time).toFixed(1)} 0)`);
}

// Press and drag on a chart moves the time.
function follow(svg, event, width) {
  const move = (moved) => {
    const box = svg.getBoundingClientRect();
    const part = (((moved.clientX - box.left) / box.width) * width - CHART.left) / (width - CHART.left - 1);
    page.fine = false;
    setTime(data.window.from + part * (data.window.to - data.window.from));
  };
  const end = () => {
    svg.removeEventListener("pointermove", move);
    svg.removeEventListener("pointerup", end);
    svg.removeEventListener("pointercancel", end);
  };
  svg.setPointerCapture(event.pointerId);
  svg.addEventListener("pointermove", move);
  svg.addEventListener("pointerup", end);
  svg.addEventListener("pointercancel", end);
  move(event);
}
