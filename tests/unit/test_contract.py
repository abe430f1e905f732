"""The published contract says what the code does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator, ValidationError

from agent import contract, wire
from tests.unit.test_station import event

FILE = Path(contract.__file__).with_name("asyncapi.json")


def test_the_committed_contract_is_fresh() -> None:
    assert FILE.read_text(encoding="utf-8") == contract.text(), "run: wardpost contract > agent/asyncapi.json"


def test_every_reference_leads_somewhere() -> None:
    document = json.loads(contract.text())

    def walk(value: object) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                target: object = document
                for part in value["$ref"].removeprefix("#/").split("/"):
                    assert isinstance(target, dict)
                    target = target[part]
            for part in value.values():
                walk(part)
        elif isinstance(value, list):
            for part in value:
                walk(part)

    walk(document)


def test_every_channel_has_a_topic_that_the_code_parses() -> None:
    parameters = {"site": "ward-7", "node": "gate-2", "kind": "person", "verb": "siren", "id": "1" * 36}
    for channel in contract.document()["channels"].values():
        assert wire.parse_topic(channel["address"].format(**parameters)).node == "gate-2"


def test_the_schema_takes_what_the_code_sends_and_refuses_what_the_code_refuses() -> None:
    validator = Draft202012Validator(contract.schema_of("event"))
    good = json.loads(wire.encode(event(1)))
    validator.validate(good)
    for broken in (
        {**good, "id": "1"},
        {**good, "sequence": 0},
        {key: value for key, value in good.items() if key != "epoch"},
        {**good, "data": {**good["data"], "phase": "paused"}},
        {**good, "data": {**good["data"], "box": [0, 0, 2, 1]}},
    ):
        with pytest.raises(ValidationError):
            validator.validate(broken)
        with pytest.raises(Exception, match="CloudEvent"):
            wire.decode(json.dumps(broken).encode(), wire.CloudEvent)
