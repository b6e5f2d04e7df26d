"""Ports for other processes: the mutants of the port server, and of what stands in the place of Ray's port manager."""

from __future__ import annotations

from .mutant import Mutant

SERVER = "tests/contrib/test_portserver.py"
CLIENTS = "tests/contrib/test_portserver_clients.py"
DOOR = "tests/contrib/test_doorway.py"
RAY = "tests/contrib/test_ray_ports.py"
RESTORED = "tests/postgres/test_restored.py::"
SECURITY = "tests/test_security.py::test_another_user_gets_a_port_or_learns_who_has_one"

MUTANTS = [
    Mutant(
        "another user is served",
        "contrib/portserver.py",
        "if peer.uid in (os.geteuid(), _ROOT):",
        "if peer.uid >= 0:",
        (SECURITY,),
    ),
    Mutant(
        "a log that came back older is served as it is",
        "cli/_serve.py",
        'attrs.evolve(wanted, role="lead-or-wait"), "lost"',
        'attrs.evolve(wanted, role="lead-or-wait"), "kept"',
        (RESTORED + "test_who_serves_a_log_leaves_its_loss_to_the_next_one",),
    ),
    Mutant(
        "a log that came back older is opened for Ray as it is",
        "contrib/_ray_ports.py",
        "if isinstance(error, HistoryLost):",
        "if False:",
        (RESTORED + "test_replicas_that_live_lose_their_ports_to_others",),
    ),
    Mutant("a port for another user's process", "contrib/_peers.py", "if uids != {peer.uid}:", "if not uids:", (SECURITY,)),
    Mutant(
        "a socket open to others",
        "contrib/_doorway.py",
        "os.fchmod(made.fileno(), 0o600)",
        "pass",
        (f"{DOOR}::test_others_may_connect_for_a_moment",),
    ),
    Mutant(
        "any directory will do",
        "contrib/_doorway.py",
        "if info.st_mode & _OTHERS and not info.st_mode & stat.S_ISVTX:",
        "if info.st_mode & _OTHERS and False:",
        (f"{DOOR}::test_a_directory_that_others_may_write_to_is_trusted",),
    ),
    Mutant(
        "only the directory itself is looked at",
        "contrib/_doorway.py",
        "for each in place.parents:",
        "for each in place.parents[:1]:",
        (f"{DOOR}::test_a_directory_that_others_may_write_to_is_trusted",),
    ),
    Mutant(
        "a living server's socket is replaced",
        "contrib/_doorway.py",
        "if not served and _answers(place):",
        "if served and _answers(place):",
        (f"{DOOR}::test_the_place_of_a_living_server_is_taken",),
    ),
    Mutant(
        "a socket without a lock",
        "contrib/_doorway.py",
        "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        (f"{DOOR}::test_the_place_of_a_living_server_is_taken",),
    ),
    Mutant(
        "a file is replaced by a socket",
        "contrib/_doorway.py",
        "if not stat.S_ISSOCK(info.st_mode):",
        "if stat.S_ISDIR(info.st_mode):",
        (f"{DOOR}::test_what_is_no_socket_is_replaced",),
    ),
    Mutant(
        "a socket that is another's is removed",
        "contrib/_doorway.py",
        "if (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino):",
        "if found.st_dev == mine.st_dev:",
        (f"{DOOR}::test_a_socket_that_another_put_there_since_is_removed",),
    ),
    Mutant(
        "a pid means the same in every namespace",
        "contrib/_peers.py",
        "if len(names) == 1:",
        "if names:",
        (f"{SERVER}::test_a_client_in_a_container_holds_the_port_of_a_stranger",),
    ),
    Mutant(
        "process 1 may have ports",
        "contrib/_peers.py",
        "if pid == _INIT and peer.pid != _INIT:",
        "if pid < _INIT:",
        (f"{SERVER}::test_what_names_no_process_gets_a_port",),
    ),
    Mutant(
        "deaths while nobody looked are forgotten",
        "contrib/_tenants.py",
        "        if life.exited:\n            self._exits.ring()",
        "        if life.exited:\n            self._living.pop(process)",
        (f"{SERVER}::test_a_lease_from_before_is_adopted_twice_or_outlives_its_process",),
    ),
    Mutant(
        "a process of another boot lives",
        "contrib/_tenants.py",
        "if process.boot != self._boot:",
        "if not process.boot:",
        (f"{SERVER}::test_a_lease_from_before_is_adopted_twice_or_outlives_its_process",),
    ),
    Mutant(
        "a pid given away again is the same process",
        "contrib/_tenants.py",
        "Tracked(process.pid, started=process.started,",
        "Tracked(process.pid, started=None,",
        (f"{SERVER}::test_a_lease_from_before_is_adopted_twice_or_outlives_its_process",),
    ),
    Mutant(
        "nobody asks after those without a descriptor",
        "contrib/_tenants.py",
        "if any(tenant.life.fd is None for",
        "if all(tenant.life.fd is not None for",
        (f"{SERVER}::test_a_death_goes_unnoticed_where_there_are_no_descriptors_for_processes",),
    ),
    Mutant(
        "a port is not tried",
        "contrib/_port_desk.py",
        "if blocks(failure.error):",
        "if not blocks(failure.error):",
        (f"{SERVER}::test_a_port_that_somebody_sits_on_is_given",),
    ),
    Mutant(
        "an owner's own port is tried",
        "contrib/_port_desk.py",
        "new = [lease for lease in leases if lease.token not in held]\n            taken",
        "new = [lease for lease in leases if lease.token]\n            taken",
        (f"{SERVER}::test_what_its_owner_listens_on_is_taken_for_a_strangers",),
    ),
    Mutant(
        "two requests for one owner take no turns",
        "contrib/_port_desk.py",
        "await turns.enter_async_context(lock)",
        "pass",
        (f"{CLIENTS}::test_a_lease_is_taken_back_from_one_who_was_told_of_it",),
    ),
    Mutant(
        "who was not told keeps the port",
        "contrib/_port_desk.py",
        "await self._take_back([lease for lease in leases if lease.token not in held])",
        "pass",
        (f"{CLIENTS}::test_a_port_leaks_that_its_client_was_not_told_of",),
    ),
    Mutant(
        "a client that hung up is waited for",
        "contrib/_port_http.py",
        "await unless(connection.hung_up, partial(self._do, asked, exchange))",
        "await self._do(asked, exchange)",
        (f"{CLIENTS}::test_a_client_that_went_away_is_waited_for_and_given_a_port",),
    ),
    Mutant(
        "half a connection is none",
        "contrib/_connection.py",
        "while not poll.poll(0):",
        "while False:",
        (f"{CLIENTS}::test_a_client_that_says_no_more_is_taken_for_gone",),
    ),
    Mutant(
        "any number may wait",
        "contrib/_port_http.py",
        "if waits and not self._room:",
        "if waits and self._room is None:",
        (f"{CLIENTS}::test_those_who_wait_keep_out_those_who_bring_a_port_back",),
    ),
    Mutant(
        "an owner may call itself a process",
        "contrib/_port_http.py",
        "if Process.of_owner(owner) is not None:",
        "if owner is None:",
        (f"{SERVER}::test_bad_input_is_a_traceback_or_is_recorded",),
    ),
    Mutant(
        "a request takes as long as it likes",
        "contrib/portserver.py",
        "            with anyio.fail_after(self._limits.each_s):\n                first = await",
        "            with anyio.fail_after(600):\n                first = await",
        (f"{CLIENTS}::test_clients_that_hang_keep_others_out_for_ever",),
    ),
    Mutant(
        "a request is as long as it likes",
        "witnesses/_serving.py",
        "if len(body) > self._body_bytes:",
        "if len(body) < 0:",
        (f"{SERVER}::test_bad_input_is_a_traceback_or_is_recorded",),
    ),
    Mutant(
        "a server outlives its log",
        "contrib/portserver.py",
        "tasks.start_soon(self._end_with_the_manager)",
        "pass",
        (f"{CLIENTS}::test_a_server_whose_log_failed_goes_on",),
    ),
    # ---- Ray
    Mutant(
        "a replica that starts is taken for dead",
        "contrib/_ray_ports.py",
        "in sorted(missing & self._seen):",
        "in sorted(missing):",
        (f"{RAY}::test_a_replica_that_starts_loses_its_port_to_a_look_at_those_that_live",),
    ),
    Mutant(
        "a block is lost with the reply",
        "contrib/_ray_ports.py",
        "if view.owner == owner and view.token:",
        "if view.owner == owner and view.state is PortState.ALLOCATED:",
        (f"{RAY}::test_a_call_that_is_repeated_after_a_lost_reply_fails_or_forgets_the_block",),
    ),
    Mutant(
        "any replica may release any port",
        "contrib/_ray_ports.py",
        "not in (None, port):",
        "in (0,):",
        (f"{RAY}::test_the_port_of_one_is_released_for_another",),
    ),
    Mutant(
        "a log that failed is not opened again",
        "contrib/_ray_ports.py",
        "self.close()  # opening",
        "pass  # opening",
        (f"{RAY}::test_a_log_that_failed_stays_closed",),
    ),
    Mutant(
        "leases from before are not known",
        "contrib/_ray_ports.py",
        "{_key(lease): lease for lease in self._keeper.ask(_held)}",
        "{}",
        (f"{RAY}::test_a_controller_that_comes_back_forgets_holds_blocks_or_live_ports",),
    ),
    Mutant(
        "Ray's ranges have their last number",
        "contrib/ray_serve.py",
        "ports=range(first, end)",
        "ports=range(first, end + 1)",
        (f"{RAY}::test_the_controller_goes_on_with_rays_own",),
    ),
]
