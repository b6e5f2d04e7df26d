"""Callers, and what may be said to them: every decision needs somebody who asked for it, every answer must be so on the disk.

Rule: a call is judged twice. In the moment of a decision, there must be a call in flight that explains it. In the moment of
an answer, the answer must follow from events that are durable, and a refusal from the state that was decided on.
"""

from __future__ import annotations

import asyncio

from portfsm import errors
from portfsm.values import Lease

from .answers import AnswerJudge
from .groups import GroupJudge
from .policies import PolicyJudge


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
        self.refused = set()
        """Tokens of what it was given and is taken back, since nobody knows who leads: it must be told so."""
        self.served = False
        """All of its group was given to it, whatever became of that since."""
        self.deadline, self.turn, self.at, self.begun_at = None, 0, (0, 0), 0
        self.doubt_ns = 0
        """By how much the deadline may be earlier: a group waits as the pools say that lack ports."""
        self.before = ""
        self.outside = False
        """Whether it named a port outside the ranges."""
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


class Judge(AnswerJudge, GroupJudge, PolicyJudge):
    """The part of the world that judges: decisions here, answers in `answers`."""

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
        place, now = (event.node, event.pool), calls[0].controller.clock.boot_ns()
        before = [c for c in calls if c.waits and c.number < number and place in c.places and c.options.get("port") is None]
        earlier = [c for c in before if (c.deadline is None or c.deadline - c.doubt_ns > now) and c not in self.kept]
        # A group that can never be served is told so; and it may be that what its owner holds cannot be a part of it.
        earlier = [c for c in earlier if not (c.requests and (self._group_holds(c) or self._impossible(c)))]
        # One whose owner was given a port for another call, which was cancelled, has been told of that and has yet to run.
        given = {c.owner_key for c in calls if c.name == "allocate" and c.cancelled and c.token}
        earlier = [c for c in earlier if c.requests or c.owner_key not in given]
        if earlier and not special and (earlier[0].requests or (*earlier[0].owner_key, 0) not in self.record.ahead.holders):
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
        if waiting and self.may_refuse(controller):
            for call in waiting:
                call.refused.add(event.token)
        elif waiting:
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

    def renewed_perhaps(self, call):
        """A call that was cancelled may have been carried out before it was."""
        token = call.args[0].token if call.name == "renew" else call.token
        if call.started and token in self.terms:
            begun, _, ttl_ns = self.terms[token]
            self.terms[token] = begun, self.true_ns, ttl_ns

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
        return controller.leave.is_set() or (controller.manager is None and self.excuses(controller))

    def _explain_opened(self, controller, event, calls):
        self.opened_at = self.true_ns
        return controller.manager is None
