"""What is decided: holds, tokens, evidence, ends of leases, policies, losses."""

from __future__ import annotations

from unittest import mock

import attrs

from portfsm import _decide, _decide_log, _engine, _evidence, _index, _lost, _pressure, _reconcile, _terms, clocks, commands
from portfsm._pool import ALLOCATED, Pool
from portfsm.evidence import Verdict

from .registry import breaks, nothing, replaced

# ---------------------------------------------------------------------- holds, tokens, order


@breaks
def no_hold_on_release():
    """Released is free."""

    def make(end):
        def freed(self, pool, offset, cause, *, evidence=""):
            hold_ns, pool.hold_ns = pool.hold_ns, 0
            end(self, pool, offset, cause, evidence=evidence)
            pool.hold_ns = hold_ns

        return freed

    return replaced(_decide.Draft, "end", make)


@breaks
def no_hold_after_a_block():
    """Unblocked is free."""

    def make(unblock):
        def freed(self, pool, offset, cause, reason="", *, free=True):
            hold_ns, pool.hold_ns = pool.hold_ns, 0
            unblock(self, pool, offset, cause, reason, free=free)
            pool.hold_ns = hold_ns

        return freed

    return replaced(_decide.Draft, "unblock", make)


@breaks
def no_new_hold_at_reboot():
    """A machine that restarts goes on with the old ends of holds."""
    return mock.patch.object(_decide_log, "_restart", nothing)


@breaks
def no_token_check():
    """Whoever once had a lease on the port may release it."""

    def release(command, ledger, draft):
        pool, offset = _decide._leased(ledger, command.lease)
        if pool.state[offset] == ALLOCATED:
            draft.end(pool, offset, command.cause)

    return mock.patch.dict(_decide._PLANS, {commands.Release: release})


@breaks
def no_patience():
    """A lease that was missed once is released."""
    return mock.patch.object(_reconcile, "ABSENCES", 1)


@breaks
def what_is_seen_resets_nothing():
    """A sighting does not take back what was counted before."""
    return mock.patch.object(_reconcile.Scene, "is_seen", lambda *_: False)


@breaks
def holds_by_the_wall_clock():
    """Log time is what the wall clock says."""
    return mock.patch.object(clocks.Timeline, "now", lambda self: self._clock.wall_ns())


@breaks
def index_forgets_a_freed_port():
    """The search for a free port never goes back to a lower one."""

    def make(touched):
        def forgetful(self, pool, *args):
            hint = self.hint
            touched(self, pool, *args)
            self.hint = max(hint, self.hint)

        return forgetful

    return replaced(_index.Index, "touched", make)


# ---------------------------------------------------------------------- evidence


@breaks
def earlier_answers_count():
    """A late answer about a lease that ended before is taken for one about the last."""

    def take_answer(self, place, answer):
        self._void_if_changed(answer)
        if place in self.open:
            self.open[place].answers[answer.proxy] = answer

    return mock.patch.object(_evidence.Cases, "take_answer", take_answer)


@breaks
def one_proxy_is_enough():
    """A hold ends with the first proxy that lets go."""

    def is_complete(self, case, required, bounds, now_ns):
        return any(proxy in bounds and case.has_let_go(proxy, bounds[proxy], now_ns) for proxy in required)

    return mock.patch.object(_evidence.Cases, "is_complete", is_complete)


@breaks
def kept_no_longer_than_held():
    """A hold's end frees what a proxy has not let go of."""
    return mock.patch.object(Pool, "kept", False)


@breaks
def restarted_proxies_are_believed():
    """What a proxy said before it began anew still counts."""
    return mock.patch.object(_evidence.Cases, "_void_if_changed", nothing)


@breaks
def silence_is_consent():
    """A proxy that gives no answer has let go."""

    def make(has_let_go):
        def trusting(self, proxy, fallback_s, now_ns):
            answer = self.answers.get(proxy)
            return (answer is not None and answer.verdict is Verdict.UNKNOWN) or has_let_go(self, proxy, fallback_s, now_ns)

        return trusting

    return replaced(_evidence.Case, "has_let_go", make)


@breaks
def evidence_beats_the_floor():
    """What every proxy let go of is free at once."""
    return mock.patch.object(Pool, "evidence_frees_at", lambda *_: 0)


# ---------------------------------------------------------------------- leases that end


@breaks
def leases_end_early():
    """A ttl counts half."""
    return replaced(_terms.Terms, "_ttl_ns", lambda right: lambda self, lease: right(self, lease) // 2)


@breaks
def leases_never_end():
    """Nobody looks."""
    return mock.patch.object(_terms.Terms, "expire", nothing)


@breaks
def restart_forgets_ttls():
    """Only leases of this controller end."""
    return mock.patch.object(_terms.Terms, "restore", nothing)


# ---------------------------------------------------------------------- what the pools' authors asked for


@breaks
def holds_cut_off_without_need():
    """A full pool is pressed, however little is held back."""
    return mock.patch.object(_pressure, "is_pressed", lambda pool: True)


@breaks
def no_hard_quota():
    """A service takes what it can get."""
    return mock.patch.object(_decide, "check_hard", nothing)


@breaks
def no_soft_quota():
    """What is kept for a service is given to another."""
    return mock.patch.object(_decide, "check_soft", nothing)


@breaks
def no_band():
    """The lowest ports are given like any other."""
    return replaced(_decide, "choose", lambda right: lambda pool, *rest: right(_without_band(pool), *rest))


def _without_band(pool):
    other = pool.copy()
    other.spec = attrs.evolve(pool.spec, static=0)
    return other


@breaks
def a_change_not_heard_by_those_who_wait():
    """A pool that grew serves those who waited for it when something else happens."""
    return replaced(_engine.Engine, "define", lambda right: lambda self, command: self.submit(command))


# ---------------------------------------------------------------------- a log that was lost


@breaks
def a_lost_history_is_believed():
    """What the copy of the log says of free ports is taken for true."""
    return replaced(
        _engine.Engine, "start", lambda right: lambda self, *args, **options: right(self, *args, **{**options, "history": "kept"})
    )


@breaks
def a_loss_holds_for_half_the_time():
    """The hold after a loss is not a full one."""
    return replaced(
        _lost, "is_over", lambda right: lambda pool, now_ns: pool.lost is not None and pool.lost.until - pool.hold_ns // 2 <= now_ns
    )
