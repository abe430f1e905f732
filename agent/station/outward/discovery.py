"""What Home Assistant is told over MQTT. Pure: what is so in, topics and payloads out.

The form is its discovery of single entities, which every release knows that has events (2023.8); that of whole devices
came at the end of 2024 only. See its documentation: integration MQTT, "Discovery messages", "MQTT event", "MQTT binary
sensor".

    <prefix>/<kind>/<id>/<key>/config retained: one of a post's three entities, with its device; empty: taken away
    wardpost-ha/<site>/station        retained: online, or offline by the last will: then everything is unavailable
    wardpost-ha/<site>/<node>/state   retained: {"connectivity": "ON", "alert": "OFF", "availability": "online"}
    wardpost-ha/<site>/<node>/event   not retained: an alert or a bell as it is raised, once

Of a post that is lost nobody can say that all is well: its alert is not off but unavailable. One that was raised and
that nobody has acknowledged stays on.
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

    def state_topic(self, node: str) -> str:
        """Where a post's state is told."""
        return f"{ROOT}/{self._site}/{node}/state"

    def event_topic(self, node: str) -> str:
        """Where a post's alerts are told."""
        return f"{ROOT}/{self._site}/{node}/event"

    def messages(self, post: Post) -> dict[str, bytes]:
        """The retained messages of a post, in the order in which they must come."""
        heard = post.state in ("online", "late")
        state = {
            "connectivity": "ON" if heard else "OFF",
            "alert": "ON" if post.alerting else "OFF",
            "availability": "online" if heard or post.alerting else "offline",
        }
        return {**self._configs(post), self.state_topic(post.node): _json(state)}

    def event(self, *, severity: str, incident: str, summary: str) -> bytes:
        """A bell or an alert, as it is raised."""
        said = clean(summary, SUMMARY_CHARS_MAX)
        return _json({"event_type": severity, "incident": incident, "summary": said})

    def _configs(self, post: Post) -> dict[str, bytes]:
        own = f"wardpost_{self._site}_{post.node}"
        state = self.state_topic(post.node)
        station = {"topic": self.station}
        lost = {"topic": state, "value_template": "{{ value_json.availability }}"}
        entities: dict[tuple[str, str], dict[str, Any]] = {
            ("binary_sensor", "connectivity"): {
                "name": "Connection",
                "device_class": "connectivity",
                "entity_category": "diagnostic",
                "state_topic": state,
                "value_template": "{{ value_json.connectivity }}",
                "availability": [station],
            },
            ("binary_sensor", "alert"): {
                "name": "Alert",
                "device_class": "safety",
                "state_topic": state,
                "value_template": "{{ value_json.alert }}",
                "availability": [station, lost],
                "availability_mode": "all",
            },
            ("event", "raised"): {
                "name": "Alert raised",
                "state_topic": self.event_topic(post.node),
                "event_types": ["bell", "alert"],
                "availability": [station, lost],
                "availability_mode": "all",
            },
        }
        shared = {
            "device": self._device(own, post),
            "origin": {"name": "Wardpost", "sw_version": self._version},
            "qos": 1,
        }
        return {
            f"{self._prefix}/{kind}/{own}/{key}/config": _json({"unique_id": f"{own}_{key}"} | entity | shared)
            for (kind, key), entity in entities.items()
        }

    @staticmethod
    def _device(own: str, post: Post) -> dict[str, Any]:
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
        return device


def _json(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value)
