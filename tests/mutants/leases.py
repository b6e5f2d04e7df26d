"""Leases, time, claims, a lost log, ports in the operating system: the mutants of it."""

from __future__ import annotations

from .mutant import Mutant

CANCELLATION = "tests/cancellation/"
ENDINGS = "tests/test_endings.py"
LISTEN = "tests/listen/"
LOST = "tests/lost/"

MUTANTS = [
    # ---- leases and time
    Mutant(
        "a cancelled call keeps its port",
        "_engine.py",
        "                grant.waiting -= 1\n",
        "",
        (f"{CANCELLATION}test_allocate.py::test_a_cancelled_allocate_leaks_its_port",),
    ),
    Mutant(
        "one cancelled call takes the port from all",
        "_engine.py",
        "                if grant.waiting <= 0:\n",
        "                if True:\n",
        (f"{CANCELLATION}test_allocate.py::test_cancelling_one_caller_takes_the_port_from_another_of_the_same_owner",),
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
        (f"{LOST}test_held.py::test_a_port_in_use_before_the_loss_given_to_a_stranger",),
    ),
    # ---- ports in the operating system
    Mutant(
        "a repeated listen ends the lease of a replica that serves",
        "_listen.py",
        "            if lease.token in before:\n                raise",
        "            if False:\n                raise",
        (f"{LISTEN}test_callers.py::test_a_repeat_ends_the_lease_of_a_replica_that_serves",),
    ),
    Mutant(
        "a port is blocked for what is no port's fault",
        "_listen.py",
        "            if not blocks(failure.error):\n                raise await self._given_back",
        "            if False:\n                raise await self._given_back",
        (f"{LISTEN}test_callers.py::test_an_address_of_another_machine_uses_the_pool_up",),
    ),
    Mutant(
        "a lease given back is held back as if somebody had served there",
        "_listen.py",
        '        self._end(lease, cause="cancelled")\n        await self._settle()\n',
        "        self._end(lease)\n        await self._settle()\n",
        (f"{LISTEN}test_callers.py::test_an_address_of_another_machine_uses_the_pool_up",),
    ),
    Mutant(
        "a cancelled listen leaks its lease",
        "_listen.py",
        "                self._found_in_use(lease, failure, (), wanted.block_s)\n",
        "                pass\n",
        (f"{LISTEN}test_callers.py::test_a_cancelled_listen_leaks_a_lease_or_a_socket",),
    ),
    Mutant(
        "sockets are bound and do not listen",
        "sockets.py",
        "                    made[-1].listen()\n",
        "                    pass\n",
        (f"{LISTEN}test_ports.py::test_a_lease_whose_port_nobody_listens_on",),
    ),
    Mutant(
        "a leader that slept answers out of its memory",
        "_leading.py",
        "        if self._journal is None:\n            return True\n",
        "        if self._journal is None or True:\n            return True\n",
        ("tests/test_leading.py::test_a_superseded_leader_answers_out_of_its_memory",),
    ),
    Mutant(
        "a leader asks its server for every answer",
        "_leading.py",
        "        if self._journal is not None and not self.is_sure:\n",
        "        if self._journal is not None:\n",
        ("tests/test_leading.py::test_a_leader_asks_for_every_answer",),
    ),
    Mutant(
        "an append is taken for a sign of life that is none",
        "_writer.py",
        "            if self._append_renews:\n",
        "            if True:\n",
        ("tests/test_leading.py::test_an_append_is_taken_for_a_sign_of_life_that_is_none",),
    ),
    Mutant(
        "an append on etcd is taken for a sign of life",
        "journals/etcd.py",
        "    append_renews = False\n",
        "    append_renews = True\n",
        ("tests/etcd/test_leading.py::test_a_lease_is_told_of_that_an_append_did_not_prolong",),
    ),
    Mutant(
        "TIME_WAIT keeps a replica off its port",
        "sockets.py",
        "        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n",
        "        pass\n",
        (f"{LISTEN}test_ports.py::test_time_wait_of_the_former_replica_blocks_its_port",),
    ),
]
