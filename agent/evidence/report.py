"""The report of an evidence package, for a person who decides: text, and one HTML page without anything from outside.

Pure: facts in, text out. Everything that comes from settings, commands or the ledger is escaped: a place's name must
not become markup in a courtroom.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.evidence.receipts import Payload as ReceiptPayload
from agent.evidence.records import Payload

EVENTS_MAX = 500
"""Events and other records shown; the ledger in the package has them all."""
_COLOURS = {
    "recorded": "#2f7d4f",
    "power-off": "#444",
    "agent-stopped": "#8a6d00",
    "camera-fault": "#b3261e",
    "storage-fault": "#b3261e",
    "privacy": "#5b3fa0",
    "deleted-by-policy": "#a05a2c",
    "before-install": "#999",
    "unknown": "#c9c9c9",
}
_TOLD = ("event", "gap", "deletion", "hold", "release", "privacy", "start", "stop", "clock-step", "config", "key")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the report tells: the manifest without its list of files, and what the package holds besides."""

    manifest: Mapping[str, Any]
    coverage: Sequence[Mapping[str, Any]]
    records: Sequence[Payload]
    receipts: Sequence[ReceiptPayload]
    keys: Mapping[str, str]  # file name -> SHA-256 of the raw public key
    parts: Sequence[Mapping[str, Any]]  # of the clip
    left_out: Sequence[str] = ()  # of what the station tells of the case


@dataclass(frozen=True, slots=True)
class _Table:
    title: str
    intro: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def as_text(facts: Facts) -> str:
    """The report as plain text."""
    lines = ["WARDPOST EVIDENCE REPORT", "=" * 24, ""]
    lines += [f"{name + ':':<14}{value}" for name, value in _summary(facts)]
    for table in _tables(facts):
        lines += ["", table.title, "-" * len(table.title)]
        if table.intro:
            lines.append(table.intro)
        lines += ["  " + " | ".join(cell for cell in row if cell) for row in table.rows]
    lines += ["", "How to check", "-" * 12, *(f"  {step}" for step in _STEPS), ""]
    return "\n".join(lines)


def as_html(facts: Facts) -> str:
    """The report as one page: no script, nothing loaded."""
    esc = html.escape
    summary = "".join(f"<dt>{esc(name)}</dt><dd{_class(value)}>{_shown(value)}</dd>" for name, value in _summary(facts))
    body = [
        "<h1>Evidence report</h1>",
        f"<p class=sub>{_shown(_title(facts.manifest))}</p>",
        f"<dl>{summary}</dl>",
        _bar(facts.manifest, facts.coverage),
    ]
    for table in _tables(facts):
        body.append(f"<h2>{esc(table.title)}</h2>")
        if table.intro:
            body.append(f"<p>{esc(table.intro)}</p>")
        if not table.rows and table.title in _NEVER_EMPTY:
            body.append("<p class=none>Nothing of this kind.</p>")
        if table.rows:
            head = "".join(f"<th{_aligned(name)}>{esc(name)}</th>" for name in table.head)
            rows = "".join(
                "<tr>" + "".join(_cell(*pair) for pair in zip(row, table.head, strict=True)) + "</tr>"
                for row in table.rows
            )
            body.append(f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>")
    steps = "".join(f"<li>{esc(step)}</li>" for step in _STEPS)
    body.append(f"<h2>How to check</h2><ol>{steps}</ol>")
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name=viewport content="width=device-width">'
        f"<title>Evidence report: {esc(_title(facts.manifest))}</title>"
        f"<style>{_STYLE}</style></head>\n<body>{''.join(body)}</body></html>\n"
    )


_HASH = re.compile("[0-9a-f]{64}")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d\.\d{3})Z")
_ERROR = re.compile(r"\+-([0-9.]+) s")
_COUNTS = frozenset({"seconds", "second of the clip", "record"})
_NEVER_EMPTY = frozenset({"What the ledger tells of this time"})


def _shown(text: str) -> str:
    """Escaped, for a page: a time is read as a date and a clock, and neither is broken in the middle."""
    text = _TIME.sub("<span>\\1</span> <span>\\2 UTC</span>", html.escape(text))
    return _ERROR.sub("<span>&plusmn;\\1 s</span>", text)


def _class(text: str) -> str:
    """A hash may be broken anywhere; other words stay whole."""
    return " class=hash" if _HASH.fullmatch(text) else ""


def _aligned(name: str) -> str:
    return " class=n" if name in _COUNTS else ""


def _cell(text: str, name: str) -> str:
    return f"<td{_class(text) or (_aligned(name) if text[:1].isdigit() else '')}>{_shown(text)}</td>"


def _title(manifest: Mapping[str, Any]) -> str:
    return f"{manifest['node']}, {manifest['range']['from']} to {manifest['range']['to']}"


def _summary(facts: Facts) -> list[tuple[str, str]]:
    manifest = facts.manifest
    made = manifest["made"]
    seconds = sum(float(s["seconds"]) for s in facts.coverage)
    recorded = sum(float(s["seconds"]) for s in facts.coverage if s["what"] == "recorded")
    return [
        ("Camera", f"{manifest['node']}{_in(manifest['camera'])}"),
        ("Place", str(manifest["place"] or "not given")),
        ("From", f"{manifest['range']['from']} {_error(facts.coverage)}"),
        ("To", f"{manifest['range']['to']} {_error(facts.coverage)}"),
        ("Recorded", f"{recorded:.1f} s of {seconds:.1f} s"),
        ("Taken out by", str(manifest["who"] or "not given")),
        ("Reason", str(manifest["reason"] or "not given")),
        ("Taken out at", f"{made['utc']}{_pm(made['unc_ms'])}"),
        ("On the ledger", _extraction(manifest)),
        ("Hash of all footage", str(manifest["content"])),
        *(("Left out", one) for one in facts.left_out),
    ]


def _extraction(manifest: Mapping[str, Any]) -> str:
    if manifest["extraction"] is None:
        return "no: the node did not answer, or keeps no ledger"
    return f"yes, record {manifest['extraction']}"


def _in(text: str) -> str:
    return f", {text}" if text else ""


def _pm(unc_ms: int | None) -> str:
    return " (nobody vouches for the clock)" if unc_ms is None else f" +-{unc_ms / 1000:.3f} s"


def _error(coverage: Sequence[Mapping[str, Any]]) -> str:
    errors = [s["error_s"] for s in coverage if s["what"] == "recorded"]
    if not errors or None in errors:
        return "by a clock for which nobody vouches"
    return f"+-{max(errors):.3f} s"


def _tables(facts: Facts) -> Iterable[_Table]:
    manifest = facts.manifest
    yield _Table(
        "Every second of the range",
        "What was recorded, what was not, and why.",
        ("from", "to", "seconds", "what", "why", "times are right within"),
        [
            (
                s["from"],
                s["to"],
                f"{s['seconds']:.1f}",
                s["what"],
                s["detail"],
                "not vouched for" if s["error_s"] is None else f"+-{s['error_s']:.3f} s",
            )
            for s in facts.coverage
        ],
    )
    yield _Table(
        "The clip",
        "None: the footage is sealed to the station, and the post itself cannot look into it. Where the station's"
        " private key is, `wardpost open` adds the clip and the originals in clear, and a proof that they are these."
        if manifest["clip"] is None
        else "Holes are closed in the clip; this is what stands where.",
        ("file", "second of the clip", "shows", "seconds"),
        [(p["file"], f"{p['at_s']:.1f}", p["utc"], f"{p['seconds']:.1f}") for p in facts.parts],
    )
    yield from _files(facts)
    yield _Table(
        "What the ledger tells of this time",
        f"The first {EVENTS_MAX} records of these kinds; ledger.jsonl holds all {len(facts.records)}.",
        ("record", "time", "kind", "what"),
        [
            (str(r.seq), f"{r.utc}{_pm(r.unc_ms)}", r.kind, _body(r.kind, r.body))
            for r in facts.records
            if r.kind in _TOLD
        ][:EVENTS_MAX],
    )
    yield _Table(
        "Receipts of the station",
        "The station's signature that it held the ledger up to a record, by its own clock. A record is older than each"
        " receipt for it or a later one, and newer than the receipt that it names."
        if facts.receipts
        else "None: only the node's own clock says when this was.",
        ("record", "station", "time"),
        [(str(r.seq), r.station, f"{r.time}{_pm(r.unc_ms)}") for r in facts.receipts[:EVENTS_MAX]],
    )
    yield _Table(
        "Keys",
        "Compare these fingerprints (SHA-256 of the public key) with those known from elsewhere.",
        ("file", "fingerprint"),
        sorted(facts.keys.items()),
    )
    damaged = [("damaged", str(text)) for text in manifest["damaged"]]
    missing = [("missing", f"{m['name']}: {m['why']}") for m in manifest["missing"]]
    if damaged or missing:
        yield _Table("Not in this package", "", ("", "what"), [*missing, *damaged])


def _files(facts: Facts) -> Iterable[_Table]:
    sealed = {str(r.body.get("name")): r for r in facts.records if r.kind == "segment"}
    rows = []
    for entry in facts.manifest["segments"]:
        record = sealed.get(entry["name"])
        rows.append(
            (
                entry["name"],
                str(entry["start"] or "?"),
                str(entry["end"] or "?"),
                _pm(entry["unc_ms"]).strip(),
                entry["ended"],
                str(record.body.get("sha256", "?")) if record else "see manifest.json",
                str(record.seq) if record else "that of the export",
            )
        )
    yield _Table(
        "Original files",
        "Whole files as they lay on the card. Their hashes were signed when they were recorded."
        + (" Sealed ones show nothing until they are opened at the station." if facts.manifest["clip"] is None else ""),
        ("file", "from", "to", "within", "ended", "SHA-256", "record"),
        rows,
    )


def _body(kind: str, body: Mapping[str, Any]) -> str:
    """One record in words."""
    if kind == "event":
        return f"{body.get('kind', '')} {body.get('phase', '')}: {body.get('summary', '')}"[:300]
    if kind == "gap":
        return f"nothing recorded: {body.get('cause', '')}: {body.get('detail', '')}"[:300]
    if kind == "deletion":
        found = body.get("segments")
        return f"{len(found) if isinstance(found, list) else 0} files deleted: {body.get('reason', '')}"[:300]
    return ", ".join(f"{name} {value}" for name, value in sorted(body.items()) if value is not None)[:300]


def _bar(manifest: Mapping[str, Any], coverage: Sequence[Mapping[str, Any]]) -> str:
    """The range as a coloured bar, with its ends and what each colour stands for."""
    total = sum(float(s["seconds"]) for s in coverage) or 1.0
    parts = "".join(
        f'<i style="flex:{max(float(s["seconds"]) / total, 0.001):.5f};background:{_COLOURS.get(s["what"], "#c9c9c9")}"'
        f' title="{html.escape(str(s["what"]))}"></i>'
        for s in coverage
    )
    legend = "".join(
        f'<span><b style="background:{_COLOURS.get(what, "#c9c9c9")}"></b>{html.escape(what)}, {seconds:.1f} s</span>'
        for what, seconds in _sums(coverage).items()
    )
    ends = f"<p class=ends><i>{_shown(manifest['range']['from'])}</i><i>{_shown(manifest['range']['to'])}</i></p>"
    return f"<div class=bar>{parts}</div>{ends}<p class=legend>{legend}</p>"


def _sums(coverage: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for stretch in coverage:
        found[str(stretch["what"])] = found.get(str(stretch["what"]), 0.0) + float(stretch["seconds"])
    return found


_STEPS = (
    "Leave the package as it is: every byte of the zip is covered, its packing included.",
    "Say: wardpost verify PACKAGE.zip - or, without Wardpost: python3 verify.py PACKAGE.zip",
    "The latter needs Python 3.9 and the program openssl; take verify.py from a place that you trust.",
    "Compare the fingerprints of the keys with those known from elsewhere, or give them with --trust KEY.pem.",
    "This report is covered by the node's signature like everything else; but only the check above shows that.",
)

_STYLE = """
:root{color-scheme:light}
*{box-sizing:border-box}
body{font:15px/1.45 system-ui,"DejaVu Sans",sans-serif;color:#1b1b1b;max-width:64rem;margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.7rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .4rem;border-bottom:1px solid #ccc;padding-bottom:.2rem}
h2+p{margin:.4rem 0 .6rem;color:#444}
.sub{color:#555;margin:.2rem 0 1.2rem}.none{color:#777}
dl{display:grid;grid-template-columns:11rem 1fr;gap:.25rem 1rem;margin:0}
dt{color:#555}dd{margin:0;overflow-wrap:anywhere}
.bar{display:flex;height:28px;border-radius:4px;overflow:hidden;margin:1.4rem 0 .2rem}.bar i{display:block}
.ends{display:flex;justify-content:space-between;margin:0;color:#555;font-size:.78rem}.ends i{font-style:normal}
.legend{margin:.4rem 0 0;color:#444;font-size:.85rem}.legend>span{margin-right:1.4rem}
.legend b{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.8rem}
span,th{white-space:nowrap}th{text-align:left;color:#555;font-weight:600;border-bottom:1px solid #999}
th,td{padding:.3rem .9rem .3rem 0;vertical-align:top;font-variant-numeric:tabular-nums}
td{border-bottom:1px solid #e6e6e6}th:last-child,td:last-child{padding-right:0}
.n:not(:first-child){text-align:right}td:first-child{white-space:nowrap}
.hash{font-family:ui-monospace,"DejaVu Sans Mono",monospace;font-size:.92em;overflow-wrap:anywhere}
td.hash{min-width:16.5rem}
ol{padding-left:1.4rem}li{margin:.2rem 0}
@page{size:A4;margin:16mm 14mm}
@media print{
body{font-size:10pt;margin:0;max-width:none;padding:0}table{font-size:7.6pt}td.hash{min-width:14rem}
h1{font-size:17pt}h2{break-after:avoid;margin-top:1.3rem}h2+p{break-after:avoid}
thead{display:table-header-group}tr,dl,.bar,li{break-inside:avoid}.wide{overflow:visible}
.bar,.legend b{-webkit-print-color-adjust:exact;print-color-adjust:exact}
}
"""
