"""Alerts in the Common Alerting Protocol 1.2 (OASIS), and the Atom feed (RFC 4287) that lists them. Pure.

A document says what is so now. An alert of which somebody has said that it was false becomes a message of type Cancel
that refers to the first one. Its scope is Restricted: what a camera saw on somebody's street is not for everybody.
"""

from __future__ import annotations

import datetime as dt
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence

from agent.clock import rfc3339
from agent.station.alerts import Alert
from agent.station.moments import told_ns
from agent.station.outward.notice import PLACE_CHARS_MAX, SUMMARY_CHARS_MAX, clean
from agent.types import NS

CAP = "urn:oasis:names:tc:emergency:cap:1.2"
ATOM = "http://www.w3.org/2005/Atom"
CAP_TYPE = "application/cap+xml"
ATOM_TYPE = "application/atom+xml"
HEADLINE_CHARS_MAX = 160
"""The standard's own advice."""
_EVENT = {"bell": "Help call", "alert": "Security alert"}


class Cap:
    """Writes for one site and sender."""

    def __init__(self, *, site: str, sender: str, language: str, origin: str, hours: float) -> None:
        self._site = site
        self._sender = sender
        self._language = language
        self._origin = origin
        self._hours = hours

    def document(self, alert: Alert) -> bytes:
        """One alert as it stands."""
        cancelled = alert.verdict == "false"
        root = ET.Element("alert", xmlns=CAP)
        first = self._identifier(alert)
        sent = _time(alert.raised_utc_ns)
        _put(root, "identifier", f"{first}.cancel" if cancelled else first)
        _put(root, "sender", self._sender)
        _put(root, "sent", sent)
        _put(root, "status", "Actual")
        _put(root, "msgType", "Cancel" if cancelled else "Alert")
        _put(root, "scope", "Restricted")
        _put(root, "restriction", "For the holder of this feed's token")
        if cancelled:
            _put(root, "references", f"{self._sender},{first},{sent}")
        _put(root, "incidents", alert.incident)
        self._info(ET.SubElement(root, "info"), alert, cancelled=cancelled)
        return _bytes(root)

    def _info(self, info: ET.Element, alert: Alert, *, cancelled: bool) -> None:
        told, place, over = alert.told, _place(alert), alert.ended or cancelled
        _put(info, "language", self._language)
        _put(info, "category", "Security")
        _put(info, "event", _EVENT[alert.severity])
        _put(info, "urgency", "Past" if over or (told is not None and told.historical) else "Immediate")
        _put(info, "severity", "Severe" if alert.severity == "bell" else "Moderate")
        certain = "Observed" if alert.severity == "bell" or alert.verdict == "true" else "Likely"
        _put(info, "certainty", "Unlikely" if cancelled else certain)
        _put(info, "effective", _time(alert.raised_utc_ns))
        onset = None if told is None else told_ns(told.time)
        if onset is not None:
            _put(info, "onset", _time(onset))
        _put(info, "expires", _time(alert.raised_utc_ns + int(self._hours * 3600 * NS)))
        _put(info, "senderName", f"Wardpost {self._site}")
        _put(info, "headline", _headline(alert))
        said = "" if told is None else clean(told.data.summary, SUMMARY_CHARS_MAX)
        _put(info, "description", said or _headline(alert))
        for name, value in self._parameters(alert):
            parameter = ET.SubElement(info, "parameter")
            _put(parameter, "valueName", name)
            _put(parameter, "value", value)
        area = ET.SubElement(info, "area")
        _put(area, "areaDesc", place or f"post {alert.node}")
        geocode = ET.SubElement(area, "geocode")
        _put(geocode, "valueName", "wardpost-node")
        _put(geocode, "value", f"{self._site}/{alert.node}")

    @staticmethod
    def _parameters(alert: Alert) -> Iterator[tuple[str, str]]:
        if alert.told is not None and alert.told.timeerrms is not None:
            yield "wardpost-time-error-ms", str(alert.told.timeerrms)
        yield "wardpost-acknowledged", "yes" if alert.acknowledged_utc_ns is not None else "no"

    def feed(self, alerts: Sequence[Alert], *, now_utc_ns: int) -> bytes:
        """The list of them, as they are given."""
        root = ET.Element("feed", xmlns=ATOM)
        own = f"{self._origin}/feeds/cap.atom"
        _put(root, "id", own)
        _put(root, "title", f"Wardpost {self._site}: help calls and alerts")
        _put(root, "updated", rfc3339(max((_changed(one) for one in alerts), default=now_utc_ns)))
        _put(ET.SubElement(root, "author"), "name", f"Wardpost {self._site}")
        ET.SubElement(root, "link", rel="self", type=ATOM_TYPE, href=own)
        for one in alerts:
            entry = ET.SubElement(root, "entry")
            _put(entry, "id", f"urn:uuid:{one.incident}")
            _put(entry, "title", _headline(one))
            _put(entry, "published", rfc3339(one.raised_utc_ns))
            _put(entry, "updated", rfc3339(_changed(one)))
            href = f"{self._origin}/feeds/cap/{one.incident}"
            ET.SubElement(entry, "link", rel="alternate", type=CAP_TYPE, href=href)
            _put(entry, "summary", _headline(one))
        return _bytes(root)

    def _identifier(self, alert: Alert) -> str:
        """Without spaces, commas and the like, which the standard forbids here."""
        return f"wardpost.{self._site}.{alert.incident}"


def _headline(alert: Alert) -> str:
    place = _place(alert)
    where = f"{place} ({alert.node})" if place else f"post {alert.node}"
    return f"{_EVENT[alert.severity]}: {where}"[:HEADLINE_CHARS_MAX].rstrip()


def _place(alert: Alert) -> str:
    return "" if alert.told is None else clean(alert.told.data.place, PLACE_CHARS_MAX)


def _changed(alert: Alert) -> int:
    """As far as it is known to the second: when it was acknowledged, else when it was raised."""
    return max(alert.raised_utc_ns, alert.acknowledged_utc_ns or 0)


def _time(utc_ns: int) -> str:
    """As the standard wants it: whole seconds, an offset, and for UTC -00:00 instead of Z."""
    whole = dt.datetime.fromisoformat(rfc3339(utc_ns)).replace(tzinfo=None, microsecond=0)
    return f"{whole.isoformat()}-00:00"


def _put(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, name).text = text


def _bytes(root: ET.Element) -> bytes:
    data: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return data
