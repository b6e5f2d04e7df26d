// What the page has to say without being asked: ports that changed hands, shortages, happenings, and how far all this can be trusted.

const kindText = (kind) =>
  ({ crashed: "opened again after a crash", opened: "log opened", closed: "log closed", pool_defined: "pool defined", proxy_joined: "proxy joined", proxy_left: "proxy left" })[kind] ?? kind.replaceAll("_", " ");

function setUpReuse() {
  const holds = data.pools.map((pool) => pool.hold_s).filter((hold) => hold > 0);
  byId("least").value = holds.length ? Math.min(...holds) : 10;
  for (const id of ["least", "unit"]) byId(id).addEventListener("input", showReuse);
  showReuse();
}

function showReuse() {
  const { closest } = data, limit = Number(byId("least").value) * Number(byId("unit").value) * 1e6;
  const rows = [];
  for (let n = 0; n < closest.gap_us.length && closest.gap_us[n] < limit; n++) rows.push(n);
  const all = rows.length === closest.gap_us.length && closest.total > rows.length;
  const said = byId("reuse-said");
  said.className = `answer ${rows.length ? "bad" : "good"}`;
  said.textContent = reuseSentence(rows.length, all, limit);
  const titles = [{ text: "After", num: true }, "Port", "From", "To", { text: "When", nowrap: true }, "Between them"];
  longTable(byId("reuse-list"), titles, rows, reuseRow);
}

function reuseSentence(count, all, limit) {
  const { closest } = data;
  if (!(limit >= 0)) return "Give a length of time.";
  if (!closest.total) return "No port changed hands.";
  if (!count) return `None. The closest of ${many(closest.total, "change", "changes")} of hands came after ${durationUs(closest.gap_us[0])}.`;
  if (all) return `At least ${count.toLocaleString("en")} of ${closest.total.toLocaleString("en")}: the page knows the ${count.toLocaleString("en")} closest, all of them closer than this.`;
  return `${count.toLocaleString("en")} of ${many(closest.total, "change", "changes")} of hands.`;
}

function reuseRow(n) {
  const { closest } = data, place = places[closest.place[n]];
  const open = () => {
    page.fine = true;
    setTime(closest.time[n]);
    select(place, closest.port[n], { look: true });
  };
  return [
    durationUs(closest.gap_us[n]),
    [make("button", { class: "link", type: "button", onclick: open }, name(String(closest.port[n]))), make("small", {}, placeName(place))],
    whose(closest.owner[n], closest.service[n]), whose(closest.next_owner[n], closest.next_service[n]), momentOf(closest.time[n], 3), data.texts.notes[closest.note[n]] || "its hold ended",
  ];
}

const whose = (owner, service) => [name(data.texts.owners[owner] || "?"), make("small", {}, service ? name(data.texts.services[service]) : "no service")];

function showExhaustion() {
  const rows = [];
  let total = 0, lasted = 0;
  for (const place of places) {
    total += place.exhausted.total;
    lasted += place.exhausted.lasted;
    for (const [since, until] of place.exhausted.listed) rows.push([place, since, until]);
  }
  rows.sort((a, b) => (b[2] ?? data.window.to) - b[1] - ((a[2] ?? data.window.to) - a[1]));
  const said = byId("exhaustion-said"), least = places.length ? places.reduce((a, b) => (b.least_free < a.least_free ? b : a)) : null;
  said.className = `answer ${total ? "bad" : "good"}`;
  said.textContent = total ? `${many(total, "episode")}, ${duration(lasted)} in all${rows.length < total ? `; the longest ${rows.length} are listed` : ""}.`
    : least ? `Never. The fewest were ${many(least.least_free, "free port")}, in ${placeName(least)}.` : "No pool was used.";
  const go = (time) => () => { page.fine = true; setTime(time); byId("h-occupancy").scrollIntoView({ block: "center" }); };
  longTable(byId("exhaustion-list"), [{ text: "Lasted", num: true }, "Pool", { text: "From", nowrap: true }, { text: "To", nowrap: true }], rows, ([place, since, until]) => [
    duration((until ?? data.window.to) - since), name(placeName(place)), make("button", { class: "link", type: "button", onclick: go(since) }, momentOf(since, 3)), until === null ? "lasts" : momentOf(until, 3)], 8);
}

function showHappenings() {
  const rows = data.happenings.slice().reverse();
  if (!rows.length) {
    byId("happenings-list").replaceChildren(make("p", { class: "quiet" }, "No opening, no change of a pool, no proxy came or went."));
    return;
  }
  longTable(byId("happenings-list"), [{ text: "When", nowrap: true }, "What", "Details", { text: "Event", num: true }], rows, ([time, seq, kind, pool, text]) => [
    momentOf(time, 3), kindText(kind), [pool ? name(pool) : "", pool && text ? " · " : "", text], `@${seq}`], 15);
}

function showIntegrity() {
  const { facts, window: seen } = data, badge = byId("verdict");
  const good = facts.passed;
  badge.hidden = good === null;
  badge.classList.add(good ? "good" : "bad");
  badge.textContent = good ? "The log holds" : "The log is damaged";
  byId("integrity-said").textContent = facts.verdict || "The log was not checked when this page was made.";
  byId("integrity-said").classList.add(good ? "good" : "bad");
  const marks = { ok: "✓ ok", FAIL: "✗ failed", note: "note", "-": "–" };
  if (facts.checks.length) byId("checks").replaceChildren(table(["", "Check", "Found"], facts.checks.map(([mark, what, found]) => [make("span", { class: mark }, marks[mark] ?? mark), what, found])));
  const lines = [["Head", facts.head ? make("span", { class: "mono" }, facts.head) : "none"], ["Events", seen.events ? `@${seen.first_seq} to @${seen.last_seq}, ${seen.events.toLocaleString("en")}` : "none in this window"],
    ["Made", `${new Date(facts.made_ns / 1e6).toISOString().slice(0, 19).replace("T", " ")} UTC by ${facts.made_by}`], ["Times", "UTC, on the log’s own steady clock"]];
  if (facts.head) lines.push(["Check it", make("span", { class: "mono" }, `portfsm verify ${facts.title} --expect ${facts.head}`)]);
  byId("facts").replaceChildren(...lines.flatMap(([what, said]) => [make("dt", {}, what), make("dd", {}, said)]));
}
