// The page comes to life: read the data, say what it does and does not tell, draw.

let data, lives, places;
const page = { time: 0, playing: false, fine: false, drawing: false, chosen: null, sought: null, focus: null, colours: {}, heads: [], blocks: [], strips: null, days: 1, log: "LOG" };

function shownPlaces() {
  const pool = byId("pool").value, node = byId("node").value;
  return places.filter((place) => (pool === "*" || place.pool === pool) && (node === "*" || place.node === node.slice(1)));
}

function understand(read) {
  data = read;
  lives = unpackLives(read.lives);
  places = read.places;
  places.forEach((place, number) => {
    place.number = number;
    const all = place.ranges.map(([, ranges]) => ranges.reduce((sum, [low, high]) => sum + high - low + 1, 0));
    place.most = Math.max(...all);
    place.firstPort = place.lastPort = 0;
  });
  for (let port = 0; port < lives.ports; port++) {
    const place = places[lives.place[port]];
    if (!port || lives.place[port - 1] !== place.number) place.firstPort = port;
    place.lastPort = port + 1;
  }
  for (const place of places) {
    const numbers = Array.from({ length: place.lastPort - place.firstPort }, (_, n) => lives.port[place.firstPort + n]);
    place.fixed = place.ranges.length === 1 && numbers.every((number) => isInside(place.ranges[0][1], number));
  }
  page.days = dayOf(data.window.from) === dayOf(data.window.to) ? 1 : 2;
  page.log = data.facts.title;
}

function fillChoices() {
  const pools = [...new Set(places.map((place) => place.pool))], nodes = [...new Set(places.map((place) => place.node))];
  byId("pool").replaceChildren(make("option", { value: "*" }, "all"), ...pools.map((pool) => make("option", { value: pool }, pool)));
  byId("node").replaceChildren(make("option", { value: "*" }, "all"), ...nodes.map((node) => make("option", { value: `=${node}` }, node || "this host")));
  byId("pool").parentElement.hidden = pools.length < 2;
  byId("node").parentElement.hidden = nodes.length < 2;
  for (const id of ["pool", "node"]) byId(id).addEventListener("change", redrawAll);
}

function redrawAll() {
  page.colours = {};
  page.strips = null;
  drawPulse();
  drawCharts();
  buildMap();
  if (page.chosen?.port >= 0) drawBar();
  redraw();
}

function showWindow() {
  const { window: seen, facts } = data, span = seen.to - seen.from;
  const days = page.days > 1 ? `${dayOf(seen.from)} ${clockOf(seen.from, 0)} to ${dayOf(seen.to)} ${clockOf(seen.to, 0)}` : `${dayOf(seen.from)}, ${clockOf(seen.from, 0)} to ${clockOf(seen.to, 0)}`;
  const asked = facts.asked.length ? ` · only ${facts.asked.join(", ")}` : "";
  byId("window").textContent = seen.last_seq || places.length ? `${days} UTC · ${duration(span)} · ${many(seen.events, "event")}${asked}` : `No events yet${asked}`;
}

function showTiles() {
  const nodes = new Set(places.map((place) => place.node)).size, ports = places.reduce((sum, place) => sum + place.most, 0);
  const episodes = places.reduce((sum, place) => sum + place.exhausted.total, 0), { closest } = data;
  const crashes = data.happenings.filter(([, , kind]) => kind === "crashed").length;
  const tiles = [
    [ports.toLocaleString("en"), `ports in ${many(data.pools.length, "pool")} on ${many(nodes, "node")}`],
    [data.window.leases.toLocaleString("en"), "leases begun"],
    [closest.total ? durationUs(closest.gap_us[0]) : "–", closest.total ? "shortest time from one service to another" : "no port changed hands"],
    [episodes.toLocaleString("en"), episodes === 1 ? "time without a free port" : "times without a free port", episodes > 0],
    [crashes.toLocaleString("en"), crashes === 1 ? "crash of the controller" : "crashes of the controller"],
  ];
  byId("tiles").replaceChildren(...tiles.map(([figure, text, bad]) => make("li", { class: bad ? "bad" : null }, make("b", {}, figure), make("span", {}, text))));
}

// What the page cannot tell, before anything else.
function showAlerts() {
  const { omitted, window: seen } = data, said = [];
  if (data.damage) said.push(["bad", `This page ends where the log is damaged, after @${seen.last_seq}. ${data.damage}`]);
  if (!seen.last_seq && places.length) said.push(["", "No event lies in this window. The page shows how the ports stood."]);
  if (!places.length) said.push(["", data.pools.length ? `No port was used yet. Defined: ${data.pools.map((pool) => `${pool.name} (${pool.ranges})`).join(", ")}.` : "The log has no events yet: no pool is defined, no port was used."]);
  if (omitted.shorter_than_ns) said.push(["", `To stay small, this page draws together what lasted less than ${durationUs(omitted.shorter_than_ns / 1000)}: ${many(omitted.spans, "short state")} that followed one another on the same port, shown with a dot, as how many they were and without names. Charts, shortages and the closest changes of hands are made from every event. For each life, make a page of a shorter window: portfsm report ${page.log} --since … --until …`]);
  if (omitted.places) said.push(["", `The single ports of ${many(omitted.places, "place")} found no room on this page; their charts are whole. Choose with --pool, --node or a shorter window.`]);
  byId("alerts").replaceChildren(...said.map(([kind, text]) => make("p", { class: `alert ${kind}` }, text)));
}

// Auto, light, dark. Paper is always light.
function setUpTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)"), paper = matchMedia("print"), button = byId("theme");
  const choices = ["auto", "light", "dark"];
  let choice = "auto";
  const apply = () => {
    const wanted = choice === "auto" ? (dark.matches ? "dark" : "light") : choice;
    document.documentElement.dataset.theme = paper.matches || page.printing ? "light" : wanted;
    button.textContent = { auto: "◐ Auto", light: "○ Light", dark: "● Dark" }[choice];
    button.setAttribute("aria-label", `Theme: ${choice}. Change`);
    page.colours = {};
    if (data) {
      for (const block of page.blocks) block.drawn = null;
      drawPulse();
      moveTo(page.time);
      countStates();
      drawMap();
    }
  };
  button.addEventListener("click", () => { choice = choices[(choices.indexOf(choice) + 1) % 3]; apply(); });
  dark.addEventListener("change", apply);
  paper.addEventListener("change", apply);
  addEventListener("beforeprint", () => { page.printing = true; apply(); });
  addEventListener("afterprint", () => { page.printing = false; apply(); });
  apply();
}

function watchWidth() {
  let width = 0, waiting = 0;
  new ResizeObserver(([entry]) => {
    if (Math.abs(entry.contentRect.width - width) < 2) return;
    const first = !width;
    width = entry.contentRect.width;
    clearTimeout(waiting);
    waiting = setTimeout(redrawAll, first ? 0 : 120);
  }).observe(byId("charts"));
}

async function start() {
  setUpTheme();
  try {
    understand(await readData(byId("data")));
  } catch (error) {
    byId("loading").textContent = `The data in this page cannot be read: ${error.message}.`;
    byId("loading").classList.add("bad");
    return;
  }
  byId("loading").remove();
  byId("whole").hidden = false;
  showWindow();
  showAlerts();
  showIntegrity();
  const used = places.length > 0;
  for (const part of [byId("tiles"), document.querySelector(".player"), document.querySelector(".columns"), byId("reuse"), byId("exhaustion")]) part.hidden = !used;
  showHappenings();
  if (used) {
    fillChoices();
    showTiles();
    setUpTime();
    setUpSearch();
    setUpReuse();
    showExhaustion();
    buildPort();
    setTime(data.window.to);
    redrawAll();
    watchWidth();
  }
  document.documentElement.dataset.ready = "yes";
}

start();
