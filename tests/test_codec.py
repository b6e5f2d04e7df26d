"""The line format: bytes to events and back, and what every kind of damage to the bytes looks like."""

import copy
import itertools
import json
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portfsm import _codec
from portfsm._codec import BATCH_BYTES, ClockMark, Encoder, Header, Seal
from portfsm._recovery import Place, Tail, Verdict, decide, facts, tail_limit
from portfsm._scanner import Scanner
from portfsm.errors import JournalTooNew
from portfsm.events import Event
from portfsm.testing.contract import sample_events

SECTOR = 512


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


def random_batches(total, largest, seed=3):
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


# ---- the format itself ------------------------------------------------------------------------------------------------


def test_the_format_changes_unnoticed():
    """The bytes of a small segment, spelled out. Logs of every release must stay readable: change this only with `fmt`."""
    batches = [
        [Event(1, 1760000000000000001, _codec.EventKind.OPENED, data={"epoch": 1})],
        [
            Event(2, 1760000000000000002, _codec.EventKind.ALLOCATED, "n", "http", 30000, "r-1", "svc", 2),
            Event(3, 1760000000000000003, _codec.EventKind.FREED, "", "http", 30001, cause="elapsed"),
        ],
    ]
    encoder = Encoder()
    data = (
        encoder.encode_line(header(prev="ab"))
        + encoder.encode(batches[0])
        + encoder.encode_line(ClockMark(5, 6, 7))
        + encoder.encode(batches[1])
    )
    data += encoder.encode_line(Seal(3, 3, "cd"))
    lines = data.splitlines(keepends=True)
    assert [line[:-17] for line in lines] == [
        b'{"kind":"segment","fmt":1,"log":"00000000000000000000000000000000","no":1,"base":0,"epoch":1,"prev":"ab"',
        b'{"seq":1,"ts":1760000000000000001,"kind":"opened","data":{"epoch":1}',
        b'{"kind":"clock","ts":5,"wall":6,"boot":7',
        b'{"seq":2,"ts":1760000000000000002,"kind":"allocated","node":"n","pool":"http","port":30000,"owner":"r-1","service":"svc","token":2,"b":[1,2]',
        b'{"seq":3,"ts":1760000000000000003,"kind":"freed","pool":"http","port":30001,"cause":"elapsed","b":[2,2]',
        b'{"kind":"seal","count":3,"last":3,"sha256":"cd"',
    ]
    for start, line in zip(itertools.accumulate(map(len, lines), initial=0), lines, strict=False):
        assert line[-17:] == b',"c":"%08x"}\n' % zlib.crc32(data[: start + len(line) - 17])
        assert json.loads(line)["c"] == line[-11:-3].decode()


def test_text_breaks_a_line():
    """No character of any text ends a line early: other tools split where we do."""
    segment = Segment(random_batches(130, 4))
    assert len(segment.bytes.split(b"\n")) == 130 + 2
    for line in segment.bytes.split(b"\n")[:-1]:
        json.loads(line)


@pytest.mark.parametrize("chunk", [1, 2, 17, 100, 997, 4096, 1 << 20])
@pytest.mark.parametrize("sealed", [False, True])
def test_events_depend_on_how_the_bytes_arrive(chunk, sealed):
    """Any size of chunk gives the same events: batches, marks and lines may lie across the borders."""
    segment = Segment(random_batches(200, 40), sealed=sealed)
    events, rule = recover(segment.bytes, chunk=chunk)
    assert events == segment.events
    assert rule.verdict is Verdict.CLEAN


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 3000), st.integers(0, 200), st.booleans())
def test_skipping_loses_or_repeats_events(sizes, chunk, after, sealed):
    """`after` gives exactly the later events, wherever batches and chunks end."""
    segment = Segment(batches_of(*sizes), sealed=sealed)
    events, rule = recover(segment.bytes, chunk=chunk, after=after)
    assert events == segment.events[after:]
    assert rule.verdict is Verdict.CLEAN


def test_a_line_that_was_not_synced_with_its_batch_is_given_out():
    """The events of a batch whose last line is missing are held back, however many chunks they fill."""
    segment = Segment(batches_of(3, 2000))
    scanner, seen = Scanner("test"), []
    cut = len(segment.bytes) - 100
    for start in range(0, cut, 1 << 12):
        seen += scanner.feed(segment.bytes[start : min(cut, start + (1 << 12))])
    assert seen == segment.events[:3]
    assert scanner.incomplete
    assert seen + scanner.feed(segment.bytes[cut:]) == segment.events


# ---- damage -----------------------------------------------------------------------------------------------------------


def test_a_cut_off_log_is_misread():
    """A log of 200 events cut at every byte: every complete batch is kept, and nothing else; never refused."""
    segment = Segment(random_batches(200, 4))
    complete = 0
    for cut in range(segment.marks[0], len(segment.bytes) + 1):
        while complete + 1 < len(segment.marks) and segment.marks[complete + 1] <= cut:
            complete += 1
        # A batch that lacks nothing but its last line end proves itself.
        whole = complete + 1 if cut + 1 in segment.marks[complete + 1 : complete + 2] else complete
        events, rule = recover(segment.bytes[:cut])
        assert len(events) == segment.counts[whole], cut
        assert events == segment.events[: len(events)]
        assert rule.verdict is (Verdict.CLEAN if cut - segment.marks[whole] in {0, -1} else Verdict.TORN), cut


def test_a_cut_inside_the_header_opens():
    """A header is synced before the file has its name, so no crash cuts it."""
    segment = Segment(batches_of(1))
    for cut in range(segment.marks[0] - 1):
        assert recover(segment.bytes[:cut])[1].verdict is Verdict.CORRUPT


@pytest.mark.parametrize("sealed", [False, True])
def test_a_flipped_bit_is_not_noticed(sealed):
    """Every single bit of a log: refused, or the last batch is called torn; nothing older is ever lost."""
    segment = Segment(random_batches(60 if sealed else 200, 4), sealed=sealed)
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
    """A sealed segment ends with its seal."""
    segment = Segment(batches_of(2), sealed=True)
    assert recover(segment.bytes)[1].verdict is Verdict.CLEAN
    assert recover(segment.bytes + b"x")[1].verdict is Verdict.CORRUPT
    assert recover(segment.bytes[:-1])[1].verdict is Verdict.CLEAN, "the line end of a proven seal is no loss"


def test_forged_bytes_take_for_ever():
    """Megabytes made of half lines are judged in linear time."""
    start = Encoder().encode_line(header())
    for piece in (b'{"seq":1,', b',"c":"00000000"}', b'{"kind":"seal",', b'{"seq":1,"c":"00000000"}', b'"', b"\n"):
        events, rule = recover(start + piece * (1_000_000 // len(piece)))
        assert (events, rule.verdict) == ([], Verdict.TORN)


# ---- proven lines that cannot be --------------------------------------------------------------------------------------


def proven(*bodies, header=header()):
    """A segment of these bodies, every checksum right, as faulty software would write it."""
    data = Encoder().encode_line(header)
    for body in bodies:
        data += body
        data += b',"c":"%08x"}\n' % zlib.crc32(data)
    return data


GOOD = b'{"seq":1,"ts":1,"kind":"opened"'


@pytest.mark.parametrize(
    "bodies",
    [
        (GOOD, b'{"seq":3,"ts":1,"kind":"opened"'),
        (GOOD, GOOD),
        (GOOD, b'{"seq":2,"ts":1,"kind":7'),
        (GOOD, b'{"seq":2,"ts":1'),
        (GOOD, b'{"seq":2,"ts":1,"kind":"opened","port":"x"'),
        (GOOD, b'{"seq":2,"ts":1,"kind":"opened"}'),
        (GOOD, b"\xff\xfe"),
        (GOOD, b'{"seq":2,"ts":1,"kind":"opened","unkn\xffwn":1'),
        (GOOD, b'{"kind":"segment","fmt":1,"log":"x","no":2,"base":1,"epoch":1'),
        (GOOD, b'{"kind":"seal","count":2,"last":2,"sha256":"x"'),
        (GOOD, b'{"kind":"seal","count":1'),
        (GOOD, b'{"seq":2,"ts":1,"kind":"opened","b":[2,3]'),
        (GOOD, b'{"seq":2,"ts":1,"kind":"opened","b":[1,2]', b'{"kind":"seal","count":2,"last":2,"sha256":"x"'),
        (GOOD, b'{"seq":2,"ts":1,"kind":"opened","b":[5,4]'),
    ],
)
@pytest.mark.parametrize("chunk", [1 << 16, 40])
def test_software_that_wrote_nonsense_is_taken_for_a_crash(bodies, chunk):
    """A right checksum over something that cannot be: refused wherever it stands, with the place."""
    data = proven(*bodies)
    scanner, events = Scanner("test"), []
    for start in range(0, len(data), chunk):
        events += scanner.feed(data[start : start + chunk])
    assert scanner.wrong is not None
    assert data[scanner.wrong.offset :].count(b"\n") == 1
    assert decide(facts(scanner, place=Place.LAST, size=len(data), tail=b"")).verdict is Verdict.CORRUPT
    assert [event.seq for event in events] == [1]


@pytest.mark.parametrize(
    "second",
    [b'{"seq":3,"ts":1,"kind":"opened","b":[2,2]', b'{"seq":3,"ts":1,"kind":"opened"', b'{"seq":3,"ts":1,"kind":"opened","b":[2,4]'],
)
@pytest.mark.parametrize("chunk", [1, 40])
def test_the_rest_of_another_batch_completes_one(second, chunk):
    """What waits for its batch's end is not released by the end of something else."""
    data = proven(GOOD, b'{"seq":2,"ts":1,"kind":"opened","b":[1,3]', second)
    scanner, events = Scanner("test"), []
    for start in range(0, len(data), chunk):
        events += scanner.feed(data[start : start + chunk])
    assert scanner.wrong is not None
    assert [event.seq for event in events] == [1]


def test_a_segment_without_header_is_read():
    """What does not begin with a header is nothing of ours."""
    for first in (GOOD, b'{"kind":"seal","count":0,"last":0,"sha256":""', b'{"kind":"segment"'):
        data = first + b',"c":"%08x"}\n' % zlib.crc32(first)
        _, rule = recover(data)
        assert rule.tails == (Tail.WRONG,)


# ---- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (proven(header=header(fmt=2)), "format 2"),
        (proven(header=header(features=("zstd",))), "feature 'zstd'"),
        (proven(GOOD, b'{"kind":"merkle","root":"x"'), "line kind 'merkle'"),
        (proven(GOOD, b'{"seq":2,"ts":1,"kind":"teleported"'), "event kind 'teleported' version 1"),
        (proven(b'{"seq":1,"ts":1,"kind":"opened","v":2', header=header(schema=2)), "event kind 'opened' version 2"),
        (
            b'{"kind":"segment","fmt":9,"everything":"else","c":"%08x"}\n' % zlib.crc32(b'{"kind":"segment","fmt":9,"everything":"else"'),
            "format 9",
        ),
    ],
)
def test_a_log_of_a_newer_version_is_misread(data, found):
    """Whatever this version does not know is said by name, and not taken for damage."""
    with pytest.raises(JournalTooNew) as raised:
        recover(data)
    assert raised.value.found == found
    assert "upgrade" in str(raised.value)


def test_an_old_record_is_misread(monkeypatch):
    """Records of older versions pass through every upcaster from theirs on; lines of mixed versions may follow each other."""
    calls = []

    def renamed(record):
        calls.append(1)
        record["owner"] = record.pop("holder")
        return record

    def split(record):
        calls.append(2)
        record["owner"], record["service"] = record["owner"].split("/")
        return record

    monkeypatch.setitem(_codec.UPCASTERS, ("allocated", 1), renamed)
    monkeypatch.setitem(_codec.UPCASTERS, ("allocated", 2), split)
    data = proven(
        b'{"seq":1,"ts":1,"kind":"allocated","port":1,"holder":"a/s"',
        b'{"seq":2,"ts":1,"kind":"allocated","port":1,"owner":"b/s","v":2,"b":[1,2]',
        b'{"seq":3,"ts":1,"kind":"allocated","port":1,"owner":"c","service":"s","v":3,"b":[2,2]',
        header=header(schema=0),
    )
    events, rule = recover(data)
    assert [(event.owner, event.service) for event in events] == [("a", "s"), ("b", "s"), ("c", "s")]
    assert calls == [1, 2, 2]
    assert rule.verdict is Verdict.CLEAN


def test_an_upcaster_fails_in_silence(monkeypatch):
    """A record that its upcaster cannot read is refused, not dropped."""
    monkeypatch.setitem(_codec.UPCASTERS, ("allocated", 1), lambda record: {"kind": "allocated", "owner": record["holder"]})
    scanner = Scanner("test")
    scanner.feed(proven(b'{"seq":1,"ts":1,"kind":"allocated"', header=header(schema=0)))
    assert scanner.wrong is not None


def test_a_changed_record_is_written_as_if_it_were_unchanged():
    """Whoever adds an upcaster must raise `SCHEMA`, else old segments take the fast path and are misread; and must write `v`."""
    assert _codec.UPCASTERS == {}
    assert _codec.SCHEMA == 1
