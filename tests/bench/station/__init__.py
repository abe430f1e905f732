"""`make bench-station`: what the desk at headquarters costs. One file a figure, as in tests/bench.

The sizes of a run: `full` is what may be quoted, `quick` takes about five minutes, `tiny` shows that everything runs.
"""

from __future__ import annotations

EVENTS = {"full": 1_000_000, "quick": 200_000, "tiny": 20_000}
"""In the store that the pages are timed on."""
VISITS = {"full": 60, "quick": 30, "tiny": 2}
"""Of each page by each person."""
INTAKE = {"full": 50_000, "quick": 20_000, "tiny": 1000}
"""Events that the store alone takes in, each time."""
BACKLOG = {"full": 100_000, "quick": 20_000, "tiny": 400}
"""Events that wait at the broker."""
ALERTS = {"full": 60, "quick": 20, "tiny": 2}
"""One by one, from the broker to the page."""
