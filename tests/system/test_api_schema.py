"""schemathesis goes over everything that a station answers to programs, by its own document, with real tokens.

It is run as a program of its own, as anybody would, against a station that is served.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from agent import __version__, tus
from agent.clock import SystemClock
from agent.disk import PosixDisk
from agent.station.outward import openapi
from agent.station.outward.settings import FeedSettings
from agent.station.outward.tokens import Tokens
from agent.station.web.desk import make_desk, serve
from agent.station.web.settings import WebSettings
from tests.e2e.brokers import free_port
from tests.fakes.database import fresh
from tests.fakes.desk import Ward, incident
from tests.fakes.uploads_desk import desk as uploads_desk

pytestmark = pytest.mark.system

PROGRAM = shutil.which("st", path=str(Path(sys.executable).parent))
EXAMPLES = 8
"""Of each operation, beside those of the coverage phase."""
RUN_S_MAX = 300
"""On the busiest machine; on a quiet one a run is over within eight seconds."""
SEED = random.SystemRandom().randrange(1 << 32)
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "ignored_auth",
)
PURPOSES = {
    "/feeds/cap.atom": "cap",
    "/feeds/cap/{incident}": "cap",
    "/feeds/onvif": "events",
    "/api/alerts": "events",
    "/api/posts": "events",
    "/metrics": "metrics",
    "/openapi.json": "",
}
HOOKS = f"import schemathesis\nschemathesis.serializer.alias({tus.OFFSET_TYPE!r}, 'application/octet-stream')\n"


def goes_over(document: dict[str, Any], url: str, folder: Path, tokens: Mapping[str, str]) -> str:
    """What schemathesis says of `url`; empty: it found nothing, and had right answers to look at.

    `tokens`: by the regular expression of the paths for which each is.
    """
    if PROGRAM is None:
        pytest.skip("no schemathesis here: pip install -r tests/requirements-system.txt")
    (folder / "openapi.json").write_text(json.dumps(document))
    (folder / "hooks.py").write_text(HOOKS)
    (folder / "schemathesis.toml").write_text(
        "".join(
            f"[[operations]]\ninclude-path-regex = {json.dumps(paths)}\n"
            f'headers = {{ Authorization = "Bearer {token}", Tus-Resumable = "{tus.VERSION}" }}\n'
            for paths, token in tokens.items()
        )
    )
    command = [
        PROGRAM, "run", "openapi.json", "--url", url, "--seed", str(SEED), "--max-examples", str(EXAMPLES),
        "--phases", "examples,coverage,fuzzing", "--checks", ",".join(CHECKS), "--workers", "1",
        "--request-timeout", "60", "--continue-on-failure", "--suppress-health-check", "all", "--warnings", "off",
    ]  # fmt: skip
    environment = os.environ | {"NO_COLOR": "1", "PYTHONWARNINGS": "ignore", "SCHEMATHESIS_HOOKS": "hooks"}
    environment["PYTHONPATH"] = str(folder)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=RUN_S_MAX)
    said = f"seed {SEED}\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    assert done.returncode in (0, 1) and "Test cases:" in done.stdout, said
    return "" if done.returncode == 0 else said


@pytest.fixture
def station(tmp_path: Path) -> Iterator[tuple[str, Tokens]]:
    """A station with alerts and posts, on plain HTTP behind what would be a proxy: its origin, and its tokens."""
    port = free_port()
    with fresh("sqlite", tmp_path) as database:
        ward = Ward(tmp_path, database)
        ward.settings = WebSettings(origin=f"https://127.0.0.1:{port}", listen=f"127.0.0.1:{port}", behind_proxy=True)
        desk = make_desk(
            ward.settings,
            engine=ward.engine,
            folder=tmp_path,
            site="ward-7",
            station="hq",
            clock=ward.clock,
            send_verdict=lambda *_: "",
            passwords=ward.passwords,
            feeds=FeedSettings(sender="desk@ward-7.example", per_minute_max=6000),
        )
        ward.desk = desk
        for number, severity in ((1, "bell"), (2, "alert")):
            ward.hear(number, severity=severity, place='Gate "2" <&>')
        server = serve(ward.settings, desk, close=lambda: None)
        server.start()
        yield f"http://127.0.0.1:{port}", Tokens(ward.engine, trail=desk.trail, clock=ward.clock)
        server.stop()
        ward.close()


def test_what_programs_fetch_is_what_the_document_says(station: tuple[str, Tokens], tmp_path: Path) -> None:
    url, tokens = station
    document = openapi.document(__version__)
    assert set(PURPOSES) == set(document["paths"]), "nothing is left out"
    document["paths"]["/feeds/cap/{incident}"]["get"]["parameters"][0]["example"] = incident(1)
    given = {one: tokens.add(f"a-{one}", one, by="account:test") for one in ("cap", "events", "metrics")}
    paths = {path: f"^{re.escape(path)}$" for path in PURPOSES}
    by_path = {paths[path]: given[purpose] for path, purpose in PURPOSES.items() if purpose}
    print(f"seed {SEED}")
    assert goes_over(document, url, tmp_path, by_path) == ""
    assert {PURPOSES[one] for one in PURPOSES if one} >= set(given), "with real tokens"
    lie = openapi.document(__version__)
    lie["components"]["schemas"]["Alert"]["properties"]["severity"] = {"enum": ["calm"]}
    lie["paths"] = {"/api/alerts": lie["paths"]["/api/alerts"]}
    assert "Response violates schema" in goes_over(lie, url, tmp_path, by_path), "it would have found one"


def test_what_posts_send_is_answered_within_the_contract(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    print(f"seed {SEED}")
    with uploads_desk(PosixDisk(data), SystemClock()) as served:
        url = f"http://127.0.0.1:{served.port}"
        with httpx.Client(base_url=url, timeout=RUN_S_MAX) as node:
            challenge = node.post(tus.CHALLENGE, json={"node": served.ward.node}).json()["challenge"]
            proof = served.ward.proof(tus.Challenge(challenge=challenge))
            token = node.post(tus.TOKEN, content=msgspec.json.encode(proof)).json()["token"]
        assert goes_over(_tus(), url, tmp_path, {f"^{tus.FILES}": token}) == ""


def _tus() -> dict[str, Any]:
    """agent/tus.py as OpenAPI: only what a program without a certificate can ask for."""
    said = {"description": "One line", "content": {"text/plain": {"schema": {"type": "string"}}}}
    refused = {str(status): said for status in (400, 401, 403, 404, 405, 408, 409, 412, 413, 415, 503)}
    node = {"type": "string", "pattern": "^[a-z0-9-]{1,32}$"}
    digest = {"type": "string", "pattern": "^[0-9a-f]{64}$"}

    def told(name: str, **properties: dict[str, Any]) -> dict[str, Any]:
        schema = {"type": "object", "properties": properties, "required": list(properties)}
        return {"description": name, "content": {"application/json": {"schema": schema}}}

    def asks(answer: dict[str, Any], **properties: dict[str, Any]) -> dict[str, Any]:
        body = told("", **properties)["content"]
        return {"post": {"requestBody": {"required": True, "content": body}, "responses": {"200": answer, **refused}}}

    number = {"type": "integer", "minimum": 0, "maximum": 1 << 40}
    upload = {"name": "upload", "in": "path", "required": True, "schema": {"type": "string"}}

    def header(name: str, schema: dict[str, Any]) -> dict[str, Any]:
        return {"name": name, "in": "header", "schema": schema}

    done = {"description": "Done"}
    offset = [header("Upload-Offset", number), header("Upload-Checksum", {"type": "string"})]
    bytes_ = {"content": {tus.OFFSET_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
    options = {"options": {"responses": {"204": done, **refused}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Uploads", "version": tus.VERSION},
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "paths": {
            tus.CHALLENGE: asks(told("A challenge", challenge={"type": "string"}), node=node),
            tus.TOKEN: asks(
                told("A token", token={"type": "string"}, life_s={"type": "number"}),
                node=node,
                challenge={"type": "string"},
                by=digest,
                proof={"type": "string"},
            ),
            tus.FILES: options
            | {
                "post": {
                    "security": [{"token": []}],
                    "parameters": [header("Upload-Length", number), header("Upload-Metadata", {"type": "string"})],
                    "responses": {"201": done, **refused},
                }
            },
            tus.FILES + "/{upload}": {
                "parameters": [upload],
                "head": {"security": [{"token": []}], "responses": {"200": done, **refused}},
                "patch": {
                    "security": [{"token": []}],
                    "parameters": offset,
                    "requestBody": bytes_,
                    "responses": {"204": done, **refused},
                },
            }
            | options,
        },
    }
