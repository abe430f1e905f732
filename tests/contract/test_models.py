"""Every family and number format of models, with real models: one picture, the same persons, whatever the form."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from agent.assets import Assets
from agent.cli import main
from agent.errors import ConfigError
from agent.types import Bgr, Detection
from agent.vision.detector.tflite import TfliteDetector
from tests.fakes import models

Make = Callable[[Path, Path], Path]
FORMS: dict[str, tuple[Make, str, float]] = {
    "probabilities": (models.probabilities, "SSD without post-processing, scores", 0.001),
    "post-processing": (models.post_processed, "SSD with post-processing", 0.001),
    "int8": (lambda a, b: models.eight_bit(a, b, kind=schema.TensorType.INT8), "300x300 int8", 0.08),
    "uint8": (lambda a, b: models.eight_bit(a, b, kind=schema.TensorType.UINT8), "300x300 uint8", 0.08),
}


@pytest.fixture(scope="module")
def street(assets: Assets) -> Bgr:
    """A picture of the sample footage with a person and a bicycle."""
    import av

    with av.open(str(assets.footage())) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index == 200:
                return np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
    raise AssertionError("the sample footage is too short")


def seen(detector: TfliteDetector, picture: Bgr, *, above: float = 0.4) -> list[Detection]:
    detector.open()
    return [one for one in detector.detect(picture, 0.3) if one.score > above]


@pytest.mark.parametrize("form", FORMS)
def test_the_same_network_in_another_form_sees_the_same(form: str, assets: Assets, street: Bgr, tmp_path: Path) -> None:
    make, about, tolerance = FORMS[form]
    plain = seen(TfliteDetector(model=assets.model(), labels=assets.labels()), street)
    assert plain, "there is somebody to see"
    other = TfliteDetector(model=make(assets.model(), tmp_path / "m.tflite"), labels=assets.labels())
    found = seen(other, street, above=0.4 - tolerance)
    assert about in other.about
    for one in plain:
        twin = max(found, key=lambda each: (each.label is one.label) * each.box.iou(one.box))
        assert twin.label is one.label
        assert twin.box.iou(one.box) > (0.98 if tolerance < 0.01 else 0.8)
        assert abs(twin.score - one.score) <= tolerance


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_of_nothing_is_nothing_in_every_form(form: str, assets: Assets, tmp_path: Path) -> None:
    detector = TfliteDetector(model=FORMS[form][0](assets.model(), tmp_path / "m.tflite"), labels=assets.labels())
    assert seen(detector, np.full((300, 300, 3), 127, np.uint8)) == []


# -- accelerators -----------------------------------------------------------------------------------------------------

DELEGATE = r"""
#include <stdint.h>
#include <stdlib.h>
typedef struct D { void *data; int (*prepare)(void *, struct D *); void *copy_from, *copy_to, *release; int64_t flags;
                   void *builder; } D;
static int prepare(void *context, D *self) { (void)context; (void)self; return 0; }
D *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
  (void)keys; (void)values; (void)count;
  if (REFUSE) { report("no such device on the bus"); return 0; }
  D *made = calloc(1, sizeof(D));
  made->prepare = prepare;
  return made;
}
void tflite_plugin_destroy_delegate(D *delegate) { free(delegate); }
"""


def library(folder: Path, *, refuse: bool) -> Path:
    """A delegate as accelerators ship them: it takes no operator, or says that its device is missing."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler on this machine")
    source, target = folder / "delegate.c", folder / "libaccelerator.so.1"
    source.write_text(DELEGATE.replace("REFUSE", str(int(refuse))))
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(target), str(source)], check=True)
    return target


def test_a_delegate_is_loaded_and_named(assets: Assets, street: Bgr, tmp_path: Path) -> None:
    plain = seen(TfliteDetector(model=assets.model(), labels=assets.labels()), street)
    detector = TfliteDetector(model=assets.model(), labels=assets.labels(), delegate=library(tmp_path, refuse=False))
    assert seen(detector, street) == plain
    assert detector.name == "tflite: ssd.tflite on libaccelerator.so.1"


@pytest.mark.parametrize(
    ("delegate", "says"),
    [("/nowhere/libedgetpu.so.1", "no such library"), ("libm.so.6", "tflite_plugin_create_delegate"),
     ("libedgetpu-none.so.9", "cannot be used")],
)  # fmt: skip
def test_an_accelerator_that_is_not_there_is_one_clear_line(assets: Assets, delegate: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        TfliteDetector(model=assets.model(), labels=assets.labels(), delegate=Path(delegate)).open()
    assert "\n" not in str(refused.value) and "vision.detector.delegate" in str(refused.value)


def test_a_device_that_is_unplugged_is_told_in_the_librarys_own_words(assets: Assets, tmp_path: Path) -> None:
    broken = library(tmp_path, refuse=True)
    with pytest.raises(ConfigError, match="no such device on the bus"):
        TfliteDetector(model=assets.model(), labels=assets.labels(), delegate=broken).open()


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def cached(assets: Assets, monkeypatch: pytest.MonkeyPatch) -> Assets:
    assets.model(), assets.labels()
    monkeypatch.setenv("WARDPOST_CACHE", str(assets.cache))
    return assets


def test_a_model_of_ones_own_is_tried_on_a_picture(
    cached: Assets, street: Bgr, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "street.png"), street)
    model = models.post_processed(cached.model(), tmp_path / "mine.tflite")
    arguments = ["model", "test", "--model", str(model), "--labels", str(cached.labels())]
    assert main([*arguments, "--picture", str(tmp_path / "street.png"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["about"] == "300x300 float32, SSD with post-processing"
    assert told["load_ms"] > 0 and told["pictures"][0]["ms"] > 0 and told["pictures"][0]["size"] == [640, 272]
    assert {one["label"] for one in told["pictures"][0]["detections"]} & {"person", "bicycle"}
    assert main([*arguments, "--picture", str(tmp_path / "street.png")]) == 0
    assert "ms an inference" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["test", "--model", "/etc/passwd"], "needs its own label map"),
        (["test", "--picture", "/nowhere.png"], "cannot be read"),
        (["list", "--model", "m.tflite"], "belong to `model test`"),
        (["fetch", "--json"], "belong to `model test`"),
    ],
)
def test_a_wrong_question_is_one_line(
    cached: Assets, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", *arguments]) == 78
    assert says in capsys.readouterr().err
