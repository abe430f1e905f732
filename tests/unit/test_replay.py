"""Replay: the node's pipeline on a file, the same twice, and one clear line for every file that cannot be played."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from agent.assets import Assets
from agent.cli import main
from agent.config import DetectorSettings
from agent.drivers import model_paths
from agent.errors import ConfigError

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def footage(assets: Assets, monkeypatch: pytest.MonkeyPatch) -> Path:
    assets.model()
    assets.labels()
    monkeypatch.setenv("WARDPOST_CACHE", str(assets.cache))
    return assets.footage()


def replayed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    assert main(["replay", *arguments]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return lines[:-1], lines[-1]["summary"]


def test_the_same_file_gives_the_same_incidents_twice(
    footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = []
    for name in ("one", "two"):
        events, summary = replayed(
            capsys, str(footage), "--store", str(tmp_path / name), "--detections", str(tmp_path / f"{name}.jsonl")
        )
        outputs.append((events, (tmp_path / f"{name}.jsonl").read_text()))
    assert outputs[0] == outputs[1]
    assert summary.keys() == {"frames", "media_s", "cpu_s", "wall_s", "detector_runs", "events", "rss_mb_max"}
    assert summary["media_s"] == pytest.approx(10, abs=0.2)
    assert summary["events"] == len(events)
    assert {"person", "vehicle"} <= {event["type"] for event in events}, "the film shows people and cars"
    assert '"label":"bicycle"' in outputs[0][1], "and bicycles, each for less than a second"

    phases: dict[str, list[str]] = {}
    for event in events:
        phases.setdefault(event["id"], []).append(event["phase"])
        assert event["severity"] in ("alert", "notice")
        assert event["box"] is None or all(0 <= value <= 1 for value in event["box"])
    assert all(seen[0] == "started" and seen[-1] == "ended" for seen in phases.values()), "every incident ends"

    segments = sorted((tmp_path / "one" / "segments").iterdir())
    again = sorted((tmp_path / "two" / "segments").iterdir())
    assert [s.read_bytes() for s in segments] == [s.read_bytes() for s in again]
    lines = [json.loads(line) for line in outputs[0][1].splitlines()]
    assert [line["frame"] for line in lines] == sorted({line["frame"] for line in lines})
    assert len(lines) == summary["frames"]


def test_every_frame_measures_the_detector_itself(
    footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import av

    short = tmp_path / "short.mp4"
    with av.open(str(footage)) as source, av.open(str(short), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is None or float((packet.pts or 0) * packet.time_base) > 1:
                break
            packet.stream = stream
            target.mux(packet)
    out = tmp_path / "out.jsonl"
    _, summary = replayed(capsys, str(short), "--every-frame", "--detections", str(out))
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(1, len(lines) + 1)), "numbered from 1, none left out"
    assert summary["frames"] == len(lines) >= 20
    assert summary["detector_runs"] > len(lines), "the whole picture and its parts, in each frame"
    scores = [d["score"] for line in lines for d in line["detections"]]
    assert min(scores) >= 0.1
    assert min(scores) < 0.4, "not only what would be an alert"


def test_what_it_saw_and_why_is_drawn_as_a_picture_and_as_a_film(
    footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import av
    import cv2

    picture, film = tmp_path / "seen.png", tmp_path / "seen.mp4"
    events, summary = replayed(capsys, str(footage), "--picture", str(picture), "--video", str(film))
    drawn = cv2.imread(str(picture))
    assert drawn is not None and drawn.shape[1] == 640
    incidents = len({event["id"] for event in events})
    assert drawn.shape[0] >= 272 + 18 * min(incidents, 14), "a line for each incident below the picture"
    red = (drawn[:272, :, 2] > 200) & (drawn[:272, :, 0] < 90) & (drawn[:272, :, 1] < 90)
    assert red.sum() > 300, "somebody is framed in the colour of persons"
    with av.open(str(film)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == summary["frames"]
    assert (frames[0].width, frames[0].height) == (640, 272 + 4 * 18)
    assert float(frames[-1].time) == pytest.approx(summary["media_s"], abs=0.3), "in the film's own time"


@pytest.mark.parametrize("name", ["seen.xyz", "seen"])
def test_a_picture_of_no_known_kind_is_refused_before_the_work(
    footage: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(footage), "--picture", str(tmp_path / name)]) == 78
    assert "use .png or .jpg" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--picture", "--video"])
def test_a_place_that_cannot_be_written_is_one_line(
    footage: Path, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "out.png" if option == "--picture" else "out.mp4"
    assert main(["replay", str(footage), option, str(tmp_path / "nowhere" / name)]) in (1, 78)
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("wardpost:")]
    assert "nowhere" in said and "cannot be written" in said


@pytest.mark.skipif(not DATA.exists(), reason="evaluation data is not on this machine")
def test_real_footage_is_evaluated_in_a_table_and_as_json(
    footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import av

    short = tmp_path / "short.avi"
    with av.open(str(DATA / "vtest.avi")) as source, av.open(str(short), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(source.streams.video[0])):
            if packet.dts is None or number == 30:
                break
            packet.stream = stream
            target.mux(packet)
    assert main(["evaluate", str(short), str(DATA / "vtest.gt.txt"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["detector"]["frames"] == 30 and told["detector"]["ap50"] > 0.6
    assert told["events"]["visits"] >= 3 and told["events"]["found"] >= 2
    assert main(["evaluate", str(tmp_path / "none.avi"), str(DATA / "vtest.gt.txt")]) == 78
    assert "none.avi: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no such file"), (b"", "not a video"), (b"This is a letter, not a film. " * 100, "not")],
)
def test_a_file_that_is_no_footage_gets_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], footage: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "f.mp4"
    if content is not None:
        path.write_bytes(content)
    assert main(["replay", str(path)]) in (1, 78)
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("wardpost:")]
    assert len(errors) == 1
    assert said in errors[0]
    assert "f.mp4" in errors[0]


def test_a_store_that_is_not_empty_is_not_mixed_with_another(
    footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "something").write_text("x")
    assert main(["replay", str(footage), "--store", str(tmp_path)]) == 78
    assert "not empty" in capsys.readouterr().err


def test_a_model_without_its_labels_is_refused() -> None:
    with pytest.raises(ConfigError, match="labels: missing"):
        model_paths(DetectorSettings(model="/somewhere/m.tflite"))


def test_the_footage_is_never_overwritten_by_its_detections(
    footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(footage.read_bytes())
    assert main(["replay", str(film), "--detections", str(film)]) == 78
    assert capsys.readouterr().err == f"wardpost: {film}: is the footage itself; name another file for the detections\n"
    assert film.read_bytes() == footage.read_bytes()
    assert main(["replay", str(tmp_path / "none.mp4"), "--detections", str(tmp_path / "out.jsonl")]) == 78
    assert "none.mp4: no such file; name a video file" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("command", [["contract"], ["model", "list"]])
def test_an_output_on_a_full_disk_is_one_clear_line(command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "agent.cli", *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "wardpost: the output cannot be written: No space left on device; make room and try again\n"


FORBIDDEN = """
    [node]
    site = "ward-7"
    id = "cam-7"
    data = "/nowhere"
    [uplink]
    brokers = ["mqtt://127.0.0.1:1"]
    [camera]
    url = "x.mp4"
    [[zones]]
    name = "street"
    polygon = [[0, 0], [1, 0], [1, 1], [0, 1]]
    [calendar]
    time_zone = "Asia/Ho_Chi_Minh"
    unsynchronised = "inactive"
    [[schedules]]
    name = "night"
    hours = ["22:00-06:00"]
    [[rules]]
    name = "nobody-at-night"
    kind = "enters"
    zones = ["street"]
    labels = ["person"]
    during = ["night"]
"""


@pytest.mark.parametrize(("at", "told"), [("23:30", True), ("12:00", False), (None, False)])
def test_a_rule_with_hours_is_replayed_at_the_hour_that_is_told(
    footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], at: str | None, told: bool
) -> None:
    config = tmp_path / "node.toml"
    config.write_text(textwrap.dedent(FORBIDDEN))
    when = [] if at is None else ["--at", f"2026-12-24T{at}:00+07:00"]
    events, _ = replayed(capsys, str(footage), "--config", str(config), *when)
    assert ("nobody-at-night" in json.dumps(events)) is told


def test_a_time_that_is_none_is_one_clear_line(footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(footage), "--at", "noon"]) == 78
    assert "--at" in capsys.readouterr().err
