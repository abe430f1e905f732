"""What Home Assistant is told over MQTT. Pure: what is so in, topics and payloads out.

The form is its device discovery; see its documentation: integration MQTT, "Device discovery payload", "MQTT event",
"MQTT binary sensor".

    <prefix>/device/<id>/config       retained: a device with three entities; empty: taken away
    wardpost-ha/<site>/station        retained: online, or offline by the last will: then everything is unavailable
    wardpost-ha/<site>/<node>/state   retained: {"connectivity": "ON", "alert": "OFF"}
    wardpost-ha/<site>/<node>/event   not retained: an alert or a bell as it is raised, once
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from agent.station.outward.notice import PLACE_CHARS_MAX, SUMMARY_CHARS_MAX, clean

ROOT = "wardpost-ha"
ONLINE, OFFLINE = b"online", b"offline"


@dataclass(frozen=True, slots=True)
class Post:
    """A post as the station has it. `alerting`: there is an alert that nobody has acknowledged."""

    node: str
    place: str
    state: str  # online, late, dark, offline
    version: str
    alerting: bool


class Discovery:
    """Writes for one site and prefix."""

    def __init__(self, *, site: str, prefix: str, version: str) -> None:
        """`version`: the station's own."""
        self._site = site
        self._prefix = prefix
        self._version = version
        self.station = f"{ROOT}/{site}/station"

    def config_topic(self, node: str) -> str:
        """Where a post's device is told."""
        return f"{self._prefix}/device/{self._id(node)}/config"

    def state_topic(self, node: str) -> str:
        """Where a post's state is told."""
        return f"{ROOT}/{self._site}/{node}/state"

    def event_topic(self, node: str) -> str:
        """Where a post's alerts are told."""
        return f"{ROOT}/{self._site}/{node}/event"

    def messages(self, post: Post) -> dict[str, bytes]:
        """The retained messages of a post, in the order in which they must come."""
        return {
            self.config_topic(post.node): _json(self._config(post)),
            self.state_topic(post.node): _json(
                {
                    "connectivity": "ON" if post.state in ("online", "late") else "OFF",
                    "alert": "ON" if post.alerting else "OFF",
                }
            ),
        }

    def event(self, *, severity: str, incident: str, summary: str) -> bytes:
        """A bell or an alert, as it is raised."""
        said = clean(summary, SUMMARY_CHARS_MAX)
        return _json({"event_type": severity, "incident": incident, "summary": said})

    def _config(self, post: Post) -> dict[str, Any]:
        own = self._id(post.node)
        place = clean(post.place, PLACE_CHARS_MAX)
        device: dict[str, Any] = {
            "identifiers": [own],
            "name": f"{place} ({post.node})" if place else post.node,
            "manufacturer": "Wardpost",
            "model": "Camera post",
        }
        version = clean(post.version, 64)
        if version:
            device["sw_version"] = version
        return {
            "device": device,
            "origin": {"name": "Wardpost", "sw_version": self._version},
            "availability": [{"topic": self.station}],
            "state_topic": self.state_topic(post.node),
            "qos": 1,
            "components": {
                "connectivity": _sensor(own, "connectivity", "Connection", "connectivity")
                | {"entity_category": "diagnostic"},
                "alert": _sensor(own, "alert", "Alert", "safety"),
                "raised": {
                    "platform": "event",
                    "unique_id": f"{own}_raised",
                    "name": "Alert raised",
                    "state_topic": self.event_topic(post.node),
                    "event_types": ["bell", "alert"],
                },
            },
        }

    def _id(self, node: str) -> str:
        return f"wardpost_{self._site}_{node}"


def _sensor(own: str, key: str, name: str, device_class: str) -> dict[str, Any]:
    return {
        "platform": "binary_sensor",
        "unique_id": f"{own}_{key}",
        "name": name,
        "device_class": device_class,
        "value_template": f"{{{{ value_json.{key} }}}}",
    }


def _json(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value)
