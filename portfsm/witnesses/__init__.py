"""What can tell whether a proxy may still route to a port, one kind of proxy a module. The words are in `portfsm.evidence`."""

from portfsm.witnesses.process import ProcessWitness

__all__ = ["ProcessWitness"]
