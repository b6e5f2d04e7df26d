"""What asks proxies whether they have let go of a port. Each module implements `portfsm.evidence.Witness` for one kind of proxy."""

from portfsm.witnesses._haproxy_preflight import Finding, Preflight
from portfsm.witnesses.haproxy import HAProxyWitness

__all__ = ["Finding", "HAProxyWitness", "Preflight"]
