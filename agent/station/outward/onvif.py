"""Alerts as ONVIF events in JSON: topic, UtcTime, PropertyOperation, Source and Data, as ONVIF's Core Specification
has them for events over MQTT, in a list. Pure.

Only what has a topic in ONVIF's tree is told; the node names it (`EventData.onvif`), and a bell is a digital input.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from agent.clock import rfc3339
from agent.station.alerts import Alert
from agent.station.outward.notice import clean

BELL = "tns1:Device/Trigger/DigitalInput"
_TOPIC = re.compile(r"tns1:[A-Za-z0-9]+(?:/[A-Za-z0-9]+){0,5}")


def events(alerts: Sequence[Alert]) -> list[dict[str, Any]]:
    """In the order given."""
    return [one for one in map(_event, alerts) if one is not None]


def _event(alert: Alert) -> dict[str, Any] | None:
    told = alert.told
    if told is None:
        return None
    topic = told.data.onvif or (BELL if alert.severity == "bell" else "")
    if not _TOPIC.fullmatch(topic):
        return None
    source = {"VideoSourceToken": alert.node}
    if topic == BELL:
        source = {"InputToken": alert.node}
        data: dict[str, Any] = {"LogicalState": not alert.ended}
    else:
        data = {"State": not alert.ended, "ObjectId": alert.incident}
        if told.data.rule:
            source["Rule"] = clean(told.data.rule, 32)
        if told.data.label is not None:
            data["ClassTypes"] = told.data.label
        if told.data.score is not None:
            data["Likelihood"] = told.data.score
    return {
        "Topic": topic,
        "UtcTime": rfc3339(alert.raised_utc_ns) if not _is_time(told.time) else told.time,
        "PropertyOperation": "Deleted" if alert.ended else "Initialized",
        "Source": source,
        "Key": {"Incident": alert.incident},
        "Data": data,
    }


def _is_time(text: str) -> bool:
    return re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z", text, re.ASCII) is not None
