"""Asking a running node, and one agent per folder: on real sockets, locks and SQLite."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.boot import STORE_NAME
from agent.clock import SystemClock, uuid7_maker
from agent.errors import ConfigError, Corrupt, Transient
from agent.folder import DataLock, InUse
from agent.local import CONNECTIONS_MAX, SOCKET_NAME, LocalWorker, catalog_of, snapshot, status_of
from agent.recording.index import Catalog
from agent.store.store import Origin, SessionRow, Store, Tombstone
from agent.types import Cause, EndReason, Gap, Hold, Segment, Sign, TimeAnchor

CLOCK = SystemClock()


def make_store(folder: Path) -> Store:
    store = Store(
        folder / STORE_NAME,
        clock=CLOCK,
        new_id=uuid7_maker(CLOCK),
        origin=Origin("s", "n"),
        outbox_rows_max=1000,
        event_rows_max=1000,
    )
    store.open()
    store.start_session()
    return store


def segment(number: int) -> Segment:
    return Segment(
        name=f"footage/{number:06d}.mp4",
        session=1,
        boot_id="a" * 32,
        start_ns=number * 30,
        end_ns=number * 30 + 29,
        bytes=1000,
        fragments=30,
        sha256="b" * 64,
        end_reason=EndReason.ROLLED,
        width=1280,
        height=720,
    )


class Month:
    """The catalog of a month of footage, in memory."""

    def __init__(self) -> None:
        self._segments = [segment(number) for number in range(20_000)]

    def segments(self, *, garbage: bool = False) -> list[Segment]:
        return self._segments

    def sessions(self) -> list[SessionRow]:
        return []

    def anchors(self) -> list[TimeAnchor]:
        return []

    def gaps(self) -> list[Gap]:
        return []

    def tombstones(self) -> list[Tombstone]:
        return []

    def signs(self) -> list[Sign]:
        return []

    def holds(self) -> list[Hold]:
        return []


@contextmanager
def running(folder: Path, store: Catalog, status: Any = None) -> Iterator[LocalWorker]:
    """A node as far as its local socket goes: the lock, the store, and a thread that steps."""
    stop = threading.Event()
    worker = LocalWorker(
        folder, catalog=store, status=status or (lambda: {"node": "n", "workers": {"camera": "well"}}), wait_s=0.02
    )

    def live() -> None:
        while not stop.is_set():
            worker.step(CLOCK.boot_ns() / 1e9)

    with DataLock(folder).take(CLOCK):
        worker.open()
        thread = threading.Thread(target=live)
        thread.start()
        try:
            yield worker
        finally:
            stop.set()
            thread.join()
            worker.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = make_store(tmp_path)
    yield made
    made.close()


def fill(store: Store, segments: int = 3) -> None:
    for number in range(segments):
        store.add_segment(segment(number))
    store.add_gap(Gap("a" * 32, 5, 9, Cause.CAMERA_FAULT, "stalled"))
    store.add_anchor(TimeAnchor("a" * 32, 1, 2, None, "unsynchronised"))
    store.condemn([segment(0).name], "age")


def test_status_of_a_running_node(tmp_path: Path, store: Store) -> None:
    with running(tmp_path, store):
        assert status_of(tmp_path) == {"node": "n", "workers": {"camera": "well"}}


def test_the_catalog_is_the_same_with_and_without_a_running_node(tmp_path: Path, store: Store) -> None:
    fill(store, 600)  # more than one line of a reply
    expected = snapshot(store)
    assert len(expected.segments()) == 599 and len(expected.tombstones()) == 1
    with running(tmp_path, store):
        assert catalog_of(tmp_path, CLOCK) == expected
    store.close()
    assert catalog_of(tmp_path, CLOCK) == expected


def test_reading_leaves_the_folder_free_for_the_next_agent(tmp_path: Path, store: Store) -> None:
    store.close()
    catalog_of(tmp_path, CLOCK)
    with DataLock(tmp_path).take(CLOCK):
        again = make_store(tmp_path)
        again.close()


def test_the_socket_is_for_its_owner_only_and_goes_with_the_node(tmp_path: Path, store: Store) -> None:
    with running(tmp_path, store):
        assert (tmp_path / SOCKET_NAME).stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / SOCKET_NAME).exists()


def test_the_socket_of_a_killed_node_is_replaced(tmp_path: Path, store: Store) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / SOCKET_NAME))
    dead.close()
    with pytest.raises(Transient, match="no node answers"):
        status_of(tmp_path)
    with running(tmp_path, store):
        assert status_of(tmp_path)["node"] == "n"


def test_a_folder_with_a_very_long_name_works(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    store = make_store(folder)
    with running(folder, store):
        assert status_of(folder)["node"] == "n"
    store.close()


def talk(folder: Path, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(folder / SOCKET_NAME))
        sock.sendall(data)
        answer = b""
        while chunk := sock.recv(65536):
            answer += chunk
        return answer


@pytest.mark.parametrize(
    "data",
    [
        b"\n",
        b"{}\n",
        b'{"ask": 7}\n',
        b'{"ask": "rm -rf"}\n',
        b"\xff\xfe\n",
        b"[" * 4000 + b"\n",
        b"x" * 4097,
    ],
)
def test_rude_requests_get_one_clear_line_and_the_next_client_is_served(
    tmp_path: Path, store: Store, data: bytes
) -> None:
    with running(tmp_path, store):
        (line,) = talk(tmp_path, data).splitlines()
        assert json.loads(line)["error"]
        assert status_of(tmp_path)["node"] == "n"


def test_a_month_of_footage_comes_through(tmp_path: Path) -> None:
    month = Month()
    with running(tmp_path, month):
        (tmp_path / STORE_NAME).touch()
        assert catalog_of(tmp_path, CLOCK).segments() == month.segments()


def test_a_client_that_goes_away_or_says_nothing_harms_nobody(tmp_path: Path) -> None:
    with running(tmp_path, Month()):
        silent = [socket.socket(socket.AF_UNIX) for _ in range(CONNECTIONS_MAX - 2)]
        for sock in silent:
            sock.connect(str(tmp_path / SOCKET_NAME))
        rude = socket.socket(socket.AF_UNIX)
        rude.connect(str(tmp_path / SOCKET_NAME))
        rude.sendall(b'{"ask": "catalog"}\n')
        rude.recv(10)
        rude.close()  # in the middle of a long answer
        assert status_of(tmp_path)["node"] == "n"
        for sock in silent:
            sock.close()


def test_connections_are_bounded_and_the_one_too_many_is_told(tmp_path: Path, store: Store) -> None:
    with running(tmp_path, store), ExitStack() as silent:
        for _ in range(CONNECTIONS_MAX):
            silent.enter_context(socket.socket(socket.AF_UNIX)).connect(str(tmp_path / SOCKET_NAME))
        for _ in range(50):  # refused before, while or after it asks
            with pytest.raises(Transient, match=r"too many|broke off"):
                status_of(tmp_path)


def test_silent_clients_are_let_go_after_a_while(tmp_path: Path, store: Store) -> None:
    with DataLock(tmp_path).take(CLOCK):
        worker = LocalWorker(tmp_path, catalog=store, status=dict, wait_s=0.0)
        worker.open()
        with socket.socket(socket.AF_UNIX) as silent:
            silent.settimeout(5)
            silent.connect(str(tmp_path / SOCKET_NAME))
            worker.step(100.0)
            worker.step(109.0)
            assert len(worker._connections) == 1
            worker.step(111.0)
            assert silent.recv(10) == b""
        worker.close()


def test_an_error_of_the_store_reaches_the_person(tmp_path: Path, store: Store) -> None:
    def sick() -> dict[str, Any]:
        raise Transient("the disk answered with an I/O error: replace the card")

    with running(tmp_path, store, sick), pytest.raises(Transient, match="replace the card"):
        status_of(tmp_path)


def test_no_node_no_store_no_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(Transient, match="is the agent running"):
        status_of(tmp_path)
    with pytest.raises(ConfigError, match=r"there is no wardpost\.db"):
        catalog_of(tmp_path, CLOCK)
    with pytest.raises(Transient, match="is the agent running"):
        status_of(tmp_path / "nowhere")


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    (tmp_path / STORE_NAME).write_bytes(b"this is no database" * 100)
    with pytest.raises(Corrupt, match=r"wardpost\.db"):
        catalog_of(tmp_path, CLOCK)


def test_something_else_on_the_socket_is_corrupt(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / SOCKET_NAME))
        server.listen(1)

        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(100)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Corrupt, match="not an answer"):
            status_of(tmp_path)
        thread.join()


# -- the lock ------------------------------------------------------------------------------------------------------


def test_a_second_agent_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    with DataLock(tmp_path).take(CLOCK), pytest.raises(InUse, match=f"in use by process {os.getpid()}"):
        DataLock(tmp_path).take(CLOCK)
    with DataLock(tmp_path).take(CLOCK):
        pass


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from agent.folder import DataLock; from agent.clock import SystemClock\n"
        "DataLock(Path(sys.argv[1])).take(SystemClock()); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert holder.stdout is not None and holder.stdin is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(InUse, match=f"process {holder.pid};"):
        DataLock(tmp_path).take(CLOCK)
    holder.kill()
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    DataLock(tmp_path).take(CLOCK).release()


def test_patience_outlasts_a_short_holder(tmp_path: Path) -> None:
    first = DataLock(tmp_path).take(CLOCK)
    threading.Timer(0.2, first.release).start()
    DataLock(tmp_path).take(CLOCK, patience_s=5).release()


def test_a_folder_that_is_not_there_or_not_ours_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="make the folder, or mount"):
        DataLock(tmp_path / "no").take(CLOCK)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="must be a folder"):
        DataLock(tmp_path / "file").take(CLOCK)
