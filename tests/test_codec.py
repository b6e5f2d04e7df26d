"""The line format: bytes to events and back, lines that cannot be, and other versions."""

import itertools
import json
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portfsm import _codec
from portfsm._codec import ClockMark, Encoder, Seal
from portfsm._recovery import Place, Tail, Verdict, decide, facts
from portfsm._scanner import Scanner
from portfsm.errors import JournalTooNew
from portfsm.events import Event
from tests.segment import GOOD, Segment, batches_of, header, proven, random_batches, recover

# ---------------------------------------------------------------------- the format itself


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


# ---------------------------------------------------------------------- proven lines that cannot be


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


# ---------------------------------------------------------------------- versions


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
