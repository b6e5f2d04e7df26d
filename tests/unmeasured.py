"""What processes are started with that coverage must not measure.

It writes a file when a process ends. Where that may not write, or its writes are made to fail, its complaint would be what a test sees.
"""

from __future__ import annotations

import os

UNMEASURED = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
