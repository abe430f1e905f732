"""`--set vision.score_min=0.5`: single values set in the text of a configuration. Comments and order stay. Pure.

Lines are replaced, as a person with an editor does it; what the result means is then compared with what was asked for,
so a file that is written in an unusual way is refused, and never half changed.
"""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Sequence
from typing import Any

from agent.errors import ConfigError

VALUES_MAX = 100
_NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")


def with_values(text: str, asked: Sequence[str]) -> str:
    """`text` with each `table.key=value` set; a value that is no TOML is a string.

    Raises ConfigError for what is no such pair, for a text that is no TOML, or one in which it cannot be done by lines.
    """
    if len(asked) > VALUES_MAX:
        raise ConfigError(f"--set: {len(asked)} values; {VALUES_MAX} at most, use --file")
    for one in asked:
        text = _with(text, one)
    return text


def _with(text: str, asked: str) -> str:
    name, sign, spelled = asked.partition("=")
    name, spelled = name.strip(), spelled.strip()
    if not sign or not _NAME.fullmatch(name):
        raise ConfigError(f"--set {asked!r}: write TABLE.KEY=VALUE, for example vision.score_min=0.5")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"--set {name}: the file is not TOML: {error}") from None
    spelled = _spelling(spelled)
    goal = _goal(tables, name, tomllib.loads(f"x = {spelled}")["x"])
    table, _, key = name.rpartition(".")
    result = _rewritten(text, table, key, f"{key} = {spelled}")
    try:
        meant = tomllib.loads(result) == goal
    except tomllib.TOMLDecodeError:
        meant = False
    if not meant:
        raise ConfigError(
            f"--set {name}: it cannot be set in a file written like this one; change the file, use --file"
        )
    return result


def _spelling(value: str) -> str:
    """As TOML: itself when it is a value of TOML, else a string."""
    try:
        if list(tomllib.loads(f"x = {value}")) == ["x"] and "\n" not in value:
            return value
    except tomllib.TOMLDecodeError:
        pass
    return json.dumps(value)  # a basic string of TOML is one of JSON


def _goal(tables: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    goal = copy.deepcopy(tables)
    *path, key = name.split(".")
    at = goal
    for part in path:
        at = at.setdefault(part, {})
        if not isinstance(at, dict):
            raise ConfigError(f"--set {name}: {part} is no table in this file; lists are changed with --file")
    at[key] = value
    return goal


def _rewritten(text: str, table: str, key: str, line: str) -> str:
    """The key's own line replaced, or one added at the head of its table, or the table at the end."""
    lines = text.splitlines(keepends=True)
    header = re.compile(rf"\s*\[\s*{re.escape(table)}\s*\]\s*(#.*)?\r?\n?")
    start = next((n for n, one in enumerate(lines) if header.fullmatch(one)), None)
    if start is None:
        gap = "" if text.endswith("\n") or not text else "\n"
        return f"{text}{gap}\n[{table}]\n{line}\n"
    for n in range(start + 1, len(lines)):
        if lines[n].lstrip().startswith("["):
            break
        if re.match(rf"\s*{re.escape(key)}\s*=", lines[n]):
            lines[n] = line + "\n"
            return "".join(lines)
    if not lines[start].endswith("\n"):
        lines[start] += "\n"
    lines.insert(start + 1, line + "\n")
    return "".join(lines)
