"""Moments and lengths of time as people write and read them.

A TIME is RFC 3339 (`2026-08-01T09:30:00Z`), `15m ago` (s, m, h, d), or `@seq`. Programs get times to the nanosecond, so
that what was printed can be passed back and names the same event; people get milliseconds.

Rule of this file: pure. The present is an argument.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

from portfsm.audit import Moment
from portfsm.errors import InvalidValue

__all__ = ["NS", "Moment", "clock_text", "day_text", "duration", "parse_rate", "parse_seconds", "parse_time", "rfc3339", "time_text"]

NS = 1_000_000_000
_MS = 1_000_000
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_SEQ = re.compile(r"@([0-9]{1,18})")
_AGO = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,9}))?\s*([smhd])\s*ago")
_LENGTH = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*([smhd]?)")
_RATE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*(?:/\s*([smhd]))?")
_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}):([0-9]{2})(?:\.([0-9]+))?(?:([Zz])|([+-])([0-9]{2}):([0-9]{2}))"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEAP_SECOND = 60


def parse_time(text: str, *, now_ns: int) -> Moment:
    """The moment that `text` names. Raises `InvalidValue`."""
    if match := _SEQ.fullmatch(text):
        return Moment(seq=int(match[1]))
    if match := _AGO.fullmatch(text):
        ago_ns = int(match[1]) * NS + _fraction_ns(match[2])
        return Moment(ts=now_ns - ago_ns * _UNITS_S[match[3]])
    if match := _RFC3339.fullmatch(text):
        return Moment(ts=_rfc3339_ns(match, text))
    raise _not_a_time(text, 'write 2026-08-01T09:30:00Z, "15m ago" (s, m, h or d), or @SEQ')


def _rfc3339_ns(match: re.Match[str], text: str) -> int:
    date, hours_minutes, seconds, fraction, _, sign, zone_hours, zone_minutes = match.groups()
    second = int(seconds)
    try:
        start = datetime.fromisoformat(f"{date}T{hours_minutes}:00+00:00")
    except ValueError as error:
        raise _not_a_time(text, str(error)) from error
    if second > _LEAP_SECOND:
        raise _not_a_time(text, "second must be in 0..60")
    zone_s = 0
    if sign:
        if int(zone_hours) > 23 or int(zone_minutes) > 59:  # noqa: PLR2004
            raise _not_a_time(text, "an offset lies between -23:59 and +23:59")
        zone_s = (int(zone_hours) * 3_600 + int(zone_minutes) * 60) * (1 if sign == "+" else -1)
    since = start - _EPOCH
    return (since.days * 86_400 + since.seconds + second - zone_s) * NS + _fraction_ns(fraction)


def _fraction_ns(digits: str | None) -> int:
    """What stands behind the point; digits beyond the nanosecond say nothing here."""
    return int((digits or "")[:9].ljust(9, "0"))


def _not_a_time(text: str, advice: str) -> InvalidValue:
    return InvalidValue(f"{text!r} is not a time: {advice}", name="time", value=text)


def parse_seconds(text: str) -> float:
    """A length of time in seconds: `90`, `1.5s`, `10m`, `2h`, `1d`. Raises `InvalidValue`."""
    match = _LENGTH.fullmatch(text.strip())
    if not match:
        raise InvalidValue(f"{text!r} is not a length of time: write seconds, or 90s, 10m, 2h, 1d", name="seconds", value=text)
    return float(match[1]) * _UNITS_S[match[2] or "s"]


def parse_rate(text: str) -> float:
    """So many a second: `5`, `5/s`, `300/m`, `2.5/h`, `100/d`. Raises `InvalidValue`."""
    match = _RATE.fullmatch(text.strip())
    if not match:
        raise InvalidValue(f"{text!r} is not a rate: write 5/s, 300/m, 20/h or 100/d", name="rate", value=text)
    return float(match[1]) / _UNITS_S[match[2] or "s"]


def rfc3339(ns: int) -> str:
    """For programs: RFC 3339 in UTC with nanoseconds, always of one length."""
    return f"{_to_second(ns)}.{ns % NS:09d}Z"


def time_text(ns: int) -> str:
    """For people: RFC 3339 in UTC with milliseconds, rounded down."""
    return f"{_to_second(ns)}.{ns % NS // _MS:03d}Z"


def day_text(ns: int) -> str:
    """The day, `2026-08-01`."""
    return _to_second(ns)[:10]


def clock_text(ns: int) -> str:
    """The time of day with milliseconds, `09:30:00.000`."""
    return time_text(ns)[11:-1]


def _to_second(ns: int) -> str:
    return _second_text(ns // NS)


@lru_cache(256)  # events that follow on each other mostly share theirs
def _second_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def duration(ns: int) -> str:
    """How long, for people: `250 ms`, `7.3 s`, `2 min 13 s`, `3 h 05 min`, `4 d 02 h`. Rounded down."""
    if ns < 0:
        return f"-{duration(-ns)}"
    if ns < _MS:
        return "<1 ms" if ns else "0 s"
    if ns < NS:
        return f"{ns // _MS} ms"
    seconds = ns // NS
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds}.{ns % NS * 10 // NS} s"
    minutes, hours, days = seconds // 60, seconds // 3_600, seconds // 86_400
    if not hours:
        return f"{minutes} min {seconds % 60:02d} s"
    return f"{hours} h {minutes % 60:02d} min" if not days else f"{days} d {hours % 24:02d} h"
