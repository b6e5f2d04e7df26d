"""What the contract expects of each command, done to the model's rows."""

from __future__ import annotations

from portfsm import errors
from portfsm.commands import (
    Adopt,
    Allocate,
    AllocateGroup,
    Block,
    DefinePool,
    Free,
    Hold,
    Open,
    Release,
    ReleaseOwner,
    Renew,
    Sweep,
    Unblock,
    Withdraw,
)
from tests.core_model import SECOND
from tests.group_model import Groups


class Expectations:
    """Of a machine with a `model`, a `ledger` and the `outcome` of the command."""

    def expect(self, command, events, now):
        model = self.model
        hold = 0
        if (name := getattr(command, "pool", None) or getattr(getattr(command, "lease", None), "pool", None)) is not None:
            hold = model.specs[name].hold_ms * 1_000_000
        match command:
            case Allocate():
                self.expect_allocate(command, events, hold, now)
            case AllocateGroup():
                Groups(model).expect(command, events, self.outcome, now)
            case Adopt():
                self.expect_adopt(command, events, hold, now)
            case Release():
                lease = command.lease
                row = model.row(lease.node, lease.pool, lease.port)
                self.expect_release(command, row, hold, now, last=self.last(lease, row))
            case Renew():
                row = model.row(command.lease.node, command.lease.pool, command.lease.port)
                assert events == ()
                if not self.last(command.lease, row) or row["state"] != "ALLOCATED":
                    raise errors.StaleLease("")
            case Withdraw():
                row = model.row(command.lease.node, command.lease.pool, command.lease.port)
                self.last(command.lease, row)
            case ReleaseOwner():
                for (node, pool, _), row in model.rows.items():
                    if row["state"] == "ALLOCATED" and row["owner"] == command.owner and command.node in (None, node):
                        row["times"] = 0
                        model.begin_hold(row, now + model.specs[pool].hold_ms * 1_000_000, now)
            case Block() | Unblock() | Hold() | Free():
                self.expect_hand(command, hold, now)
            case Sweep():
                for (_, pool, _), row in model.rows.items():
                    model.notice(row, model.specs[pool].hold_ms * 1_000_000, now)
            case DefinePool():
                model.specs[command.spec.name] = command.spec
            case Open():
                self.expect_restart(events, now)

    def expect_allocate(self, command, events, hold, now):
        found, reuse = self.model.choices(command, hold, now)
        if found is None:
            assert events == ()
            return
        assert events, f"refused, though {found} were to be had"
        begun = events[-1]
        assert begun.data is None
        assert begun.kind == "allocated"
        assert begun.port in found
        if not reuse and self.model.specs[command.pool].order == "lowest":
            assert begun.port == min(found)
        for port, row in self.model.of(command.node, command.pool).items():
            if not (reuse and port == begun.port):
                self.model.notice(row, hold, now)
        row = self.model.row(command.node, command.pool, begun.port)
        self.model.mix(row, command.service)
        row.update(state="ALLOCATED", owner=command.owner, service=command.service, token=begun.seq, ttl=command.ttl_s, nth=0)
        assert begun.until == (0 if command.ttl_s is None else begun.ts + command.ttl_s * SECOND)

    def expect_adopt(self, command, events, hold, now):
        row = self.model.row(command.node, command.pool, command.port)
        held = self.model.held(command.node, command.pool, command.owner)
        if (row["state"], row["owner"], row["service"]) == ("ALLOCATED", command.owner, command.service):
            return
        if held is not None or row["state"] == "ALLOCATED":
            raise errors.OwnerConflict("")
        row["hold"] = max(row["hold"], now + hold if row["state"] == "BLOCKED" else 0)
        self.model.mix(row, command.service)
        row.update(state="ALLOCATED", owner=command.owner, service=command.service, token=events[-1].seq, end=None)
        row.update(ttl=None, times=0, nth=0)

    def expect_hand(self, command, hold, now):
        """The operator's hand."""
        row = self.model.known(command.pool, command.port, command.node)
        match command:
            case Block():
                if row["state"] == "BLOCKED" and (row["end"] is None or row["end"] > now):
                    return
                if row["state"] == "BLOCKED":
                    row["hold"] = max(row["hold"], now + hold)
                self.block(row, command.for_s, now)
            case Unblock():
                if row["state"] == "ALLOCATED":
                    raise errors.IllegalTransition("")
                if row["state"] == "BLOCKED":
                    self.model.begin_hold(row, now + hold, now)
            case Hold():
                if row["state"] in ("ALLOCATED", "BLOCKED"):
                    raise errors.IllegalTransition("")
                until = now + round(command.hold_s * SECOND)
                if until > (row["hold"] if row["state"] == "QUARANTINED" else now):
                    row.update(state="QUARANTINED", hold=until)
                    self.model.forget_mixture(row, now)
            case Free():
                if row["state"] in ("ALLOCATED", "BLOCKED"):
                    raise errors.IllegalTransition("")
                self.model.free(row)

    def last(self, lease, row):
        """Whether the lease is the port's last one, or a refusal where the contract's table has one."""
        if lease.token > row["token"]:
            raise errors.InvalidValue("")
        if lease.token < row["token"] and row["state"] in ("FREE", "ALLOCATED"):
            raise errors.StaleLease("")
        return lease.token == row["token"]

    def expect_release(self, command, row, hold, now, *, last):
        gone = row["state"] == "FREE" and not self.model.inside(command.lease.pool, command.lease.port)
        if not last or row["state"] == "BLOCKED" or gone:
            return
        if command.block is not None:
            self.block_again(row, command, now)
        elif row["state"] == "ALLOCATED":
            row["times"] = 0 if command.cause == "released" else row["times"]
            self.model.begin_hold(row, now + (hold if command.cause != "cancelled" else 0), now)

    def block(self, row, for_s, now):
        row.update(state="BLOCKED", end=None if for_s is None else now + round(for_s * SECOND))
        self.model.forget_mixture(row, now)

    def block_again(self, row, command, now):
        """A finding that comes back lasts twice as long, up to a day; how often is counted until a lease ends well."""
        if command.for_s is not None:
            cause = "address-in-use" if command.errno else "holder" if command.cause == "released" else command.cause
            row.update(times=row["times"] + 1 if row["times"] and row["as"] == cause else 1)
            row["as"] = cause
        self.block(row, command.for_s and min(command.for_s * 2 ** (row["times"] - 1), 86_400), now)

    def expect_restart(self, events, now):
        """After another boot every quarantine lasts its full hold again; what it was is the machine's to know."""
        opened = next(event for event in events if event.kind == "opened")
        restarted = {(event.node, event.pool, event.port): event for event in events if event.kind == "held"}
        same = self.ledger.opened.get("boot") in (None, opened.data["boot"])
        quarantined = {place for place, row in self.model.rows.items() if row["state"] == "QUARANTINED"}
        assert set(restarted) == (set() if same else quarantined)
        for place, event in restarted.items():
            row = self.model.rows[place]
            assert event.cause == "reboot"
            assert event.until >= max(row["hold"], now + self.model.specs[place[1]].hold_ms * 1_000_000)
            row["hold"] = event.until
            row["mixed"] = row["mixed"] and max(row["mixed"], event.until)
