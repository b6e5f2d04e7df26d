"""Logs for the tests of this directory: written, read and looked at as files."""

import json
from pathlib import Path

from portfsm.journals import FileJournal
from portfsm.testing.contract import sample_events


def write(path, *batches, after=0, close=True, **options):
    journal = FileJournal(path, **options)
    journal.open("writer")
    events = iter(sample_events(sum(batches), after=after))
    for size in batches:
        journal.append([next(events) for _ in range(size)])
    if close:
        journal.close()
    return journal


def events_in(path, **options):
    journal = FileJournal(path, **options)
    journal.open("reader")
    found = list(journal.read())
    journal.close()
    return found


def segment_files(path):
    return sorted(file for file in Path(path).glob("0*.jsonl") if ".snap." not in file.name)


def segments(path):
    return [file.name for file in segment_files(path)]


def tree(path):
    """Every file but LOCK, with its bytes."""
    return {str(file.relative_to(path)): file.read_bytes() for file in Path(path).rglob("*") if file.is_file() and file.name != "LOCK"}


def lines(path, name):
    return [json.loads(line) for line in (Path(path) / name).read_bytes().split(b"\n")[:-1]]
