"""Draw the picture for the README: `python docs/record_demo.py` runs `portfsm demo --haproxy` and writes docs/demo-haproxy.svg.

What is drawn is what a terminal shows at the end of the run, made by the same code from the lines of `--json`.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
from rich.console import Console
from rich.live import Live

from portfsm.demo.checks import Check
from portfsm.demo.haproxy.look import LOOK
from portfsm.demo.haproxy.side import Gauges
from portfsm.demo.show import LiveShow, Moment, Result

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "demo-haproxy.svg"
WIDTH = 100
COMMAND = "portfsm demo --haproxy"


def main() -> int:
    """Run it, draw it."""
    beside = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{beside}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "portfsm", *COMMAND.split()[1:], "--json", "--dir", "demo"]
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, check=False)  # noqa: S603
    if done.returncode:
        sys.stderr.write(f"{done.stdout.decode()[-2000:]}the demo ended with {done.returncode}, nothing was drawn\n")
        return done.returncode
    PICTURE.write_text(picture(done.stdout.splitlines()))
    sys.stdout.write(f"{PICTURE.relative_to(ROOT)} drawn\n")
    return 0


def picture(lines: list[bytes]) -> str:
    """The SVG of a run's last moment and result."""
    found = [msgspec.json.decode(line) for line in lines]
    moment = next(line for line in reversed(found) if line["kind"] == "progress")
    sides = [msgspec.convert(side, Gauges) for side in moment["sides"]]
    result = found[-1]
    checks = [Check(line["name"], line["passed"], line["found"]) for line in found if line["kind"] == "check"]
    console = Console(record=True, file=io.StringIO(), force_terminal=True, width=WIDTH, color_system="truecolor")
    console.print(f"[bold]$ {COMMAND}[/bold]", highlight=False)
    show = LiveShow(Live(console=console, auto_refresh=False), LOOK)
    for line in found:
        if line["kind"] == "note":
            show.note(line["text"])
    console.print(show.drawn(Moment(moment["at_s"], moment["of_s"], sides)))
    show.result(Result(checks, Path(result["log"]), result["took_s"], [(command, "") for command in result["next"]]))
    return console.export_svg(title=COMMAND, unique_id="portfsm-demo")


if __name__ == "__main__":
    sys.exit(main())
