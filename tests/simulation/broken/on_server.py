"""What a shared log is trusted with too much: by who leads, who led, and who would like to."""

from __future__ import annotations

from contextlib import suppress
from unittest import mock

import portfsm.manager
from portfsm import _decide_log, _leading
from portfsm.errors import Fenced, JournalError, OutcomeUnknown
from portfsm.journals import _etcd_lead, _etcd_tail
from portfsm.journals._etcd_wire import created
from portfsm.journals._pg_log import LogRow
from portfsm.journals.postgres import PostgresJournal
from tests.simulation.session import Session

from .registry import breaks_shared, nothing, replaced


@breaks_shared
def no_fence():
    """An append goes by whatever epoch the log has now."""

    def make(append):
        def unfenced(self, session, *rest):
            self._row = LogRow.find(session)
            append(self, session, *rest)

        return unfenced

    return replaced(PostgresJournal, "_append", make)


@breaks_shared
def no_fence_in_etcd():
    """An append does not look who leads."""
    return mock.patch.object(_etcd_lead.Lead, "compare", lambda self: created(b"nobody", 0))


@breaks_shared
def another_connection_another_epoch():
    """Who has to connect again takes the log as it finds it for its own."""

    def make(again):
        def adopting(self, session):
            found = again(self, session)
            self._row = LogRow.find(found)
            self._last = self._row.seq, self._row.digest
            return found

        return adopting

    return replaced(PostgresJournal, "_again", make)


@breaks_shared
def a_refusal_is_not_heard():
    """Who is told that another leads goes on as if its batch had been kept."""

    def make(append):
        def deaf(self, session, *rest):
            with suppress(Fenced):
                append(self, session, *rest)

        return deaf

    return replaced(PostgresJournal, "_append", make)


@breaks_shared
def unknown_is_taken_for_done():
    """An answer that was lost was surely a yes."""

    def make(append):
        def trusting(self, session, *rest):
            with suppress(OutcomeUnknown):
                append(self, session, *rest)

        return trusting

    return replaced(PostgresJournal, "_append", make)


@breaks_shared
def unknown_is_taken_for_failed():
    """An answer that was lost was surely a no."""
    return mock.patch.object(PostgresJournal, "_unknown", lambda self, why: JournalError(f"{why}: nothing was written", path=self.path))


@breaks_shared
def a_shorter_lease_than_is_thought():
    """Another may lead long before the leader thinks so."""
    return replaced(Session, "ask", lambda ask: lambda self, statement, **values: ask(self, statement, **_shortened(values)))


def _shortened(values):
    return {name: value / 4 if name == "lease_s" else value for name, value in values.items()}


@breaks_shared
def no_signs_of_life():
    """A leader with nothing to write lets its lease run out."""

    async def nothing_to_say(engine):
        pass

    return mock.patch.object(portfsm.manager, "keep_leading", nothing_to_say)


@breaks_shared
def who_waits_looks_once():
    """Whoever finds the lead taken does not look again for an hour."""
    return mock.patch.object(_leading, "RETRY_S", 3600.0)


@breaks_shared
def answers_out_of_memory():
    """What a leader remembers is told, however long it slept."""
    return mock.patch.object(_leading.Lead, "is_sure", True)


@breaks_shared
def handed_out_when_it_wakes():
    """What was recorded in time is told, however late."""

    def make(settle):
        async def hasty(self, seq):
            writer = self._engine.writer
            await (writer.durable(seq) if seq > writer.durable_seq else settle(self, seq))

        return hasty

    return replaced(_leading.Lead, "settle", make)


@breaks_shared
def suspended_time_does_not_count():
    """The lease goes by a clock that stands still with the machine."""

    def by_the_monotonic_clock(self):
        return self._journal is None or _leading.time.monotonic() - self._engine.writer.signed_s < self._journal.lease_s * 2 / 3

    return mock.patch.object(_leading.Lead, "is_sure", property(by_the_monotonic_clock))


@breaks_shared
def holds_go_on_by_the_next_leaders_clock():
    """Its wall clock says how much of a hold is left."""
    return mock.patch.object(_decide_log, "_restart", nothing)


@breaks_shared
def behind_what_is_gone_in_etcd():
    """Who has the lead writes, whether or not the log still ends where it left it."""
    return mock.patch.multiple(_etcd_tail.Writes, _presupposed=lambda self: [self._lead.compare()], check=nothing)
