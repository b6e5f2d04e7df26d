// The slider, the play button, and everything that moves with them. `page.time` is the present moment, in the data's units.

const SLIDER_STEPS = 2000;

function setTime(time, { slide = true } = {}) {
  page.time = Math.min(data.window.to, Math.max(data.window.from, time));
  if (slide) byId("slider").value = Math.round(((page.time - data.window.from) / (data.window.to - data.window.from || 1)) * SLIDER_STEPS);
  byId("slider").setAttribute("aria-valuetext", `${dayOf(page.time)} ${clockOf(page.time, 0)} UTC`);
  redraw();
}

// Many calls, one drawing: the last before the next frame.
function redraw() {
  if (page.drawing) return;
  page.drawing = true;
  requestAnimationFrame(() => {
    page.drawing = false;
    moveTo(page.time);
    countStates();
    showTime();
    showLegend();
    moveHeads();
    drawMap();
    showPort();
  });
}

function showTime() {
  byId("now").replaceChildren(make("small", {}, `${dayOf(page.time)} UTC`), clockOf(page.time, page.fine ? 3 : 0));
  byId("at").textContent = `at ${momentOf(page.time, page.fine ? 3 : 0)} UTC`;
  byId("back").disabled = page.time <= data.window.from;
  byId("forth").disabled = page.time >= data.window.to;
}

function showLegend() {
  const sums = [0, 0, 0, 0];
  for (const place of shownPlaces()) place.counts.forEach((count, state) => (sums[state] += count));
  const items = [ALLOCATED, QUARANTINED, BLOCKED, FREE].map((state) =>
    make("li", { class: state === FREE && !sums[FREE] ? "least" : null }, swatch(state), make("b", {}, sums[state].toLocaleString("en")), STATES[state]));
  byId("legend").replaceChildren(...items);
}

function play(on) {
  page.playing = on;
  byId("play").setAttribute("aria-pressed", String(on));
  byId("play").title = on ? "Pause (space)" : "Play (space)";
  byId("play").lastElementChild.textContent = on ? "Pause" : "Play";
  if (!on) return;
  if (page.time >= data.window.to) setTime(data.window.from);
  let before = performance.now();
  const step = (now) => {
    if (!page.playing) return;
    const span = data.window.to - data.window.from;
    setTime(page.time + (span * Math.min(250, now - before)) / 1000 / Number(byId("speed").value));
    before = now;
    if (page.time >= data.window.to) play(false);
    else requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}

// The nearest change of a shown port before or after the present.
function jump(forward) {
  let found = forward ? data.window.to : data.window.from;
  const shown = new Set(shownPlaces());
  for (let port = 0; port < lives.ports; port++) {
    if (!shown.has(places[lives.place[port]])) continue;
    const span = lives.at[port], next = forward ? span + 1 : span;
    if (next < lives.first[port] || next >= lives.first[port + 1]) continue;
    const time = lives.time[next];
    if (forward) found = Math.min(found, time);
    else if (time < page.time) found = Math.max(found, time);
    else if (next > lives.first[port] && lives.time[next - 1] < page.time) found = Math.max(found, lives.time[next - 1]);
  }
  page.fine = true;
  setTime(found);
}

// Above the slider: how much changed when.
function drawPulse() {
  const canvas = byId("pulse"), width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width) return;
  const bins = new Float64Array(Math.max(1, Math.floor(width / 3)));
  const span = data.window.to - data.window.from || 1;
  for (let n = 0; n < lives.total; n++) {
    const bin = Math.floor(((lives.time[n] - data.window.from) / span) * bins.length);
    if (bin >= 0) bins[Math.min(bins.length - 1, bin)] += lives.runs.has(n) ? lives.runs.get(n)[1] : 1;
  }
  const most = Math.max(1, ...bins), context = sharp(canvas, width, height);
  context.fillStyle = colour("--free-line");
  bins.forEach((count, n) => {
    const tall = count ? Math.max(1.5, Math.sqrt(count / most) * height) : 0;
    context.fillRect(n * 3, height - tall, 2, tall);
  });
}

function setUpTime() {
  const slider = byId("slider");
  slider.max = SLIDER_STEPS;
  slider.addEventListener("input", () => {
    page.fine = false;
    setTime(data.window.from + ((data.window.to - data.window.from) * slider.value) / SLIDER_STEPS, { slide: false });
  });
  byId("play").addEventListener("click", () => play(!page.playing));
  byId("back").addEventListener("click", () => jump(false));
  byId("forth").addEventListener("click", () => jump(true));
  document.addEventListener("keydown", (event) => {
    const busy = event.target.closest("input, select, button, a, canvas, [tabindex]");
    if (event.key === " " && !busy) {
      event.preventDefault();
      play(!page.playing);
    }
  });
}
