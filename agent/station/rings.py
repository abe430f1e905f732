"""What people ask about rollouts: the file of the rings, and what `wardpost rollout` asks of the station. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from agent.config import Id, Settings
from agent.errors import ConfigError, Corrupt
from agent.station.rollout import NODES_MAX, RINGS_MAX, Post, Ring, Rollout, Rules, Seconds

REST = "*"


class RingSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[[ring]]: `nodes = ["*"]`, in the last one, are all that the station has heard and no ring names."""

    name: Id
    nodes: Annotated[tuple[Annotated[str, Meta(pattern=r"^([a-z0-9-]{1,32}|\*)$(?!\n)")], ...], Meta(min_length=1)]
    soak_s: Seconds | None = None


class RingsFile(Settings, Rules, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """rings.toml: the rules, and the rings. deploy/rings.example.toml documents it."""

    ring: Annotated[tuple[RingSettings, ...], Meta(min_length=1, max_length=RINGS_MAX)]
    soak_s: Seconds = 86_400.0


class Wanted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ring with its posts by name."""

    name: Id
    soak_s: Seconds
    nodes: Annotated[tuple[Id, ...], Meta(min_length=1, max_length=NODES_MAX)]


class Start(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The request `start`."""

    number: Annotated[int, Meta(ge=1)]
    url: Annotated[str, Meta(min_length=1, max_length=1000)]
    bytes: Annotated[int, Meta(ge=1)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
    rings: Annotated[tuple[Wanted, ...], Meta(min_length=1, max_length=RINGS_MAX)]
    rules: Rules
    by: Annotated[str, Meta(max_length=100)] = ""


class Act(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The requests `pause`, `resume` and `stop`."""

    by: Annotated[str, Meta(max_length=100)] = ""


def wanted(file: RingsFile, heard: Iterable[str]) -> tuple[tuple[Wanted, ...], Rules]:
    """The rings with every post by name. `heard`: the posts that the station knows. Raises ConfigError."""
    taken: dict[str, str] = {}
    rings: list[Wanted] = []
    for number, ring in enumerate(file.ring):
        nodes = list(ring.nodes)
        if REST in nodes:
            if nodes != [REST] or number + 1 < len(file.ring):
                raise ConfigError(f'ring {ring.name}: "*" stands alone, and in the last ring')
            nodes = sorted(set(heard) - set(taken))
            if not nodes:
                raise ConfigError(f"ring {ring.name}: no other post was ever heard here; leave this ring out")
        for node in nodes:
            if node in taken:
                raise ConfigError(f"ring {ring.name}: {node} is in ring {taken[node]} already")
            taken[node] = ring.name
        soak_s = file.soak_s if ring.soak_s is None else ring.soak_s
        rings.append(Wanted(name=ring.name, soak_s=soak_s, nodes=tuple(nodes)))
    if len({ring.name for ring in rings}) < len(rings):
        raise ConfigError("two rings have one name")
    if len(taken) > NODES_MAX:
        raise ConfigError(f"{len(taken)} posts; {NODES_MAX} at most")
    rules = {name: getattr(file, name) for name in Rules.__struct_fields__}
    return tuple(rings), Rules(**rules)


def read(verb: str, body: str) -> Start | Act:
    """A request as the station takes it. Raises Corrupt."""
    try:
        return msgspec.json.decode(body, type=Start) if verb == "start" else msgspec.json.decode(body, type=Act)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"rollout {verb}: {error}") from None


def begun(start: Start, rollout_id: str) -> Rollout:
    """A rollout at its beginning."""
    return Rollout(
        id=rollout_id,
        number=start.number,
        url=start.url,
        bytes=start.bytes,
        sha256=start.sha256,
        rings=tuple(Ring(name=ring.name, soak_s=ring.soak_s) for ring in start.rings),
        rules=start.rules,
        posts=tuple(Post(node=node, ring=index) for index, ring in enumerate(start.rings) for node in ring.nodes),
    )
