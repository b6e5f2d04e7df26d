"""Every crash of a log's whole life: after each step that changed the disk, with each choice of what was not synced. Nothing is drawn.

What must hold each time: what was acknowledged is recovered, of what was attempted all or nothing, in order; the log opens, takes events and opens again.
"""

import errno
import os

import pytest

from portfsm.errors import OutcomeUnknown, PortfsmError
from portfsm.journals import FileJournal
from portfsm.testing.contract import sample_events

from .crash_states import RecordedDisk, crash_states, disk_of

pytestmark = pytest.mark.usefixtures("quiet")

EVENTS = sample_events(60)
STATE = b"state"


def open_journal(disk, **options):
    journal = FileJournal("/log", disk=disk, **{"segment_bytes": 900, "reserve_bytes": 2000} | options)
    journal.open("me")
    return journal


class Life:
    """What happens to one log, and what was promised meanwhile."""

    def __init__(self):
        self.disk, self.journal, self.done = RecordedDisk(), None, 0

    def open(self, **options):
        self.journal = open_journal(self.disk, **options)
        assert list(self.journal.read()) == EVENTS[: self.done]

    def append(self, *sizes):
        for size in sizes:
            self.disk.note("attempt", self.done + size)
            self.journal.append(EVENTS[self.done : self.done + size])
            self.done += size
            self.disk.note("acknowledge", self.done)

    def snapshot(self):
        self.journal.save_snapshot(self.done, [b"%d" % self.done, STATE])

    def torn(self, size):
        """The process dies in the middle of a write."""
        self.disk.fail(at=0, kind="short", only=["pwrite"])
        self.disk.fail(at=1, kind=errno.EIO, only=["pwrite"])
        self.disk.note("attempt", self.done + size)
        with pytest.raises(OutcomeUnknown):
            self.journal.append(EVENTS[self.done : self.done + size])
        self.kill()

    def kill(self):
        self.disk = self.disk.killed()
        self.journal = None

    def close(self):
        self.journal.close()


def plain():
    """Single events and batches over several segments, snapshots, a clean end and a clean beginning."""
    life = Life()
    life.open()
    life.append(2, 1)
    life.snapshot()
    life.append(5, 1)
    life.snapshot()
    life.append(1)
    life.snapshot()
    life.close()
    life.open()
    life.close()
    life.open()
    life.append(1)
    life.close()
    return life


def killed():
    """Killed between two writes, before the first one, and after a segment was sealed."""
    life = Life()
    life.open()
    life.kill()
    life.open()
    life.append(1, 3)
    life.kill()
    life.open()
    life.kill()
    life.open()
    life.append(2, 4, 1)
    life.close()
    life.kill()
    life.open()
    life.append(1)
    life.close()
    return life


def torn():
    """Writes torn, short and long, the first of a segment and a later one, each mended by the next opening."""
    life = Life()
    life.open()
    life.append(2)
    life.torn(3)
    life.open()
    life.append(1)
    life.torn(7)
    life.open()
    life.torn(1)
    life.open()
    life.append(1)
    life.close()
    return life


def full():
    """The disk is full while a torn segment is mended: it is sealed in place, on the reserve."""
    life = Life()
    life.open(segment_bytes=1 << 20)
    life.append(4, 8)
    life.torn(7)
    life.disk.capacity = sum(len(life.disk.contents(f"/log/{name}")) for name in life.disk.listdir("/log"))
    life.open(segment_bytes=1 << 20)
    life.append(1)
    life.disk.capacity = None
    life.append(1)
    life.close()
    return life


LIVES = [plain, killed, torn, full]


def check(disk, acknowledged, attempted):
    journal = open_journal(disk)
    found = list(journal.read())
    assert len(found) in (acknowledged, attempted), "half of a batch" if acknowledged < len(found) < attempted else ""
    assert found == EVENTS[: len(found)]
    snapshot = journal.load_snapshot()
    assert snapshot is None or (snapshot[0] <= len(found) and snapshot[1] == [b"%d" % snapshot[0], STATE])
    journal.append(EVENTS[len(found) : len(found) + 2])
    after = disk.crashed(len(found))
    journal.close()
    for again in (disk, after):
        assert found_in(again) == EVENTS[: len(found) + 2]


def explore(ops, start=0, seen=None):
    """Every crash behind step `start` that is not among those `seen`; all of these then."""
    seen = set() if seen is None else seen
    for number, acknowledged, attempted, state in crash_states(ops, start):
        if (acknowledged, attempted, state) in seen:
            continue
        seen.add((acknowledged, attempted, state))
        try:
            check(disk_of(state), acknowledged, attempted)
        except (AssertionError, PortfsmError) as error:
            error.add_note(f"after step {number} of {len(ops)}, {acknowledged} acknowledged, {attempted} attempted")
            raise
    return seen


@pytest.mark.parametrize(
    ("life", "floor"), [(plain, 400), (killed, 300), (torn, 8000), (full, 4000)], ids=["plain", "killed", "torn", "full"]
)
def test_a_crash_loses_events_or_blocks_the_log(life, floor, record_property):
    count = len(explore(life().disk.ops))
    record_property("crash states", count)
    assert count >= floor


def mended(state):
    """What an opening after this crash does to the disk: the steps, and from which on they are its own."""
    life = Life()
    life.disk = disk_of(state, RecordedDisk)
    life.done = len(found_in(disk_of(state)))
    life.disk.note("attempt", life.done)
    life.disk.note("acknowledge", life.done)
    start = len(life.disk.ops)
    life.open()
    life.append(2)
    life.close()
    return life.disk.ops, start


def found_in(disk):
    journal = open_journal(disk)
    found = list(journal.read())
    journal.close()
    return found


def crash_twice(strides):
    """Two crashes of each life, from every so-manieth state that the first may leave; how many different ones there were."""
    seen = set()
    for life, stride in strides:
        for *_, state in list(crash_states(life().disk.ops))[::stride]:
            explore(*mended(state), seen)
    return len(seen)


def test_a_crash_while_a_crash_is_mended_loses_events_or_blocks_the_log():
    assert crash_twice(((plain, 29), (killed, 29), (torn, 499), (full, 499))) > 5000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_crash_while_any_crash_is_mended_loses_events_or_blocks_the_log(times):
    strides = ((plain, 1), (killed, 1), (torn, 97), (full, 97)) if times > 1 else ((plain, 5), (killed, 5), (torn, 307), (full, 307))
    assert crash_twice(strides) > (40_000 if times > 1 else 8_000)


def test_a_life_is_too_tame_to_prove_anything():
    """Segments are renamed into place, sealed, mended elsewhere, and on the full disk in place."""
    for life in LIVES:
        ops = life().disk.ops
        assert sum(op.kind == "step" and bool(op.rest[1]) and bool(op.rest[2]) for op in ops) >= 3
        assert sum(op.kind == "write" and b'"kind":"seal"' in op.rest[0] for op in ops) >= 2
        first = [op.of for op in ops if op.kind == "write" and op.rest[0].startswith(b'{"kind":"segment"')]
        assert (len(first) > len(set(first))) is (life is full)


def test_a_state_of_the_disk_is_left_out():
    """The model itself: what was synced stays, the rest may be there in part, and a name may go without the bytes behind it."""
    disk = RecordedDisk()
    disk.mkdir("/d")
    fd = disk.open("/d/new", os.O_RDWR | os.O_CREAT)
    disk.pwrite(fd, b"a" * 700, 0)
    disk.fsync(fd)
    unnamed = {state for *_, state in crash_states(disk.ops)}
    assert (("/d",), (("/d", "new", b"a" * 700),)) in unnamed
    assert (("/d",), ()) in unnamed
    start = len(disk.ops) + 1
    folder = disk.open("/d", os.O_RDONLY | os.O_DIRECTORY)
    disk.fsync(folder)
    disk.pwrite(fd, b"b" * 600, 600)
    disk.ftruncate(fd, 650)
    disk.rename("/d/new", "/d/old")
    found = {files for number, *_, (_, files) in crash_states(disk.ops, start)}
    assert {name for ((_, name, _),) in found} == {"new", "old"}
    for data in (
        b"a" * 700,
        b"a" * 600 + b"b" * 600,
        b"a" * 600 + b"b" * 50,
        b"a" * 650,
        b"a" * 600 + b"b" * 424,
        b"a" * 700 + b"\0" * 324 + b"b" * 176,
        b"a" * 600 + b"b" * 100 + b"\0" * 324,
        b"a" * 600 + b"b" * 100 + b"\xa5" * 324,
        b"a" * 600 + b"b" * 100 + b"b" * 162,
    ):
        assert (("/d", "old", data),) in found
    assert all(data.startswith(b"a" * 600) for ((_, _, data),) in found)
