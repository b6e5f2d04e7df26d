"""`top` on a terminal: keys, another size, a log that grows, a terminal that is left as it was."""

from __future__ import annotations

import fcntl
import re
import struct
import subprocess
import sys
import termios

import anyio
import pytest
from rich.console import Console

from portfsm import PoolSpec, open_manager, replay
from portfsm.cli._top import _keys_in
from portfsm.cli._top_view import HELP, Screen, View
from portfsm.journals import read_journal
from tests.cli import story

ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[a-zA-Z]|[()].)")


@pytest.fixture
def log(tmp_path):
    story.write(tmp_path / "ports-log")
    return tmp_path / "ports-log"


def resize(terminal, columns: int, lines: int) -> None:
    fcntl.ioctl(terminal._screen, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def drawn(ledger, view, *, columns=100, lines=24) -> list[str]:
    console = Console(width=columns, height=lines, color_system=None)
    with console.capture() as capture:
        console.print(Screen("ports-log", ledger, ledger.ts, 0.0, columns, lines).draw(view))
    return capture.get().splitlines()


# ---------------------------------------------------------------------- a real terminal


def test_a_terminal_is_left_without_its_cursor_or_its_echo(log):
    with story.Terminal([sys.executable, "-m", "portfsm", "top", "ports-log"], cwd=log.parent, columns=100) as terminal:
        before = termios.tcgetattr(terminal._screen)
        terminal.until("QUARANTINED")
        terminal.type(b"q")
        seen = terminal.rest()
        assert terminal.process.returncode == 0
        assert termios.tcgetattr(terminal._screen)[3] & termios.ECHO == before[3] & termios.ECHO
    assert "\x1b[?1049h" in seen, "the other screen"
    assert seen.rindex("\x1b[?1049l") > seen.rindex("QUARANTINED"), "and back"
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l"), "the cursor is there again"


def test_ctrl_c_leaves_the_terminal_without_its_cursor_or_its_echo(log):
    with story.Terminal(
        [sys.executable, "-m", "portfsm", "top", "ports-log"], cwd=log.parent, columns=100, env=story.environment(PYTHONWARNINGS="")
    ) as terminal:
        terminal.until("QUARANTINED")
        terminal.type(b"\x03")
        seen = terminal.rest()
        assert terminal.process.returncode == 130
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")
    assert "Traceback" not in seen


def test_keys_sizes_and_growth_go_unseen(tmp_path):
    path = str(tmp_path / "ports-log")

    async def live() -> None:
        async with open_manager(path, pools=[PoolSpec("http", ports="30000-30099", hold_s=60)]) as manager:
            await manager.allocate("http", owner="first", service="checkout")
            program = [sys.executable, "-m", "portfsm", "top", "ports-log"]
            with story.Terminal(program, cwd=tmp_path, columns=100) as terminal:
                until = lambda text: anyio.to_thread.run_sync(terminal.until, text)  # noqa: E731
                await until("99 free of 100")
                await manager.allocate("http", owner="second", service="checkout")
                await until("98 free of 100")
                terminal.type(b"s")
                await until("2 ALLOCATED ports")
                terminal.type(b"s")
                await until("0 QUARANTINED ports")
                terminal.type(b"ss")
                terminal.type(b"o")
                await until("by longest")
                terminal.type(b" ")
                await until("PAUSED")
                resize(terminal, 60, 12)
                await until("\u2026")
                terminal.type(b"q")
                await anyio.to_thread.run_sync(terminal.rest)
                assert terminal.process.returncode == 0

    anyio.run(live)


def test_damage_that_comes_to_light_leaves_a_broken_terminal(log):
    with story.Terminal([sys.executable, "-m", "portfsm", "top", "ports-log"], cwd=log.parent, columns=100) as terminal:
        terminal.until("QUARANTINED")
        last = max(log.glob("0*.jsonl"))
        data = bytearray(last.read_bytes())
        data[data.index(b'"opened"') + 1] ^= 1
        last.write_bytes(bytes(data) + b" ")
        seen = terminal.rest()
        assert terminal.process.returncode == 1
    assert "is damaged at byte" in ESCAPE.sub("", seen).replace("\n", " ")[-700:]


@pytest.mark.parametrize("place", ["nowhere", "empty"])
def test_a_place_without_a_log_is_watched(tmp_path, place):
    (tmp_path / "empty").mkdir()
    with story.Terminal([sys.executable, "-m", "portfsm", "top", place], cwd=tmp_path) as terminal:
        seen = terminal.rest()
        assert terminal.process.returncode == 2
    assert place in seen
    assert "\x1b[?1049h" not in seen


def test_a_pipe_gets_a_picture(log):
    outcome = subprocess.run(
        [sys.executable, "-m", "portfsm", "top", str(log)], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert "needs a terminal" in outcome.stderr


# ---------------------------------------------------------------------- what is drawn


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 60), (40, 10), (20, 6)])
def test_a_screen_is_overfull_or_a_line_too_wide(log, columns, lines):
    ledger = replay(read_journal(str(log)))
    found = drawn(ledger, View(), columns=columns, lines=lines)
    assert len(found) <= lines
    assert max(map(len, found)) <= columns


def test_a_key_shows_what_it_should_not(log):
    ledger, view = replay(read_journal(str(log))), View()
    shown = "\n".join(drawn(ledger, view))
    assert [state for state in ("ALLOCATED", "QUARANTINED", "BLOCKED") if state in shown] == ["ALLOCATED", "QUARANTINED", "BLOCKED"]
    assert HELP in shown
    for state in ("ALLOCATED", "QUARANTINED", "BLOCKED"):
        view.press("s")
        table = drawn(ledger, view)[5:]
        assert {word for line in table for word in line.split() if word in ("ALLOCATED", "QUARANTINED", "BLOCKED")} == {state}
    view.press("s")
    views = list(ledger.ports())
    for order, key in [("longest", lambda port: port.since), ("newest", lambda port: -port.since)]:
        view.press("o")
        numbers = [line.split() for line in drawn(ledger, view) if "ALLOCATED" in line or "QUARANTINED" in line or "BLOCKED" in line]
        expected = [(port.node, str(port.port)) for port in sorted(views, key=lambda port: (key(port), port.port))]
        assert [(words[0], words[2]) for words in numbers] == expected, order
    assert not view.press("q")
    assert not view.press("esc")


def test_scrolling_leaves_the_list(log):
    ledger, view = replay(read_journal(str(log))), View()
    total = len(list(ledger.ports()))
    for key in ("up", "page up", "home", "down", "down", "page down", "end", "end", "k", "j", "G", "g", "x"):
        view.press(key)
        drawn(ledger, view, lines=10)
        assert 0 <= view.first <= max(0, total - view.page)
    view.press("end")
    assert f"to {total}" in "\n".join(drawn(ledger, view, lines=10))


def test_a_pool_is_chosen_that_is_not_there(log):
    ledger, view = replay(read_journal(str(log))), View()
    for _ in range(7):
        view.press("p")
        assert drawn(ledger, view)
    assert drawn(replay([]), View())


@pytest.mark.parametrize(
    ("typed", "keys"),
    [("q", ["q"]), ("\x1b[A\x1b[B", ["up", "down"]), ("\x1b[5~jj", ["page up", "j", "j"]), ("\x1b", ["esc"]), ("\x1bOA", ["up"]), ("", [])],
)
def test_a_key_is_taken_for_another(typed, keys):
    assert list(_keys_in(typed)) == keys
