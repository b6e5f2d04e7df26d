"""The tables of the journal on PostgreSQL, as one script per version, and every statement that touches them.

A log is a row of `portfsm_log`: its fence (`epoch`), its expected head (`seq`, `digest`) and its leader's lease at once. Every append
updates that row under the condition that it still stands where the writer believes, and so waits for an append under way and
fails behind a take-over: order without gaps, without a sequence.

Versions only grow. A change of the tables is one more script; `portfsm init URL` runs those that are missing, in one transaction.
"""

from __future__ import annotations

__all__ = [
    "ADD_LOG",
    "APPEND",
    "CHANNEL",
    "CURRENT",
    "FIND_LOG",
    "FORGET_VERSION",
    "GIVE_UP",
    "LAST_LINE",
    "LOCK_SCHEMA",
    "LOGS",
    "MARKS",
    "MARK_BEFORE",
    "PAGE",
    "RECEIVE",
    "RECEIVED",
    "RENEW",
    "SCRIPTS",
    "SET_VERSION",
    "SNAPSHOT_DROP",
    "SNAPSHOT_LOAD",
    "SNAPSHOT_SAVE",
    "TAKE_OVER",
    "VERSION",
    "WHO_LEADS",
]

_TABLES = """
create table portfsm_schema (version integer not null);
create table portfsm_log (
    log integer generated always as identity primary key,
    name text not null unique,
    header text not null,
    epoch bigint not null default 0,
    seq bigint not null default 0,
    digest bytea not null,
    holder text not null default '',
    pid integer not null default 0,
    former text not null default '',
    lease_until timestamptz,
    made_at timestamptz not null default clock_timestamp()
) with (fillfactor = 50);
create table portfsm_event (
    log integer not null references portfsm_log,
    seq bigint not null,
    at timestamptz not null default statement_timestamp(),
    line text not null,
    digest bytea,
    primary key (log, seq)
);
create table portfsm_snapshot (
    log integer not null references portfsm_log,
    seq bigint not null,
    at timestamptz not null default statement_timestamp(),
    sha256 bytea not null,
    body bytea not null,
    primary key (log, seq)
);
"""

_VIEWS = """
create view portfsm_history as
select l.name as log, e.seq, timestamptz 'epoch' + (r.ts / 1000) * interval '1 microsecond' as time, e.at as stored_at, r.kind,
    coalesce(r.node, '') as node, coalesce(r.pool, '') as pool, (e.line::json ->> 'port')::integer as port,
    coalesce(r.owner, '') as owner, coalesce(r.service, '') as service, r.token, r.hold_ms / 1000.0 as hold_s,
    timestamptz 'epoch' + (r.until / 1000) * interval '1 microsecond' as until,
    coalesce(r.cause, '') as cause, coalesce(r.reason, '') as reason, r.data
from portfsm_event e join portfsm_log l using (log), lateral json_to_record(e.line::json) as r (
    ts bigint, kind text, node text, pool text, owner text, service text, token bigint, hold_ms bigint, until bigint,
    cause text, reason text, data json);

create view portfsm_holders as
select log, node, pool, port, owner, service, token, time as held_from, ended as held_to, ended_by, kind = 'adopted' as adopted
from (
    select h.*, lead(time) over port_life as ended,
        lead(kind || case cause when '' then '' else ' (' || cause || ')' end) over port_life as ended_by
    from portfsm_history h where kind in ('allocated', 'adopted', 'released', 'blocked')
    window port_life as (partition by log, node, pool, port order by seq)
) lives where kind in ('allocated', 'adopted');
"""

SCRIPTS = (_TABLES, _VIEWS)
VERSION = len(SCRIPTS)
CHANNEL = "portfsm_event"
"""Where listeners are told that a log has grown; the message is the log's number."""

CURRENT = "select version from portfsm_schema"
LOCK_SCHEMA = "select pg_advisory_xact_lock(hashtext('portfsm_schema')), to_regclass('portfsm_schema') is not null"
FORGET_VERSION = "delete from portfsm_schema"
SET_VERSION = "insert into portfsm_schema values (%(version)s)"
ADD_LOG = (
    "insert into portfsm_log (name, header, digest) values (%(name)s, %(header)s, %(digest)s) on conflict (name) do nothing returning log"
)

LOGS = "select name from portfsm_log order by name"
FIND_LOG = "select log, header, epoch, seq, digest from portfsm_log where name = %(name)s"

TAKE_OVER = """
update portfsm_log set epoch = epoch + 1, former = case when lease_until is null then '' else holder end,
    holder = %(holder)s, pid = %(pid)s, lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
where name = %(name)s and (lease_until is null or lease_until < clock_timestamp())
returning log, header, epoch, seq, digest, former
"""
WHO_LEADS = """
select holder, pid, greatest(0, extract(epoch from lease_until - clock_timestamp()))::float8 from portfsm_log where name = %(name)s
"""
RENEW = """
update portfsm_log set lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
where log = %(log)s and epoch = %(epoch)s and seq = %(seq)s and digest = %(digest)s returning 1
"""
GIVE_UP = "update portfsm_log set lease_until = null where log = %(log)s and epoch = %(epoch)s and digest = any(%(digests)s)"

APPEND = """
with head as (
    update portfsm_log set seq = seq + %(count)s, digest = %(digest)s,
        lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
    where log = %(log)s and epoch = %(epoch)s and seq = %(seq)s and digest = %(before)s
    returning log, seq - %(count)s as base
), kept as (
    insert into portfsm_event (log, seq, line, digest)
    select log, base + number, line, case number when %(count)s then %(digest)s end
    from head, string_to_table(%(lines)s, E'\\n') with ordinality as lines (line, number)
    returning 1
)
select (select count(*) from kept), (select pg_notify('portfsm_event', log::text) from head)
"""
"""One statement, one commit: 0 rows kept means that another leads or that the log stands elsewhere, and nothing was changed.

In a database that came back from an older copy epochs and seqs come again; the digest of all lines before never does. So whatever
presupposes who leads presupposes it, too.
"""

RECEIVE = """
update portfsm_log set header = %(header)s, digest = %(digest)s
where name = %(name)s and seq = 0 and epoch = 0 and lease_until is null
returning log, header, epoch, seq, digest
"""
"""A log that was only made so far becomes that of another place, before its events come, in one transaction."""
RECEIVED = "update portfsm_log set epoch = %(epoch)s, lease_until = null where log = %(log)s"

MARK_BEFORE = """
select seq, digest from portfsm_event where log = %(log)s and seq <= %(seq)s and digest is not null order by seq desc limit 1
"""
"""The digest is kept with the last event of every batch."""
MARKS = "select seq, digest from portfsm_event where log = %(log)s and seq > %(after)s and seq <= %(upto)s and digest is not null"
LAST_LINE = "select right(line, 16), digest from portfsm_event where log = %(log)s and seq = %(seq)s"
PAGE = """
select convert_to(string_agg(line, E'\\n') || E'\\n', 'UTF8'), count(*)
from (select line from portfsm_event where log = %(log)s and seq > %(after)s and seq <= %(upto)s order by seq) lines
"""
"""Many lines as one value: a row each would cost the driver more than decoding them. The order is that of the inner query (and proven)."""

SNAPSHOT_SAVE = """
insert into portfsm_snapshot (log, seq, sha256, body)
select log, %(at)s, %(sha256)s, %(body)s from portfsm_log
where log = %(log)s and epoch = %(epoch)s and seq = %(seq)s and digest = %(digest)s
on conflict (log, seq) do update set at = excluded.at, sha256 = excluded.sha256, body = excluded.body
"""
SNAPSHOT_DROP = """
delete from portfsm_snapshot where log = %(log)s and seq not in (
    select seq from portfsm_snapshot where log = %(log)s order by seq desc limit %(kept)s)
"""
SNAPSHOT_LOAD = "select seq, sha256, body from portfsm_snapshot where log = %(log)s and seq <= %(seq)s order by seq desc"
