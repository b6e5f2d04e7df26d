// The data of this page, unpacked. The other end of the format is _data.py.
//
// Lives stand as columns in typed arrays: half a million spans cost some twenty megabytes here, where objects would cost ten times that.

const FREE = 0, ALLOCATED = 1, QUARANTINED = 2, BLOCKED = 3, ABSENT = 4;
const STATES = ["FREE", "ALLOCATED", "QUARANTINED", "BLOCKED"];

async function readData(element) {
  const text = element.textContent;
  if (element.type === "application/json") return JSON.parse(text);
  if (!("DecompressionStream" in window)) throw new Error("this browser is older than 2023 and cannot unpack it: open the page in a newer one");
  const packed = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(plain).text());
}

// Each number stands as its distance from the one before.
function summed(column, into) {
  let sum = 0;
  for (let n = 0; n < column.length; n++) into[n] = sum += column[n];
  return into;
}

function unpackLives(packed) {
  const ports = packed.port.length, total = packed.time.length;
  const lives = {
    ports, total,
    place: summed(packed.place, new Int32Array(ports)),
    port: new Uint16Array(ports),
    first: new Int32Array(ports + 1), // of its spans; the last is where the next port begins
    time: new Float64Array(total),
    seq: new Float64Array(total),
    state: Uint8Array.from(packed.state, Number),
    note: Int32Array.from(packed.note),
    owner: new Int32Array(total),
    service: new Int32Array(total),
    runs: new Map(), // span -> [leases, changes], for those that stand for several
    marks: new Map(), // span -> [[time, note], ...]
    at: new Int32Array(ports), // the present span of each port, -1 before its first; moved by `moveTo`
  };
  packed.run.forEach((span, n) => lives.runs.set(span, [packed.leases[n], packed.changes[n]]));
  packed.mark.forEach((span, n) => {
    if (!lives.marks.has(span)) lives.marks.set(span, []);
    lives.marks.get(span).push([packed.at[n], packed.said[n]]);
  });
  unpackPorts(packed, lives);
  unpackHolders(packed, lives);
  return lives;
}

function unpackPorts(packed, lives) {
  let span = 0;
  for (let port = 0; port < lives.ports; port++) {
    const near = port && lives.place[port] === lives.place[port - 1] ? lives.port[port - 1] : 0;
    lives.port[port] = near + packed.port[port];
    lives.first[port] = span;
    let time = 0, seq = 0;
    for (const end = span + packed.pieces[port]; span < end; span++) {
      lives.time[span] = time += packed.time[span];
      if (packed.seq[span]) lives.seq[span] = seq += packed.seq[span];
    }
  }
  lives.first[lives.ports] = span;
}

function unpackHolders(packed, lives) {
  // Owners stand for leases, and for the first span of a life; 0 is one that was not named before.
  let next = 0, known = 1;
  for (let port = 0; port < lives.ports; port++) {
    for (let span = lives.first[port]; span < lives.first[port + 1]; span++) {
      if (lives.runs.has(span) || (lives.state[span] !== ALLOCATED && span > lives.first[port])) continue;
      lives.owner[span] = packed.owner[next] ? packed.owner[next] - 1 : known++;
      lives.service[span] = packed.service[next++];
    }
  }
}
