"""Keep heads of a log where nobody who can write the log can write; later they tell whether its history is still the same.

From cron, every ten minutes, into a Git repository on another machine:

    */10 * * * *  python keep_heads.py keep /var/lib/ports-log /var/lib/heads && git -C /var/lib/heads push -q

And whenever somebody asks, on any machine that has both:

    python keep_heads.py check /var/lib/ports-log /var/lib/heads

Where there is no Git, an object store with a lock does as well: an object under COMPLIANCE cannot be replaced by anybody until then.

    aws s3api put-object --bucket heads --key "$(date -u +%FT%TZ)" --body <(portfsm head /var/lib/ports-log) \
        --object-lock-mode COMPLIANCE --object-lock-retain-until-date 2030-01-01T00:00:00Z

Run without arguments it plays through what it is for: a log is put back to an older copy of itself, which is sound in itself.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import anyio

import portfsm

LEDGER = "heads.txt"


def portfsm_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, as a cron job runs it."""
    return subprocess.run([sys.executable, "-m", "portfsm", *arguments], capture_output=True, text=True, check=False)  # noqa: S603


def git(repository: Path, *arguments: str) -> str:
    """Git in the repository that keeps the heads."""
    name = ("-c", "user.name=heads", "-c", "user.email=heads@localhost")
    command = ["git", "-C", str(repository), *name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603


def keep(log: str, repository: Path) -> str:
    """Write down the head of the log: a line a time, committed."""
    head = portfsm_command("head", log)
    if head.returncode:
        sys.exit(head.stderr)
    if not (repository / ".git").exists():
        repository.mkdir(parents=True, exist_ok=True)
        git(repository, "init", "-q")
    with (repository / LEDGER).open("a") as ledger:
        ledger.write(head.stdout)
    git(repository, "add", LEDGER)
    git(repository, "commit", "-q", "--allow-empty", "-m", head.stdout.strip())
    return head.stdout.strip()


def check(log: str, repository: Path) -> int:
    """Hold the log against every head that was ever committed, the newest first. The exit code: 0, or 1 when one does not fit."""
    heads = git(repository, "log", "--format=%s").split()
    for head in heads:
        outcome = portfsm_command("verify", log, "--expect", head)
        if outcome.returncode:
            print(outcome.stdout + outcome.stderr)
            print(f"the log does not fit the head of seq {head.split(':')[1]}")
            return outcome.returncode
    print(f"{log}: all {len(heads)} heads fit")
    return 0


async def live(log: str, owners: list[str]) -> None:
    """Something to record."""
    async with portfsm.open_manager(log, pools=[portfsm.PoolSpec("http", ports="30000-30009")]) as manager:
        for owner in owners:
            await manager.allocate("http", owner=owner)


def play() -> None:
    """An older copy is put in place of the log. Nothing in it is wrong, and it is not what happened."""
    with tempfile.TemporaryDirectory() as folder:
        log, heads = str(Path(folder, "ports-log")), Path(folder, "heads")
        anyio.run(live, log, ["replica-1", "replica-2"])
        keep(log, heads)
        shutil.copytree(log, f"{log}.old")
        anyio.run(live, log, ["replica-3"])
        keep(log, heads)
        assert check(log, heads) == 0

        shutil.rmtree(log)
        shutil.copytree(f"{log}.old", log)
        assert portfsm_command("verify", log).returncode == 0, "by itself it is sound"
        assert check(log, heads) == 1, "and the heads tell"


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["keep", log, repository]:
            print(keep(log, Path(repository)))
        case ["check", log, repository]:
            sys.exit(check(log, Path(repository)))
        case []:
            play()
        case _:
            sys.exit(__doc__)
