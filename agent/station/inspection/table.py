"""A report as CSV (RFC 4180). Pure. A spreadsheet runs a cell that begins as a formula: those get an apostrophe."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from agent.station.inspection.report import Figures, PostFigures, RemovedFact, shares

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")


def safe(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.lstrip(" \u00a0\ufeff").startswith(_FORMULA) else text


def as_csv(
    found: Figures,
    posts: Sequence[PostFigures],
    removed: Sequence[RemovedFact],
    definitions: Mapping[str, str],
    period: tuple[str, str],
    incomplete: Sequence[str] = (),
) -> str:
    """Three tables, one below the other: figures, posts, what was removed. Shares as numbers from 0 to 1.

    `incomplete`: what was left out, in words; it stands above.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(["from", period[0]])
    writer.writerow(["to", period[1]])
    for said in incomplete:
        writer.writerow(["incomplete", "", "", "", safe(said)])
    writer.writerow([])
    writer.writerow(["figure", "part", "of", "share", "definition"])
    for name, share in shares(found):
        writer.writerow([name, share.part, share.of, _number(share.share), safe(definitions[name])])
    for login, count in found.caseless_by.items():
        writer.writerow(["caseless by", count, "", "", safe(login)])
    for login, count in found.caseless_live_by.items():
        writer.writerow(["caseless live by", count, "", "", safe(login)])
    writer.writerow([])
    writer.writerow(["post", "place", "up", "outages", "recorded", "lower bound", "alerts"])
    for one in posts:
        row = [safe(one.node), safe(one.place), _number(one.up), one.outages, _number(one.recorded)]
        writer.writerow([*row, "yes" if one.cut else "", one.alerts])
    writer.writerow([])
    writer.writerow(["removed", "files", "bytes", "", safe(definitions["removed"])])
    for fact in removed:
        writer.writerow([fact.why, fact.files, fact.bytes])
    return text.getvalue()


def _number(share: float | None) -> str:
    return "" if share is None else f"{share:.4f}"
