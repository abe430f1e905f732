"""From the names of a model's classes to ours. Pure, but for reading the file."""

from __future__ import annotations

from pathlib import Path

from agent.errors import ConfigError
from agent.types import Label

NAMES_MAX = 10_000  # a longer list is not a label map

_LABELS = {
    Label.PERSON: ("person", "man", "woman", "boy", "girl", "pedestrian", "people"),
    Label.VEHICLE: ("car", "vehicle", "truck", "bus", "van", "motorcycle", "motorbike", "train", "taxi"),
    Label.BICYCLE: ("bicycle", "bike"),
    Label.ANIMAL: (
        "animal", "dog", "cat", "cattle", "cow", "bull", "horse", "sheep", "goat", "pig", "bear", "elephant", "zebra",
        "giraffe", "deer", "monkey", "bird",
    ),
}  # fmt: skip
_BY_NAME = {name: label for label, names in _LABELS.items() for name in names}


def label_of(name: str) -> Label | None:
    """Our label for a class a model knows as `name`, or None for a class that nobody is alerted about."""
    return _BY_NAME.get(name.strip().lower().replace("_", " "))


def is_background(name: str) -> bool:
    """Whether `name` is how label maps write the class of nothing at all."""
    return name.strip().lower() in {"???", "background", "__background__"}


def read_names(path: Path) -> list[str]:
    """Names of a model's classes, one a line. Raises ConfigError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such label map; set vision.detector.labels to the one made for the model"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the label map cannot be read: {error}") from None
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines or len(lines) > NAMES_MAX:
        raise ConfigError(f"{path}: holds {len(lines)} names; a label map has one class name on each line")
    if not any(label_of(name) for name in lines):
        raise ConfigError(
            f"{path}: none of its {len(lines)} names is a person, vehicle, bicycle or animal: wrong file?"
        )
    return lines
