"""One target under atheris, in a process of its own, which atheris ends itself: python -m tests.fuzz.guided TARGET SECONDS."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["portfsm"]):
    from .targets import SEEDS, TARGETS

name, seconds = sys.argv[1:]
place = Path(".fuzz") / name
place.mkdir(parents=True, exist_ok=True)
for number, seed in enumerate(SEEDS[name]):
    (place / f"seed{number}").write_bytes(seed)
limits = [f"-max_total_time={seconds}", "-max_len=20000", "-rss_limit_mb=2048", "-timeout=10", f"-artifact_prefix=.fuzz/{name}-"]
atheris.Setup([sys.argv[0], *limits, str(place)], TARGETS[name])
atheris.Fuzz()
