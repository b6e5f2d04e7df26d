"""A log, or a window of it, as one page that needs nothing else: no network, no server, no library.

    from portfsm import read_journal
    from portfsm.audit import report

    found = report.collect(read_journal("ports-log"))
    html, omitted = report.page(found, title="ports-log")

`collect` is the one pass over the events. `page` draws up what the page needs as columns (`_data`), condenses it where the whole would
not fit (`_condense`), and puts it together with the page's own script and style, which lie beside this file as they are.

Rule of this package: no clock, no thread, no loop, and no file but its own.
"""

from __future__ import annotations

from portfsm.audit.report._collect import Found, collect
from portfsm.audit.report._page import Facts, Omitted, page

__all__ = ["Facts", "Found", "Omitted", "collect", "page"]
