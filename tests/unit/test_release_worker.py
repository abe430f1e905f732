"""An update from the command to the verdict: with a real HTTPS server that breaks off, on disks in memory."""

from __future__ import annotations

import hashlib
import http.server
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent import wire
from agent.errors import Corrupt, NeedsRestart, Transient
from agent.release import download
from agent.release.download import Https, Stick, fetch
from agent.release.plan import Limits, Phase, State
from agent.release.starts import STARTS_MAX
from agent.release.worker import Eyes, ReleaseWorker
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FakeDisk
from tests.fakes.release import KEY, Card, bundle_bytes

ID = "0192f0c1-2b3c-7def-8123-456789abcdef"


class Server:
    """Serves one file over TLS; `cut` bytes an answer at most, then the connection ends."""

    def __init__(self, folder: Path) -> None:
        self.data = b""
        self.cut = 1 << 30
        self.ranges = True
        self.asked: list[str] = []
        self.location = ""
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.headers.get("Range", ""))
                if self.path == "/moved":
                    self.send_response(302)
                    self.send_header("Location", server.location)
                    self.end_headers()
                    return
                if self.path != "/file":
                    self.send_error(404)
                    return
                start = int(server.asked[-1].removeprefix("bytes=").rstrip("-") or 0) if server.ranges else 0
                body = server.data[start:]
                self.send_response(206 if server.ranges else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: server.cut])
                self.close_connection = True

            def log_message(self, *args: Any) -> None:
                pass

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(key, hashes.SHA256())
        )
        self.pem = folder / "server.pem"
        self.pem.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pem)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_port}/file"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def source(self) -> Https:
        return Https(ssl.create_default_context(cafile=str(self.pem)))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def fresh(server: Server) -> None:
    server.cut, server.ranges, server.asked = 1 << 30, True, []


def get(server: Server, disk: FakeDisk, *, url: str = "", size: int | None = None, sha256: str = "") -> list[float]:
    return list(
        fetch(
            server.source,
            url or server.url,
            disk=disk,
            name="release/x.part",
            size=len(server.data) if size is None else size,
            sha256=sha256 or hashlib.sha256(server.data).hexdigest(),
        )
    )


@pytest.fixture
def disk() -> FakeDisk:
    made = FakeDisk()
    made.list("release")
    return made


def test_a_download_goes_on_where_it_broke_off(server: Server, disk: FakeDisk) -> None:
    server.data = bytes(range(256)) * 4000
    server.cut = 300_000
    waits = [wait for wait in get(server, disk) if wait]
    assert disk.content("release/x.part") == server.data
    assert server.asked == ["bytes=0-", "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    assert waits == [1.0, 2.0, 4.0]


def test_a_server_without_ranges_and_a_power_cut_cost_time_only(server: Server, disk: FakeDisk) -> None:
    server.data = bytes(range(256)) * 4000
    steps = fetch(
        server.source,
        server.url,
        disk=disk,
        name="release/x.part",
        size=len(server.data),
        sha256=hashlib.sha256(server.data).hexdigest(),
    )
    next(steps)
    next(steps)
    del steps
    disk.power_cut(lambda count: count - 1)
    disk._folders.add("release")
    server.ranges = False
    try:
        get(server, disk)
    except Corrupt:  # the torn end of what was not synced: thrown away, and fetched again
        get(server, disk)
    assert disk.content("release/x.part") == server.data


def test_what_is_not_what_was_announced_is_thrown_away(server: Server, disk: FakeDisk) -> None:
    server.data = bytes(1000)
    for asked, match in (
        ({"sha256": "0" * 64}, "is not the file that was announced"),
        ({"size": 999}, "is longer than the 999 bytes"),
        ({"url": server.url + "x"}, "answers 404"),
        ({"url": "http://localhost/file"}, "no https:// address"),
        ({"url": "file:///etc/passwd"}, "no https:// address"),
    ):
        with pytest.raises(Corrupt, match=match):
            get(server, disk, **asked)
        disk.unlink("release/x.part")
    server.location = "http://localhost/file"
    with pytest.raises(Corrupt, match="sent on to 'http://localhost/file'"):
        get(server, disk, url=server.url.replace("/file", "/moved"))


def test_a_server_that_nobody_vouches_for_or_that_ends_early_is_given_up(
    server: Server, disk: FakeDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "ATTEMPTS_MAX", 3)
    server.data = bytes(1000)
    steps = fetch(Https(), server.url, disk=disk, name="release/x.part", size=1000, sha256="0" * 64)
    with pytest.raises(Transient, match=r"CERTIFICATE_VERIFY_FAILED.*given up after 3 attempts"):
        list(steps)
    with pytest.raises(Transient, match="ended early; given up"):
        get(server, disk, size=2000)
    with pytest.raises(Corrupt, match="is the stick mounted"):
        list(fetch(Stick(), "/media/none.zip", disk=disk, name="release/y", size=1, sha256="0" * 64))


# -- the worker -------------------------------------------------------------------------------------------------------


class Post:
    """A node with its releases; `life` is one process of it."""

    def __init__(self, server: Server) -> None:
        self.card = Card()
        self.clock = FakeClock()
        self.server = server
        self.frames = self.broker = self.quiet = True
        self.notes: list[dict[str, Any]] = []
        self.told: list[str] = []
        self.replies: list[wire.Reply] = []
        self.worker = self.life()

    def life(self) -> ReleaseWorker:
        self.card.start()
        self.worker = ReleaseWorker(
            slots=self.card.slots,
            running=self.card.slots.running(),
            disk=self.card.disk,
            clock=self.clock,
            public=KEY.public,
            limits=Limits(settle_s=45, gate_s=300, network_s=900),
            eyes=Eyes(frames=lambda: self.frames, broker=lambda: self.broker, quiet=lambda: self.quiet),
            sources={"https": self.server.source, "file": Stick()},
            bytes_max=10_000_000,
            note=lambda body: self.notes.append(msgspec.json.decode(body)),
            tell=self.told.append,
            reply=self.replies.append,
        )
        self.worker.open()
        return self.worker

    def run(self, seconds: float) -> str:
        """Until the process is to end, and why; empty when it went on for so long."""
        until_s = self.clock.boot_ns() / 1e9 + seconds
        while self.clock.boot_ns() / 1e9 < until_s:
            try:
                at = self.worker.step(self.clock.boot_ns() / 1e9)
            except NeedsRestart as restart:
                return str(restart)
            self.clock.advance(max(at - self.clock.boot_ns() / 1e9, 0.02))
        return ""

    @property
    def state(self) -> State:
        return self.card.slots.state()

    def outcomes(self) -> list[str]:
        return [note["outcome"] for note in self.notes]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[int, bytes]:
    folder = tmp_path_factory.mktemp("bundles")
    return {number: bundle_bytes(folder, number, padding=600_000) for number in (2, 3)}


def announced(server: Server, data: bytes, number: int = 2, **changes: Any) -> dict[str, Any]:
    server.data = data
    told = {
        "id": ID,
        "number": number,
        "url": server.url,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return told | changes


def test_an_update_is_fetched_verified_tried_and_confirmed(server: Server, bundles: dict[int, bytes]) -> None:
    post = Post(server)
    asked = announced(server, bundles[2])
    assert post.worker.update(asked)["pending"] is True
    assert post.worker.update(asked)["pending"] is True, "the station asks again: the same update, not a second one"
    post.quiet = False
    assert post.run(30) == ""
    assert post.state.candidate is not None and post.state.candidate.phase is Phase.STAGED
    assert post.worker.reported() == wire.ReleaseState(number=0, tried=2, phase="staged")
    assert [reply.state for reply in post.replies][-1] == "done"
    assert [reply.state for reply in post.replies[:-1]].count("accepted") >= 1
    assert post.card.disk.list("release") == ["release/state.json"], "the bundle itself is gone"
    post.quiet = True
    assert "release 2 is installed" in post.run(30)
    post.life()
    assert post.card.slots.running() == "2"
    assert post.run(60) == ""
    done = post.state
    assert done.good.number == 2 and done.candidate is None
    assert post.worker.reported() == wire.ReleaseState(number=2)
    assert post.outcomes() == ["staged", "switched", "confirmed"]
    assert post.told == ["release 2 (1.2) runs and is confirmed"]
    assert post.worker.update(asked) == {"summary": "release 2 runs and is confirmed"}


def test_a_release_without_frames_goes_back_by_itself_and_is_not_taken_again(
    server: Server, bundles: dict[int, bytes]
) -> None:
    post = Post(server)
    asked = announced(server, bundles[2])
    post.worker.update(asked)
    assert post.run(60)
    post.life()
    post.frames = False
    assert "release 2 is rolled back: no frames within 300 s" in post.run(400)
    post.life()
    assert post.card.slots.running() == "base"
    assert post.told == ["release 2 (1.2) was rolled back: no frames within 300 s"]
    why = "no frames within 300 s"
    assert post.worker.reported() == wire.ReleaseState(number=0, tried=2, phase="rolled-back", why=why)
    post.life()
    assert len(post.told) == 1, "told once"
    with pytest.raises(Corrupt, match=r"update: release 2 was given up \(no frames"):
        post.worker.update(asked)
    assert post.worker.update(announced(server, bundles[3], 3))["pending"]


def test_what_the_launcher_did_is_told_by_the_release_that_is_back(server: Server, bundles: dict[int, bytes]) -> None:
    post = Post(server)
    post.worker.update(announced(server, bundles[2]))
    assert post.run(60)
    for _ in range(STARTS_MAX):
        post.card.start()  # and each time it dies at once
    post.life()
    assert post.card.slots.running() == "base"
    assert post.told == ["release 2 (1.2) was rolled back: 3 starts without being confirmed"]


def test_a_network_that_was_away_gets_the_release_a_second_try(server: Server, bundles: dict[int, bytes]) -> None:
    post = Post(server)
    post.worker.update(announced(server, bundles[2]))
    assert post.run(60)
    post.life()
    post.broker = False
    assert "no broker within 900 s" in post.run(1000)
    post.life()
    assert "another try" in post.run(1000)
    post.life()
    assert post.run(60) == ""
    assert post.state.good.number == 2


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"number": 0}, "update: Expected"),
        ({"sha256": "x"}, "update: Expected"),
        ({"url": "http://x/y"}, "neither https:// nor"),
        ({"url": "/etc/shadow"}, "does not lie on a stick"),
        ({"url": "/media/../etc/shadow"}, "neither https:// nor"),
        ({"bytes": 20_000_000}, "download_mb_max"),
    ],
)
def test_a_command_that_asks_for_what_must_not_be_is_refused(
    server: Server, bundles: dict[int, bytes], changes: dict[str, Any], match: str
) -> None:
    post = Post(server)
    with pytest.raises(Corrupt, match=match):
        post.worker.update(announced(server, bundles[2], **changes))


def test_a_bundle_of_another_number_key_or_size_is_refused_and_on_record(
    server: Server, bundles: dict[int, bytes]
) -> None:
    for data, number, match in (
        (bundles[2], 3, "announced as 3, signed as 2"),
        (bundles[2][:-1] + b"x", 2, "bundle: is no zip"),
    ):
        post = Post(server)
        post.worker.update(announced(server, data, number))
        assert post.run(10) == ""
        assert (post.replies[-1].state, post.outcomes()) == ("failed", ["refused"])
        assert match in post.replies[-1].detail
        assert post.card.slots.running() == "base"
        assert post.worker.update(announced(server, bundles[2]))["pending"], "and the next one is taken"


def test_a_person_at_the_node_confirms_and_goes_back(server: Server, bundles: dict[int, bytes], tmp_path: Path) -> None:
    post = Post(server)
    stick = tmp_path / "release-2.zip"
    stick.write_bytes(bundles[2])
    asked = announced(server, bundles[2], url=str(stick)) | {"action": "install"}
    del asked["id"]
    assert post.worker.local(asked)["pending"]
    assert post.run(60)
    post.life()
    assert post.worker.local({"action": "confirm"})["state"]["good"]["number"] == 2
    assert post.worker.local({"action": "status"})["running"] == "2"
    post.worker.local({"action": "rollback"})
    assert "a person at the node" in post.run(5)
    post.life()
    assert post.card.slots.running() == "base"
    with pytest.raises(Corrupt, match="was confirmed; only a higher number"):
        post.worker.local(asked)
    with pytest.raises(Corrupt, match="nobody here knows"):
        post.worker.local({"action": "dance"})


def test_a_full_card_and_a_start_that_is_not_counted_leave_the_good_release(
    server: Server, bundles: dict[int, bytes]
) -> None:
    post = Post(server)
    post.card.tree.capacity_bytes = 700_000
    post.worker.update(announced(server, bundles[2]))
    assert post.run(10) == ""
    assert "make room there" in post.replies[-1].detail
    post.card.tree.capacity_bytes = 1 << 30
    post.worker.update(announced(server, bundles[2]))
    assert post.run(60)
    post.card.disk.read_only = True
    assert "cannot be written" in post.card.start()
    assert post.card.slots.running() == "base"
    post.card.disk.heal()
    post.worker._running = "base"
    post.worker._restart = ""
    assert post.run(5) == ""
    assert post.state.candidate is not None and post.state.candidate.phase is Phase.ROLLED_BACK
