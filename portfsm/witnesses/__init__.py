"""What can tell whether a proxy may still route to a port, one kind of proxy a module. The words are in `portfsm.evidence`."""

from portfsm.witnesses._haproxy_preflight import Finding, Preflight
from portfsm.witnesses.envoy import EnvoyWitness
from portfsm.witnesses.haproxy import HAProxyWitness
from portfsm.witnesses.nginx import NginxWitness
from portfsm.witnesses.process import ProcessWitness
from portfsm.witnesses.remote import RemoteWitness

__all__ = ["EnvoyWitness", "Finding", "HAProxyWitness", "NginxWitness", "Preflight", "ProcessWitness", "RemoteWitness"]
