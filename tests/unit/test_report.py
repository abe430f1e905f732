"""The report tells who, where, when, how sure, and what is missing; and nothing in it becomes markup."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from agent.evidence.package import Origin, Request, export
from agent.types import NS
from tests.fakes.evidence_post import NODE, UTC_0, EvidencePost
from tests.fakes.forger import Forger
from tests.fakes.packets import encoded
from tests.fakes.recording_post import closed_posts  # noqa: F401

NASTY = "<script>alert(\"1\")</script> & 'x'"


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def package(tmp_path: Path) -> Forger:
    post = EvidencePost(tmp_path / "node")
    post.feed(encoded(seconds=5), receipt_every=20)
    post.post.recorder.lost(post.post.clock.boot_ns(), "unplugged " + NASTY)
    post.feed(encoded(seconds=3, start_ns=1030 * NS))
    post.seal()
    done = export(
        disk=post.disk,
        catalog=post.post.store,
        origin=Origin(NODE, f"School gate {NASTY}", "picamera2, 1280x720"),
        request=Request(UTC_0, UTC_0 + 40 * NS, f"Lt. Tran {NASTY}", f"case 12 {NASTY}"),
        output=tmp_path / "p.zip",
        clock=post.post.clock,
        signer=post.key,
        witness=post,
    )
    return Forger(done.path.read_bytes())


def test_the_text_answers_the_questions(package: Forger) -> None:
    text = package.files["report.txt"].decode()
    for answer in (
        "hoa-cuong/cam-1",
        "School gate",
        "Lt. Tran",
        "case 12",
        "2023-11-14T22:13:20.000Z +-0.0",
        "yes, record ",
        "camera-fault",
        "unplugged",
        "wardpost verify",
        "Receipts of the station",
    ):
        assert answer in text, answer
    for name in package.segments:
        assert name in text


def test_the_page_is_self_contained_and_nothing_becomes_markup(package: Forger) -> None:
    page = package.files["report.html"].decode()
    reader = _Reader()
    reader.feed(page)
    assert "script" not in reader.tags and not {"img", "link", "iframe", "object"} & set(reader.tags)
    assert not [a for a in reader.attributes if a[0] in ("src", "href", "onload")]
    assert "url(" not in page and "@import" not in page
    assert reader.text.count(NASTY) >= 3
    assert "Every second of the range" in reader.text and "camera-fault" in reader.text
