"""Signed webhooks, against a real server: what arrives is what was signed, and no answer can do harm."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.clock import SystemClock
from agent.errors import ConfigError
from agent.station.outward.notice import Notice
from agent.station.outward.settings import WebhookSettings, check_url
from agent.station.outward.webhook import Webhook, headers
from tests.fakes.database import Database
from tests.fakes.hook_server import HookServer
from tests.fakes.outward_desk import board, plan

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(64, 96))).decode()
BELL = Notice(
    id="step-7",
    kind="bell",
    site="ward-7",
    node="gate-2",
    time="2026-11-21T07:02:11.250Z",
    noticed="2026-11-21T07:02:12.000Z",
    place="Ngõ 12 <b>",
    summary='Somebody pressed the bell "again"',
)


@pytest.fixture
def server() -> Iterator[HookServer]:
    made = HookServer()
    yield made
    made.close()


def webhook(folder: Path, url: str, *, secret: str = SECRET, **changes: Any) -> Webhook:
    (folder / "secret").write_text(secret + "\n")
    settings = WebhookSettings(name="hook", url=url, secret_file=str(folder / "secret"), **changes)
    return Webhook(settings, clock=SystemClock())


def test_what_arrives_is_verified_by_the_standards_own_library(tmp_path: Path, server: HookServer) -> None:
    from standardwebhooks.webhooks import Webhook as Verifier
    from standardwebhooks.webhooks import WebhookVerificationError

    hook = webhook(tmp_path, f"http://127.0.0.1:{server.port}/in?x=1")
    assert hook(BELL, "step-7_hook").state == "delivered"
    path, got, body = server.got[0]
    assert path == "/in?x=1" and got["host"] == f"127.0.0.1:{server.port}"
    assert got["webhook-id"] == "step-7_hook" and got["content-type"] == "application/json"
    told: Any = Verifier(SECRET).verify(body, got)
    assert told["type"] == "wardpost.bell" and told["timestamp"] == BELL.noticed
    assert told["data"]["place"] == "Ngõ 12 <b>" and told["data"]["node"] == "gate-2"
    assert "id" not in told["data"] and "kind" not in told["data"]
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(body.replace(b"gate-2", b"gate-3"), got)
    with pytest.raises(WebhookVerificationError):
        Verifier(OTHER).verify(body, got)


def test_the_signature_is_the_specifications_own_example() -> None:
    """Published with the specification's libraries: secret, id, timestamp, body, signature."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [secret])
    assert made["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_while_a_secret_is_replaced_both_verify(tmp_path: Path, server: HookServer) -> None:
    from standardwebhooks.webhooks import Webhook as Verifier

    hook = webhook(tmp_path, f"http://127.0.0.1:{server.port}/")
    (tmp_path / "secret").write_text(f"{OTHER}\n{SECRET}\n")
    assert hook(BELL, "k").state == "delivered"
    _, got, body = server.got[0]
    for secret in (SECRET, OTHER):
        Verifier(secret).verify(body, got)
    (tmp_path / "secret").write_text("whsec_short\n")
    outcome = hook(BELL, "k")
    assert outcome.state == "later" and "short" not in outcome.why and len(server.got) == 1


@pytest.mark.parametrize(("status", "state"), [(200, "delivered"), (500, "later"), (429, "later"), (400, "refused")])
def test_what_an_answer_means(tmp_path: Path, server: HookServer, status: int, state: str) -> None:
    server.status = status
    assert webhook(tmp_path, f"http://127.0.0.1:{server.port}/")(BELL, "k").state == state


def test_no_redirect_is_followed(tmp_path: Path, server: HookServer) -> None:
    elsewhere = HookServer()
    try:
        server.status, server.location = 307, f"http://127.0.0.1:{elsewhere.port}/"
        outcome = webhook(tmp_path, f"http://127.0.0.1:{server.port}/")(BELL, "k")
        assert (outcome.state, outcome.why) == ("later", "it answers 307")
        assert elsewhere.got == []
    finally:
        elsewhere.close()


def served(answer: Callable[[socket.socket], None]) -> tuple[int, threading.Thread]:
    """A server that answers one connection as a test wants."""
    listening = socket.create_server(("127.0.0.1", 0))

    def once() -> None:
        with listening, listening.accept()[0] as peer:
            peer.settimeout(30)
            try:
                peer.recv(65536)
                answer(peer)
            except OSError:
                pass

    thread = threading.Thread(target=once)
    thread.start()
    return listening.getsockname()[1], thread


def _drip(peer: socket.socket) -> None:
    for _ in range(1_000):  # until the other side hangs up
        peer.sendall(b"H")
        threading.Event().wait(0.05)


@pytest.mark.parametrize(
    ("answer", "state", "why"),
    [
        (_drip, "later", "no answer within 1 s"),
        (lambda peer: peer.sendall(b"H" * 100_000), "later", "it does not answer in HTTP"),
        (lambda peer: peer.sendall(b"SSH-2.0-OpenSSH\r\n"), "later", "it does not answer in HTTP"),
        (lambda _peer: None, "later", "it does not answer in HTTP"),
        (lambda peer: peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Made\r\n\r\n"), "delivered", ""),
        (lambda peer: peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_000), "delivered", ""),
    ],
    ids=["drips", "floods", "speaks-ssh", "hangs-up", "continue", "endless-body"],
)
def test_a_hostile_answer_costs_an_attempt_at_most(
    tmp_path: Path, answer: Callable[[socket.socket], None], state: str, why: str
) -> None:
    port, thread = served(answer)
    timeout_s = 1.0 if answer is _drip else 60.0
    outcome = webhook(tmp_path, f"http://127.0.0.1:{port}/", timeout_s=timeout_s)(BELL, "k")
    thread.join()
    assert outcome.state == state
    assert outcome.why in (why, "no connection: Connection reset by peer") if why else not outcome.why


def test_nobody_there_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert webhook(tmp_path, f"http://127.0.0.1:{port}/")(BELL, "k").why == "no connection: Connection refused"


def test_over_tls_the_server_must_be_who_it_says(tmp_path: Path) -> None:
    """A certificate of an authority of one's own: believed with `ca`, and by nobody without it."""
    from tests.fakes.certificates import self_signed

    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = HookServer(context)
    try:
        url = f"https://127.0.0.1:{server.port}/"
        assert webhook(tmp_path, url, ca=str(certificate))(BELL, "k").state == "delivered"
        refused = webhook(tmp_path, url)(BELL, "k")
        assert refused.state == "later" and refused.why.startswith("its certificate is not believed: self-signed")
        other = f"https://localhost:{server.port}/"
        named = webhook(tmp_path, other, ca=str(certificate))(BELL, "k")
        assert named.state == "later" and "mismatch" in named.why
        assert len(server.got) == 1
    finally:
        server.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://example.org/", "https, for others could read"),
        ("http://localhost/", "https, for others could read"),
        ("ftp://127.0.0.1/", "is none"),
        ("https://", "is none"),
        ("https://u:geheim@example.org/", "without user, password and fragment"),
        ("https://example.org/#x", "without user"),
        ("https://example.org/a b", "is none"),
        ("https://example.org/a\r\nX: y", "is none"),
        ("https://example.org:99999/", "is none"),
        ("https://exämple.org/", "is none"),
    ],
)
def test_a_url_that_will_not_do_is_refused_without_being_repeated(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        check_url("hook", url)
    assert "geheim" not in str(refused.value)


def test_urls_that_will_do() -> None:
    assert check_url("h", "http://[::1]:8080").authority == "[::1]:8080"
    assert check_url("h", "https://example.org?k=v").target == "/?k=v"
    assert check_url("h", "https://example.org/").authority == "example.org"


@pytest.mark.parametrize("secret", ["", "abc", "whsec_", "whsec_YWJj", "whsec_%%%", f"{SECRET}\n{SECRET}\n{SECRET}"])
def test_a_secret_that_is_none_is_refused_and_not_repeated(tmp_path: Path, secret: str) -> None:
    with pytest.raises(ConfigError, match=r"outward\.webhook: hook: secret_file: ") as refused:
        webhook(tmp_path, "http://127.0.0.1/", secret=secret)
    said = str(refused.value)
    assert not any(part in said for part in secret.replace("whsec_", "").split() if part)


def test_from_the_board_to_the_server(tmp_path: Path, database: Database, server: HookServer) -> None:
    """The whole way: an event comes in, the board raises it, the queue makes a row, a thread posts it."""
    with board(database) as desk:
        from agent.station.outward.worker import _threads

        worker = desk.worker(
            {plan(): webhook(tmp_path, f"http://127.0.0.1:{server.port}/")},
            hands=_threads,
        )
        desk.happens("bell", place="Gate\r\nX-Evil: 1", summary="Help\x00\x1b[2J")
        for _ in range(3_000):
            desk.run(worker, 0.5)
            if desk.standing("hook").delivered:
                break
            threading.Event().wait(0.01)
        worker.close()
        told = json.loads(server.got[0][2])
        assert told["data"]["place"] == "Gate X-Evil: 1" and told["data"]["summary"] == "Help [2J"
        assert "x-evil" not in server.got[0][1]
