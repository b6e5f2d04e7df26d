"""In the place of a connection to PostgreSQL: the same questions and errors, over a link that loses what the seed decides."""

from __future__ import annotations

from functools import partial

import psycopg

from portfsm.errors import JournalUnreadable
from portfsm.journals import _pg_schema as sql

from .link import Unanswered

SECOND = 1_000_000_000
WORDS = {sql.APPEND: "append", sql.RENEW: "sign of life", sql.TAKE_OVER: "take-over", sql.GIVE_UP: "giving up"}
SIGNS = (sql.APPEND, sql.RENEW, sql.TAKE_OVER)


class Session:
    def __init__(self, controller, place):
        self.controller, self.link, self.place = controller, controller.machine.link, place
        self.warnings, self.broken = [], False
        self.life = self.link.server.life
        if self.link.cut or self.link.server.down:
            raise JournalUnreadable(f"{place.shown} cannot be reached", path=place.shown, errno=None)

    def ask(self, statement, *, prepare=None, **values):
        if self.broken:
            raise psycopg.OperationalError("the connection is closed")
        if statement is sql.TAKE_OVER:
            values["pid"] = self.controller.number  # a story must not tell which process told it
        asked_ns = self.link.server.world.true_ns
        try:
            connected = self.life == self.link.server.life
            act = partial(self.link.server.run, statement, values)
            rows = self.link.carry(WORDS.get(statement, "another statement"), act, connected=connected)
        except Unanswered:
            self.broken = True
            raise psycopg.OperationalError("server closed the connection unexpectedly") from None
        except psycopg.OperationalError as error:
            self.broken = error.sqlstate is None
            raise
        if statement in SIGNS and rows and rows[0][0]:
            self.controller.over_ns = asked_ns + round(values["lease_s"] * SECOND)
        return rows

    def read(self, statement, **values):
        try:
            return self.ask(statement, **values)
        except psycopg.Error as error:
            raise self.failed("answer", error) from error

    def failed(self, what, error):
        return JournalUnreadable(f"{self.place.shown} did not {what}: {error}", path=self.place.shown, errno=None)

    def close(self):
        self.broken = True
