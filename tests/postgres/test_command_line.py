"""The command line on a URL: the same words, the same answers, and no password anywhere."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from portfsm.cli._main import run
from portfsm.journals.postgres import PostgresJournal
from tests.cli import story


@pytest.fixture
def call(capsys):
    def one(*arguments) -> tuple[int, str, str]:
        code = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "hunter2" not in out + err
        return code, out, err

    return one


@pytest.fixture
def lived(postgres_url, tmp_path) -> tuple[str, str]:
    """A log with a story in it, twice: in a directory and in the database."""
    folder = tmp_path / "log"
    story.write(folder)
    copy(folder, postgres_url)
    return str(folder), postgres_url


def copy(folder, url) -> None:
    from portfsm import read_journal

    journal = PostgresJournal.from_url(url)
    events = list(read_journal(folder))
    for _ in [event for event in events if event.kind == "opened"]:  # epochs go on behind those of the copy
        journal.close()
        journal.open("copy")
    for start in range(0, len(events), 3):
        journal.append(events[start : start + 3])
    journal.close()


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("log",),
        ("history", 31500),
        ("explain", 31500),
        ("log", "-n", 3),
        ("status", "--at", "@9"),
        ("who", 31500, "--at", "@9", "--within", "60"),
        ("diff", "--from", "@4", "--to", "@9"),
    ],
)
def test_a_url_is_told_something_else_than_a_directory(lived, call, command):
    folder, url = lived
    word, *rest = command
    heads = []
    answers = []
    for log in (folder, url):
        code, out, err = call(word, log, *rest, "--json")
        assert code == 0, err
        lines = [json.loads(line) for line in out.splitlines()]
        heads += [line.pop("head", None) for line in lines]
        answers.append(lines)
    assert answers[0] == answers[1]
    assert answers[0]


def test_a_report_of_a_url_is_refused_or_shows_its_password(lived, call, tmp_path):
    _, url = lived
    page = tmp_path / "page.html"
    code, out, err = call("report", url.replace("//postgres@", "//postgres:hunter2@"), "-o", page, "--json")
    assert (code, err) == (0, "")
    text = page.read_text()
    assert "hunter2" not in text
    _, head, _ = call("head", url)
    assert head.strip() in text


def test_an_export_of_a_url_is_another_than_that_of_a_directory(lived, call):
    exported = [call("export", log, "--to", "csv") for log in lived]
    assert exported[0] == exported[1]
    assert len(exported[0][1].splitlines()) > 10


def test_a_head_that_verify_does_not_know(lived, call):
    _, url = lived
    code, head, _ = call("head", url)
    assert code == 0
    assert call("verify", url, "--expect", head.strip())[0] == 0
    _, out, _ = call("status", url, "--at", "@8", "--json")
    earlier = json.loads(out)["head"]
    code, out, _ = call("verify", url, "--expect", earlier, "--json")
    assert code == 0
    checks = {check["name"]: check["mark"] for check in json.loads(out)["checks"]}
    assert checks == {"bytes": "ok", "steps": "ok", "snapshot": "-", "head": "ok"}


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("update portfsm_event set line = replace(line, 'pool', 'Pool') where log = {log} and seq = 5", "event 5: its checksum"),
        ("delete from portfsm_event where log = {log} and seq = 5", "it is missing"),
        ("delete from portfsm_event where log = {log} and seq = (select seq from portfsm_log where log = {log})", "it is missing"),
        (
            "update portfsm_event set line = (select line from portfsm_event where log = {log} and seq = 6) where log = {log} and seq = 5",
            "5",
        ),
        ("update portfsm_event set digest = '\\x00' where log = {log} and digest is not null and seq = 6", "event 6: the digest"),
        ("update portfsm_log set digest = '\\x00' where log = {log}", "own digest"),
        ("update portfsm_event set line = 'junk' where log = {log} and seq = 5", "event 5"),
        ("update portfsm_event set line = '' where log = {log} and seq = 5", "event 5"),
    ],
)
def test_damage_goes_unnoticed(lived, call, postgres, damage, found):
    _, url = lived
    name = url.partition("log=")[2]
    log = postgres.ask("select log from portfsm_log where name = %(name)s", name=name)[0][0]
    _, head, _ = call("head", url)
    postgres.ask(damage.format(log=log))
    code, out, _ = call("verify", url)
    assert code == 1
    assert found in out
    assert "backup" in out
    assert call("verify", url, "--expect", head.strip())[0] == 1


def test_history_rewritten_with_all_checksums_goes_unnoticed_by_a_head_kept_elsewhere(postgres, postgres_url, call, tmp_path):
    folder = tmp_path / "log"
    story.write(folder)
    copy(folder, postgres_url)
    _, head, _ = call("head", postgres_url)
    name = postgres_url.partition("log=")[2]
    log, header = postgres.ask("select log, header from portfsm_log where name = %(name)s", name=name)[0]
    from hashlib import sha256

    postgres.ask("delete from portfsm_event where log = %(log)s", log=log)
    postgres.ask(
        "update portfsm_log set seq = 0, digest = %(digest)s where log = %(log)s", log=log, digest=sha256(header.encode()[:-1]).digest()
    )
    from portfsm import read_journal

    journal = PostgresJournal.from_url(postgres_url)
    journal.open("forger")
    journal.append(list(read_journal(folder)))  # in one batch: the same events, other lines
    journal.close()
    assert call("verify", postgres_url)[0] == 0
    code, out, _ = call("verify", postgres_url, "--expect", head.strip())
    assert code == 1
    assert "history was changed" in out


def test_init_changes_what_is_there(postgres, call):
    url = postgres.url("twice")
    code, out, _ = call("init", url)
    assert (code, "made" in out) == (0, True)
    before = postgres.ask("select * from portfsm_log where name = 'twice'")
    code, out, _ = call("init", url, "--json")
    assert code == 0
    told = json.loads(out)
    assert (told["new"], told["version"], told["version_before"]) == (False, 2, 2)
    assert postgres.ask("select * from portfsm_log where name = 'twice'") == before


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("init", "ports-log"), "no URL"),
        (("init", "postgresql://u:hunter2@h:port/d"), "postgresql://user:password@host"),
        (("status", "postgresql://u:hun%ter2@h/d"), "percent-encoded"),
        (("status", "postgresql://u:hunter2@127.0.0.1:1/d"), "cannot be reached"),
        (("init", "postgresql://u:hunter2@127.0.0.1:1/d?log=BAD"), "?log=NAME"),
        (("init", "postgresql://u:hunter2@127.0.0.1:1/d?sslpassword=hunter2"), "cannot be reached"),
        (("repair", "postgresql://u:hunter2@127.0.0.1:1/d"), "backup"),
        (("verify", "postgresql://u:hunter2@127.0.0.1:1/d"), "cannot be reached"),
        (("head", "postgresql://u:hunter2@127.0.0.1:1/d"), "cannot be reached"),
        (("log", "postgresql://u:hunter2@127.0.0.1:1/d", "--follow"), "cannot be reached"),
        (("block", "postgresql://u:hunter2@127.0.0.1:1/d", 30000, "--reason", "x"), "cannot be reached"),
    ],
)
def test_a_bad_url_shows_its_password_or_gives_no_hint(call, arguments, hint):
    code, out, err = call(*arguments)
    assert code == 2
    assert hint in err
    assert not out


def test_a_log_name_with_a_typo_makes_a_new_log(postgres, postgres_url, call):
    code, _, err = call("status", postgres_url + "x")
    assert code == 2
    assert "no log named" in err
    assert "portfsm init" in err
    assert postgres_url.partition("log=")[2] in err


def test_a_hand_on_a_url_is_not_recorded(lived, call):
    _, url = lived
    code, _, err = call("block", url, 31001, "--reason", "x", "--node", "node-a")
    assert code == 0, err
    assert '"BLOCKED"' in call("explain", url, 31001, "--node", "node-a", "--json")[1]


def test_log_follow_misses_what_is_recorded(lived):
    _, url = lived
    program = [sys.executable, "-m", "portfsm", "log", url, "--follow", "--json"]
    process = subprocess.Popen(program, env=story.environment(), stdout=subprocess.PIPE, text=True)
    try:
        journal = PostgresJournal.from_url(url)
        journal.open("writer")
        seen = [json.loads(process.stdout.readline())["seq"]]
        from portfsm.events import Event
        from portfsm.states import EventKind

        last = journal.head().seq
        ts = 2_000_000_000_000_000_000
        journal.append([Event(last + 1, ts, EventKind.CLOSED), Event(last + 2, ts, EventKind.CLOSED)])
        while seen[-1] < last + 2:
            seen.append(json.loads(process.stdout.readline())["seq"])
        journal.close()
        assert seen == list(range(1, last + 3))
    finally:
        process.kill()
        process.communicate()
