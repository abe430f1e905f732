"""Contacts by apprise, against a real mail server and a real HTTP endpoint: what arrives, and what never gets out."""

from __future__ import annotations

import email
import email.policy
import json
import logging
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from agent.demo.programs import free_port
from agent.errors import ConfigError
from agent.station.outward.messages import Contact
from agent.station.outward.notice import Notice
from agent.station.outward.settings import ContactSettings
from tests.fakes.database import Database
from tests.fakes.hook_server import HookServer
from tests.fakes.outward_desk import board, plan

# apprise asks for a module that Python 3.13 has no more, and is ready to do without it
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

LATE = Notice(
    id="step-9",
    kind="overdue",
    severity="bell",
    site="ward-7",
    node="gate-2",
    incident="01900000-0000-7000-8000-000000000063",
    time="2026-11-21T07:02:11.250Z",
    noticed="2026-11-21T07:03:12.000Z",
    due="2026-11-21T07:03:11.250Z",
    place="Ngõ 12",
    summary="Có người bấm chuông <script>",
    timeerrms=3000,
)


def contact(folder: Path, url: str) -> Contact:
    (folder / "url").write_text(url + "\n")
    return Contact(ContactSettings(name="boss", url_file=str(folder / "url")))


class Mailbox:
    """aiosmtpd's handler."""

    def __init__(self) -> None:
        self.got: list[tuple[list[str], EmailMessage]] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802  (its name there)
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.got.append((envelope.rcpt_tos, message))
        return "250 OK"


@pytest.fixture
def mail() -> Iterator[tuple[Mailbox, int]]:
    from aiosmtpd.controller import Controller

    box = Mailbox()
    port = free_port()
    controller = Controller(box, hostname="127.0.0.1", port=port, ready_timeout=60)
    controller.start()
    yield box, port
    controller.stop()


def mail_url(port: int) -> str:
    return f"mailto://127.0.0.1:{port}?from=desk@example.org&to=boss@example.org&mode=insecure&format=text"


def plain(message: EmailMessage) -> str:
    part = message.get_body(("plain",))
    assert part is not None
    return str(part.get_content())


def test_a_mail_arrives_as_it_was_meant(tmp_path: Path, mail: tuple[Mailbox, int]) -> None:
    box, port = mail
    assert contact(tmp_path, mail_url(port))(LATE, "step-9_boss").state == "delivered"
    to, message = box.got[0]
    assert to == ["boss@example.org"]
    assert message["Subject"] == "NOT ANSWERED: HELP CALL at Ngõ 12 (gate-2)"
    body = plain(message)
    assert "Có người bấm chuông <script>" in body and "±3 s" in body and "due 2026-11-21T07:03:11.250Z" in body
    assert "(step-9_boss)" in body, "who gets it twice can tell"


def test_a_place_cannot_add_a_header(tmp_path: Path, mail: tuple[Mailbox, int], database: Database) -> None:
    """From the board to the mailbox: a post whose place holds line breaks is told of on one line."""
    box, port = mail
    with board(database) as desk:
        worker = desk.worker(
            {plan("boss", tell=frozenset({"overdue"}), unless_answered=True): contact(tmp_path, mail_url(port))}
        )
        desk.happens("bell", place="Gate\r\nBcc: all@example.org\r\n\r\nBody")
        desk.passes(61)
        desk.run(worker)
    to, message = box.got[0]
    assert to == ["boss@example.org"] and message["Bcc"] is None
    assert message["Subject"] == "NOT ANSWERED: HELP CALL at Gate Bcc: all@example.org Body (gate-2)"


def test_an_http_endpoint_gets_it_too_and_cannot_redirect_it(tmp_path: Path) -> None:
    server = HookServer()
    try:
        server.status = 200
        boss = contact(tmp_path, f"json://127.0.0.1:{server.port}/x")
        assert boss(LATE, "k").state == "delivered"
        assert json.loads(server.got[0][2])["title"].startswith("NOT ANSWERED")
        server.status, server.location = 307, "/elsewhere"
        assert boss(LATE, "k").state == "later" and len(server.got) == 2
    finally:
        server.close()


def test_nothing_of_the_url_reaches_a_log_or_a_book(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    caplog.set_level(logging.DEBUG)
    outcome = contact(
        tmp_path, f"mailto://user:geheim@127.0.0.1:{port}?from=desk@example.org&to=boss@example.org&mode=insecure"
    )(LATE, "k")
    assert outcome.state == "later"
    assert "geheim" not in caplog.text + outcome.why and "boss@" not in caplog.text + outcome.why


@pytest.mark.parametrize("url", ["geheim", "nosuch://geheim@example.org", "", "mailto://"])
def test_a_url_that_is_none_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match=r"outward\.contact: boss: url_file: ") as refused:
        contact(tmp_path, url)
    assert "geheim" not in str(refused.value)
