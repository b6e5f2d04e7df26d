"""A listening socket handed to a replica: the port is bound before the process exists, so no start can fail for the port."""

import subprocess
import sys

import anyio

from portfsm import PoolSpec, open_manager

REPLICA = """
import socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
while True:
    connection, _ = listener.accept()
    connection.sendall(b"served by the child")
    connection.close()
"""


async def main() -> None:
    """Listen, start the replica on the socket, let go of our copy, ask it, stop it, release."""
    async with open_manager("memory:", pools=[PoolSpec("http", ports="28000-28999", hold_s=10)]) as manager:
        bound = await manager.listen("http", owner="replica-1", service="checkout")
        with bound:  # a copy that stayed open here would listen on after the replica has died
            program = [sys.executable, "-c", REPLICA, str(bound.fds[0])]
            replica = await anyio.open_process(program, pass_fds=bound.fds, stdout=subprocess.DEVNULL)
        try:
            async with await anyio.connect_tcp("127.0.0.1", bound.port) as client:
                print((await client.receive()).decode())
        finally:
            replica.kill()
            await replica.aclose()
        await manager.release(bound.lease)
        print(manager.port("http", bound.port).state)


if __name__ == "__main__":
    anyio.run(main)
