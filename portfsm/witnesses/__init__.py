"""What can tell whether a proxy may still route to a port, one kind of proxy a module. The words are in `portfsm.evidence`."""

from portfsm.witnesses.envoy import EnvoyWitness
from portfsm.witnesses.nginx import NginxWitness
from portfsm.witnesses.process import ProcessWitness
from portfsm.witnesses.remote import RemoteWitness

__all__ = ["EnvoyWitness", "NginxWitness", "ProcessWitness", "RemoteWitness"]
