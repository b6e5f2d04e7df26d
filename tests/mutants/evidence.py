"""What proxies say, and what follows: the mutants of it."""

from __future__ import annotations

from .mutant import Mutant

CLOCKS = "tests/test_clocks.py"
TIME = "tests/test_time.py"
EVIDENCE = "tests/test_evidence.py"
WARDEN = "tests/warden"
ANSWERS = "tests/witnesses/test_haproxy_answers.py"
FILES = "tests/witnesses/test_haproxy_files.py"
MOVES = "tests/witnesses/test_haproxy_moves.py"
NGINX = "tests/witnesses/test_nginx_rules.py"

MUTANTS = [
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
        "slot.address == host or slot.address in _ANY_HOST",
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
        "{NOBODYS, *(slot.place for slot in slots)} if slots else ()",
        "{slot.place for slot in slots}",
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
]
