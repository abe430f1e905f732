"""The station on a real PostgreSQL: Debian's, started here as its own user; killed in the middle, and back."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from agent import wire
from agent.errors import Transient
from agent.station.db.engine import open_engine, reading
from agent.station.intake import EventIn
from agent.station.reader import Reader
from agent.station.store import Batch, StationStore
from agent.station.worker import StationWorker
from agent.types import NS
from agent.uplink import Hello, Received
from tests.e2e.brokers import free_port
from tests.fakes.broker import FakeBroker, FakeTransport
from tests.fakes.clock import FakeClock
from tests.fakes.database import SERVER
from tests.unit.test_station import EPOCH, event, uid

ROOT = Path(__file__).resolve().parents[2]
BIN = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/nowhere"))
START_S_MAX = 120.0  # a busy machine; on a quiet one the server answers within two seconds
SUITES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "tests" / "unit").glob("test_*.py")
    if re.search(r"\bdatabase\b|\bKINDS\b", path.read_text())
)
"""Whatever may ask for a database; which tests do, their names say."""

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not (BIN / "initdb").exists(), reason="needs Debian's postgresql: make test-system installs it"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: PostgreSQL is started as the user postgres"),
]


class Postgres:
    """One server in a folder of its own, on a free port of this machine; users log in with a password."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.password_file = folder / "password"
        self.password_file.write_text("a password of 26 letters..\n")
        self.port = free_port()
        shutil.chown(folder, "postgres", "postgres")
        shutil.chown(self.password_file, "postgres", "postgres")
        self._as_postgres("initdb", "-D", "data", "-U", "wardpost", "-E", "UTF8", "--locale=C",
                          "--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={self.password_file}", "--no-sync")  # fmt: skip
        self._server: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> str:
        return f"postgresql+pg8000://wardpost@127.0.0.1:{self.port}/{database}?password_file={self.password_file}"

    def socket_url(self) -> str:
        """By the socket in its folder, where nobody asks for a password: a thousand logins would take minutes."""
        return f"postgresql+pg8000://wardpost@/postgres?unix_sock={self.folder}/.s.PGSQL.{self.port}"

    @contextmanager
    def running(self, *settings: str) -> Iterator[None]:
        """Started, and killed at the end."""
        self.start(*settings)
        try:
            yield
        finally:
            self.kill()

    def start(self, *settings: str) -> float:
        """Seconds until it answers. With its durable defaults unless `settings` say otherwise."""
        started = time.monotonic()
        options = [part for one in settings for part in ("-c", one)]
        command = [str(BIN / "postgres"), "-D", "data", "-p", str(self.port), "-k", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [*command, "-c", "listen_addresses=127.0.0.1", *options],
                user="postgres",
                group="postgres",
                extra_groups=[],
                cwd=self.folder,
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        while True:
            try:
                with reading(open_engine(self.url("postgres"), pooled=False)) as db:
                    db.execute(text("select 1"))
                return time.monotonic() - started
            except Transient:
                assert time.monotonic() - started < START_S_MAX, (self.folder / "log").read_text()[-2000:]
                assert self._server.poll() is None, (self.folder / "log").read_text()[-2000:]
                time.sleep(0.05)

    def kill(self) -> None:
        """As a power cut would, but for the page cache: every process of it, at once."""
        server, self._server = self._server, None
        if server is not None:
            children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
            for pid in [str(server.pid), *children]:
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue
            server.wait(START_S_MAX)
        (self.folder / "data/postmaster.pid").unlink(missing_ok=True)

    def make(self, database: str) -> str:
        """An empty database; returns its URL."""
        self._as_postgres("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "wardpost", database)
        return self.url(database)

    def _as_postgres(self, program: str, *args: str) -> None:
        done = subprocess.run(
            [BIN / program, *args],
            user="postgres",
            group="postgres",
            extra_groups=[],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=START_S_MAX,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PGPASSWORD": self.password_file.read_text().strip()},
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def made() -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="wardpost-postgres-"))  # pytest's own folders are closed to other users
    try:
        yield Postgres(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def server(made: Postgres) -> Iterator[Postgres]:
    """Not running yet; and not after the test, whatever has become of it."""
    yield made
    made.kill()


@pytest.mark.timeout(1800)
def test_the_whole_suite_of_the_station_holds_on_postgresql(server: Postgres) -> None:
    """Every test of the store that asks for `database`; without fsync, which is of the next test."""
    with server.running("fsync=off", "full_page_writes=off", "max_connections=200"):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n", "2", "-k", "postgresql and not killed_at_any_step", *SUITES],
            cwd=ROOT,
            env=os.environ | {SERVER: server.socket_url()},
            capture_output=True,
            text=True,
            timeout=1700,  # five minutes beside the other lane
        )
    print(done.stdout[-3000:])
    assert done.returncode == 0
    told = re.search(r"(\d+) passed", done.stdout)
    assert told is not None and int(told[1]) > 600
    assert f"{SERVER} is not set" not in done.stdout


class Scene:
    """A station on the server, a broker, and a node that sends everything again until it has a receipt for it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.clock = FakeClock()
        broker = FakeBroker(clock=self.clock)
        self.store = StationStore(
            folder, clock=self.clock, site="ward-7", database=url, free_bytes=lambda _: 1 << 40
        )  # fmt: skip
        self.worker = StationWorker(
            store=self.store,
            transport=FakeTransport(brokers=[broker], clock=self.clock),
            clock=self.clock,
            rng=random.Random(1),
            site="ward-7",
            station="hq",
            brokers=[broker.address],
            wait_s_max=0.0,
        )
        self.node = FakeTransport(brokers=[broker], clock=self.clock)
        self.node.connect(broker.address, Hello("gate-2", (("wardpost/v1/ward-7/+/ack", 1),)))
        self.receipted: set[int] = set()

    def round(self, last: int) -> None:
        """The node sends what it has no receipt for, up to `last`; the station works for 15 s of its clock."""
        for n in [n for n in range(1, last + 1) if n not in self.receipted][:200]:
            self.node.publish(wire.Topics("ward-7", "gate-2").event("person"), wire.encode(event(n)), qos=1)
        for _ in range(60):
            self.worker.step(self.clock.boot_ns() / NS)
            self.clock.advance(0.25)
        for happening in self.node.poll(0):
            if isinstance(happening, Received):
                for first, end in wire.decode(happening.payload, wire.Receipt).stored:
                    self.receipted |= set(range(first, end + 1))


@pytest.mark.timeout(900)
def test_the_server_is_killed_in_the_middle_and_nothing_that_was_acknowledged_is_lost(
    server: Postgres, tmp_path: Path, seed: int
) -> None:
    lasts = range(40, 401, 40)
    draw = random.Random(seed)
    deaths = set(draw.sample(lasts, draw.randrange(4, 9)))
    server.start()
    url = server.make("killed")
    scene = Scene(tmp_path, url)
    scene.worker.open()
    for last in lasts:
        scene.round(last)
        if last in deaths:
            server.kill()
            before = set(scene.receipted)
            scene.round(last + 40)
            assert scene.receipted == before, "no server, no receipt"
            with pytest.raises(Transient, match="is the database running"):
                scene.store.nodes()
            server.start()
    for _ in range(5):
        scene.round(400)
    assert scene.receipted == set(range(1, 401))
    scene.worker.close()
    server.kill()
    server.start()
    reader = Reader(tmp_path, database=url)
    reader.open()
    assert reader.sequences() == {("gate-2", EPOCH): list(range(1, 401))}
    reader.close()


@pytest.mark.timeout(900)
def test_a_station_with_a_hundred_thousand_events_starts_again_at_once(server: Postgres, tmp_path: Path) -> None:
    server.start()
    url = server.make("many")
    clock = FakeClock()
    body = wire.encode(event(1))
    store = StationStore(
        tmp_path, clock=clock, site="ward-7", database=url, nodes_max=1000, free_bytes=lambda _: 1 << 40
    )  # fmt: skip
    store.open()
    began = time.monotonic()
    batch: list[EventIn] = []
    for n in range(100_000):
        batch.append(EventIn(f"cam-{n % 500}", EPOCH, n // 500 + 1, uid(n + 1), "person", uid(99), body))
        if len(batch) == 1000:
            store.commit(Batch(list(batch)))
            batch.clear()
    took_s = time.monotonic() - began
    server.kill()
    recovered_s = server.start()
    store.close()
    began = time.monotonic()
    store.open()
    opened_s = time.monotonic() - began
    (stored,) = store.commit(Batch([EventIn("cam-7", EPOCH, 201, uid(200_000), "person", uid(99), body)]))
    print(
        f"100,000 events: {100_000 / took_s:,.0f}/s; server back in {recovered_s:.1f} s, store open in {opened_s:.2f} s"
    )
    assert stored.head == 201, "every event before it was stored"
    assert opened_s < took_s / 4, "it does not go through what it has"
    with reading(open_engine(url, pooled=False)) as db:
        assert db.execute(text("select count(*), count(distinct id) from event")).one() == (100_001, 100_001)
    store.close()
