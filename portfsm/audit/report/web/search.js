// Who, what, which: owners and services by a part of their name, ports by their number.

const MOST_HITS = 30;

function setUpSearch() {
  const field = byId("search");
  let waiting = 0;
  field.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => search(field.value.trim()), 80);
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      field.value = "";
      search("");
    } else if (event.key === "Enter") byId("hits").querySelector("button")?.click();
  });
}

function search(text) {
  page.sought = null;
  byId("hits").dataset.found = text;
  if (!text) {
    byId("hits").replaceChildren();
    redraw();
    return;
  }
  const owners = matching(data.texts.owners, text), services = matching(data.texts.services, text), ports = matchingPorts(text);
  const none = !owners.length && !services.length && !ports.length;
  byId("hits").replaceChildren(
    ...group("Ports", ports, portHit), ...group("Services", services, (number) => nameHit("service", "services", number)), ...group("Owners", owners, (number) => nameHit("owner", "owners", number)),
    ...(none ? [make("p", { class: "quiet" }, nothing(text))] : []));
  redraw();
}

function nothing(text) {
  const apart = data.omitted.spans ? " Short lives are drawn together on this page, without their names: " : "";
  return `Nothing here is called “${text}”.${apart}${apart ? `portfsm log ${page.log} --owner NAME finds them all.` : ""}`;
}

// The numbers of the texts that contain `text`: those that begin with it first.
function matching(texts, text) {
  const wanted = text.toLowerCase(), begin = [], within = [];
  for (let n = 1; n < texts.length; n++) {
    const at = texts[n].toLowerCase().indexOf(wanted);
    if (at >= 0) (at ? within : begin).push(n);
  }
  return [...begin, ...within];
}

function matchingPorts(text) {
  if (!/^[0-9]{1,5}$/.test(text)) return [];
  const found = [], number = Number(text);
  for (const place of shownPlaces()) {
    if (place.ranges.some(([, ranges]) => isInside(ranges, number)) || portIndex(place.number, number) >= 0) found.push([place, number]);
  }
  for (let port = 0; port < lives.ports && found.length <= MOST_HITS; port++) {
    if (lives.port[port] !== number && String(lives.port[port]).startsWith(text)) found.push([places[lives.place[port]], lives.port[port]]);
  }
  return found;
}

function group(title, found, made) {
  if (!found.length) return [];
  const more = found.length > MOST_HITS ? make("p", { class: "quiet" }, `and ${(found.length - MOST_HITS).toLocaleString("en")} more: type more of the name`) : "";
  return [make("div", {}, make("h3", {}, `${title} · ${found.length.toLocaleString("en")}`), make("ul", {}, found.slice(0, MOST_HITS).map((one) => make("li", {}, made(one)))), more)];
}

function portHit([place, number]) {
  return make("button", { type: "button", onclick: () => select(place, number, { look: true }) }, name(String(number)), make("small", {}, placeName(place)));
}

// Every lease of an owner or a service.
function leasesOf(kind, number) {
  const found = [];
  for (let port = 0; port < lives.ports; port++) {
    for (let n = lives.first[port]; n < lives.first[port + 1]; n++) if (lives.state[n] === ALLOCATED && lives[kind][n] === number) found.push([port, n]);
  }
  return found;
}

function nameHit(kind, list, number) {
  const leases = leasesOf(kind, number);
  const first = leases[0], where = first && placeName(places[lives.place[first[0]]]);
  const small = leases.length === 1 ? `${lives.port[first[0]]} · ${where} · ${momentOf(lives.time[first[1]])} for ${duration(endOf(...first) - lives.time[first[1]])}` : many(leases.length, "lease");
  const under = make("ul");
  const button = make("button", { type: "button", "aria-pressed": "false", onclick: () => seek(kind, number, leases, button, under) }, name(data.texts[list][number]), make("small", {}, leases.length ? small : "named among those that changed hands; its lease is drawn together with others"));
  return [button, under];
}

// Show them on the map; a single lease opens its port.
function seek(kind, number, leases, button, under) {
  const again = page.sought?.kind === kind && page.sought.number === number;
  for (const other of byId("hits").querySelectorAll("[aria-pressed]")) other.setAttribute("aria-pressed", "false");
  for (const list of byId("hits").querySelectorAll("li > ul")) list.replaceChildren();
  page.sought = again ? null : { kind, number };
  button.setAttribute("aria-pressed", String(!again));
  if (!again && leases.length === 1) openLease(leases[0]);
  else if (!again) under.append(...leases.sort((a, b) => lives.time[a[1]] - lives.time[b[1]]).slice(0, 100).map(leaseHit));
  redraw();
}

function leaseHit(lease) {
  const [port, n] = lease;
  return make("li", {}, make("button", { type: "button", onclick: () => openLease(lease) }, `${lives.port[port]} `, make("span", { class: "quiet" }, placeName(places[lives.place[port]])),
    make("small", {}, `${momentOf(lives.time[n])} for ${duration(endOf(port, n) - lives.time[n])}`)));
}

function openLease([port, n]) {
  const now = page.time >= lives.time[n] && page.time < endOf(port, n);
  if (!now) {
    page.fine = true;
    setTime(Math.max(data.window.from, lives.time[n]));
  }
  select(places[lives.place[port]], lives.port[port]);
}
