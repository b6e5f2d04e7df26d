"""Whatever goes wrong in the demo itself ends in a sentence, never in silence or a traceback."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from rich.console import Console

from portfsm import InvalidValue
from portfsm.demo import run, supervisor
from portfsm.demo.plan import DemoError, Plan
from portfsm.demo.processes import ProcessEndedError
from portfsm.demo.show import Moment, PlainShow
from portfsm.demo.side import Gauges, Side
from portfsm.demo.supervisor import Supervisor, conclude, next_commands

if TYPE_CHECKING:
    from collections.abc import Callable


def a_side(place: Path) -> Side:
    plan = Plan("hold", str(place), "20000-20035", 2.4, 0.8, leash=0, node=0, proxy=0)
    return Side(plan, None, 0, None, 20002, Gauges("hold", 2.4))  # type: ignore[arg-type]


def plain() -> PlainShow:
    return PlainShow(Console(file=io.StringIO(), width=100))


@pytest.mark.anyio
async def test_a_step_that_hangs_ends_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_: Side) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(supervisor, "PATIENCE_S", 0.01)

    with pytest.raises(DemoError, match="was not done"):
        await Supervisor(tmp_path, 5.0, plain(), sides=(a_side(tmp_path),))._on_both(hang)


def test_a_log_that_does_not_read_back_is_a_failed_check(tmp_path: Path) -> None:
    side = a_side(tmp_path)
    side.plan.log.mkdir()
    (side.plan.log / "00000000000000000001.jsonl").write_bytes(b"not a log\n" * 3)

    result = conclude(side, side, began=0.0)

    assert not result.passed
    assert [check.name for check in result.checks] == ["the log reads back"]


def test_commands_can_be_pasted_whatever_the_directory_is_called() -> None:
    assert all("'/tmp/my logs/hold'" in command for command, _ in next_commands(Path("/tmp/my logs/hold"), 5, 7))


@pytest.mark.parametrize("activated", [True, False])
def test_commands_work_in_an_environment_that_is_not_activated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, activated: bool) -> None:
    (tmp_path / "portfsm").touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr("shutil.which", lambda _: "/bin/portfsm" if activated else None)

    assert supervisor.program() == ("portfsm" if activated else str(tmp_path / "portfsm"))


def behave(monkeypatch: pytest.MonkeyPatch, what: Callable[[Supervisor], None]) -> None:
    """Let `what` stand for all that happens between the start and the end of the processes."""

    async def stand_in(self: Supervisor) -> None:
        what(self)

    monkeypatch.setattr(Supervisor, "run", stand_in)


def run_plain(place: Path) -> tuple[int, str]:
    file = io.StringIO()
    return run(directory=place, seconds=5.0, json=False, console=Console(file=file, width=100)), file.getvalue()


def test_a_process_that_ended_is_reported_from_whatever_depth_of_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Supervisor) -> None:
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [ProcessEndedError("proxy", 1, "no such port")])])

    behave(monkeypatch, fail)
    status, text = run_plain(tmp_path)

    assert status == 1
    assert f"the demo broke: the proxy ended with status 1: no such port. All that its processes said is in {tmp_path}/*.stderr.txt" in text


def test_a_signal_is_the_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    behave(monkeypatch, lambda self: self._stop(signal.SIGINT))
    status, text = run_plain(tmp_path)

    assert status == 130
    assert "SIGINT: every process has ended" in text


def test_a_reader_that_left_ends_the_demo(tmp_path: Path) -> None:
    show = plain()
    show.closed = True
    demo = Supervisor(tmp_path, 5.0, show)
    demo._draw(1.0)

    assert demo.ended_by is signal.SIGPIPE


@pytest.mark.parametrize("seconds", [float("nan"), -1.0, 2.9, 3601.0, float("inf")])
def test_a_useless_duration_is_refused_before_anything_is_made(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(InvalidValue, match="seconds must be from 3 to 3600"):
        run(directory=tmp_path / "new", seconds=seconds, json=False, console=Console(file=io.StringIO()))

    assert list(tmp_path.iterdir()) == []


def test_moments_tell_of_both_sides(tmp_path: Path) -> None:
    moments: list[Moment] = []

    class Recorder(PlainShow):
        def moment(self, moment: Moment) -> None:
            moments.append(moment)

    side: Any = a_side(tmp_path)
    Supervisor(tmp_path, 5.0, Recorder(Console(file=io.StringIO())), sides=(side, side))._draw(2.0)

    assert [gauges.name for gauges in moments[0].sides] == ["hold", "hold"]
