// The map: every port a square, on a canvas for each place. Only squares that changed are drawn again, so that thirty thousand of them play.

const MOST_CELLS = 40000; // drawn at once; above that, one place at a time
const NICE_COLUMNS = [5, 10, 20, 30, 40, 50, 60, 80, 100, 200, 250, 400, 500, 1000];

const colour = (variable) => page.colours[variable] ?? (page.colours[variable] = getComputedStyle(document.documentElement).getPropertyValue(variable).trim());

// A canvas as sharp as the screen.
function sharp(canvas, width, height) {
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  return context;
}

// The numbers of a place in the order of the map: all that were in its ranges, and those outside that were used.
function cellsOf(place) {
  if (place.cells) return place.cells;
  const numbers = new Set();
  for (const [, ranges] of place.ranges) for (const [low, high] of ranges) for (let number = low; number <= high; number++) numbers.add(number);
  for (let port = place.firstPort; port < place.lastPort; port++) numbers.add(lives.port[port]);
  const sorted = Uint16Array.from(numbers).sort();
  const index = Int32Array.from(sorted, (number) => portIndex(place.number, number));
  return (place.cells = { numbers: sorted, index, position: new Map(Array.from(sorted, (number, n) => [number, n])) });
}

function buildMap() {
  const shown = shownPlaces().filter((place) => !place.left_out);
  const all = shownPlaces();
  const cells = all.reduce((sum, place) => sum + place.most, 0);
  const crowded = cells > MOST_CELLS && all.length > 1;
  if (crowded && !all.includes(page.focus)) page.focus = shown.reduce((best, place) => (place.ports_used > (best?.ports_used ?? -1) ? place : best), null);
  if (!crowded) page.focus = null;
  page.blocks = [];
  const drawn = crowded ? [page.focus].filter(Boolean) : all;
  byId("map").replaceChildren(...(crowded ? [strips(all)] : []), ...pools(drawn).map(([pool, members]) => poolMap(pool, members, crowded)));
  for (const block of page.blocks) measure(block);
}

const pools = (members) => [...new Set(members.map((place) => place.pool))].map((pool) => [pool, members.filter((place) => place.pool === pool)]);

// Where there are too many squares: every place as a bar, one of them as a map.
function strips(members) {
  page.strips = members.map((place) => {
    const button = make("button", { type: "button", "aria-pressed": String(place === page.focus), onclick: () => { page.focus = place; buildMap(); redraw(); } });
    const free = make("span", { class: "quiet" }), bar = make("div", { class: "strip", "aria-hidden": "true" });
    button.append(make("div", { class: "what" }, name(placeName(place)), free), bar);
    return { place, button, free, bar, parts: [ALLOCATED, QUARANTINED, BLOCKED].map((state) => bar.appendChild(make("i", { class: STATES[state] }))) };
  });
  return make("div", {}, make("p", { class: "quiet hint" }, "Too many ports to draw at once: each bar is a pool on a node. Choose one for its map."), make("div", { class: "strips" }, page.strips.map((strip) => strip.button)));
}

function poolMap(pool, members, crowded) {
  const grid = make("div", { class: "places" });
  const width = byId("map").clientWidth;
  const most = Math.max(...members.map((place) => place.most));
  // As many side by side as leave each square a size that can be hit.
  let across = Math.min(members.length, Math.max(1, Math.floor(width / 230)), 6);
  while (across > 1 && cellSize((width - 20 * (across - 1)) / across, most, members.length) < Math.min(14, cellSize(width, most, members.length))) across--;
  grid.style.gridTemplateColumns = `repeat(${across}, minmax(0, 1fr))`;
  const room = (width - 20 * (across - 1)) / across;
  for (const place of members) grid.append(block(place, room));
  return make("div", { class: "pool" }, crowded ? "" : make("h3", {}, name(pool), make("span", {}, many(members.reduce((sum, place) => sum + place.most, 0), "port"))), grid);
}

function cellSize(room, cells, blocks) {
  const tall = 620 / Math.min(4, Math.ceil(blocks / 3));
  return Math.max(2, Math.min(18, Math.floor(Math.sqrt((room * tall) / Math.max(1, cells)))));
}

function block(place, room) {
  const text = make("span"), title = make("h4", {}, make("bdi", {}, place.node || place.pool), text);
  if (place.left_out) {
    const why = make("p", { class: "quiet" }, "Its single ports found no room on this page: ", make("span", { class: "mono" }, `portfsm report … --pool ${place.pool} --node ${place.node || '""'}`), " shows them.");
    page.blocks.push({ place, text });
    return make("div", { class: "place" }, title, why);
  }
  const canvas = make("canvas", { tabindex: "0", role: "application", "aria-roledescription": "map of ports", "aria-label": `${placeName(place)}: ${many(place.most, "port")}. Arrow keys move, Enter shows the life of a port.` });
  const made = { place, text, canvas, room, hover: -1, at: -1 };
  canvas.addEventListener("pointermove", (event) => hover(made, cellUnder(made, event), event));
  canvas.addEventListener("pointerleave", () => hover(made, -1));
  canvas.addEventListener("click", (event) => choose(made, cellUnder(made, event)));
  canvas.addEventListener("keydown", (event) => steer(made, event));
  canvas.addEventListener("focus", () => { if (canvas.matches(":focus-visible") && made.at < 0) walk(made, Math.max(0, selectedCell(made))); });
  canvas.addEventListener("blur", () => { made.at = -1; redraw(); });
  page.blocks.push(made);
  return make("div", { class: "place" }, title, canvas);
}

// Columns, size of a square, and where each square lies. Rows begin at round numbers, so that a port is found by its number.
function measure(block) {
  if (!block.canvas) return;
  const { numbers } = cellsOf(block.place);
  const cell = cellSize(block.room, numbers.length, page.blocks.length);
  const labels = cell >= 11 ? 46 : 0;
  const fit = Math.max(1, Math.floor((block.room - labels) / cell));
  const columns = numbers.length <= fit ? numbers.length : NICE_COLUMNS.filter((nice) => nice <= fit).pop() ?? fit;
  const rows = new Map();
  let row = -1, before = -2;
  block.spots = new Int32Array(numbers.length);
  numbers.forEach((number, n) => {
    const column = numbers.length <= fit ? n : number % columns;
    if (row < 0 || (numbers.length > fit && (number !== before + 1 || column === 0))) rows.set(++row, number);
    block.spots[n] = row * columns + column;
    before = number;
  });
  // What is left of the width makes the squares larger, unless that makes the map too tall.
  const wide = Math.min(22, Math.floor((block.room - labels - 2) / columns)), grown = wide > cell && wide * (row + 1) < 900 && (wide >= 11 || !labels) ? wide : cell;
  Object.assign(block, { cell: grown, columns, labels, rows, lines: row + 1, drawn: null });
}

const codes = { unknown: 255 };

function prepare(block) {
  const context = sharp(block.canvas, block.labels + block.columns * block.cell + 2, block.lines * block.cell + 2);
  block.context = context;
  block.drawn = new Uint8Array(block.spots.length).fill(codes.unknown);
  block.where = new Map(Array.from(block.spots, (spot, n) => [spot, n]));
  if (!block.labels) return;
  context.fillStyle = colour("--soft");
  context.font = `10px ${colour("--mono")}`;
  context.textBaseline = "middle";
  for (const [row, number] of block.rows) context.fillText(number, 0, 1 + row * block.cell + block.cell / 2);
}

// The state of a cell and how it is to be marked, as one number, so that what did not change is seen at a glance.
function lookOf(block, n) {
  const { numbers, index } = block.place.cells, port = index[n];
  const span = port < 0 ? -1 : spanAt(port);
  let state = span < 0 ? FREE : lives.state[span];
  if (state === FREE && !block.place.fixed && !isInside(block.place.now, numbers[n])) state = ABSENT;
  const chosen = page.chosen && page.chosen.place === block.place && page.chosen.number === numbers[n];
  const sought = page.sought && span >= 0 && state === ALLOCATED && lives[page.sought.kind][span] === page.sought.number;
  const several = span >= 0 && lives.runs.has(span);
  return state | (several ? 8 : 0) | (chosen ? 16 : 0) | (page.sought ? (sought ? 32 : 64) : 0) | (block.at === n ? 128 : 0);
}

function drawMap() {
  for (const strip of page.strips ?? []) drawStrip(strip);
  for (const block of page.blocks) {
    const { place } = block;
    block.text.textContent = place.counts[FREE] > 0 ? `${place.counts[FREE].toLocaleString("en")} of ${place.size.toLocaleString("en")} free` : "no port free";
    block.text.className = place.counts[FREE] > 0 ? "" : "full";
    if (!block.canvas) continue;
    if (!block.drawn) prepare(block);
    const rings = [];
    for (let n = 0; n < block.spots.length; n++) {
      const look = lookOf(block, n);
      if (look !== block.drawn[n] || look & 176) {
        drawCell(block, n, look);
        block.drawn[n] = look;
        if (look & 176) rings.push([n, look]);
      }
    }
    for (const [n, look] of rings) drawRing(block, n, look);
  }
}

function drawStrip({ place, free, bar, parts }) {
  free.textContent = place.counts[FREE] > 0 ? `${place.counts[FREE].toLocaleString("en")} free` : "none free";
  parts.forEach((part, n) => (part.style.width = `${(100 * place.counts[n + 1]) / Math.max(1, place.size)}%`));
}

const cornerOf = (block, n) => [block.labels + 1 + (block.spots[n] % block.columns) * block.cell, 1 + Math.floor(block.spots[n] / block.columns) * block.cell];

function drawCell(block, n, look) {
  const { context, cell } = block, [x, y] = cornerOf(block, n);
  const state = look & 7, gap = cell >= 7 ? 1.5 : cell >= 4 ? 0.75 : 0, side = cell - gap;
  context.clearRect(x - 1, y - 1, cell + 1, cell + 1);
  context.globalAlpha = look & 64 ? 0.28 : 1;
  if (state === ABSENT) {
    context.fillStyle = colour("--line");
    context.fillRect(x + cell / 2 - 1, y + cell / 2 - 1, 1.5, 1.5);
  } else {
    context.fillStyle = colour(["--free", "--allocated", "--quarantined", "--blocked"][state]);
    rounded(context, x, y, side, cell >= 11 ? 2.5 : cell >= 7 ? 1.5 : 0);
    context.fill();
    if (cell >= 7) drawMark(context, x, y, side, state);
    if (look & 8 && cell >= 7) drawSeveral(context, x, y, side);
  }
  context.globalAlpha = 1;
}

function rounded(context, x, y, side, radius) {
  context.beginPath();
  if (radius) context.roundRect(x, y, side, side, radius);
  else context.rect(x, y, side, side);
}

// Not by colour alone: FREE has an edge, QUARANTINED a stripe, BLOCKED a cross.
function drawMark(context, x, y, side, state) {
  context.lineWidth = side >= 11 ? 1.5 : 1;
  context.beginPath();
  if (state === FREE) {
    context.strokeStyle = colour("--free-line");
    context.lineWidth = 1;
    rounded(context, x + 0.5, y + 0.5, side - 1, side >= 10 ? 2 : 1);
  } else if (state === QUARANTINED) {
    context.strokeStyle = colour("--stripe");
    context.moveTo(x + side * 0.22, y + side * 0.78);
    context.lineTo(x + side * 0.78, y + side * 0.22);
  } else if (state === BLOCKED) {
    context.strokeStyle = colour("--mark");
    context.moveTo(x + side * 0.28, y + side * 0.28);
    context.lineTo(x + side * 0.72, y + side * 0.72);
    context.moveTo(x + side * 0.72, y + side * 0.28);
    context.lineTo(x + side * 0.28, y + side * 0.72);
  }
  context.stroke();
}

// A dot: several spans are drawn together here, and this is only the state of most of the time.
function drawSeveral(context, x, y, side) {
  context.fillStyle = colour("--ink");
  context.beginPath();
  context.arc(x + side / 2, y + side / 2, Math.max(1, side / 7), 0, 7);
  context.fill();
}

function drawRing(block, n, look) {
  const { context, cell } = block, [x, y] = cornerOf(block, n), gap = cell >= 7 ? 1.5 : 0;
  context.lineWidth = cell >= 7 ? 2 : 1;
  context.strokeStyle = colour(look & 32 && !(look & 144) ? "--ink" : "--accent");
  rounded(context, x, y, cell - gap, cell >= 11 ? 2.5 : 0.5);
  context.stroke();
  if (!(look & 128)) return;
  context.strokeStyle = colour("--card");
  context.lineWidth = 1;
  rounded(context, x + 1.5, y + 1.5, cell - gap - 3, 1);
  context.stroke();
}

function cellUnder(block, event) {
  const box = block.canvas.getBoundingClientRect();
  const column = Math.floor((event.clientX - box.left - block.labels - 1) / block.cell), row = Math.floor((event.clientY - box.top - 1) / block.cell);
  return column >= 0 && column < block.columns && block.where ? block.where.get(row * block.columns + column) ?? -1 : -1;
}

function hover(block, n, event) {
  const tip = byId("tip");
  if (n < 0) {
    tip.hidden = true;
    return;
  }
  const { numbers, index } = block.place.cells;
  tip.replaceChildren(...describe(block.place, numbers[n], index[n]));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.min(event.clientX + 14, window.innerWidth - box.width - 8)}px`;
  tip.style.top = `${event.clientY + box.height + 24 > window.innerHeight ? event.clientY - box.height - 10 : event.clientY + 16}px`;
}

// A port at the present moment, in a line or two.
function describe(place, number, port) {
  const span = port < 0 ? -1 : spanAt(port);
  const title = make("div", {}, make("b", {}, String(number)), ` ${placeName(place)}`);
  if (span < 0) return [title, isInside(place.now, number) ? "FREE, not used before" : "not in the pool now"];
  const state = lives.state[span], since = `${STATES[state]} since ${momentOf(lives.time[span])}`;
  if (lives.runs.has(span)) return [title, `${many(lives.runs.get(span)[1], "change")} within ${duration(endOf(port, span) - lives.time[span])}, mostly ${STATES[state]}`];
  if (state === ALLOCATED) return [title, since, make("div", {}, ...holder(lives.owner[span], lives.service[span]))];
  const note = data.texts.notes[lives.note[span]];
  return [title, since, note ? make("div", {}, note) : ""];
}

function choose(block, n) {
  if (n >= 0) select(block.place, block.place.cells.numbers[n]);
}

const selectedCell = (block) => (page.chosen?.place === block.place ? block.place.cells.position.get(page.chosen.number) ?? -1 : -1);

function steer(block, event) {
  const last = block.spots.length - 1, at = Math.max(0, block.at);
  const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -at, End: last - at };
  if (event.key === "Enter" || event.key === " ") choose(block, at);
  else if (event.key in steps) walk(block, at + steps[event.key]);
  else if (event.key === "ArrowDown" || event.key === "ArrowUp") walk(block, rowStep(block, at, event.key === "ArrowDown" ? 1 : -1));
  else return;
  event.preventDefault();
}

// The cell in the row above or below, or the nearest there is.
function rowStep(block, at, step) {
  const row = Math.floor(block.spots[at] / block.columns) + step, column = block.spots[at] % block.columns;
  for (let off = 0; off < block.columns; off++) {
    for (const near of [column - off, column + off]) if (near >= 0 && near < block.columns && block.where.has(row * block.columns + near)) return block.where.get(row * block.columns + near);
  }
  return at;
}

function walk(block, n) {
  block.at = Math.min(block.spots.length - 1, Math.max(0, n));
  const { numbers, index } = block.place.cells;
  byId("said").textContent = describe(block.place, numbers[block.at], index[block.at]).map((part) => part.textContent ?? part).join(", ");
  redraw();
}
