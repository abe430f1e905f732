"""The wire contract as an AsyncAPI 3 document with JSON Schemas, generated from `agent.wire`: `wardpost contract`.

agent/asyncapi.json is the committed copy; tests/unit/test_contract.py fails when it is stale, and
tests/e2e/test_contract_traffic.py holds real traffic against it.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from typing import Any

import msgspec

from agent import wire


@dataclass(frozen=True, slots=True)
class Channel:
    """One kind of topic."""

    name: str
    topic: str
    message: type[wire.Message]
    node_sends: bool
    qos: int
    retain: bool
    what: str
    batch: bool = False  # an array of them

    @property
    def payload(self) -> str:
        """What one MQTT message of it is called."""
        return f"{self.message.__name__}Batch" if self.batch else self.message.__name__


CHANNELS = (
    Channel("status", "status", wire.Status, True, 1, True, "Birth and last will of a node."),
    Channel("heartbeat", "heartbeat", wire.Heartbeat, True, 0, False, "A sign of life, every 30 s."),
    Channel("event", "event/{kind}", wire.CloudEvent, True, 1, False, "Something happened."),
    Channel("record", "record", wire.Record, True, 1, False, "A line of the node's ledger: signed, chained."),
    Channel("events", "events", wire.CloudEvent, True, 1, False, "What happened during an outage.", batch=True),
    Channel("records", "records", wire.Record, True, 1, False, "Lines of the node's ledger that waited.", batch=True),
    Channel("ack", "ack", wire.Receipt, False, 1, False, "The station has committed events."),
    Channel("cmd", "cmd/{verb}", wire.Command, False, 1, False, "The station asks for something."),
    Channel("reply", "reply/{id}", wire.Reply, True, 1, False, "What became of a command."),
    Channel("desired", "config/desired", wire.Desired, False, 1, True, "The settings that a node is to have."),
    Channel("reported", "config/reported", wire.SettingsState, True, 1, True, "The settings that it has, and why."),
    Channel("enrol", "enrol", wire.Enrol, True, 1, False, "A new card asks for its certificate, as its claim."),
    Channel("enrolled", "enrolled", wire.Enrolled, False, 1, False, "The certificate, or why there is none."),
    Channel("renew", "renew", wire.Renew, True, 1, False, "A node asks for its next certificate."),
    Channel("renewed", "renewed", wire.Renewed, False, 1, False, "The next certificate, or why there is none."),
)
_PARAMETERS = {
    "site": "the site, [a-z0-9-]{1,32}",
    "node": "the node, [a-z0-9-]{1,32}; of enrol and enrolled the claim, claim-[a-z0-9]{8,24}",
    "kind": "what the event is about: the last part of its CloudEvents type, or `thumbnail`",
    "verb": "what is asked for",
    "id": "the command's id",
}


def document() -> dict[str, Any]:
    """The whole contract. The action of each operation is the node's."""
    kinds = [channel.message for channel in CHANNELS]
    _, found = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    schemas = _dedented(found) | {c.payload: _array(c) for c in CHANNELS if c.batch}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Wardpost, node and station",
            "version": wire.ROOT.rpartition("v")[2] + ".0.0",
            "description": (wire.__doc__ or "").strip(),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {channel.name: _channel(channel) for channel in CHANNELS},
        "operations": {channel.name: _operation(channel) for channel in CHANNELS},
        "components": {
            "messages": {
                channel.payload: {
                    "name": channel.payload,
                    "contentType": _content_type(channel),
                    "payload": {"$ref": f"#/components/schemas/{channel.payload}"},
                }
                for channel in CHANNELS
            },
            "schemas": schemas,
        },
    }


def text() -> str:
    """The document as it is committed."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def schema_of(channel: str) -> dict[str, Any]:
    """A self-contained JSON Schema (2020-12) of one channel's messages."""
    whole = document()
    name = next(c.payload for c in CHANNELS if c.name == channel)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": f"#/components/schemas/{name}",
        "components": {"schemas": whole["components"]["schemas"]},
    }


def _array(channel: Channel) -> dict[str, Any]:
    items = {"$ref": f"#/components/schemas/{channel.message.__name__}"}
    return {"title": channel.payload, "type": "array", "items": items, "minItems": 1, "maxItems": wire.BATCH_EVENTS_MAX}


def _content_type(channel: Channel) -> str:
    """As the CloudEvents JSON format names them."""
    if channel.message is not wire.CloudEvent:
        return "application/json"
    return "application/cloudevents-batch+json" if channel.batch else "application/cloudevents+json"


def _dedented(value: Any) -> Any:
    """The same with descriptions as Python 3.13 reads docstrings: 3.11 keeps their indentation."""
    if isinstance(value, dict):
        return {
            key: inspect.cleandoc(part) if key == "description" and isinstance(part, str) else _dedented(part)
            for key, part in value.items()
        }
    return [_dedented(part) for part in value] if isinstance(value, list) else value


def _channel(channel: Channel) -> dict[str, Any]:
    address = f"{wire.ROOT}/{{site}}/{{node}}/{channel.topic}"
    return {
        "address": address,
        "description": channel.what,
        "parameters": {name: {"description": what} for name, what in _PARAMETERS.items() if f"{{{name}}}" in address},
        "messages": {channel.payload: {"$ref": f"#/components/messages/{channel.payload}"}},
    }


def _operation(channel: Channel) -> dict[str, Any]:
    return {
        "action": "send" if channel.node_sends else "receive",
        "channel": {"$ref": f"#/channels/{channel.name}"},
        "bindings": {"mqtt": {"qos": channel.qos, "retain": channel.retain}},
    }
