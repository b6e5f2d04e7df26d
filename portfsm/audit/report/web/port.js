// One port's life: a bar of its states, and each of them in words.

const STEPS_SHOWN = 60;

function select(place, number, { look = false } = {}) {
  page.chosen = { place, number, port: portIndex(place.number, number), all: false };
  if (place !== page.focus && page.focus) {
    page.focus = place;
    buildMap();
  }
  buildPort();
  redraw();
  if (look || window.innerWidth < 1088) byId("life").scrollIntoView({ block: "nearest" });
}

function buildPort() {
  const { place, number, port } = page.chosen ?? {};
  byId("life").classList.toggle("empty", !place);
  if (!place) {
    byId("port").replaceChildren(make("p", { class: "quiet" }, "Choose a port on the map, or search for who had one."), worthALook());
    return;
  }
  const present = make("p", { class: "present" }), bar = draw("svg", { id: "bar", role: "img", preserveAspectRatio: "none" }), steps = make("div", { class: "list" });
  const ends = make("p", { class: "ends" }, make("span", {}, momentOf(data.window.from)), make("span", {}, momentOf(data.window.to)));
  const used = port >= 0;
  page.life = { present, bar, steps, shown: "" };
  byId("port").replaceChildren(
    make("p", { class: "headline" }, make("b", {}, String(number)), make("span", { class: "quiet" }, name(placeName(place)))), present, ...(used ? [bar, ends, steps] : []));
  if (used) drawBar();
}

// Where to begin, for those who do not know yet.
function worthALook() {
  const found = [], { closest } = data;
  const add = (port, span, text) => found.push(make("li", {}, make("button", { type: "button", onclick: () => openLease([port, span]) },
    name(String(lives.port[port])), ` ${placeName(places[lives.place[port]])}`, make("small", {}, text))));
  let busiest = -1, longest = -1, blocked = -1;
  for (let port = 0; port < lives.ports; port++) {
    if (busiest < 0 || lives.first[port + 1] - lives.first[port] > lives.first[busiest + 1] - lives.first[busiest]) busiest = port;
    for (let n = lives.first[port]; n < lives.first[port + 1]; n++) {
      if (lives.state[n] === BLOCKED && (blocked < 0 || endOf(port, n) - lives.time[n] > endOf(blocked, longest) - lives.time[longest])) [blocked, longest] = [port, n];
    }
  }
  const near = closest.total ? portIndex(closest.place[0], closest.port[0]) : -1;
  if (near >= 0) add(near, spanOf(near, closest.time[0]), `went to somebody else the soonest: after ${durationUs(closest.gap_us[0])}`);
  if (blocked >= 0) add(blocked, longest, `was blocked the longest: ${duration(endOf(blocked, longest) - lives.time[longest])}`);
  if (busiest >= 0) add(busiest, lives.first[busiest], `changed the most: ${many(lives.first[busiest + 1] - lives.first[busiest], "state")}`);
  return found.length ? make("div", { class: "worth" }, make("h3", {}, "Worth a look"), make("ul", {}, found)) : "";
}

// The last span of a port that had begun by `time`.
function spanOf(port, time) {
  let span = lives.first[port];
  while (!isLast(port, span) && lives.time[span + 1] <= time) span++;
  return span;
}

function drawBar() {
  const { port } = page.chosen, { bar } = page.life;
  const width = Math.max(200, bar.clientWidth || byId("port").clientWidth), span = data.window.to - data.window.from || 1;
  const x = (time) => Math.max(0, ((time - data.window.from) / span) * width);
  bar.setAttribute("viewBox", `0 0 ${width} 36`);
  bar.setAttribute("aria-label", `Life of port ${page.chosen.number}: ${many(lives.first[port + 1] - lives.first[port], "state")}, listed below.`);
  const parts = [patterns(), draw("rect", { x: 0, y: 0, width, height: 36, fill: "var(--free)" })];
  let drawn = -1;
  for (let n = lives.first[port]; n < lives.first[port + 1]; n++) {
    const state = lives.state[n], left = x(lives.time[n]), wide = x(endOf(port, n)) - left;
    if (state === FREE || left + wide < drawn + 0.4) continue; // too thin to be seen beside what is drawn there
    drawn = left + wide;
    const box = { x: left, y: 0, width: Math.max(0.8, wide - (wide > 4 ? 0.75 : 0)), height: 36 };
    parts.push(draw("rect", { ...box, fill: `var(--${STATES[state].toLowerCase()})` }));
    if (state !== ALLOCATED && wide > 3) parts.push(draw("rect", { ...box, fill: `url(#${state === BLOCKED ? "cross" : "hatch"})` }));
    if (lives.runs.has(n)) parts.push(draw("rect", { ...box, y: 28, height: 8, fill: "var(--ink)", opacity: 0.5 }));
    for (const [time] of lives.marks.get(n) ?? []) parts.push(draw("path", { d: `M${x(time)} 0V36`, stroke: "var(--card)", "stroke-width": 1.25, "stroke-dasharray": "3 2" }));
  }
  page.life.head = draw("path", { stroke: "var(--ink)", "stroke-width": 2 });
  page.life.x = x;
  bar.replaceChildren(...parts, page.life.head);
  bar.onpointerdown = (event) => {
    const box = bar.getBoundingClientRect();
    setTime(data.window.from + ((event.clientX - box.left) / box.width) * span);
  };
}

// What moves with the time.
function showPort() {
  if (!page.chosen) return;
  const { place, number, port } = page.chosen, { present, head, x } = page.life;
  const span = port < 0 ? -1 : spanAt(port);
  present.replaceChildren(...presentWords(place, number, port, span));
  if (port < 0) return;
  head.setAttribute("d", `M${x(page.time)} 0V36`);
  buildSteps(span);
}

function presentWords(place, number, port, span) {
  const when = `At ${momentOf(page.time, page.fine ? 3 : 0)} `;
  const chip = (state) => make("span", { class: "chip" }, swatch(state), ` ${STATES[state]}`);
  if (port < 0) return isInside(place.now, number) ? [chip(FREE), ". Nobody had this port: nothing is recorded of it."] : ["Not in the pool at this time."];
  if (span < 0) return [when, chip(FREE), ", not used before."];
  const state = lives.state[span], words = [when, chip(state)];
  if (lives.runs.has(span)) return [when, "one of ", many(lives.runs.get(span)[1], "change"), " drawn together here."];
  if (state === ALLOCATED) words.push(" to ", ...holder(lives.owner[span], lives.service[span]));
  else if (state !== FREE) {
    const lease = formerLease(port, span);
    if (lease >= 0 && lives.owner[lease]) words.push(", last held by ", ...holder(lives.owner[lease], lives.service[lease]));
  }
  return [...words, "."];
}

// The list, around the present when it is long.
function buildSteps(span) {
  const { port, all } = page.chosen, first = lives.first[port], count = lives.first[port + 1] - first;
  const from = all ? 0 : Math.max(0, Math.min(count - STEPS_SHOWN, Math.max(0, span - first) - STEPS_SHOWN / 2));
  const shown = `${from} ${all} ${span}`;
  if (shown === page.life.shown) return;
  const { steps } = page.life, moved = page.life.shown.split(" ").slice(0, 2).join(" ") !== `${from} ${all}`;
  page.life.shown = shown;
  if (moved || !page.life.items) {
    const upto = all ? count : Math.min(count, from + STEPS_SHOWN);
    page.life.items = new Map();
    for (let n = first + from; n < first + upto; n++) page.life.items.set(n, step(port, n));
    const more = count > upto - from ? make("button", { class: "more", type: "button", onclick: () => { page.chosen.all = true; redraw(); } }, `Show all ${count.toLocaleString("en")} states`) : "";
    steps.replaceChildren(make("ol", { class: "steps", "aria-label": "States, oldest first" }, [...page.life.items.values()]), more);
  }
  for (const [n, item] of page.life.items) {
    item.classList.toggle("here", n === span);
    if (n === span) item.firstChild.setAttribute("aria-current", "time");
    else item.firstChild.removeAttribute("aria-current");
  }
  const here = page.life.items.get(span);
  if (here) steps.scrollTop = here.offsetTop - steps.clientHeight / 3;
}

function step(port, n) {
  const state = lives.state[n], run = lives.runs.get(n), until = endOf(port, n);
  const lasted = `${duration(until - lives.time[n])}${isLast(port, n) ? "+" : ""}`;
  const who = run ? [many(run[0], "lease"), ` in ${many(run[1], "change")}`] : state === ALLOCATED ? [name(data.texts.owners[lives.owner[n]])] : [STATES[state]];
  const small = [momentOf(lives.time[n], 3)];
  if (run) small.push(` · drawn together, mostly ${STATES[state]}`);
  else if (state === ALLOCATED) small.push(lives.service[n] ? " · " : "", lives.service[n] ? name(data.texts.services[lives.service[n]]) : "", " · ALLOCATED");
  if (lives.seq[n]) small.push(` · @${lives.seq[n]}`);
  const note = run ? "" : data.texts.notes[lives.note[n]];
  const marks = (lives.marks.get(n) ?? []).map(([time, said]) => make("small", {}, `after ${duration(time - lives.time[n])}: ${data.texts.notes[said]}`));
  return make("li", {}, make("button", { type: "button", title: "Go to this moment", onclick: () => { page.fine = true; setTime(Math.max(lives.time[n], data.window.from)); } },
    swatch(state), make("span", { class: "who" }, who), make("span", { class: "for" }, lasted), make("small", {}, small), note ? make("small", {}, note) : "", marks));
}
