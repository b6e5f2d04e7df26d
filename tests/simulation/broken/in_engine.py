"""The order of deciding, keeping and telling."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from unittest import mock

from portfsm import _engine, _writer
from portfsm.errors import PortfsmError

from .registry import breaks, nothing, replaced


@breaks
def published_before_durable():
    """Views, watchers and callers are told, then the disk writes."""

    def eager(self, batch):
        self._tell(self._finished, batch, None, 0.0, 0)
        with suppress(PortfsmError):
            self._append_all(batch.events)

    return mock.patch.object(_writer.Writer, "_append", eager)


@breaks
def applied_without_journal():
    """What a sweep frees is applied and not recorded."""

    def make(commit):
        def forgetful(self, events):
            return commit(self, [] if events and all(event.cause == "elapsed" for event in events) else events)

        return forgetful

    return replaced(_engine.Engine, "_commit", make)


@breaks
def cancelled_leaks():
    """A lease whose caller was cancelled stays."""
    return mock.patch.object(_engine.Engine, "dropped", nothing)


@breaks
def cancelled_takes_all():
    """The first of several callers that is cancelled gives the lease of all back."""

    def make(dropped):
        def eager(self, *tokens):
            for token in tokens:
                if token in self.grants:
                    self.grants[token].waiting = 1
            dropped(self, *tokens)

        return eager

    return replaced(_engine.Engine, "dropped", make)


@breaks
def overtaking():
    """Whoever comes while others wait may take what is free, if there is something."""
    return mock.patch.object(_engine.Engine, "must_queue", lambda *_: False)


@breaks
def nobody_wakes():
    """The timer tells those whose time is up, and serves nobody."""

    def tick(self):
        self.waiters.expire(self.clock.boot_ns(), partial(_engine.refusal, self))

    return mock.patch.object(_engine.Engine, "_tick", tick)
