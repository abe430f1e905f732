"""What Home Assistant takes as a device discovery payload: the options that its documentation names for the integration
MQTT (device, origin, availability), for MQTT binary sensors and for MQTT events. Anything else is refused: it ignores a
payload with an unknown option as a whole."""

from __future__ import annotations

from typing import Any

import jsonschema

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
ENTITY: dict[str, Any] = {
    "unique_id": TEXT,
    "name": TEXT,
    "state_topic": TOPIC,
    "value_template": TEXT,
    "icon": TEXT,
    "qos": QOS,
    "encoding": TEXT,
    "enabled_by_default": {"type": "boolean"},
    "entity_category": {"enum": ["config", "diagnostic"]},
    "json_attributes_topic": TOPIC,
    "json_attributes_template": TEXT,
}
SENSOR = _object(
    ENTITY
    | {
        "platform": {"const": "binary_sensor"},
        "device_class": {"enum": SENSOR_CLASSES},
        "payload_on": TEXT,
        "payload_off": TEXT,
        "expire_after": {"type": "integer", "minimum": 1},
        "off_delay": {"type": "integer", "minimum": 1},
        "force_update": {"type": "boolean"},
    },
    "platform",
    "unique_id",
)
EVENT = _object(
    ENTITY
    | {
        "platform": {"const": "event"},
        "device_class": {"enum": ["button", "doorbell", "motion"]},
        "event_types": {"type": "array", "items": TEXT, "minItems": 1, "uniqueItems": True},
    },
    "platform",
    "unique_id",
    "event_types",
    "state_topic",
)
DEVICE = _object(
    {
        "device": _object(
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
        ),
        "origin": _object({"name": TEXT, "sw_version": TEXT, "support_url": TEXT}, "name"),
        "availability": AVAILABILITY,
        "availability_mode": {"enum": ["all", "any", "latest"]},
        "state_topic": TOPIC,
        "command_topic": TOPIC,
        "qos": QOS,
        "encoding": TEXT,
        "components": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "if": {"properties": {"platform": {"const": "event"}}},
                "then": EVENT,
                "else": SENSOR,
            },
        },
    },
    "device",
    "origin",
    "components",
)


def check_device(payload: Any) -> list[str]:
    """What is wrong with it; nothing: Home Assistant takes it."""
    found = [error.message for error in jsonschema.Draft202012Validator(DEVICE).iter_errors(payload)]
    components = payload.get("components", {}).values() if isinstance(payload, dict) else ()
    names = [one.get("unique_id") for one in components]
    if len(set(names)) != len(names):
        found.append("a unique_id stands twice")
    shared = isinstance(payload, dict) and "state_topic" in payload
    if not shared and any("state_topic" not in one for one in components):
        found.append("a component without a state_topic")
    return found
