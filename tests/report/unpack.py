"""The page's data read back: from the page itself, into plain lists of spans. What `decode.js` does, done once more in the plainest way."""

from __future__ import annotations

import base64
import json
import re
import zlib
from itertools import accumulate
from typing import NamedTuple


class Told(NamedTuple):
    """A span as the page tells it; times in whole units of the page."""

    start: int
    state: int
    seq: int
    owner: str
    service: str
    note: str
    leases: int
    changes: int


def data_of(page: bytes) -> dict:
    """What stands in the page for its script."""
    kind, text = re.search(rb'<script id="data" type="([^"]+)">(.*?)</script>', page, re.DOTALL).groups()
    return json.loads(zlib.decompress(base64.b64decode(text)) if kind == b"application/zlib;base64" else text)


def lives_of(data: dict) -> dict[tuple[int, int], list[Told]]:
    """(number of the place, port) to what the page tells of it."""
    lives, texts = data["lives"], data["texts"]
    owners, services, notes, times, seqs = map(iter, (lives["owner"], lives["service"], lives["note"], lives["time"], lives["seq"]))
    runs = {span: (leases, changes) for span, leases, changes in zip(lives["run"], lives["leases"], lives["changes"], strict=True)}
    found: dict[tuple[int, int], list[Told]] = {}
    at, known, port_before, place_before = 0, 1, 0, -1
    for place, port_step, count in zip(accumulate(lives["place"]), lives["port"], lives["pieces"], strict=True):
        port = port_step + (port_before if place == place_before else 0)
        place_before, port_before = place, port
        told, time, seq = found.setdefault((place, port), []), 0, 0
        for nth in range(at, at + count):
            time += next(times)
            step = next(seqs)
            seq += step
            state, owner, service = int(lives["state"][nth]), "", ""
            if nth not in runs and (state == 1 or nth == at):
                code = next(owners)
                owner = texts["owners"][code - 1 if code else known]
                known += not code
                service = texts["services"][next(services)]
            told.append(Told(time, state, seq if step else 0, owner, service, texts["notes"][next(notes)], *runs.get(nth, (0, 0))))
        at += count
    return found


def units(data: dict, ns: int) -> int:
    """A moment as the page counts it."""
    return (ns - data["t0_ms"] * 1_000_000) // (data["unit_us"] * 1000)


def at(told: list[Told], time: int) -> Told | None:
    """What the port was at that time, after all that happened then."""
    begun = [span for span in told if span.start <= time]
    return begun[-1] if begun else None
