"""What happens on a real Ray cluster of one node, told as one line of JSON: `python real_ray.py FOLDER FIRST_PORT [stock]`.

App a gets ports and is deleted; app c, whose health checks take long, gets others; the controller is killed, and app b is deployed before it
has found c's replicas again. With `stock` all this happens to Ray as it is.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

FOLDER, FIRST = Path(sys.argv[1]), int(sys.argv[2])
STOCK = "stock" in sys.argv[3:]
SIZE = 12
LOG = "PORTS_LOG"
os.environ |= {
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(FIRST),
    "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(FIRST + SIZE),
    "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(FIRST + SIZE),
    "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(FIRST + 2 * SIZE),
    LOG: str(FOLDER / "log"),
}

HOOK = f"""
import os

def setup():
    from portfsm.contrib import ray_serve
    ray_serve.install(journal=os.environ["{LOG}"])
"""


def main() -> None:
    (FOLDER / "ports_hook.py").write_text(HOOK)
    sys.path.insert(0, str(FOLDER))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")])
    import ray
    from ray import serve

    environment = {} if STOCK else {"worker_process_setup_hook": "ports_hook.setup"}
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, runtime_env=environment)

    @serve.deployment(ray_actor_options={"num_cpus": 0}, num_replicas=2, graceful_shutdown_timeout_s=1)
    class Quick:
        def __call__(self, _):
            return "x"

    @serve.deployment(ray_actor_options={"num_cpus": 0}, num_replicas=2, health_check_period_s=1, health_check_timeout_s=30)
    class Slow:
        async def check_health(self):
            import asyncio

            await asyncio.sleep(4)

    def controller():
        return ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")

    def ports():
        groups = ray.get(controller().get_target_groups.remote())
        return {group.app_name: sorted(target.port for target in group.targets) for group in groups if group.protocol.value == "HTTP"}

    serve.start(http_options={"location": "NoServer"})
    told = {}
    serve.run(Quick.bind(), name="a", route_prefix="/a")
    told["a"] = ports()["a"]
    serve.delete("a")
    serve.run(Slow.bind(), name="c", route_prefix="/c")
    told["c"] = ports()["c"]
    ray.kill(controller(), no_restart=False)
    serve.run(Quick.bind(), name="b", route_prefix="/b")
    told["b"] = ports()["b"]
    print(json.dumps(told), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
