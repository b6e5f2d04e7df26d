"""`portfsm report`: what it writes, what it refuses, and what it leaves as it was."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from portfsm.cli._main import run
from portfsm.testing import ManualClock
from tests.cli import story
from tests.cli.test_exit_codes import newer_event, newer_feature, newer_format
from tests.report.unpack import data_of


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    story.write(tmp_path / "LOG")
    return tmp_path


@pytest.fixture
def call(here, capsys):
    """Exit code, stdout and stderr of one `portfsm report`."""

    def call(*arguments: str) -> tuple[int, str, str]:
        clock = ManualClock(start_ns=story.START_NS)
        clock.advance(story.LENGTH_S)
        return run(["report", *arguments], clock=clock), *capsys.readouterr()

    return call


def test_a_log_makes_no_page(call, here):
    code, out, err = call("LOG", "-o", "r.html")
    assert (code, err) == (0, "")
    assert out.startswith("r.html: ")
    data = data_of((here / "r.html").read_bytes())
    assert data["facts"]["title"] == "LOG"
    assert data["facts"]["head"] == run_head(here)
    assert {place["node"] for place in data["places"]} >= {"node-a", "node-b"}
    assert os.stat(here / "r.html").st_mode & 0o777 == 0o600  # it tells what the log tells


def run_head(here) -> str:
    return subprocess.run(
        [sys.executable, "-m", "portfsm", "head", "LOG"],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(story.ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_the_same_log_makes_another_page(call, here):
    for name in ("one.html", "two.html"):
        call("LOG", "-o", name)
    assert (here / "one.html").read_bytes() == (here / "two.html").read_bytes()


def test_programs_get_words(call):
    code, out, err = call("LOG", "-o", "r.html", "--json")
    told = json.loads(out)
    assert (code, err, told["file"], told["first_seq"], told["passed"]) == (0, "", "r.html", 1, True)
    assert told["events"] == told["last_seq"]


def test_a_page_to_stdout_is_mixed_with_words(here):
    done = subprocess.run(
        [sys.executable, "-m", "portfsm", "report", "LOG", "-o", "-"],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(story.ROOT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.startswith(b"<!doctype html>")
    assert done.stdout.rstrip().endswith(b"</html>")
    assert b"the page: " in done.stderr


def test_a_window_or_a_filter_is_not_kept_to(call, here):
    assert call("LOG", "-o", "r.html", "--since", "@10", "--until", "@12", "--pool", "http", "--node", "node-b")[0] == 0
    data = data_of((here / "r.html").read_bytes())
    assert (data["window"]["first_seq"], data["window"]["last_seq"]) == (10, 12)
    assert [(place["node"], place["pool"]) for place in data["places"]] == [("node-b", "http")]
    assert data["facts"]["asked"] == ["pool http", "node node-b"]


def test_a_window_in_which_nothing_happened_is_empty(call, here):
    """It still shows how the ports stood."""
    code, out, _ = call("LOG", "-o", "r.html", "--since", "2030-01-01T00:00:00Z")
    assert code == 0
    assert "no event lies in this window" in out
    data = data_of((here / "r.html").read_bytes())
    assert data["window"]["events"] == 0
    assert data["lives"]["port"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("LOG",), "Missing option '-o'"),
        (("LOG", "-o", "LOG"), "is a directory: name a file in it, such as LOG/report.html"),
        (("LOG", "-o", "no/where/r.html"), "there is no directory no/where: make it first"),
        (("LOG", "-o", "r.html", "--pool", "htpp"), "knows no pool 'htpp' up to there; it knows 'grpc', 'http'"),
        (("LOG", "-o", "r.html", "--node", "node-z"), "knows no node 'node-z'"),
        (("LOG", "-o", "r.html", "--since", "yesterday"), "is not a time"),
        (("nowhere", "-o", "r.html"), "nowhere"),
        (("FILE", "-o", "r.html"), "FILE"),
    ],
)
def test_a_misuse_makes_a_page_or_a_traceback(call, here, arguments, said):
    (here / "FILE").write_text("not a log")
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert not (here / "r.html").exists()


@pytest.mark.parametrize("make", [newer_format, newer_feature, newer_event])
def test_a_log_of_a_newer_version_is_half_read(call, here, make):
    shutil.rmtree(here / "LOG")
    make(here / "LOG")
    code, out, err = call("LOG", "-o", "r.html")
    assert (code, out) == (2, "")
    assert "upgrade portfsm" in err
    assert not (here / "r.html").exists()


def test_a_damaged_log_makes_no_page_or_one_that_hides_it(call, here):
    story.damage(here / "LOG")
    code, out, err = call("LOG", "-o", "r.html")
    assert code == 1
    assert out.startswith("r.html: ")
    assert "Nothing was changed" in err
    data = data_of((here / "r.html").read_bytes())
    assert data["damage"]
    assert data["facts"]["passed"] is False
    assert data["facts"]["head"] == ""
    assert data["window"]["last_seq"] > 0


def test_an_empty_log_is_an_error(call, here):
    shutil.rmtree(here / "LOG")
    (here / "LOG").mkdir()
    (here / "LOG" / "LOCK").touch()
    code, out, err = call("LOG", "-o", "r.html")
    assert (code, err) == (0, "")
    assert "no events yet" in out
    assert data_of((here / "r.html").read_bytes())["places"] == []


def test_a_torn_tail_is_taken_for_damage(call, here):
    """As a writer at work leaves it, or kill -9."""
    last = max((here / "LOG").glob("0*.jsonl"))
    lines = [line for line in last.read_bytes().splitlines(keepends=True) if b'"seal"' not in line]
    last.write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
    code, _, err = call("LOG", "-o", "r.html")
    assert (code, err) == (0, "")
    checks = {name: mark for mark, name, _ in data_of((here / "r.html").read_bytes())["facts"]["checks"]}
    assert checks["tail"] == "note"


def test_a_failed_write_leaves_half_a_page_or_takes_the_old_one(call, here):
    call("LOG", "-o", "r.html")
    before = (here / "r.html").read_bytes()
    os.chmod(here / "r.html", 0o640)
    assert call("LOG", "-o", "r.html", "--pool", "http")[0] == 0
    assert os.stat(here / "r.html").st_mode & 0o777 == 0o640  # whoever opened it to others meant it
    assert (here / "r.html").read_bytes() != before
    assert [path.name for path in here.iterdir() if path.name.startswith(".report-")] == []


def test_a_place_that_takes_no_file_is_named_as_something_else(call):
    code, out, err = call("LOG", "-o", "/proc/report.html")
    assert (code, out) == (2, "")
    assert err.startswith("portfsm: /proc/report.html: cannot be written: ")


def test_a_link_is_replaced_instead_of_followed(call, here):
    (here / "pages").mkdir()
    (here / "r.html").symlink_to("pages/today.html")
    assert call("LOG", "-o", "r.html")[0] == 0
    assert (here / "r.html").is_symlink()
    assert (here / "pages" / "today.html").stat().st_size > 50_000
