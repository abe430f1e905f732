"""Headquarters and a real post: settings desired while it was dark, its doctor from afar, and a siren that is not there."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.cli import main
from agent.config import load
from agent.configure import show
from agent.station.main import StationSettings
from tests.e2e.brokers import RealBroker
from tests.e2e.post import Post, recording
from tests.e2e.test_coverage import STATION, keys
from tests.e2e.test_doctor import examined, wrong
from tests.e2e.test_ledger import on_card, said, until

LONG = bool(os.environ.get("WARDPOST_LONG"))
"""Also waits for the minute after which settings are kept."""


class Headquarters:
    """`wardpost station` as a process, and the commands of a person beside it."""

    def __init__(self, folder: Path, broker: str, private: Path) -> None:
        (folder / "station").mkdir()
        self.config = folder / "station.toml"
        self.config.write_text(STATION.format(data=folder / "station", key=private, broker=broker))
        self._log = folder / "station.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "agent.cli", "station", "--config", str(self.config)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until(lambda: "connected" in self._log.read_text(), "a station at its broker")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def ask(self, name: str, *arguments: str) -> tuple[int, str]:
        """The command in this process: a new one takes seconds to load on a busy machine."""
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            code = main([name, "--config", str(self.config), *arguments])
        return code, told.getvalue()

    def stands(self) -> dict[str, Any]:
        rows: list[str] = []
        show(load(self.config, StationSettings), "cam-7", as_json=True, out=rows.append)
        (found,) = json.loads(rows[0])
        row: dict[str, Any] = found
        return row


@pytest.fixture
def hq(tmp_path: Path, post: Post, broker: RealBroker) -> Iterator[Headquarters]:
    private, public = keys(tmp_path)
    text = post.config.read_text().replace("[uplink]", f'[uplink]\ncommand_key = "{public}"')
    post.config.write_text(text)
    one = Headquarters(tmp_path, broker.url, private)
    yield one
    one.stop()


def state_of(post: Post) -> bytes:
    path = post.data / "config/state.json"
    return path.read_bytes() if path.exists() else b""


@pytest.mark.timeout(400)
def test_a_post_that_was_dark_takes_its_settings_and_answers_its_doctor_from_afar(
    post: Post, hq: Headquarters, tmp_path: Path
) -> None:
    hq.start()
    better = tmp_path / "better.toml"
    better.write_text(post.config.read_text().replace("School gate", "School gate, east"))
    code, words = hq.ask("configure", "cam-7", "--file", str(better))
    assert code == 0 and "it was never heard here; revision 1" in words, words
    code, words = hq.ask("doctor", "--node", "cam-7")
    assert code == 1 and "this station has never heard it" in words, words

    # It comes up for the first time, finds what is desired at the broker, and tries it with its next start: that comes by
    # itself after a minute; here somebody pulls the plug before.
    began = time.monotonic()
    post.start()
    until(lambda: b'"trial":{"revision":1' in state_of(post), "a trial")
    print(f"\ntaken on {time.monotonic() - began:.1f} s after the first start of a post that had been dark")
    if LONG:
        assert post._process is not None and post._process.wait(timeout=90) == 75, "it asks to be started anew"
    else:
        post.end(signal.SIGKILL)
    assert (post.data / "config/1.toml").read_text() == better.read_text()
    post.start()
    post.wait_for(recording)
    until(lambda: hq.stands()["reported"] is not None and hq.stands()["reported"]["state"] == "trying", "a trial")
    row = hq.stands()
    assert row["behind"] and "and tries the desired one since" in row["words"]

    # What is wrong, in the same words as on the spot.
    began = time.monotonic()
    _, words = hq.ask("doctor", "--node", "cam-7", "--json")
    print(f"doctor of a post at the station: {time.monotonic() - began:.1f} s")
    found = json.loads(words)
    assert set(found) == {"well", "summary", "diagnoses"} and not set(wrong(found)) - {"link"}, words
    here = {one["what"] for one in examined(post)[1]["diagnoses"] if one["part"] in ("clock", "settings")}
    assert here == {one["what"] for one in found["diagnoses"] if one["part"] in ("clock", "settings")}

    # A siren that is not wired is refused by the post, with what to do.
    began = time.monotonic()
    code, words = hq.ask("signal", "cam-7", "siren", "5", "--reason", "a test", "--by", "Mai")
    print(f"signal answered: {time.monotonic() - began:.1f} s")
    # A machine whose clock nobody vouches for refuses it before that.
    assert code == 1 and ("nothing is wired there" in words or "clock is not synchronised" in words), words

    if LONG:
        by = time.monotonic() + 90
        while hq.stands()["behind"] and time.monotonic() < by:
            time.sleep(1)
        assert "has revision 1, as desired since" in hq.stands()["words"], hq.stands()
    assert post.end(signal.SIGTERM) == 0
    told = [payload.body for payload in said(on_card(post)) if payload.kind == "update"]
    assert [body["outcome"] for body in told][:1] == ["taken on"] and told[0]["config"] == 1 and told[0]["by"]
    until(lambda: "it said goodbye" in hq.ask("doctor", "--node", "cam-7")[1], "a goodbye")
