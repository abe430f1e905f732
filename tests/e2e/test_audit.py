"""`wardpost audit` on recorded footage: false alerts in one corner, true ones in another; and on a running node."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.assets import Assets
from agent.audit import Alert
from agent.cli import main
from agent.clock import SystemClock, uuid7_maker
from agent.config import Config, load
from agent.errors import WardpostError
from agent.local import alerts_of
from agent.store.store import Origin, Store
from agent.types import Box, Verdict
from tests.e2e.post import CONFIG, Post
from tests.e2e.test_ledger import until
from tests.fakes.scene import compose

pytestmark = pytest.mark.timeout(900)

POSTER, GATE = Box(0.03, 0.6, 0.42, 0.32), Box(0.53, 0.15, 0.42, 0.32)
SINCE_1970 = ("--days", "36000")  # the clock of a replay begins at the epoch, as that of a post without time servers
VISION = '[vision]  # what is worth an alert here\nalert_on = ["person", "vehicle", "bicycle"]\n\n[recording]'


def write_config(folder: Path) -> Path:
    config = folder / "node.toml"
    text = CONFIG.format(data=folder / "data", footage=folder / "scene.mp4", broker="mqtt://127.0.0.1:1")
    config.write_text(text.replace("[recording]", VISION))
    return config


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, assets: Assets) -> Iterator[Path]:
    """The folder of a node that has recorded the scene; it takes half a minute, so each test gets a copy."""
    folder = tmp_path_factory.mktemp("recorded")
    assets.model()
    assets.labels()
    scene = compose(folder / "scene.mp4", assets.footage(), [(4.0, POSTER), (18.0, GATE)], seconds=32.0)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WARDPOST_CACHE", str(assets.cache))
        config = write_config(folder)
        assert main(["replay", "--config", str(config), "--store", str(folder / "data"), str(scene)]) == 0
        yield folder


@pytest.fixture
def config(recorded: Path, tmp_path: Path) -> Path:
    """A node that has recorded the scene: its settings, and its card beside them."""
    shutil.copytree(recorded, tmp_path, dirs_exist_ok=True)
    return write_config(tmp_path)


def there(alert: Alert, place: Box) -> bool:
    return all(place.x - 0.05 < x < place.x2 + 0.05 for x, _ in alert.feet)


def judge(data: Path) -> tuple[list[str], list[str]]:
    """Verdicts on the card of a node that does not run: what is on the left is false, the surest on the right true.

    The others on the right are left unjudged: at the edge of the threshold they come and go with any change.
    """
    clock = SystemClock()
    told = alerts_of(data, clock)
    false = [alert.incident for alert in told if there(alert, POSTER)]
    gate = sorted((alert for alert in told if there(alert, GATE)), key=lambda alert: alert.score or 0.0)
    true = [alert.incident for alert in gate[-1:]]
    store = Store(
        data / "wardpost.db", clock=clock, new_id=uuid7_maker(clock), origin=Origin("ward", "cam-7"),
        outbox_rows_max=1000, event_rows_max=1000,
    )  # fmt: skip
    store.open()
    for n, incident in enumerate([*false, *true]):
        said = "false" if incident in false else "true"
        assert store.add_verdict(Verdict(f"c{n}", incident, said, "a screen", "Minh", "hq", clock.utc().utc_ns))
    store.close()
    return false, true


def audit(config: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["audit", "--config", str(config), "--json", *SINCE_1970, *options])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, found


def test_a_mask_is_suggested_where_false_alerts_cluster_rehearsed_and_applied(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A screen on the left shows people, and headquarters says so; who comes through the gate on the right is real."""
    _, unjudged = audit(config, capsys, "--apply")
    assert unjudged["suggestions"] == [] and unjudged["alerts"]["unjudged"] == unjudged["alerts"]["alerts"] > 0
    false, true = judge(tmp_path / "data")
    assert len(false) >= 2 and len(true) == 1

    before = config.read_text()
    code, applied = audit(config, capsys, "--apply")
    assert code == 0, applied["suggestions"]
    assert (applied["alerts"]["false"], applied["alerts"]["true"]) == (len(false), len(true))
    masks = [[list(point) for point in one] for one in load(config, Config).vision.ignore_masks]
    (mask,) = [one for one in applied["suggestions"] if one["kind"] == "mask" and one["polygon"] in masks]
    effect = mask["effect"]
    assert effect["false_avoided"] >= 2 and effect["true_lost"] == 0 and effect["true_kept"] == 1, mask
    assert effect["may_be_applied"]
    assert {one["incident"] for one in mask["rehearsed"] if one["state"] == "gone"} <= set(false)
    assert "starts again" in applied["applied"]
    assert masks == [mask["polygon"]], "one at a time: the next audit sees what it has changed"
    assert "# what is worth an alert here" in config.read_text() != before, "the rest of the file is as it was"

    # The node's eyes with the file as it is now, over the whole scene.
    capsys.readouterr()
    assert main(["replay", "--config", str(config), str(tmp_path / "scene.mp4")]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    feet = [
        (event["box"][0] + event["box"][2] / 2, event["box"][1] + event["box"][3])
        for event in events
        if event.get("phase") == "started" and event["type"] != "motion"
    ]
    (x1, y1), (x2, y2) = (tuple(map(edge, zip(*mask["polygon"], strict=True))) for edge in (min, max))
    assert any(x > 0.47 for x, _ in feet), "the gate is watched"
    assert not any(x1 < x < x2 and y1 < y < y2 for x, y in feet), "the place on the screen is not"


def test_what_cannot_be_shown_is_said_and_nothing_is_applied(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The footage of the alerts is gone: there is a suggestion, and nothing to rehearse it on."""
    judge(tmp_path / "data")
    for path in (tmp_path / "data" / "segments").glob("*.mp4"):
        path.unlink()
    before = config.read_text()
    code, found = audit(config, capsys, "--apply")
    assert code == 1 and found["applied"] is None and found["suggestions"]
    states = {(one["state"], one["why"]) for row in found["suggestions"] for one in row["rehearsed"]}
    assert states == {("not replayed", "its footage is gone")}
    assert config.read_text() == before
    assert main(["audit", "--config", str(config), "--days", "0"]) == 78


def test_a_running_node_is_asked_and_tells_headquarters(
    tmp_path: Path, assets: Assets, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets.model()
    assets.labels()
    monkeypatch.setenv("WARDPOST_CACHE", str(assets.cache))
    post = Post(tmp_path, assets.footage(), "mqtt://127.0.0.1:1")
    try:
        post.start()
        until(lambda: bool(heard(post)), "an alert")
        asked = post.ask_here("audit", "--report")
        assert asked.returncode == 0, asked.stderr
        assert "nothing to suggest" in asked.stdout and "on its way to headquarters" in asked.stdout
        assert post.end(signal.SIGTERM) == 0
    finally:
        post.clean_up()
    told = "select body from event join outbox using (sequence) where cast(body as text) like '%Audit of 7 days: %'"
    ((notice,),) = post.rows(told)
    assert json.loads(notice)["data"]["severity"] == "notice" and b"not judged" in notice
    unheard = post.ask("audit", "--report")
    assert unheard.returncode == 1 and len(unheard.stderr.splitlines()) == 1, "nobody is there to tell it"


def heard(post: Post) -> list[Alert]:
    try:
        return alerts_of(post.data, SystemClock())
    except WardpostError:
        return []
