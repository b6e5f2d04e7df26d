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
COPY = "tests/journals/test_copy.py"
ETCD = "tests/etcd/"
CODEC = "tests/test_codec.py"
CANCELLATION = "tests/test_cancellation.py"
ENDINGS = "tests/test_endings.py"
CLOCKS = "tests/test_clocks.py"
TIME = "tests/test_time.py"
EVIDENCE = "tests/test_evidence.py"
WARDEN = "tests/warden"
RECONCILE = "tests/test_reconcile.py"
RECONCILE_MANAGER = "tests/test_reconcile_manager.py"
LISTEN = "tests/test_listen.py"
GROUP = "tests/test_group.py"
GROUP_MANAGER = "tests/test_group_manager.py"
GROUP_POLICIES = "tests/test_group_policies.py"
LOST = "tests/test_lost.py"
WAITING_GROUPS = "tests/test_waiting_groups.py"
ANSWERS = "tests/witnesses/test_haproxy_answers.py"
FILES = "tests/witnesses/test_haproxy_files.py"
MOVES = "tests/witnesses/test_haproxy_moves.py"
NGINX = "tests/witnesses/test_nginx_rules.py"
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
        "        disk.fsync(fd)\n        write_all(disk, fd, _seal_of(segment, ending), offset)\n",
        "        write_all(disk, fd, _seal_of(segment, ending), offset)\n",
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
    # ---- one writer, in etcd
    Mutant(
        "etcd: any writer appends",
        "journals/_etcd_tail.py",
        "[self._lead.compare(), created(key, 0)]",
        "[created(key, 0)]",
        (f"{ETCD}test_leading.py::test_a_takeover_under_load_loses_or_doubles_something",),
    ),
    Mutant(
        "etcd: its own bytes are another's",
        "journals/_etcd_tail.py",
        "        if doubtful and found is not None and found.value == value:\n            return None",
        "        if False:\n            return None",
        (f"{ETCD}test_journal.py::test_a_lost_answer_makes_an_event_twice_or_never",),
    ),
    Mutant(
        "etcd: no answer is a yes",
        "journals/_etcd_tail.py",
        "            raise self._unknown(error) from error\n        if answer.succeeded:",
        "            return None\n        if answer.succeeded:",
        (f"{ETCD}test_journal.py::test_a_request_that_never_arrived_is_taken_for_written",),
    ),
    Mutant(
        "etcd: the lead is taken from who has it",
        "journals/_etcd_lead.py",
        "        self._refuse(self.leader())\n",
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
    # ---- leases and time
    Mutant(
        "a cancelled call keeps its port",
        "_engine.py",
        "                grant.waiting -= 1\n",
        "",
        (f"{CANCELLATION}::test_a_cancelled_allocate_leaks_its_port",),
    ),
    Mutant(
        "one cancelled call takes the port from all",
        "_engine.py",
        "                if grant.waiting <= 0:\n",
        "                if True:\n",
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
    # ---- leases that end, claims, findings, a lost log
    Mutant(
        "a restart forgets which leases end",
        "_engine.py",
        "        self.terms.restore()\n",
        "",
        ("tests/test_ttl.py::test_a_lease_that_no_controller_ends_after_a_restart",),
    ),
    Mutant(
        "a lease ends before its caller has heard of it",
        "_terms.py",
        "            if lease.token in engine.grants:\n",
        "            if not lease:\n",
        ("tests/test_ttl.py::test_a_lease_that_is_over_before_its_caller_hears_of_it",),
    ),
    Mutant(
        "a refused claim is forgotten",
        "_engine.py",
        "                self.claims.settle(events)\n",
        "                pass\n",
        ("tests/test_adoption.py::test_the_holders_release_gives_away_the_port_that_the_claimant_uses",),
    ),
    Mutant(
        "a missing permission is the fault of the port",
        "_faults.py",
        "return error.errno == errno.EADDRINUSE",
        "return error.errno in (errno.EADDRINUSE, errno.EACCES)",
        ("tests/test_blocks.py::test_a_pool_emptied_by_a_missing_permission",),
    ),
    Mutant(
        "free ports of a lost history are believed",
        "_choice.py",
        "    if pool.lost is not None and not is_over(pool, draft.ts):\n",
        "    if pool.lost is None and freed is None:\n",
        ("tests/test_lost.py::test_a_port_in_use_before_the_loss_given_to_a_stranger",),
    ),
    # ---- evidence
    Mutant(
        "no floor",
        "_pool.py",
        "return begun + self.floor_ns",
        "return begun",
        (f"{WARDEN}/test_time.py::test_evidence_ends_a_hold_before_its_floor",),
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
        "            case.answers.pop(proxy, None)\n",
        "            pass\n",
        (f"{EVIDENCE}::test_what_a_proxy_said_before_it_changed_stands",),
    ),
    Mutant(
        "the end of a hold frees what a proxy still has",
        "_pool.py",
        'return bool(self.proxies) and self.spec.on_silence == "keep"',
        "return False",
        (f"{WARDEN}/test_time.py::test_a_hold_that_is_over_frees_what_a_proxy_still_has",),
    ),
    Mutant(
        "any maintenance lasts",
        "witnesses/_haproxy_answers.py",
        "MAINTENANCE = 0x01",
        "MAINTENANCE = 0x23",
        (f"{ANSWERS}::test_draining_that_passes_for_maintenance",),
    ),
    Mutant(
        "an agent check is no matter",
        "witnesses/_haproxy_answers.py",
        "& MAINTENANCE) and not put_back",
        "& MAINTENANCE)",
        (f"{FILES}::test_a_slot_of_a_state_file_that_an_agent_puts_back",),
    ),
    Mutant(
        "a stream from before a slot was moved goes where the slot is",
        "witnesses/_haproxy_rules.py",
        "stream.place in seen and stream.epoch <= seen[stream.place][1]",
        "stream.place in seen and stream.epoch < seen[stream.place][1]",
        (f"{MOVES}::test_a_stream_that_tries_an_address_which_its_slot_had_before_anybody_asked", f"{MOVES}"),
    ),
    Mutant(
        "a slot at any address is not at this one",
        "witnesses/_haproxy_rules.py",
        "slot.address in (host, *_ANY_HOST)",
        "slot.address == host",
        (f"{ANSWERS}::test_a_slot_at_any_address_that_is_not_this_one", f"{ANSWERS}"),
    ),
    Mutant(
        "a worker that its master does not list is gone",
        "witnesses/_haproxy_lost.py",
        "        return sorted(self._found)\n",
        "        return []\n",
        ("tests/witnesses/test_haproxy_lost.py",),
    ),
    Mutant(
        "a state file that cannot be read has nothing",
        "witnesses/_haproxy_rules.py",
        "    if isinstance(restored, str):\n",
        "    if isinstance(restored, str):\n        return said\n    if isinstance(restored, str):\n",
        (f"{FILES}",),
    ),
    Mutant(
        "a stream of its own goes nowhere",
        "witnesses/_haproxy_rules.py",
        "{*places, NOBODYS} if places else ()",
        "places",
        (f"{MOVES}::test_a_log_or_a_peer_whose_stream_holds_every_port_for_ever",),
    ),
    Mutant(
        "workers forked in one go are believed before their master rests",
        "witnesses/_nginx_rules.py",
        "in_one_go = worker.quiet and not worker.stopping and ",
        "in_one_go = not worker.stopping and ",
        (f"{NGINX}::test_a_stranger_that_passes_for_a_sibling", f"{NGINX}"),
    ),
    Mutant(
        "what came after a new worker is new, whoever forked it",
        "witnesses/_nginx_rules.py",
        "told = [word for word in words if word.worker.master == master]",
        "told = [*words]",
        (f"{NGINX}::test_a_worker_of_another_master_that_passes_for_a_younger_one",),
    ),
    Mutant(
        "one witness speaks for another proxy",
        "_post.py",
        " and answer.proxy == self.witness.proxy",
        "",
        (f"{WARDEN}/test_attacks.py::test_one_witness_speaks_for_another",),
    ),
    Mutant(
        "a proxy that came back is believed what it said before it left",
        "_warden.py",
        "        self.cases.forget(proxy)",
        "        pass",
        (f"{WARDEN}/test_attacks.py::test_a_proxy_that_came_back_is_believed_what_it_said_before_it_left",),
    ),
    Mutant(
        "who waits in allocate waits for a pause that began before",
        "_warden.py",
        "        engine.waiters.on_first = self._hurry_posts\n",
        "",
        (f"{WARDEN}/test_pace.py::test_who_waits_in_allocate_waits_for_a_pause_that_began_before",),
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
        "    held = held if cause else []\n",
        "    held = []\n",
        (f"{TIME}::test_a_hold_is_shortened", f"{TIME}"),
    ),
    Mutant(
        "an event is shown before it is durable",
        "_writer.py",
        "        batch.events.extend(events)\n        self._schedule()\n",
        "        batch.events.extend(events)\n        self.durable_seq = events[-1].seq\n        self._schedule()\n",
        ("tests/test_writer.py::test_a_lease_is_seen_before_it_is_durable",),
    ),
    # ---- reconcile
    Mutant(
        "reconcile: a lease begun in the look counts",
        "_reconcile.py",
        "if pool.since[offset] < self.started and",
        "if pool.since[offset] <= self.started and",
        (RECONCILE,),
    ),
    Mutant(
        "reconcile: two looks a second apart count twice",
        "_reconcile.py",
        "started >= last_ns + grace_ns",
        "started >= last_ns",
        (RECONCILE,),
    ),
    Mutant(
        "reconcile: a moved owner's lease is a leak",
        "_reconcile.py",
        " and not self._lives(pool, pool.owner[offset])\n",
        "\n",
        (RECONCILE,),
    ),
    Mutant(
        "reconcile: a count is not reset by a sighting",
        "_reconcile.py",
        " and not scene.is_seen(each.lease)}",
        "}",
        (RECONCILE,),
    ),
    Mutant(
        "reconcile: a count outlives its lease",
        "_reconcile.py",
        "if scene.stands(each.lease) and not scene",
        "if not scene",
        (RECONCILE,),
    ),
    Mutant(
        "reconcile: an old look counts again",
        "_reconcile.py",
        "if self.started > begun.get(node, 0)}",
        "}",
        (RECONCILE,),
    ),
    Mutant(
        "reconcile: nodes not named are empty",
        "_reconcile.py",
        "self.newer.intersection(observation.nodes) if",
        "{node for node, _ in ledger.pools} if",
        (RECONCILE,),
    ),
    Mutant(
        "reconcile: incomplete looks count",
        "_reconcile.py",
        " if observation.complete else set()",
        "",
        (RECONCILE,),
    ),
    Mutant(
        "reconcile: the breaker sees one look alone",
        "_reconcile.py",
        "Counter(suspect.lease.pool for suspect in suspects.values())",
        "Counter(lease.pool for lease in leaked)",
        (RECONCILE,),
    ),
    Mutant(
        "reconcile: counts go on under the breaker",
        "_reconcile.py",
        "each._replace(absences=0) if each.lease.pool in breaker else each",
        "each",
        (RECONCILE,),
    ),
    Mutant(
        "reconcile: all at once",
        "_reconcile.py",
        "max(1, leases[lease.pool] // SHARE)",
        "leases[lease.pool]",
        (RECONCILE,),
    ),
    Mutant(
        "reconcile: rows that changed are judged",
        "_reconcile.py",
        "return offset >= 0 and pool.since[offset] >= self.started",
        "return False",
        (RECONCILE,),
    ),
    Mutant(
        "reconcile: a blocked port is unknown",
        "_reconcile.py",
        "if pool.code(port) == BLOCKED:",
        "if pool.code(port) < 0:",
        (RECONCILE,),
    ),
    Mutant(
        "reconcile: a second port of an owner is unknown",
        "_reconcile.py",
        "        if not others:\n",
        "        if others is not None:\n",
        (RECONCILE,),
    ),
    Mutant(
        "reconcile: looks from before the opening count",
        "_reconcile.py",
        "if ledger.opened and started < ledger",
        "if ledger.opened and 0 > ledger",
        (RECONCILE,),
    ),
    Mutant(
        "reconcile: not asked again before a release",
        "_reconciler.py",
        "not self._census.is_due(lease.token) or ",
        "",
        (RECONCILE_MANAGER,),
    ),
    Mutant(
        "reconcile: an answer is no sighting",
        "_reconciler.py",
        "            self._census.saw(lease.token)\n",
        "            pass\n",
        (RECONCILE_MANAGER,),
    ),
    Mutant(
        "reconcile: a dry run counts",
        "_reconciler.py",
        "        if dry_run:\n",
        "        if dry_run:\n            self._census.take(plan)\n",
        (RECONCILE_MANAGER,),
    ),
    Mutant(
        "reconcile: reported before it is durable",
        "_reconciler.py",
        "        await engine.settle()\n",
        "",
        (RECONCILE_MANAGER,),
    ),
    # ---- ports in the operating system
    Mutant(
        "a repeated listen ends the lease of a replica that serves",
        "_listen.py",
        "            if lease.token in before:\n                raise",
        "            if False:\n                raise",
        (f"{LISTEN}::test_a_repeat_ends_the_lease_of_a_replica_that_serves",),
    ),
    Mutant(
        "a port is blocked for what is no port's fault",
        "_listen.py",
        "            if not blocks(failure.error):\n                raise await self._given_back",
        "            if False:\n                raise await self._given_back",
        (f"{LISTEN}::test_an_address_of_another_machine_uses_the_pool_up",),
    ),
    Mutant(
        "a lease given back is held back as if somebody had served there",
        "_listen.py",
        '        self._end(lease, cause="cancelled")\n        await self._settle()\n',
        "        self._end(lease)\n        await self._settle()\n",
        (f"{LISTEN}::test_an_address_of_another_machine_uses_the_pool_up",),
    ),
    Mutant(
        "a cancelled listen leaks its lease",
        "_listen.py",
        "                self._found_in_use(lease, failure, (), wanted.block_s)\n",
        "                pass\n",
        (f"{LISTEN}::test_a_cancelled_listen_leaks_a_lease_or_a_socket",),
    ),
    Mutant(
        "sockets are bound and do not listen",
        "sockets.py",
        "                    made[-1].listen()\n",
        "                    pass\n",
        (f"{LISTEN}::test_a_lease_whose_port_nobody_listens_on",),
    ),
    Mutant(
        "TIME_WAIT keeps a replica off its port",
        "sockets.py",
        "        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n",
        "        pass\n",
        (f"{LISTEN}::test_time_wait_of_the_former_replica_blocks_its_port",),
    ),
    # ---- groups
    Mutant(
        "a group is cut where the writer cuts its batches",
        "_writer.py",
        "            batch.cut()\n",
        "            batch.room += len(events)\n",
        (f"{GROUP_MANAGER}::test_a_group_cut_in_two_where_the_writer_cuts_its_batches",),
    ),
    Mutant(
        "what one request of a group took another may have",
        "_field.py",
        "            self.fresh.add(place)\n        self.free[place] = 0\n",
        "            self.fresh.add(place)\n",
        (f"{GROUP}",),
    ),
    Mutant(
        "a block takes a stranger's quarantined port",
        "_field.py",
        "            line[place] = column[offset] == name and place not in self.taken and self.reuses(place, request)\n",
        "            line[place] = column[offset] == name and place not in self.taken\n",
        (f"{GROUP}",),
    ),
    Mutant(
        "a block may begin anywhere",
        "_blocks.py",
        "    if align == 1:\n        return line\n",
        "    if align:\n        return line\n",
        (f"{GROUP}",),
    ),
    Mutant(
        "a lease that is held counts for nothing in a block",
        "_group.py",
        "            first = port - index * part.shape.stride\n",
        "            first = port\n",
        (f"{GROUP}",),
    ),
    Mutant(
        "an index is forgotten when the port is noted anew",
        "_rows.py",
        '    nth = event.data.get("index", 0) if event.data and event.kind is EventKind.ALLOCATED else 0\n',
        "    nth = 0\n",
        (f"{GROUP}",),
    ),
    Mutant(
        "an index is not in the state's dump",
        "_dump.py",
        "    return [*row, *note[:used]]",
        "    return [*row, *note[:6]]",
        (f"{GROUP}::test_an_index_lost_on_the_way_through_a_snapshot",),
    ),
    Mutant(
        "the end of a further port ends the first one's place in the index",
        "_index.py",
        "            self._end(owner, offset) if self.members else self.holders.pop(owner, None)\n",
        "            self.holders.pop(owner, None)\n",
        (f"{GROUP}",),
    ),
    Mutant(
        "due ports beyond the first many are not looked at",
        "_group.py",
        "    if failed is not None and not all(field.drained for field in plan.fields.values()):\n",
        "    if failed is not None and not plan:\n",
        (f"{GROUP}::test_due_ports_beyond_the_first_many_that_stay_hidden",),
    ),
    Mutant(
        "a group passes those before it in another pool",
        "_waiters.py",
        "                if stays or not self._offer(waiter, attempt):\n                    return True\n",
        "                if stays or not self._offer(waiter, attempt):\n                    return False\n",
        (f"{GROUP_MANAGER}::test_a_group_that_passes_those_before_it_in_another_pool",),
    ),
    Mutant(
        "one kept by his quota keeps a group back",
        "_waiters.py",
        "stays = not waiter.kept_by_quota or",
        "stays = True or",
        (f"{WAITING_GROUPS}::test_a_group_kept_back_by_one_who_waits_for_his_quota_alone",),
    ),
    Mutant(
        "a group takes from the band",
        "_field.py",
        "        above[: self.band] = bytes(self.band)\n        yield",
        "        yield",
        (f"{GROUP_POLICIES}::test_a_number_for_hands_taken_by_a_group",),
    ),
    Mutant(
        "a group cuts holds off below their floor",
        "_pressure.py",
        "repeat(now_ns - pool.floor_ns)",
        "repeat(now_ns)",
        (f"{GROUP_POLICIES}::test_a_group_given_below_the_floor_or_the_cap",),
    ),
    Mutant(
        "a group cuts off as many as it likes",
        "_field.py",
        "return left > spec.held_max * spec.size",
        "return True",
        (f"{GROUP_POLICIES}::test_a_share_that_a_group_does_not_keep_to",),
    ),
    Mutant(
        "a service inherits what was lost",
        "_lost.py",
        'return service if pool.lost is None or now_ns >= pool.lost.until else ""',
        "return service",
        (f"{LOST}::test_a_service_that_takes_over_a_port_which_another_had_in_what_was_lost",),
    ),
    Mutant(
        "a number passes a waiting group",
        "_waiters.py",
        "(waiter.wants_one_number and waiter.turn < queue.first_group())",
        "waiter.wants_one_number",
        (f"{GROUP_MANAGER}::test_a_single_request_that_passes_a_waiting_group",),
    ),
    Mutant(
        "those behind a served group are not asked in its other pools",
        "_engine.py",
        "            left |= self.waiters.serve(",
        "            self.waiters.serve(",
        (f"{GROUP_MANAGER}",),
    ),
    Mutant(
        "a cancelled group gives back its first port alone",
        "_engine.py",
        "            self.dropped(*(lease.token for lease in waiter.leases))\n",
        "            self.dropped(waiter.leases[0].token)\n",
        (f"{GROUP_MANAGER}::test_a_granted_group_lost_with_its_cancelled_waiter",),
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
        "held + wanted > quota.hard",
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
