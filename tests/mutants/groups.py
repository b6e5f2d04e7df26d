"""Several ports at once, and too few of them: the mutants of it."""

from __future__ import annotations

from .mutant import Mutant

GROUPS = "tests/groups/"
CORE = tuple(f"{GROUPS}test_{name}.py" for name in ("all_or_none", "blocks", "refusals"))
LOST = "tests/lost/"
PRESSURE = "tests/test_pressure.py"

MUTANTS = [
    # ---- groups
    Mutant(
        "a group is cut where the writer cuts its batches",
        "_writer.py",
        "            batch.cut()\n",
        "            batch.room += len(events)\n",
        (f"{GROUPS}test_batches.py::test_a_group_cut_in_two_where_the_writer_cuts_its_batches",),
    ),
    Mutant(
        "what one request of a group took another may have",
        "_field.py",
        "            self.fresh.add(place)\n        self.free[place] = 0\n",
        "            self.fresh.add(place)\n",
        CORE,
    ),
    Mutant(
        "a block takes a stranger's quarantined port",
        "_field.py",
        "            line[place] = column[offset] == name and place not in self.taken and self.reuses(place, request)\n",
        "            line[place] = column[offset] == name and place not in self.taken\n",
        CORE,
    ),
    Mutant(
        "a block may begin anywhere",
        "_blocks.py",
        "    if align == 1:\n        return line\n",
        "    if align:\n        return line\n",
        CORE,
    ),
    Mutant(
        "a lease that is held counts for nothing in a block",
        "_group.py",
        "            first = port - index * part.shape.stride\n",
        "            first = port\n",
        CORE,
    ),
    Mutant(
        "an index is forgotten when the port is noted anew",
        "_rows.py",
        '    nth = event.data.get("index", 0) if event.data and event.kind is EventKind.ALLOCATED else 0\n',
        "    nth = 0\n",
        CORE,
    ),
    Mutant(
        "an index is not in the state's dump",
        "_dump.py",
        "    return [*row, *note[:used]]",
        "    return [*row, *note[:6]]",
        (f"{GROUPS}test_all_or_none.py::test_an_index_lost_on_the_way_through_a_snapshot",),
    ),
    Mutant(
        "the end of a further port ends the first one's place in the index",
        "_index.py",
        "            self._end(owner, offset) if self.members else self.holders.pop(owner, None)\n",
        "            self.holders.pop(owner, None)\n",
        CORE,
    ),
    Mutant(
        "due ports beyond the first many are not looked at",
        "_group.py",
        "    if failed is not None and not all(field.drained for field in plan.fields.values()):\n",
        "    if failed is not None and not plan:\n",
        (f"{GROUPS}test_blocks.py::test_due_ports_beyond_the_first_many_that_stay_hidden",),
    ),
    Mutant(
        "a group passes those before it in another pool",
        "_waiters.py",
        "                if stays or not self._offer(waiter, attempt):\n                    return True\n",
        "                if stays or not self._offer(waiter, attempt):\n                    return False\n",
        (f"{GROUPS}test_waiting.py::test_a_group_that_passes_those_before_it_in_another_pool",),
    ),
    Mutant(
        "one kept by his quota keeps a group back",
        "_waiters.py",
        "stays = not waiter.kept_by_quota or",
        "stays = True or",
        (f"{GROUPS}test_turns.py::test_a_group_kept_back_by_one_who_waits_for_his_quota_alone",),
    ),
    Mutant(
        "a group takes from the band",
        "_field.py",
        "        above[: self.band] = bytes(self.band)\n        yield",
        "        yield",
        (f"{GROUPS}test_policies.py::test_a_number_for_hands_taken_by_a_group",),
    ),
    Mutant(
        "a group cuts holds off below their floor",
        "_pressure.py",
        "repeat(now_ns - pool.floor_ns)",
        "repeat(now_ns)",
        (f"{GROUPS}test_policies.py::test_a_group_given_below_the_floor_or_the_cap",),
    ),
    Mutant(
        "a group cuts off as many as it likes",
        "_field.py",
        "return left > spec.held_max * spec.size",
        "return True",
        (f"{GROUPS}test_policies.py::test_a_share_that_a_group_does_not_keep_to",),
    ),
    Mutant(
        "who had a port last inherits what was lost",
        "_pool.py",
        "        if self.lost is not None and self.is_doubtful(offset, now_ns):\n            return True\n",
        "",
        (f"{LOST}test_held.py::test_a_port_given_back_to_whom_the_copy_names_which_another_had_in_what_was_lost",),
    ),
    Mutant(
        "time alone gives back what was lost",
        "_pool.py",
        "(self.kept or now_ns < lost.until)",
        "now_ns < lost.until",
        (f"{LOST}test_held.py::test_a_port_that_a_proxy_still_has_given_back_to_whom_the_copy_names",),
    ),
    Mutant(
        "a number passes a waiting group",
        "_waiters.py",
        "(waiter.wants_one_number and waiter.turn < queue.first_group())",
        "waiter.wants_one_number",
        (f"{GROUPS}test_waiting.py::test_a_single_request_that_passes_a_waiting_group",),
    ),
    Mutant(
        "those behind a served group are not asked in its other pools",
        "_engine.py",
        "            left |= self.waiters.serve(",
        "            self.waiters.serve(",
        (f"{GROUPS}test_waiting.py",),
    ),
    Mutant(
        "a cancelled group gives back its first port alone",
        "_engine.py",
        "            self.dropped(*(lease.token for lease in waiter.leases))\n",
        "            self.dropped(waiter.leases[0].token)\n",
        (f"{GROUPS}test_batches.py::test_a_granted_group_lost_with_its_cancelled_waiter",),
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
