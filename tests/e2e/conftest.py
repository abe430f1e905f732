"""A broker and a node on it, for every story that wants them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.assets import Assets
from tests.e2e.brokers import NatsServer, RealBroker
from tests.e2e.post import Post


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RealBroker]:
    (tmp_path / "broker").mkdir()
    broker = NatsServer(tmp_path / "broker")
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def post(tmp_path: Path, assets: Assets, broker: RealBroker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Post]:
    assets.model()
    assets.labels()
    monkeypatch.setenv("WARDPOST_CACHE", str(assets.cache))
    post = Post(tmp_path, assets.footage(), broker.url)
    yield post
    post.clean_up()
