// Questions to the lives: what is a port at the present moment, who held it, what did it belong to.

// Move the present span of every port to the last that has begun by `time`. Steps are taken from where each stands, so playing costs little.
function moveTo(time) {
  const { first, time: begins, at } = lives;
  for (let port = 0; port < lives.ports; port++) {
    let span = at[port];
    if (span < first[port]) span = first[port] - 1;
    while (span >= first[port] && begins[span] > time) span--;
    while (span + 1 < first[port + 1] && begins[span + 1] <= time) span++;
    at[port] = span;
  }
}

const spanAt = (port) => (lives.at[port] >= lives.first[port] ? lives.at[port] : -1);
const isLast = (port, span) => span + 1 >= lives.first[port + 1];
const endOf = (port, span) => (isLast(port, span) ? data.window.to : lives.time[span + 1]);

// The span of the lease that a quarantine or a block followed on; -1 where that is not known.
function formerLease(port, span) {
  for (let before = span; before >= lives.first[port]; before--) {
    if (lives.state[before] === ALLOCATED || (before === lives.first[port] && lives.owner[before])) return lives.runs.has(before) ? -1 : before;
    if (lives.runs.has(before)) return -1;
  }
  return -1;
}

// The ranges of a place at a moment.
function rangesAt(place, time) {
  let found = place.ranges[0][1];
  for (const [since, ranges] of place.ranges) if (since <= time) found = ranges;
  return found;
}

const isInside = (ranges, number) => ranges.some(([low, high]) => low <= number && number <= high);

// How many ports of each place are in each state, now. Ports outside the ranges are counted apart.
function countStates() {
  for (const place of places) {
    place.now = rangesAt(place, page.time);
    place.size = place.now.reduce((sum, [low, high]) => sum + high - low + 1, 0);
    place.counts = [0, 0, 0, 0];
    place.retired = 0;
  }
  for (let port = 0; port < lives.ports; port++) {
    const span = spanAt(port), state = span < 0 ? FREE : lives.state[span];
    if (state === FREE) continue;
    const place = places[lives.place[port]];
    if (place.fixed || isInside(place.now, lives.port[port])) place.counts[state]++;
    else place.retired++;
  }
  const step = Math.max(0, Math.min(data.grid.count - 1, Math.floor((page.time - data.window.from) / data.grid.step)));
  for (const place of places) {
    if (place.left_out) [ALLOCATED, QUARANTINED, BLOCKED].forEach((state) => (place.counts[state] = Math.round(place.means[state - 1][step])));
    place.counts[FREE] = place.size - place.counts[ALLOCATED] - place.counts[QUARANTINED] - place.counts[BLOCKED];
  }
}

// What to call the owner and service of a lease.
function holder(owner, service) {
  const parts = [owner ? name(data.texts.owners[owner]) : "nobody known"];
  if (service) parts.push(" for ", name(data.texts.services[service]));
  return parts;
}

// The index of a port that has a life; -1 for one that has none.
function portIndex(placeNumber, number) {
  const place = places[placeNumber];
  let low = place.firstPort, high = place.lastPort - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (lives.port[middle] === number) return middle;
    if (lives.port[middle] < number) low = middle + 1;
    else high = middle - 1;
  }
  return -1;
}
