"""What every kind of damage to the bytes of a segment looks like."""

import copy
import itertools
import random

import pytest

from portfsm._codec import BATCH_BYTES, Encoder
from portfsm._recovery import Place, Verdict
from portfsm._scanner import Scanner
from portfsm.testing.contract import sample_events
from tests.segment import Segment, batches_of, header, judge, random_batches, recover

SECTOR = 512


class Prefixes:
    """A scanner for each start of a line, so that damage behind it need not scan everything before it again."""

    def __init__(self, data):
        self.data, self.saved = data, []
        scanner, events = Scanner("test"), []
        self.starts = [0, *(place + 1 for place in range(len(data)) if data[place] == 10)]
        for start, end in itertools.pairwise(self.starts):
            self.saved.append((copy.copy(scanner), list(scanner._pending), list(events)))
            events += scanner.feed(data[start:end])

    def recover(self, line, rest):
        scanner, pending, events = self.saved[line]
        scanner, events = copy.copy(scanner), list(events)
        scanner._pending = list(pending)
        events += scanner.feed(rest)
        return judge(self.data[: self.starts[line]] + rest, scanner, events)


def check_nothing_older_lost(segment, events, rule):
    """Refused; or a prefix that lacks at most the last batch, and then it says so."""
    if rule.verdict is Verdict.CORRUPT:
        return
    assert events == segment.events[: len(events)]
    assert len(events) >= segment.counts[-2]
    if len(events) < len(segment.events):
        assert rule.verdict is Verdict.TORN


def test_a_cut_off_log_is_misread(times):
    """A log of 200 events cut at every byte: every complete batch is kept, and nothing else; never refused."""
    for seed in range(times):
        cut_everywhere(Segment(random_batches(200, 4, seed)))


def cut_everywhere(segment):
    prefixes = Prefixes(segment.bytes)
    complete = line = 0
    for cut in range(segment.marks[0], len(segment.bytes) + 1):
        while line + 1 < len(prefixes.saved) and prefixes.starts[line + 1] <= cut:
            line += 1
        while complete + 1 < len(segment.marks) and segment.marks[complete + 1] <= cut:
            complete += 1
        # A batch that lacks nothing but its last line end proves itself.
        whole = complete + 1 if cut + 1 in segment.marks[complete + 1 : complete + 2] else complete
        events, rule = prefixes.recover(line, segment.bytes[prefixes.starts[line] : cut])
        assert len(events) == segment.counts[whole], cut
        assert events == segment.events[: len(events)]
        assert rule.verdict is (Verdict.CLEAN if cut - segment.marks[whole] in {0, -1} else Verdict.TORN), cut


def test_a_cut_inside_the_header_opens():
    """A header is synced before the file has its name, so no crash cuts it."""
    segment = Segment(batches_of(1))
    for cut in range(segment.marks[0] - 1):
        assert recover(segment.bytes[:cut])[1].verdict is Verdict.CORRUPT


@pytest.mark.parametrize("sealed", [False, True])
def test_a_flipped_bit_is_not_noticed(sealed, times):
    """Every single bit of a log: refused, or the last batch is called torn; nothing older is ever lost."""
    for seed in range(times):
        flip_everywhere(Segment(random_batches(60 if sealed else 200, 4, seed), sealed=sealed), sealed=sealed)


def flip_everywhere(segment, *, sealed):
    data, outcomes = segment.bytes, dict.fromkeys(Verdict, 0)
    prefixes = Prefixes(data)
    for line, (start, end) in enumerate(itertools.pairwise(prefixes.starts)):
        rest = bytearray(data[start:])
        for place, bit in itertools.product(range(end - start), range(8)):
            rest[place] ^= 1 << bit
            events, rule = prefixes.recover(line, bytes(rest))
            rest[place] ^= 1 << bit
            outcomes[rule.verdict] += 1
            assert rule.verdict is not Verdict.CLEAN, (start + place, bit)
            check_nothing_older_lost(segment, events, rule)
            if sealed and rule.verdict is Verdict.TORN:
                assert events == segment.events, "only the seal itself can be torn off a sealed segment"
    last = (len(segment.parts[-1]) + 1) * 8
    assert 0 < outcomes[Verdict.TORN] <= last
    assert outcomes[Verdict.CORRUPT] + outcomes[Verdict.TORN] == len(data) * 8


def test_a_deleted_doubled_or_moved_line_is_not_noticed():
    """Editing by lines, as a careless script would: refused unless only the last batch is touched."""
    segment = Segment(random_batches(200, 4))
    lines = segment.bytes.splitlines(keepends=True)
    untouched = 0
    for place in range(1, len(lines)):
        for edited in (
            lines[:place] + lines[place + 1 :],
            lines[: place + 1] + lines[place:],
            lines[: place - 1] + [lines[place], lines[place - 1]] + lines[place + 1 :],
        ):
            events, rule = recover(b"".join(edited))
            if b"".join(edited) == segment.bytes[: len(b"".join(edited))]:
                continue  # whole lines off the end: only a head kept elsewhere can tell
            check_nothing_older_lost(segment, events, rule)
            untouched += rule.verdict is not Verdict.CORRUPT
    assert untouched <= 3 * len(segment.batches[-1])


@pytest.mark.parametrize("size", [SECTOR, 4096])
@pytest.mark.parametrize("fill", [b"\0", b"\xff", b'{"seq":'])
def test_a_lost_sector_is_not_noticed(size, fill):
    """A whole sector or page of zeros, of ones, of something that looks like a line."""
    segment = Segment(random_batches(400, 6))
    for start in range(0, len(segment.bytes), SECTOR):
        data = bytearray(segment.bytes)
        data[start : start + size] = (fill * size)[: len(data[start : start + size])]
        events, rule = recover(bytes(data))
        assert events == segment.events[: len(events)]
        assert len(events) == len(segment.events) or rule.verdict is not Verdict.CLEAN
        if start + size <= segment.marks[-2]:  # the last batch is whole
            assert rule.verdict is Verdict.CORRUPT


def test_a_lost_line_end_hides_a_later_batch():
    """Damage that takes the end of a line and its line end with it: the next batch is found all the same, wherever it begins."""
    segment = Segment(random_batches(60, 3))
    for mark in segment.marks[1:-1]:
        for width in (2, 9, 30):
            data = bytearray(segment.bytes)
            data[mark - width : mark] = b"#" * width
            assert recover(bytes(data))[1].verdict is Verdict.CORRUPT


@pytest.mark.slow
def test_a_power_cut_loses_acknowledged_events_or_is_refused(times):
    """100,000 power cuts during the last write: sectors kept, zeroed, garbage, any length. Acknowledged batches stay, and it opens."""
    chance, cuts = random.Random(1), 0
    events = sample_events(400)
    for _ in range(5000 * times):
        sizes = [chance.randint(1, 6) for _ in range(chance.choice((0, 1, 1, 2, 3)))]
        encoder, taken = Encoder(), 0
        synced = encoder.encode_line(header())
        for size in sizes:
            synced += encoder.encode(events[taken : taken + size])
            taken += size
        last = chance.randint(1, 24)
        written = synced + encoder.encode(events[taken : taken + last])
        for _ in range(20):
            cuts += 1
            believed, rule = recover(torn(written, len(synced), chance))
            assert rule.verdict is not Verdict.CORRUPT, rule.why
            assert believed in (events[:taken], events[: taken + last])
    assert cuts == 100_000 * times


def torn(written, synced, chance):
    size = chance.choice((len(written), chance.randint(synced, len(written)), (len(written) + 4095) // 4096 * 4096))
    image = bytearray(written[:size].ljust(size, b"\0"))
    if chance.random() < 0.3:
        return bytes(image)
    for sector in range(synced // SECTOR * SECTOR, size, SECTOR):
        start, end, fate = max(sector, synced), min(sector + SECTOR, size), chance.random()
        if fate > 0.5:
            image[start:end] = bytes(end - start) if fate < 0.8 else chance.randbytes(end - start)
    return bytes(image)


def test_damage_longer_than_a_write_is_called_torn():
    """What is larger than any write cannot be one that was torn. The limit grows with the header's word, and with it alone."""
    encoder = Encoder()
    start = encoder.encode_line(header()) + encoder.encode(sample_events(3))
    for behind, verdict in ((BATCH_BYTES, Verdict.TORN), (BATCH_BYTES + (65 << 10), Verdict.CORRUPT)):
        assert recover(start + bytes(behind))[1].verdict is verdict
    encoder = Encoder()
    start = encoder.encode_line(header(batch=3 << 20)) + encoder.encode(sample_events(3))
    assert recover(start + bytes(2 << 20))[1].verdict is Verdict.TORN


def test_a_damaged_batch_before_a_seal_is_called_torn():
    """A seal is written after the sync of all before it: where one can be read behind the damage, nothing was torn."""
    segment = Segment(batches_of(2, 3), sealed=True)
    data = bytearray(segment.bytes)
    data[segment.marks[1] + 20] ^= 1
    assert recover(bytes(data))[1].verdict is Verdict.CORRUPT
    unsealed = data[: segment.marks[2]]
    assert recover(bytes(unsealed))[1].verdict is Verdict.TORN


def test_bytes_behind_a_seal_are_dropped():
    """A segment ends with its seal: what a power cut left there instead of its line end is told, what somebody wrote there is refused."""
    segment = Segment(batches_of(2), sealed=True)
    seal, later = segment.bytes[segment.bytes.index(b'{"kind":"seal"') :], Encoder().encode(sample_events(1, after=2))
    assert recover(segment.bytes)[1].verdict is Verdict.CLEAN
    assert recover(segment.bytes[:-1])[1].verdict is Verdict.CLEAN, "the line end of a proven seal is no loss"
    for rubbish in (b"x", b"\0" * 400, b"x\n"):
        for whole in (segment.bytes[:-1], segment.bytes):
            events, rule = recover(whole + rubbish)
            assert (events, rule.verdict) == (segment.events, Verdict.TORN)
            assert recover(whole + rubbish, place=Place.EARLIER)[1].verdict is Verdict.CORRUPT
    for more in (later, b"x" + seal, bytes(2 << 20)):
        assert recover(segment.bytes + more)[1].verdict is Verdict.CORRUPT


def test_forged_bytes_take_for_ever():
    """Megabytes made of half lines are judged in linear time."""
    start = Encoder().encode_line(header())
    for piece in (b'{"seq":1,', b',"c":"00000000"}', b'{"kind":"seal",', b'{"seq":1,"c":"00000000"}', b'"', b"\n"):
        events, rule = recover(start + piece * (1_000_000 // len(piece)))
        assert (events, rule.verdict) == ([], Verdict.TORN)
