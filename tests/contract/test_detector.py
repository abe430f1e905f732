"""What every detector driver promises, and what a wrong model is told."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.assets import Assets
from agent.errors import ConfigError, Transient
from agent.types import Detection, Label
from agent.vision.detector import Detector
from agent.vision.detector.none import NoDetector
from agent.vision.detector.tflite import TfliteDetector
from tests.fakes import models
from tests.fakes.detector import FakeDetector, bright_spots

YOLOX = Path(__file__).resolve().parents[3] / "shared" / "data" / "yolox_nano_nhwc_fp16.tflite"


@pytest.fixture(params=["tflite", "none", "fake"])
def detector(request: pytest.FixtureRequest, assets: Assets) -> Detector:
    if request.param == "tflite":
        return TfliteDetector(model=assets.model(), labels=assets.labels())
    return NoDetector() if request.param == "none" else FakeDetector(bright_spots())


def test_it_finds_labels_scores_and_boxes_within_bounds_best_first(detector: Detector) -> None:
    detector.open()
    assert detector.name
    assert detector.input_px >= 0
    picture = np.random.default_rng(3).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    picture[60:180, 100:140] = 255
    for score_min in (0.05, 0.3):
        found = detector.detect(picture, score_min)
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
        for one in found:
            assert isinstance(one, Detection) and isinstance(one.label, Label)
            assert score_min <= one.score <= 1
            assert 0 <= one.box.x <= one.box.x2 <= 1 + 1e-6 and 0 <= one.box.y <= one.box.y2 <= 1 + 1e-6


def test_it_says_the_same_of_the_same_picture_and_leaves_the_picture_alone(detector: Detector) -> None:
    detector.open()
    picture = np.random.default_rng(4).integers(0, 255, (200, 100, 3), dtype=np.uint8)
    before = picture.copy()
    assert detector.detect(picture, 0.1) == detector.detect(picture, 0.1)
    np.testing.assert_array_equal(picture, before)


def test_it_can_be_opened_again(detector: Detector) -> None:
    detector.open()
    detector.open()
    assert detector.detect(np.zeros((50, 50, 3), np.uint8), 0.5) == []


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 900, 3), (900, 2, 3), (1080, 1920, 3)])
def test_any_picture_with_pixels_will_do(detector: Detector, shape: tuple[int, int, int]) -> None:
    detector.open()
    detector.detect(np.full(shape, 127, np.uint8), 0.3)


def test_a_picture_without_pixels_and_a_closed_model_are_transient(assets: Assets) -> None:
    driver = TfliteDetector(model=assets.model(), labels=assets.labels())
    with pytest.raises(Transient, match="not open"):
        driver.detect(np.zeros((10, 10, 3), np.uint8), 0.3)
    driver.open()
    with pytest.raises(Transient, match="no pixels"):
        driver.detect(np.zeros((0, 10, 3), np.uint8), 0.3)


def test_the_models_that_cannot_work_are_told_apart_in_one_line(assets: Assets, tmp_path: Path) -> None:
    good_model, good_labels = assets.model(), assets.labels()
    text = tmp_path / "text.tflite"
    text.write_text("this is not a model at all")
    torn = tmp_path / "torn.tflite"
    torn.write_bytes(good_model.read_bytes()[:50_000])
    few = tmp_path / "few.txt"
    few.write_text("person\ncar\n")
    other = tmp_path / "other.txt"
    other.write_text("spoon\nfork\n")
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    cases = [
        (tmp_path / "missing.tflite", good_labels, "no such model"),
        (tmp_path, good_labels, "cannot be read"),
        (text, good_labels, "not a TensorFlow Lite model"),
        (torn, good_labels, "refuses it"),
        (good_model, tmp_path / "missing.txt", "no such label map"),
        (good_model, few, "tells 24 classes apart but the label map has 2 names"),
        (good_model, other, "wrong file"),
        (good_model, empty, "holds 0 names"),
    ]
    for model, labels, words in cases:
        with pytest.raises(ConfigError, match=words) as caught:
            TfliteDetector(model=model, labels=labels).open()
        assert "\n" not in str(caught.value)
        assert str(model) in str(caught.value) or str(labels) in str(caught.value)


def test_without_a_runtime_it_says_what_to_install(assets: Assets, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] in {"ai_edge_litert", "tflite_runtime"}:
            raise ImportError(name)
        return real(name, *rest, **more)

    for module in [name for name in sys.modules if name.startswith("ai_edge_litert.interpreter")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="pip install ai-edge-litert"):
        TfliteDetector(model=assets.model(), labels=assets.labels()).open()


def test_people_and_bicycles_are_found_on_real_footage(assets: Assets) -> None:
    import av

    driver = TfliteDetector(model=assets.model(), labels=assets.labels())
    driver.open()
    best: dict[Label, float] = {}
    with av.open(str(assets.footage())) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % 10 == 0:
                for one in driver.detect(np.asarray(frame.to_ndarray(format="bgr24"), np.uint8), 0.3):
                    best[one.label] = max(best.get(one.label, 0), one.score)
    assert best[Label.PERSON] > 0.5
    assert best[Label.BICYCLE] > 0.4


@pytest.mark.skipif(not YOLOX.exists(), reason="evaluation data is not on this machine")
def test_a_yolox_model_works_with_its_own_labels(assets: Assets, tmp_path: Path) -> None:
    import av

    labels = tmp_path / "coco.txt"
    labels.write_text("\n".join(["person", "bicycle", "car", *(f"thing {n}" for n in range(77))]))
    driver = TfliteDetector(model=YOLOX, labels=labels)
    driver.open()
    assert driver.input_px == 416
    with av.open(str(assets.footage())) as container:
        found = [
            one
            for index, frame in enumerate(container.decode(video=0))
            if index % 25 == 0
            for one in driver.detect(np.asarray(frame.to_ndarray(format="bgr24"), np.uint8), 0.4)
        ]
    assert any(one.label is Label.PERSON for one in found)


def test_the_squares_it_can_look_at_end_with_the_largest_and_each_shows_the_same_world(detector: Detector) -> None:
    detector.open()
    assert list(detector.sides_px) == sorted(set(detector.sides_px))
    assert detector.sides_px[-1:] == ((detector.input_px,) if detector.input_px else ())
    picture = np.random.default_rng(5).integers(0, 255, (150, 150, 3), dtype=np.uint8)
    before = detector.detect(picture, 0.05)
    for side_px in detector.sides_px:
        detector.detect(picture, 0.3, side_px)
    assert detector.detect(picture, 0.05) == before, "what it looked at before leaves no trace"


def test_the_default_model_looks_at_smaller_squares_and_one_with_its_boxes_counted_only_at_its_own(
    assets: Assets, tmp_path: Path
) -> None:
    driver = TfliteDetector(model=assets.model(), labels=assets.labels())
    driver.open()
    assert driver.sides_px == (140, 172, 204, 236, 268, 300)
    published = models.counted_boxes(assets.model(), tmp_path / "published.tflite", boxes=1917)
    fixed = TfliteDetector(model=published, labels=assets.labels())
    fixed.open()
    assert fixed.sides_px == (300,)
    picture = np.random.default_rng(6).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    assert fixed.detect(picture, 0.05) == driver.detect(picture, 0.05), "the edit changes nothing at 300 pixels"
