"""What is kept, and what is believed of it: the mutants of it."""

from __future__ import annotations

from .mutant import Mutant

CRASHES = "tests/journals/test_crash_states.py"
FAULTS = "tests/journals/test_faults.py"
SYNCS = "tests/journals/test_syncs.py"
LOCKING = "tests/journals/test_locking.py"
MENDING = "tests/journals/test_mending.py"
TAKEOVER = "tests/journals/test_takeover.py"
REFUSALS = "tests/journals/test_refusals.py"
COPY = "tests/journals/test_copy.py"
ETCD = "tests/etcd/"
POSTGRES = "tests/postgres/"
CODEC = "tests/test_codec.py"
DAMAGE = "tests/test_codec_damage.py"
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
        (f"{SYNCS}::test_a_failed_sync_is_tried_again",),
    ),
    Mutant(
        "a failed directory sync is no reason to stop",
        JOURNAL,
        "        if self._directory.sync_failed:\n            raise OutcomeUnknown(",
        "        if False:\n            raise OutcomeUnknown(",
        (f"{SYNCS}::test_a_failed_directory_sync_is_forgotten",),
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
        (f"{SYNCS}::test_pages_that_were_never_written_are_believed",),
    ),
    Mutant(
        "a seal is judged in two ways",
        SEGMENTS,
        " or not sealed_in(line)",
        "",
        (f"{MENDING}::test_a_log_with_a_damaged_seal_is_written_on_and_refused_afterwards",),
    ),
    Mutant(
        "a seal is not written anew",
        MEND,
        "        reaffirm(directory, segment)\n",
        "",
        (f"{SYNCS}::test_a_seal_that_was_never_written_is_believed",),
    ),
    Mutant(
        "a seal is written in front of a torn tail",
        MEND,
        "        disk.fsync(fd)\n        write_all(disk, fd, _seal_of(segment, ending), offset)\n",
        "        write_all(disk, fd, _seal_of(segment, ending), offset)\n",
        (f"{CRASHES}::test_a_crash_loses_events_or_blocks_the_log[full]",),
    ),
    Mutant(
        "what was read is not compared with what is sealed",
        MEND,
        "    if digest.hexdigest() != ending.sha256:\n",
        "    if False:\n",
        (f"{SYNCS}::test_what_was_read_is_gone_before_it_was_written_anew",),
    ),
    Mutant(
        "a torn tail is not kept",
        MEND,
        "    if ending.torn_bytes:\n        torn = ",
        "    if False:\n        torn = ",
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
        (f"{DAMAGE}::test_a_cut_off_log_is_misread", f"{CRASHES}::test_a_crash_loses_events_or_blocks_the_log[torn]"),
    ),
    Mutant(
        "a batch is not marked as one",
        "_codec.py",
        "(suffix, text, number, count) if count > 1 else text",
        "(suffix, text, number, count) if count > 2 else suffix + text",
        (CODEC, DAMAGE, FAULTS),
    ),
    Mutant(
        "no checksum of a chunk",
        "_scanner.py",
        "        if not lines.endswith(suffix):\n",
        "        if not suffix:\n",
        (f"{DAMAGE}::test_a_flipped_bit_is_not_noticed",),
    ),
    Mutant(
        "no checksum of a line",
        "_scanner.py",
        "            if suffix[:-1] == match[0]:\n",
        "            if suffix:\n",
        (f"{DAMAGE}::test_a_flipped_bit_is_not_noticed",),
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
        "later=begun_later(tail, torn_seq) is not None,",
        "later=False,",
        (f"{MENDING}::test_damage_is_taken_for_a_torn_tail",),
    ),
    Mutant(
        "a damaged seal is no seal",
        "_recovery.py",
        "        sealed_in(tail),\n",
        "        False,\n",
        (f"{DAMAGE}::test_a_damaged_batch_before_a_seal_is_called_torn",),
    ),
    # ---- one writer, in PostgreSQL
    Mutant(
        "postgres: any writer appends",
        "journals/_pg_schema.py",
        " and epoch = %(epoch)s and seq = %(seq)s and digest = %(before)s\n",
        "\n",
        (f"{POSTGRES}test_leading.py", f"{POSTGRES}test_takeovers.py"),
    ),
    Mutant(
        "postgres: an append behind another history",
        "journals/_pg_schema.py",
        " and digest = %(before)s\n",
        "\n",
        (f"{POSTGRES}test_restored.py::test_two_leaders_with_one_epoch_append",),
    ),
    Mutant(
        "postgres: the state of another history is kept",
        "journals/_pg_schema.py",
        " and seq = %(seq)s and digest = %(digest)s\n",
        " and seq >= %(at)s\n",
        (f"{POSTGRES}test_restored.py::test_the_state_of_a_history_that_is_gone_is_kept_for_the_next_opening",),
    ),
    Mutant(
        "postgres: a sign of life for another history",
        "journals/_pg_schema.py",
        " and seq = %(seq)s and digest = %(digest)s returning 1",
        " returning 1",
        (f"{POSTGRES}test_restored.py::test_a_sign_of_life_of_a_history_that_is_gone_counts",),
    ),
    Mutant(
        "postgres: another's lead is given up",
        "journals/_pg_schema.py",
        " and digest = any(%(digests)s)",
        "",
        (f"{POSTGRES}test_restored.py::test_who_led_what_is_gone_gives_up_the_lead_of_another",),
    ),
    Mutant(
        "postgres: an older copy is another leader",
        "journals/postgres.py",
        "if row.epoch > mine:",
        "if row.epoch != mine:",
        (f"{POSTGRES}test_restored.py::test_a_leader_is_told_that_another_leads_where_none_does",),
    ),
    # ---- one writer, in etcd
    Mutant(
        "etcd: any writer appends",
        "journals/_etcd_tail.py",
        "return [self._lead.compare(), self._tip.compare()]",
        "return [self._tip.compare()]",
        (f"{ETCD}test_leading.py::test_a_takeover_under_load_loses_or_doubles_something",),
    ),
    Mutant(
        "etcd: its own bytes are another's",
        "journals/_etcd_tail.py",
        "        if doubtful and found is not None and found.value == value:\n            return",
        "        if False:\n            return",
        (f"{ETCD}test_servers.py::test_a_lost_answer_makes_an_event_twice_or_never",),
    ),
    Mutant(
        "etcd: an append behind what is gone",
        "journals/_etcd_tail.py",
        "return [self._lead.compare(), self._tip.compare()]",
        "return [self._lead.compare()]",
        (f"{ETCD}test_restored.py::test_a_leader_goes_on_behind_what_is_gone",),
    ),
    Mutant(
        "etcd: an older copy is another leader",
        "journals/_etcd_lead.py",
        "        if self._set_back():",
        "        if False:",
        (f"{ETCD}test_restored.py::test_a_leader_is_told_that_another_leads_where_none_does",),
    ),
    Mutant(
        "etcd: what is removed is another",
        "journals/_etcd_tail.py",
        "([piece.compare()] if piece != self._tip else [])",
        "[]",
        (f"{ETCD}test_late.py::test_the_seal_of_a_mended_segment_is_put_aside",),
    ),
    Mutant(
        "etcd: a leader's first write behind what was shipped",
        "journals/_etcd_tail.py",
        'put(keys.shipped, shipped), put(keys.epoch, b"%d" % self._lead.epoch), delete',
        "put(keys.shipped, shipped), delete",
        (f"{ETCD}test_late.py::test_what_was_shipped_comes_back",),
    ),
    Mutant(
        "etcd: an idle leader of what is gone",
        "journals/etcd.py",
        "            self._writes.check(patience_s=until - time.monotonic())\n",
        "",
        (f"{ETCD}test_restored.py::test_a_leader_with_nothing_to_write_goes_on_leading",),
    ),
    Mutant(
        "etcd: no answer is a yes",
        "journals/_etcd_tail.py",
        "            raise self._unknown(error) from error\n        if answer.succeeded:",
        "            return None\n        if answer.succeeded:",
        (f"{ETCD}test_servers.py::test_a_request_that_never_arrived_is_taken_for_written",),
    ),
    Mutant(
        "etcd: the lead is taken from who has it",
        "journals/_etcd_lead.py",
        "        if leader := self.leader():\n            raise self._locked(leader)\n",
        '        self._client.ask("kv/deleterange", {"key": self._keys.lead}, dict)\n',
        (f"{ETCD}test_leading.py::test_who_waits_is_not_let_in_when_the_leader_leaves",),
    ),
    Mutant(
        "etcd: a busy leader shows no life",
        "journals/etcd.py",
        "        if self._lead is not None and self._lead.due():",
        "        if False:",
        (f"{ETCD}test_journal.py::test_a_busy_leader_loses_its_lease",),
    ),
    Mutant(
        "etcd: what is shipped is not proven",
        "journals/_etcd_archive.py",
        "            self._prove(segment)\n",
        "",
        (f"{ETCD}test_archive.py::test_what_is_not_proven_in_the_archive_is_deleted",),
    ),
    Mutant(
        "etcd: shipped behind a gap",
        "journals/_etcd_archive.py",
        "                self._refuse_gap(segment)\n",
        "",
        (f"{ETCD}test_archive.py::test_what_another_machine_shipped_is_left_out_of_the_archive",),
    ),
    Mutant(
        "etcd: an unfinished copy opens",
        "journals/_etcd_store.py",
        "        if moving is not None and self.finished:\n",
        "        if False:\n",
        (f"{ETCD}test_journal.py::test_a_copy_that_was_never_finished_is_opened",),
    ),
    Mutant(
        "a copy is not held against its source",
        "journals/_copy.py",
        "    if not same:\n",
        "    if False:\n",
        (f"{COPY}::test_another_history_passes_for_a_copy",),
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
]
