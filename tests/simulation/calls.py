"""Callers, and what may be said to them: every decision needs somebody who asked for it, every answer must be so on the disk.

Rule: a call is judged twice. In the moment of a decision, there must be a call in flight that explains it. In the moment of
an answer, the answer must follow from events that are durable, and a refusal from the state that was decided on.
"""

from __future__ import annotations

import asyncio

from portfsm import errors
from portfsm.values import Lease

from .groups import GroupJudge
from .policies import PolicyJudge

PATIENT = (errors.PoolExhausted, errors.PortUnavailable)


class Call:
    def __init__(self, world, number, controller, name, args, options):
        self.world, self.number, self.controller = world, number, controller
        self.name, self.args, self.options = name, args, options
        self.task = self.scope = self.result = self.error = None
        self.cancelled = self.done = self.dead = self.started = self.entered = self.answered = False
        self.token = 0
        """Of the lease that this call has been given, or found its owner to have."""
        self.tokens = set()
        """The same where it asks for a group."""
        self.served = False
        """All of its group was given to it, whatever became of that since."""
        self.deadline, self.turn, self.at, self.begun_at = None, 0, (0, 0), 0
        self.before = ""
        self.then = None

    @property
    def sentence(self):
        words = [
            repr(arg) if not isinstance(arg, Lease) else f"{arg.pool} {arg.port} lease {arg.token} of {arg.owner}" for arg in self.args
        ]
        words += [f"{name}={value!r}" for name, value in self.options.items() if value not in ("", None) or name == "wait_s"]
        return f"{self.name}({', '.join(words)})"

    @property
    def place(self):
        return self.options.get("node", ""), self.args[0]

    @property
    def places(self):
        """The places it takes ports of, if it does."""
        return [request.place for request in self.requests] or [self.place]

    @property
    def owner_key(self):
        return *self.place, self.options["owner"]

    @property
    def requests(self):
        """What it asks for if it asks for a group."""
        return self.args[0] if self.name == "allocate_group" else ()

    def awaits(self, token):
        """Whether this lease is, or is a part of, what it asked for."""
        return token == self.token or token in self.tokens

    @property
    def waits(self):
        """Whether it can only be waiting for a port."""
        waiting = self.started and not (self.cancelled or self.token or self.served or self.done)
        return waiting and (self.name == "allocate" or (self.name == "allocate_group" and self.world.lacks(self)))

    @property
    def rests(self):
        """Whether there is a reason that it gets no answer."""
        return self.waits or self.name == "wait_clear"

    def cancel(self):
        self.cancelled = True
        if self.scope is not None:
            self.scope.cancel()
        elif self.entered:
            self.task.cancel()
        else:  # a task that is cancelled before its first turn never runs at all
            self.task.cancel()
            self._over()

    async def perform(self):
        self.entered = True
        try:
            if self.scope is not None:
                with self.scope:
                    await self._ask()
            else:
                await self._ask()
        except asyncio.CancelledError:
            pass
        except errors.PortfsmError as error:
            self.error = error
        self._over()

    def broke(self, task):
        """The task is over; whatever it raised has no name in this library."""
        if not task.cancelled() and task.exception() is not None and not self.dead:
            self.world.fail("broke", f"call {self.number} {self.sentence}: {task.exception()!r}")

    def _over(self):
        self.done = True
        if not self.dead:
            self.world.calls.remove(self)
            self.world.answered(self)

    async def _ask(self):
        self.started = True
        self.world.begun(self)
        self.result = await getattr(self.controller.manager, self.name)(*self.args, **self.options)
        self.answered = True


class Judge(GroupJudge, PolicyJudge):
    """The part of the world that judges."""

    # ------------------------------------------------------------------ decisions

    def explain(self, controller, event):
        """Somebody must have asked for it, and nobody may have been overtaken."""
        calls = [call for call in self.calls if call.controller is controller]
        self.terms.pop(event.seq, None)  # of an event that was lost, whose number this one has
        asked = getattr(self, f"_explain_{event.kind}", None)
        if asked is not None and not asked(controller, event, calls):
            self.fail(
                "unasked",
                f"nobody asked for {event.kind} of {event.pool} {event.port} ({event.cause}), owner {event.owner}, lease {event.token}",
            )

    def _explain_allocated(self, controller, event, calls):
        mine = [
            call for call in calls if call.name == "allocate" and call.owner_key == (event.node, event.pool, event.owner) and call.started
        ]
        fit = [c for c in mine if not c.token and c.options["service"] == event.service and c.options.get("port") in (None, event.port)]
        ttl_ns = event.until - event.ts if event.until else 0
        fit = [c for c in fit if round((c.options.get("ttl_s") or 0) * 1e9) == ttl_ns]  # others of its owner are refused
        if event.until:
            self.terms[event.token] = self.true_ns, self.true_ns, event.until - event.ts
        fit = [] if event.data else fit  # a plain call gets the first of its owner's ports
        for call in fit:
            call.token = event.token
            self.hits["waiter was served"] += self.turns > call.turn
        served = [*fit, *self._asked_as_group(event, calls)]
        if served:
            special = any(call.options.get("port") is not None for call in fit)
            self._check_turn(event, min(call.number for call in served), calls, special=special)
            self._check_band(controller, event, served)
        return bool(served)

    def _check_turn(self, event, number, calls, *, special):
        place, now = (event.node, event.pool), self.clock.boot_ns()
        before = [c for c in calls if c.waits and c.number < number and place in c.places and c.options.get("port") is None]
        earlier = [c for c in before if (c.deadline is None or c.deadline > now) and c not in self.kept]
        # A group that can never be served is told so; and it may be that what its owner holds cannot be a part of it.
        earlier = [c for c in earlier if not (c.requests and (self._group_holds(c) or self._impossible(c)))]
        if earlier and not special and (earlier[0].requests or earlier[0].owner_key not in self.record.ahead.holders):
            self.fail("overtaken", f"call {number} was served before call {earlier[0].number}")

    def _explain_adopted(self, controller, event, calls):
        for call in calls:  # its owner's calls that wait are answered by it
            if call.name == "allocate" and call.waits and call.owner_key == (event.node, event.pool, event.owner):
                call.token = event.token
        return any(
            c.name == "adopt"
            and c.args == (event.pool, event.port)
            and (c.options["owner"], c.options["service"]) == (event.owner, event.service)
            for c in calls
        )

    def _explain_withdrawn(self, controller, event, calls):
        return any(c.name == "withdraw" and c.args[0].token == event.token for c in calls)

    def _explain_released(self, controller, event, calls):
        if event.cause == "expired":
            return self._overdue(event.token)
        if event.cause == "reconciled":
            return any(c.name == "reconcile" for c in calls) and self.was_missed(controller, event.token)
        if event.cause != "cancelled":
            return any(
                (c.name == "release" and c.args[0].token == event.token and c.options.get("block") is None)
                or (c.name == "release_owner" and c.args[0] == event.owner and c.options.get("node") in (None, event.node))
                for c in calls
            )
        if event.token in self.record.received:
            self.fail("taken back", f"lease {event.token} was given back for a cancelled call, and another call has it")
        waiting = [c for c in calls if c.awaits(event.token) and not c.cancelled and not (c.requests and self.lacks(c))]
        if waiting:
            self.fail("taken back", f"lease {event.token} was given back while call {waiting[0].number} awaits it")
        return True

    def _overdue(self, token):
        """Whether a lease's time may be up: counted from its beginning, its last renewal or the last opening."""
        begun, _, ttl_ns = self.terms[token]
        return self.true_ns >= max(begun, self.opened_at) + ttl_ns

    def _long_overdue(self, token):
        """Whether it is up, even if it counts from the answers to those calls."""
        _, answered, ttl_ns = self.terms[token]
        return self.true_ns >= max(answered, self.ready_at) + ttl_ns

    def _renewed(self, call, token):
        if token in self.terms:
            begun, _, ttl_ns = self.terms[token]
            self.terms[token] = max(begun, call.begun_at), self.true_ns, ttl_ns

    def _explain_blocked(self, controller, event, calls):
        if event.cause == "holder":
            return any(c.name == "release" and c.options.get("block") and c.args[0].port == event.port for c in calls)
        if event.cause == "conflict":
            return self.claims.get((event.node, event.pool, event.port)) is controller
        return any(c.name == "block" and c.args == (event.pool, event.port) for c in calls)

    def _explain_unblocked(self, controller, event, calls):
        return event.cause == "elapsed" or any(c.name == "unblock" and c.args == (event.pool, event.port) for c in calls)

    def _explain_held(self, controller, event, calls):
        if event.cause == "lost":  # whoever concerned himself with the port
            return True
        opening = controller.manager is None
        return opening if event.cause == "reboot" else any(c.name == "hold" and c.args == (event.pool, event.port) for c in calls)

    def _explain_freed(self, controller, event, calls):
        if event.cause == "evidence" and (holding := self.proxies.holding((event.node, event.port))):
            self.fail("no evidence", f"{event.pool} {event.port} was freed by evidence, and may be routed to by {holding}")
        self.proxies.freed(event)
        return event.cause in ("elapsed", "evidence", "pressure") or any(
            c.name == "free" and c.args == (event.pool, event.port) for c in calls
        )

    def _explain_proxy_joined(self, controller, event, calls):
        return controller.manager is None or any(c.name == "join" and c.args[0].proxy == event.data["proxy"] for c in calls)

    def _explain_proxy_left(self, controller, event, calls):
        return any(c.name == "leave" and c.args[0] == event.data["proxy"] for c in calls)

    def _explain_closed(self, controller, event, calls):
        return controller.leave.is_set()

    def _explain_opened(self, controller, event, calls):
        self.opened_at = self.true_ns
        return controller.manager is None

    # ------------------------------------------------------------------ answers

    def begun(self, call):
        """The call runs now; its decision is made before it first waits."""
        call.turn, call.begun_at = self.turns, self.true_ns
        if call.controller.superseded:
            return
        ahead = self.record.ahead
        if call.name == "allocate":
            port = ahead.holders.get(call.owner_key)
            token = ahead.ports[*call.place, port].token if port is not None else 0
            if token and not (token in self.terms and self._overdue(token)):  # which this call would be the first to notice
                call.token = token
            wait_s = call.options.get("wait_s", 0.0)
            wait_s = wait_s if wait_s != 0 else self.patience(call)
            call.deadline = None if wait_s is None else self.clock.boot_ns() + round(wait_s * 1e9)
        elif call.name == "reconcile":
            self.looked(call)
        elif call.name == "allocate_group":
            call.tokens = set() if self.lacks(call) else self._group_holds(call)  # one that waits awaits no lease yet
            wait_s = call.options["wait_s"] if call.options["wait_s"] != 0 else self.patience(call)
            call.deadline = None if wait_s is None else self.clock.boot_ns() + round(wait_s * 1e9)
        elif call.options.get("timeout_s") is not None:
            call.deadline = self.clock.boot_ns() + round(call.options["timeout_s"] * 1e9)
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
            return
        if call.error is not None:
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
            if call.deadline is None or call.deadline > self.clock.boot_ns():
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
            port = self.record.ahead.ports[place]
            port.floor_at = max(port.floor_at, asked_ns + round(call.options["hold_s"] * 1e9))

    # ------------------------------------------------------------------ refusals

    def _check_error(self, call, error):
        controller = call.controller
        if isinstance(error, errors.InternalError) or type(error) is errors.PortfsmError:
            self.fail("internal", f"call {call.number} {call.sentence}: {error!r}")
        elif isinstance(error, errors.JournalError):
            if not (controller.provoked or controller.superseded or self.disk.provoked):
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
        return call.options.get("wait_s") == 0 and call.turn < self.turns and self.patience(call) and call.deadline <= self.clock.boot_ns()

    def _refused_PoolExhausted(self, call, error):  # noqa: N802  (named after the error)
        if self._was_patient(call):
            return True
        if call.requests:
            late = call.options["wait_s"] and call.deadline <= self.clock.boot_ns()
            return bool(late) or any(c.waits and {*c.places} & {*call.places} for c in self.calls)
        if call.options.get("wait_s", 0.0) is None:
            return False
        if call.options["wait_s"]:
            self.hits["waiter gave up"] += 1
            return call.deadline <= self.clock.boot_ns()
        lingers = [c for c in self.calls if c.waits or (c.cancelled and c.name.startswith("allocate"))]  # until it has had its turn
        others = [c for c in lingers if call.place in c.places]
        return bool(others) or not self.takeable(call.controller, call.place, call.options.get("port"))

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
            or call.owner_key in ahead.holders
            or (call.name == "adopt" and ahead.ports[*call.place, call.args[1]].state == "ALLOCATED")
        )

    def _refused_PortOutOfRange(self, call, error):  # noqa: N802
        number = call.options["port"] if call.name == "allocate" else call.args[1]
        return number not in self.record.ahead.pools[call.args[0]][0]

    def _refused_IllegalTransition(self, call, error):  # noqa: N802
        return call.before in (("ALLOCATED",) if call.name == "unblock" else ("ALLOCATED", "BLOCKED"))
