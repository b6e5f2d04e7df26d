"""What may be said to a caller: an answer follows from events that are durable, a refusal from the state that was decided on."""

from __future__ import annotations

from portfsm import errors
from portfsm.values import Lease


class AnswerJudge:
    """The part of the world that judges answers and refusals."""

    # ------------------------------------------------------------------ answers

    def begun(self, call):
        """The call runs now; its decision is made before it first waits."""
        call.turn, call.begun_at = self.turns, self.true_ns
        call.outside = self._is_outside(call)
        if call.controller.superseded:
            return
        ahead = self.record.ahead
        if call.name == "allocate":
            port = ahead.holders.get((*call.owner_key, 0))
            token = ahead.ports[*call.place, port].token if port is not None else 0
            if token and not (token in self.terms and self._overdue(token)):  # which this call would be the first to notice
                call.token = token
            wait_s = call.options.get("wait_s", 0.0)
            wait_s = wait_s if wait_s != 0 else self.patience(call)
            call.deadline = None if wait_s is None else call.controller.clock.boot_ns() + round(wait_s * 1e9)
        elif call.name == "reconcile":
            self.looked(call)
        elif call.name == "allocate_group":
            call.tokens = set() if self.lacks(call) else self._group_holds(call)  # one that waits awaits no lease yet
            wait_s = call.options["wait_s"]
            if wait_s == 0:
                wait_s = self.patience(call)
                call.doubt_ns = round((wait_s - self.patience(call, min)) * 1e9)
            call.deadline = None if wait_s is None else call.controller.clock.boot_ns() + round(wait_s * 1e9)
        elif call.options.get("timeout_s") is not None:
            call.deadline = call.controller.clock.boot_ns() + round(call.options["timeout_s"] * 1e9)
        elif call.name == "define":
            call.at = len(self.record.events), self.true_ns
        elif call.name in ("block", "unblock", "hold", "free"):
            call.before, call.at = ahead.ports[call.options["node"], *call.args].state, (len(self.record.events), self.true_ns)

    def answered(self, call):
        """The caller has an answer."""
        if call.name == "adopt":
            self.proven(call)
        outcome = type(call.error).__name__ if call.error else "done" if call.answered else "cancelled"
        self.hits[f"{call.name} {outcome}"] += 1
        self.say(
            f"  call {call.number} is {outcome}{f': {call.result.port} lease {call.result.token}' if isinstance(call.result, Lease) else ''}"
        )
        if not call.answered and call.error is None:
            if not call.cancelled:
                self.fail("silence", f"call {call.number} {call.sentence} ended without an answer")
            self.renewed_perhaps(call)
        elif call.error is not None:
            self._check_error(call, call.error)
        elif call.controller.superseded:
            self._check_zombie(call)
        else:
            self.record.promise(call.controller)
            getattr(self, f"_check_{call.name}")(call, call.result)
            if call.then is not None and call.controller.open:
                call.then(call)

    def _check_zombie(self, call):
        if call.controller.manager.durable_seq != call.controller.durable_at_takeover:
            self.fail("two writers", f"controller {call.controller.number} wrote after another took over")

    def _durable(self, call, seq, what):
        if not seq or seq > call.controller.manager.durable_seq:
            self.fail("told too early", f"call {call.number} {call.sentence} was answered, and {what} is not durable")

    def _check_allocate(self, call, lease):
        self._check_lease(call, lease, "allocated", "adopted")
        self._renewed(call, lease.token)
        self.record.received.add(lease.token)
        self.leases.append(lease)

    def _check_adopt(self, call, lease):
        self._check_lease(call, lease, "adopted", "allocated")
        self.record.received.add(lease.token)
        self.leases.append(lease)

    def _check_lease(self, call, lease, *kinds):
        self._durable(call, lease.token, f"lease {lease.token}")
        event = self.record.events[lease.token - 1]
        said = (lease.node, lease.pool, lease.port, lease.owner, lease.service)
        asked = (*call.place, call.options["owner"], call.options["service"])
        if event.kind not in kinds or said != (event.node, event.pool, event.port, event.owner, event.service):
            self.fail("wrong lease", f"call {call.number} was given {lease}, and the log says {event}")
        if asked != (lease.node, lease.pool, lease.owner, lease.service):
            self.fail("wrong lease", f"call {call.number} {call.sentence} was given {lease}")

    def _check_release(self, call, _):
        self._durable(call, self.record.ended.get(call.args[0].token), "the end of the lease")

    def _check_renew(self, call, lease):
        if lease != call.args[0]:
            self.fail("wrong lease", f"call {call.number} {call.sentence} was given {lease}")
        self._renewed(call, lease.token)

    def _check_withdraw(self, call, _):
        lease = call.args[0]
        events = self.record.events[lease.token : call.controller.manager.durable_seq]
        if not any(e.token == lease.token and e.kind in ("withdrawn", "released", "blocked") for e in events):
            self.fail("told too early", f"call {call.number} {call.sentence} was answered, and nothing of it is durable")

    def _check_release_owner(self, call, leases):
        for lease in leases:
            self._durable(call, self.record.ended.get(lease.token), f"the end of lease {lease.token}")

    def _check_sweep(self, call, events):
        for event in events:
            self._durable(call, event.seq, f"event {event.seq}")

    def _check_join(self, call, _):
        self._durable(call, self.record.ahead.required.get(call.args[0].proxy), "that the proxy is required")

    def _check_leave(self, call, _):
        seqs = [event.seq for event in self.record.events if event.kind == "proxy_left" and event.data["proxy"] == call.args[0]]
        if call.args[0] in self.record.ahead.required:
            self.fail("told too early", f"call {call.number} {call.sentence} was answered, and the proxy is still required")
        elif seqs:
            self._durable(call, seqs[-1], "that the proxy is required no more")

    def _check_wait_clear(self, call, clear):
        lease = call.args[0]
        port = self.record.ahead.ports[lease.node, lease.pool, lease.port]
        self.hits[f"wait_clear is {clear}"] += 1
        if not clear:
            if call.deadline is None or call.deadline > call.controller.clock.boot_ns():
                self.fail("gave up", f"call {call.number} {call.sentence} gave up before its time")
        elif port.token == lease.token and port.state in ("ALLOCATED", "QUARANTINED"):
            if holding := self.proxies.holding((lease.node, lease.port)):
                self.fail("no evidence", f"call {call.number} {call.sentence} says clear, and {holding} may route there")

    def _check_view(self, call, view):
        if (view.node, view.pool, view.port) != (call.options["node"], *call.args):
            self.fail("wrong view", f"call {call.number} {call.sentence} was answered with {view}")

    _check_block = _check_unblock = _check_free = _check_view

    def _check_hold(self, call, view):
        """What was asked for holds, also where the hold that was running lasts longer by itself."""
        self._check_view(call, view)
        (seq, asked_ns), place = call.at, (call.options["node"], *call.args)
        if all((e.node, e.pool, e.port) != place or e.kind == "held" for e in self.record.events[seq:]):
            floors = self.record.ahead.floors
            floors[place] = max(floors[place], asked_ns + round(call.options["hold_s"] * 1e9))

    # ------------------------------------------------------------------ refusals

    def _check_error(self, call, error):
        controller = call.controller
        if isinstance(error, errors.InternalError) or type(error) is errors.PortfsmError:
            self.fail("internal", f"call {call.number} {call.sentence}: {error!r}")
        elif isinstance(error, errors.JournalError):
            if not self.excuses(controller):
                self.fail("unprovoked", f"call {call.number} {call.sentence}: {error!r}")
        elif isinstance(error, errors.ManagerClosed):
            if not controller.leave.is_set():
                self.fail("unprovoked", f"call {call.number} {call.sentence}: {error!r}")
        elif not (controller.superseded or controller.failed):
            check = getattr(self, f"_refused_{type(error).__name__}", None)
            if check is None or not check(call, error):
                self.fail("refused", f"call {call.number} {call.sentence} was refused with {error!r}")

    def _was_patient(self, call):
        """Whether it waited as long as its pool's policy made it, though it had asked for no wait."""
        return (
            call.options.get("wait_s") == 0
            and call.turn < self.turns
            and self.patience(call)
            and call.deadline <= call.controller.clock.boot_ns()
        )

    def _refused_PoolExhausted(self, call, error):  # noqa: N802  (named after the error)
        if self._was_patient(call):
            return True
        lingers = [c for c in self.calls if c.waits or (c.cancelled and c.name.startswith("allocate"))]  # until it has had its turn
        others = any({*c.places} & {*call.places} for c in lingers)
        if call.requests:
            late = call.options["wait_s"] and call.deadline <= call.controller.clock.boot_ns()
            return bool(late) or others
        if call.options.get("wait_s", 0.0) is None:
            return False
        if call.options["wait_s"]:
            self.hits["waiter gave up"] += 1
            return call.deadline <= call.controller.clock.boot_ns()
        return others or not self.takeable(call.controller, call.place, call.options.get("port"))

    _refused_PortUnavailable = _refused_PoolExhausted  # noqa: N815

    def takeable(self, controller, place, number=None):
        """Ports that could be given to anybody now, by log time."""
        ahead, now = self.record.ahead, controller.engine.now()
        (numbers, hold), kept = ahead.pools[place[1]], ahead.kept(place[1])
        lost = place[1] in ahead.lost and ahead.lost[place[1]].until > now
        ports = {n: ahead.ports[*place, n] for n in numbers if number in (None, n) and not (lost and ahead.is_lost((*place, n)))}
        return [
            n
            for n, port in ports.items()
            if port.state == "FREE"
            or (
                not kept
                and port.until
                and port.until <= now
                and (port.state == "QUARANTINED" or (port.state == "BLOCKED" and not hold and port.free_at <= self.true_ns))
            )
        ]

    def _refused_StaleLease(self, call, error):  # noqa: N802
        lease = call.args[0]
        ended = call.name == "renew" and lease.token in self.record.ended
        return ended or self.record.ahead.ports[lease.node, lease.pool, lease.port].token > lease.token

    def _refused_InvalidValue(self, call, error):  # noqa: N802
        if call.name != "wait_clear":
            return bool(call.requests) and self._impossible(call)
        port = self.record.ahead.ports[call.args[0].node, call.args[0].pool, call.args[0].port]
        return (port.state, port.token, port.withdrawn) == ("ALLOCATED", call.args[0].token, False)

    def _refused_OwnerConflict(self, call, error):  # noqa: N802
        ahead = self.record.ahead
        if call.name == "adopt" and error.conflict != "service":
            self.claims[*call.place, call.args[1]] = call.controller
        waited = call.turn < self.turns  # its owner may have given up meanwhile what it held then
        if call.requests:
            return waited or bool(self._group_holds(call))
        return (
            waited
            or (*call.owner_key, 0) in ahead.holders
            or (call.name == "adopt" and ahead.ports[*call.place, call.args[1]].state == "ALLOCATED")
        )

    def _refused_PortOutOfRange(self, call, error):  # noqa: N802
        return call.outside or self._is_outside(call)  # it may be inside by the time that it is told

    def _is_outside(self, call):
        number = call.options.get("port") if call.name == "allocate" else next(iter(call.args[1:]), None)
        pools = self.record.ahead.pools  # where a log was lost, a pool may be missing until it is defined again
        return number is not None and call.args[0] in pools and number not in pools[call.args[0]][0]

    def _refused_IllegalTransition(self, call, error):  # noqa: N802
        return call.before in (("ALLOCATED",) if call.name == "unblock" else ("ALLOCATED", "BLOCKED"))
