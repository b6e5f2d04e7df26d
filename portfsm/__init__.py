"""Ports for replicas behind a proxy: handed out, held back, blocked, and remembered across crashes.

The floors, each importing only from those below it:

    surfaces   cli, demo, testing, haproxy
    async      manager (open_manager, PortManager)
    I/O        journals (memory, file), sockets, witnesses (HAProxy), clocks
    bytes      line format, recovery rules
    machine    TRANSITIONS, decide, apply, Ledger, replay
    words      states, events, commands, specs, shards, values, observation, evidence, errors, protocols
"""

from portfsm._decide import decide
from portfsm._follow import Follower, follow
from portfsm._forecast import Forecast, Rate
from portfsm._holding import hold_ports
from portfsm._ledger import Ledger, apply
from portfsm._replay import replay
from portfsm._table import TRANSITIONS
from portfsm.clocks import SystemClock
from portfsm.commands import (
    Adopt,
    Allocate,
    AllocateGroup,
    Block,
    Clear,
    Close,
    Command,
    DefinePool,
    Free,
    Hold,
    Join,
    Leave,
    Open,
    Release,
    ReleaseOwner,
    Renew,
    Sweep,
    Unblock,
    Withdraw,
)
from portfsm.errors import (
    BindFailed,
    CommandRejected,
    Fenced,
    GroupUnavailable,
    HistoryLost,
    IllegalTransition,
    InternalError,
    InvalidValue,
    JournalCorrupt,
    JournalError,
    JournalFull,
    JournalLocked,
    JournalTooNew,
    JournalUnreadable,
    ManagerClosed,
    MissingExtra,
    OutcomeUnknown,
    OwnerConflict,
    PoolExhausted,
    PortfsmError,
    PortOutOfRange,
    PortUnavailable,
    QuotaExceeded,
    ReloadFailed,
    StaleGeneration,
    StaleLease,
    UnknownPool,
)
from portfsm.events import Event
from portfsm.evidence import Evidence, Verdict, Witness
from portfsm.groups import Request
from portfsm.journals import FileJournal, MemoryJournal, read_journal
from portfsm.manager import PortManager, open_manager
from portfsm.observation import Conflict, Move, Observation, ReconcileReport, Sighting
from portfsm.protocols import CachingJournal, Clock, Journal, LeadingJournal
from portfsm.shards import moved_nodes, shard_of
from portfsm.sockets import BoundLease, Holder
from portfsm.specs import PoolSpec, Quota
from portfsm.states import EventKind, PortState
from portfsm.values import Head, Lease, PoolStatistics, PortView

__all__ = [
    "TRANSITIONS",
    "Adopt",
    "Allocate",
    "AllocateGroup",
    "BindFailed",
    "Block",
    "BoundLease",
    "CachingJournal",
    "Clear",
    "Clock",
    "Close",
    "Command",
    "CommandRejected",
    "Conflict",
    "DefinePool",
    "Event",
    "EventKind",
    "Evidence",
    "Fenced",
    "FileJournal",
    "Follower",
    "Forecast",
    "Free",
    "GroupUnavailable",
    "Head",
    "HistoryLost",
    "Hold",
    "Holder",
    "IllegalTransition",
    "InternalError",
    "InvalidValue",
    "Join",
    "Journal",
    "JournalCorrupt",
    "JournalError",
    "JournalFull",
    "JournalLocked",
    "JournalTooNew",
    "JournalUnreadable",
    "LeadingJournal",
    "Lease",
    "Leave",
    "Ledger",
    "ManagerClosed",
    "MemoryJournal",
    "MissingExtra",
    "Move",
    "Observation",
    "Open",
    "OutcomeUnknown",
    "OwnerConflict",
    "PoolExhausted",
    "PoolSpec",
    "PoolStatistics",
    "PortManager",
    "PortOutOfRange",
    "PortState",
    "PortUnavailable",
    "PortView",
    "PortfsmError",
    "Quota",
    "QuotaExceeded",
    "Rate",
    "ReconcileReport",
    "Release",
    "ReleaseOwner",
    "ReloadFailed",
    "Renew",
    "Request",
    "Sighting",
    "StaleGeneration",
    "StaleLease",
    "Sweep",
    "SystemClock",
    "Unblock",
    "UnknownPool",
    "Verdict",
    "Withdraw",
    "Witness",
    "apply",
    "decide",
    "follow",
    "hold_ports",
    "moved_nodes",
    "open_manager",
    "read_journal",
    "replay",
    "shard_of",
]
