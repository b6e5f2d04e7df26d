"""The mutants: one replacement of text each, and the tests expected to notice.

Rule: `old` stands in the file exactly once (`test_stale` looks), and what is named in `tests` passes without the mutant.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    name: str
    file: str
    """Inside the package."""
    old: str
    new: str
    tests: tuple[str, ...]
    """What pytest is told to run, those first that are expected to fail."""


CRASHES = "tests/journals/test_crash_states.py"
FAULTS = "tests/journals/test_faults.py"
FILE = "tests/journals/test_file.py"
LOCKING = "tests/journals/test_locking.py"
MENDING = "tests/journals/test_mending.py"
TAKEOVER = "tests/journals/test_takeover.py"
REFUSALS = "tests/journals/test_refusals.py"
CODEC = "tests/test_codec.py"
CANCELLATION = "tests/test_cancellation.py"
ENDINGS = "tests/test_endings.py"
CLOCKS = "tests/test_clocks.py"
TIME = "tests/test_time.py"
EVIDENCE = "tests/test_evidence.py"
WARDEN = "tests/test_warden.py"
PRESSURE = "tests/test_pressure.py"
DISK = "journals/_disk.py"
MEND = "journals/_mend.py"
WRITER = "journals/_writer.py"
LOCK = "journals/_lock.py"
JOURNAL = "journals/file.py"
SEGMENTS = "journals/_segments.py"

MUTANTS = [
    # ---- what reaches the disk
    Mutant(
        "no sync of a batch",
        WRITER,
        "            self._disk.fdatasync(self._fd)\n",
        "            pass\n",
        (f"{CRASHES}::test_a_crash_loses_events_or_blocks_the_log",),
    ),
    Mutant(
        "no sync of a file before its rename",
        DISK,
        "                offset += len(piece)\n            self.disk.fsync(fd)\n",
        "                offset += len(piece)\n",
        (f"{CRASHES}::test_a_crash_loses_events_or_blocks_the_log",),
    ),
    Mutant(
        "no sync of the directory",
        DISK,
        "        self.sync_failed = True\n        self.disk.fsync(fd)\n",
        "        self.sync_failed = True\n",
        (f"{CRASHES}::test_a_crash_loses_events_or_blocks_the_log",),
    ),
    Mutant(
        "no sync of the epoch",
        LOCK,
        "        self._disk.fsync(self._fd)\n        if new:\n",
        "        if new:\n",
        (f"{TAKEOVER}::test_an_epoch_is_given_twice_after_a_power_cut",),
    ),
    Mutant(
        "a failed sync is no reason to stop",
        JOURNAL,
        "            self._stopped = error\n            _log.error(",
        "            self._stopped = None\n            _log.error(",
        (f"{FAULTS}::test_a_failed_sync_is_tried_again",),
    ),
    Mutant(
        "a failed directory sync is no reason to stop",
        JOURNAL,
        "        if self._directory.sync_failed:\n            raise OutcomeUnknown(",
        "        if False:\n            raise OutcomeUnknown(",
        (f"{FAULTS}::test_a_failed_directory_sync_is_forgotten",),
    ),
    # ---- opening after a crash
    Mutant(
        "a seal is added to what the cache shows",
        MEND,
        "        directory.publish(segment.name, chain(_good(directory, segment, ending), [_seal_of(segment, ending)]))\n",
        "        fd = directory.disk.open(directory.at(segment.name), os.O_RDWR)\n"
        '        data = b"".join(_good(directory, segment, ending))[ending.good.offset :] + _seal_of(segment, ending)\n'
        "        directory.disk.ftruncate(fd, ending.good.offset)\n"
        "        directory.disk.fsync(fd)\n"
        "        write_all(directory.disk, fd, data, ending.good.offset)\n"
        "        directory.disk.fsync(fd)\n"
        "        shut(directory.disk, fd)\n",
        (f"{FAULTS}::test_pages_that_were_never_written_are_believed",),
    ),
    Mutant(
        "a seal is not written anew",
        JOURNAL,
        "self._reserve.make_room_for(lambda: reaffirm(self._directory, self._segments[-1]))",
        "pass",
        (f"{FAULTS}::test_a_seal_that_was_never_written_is_believed",),
    ),
    Mutant(
        "a seal is written in front of a torn tail",
        MEND,
        "            disk.ftruncate(fd, ending.good.offset)\n            disk.fsync(fd)\n",
        "            disk.ftruncate(fd, ending.good.offset)\n",
        (f"{CRASHES}::test_a_crash_loses_events_or_blocks_the_log[full]",),
    ),
    Mutant(
        "what was read is not compared with what is sealed",
        MEND,
        "    if digest.hexdigest() != ending.sha256:\n",
        "    if False:\n",
        (f"{FAULTS}::test_what_was_read_is_gone_before_it_was_written_anew",),
    ),
    Mutant(
        "a torn tail is not kept",
        MEND,
        "    if ending.torn_bytes:\n        keep_torn(",
        "    if False:\n        keep_torn(",
        (f"{MENDING}::test_a_torn_tail_is_lost_without_a_trace",),
    ),
    Mutant(
        "a snapshot outlives the events it was made of",
        MEND,
        "    remove_newer(directory, last_seq)\n",
        "",
        ("tests/journals/test_snapshots.py::test_a_snapshot_of_a_history_that_was_cut_off_comes_back",),
    ),
    # ---- what is believed
    Mutant(
        "the lines of half a batch are believed",
        "_scanner.py",
        "        return self._prove_each(rest) if rest and not self.stopped else []\n",
        "        out = self._prove_each(rest) if rest and not self.stopped else []\n"
        "        out, self._pending, self.good = out + self._pending, [], self._at\n"
        "        return out\n",
        (f"{CODEC}::test_a_cut_off_log_is_misread", f"{CRASHES}::test_a_crash_loses_events_or_blocks_the_log[torn]"),
    ),
    Mutant(
        "a batch is not marked as one",
        "_codec.py",
        "(suffix, text, number, count) if count > 1 else text",
        "(suffix, text, number, count) if count > 2 else suffix + text",
        (f"{CODEC}", f"{FAULTS}"),
    ),
    Mutant(
        "no checksum of a chunk",
        "_scanner.py",
        "        if not lines.endswith(suffix):\n",
        "        if not suffix:\n",
        (f"{CODEC}::test_a_flipped_bit_is_not_noticed",),
    ),
    Mutant(
        "no checksum of a line",
        "_scanner.py",
        "            if suffix[:-1] == match[0]:\n",
        "            if suffix:\n",
        (f"{CODEC}::test_a_flipped_bit_is_not_noticed",),
    ),
    Mutant(
        "no link from a segment to the seal before",
        SEGMENTS,
        "(header.prev != seal.sha256, ",
        "(False, ",
        (f"{REFUSALS}::test_an_edited_segment_is_not_noticed",),
    ),
    Mutant(
        "damage before a later batch is a torn tail",
        "_recovery.py",
        "later=begun_later(tail, scanner.good.next_seq) is not None,",
        "later=False,",
        (f"{MENDING}::test_damage_is_taken_for_a_torn_tail",),
    ),
    Mutant(
        "a damaged seal is no seal",
        "_recovery.py",
        "        sealed or sealed_in(tail),\n",
        "        sealed,\n",
        (f"{CODEC}::test_a_damaged_batch_before_a_seal_is_called_torn",),
    ),
    # ---- one writer
    Mutant(
        "two may lock",
        LOCK,
        "            self._disk.flock(fd)\n",
        "            pass\n",
        (f"{LOCKING}::test_two_processes_write",),
    ),
    Mutant(
        "no look at the epoch before a write",
        WRITER,
        "            self._lock.check()\n            written = True\n",
        "            written = True\n",
        (f"{TAKEOVER}::test_a_superseded_writer_writes_before_it_looks",),
    ),
    Mutant(
        "no look at the epoch between write and sync",
        WRITER,
        "            self._lock.check()\n            gone =",
        "            gone =",
        (f"{TAKEOVER}::test_a_writer_superseded_during_its_write_acknowledges_it",),
    ),
    Mutant(
        "a superseded writer mends",
        JOURNAL,
        "            lock.check()  # whoever was superseded must not mend what another writes\n",
        "",
        (f"{LOCKING}::test_a_superseded_writer_mends_what_another_writes",),
    ),
    Mutant(
        "a deleted segment is written to",
        WRITER,
        "gone = self._disk.fstat(self._fd).st_nlink == 0",
        "gone = False",
        (f"{LOCKING}::test_a_writer_goes_on_in_a_deleted_segment",),
    ),
    # ---- leases and time
    Mutant(
        "a cancelled call keeps its port",
        "_engine.py",
        "        grant.waiting -= 1\n",
        "",
        (f"{CANCELLATION}::test_a_cancelled_allocate_leaks_its_port",),
    ),
    Mutant(
        "one cancelled call takes the port from all",
        "_engine.py",
        "        if grant.waiting > 0:\n",
        "        if grant.waiting < 0:\n",
        (f"{CANCELLATION}::test_cancelling_one_caller_takes_the_port_from_another_of_the_same_owner",),
    ),
    Mutant(
        "a former owner may release",
        "_decide.py",
        "last = pool.state[offset], pool.token[offset] == lease.token\n",
        "last = pool.state[offset], True\n",
        ("tests/test_commands.py", "tests/test_rejections.py"),
    ),
    Mutant(
        "a second release forgets the hold that runs",
        "_draft.py",
        "        if full > until:",
        "        if full:",
        (f"{ENDINGS}::test_an_earlier_hold_that_a_short_second_lease_cuts_off",),
    ),
    Mutant(
        "a block forgets the hold that runs",
        "_rows.py",
        "held_until = pool.until[offset] if kind is EventKind.BLOCKED and pool.until[offset] > event.ts else 0",
        "held_until = 0",
        (f"{ENDINGS}", "tests/test_machine.py::test_a_hold_forgotten_over_a_block"),
    ),
    Mutant(
        "a service inherits what its owner took over",
        "_pool.py",
        " or mixed_until > now_ns or (mixed_until > 0 and self.kept)",
        "",
        ("tests/test_choice.py::test_a_service_inherits_a_running_hold_from_its_own_owner",),
    ),
    # ---- evidence
    Mutant(
        "no floor",
        "_pool.py",
        "return begun + math.ceil(self.spec.floor_s * 1e9)",
        "return begun",
        (f"{WARDEN}::test_evidence_ends_a_hold_before_its_floor",),
    ),
    Mutant(
        "an answer to an earlier question counts",
        "_evidence.py",
        "if case is not None and case.since == answer.since:",
        "if case is not None:",
        (f"{EVIDENCE}::test_an_answer_to_another_question_counts",),
    ),
    Mutant(
        "an empty all is evidence",
        "_evidence.py",
        "return bool(required) and all(",
        "return all(",
        (f"{EVIDENCE}::test_an_empty_all_is_evidence",),
    ),
    Mutant(
        "a proxy without a witness has let go",
        "_evidence.py",
        "proxy in bounds and case.has_let_go(proxy, bounds[proxy], now_ns)",
        "case.has_let_go(proxy, bounds.get(proxy, 0), now_ns)",
        (f"{EVIDENCE}::test_a_proxy_without_a_witness_has_let_go",),
    ),
    Mutant(
        "a restarted proxy is believed what it said before",
        "_evidence.py",
        "            case.answers.pop(answer.proxy, None)\n",
        "            pass\n",
        (f"{EVIDENCE}::test_what_a_proxy_said_before_it_changed_stands",),
    ),
    Mutant(
        "the end of a hold frees what a proxy still has",
        "_pool.py",
        'return bool(self.proxies) and self.spec.on_silence == "keep"',
        "return False",
        (f"{WARDEN}::test_a_hold_that_is_over_frees_what_a_proxy_still_has",),
    ),
    Mutant(
        "time starts at the wall clock, whatever was recorded",
        "clocks.py",
        "max(clock.wall_ns(), last_ts + 1) - boot_ns",
        "clock.wall_ns() - boot_ns",
        (f"{CLOCKS}::test_time_goes_back_over_a_reboot",),
    ),
    Mutant(
        "time is the wall clock",
        "clocks.py",
        "        return self._clock.boot_ns() + self._offset_ns\n",
        "        return self._clock.wall_ns()\n",
        (f"{CLOCKS}", f"{TIME}"),
    ),
    Mutant(
        "a decision may be dated before the last",
        "_decide.py",
        "now_ns if now_ns > ledger.ts else ledger.ts or 1",
        "now_ns",
        ("tests/test_commands.py", f"{TIME}", "tests/test_model.py"),
    ),
    Mutant(
        "holds go on after a reboot as if nothing were",
        "_decide_log.py",
        '    if not (command.restart_holds and ledger.opened) or command.boot == ledger.opened["boot"]:\n',
        "    if held:\n",
        (f"{TIME}::test_a_hold_is_shortened", f"{TIME}"),
    ),
    Mutant(
        "an event is shown before it is durable",
        "_writer.py",
        "        self._pending.events.extend(events)\n        self._schedule()\n",
        "        self._pending.events.extend(events)\n        self.durable_seq = events[-1].seq\n        self._schedule()\n",
        ("tests/test_writer.py::test_a_lease_is_seen_before_it_is_durable",),
    ),
    # ---- pools under pressure, and pools that change
    Mutant(
        "a hold cut off below its floor",
        "_pressure.py",
        'if now_ns < ready else ""',
        'if now_ns < 0 else ""',
        (f"{PRESSURE}::test_a_port_freed_below_its_floor", f"{PRESSURE}::test_a_log_that_frees_early_where_no_policy_said_so"),
    ),
    Mutant(
        "a hold cut off that a proxy still has",
        "_pressure.py",
        'return pool.spec.on_pressure == "free-earliest" and not pool.proxies\n',
        'return pool.spec.on_pressure == "free-earliest"\n',
        (f"{PRESSURE}::test_a_port_taken_from_a_proxy_that_holds_it",),
    ),
    Mutant(
        "a port that drains given by another pool",
        "_overlaps.py",
        "    check_leftovers(ledger, (spec,))\n",
        "",
        ("tests/test_pool_changes.py::test_a_port_that_drains_in_one_pool_and_is_given_by_another",),
    ),
    Mutant(
        "a quota of one more",
        "_quota.py",
        "held >= quota.hard",
        "held > quota.hard",
        ("tests/test_quota.py::test_a_service_above_its_hard_quota",),
    ),
    Mutant(
        "a time for ports that wait for proxies",
        "_forecast.py",
        "    if pool.kept:\n        return []\n",
        "",
        ("tests/test_forecast.py::test_a_time_given_for_a_port_that_waits_for_a_proxy",),
    ),
]
