"""Bytes of a segment, with what damage and recovery make of them."""

import itertools
import random
import zlib

from portfsm._codec import Encoder, Header, Seal
from portfsm._recovery import Place, decide, facts, tail_limit
from portfsm._scanner import Scanner
from portfsm.testing.contract import sample_events


def header(**changes):
    return Header(**{"fmt": 1, "log": "0" * 32, "no": 1, "base": 0, "epoch": 1} | changes)


class Segment:
    """Bytes of a segment, with the places where its batches end."""

    def __init__(self, batches, *, sealed=False, header=header()):
        encoder = Encoder()
        self.batches = batches
        self.parts = [encoder.encode_line(header)]
        self.parts += [encoder.encode(batch) for batch in batches]
        self.marks = list(itertools.accumulate(map(len, self.parts)))
        self.counts = list(itertools.accumulate(map(len, batches), initial=0))
        self.events = [event for batch in batches for event in batch]
        if sealed:
            self.parts.append(encoder.encode_line(Seal(len(self.events), self.counts[-1], "0" * 64)))
        self.bytes = b"".join(self.parts)


def batches_of(*sizes):
    events = iter(sample_events(sum(sizes)))
    return [list(itertools.islice(events, size)) for size in sizes]


def random_batches(total, largest, seed=0):
    chance, sizes = random.Random(seed), []
    while sum(sizes) < total:
        sizes.append(min(chance.randint(1, largest), total - sum(sizes)))
    return batches_of(*sizes)


def judge(data, scanner, events, place=Place.LAST):
    """The events that are believed, and the row of the decision table."""
    events += scanner.finish()
    limit = tail_limit(scanner.header) if scanner.header else 0
    tail = data[scanner.good.offset : scanner.good.offset + limit]
    return events, decide(facts(scanner, place=place, size=len(data), tail=tail))


def recover(data, place=Place.LAST, chunk=1 << 16, after=0):
    scanner, events = Scanner("test", after=after), []
    for start in range(0, len(data), chunk):
        events += scanner.feed(data[start : start + chunk])
    return judge(data, scanner, events, place)


def proven(*bodies, header=header()):
    """A segment of these bodies, every checksum right, as faulty software would write it."""
    data = Encoder().encode_line(header)
    for body in bodies:
        data += body
        data += b',"c":"%08x"}\n' % zlib.crc32(data)
    return data


GOOD = b'{"seq":1,"ts":1,"kind":"opened"'
