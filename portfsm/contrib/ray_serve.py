"""Ray Serve's direct-ingress ports from a portfsm log, so that a crash of its controller forgets no hold, no block and no live port.

`install` puts a port manager of the same interface in the place of Ray's (`ray.serve._private.node_port_manager`), in the process that
calls it; what counts is the controller's. So let every worker call it as it starts, and only the controller will open the log:

    # ports.py, where the workers can import it
    from portfsm.contrib import ray_serve

    def setup():
        ray_serve.install(journal="/var/lib/serve/ports-log")

    ray.init(runtime_env={"worker_process_setup_hook": "ports.setup"})

Mirroring Ray, the ranges and the hold come from Ray's environment names (`RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT` ...,
`RAY_SERVE_PORT_QUARANTINE_S`) as Ray has read them. Written for Ray 2.60; docs/ray.md says what differs.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from portfsm.contrib._ray_ports import Ports
from portfsm.errors import PoolExhausted
from portfsm.specs import PoolSpec

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from portfsm.protocols import Journal

__all__ = ["install"]

_MODULE = "ray.serve._private.node_port_manager"
_CONSTANTS = "ray.serve._private.constants"
_CONTROLLER = "ray.serve._private.controller"
_CALLS = (
    "allocate_port", "any_pending_quarantine", "get_node_manager", "get_port", "is_port_allocated", "prune", "release_port", "update_ports",
)  # fmt: skip


def install(*, journal: str | os.PathLike[str] | Journal) -> None:
    """Have this process's Ray Serve take its replicas' ports from `journal`: a directory on the head node, or a URL.

    Nothing is opened before the controller asks for a port. Raises `ImportError` for a Ray whose port manager has other calls.
    """
    module: Any = import_module(_MODULE)
    if missing := [call for call in _CALLS if not hasattr(module.NodePortManager, call)]:
        raise ImportError(f"this Ray's port manager has no {', '.join(missing)}: portfsm.contrib.ray_serve was written for Ray 2.60")
    ports = Ports(journal, _pools(import_module(_CONSTANTS)))
    module.NodePortManager = type("NodePortManager", (_NodePorts,), {"ports": ports, "exhausted": module.NoAvailablePortError})
    if (controller := sys.modules.get(_CONTROLLER)) is not None:
        vars(controller)["NodePortManager"] = module.NodePortManager


def _pools(constants: Any) -> Iterable[PoolSpec]:
    """Ray's ranges end before their last number."""
    for name in ("http", "grpc"):
        first, end = (getattr(constants, f"RAY_SERVE_DIRECT_INGRESS_{bound}_{name.upper()}_PORT") for bound in ("MIN", "MAX"))
        yield PoolSpec(name, ports=range(first, end), hold_s=constants.RAY_SERVE_PORT_QUARANTINE_S)


class _NodePorts:
    """One node's ports, with the calls of Ray's `NodePortManager`. Protocols are `RequestProtocol`, whose values name the pools."""

    ports: Ports
    exhausted: Callable[[str, str], Exception]

    def __init__(self, node_id: str) -> None:
        self._node = node_id

    @classmethod
    def get_node_manager(cls, node_id: str) -> _NodePorts:
        """The node's ports. Nothing is kept here, so it does not matter when it is made."""
        return cls(node_id)

    @classmethod
    def any_pending_quarantine(cls) -> bool:
        """Whether the next tick is to call `prune` although nothing has happened. Holds end without: the log notices them."""
        return cls.ports.unsettled

    @classmethod
    def prune(cls, node_id_to_alive_replica_ids: Mapping[str, AbstractSet[str]]) -> None:
        """Release what those had that live no more."""
        cls.ports.prune(node_id_to_alive_replica_ids)

    @classmethod
    def update_ports(cls, ingress_replicas_info: Iterable[tuple[str | None, str, int | None, int | None]]) -> None:
        """What replicas say of themselves: node, id, HTTP port, gRPC port."""
        for node, replica, http, grpc in ingress_replicas_info:
            for pool, port in (("http", http), ("grpc", grpc)):
                if node is not None and port is not None:
                    cls.ports.recover(pool, node, replica, port)

    def allocate_port(self, replica_id: str, protocol: Any) -> int:
        """A port, the same one when asked again. Raises Ray's `NoAvailablePortError`, caused by `PoolExhausted`, which says more."""
        try:
            return self.ports.allocate(_pool(protocol), self._node, replica_id)
        except PoolExhausted as error:
            raise self.exhausted(str(protocol), self._node) from error

    def release_port(self, replica_id: str, port: int, protocol: Any, block_port: bool = False) -> None:  # noqa: FBT001, FBT002  (Ray's)
        """End the lease; with `block_port` the port is out of use for a while."""
        self.ports.release(_pool(protocol), self._node, replica_id, port, block=block_port)

    def get_port(self, replica_id: str, protocol: Any) -> int:
        """The replica's port. Raises `ValueError` when it has none."""
        if (port := self.ports.find(_pool(protocol), self._node, replica_id)) is None:
            raise ValueError(f"{protocol} port not allocated for replica {replica_id} on node {self._node}")
        return port

    def is_port_allocated(self, replica_id: str, protocol: Any) -> bool:
        """Whether `get_port` has an answer."""
        return self.ports.find(_pool(protocol), self._node, replica_id) is not None


def _pool(protocol: Any) -> str:
    name = str(getattr(protocol, "value", protocol)).lower()
    if name not in ("http", "grpc"):
        raise ValueError(f"Unsupported protocol: {protocol}")
    return name
