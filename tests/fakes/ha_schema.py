"""What Home Assistant takes as a discovery message of a single entity: the options that its documentation names for the
integration MQTT (device, origin, availability), for MQTT binary sensors and for MQTT events. Anything else is refused here.
A real one is in tests/system/test_home_assistant.py."""

from __future__ import annotations

import re
from typing import Any

import jsonschema

CONFIG = re.compile(r"[\w-]+/(?P<kind>\w+)/([a-zA-Z0-9_-]+/)?[a-zA-Z0-9_-]+/config", re.ASCII)
TEXT = {"type": "string", "minLength": 1}
TOPIC = {"type": "string", "pattern": "^[^+#\\u0000-\\u001f]+$", "maxLength": 65535}
QOS = {"enum": [0, 1, 2]}
SENSOR_CLASSES = [
    *("battery", "battery_charging", "carbon_monoxide", "cold", "connectivity", "door", "garage_door"),
    *("gas", "heat", "light", "lock", "moisture", "motion", "moving"),
    *("occupancy", "opening", "plug", "power", "presence", "problem", "running"),
    *("safety", "smoke", "sound", "tamper", "update", "vibration", "window"),
]


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


AVAILABILITY = {
    "type": "array",
    "minItems": 1,
    "items": _object(
        {"topic": TOPIC, "payload_available": TEXT, "payload_not_available": TEXT, "value_template": TEXT}, "topic"
    ),
}
DEVICE = _object(
    {
        "identifiers": {"type": "array", "items": TEXT, "minItems": 1},
        "name": TEXT,
        "manufacturer": TEXT,
        "model": TEXT,
        "model_id": TEXT,
        "sw_version": TEXT,
        "hw_version": TEXT,
        "serial_number": TEXT,
        "suggested_area": TEXT,
        "configuration_url": TEXT,
        "via_device": TEXT,
    },
    "identifiers",
)
ORIGIN = _object({"name": TEXT, "sw_version": TEXT, "support_url": TEXT}, "name")
ENTITY: dict[str, Any] = {
    "unique_id": TEXT,
    "name": TEXT,
    "state_topic": TOPIC,
    "value_template": TEXT,
    "icon": TEXT,
    "qos": QOS,
    "device": DEVICE,
    "origin": ORIGIN,
    "availability": AVAILABILITY,
    "availability_mode": {"enum": ["all", "any", "latest"]},
    "encoding": TEXT,
    "enabled_by_default": {"type": "boolean"},
    "entity_category": {"enum": ["config", "diagnostic"]},
    "json_attributes_topic": TOPIC,
    "json_attributes_template": TEXT,
}
SENSOR = _object(
    ENTITY
    | {
        "device_class": {"enum": SENSOR_CLASSES},
        "payload_on": TEXT,
        "payload_off": TEXT,
        "expire_after": {"type": "integer", "minimum": 1},
        "off_delay": {"type": "integer", "minimum": 1},
        "force_update": {"type": "boolean"},
    },
    "unique_id",
    "device",
    "origin",
    "state_topic",
)
EVENT = _object(
    ENTITY
    | {
        "device_class": {"enum": ["button", "doorbell", "motion"]},
        "event_types": {"type": "array", "items": TEXT, "minItems": 1, "uniqueItems": True},
    },
    "unique_id",
    "device",
    "origin",
    "event_types",
    "state_topic",
)
KINDS = {"binary_sensor": SENSOR, "event": EVENT}


def check_entity(topic: str, payload: Any) -> list[str]:
    """What is wrong with it; nothing: Home Assistant takes it."""
    found = CONFIG.fullmatch(topic)
    if found is None or found["kind"] not in KINDS:
        return [f"{topic}: no topic of an entity"]
    return [error.message for error in jsonschema.Draft202012Validator(KINDS[found["kind"]]).iter_errors(payload)]
