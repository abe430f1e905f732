"""OpenAPI 3.1 of what programs fetch from a station. A test holds it against the table of routes and real answers."""

from __future__ import annotations

from typing import Any

_TIME = {"type": "string", "format": "date-time"}
_TEXT = {"type": "string"}
_NODE = {"type": "string", "pattern": r"^[a-z0-9-]{1,32}$(?!\n)"}
_FLAG = {"type": "boolean"}


def document(version: str) -> dict[str, Any]:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Wardpost station",
            "version": version,
            "description": "What other programs fetch. Tokens: `wardpost token add NAME --for cap|metrics|events`.",
        },
        "paths": {
            "/feeds/cap.atom": _get(
                "cap", "Help calls and alerts, an Atom feed of CAP documents", "application/atom+xml"
            ),
            "/feeds/cap/{incident}": _get("cap", "One alert in CAP 1.2", "application/cap+xml", incident=True),
            "/feeds/onvif": _get("events", "Alerts as ONVIF events", "application/json", _many("OnvifEvent")),
            "/api/alerts": _get("events", "Alerts of the board", "application/json", _many("Alert")),
            "/api/posts": _get("events", "Posts and their state", "application/json", _many("Post")),
            "/metrics": _get("metrics", "Figures for Prometheus", "text/plain"),
            "/openapi.json": _get("", "This document", "application/json", {"type": "object"}),
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Alert": _alert(), "Post": _post(), "OnvifEvent": _onvif()},
        },
    }


def _get(
    purpose: str, summary: str, media: str, schema: dict[str, Any] | None = None, *, incident: bool = False
) -> dict[str, Any]:
    """One path. `purpose`: of the token; empty: nobody is asked for one."""
    answers: dict[str, Any] = {
        "200": {"description": summary, "content": {media: {"schema": schema or _TEXT}}},
        "421": {"description": "The Host header does not name this station"},
        "503": {"description": "The database is in the way; try again"},
    }
    if purpose:
        answers["401"] = {"description": f"No token for {purpose}"}
        answers["429"] = {"description": "Too many requests with this token; Retry-After says how long to wait"}
    if incident:
        answers["404"] = {"description": "No such alert"}
    asked: dict[str, Any] = {"summary": summary, "responses": answers, "security": [{"token": []}] if purpose else []}
    if incident:
        uuid = {"type": "string", "format": "uuid"}
        asked["parameters"] = [{"name": "incident", "in": "path", "required": True, "schema": uuid}]
    return {"get": asked}


def _many(name: str) -> dict[str, Any]:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _alert() -> dict[str, Any]:
    return _object(
        {
            "incident": {"type": "string", "format": "uuid"},
            "node": _NODE,
            "severity": {"enum": ["bell", "alert"]},
            "raised": _TIME,
            "due": _TIME,
            "overdue": _FLAG,
            "ended": _FLAG,
            "acknowledged": _or_null(_TIME),
            "verdict": {"enum": ["", "true", "false"]},
            "place": _TEXT,
            "summary": _TEXT,
            "time": _or_null(_TEXT),
            "timeerrms": _or_null({"type": "integer"}),
        }
    )


def _post() -> dict[str, Any]:
    state = {"enum": ["online", "late", "dark", "offline"]}
    return _object({"node": _NODE, "place": _TEXT, "state": state, "since": _TIME, "heard": _TIME, "version": _TEXT})


def _onvif() -> dict[str, Any]:
    return _object(
        {
            "Topic": {"type": "string", "pattern": "^tns1:[A-Za-z0-9/]+$"},
            "UtcTime": _TIME,
            "PropertyOperation": {"enum": ["Initialized", "Deleted"]},
            "Source": {"type": "object", "additionalProperties": _TEXT},
            "Key": _object({"Incident": {"type": "string", "format": "uuid"}}),
            "Data": {"type": "object"},
        }
    )
