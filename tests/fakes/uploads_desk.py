"""The station's upload address on loopback, over a real socket, and a site whose register honours one node."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette

from agent import tus
from agent.clock import Clock
from agent.disk import Disk
from agent.site import authority, founding
from agent.site.proof import prove
from agent.site.register import Certificate, Node
from agent.station.serving import Server, configured
from agent.station.uploads import Admission, make_app
from agent.station.uploads_access import Access
from agent.station.uploads_server import REQUESTS_MAX
from agent.station.uploads_staging import Info, Limits, Staging
from agent.types import NS

SITE, NODE = "hoa-cuong", "cam-1"
LIMITS = Limits(
    file_bytes_max=50_000_000, open_per_node_max=4, room_bytes_max=100_000_000, free_bytes_min=0, expire_s=3600
)


@dataclass
class Ward:
    """A register with one node in it: `agent.station.uploads_access.Known`."""

    now_ns: int
    key: ec.EllipticCurvePrivateKey = field(default_factory=authority.new_key)
    node: str = NODE
    state: str = "enrolled"
    generation: int = 1
    revoked_utc_ns: int | None = None
    days: float = authority.NODE_DAYS

    def __post_init__(self) -> None:
        self.ca = authority.make_authority(SITE, now_ns=self.now_ns)
        cert = authority.issue_node(self.ca, self.node, 1, self.key.public_key(), now_ns=self.now_ns, days=self.days)
        self.row = founding.of_certificate(cert, "node", self.now_ns, node=self.node, generation=1)

    def known(self, node: str) -> tuple[Node | None, list[Certificate]]:
        if node != self.node:
            return None, []
        row = Node(
            node=node, generation=self.generation, state=self.state, device="", place="", custodian="", consent="",
            profile="", made_utc_ns=self.now_ns,
        )  # fmt: skip
        fields = {name: getattr(self.row, name) for name in self.row.__slots__}
        return row, [Certificate(**fields | {"revoked_utc_ns": self.revoked_utc_ns})]

    def proof(self, challenge: tus.Challenge, *, key: ec.EllipticCurvePrivateKey | None = None) -> tus.Proof:
        """What this node answers; by another key when one is given."""
        by = authority.key_digest(self.key.public_key())
        bare = tus.Proof(node=self.node, challenge=challenge.challenge, by=by, proof="")
        return tus.Proof(
            node=bare.node, challenge=bare.challenge, by=by, proof=prove(key or self.key, bare.proof_bytes(SITE))
        )


@dataclass
class Desk:
    """What is served, and where."""

    port: int
    staging: Staging
    ward: Ward
    archived: dict[tuple[str, str], int]


@contextmanager
def serving(app: Starlette) -> Iterator[int]:
    """The application on a free port of this machine."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(configured(app, at_once_max=REQUESTS_MAX))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    by = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < by, "the server did not start"
        time.sleep(0.01)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


@dataclass
class OpenDoor:
    """`agent.station.uploads.Admission` of a station that has asked for everything: tests of it are in test_clips.py."""

    also_asked: list[tuple[str, tus.Footage]] = field(default_factory=list)

    def check(self, node: str, size: int, footage: tus.Footage, on_the_way: Sequence[Info]) -> None:
        assert all(one.node == node for one in on_the_way)

    def also(self, node: str, footage: tus.Footage) -> None:
        self.also_asked.append((node, footage))


@contextmanager
def desk(disk: Disk, clock: Clock, *, limits: Limits = LIMITS, admission: Admission | None = None) -> Iterator[Desk]:
    """A whole one, without the clerk: `archived` says what the archive has."""
    ward = Ward(clock.utc().utc_ns)
    staging = Staging(disk, clock=clock, limits=limits)
    staging.open()
    archived: dict[tuple[str, str], int] = {}
    app = make_app(
        access=Access(clock=clock, site=SITE, known=ward.known),
        admission=OpenDoor() if admission is None else admission,
        staging=staging,
        kept=lambda node, sha256: archived.get((node, sha256)),
        clock=clock,
        file_bytes_max=limits.file_bytes_max,
    )
    with serving(app) as port:
        yield Desk(port, staging, ward, archived)


def key_file(folder: Path, ward: Ward) -> Path:
    """The node's private key as it lies on its card."""
    path = folder / "node.key"
    with suppress(FileExistsError):
        folder.mkdir()
    path.write_bytes(authority.key_pem(ward.key))
    return path


def life_ns(days: float) -> int:
    """Days in ns."""
    return round(days * 86_400 * NS)
