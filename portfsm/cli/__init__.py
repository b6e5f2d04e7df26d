"""The command line, `portfsm`. Needs the extra `cli` (click and rich); says so when it is missing.

Exit codes: 0 fine, 1 findings (damage, a conflict with a port's state, a check that failed), 2 usage or unreadable,
130 interrupted.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command that `sys.argv` names and exit with its code."""
    try:
        import rich  # noqa: F401  (tables need it, and only on a terminal: say so at once, not there)

        from portfsm.cli._main import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("click", "rich"):
            raise
        print('portfsm: the command line needs click and rich: pip install "portfsm[cli]"', file=sys.stderr)
        sys.exit(2)
    sys.exit(run(sys.argv[1:]))
