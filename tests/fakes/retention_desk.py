"""A desk whose archive has the footage of a post, what removes it (agent/station/archive_retention_desk.py), and a program
that ends at any step of that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.disk import PosixDisk
from agent.station import archive_retention_rows as rows
from agent.station.archive import Archive, name_of
from agent.station.archive_retention import Policy
from agent.station.archive_retention_desk import RetentionDesk
from agent.station.archive_retention_making import make_retention
from agent.station.db.engine import reading
from agent.station.people.roles import Scope
from agent.station.people.trail import Trail
from agent.station.people.trail_line import said
from tests.fakes.clock import FakeClock
from tests.fakes.evidence_post import NODE, EvidencePost
from tests.fakes.footage_desk import POST, FootageDesk
from tests.fakes.packets import encoded

SITE = NODE.partition("/")[0]
EVERYWHERE = Scope(whole_site=True)


@dataclass
class World:
    """A desk whose archive has the footage of a post, and what removes it."""

    desk: FootageDesk
    trail: Trail
    archive: Any = None
    policy: Policy = field(default_factory=lambda: Policy(days=30))

    @property
    def clock(self) -> FakeClock:
        return self.desk.clock

    def retention(self, archive: Any = None, policy: Policy | None = None) -> RetentionDesk:
        """As after a start of the program."""
        return make_retention(
            engine=self.desk.engine, trail=self.trail, archive=archive or self.archive or self.desk.archive,
            clock=self.clock, policy=policy or self.policy,
        )  # fmt: skip

    def present(self) -> list[str]:
        with reading(self.desk.engine) as db:
            return [one.sha256 for one in rows.files(db, after=0, limit=1000)]

    def stones(self) -> list[rows.Removed]:
        with reading(self.desk.engine) as db:
            return rows.removed_at(db, EVERYWHERE)

    def todo(self) -> list[tuple[str, str]]:
        with reading(self.desk.engine) as db:
            return rows.todo(db, 1000)

    def in_archive(self, sha256: str) -> bool:
        return (self.archive or self.desk.archive).size(name_of(POST, sha256)) is not None

    def log(self, kind: str) -> list[dict[str, Any]]:
        return [one for raw in self.trail.lines() if (one := said(raw))["kind"] == kind]

    def later(self, days: float) -> None:
        self.clock.advance(days * 86_400)


def world_on(desk: FootageDesk) -> World:
    trail = Trail(desk.engine, clock=desk.clock, site=SITE, station="hq", disk=PosixDisk(desk.folder))
    trail.open()
    return World(desk, trail)


def recorded(folder: Path) -> EvidencePost:
    """A post that has recorded two files."""
    folder.mkdir(exist_ok=True)
    post = EvidencePost(folder / "post")
    post.feed(encoded(seconds=4), receipt_every=20)
    post.seal()
    return post


def film(desk: FootageDesk, folder: Path) -> EvidencePost:
    """... and its files and its ledger are at the desk."""
    post = recorded(folder)
    desk.hear(post)
    desk.take_all(post)
    return post


class Killed(BaseException):
    """The program has ended here. Nothing may catch it."""


@dataclass
class Steps:
    """Ends the program at its nth step."""

    left: int

    def __call__(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1


class SteppedArchive:
    """An archive whose removals are steps, before and after."""

    def __init__(self, inner: Archive, step: Callable[[], None]) -> None:
        self._inner, self._step = inner, step

    def remove(self, name: str) -> None:
        self._step()
        self._inner.remove(name)
        self._step()


def settle(world: World) -> None:
    """What the worker does at a start, until there is nothing left."""
    desk = world.retention()
    while desk.sweep() or desk.remove_due():
        pass


def whole(world: World, before: list[str], where: str) -> None:
    """Each file is whole and shown, or gone with one tombstone: and never both, nor neither."""
    there = set(world.present())
    dead = [one.sha256 for one in world.stones()]
    assert len(dead) == len(set(dead)), f"{where}: two tombstones of one file"
    assert there | set(dead) == set(before) and not there & set(dead), where
    for sha256 in there:
        assert world.in_archive(sha256), f"{where}: a file that is shown has no bytes"
    waiting = {sha256 for _, sha256 in world.todo()}
    for sha256 in set(dead) - waiting:
        assert not world.in_archive(sha256), f"{where}: bytes that nobody will ever take away"


CHILD = """
import os, signal, sys
from pathlib import Path
from agent.station import archive_retention_rows as rows
from tests.fakes.footage_desk import FootageDesk
from tests.fakes.retention_desk import SteppedArchive, object_store, world_on
world = world_on(FootageDesk(Path(sys.argv[1])))
if len(sys.argv) > 3:
    world.archive = object_store(*sys.argv[3:])
world.later(31)
left = [int(sys.argv[2])]
def step():
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
done = rows.done
def stepped(engine, refs):
    step(); done(engine, refs); step()
rows.done = stepped
desk = world.retention(SteppedArchive(world.archive or world.desk.archive, step))
desk.remove_due(); step(); desk.sweep()
"""
"""A program that is killed at its nth step; arguments: the desk's folder, n, and an object store's URL, bucket, prefix."""


def object_store(url: str, bucket: str, prefix: str) -> Archive:
    """An archive in a store on loopback that takes any key."""
    from agent.station.archive.s3 import Bucket, S3Archive

    return S3Archive(Bucket(url, bucket, prefix, "us-east-1", "any", "thing"))
