"""Settings: every mistake is named with its path, all at once, and nothing but ConfigError ever comes out."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import config
from agent.config import Config, Settings, load, problems
from agent.errors import ConfigError

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "deploy/node.example.toml"
MINIMAL: dict[str, Any] = {
    "node": {"site": "s", "id": "n", "data": "/data"},
    "camera": {},
    "uplink": {"brokers": ["mqtt://localhost:1883"]},
}


def edited(**tables: Any) -> dict[str, Any]:
    """The smallest right configuration with some tables changed."""
    return {**MINIMAL, **{name: {**MINIMAL.get(name, {}), **table} for name, table in tables.items()}}


def fields(kind: type[Settings], path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, default or NODEFAULT, class of a table or None) of every setting, tables first."""
    hints = get_type_hints(kind, include_extras=True)
    for field in msgspec.structs.fields(kind):
        where = f"{path}.{field.name}" if path else field.name
        inner = config._settings_of(hints[field.name])
        yield where, field.default, inner
        if inner is not None:
            yield from fields(inner, where)


def at(tables: dict[str, Any], path: str) -> Any:
    """The value at a path; the first item of a list of tables."""
    value: Any = tables
    for key in path.split("."):
        value = value[0] if isinstance(value, list) else value
        value = value[key]
    return value


# -- the example ---------------------------------------------------------------------------------------------------


def uncommented() -> dict[str, Any]:
    """The example with the settings that are unset by default switched on: lines like `#bell = 17`."""
    text = re.sub(r"(?m)^#(?=[a-z_]+ = |\[)", "", EXAMPLE.read_text(encoding="utf-8"))
    return tomllib.loads(text)


def test_the_example_loads() -> None:
    example = load(EXAMPLE, Config)
    assert example.panel.bell is None
    assert example.zones == ()


def test_the_example_with_everything_switched_on_is_right_too() -> None:
    assert problems(uncommented(), Config) == []


@pytest.mark.parametrize(("path", "default", "table"), [pytest.param(*f, id=f[0]) for f in fields(Config)])
def test_every_setting_stands_in_the_example_with_its_default(path: str, default: Any, table: Any) -> None:
    value = at(uncommented(), path)  # KeyError: the example lacks it
    if table is None and default is not msgspec.NODEFAULT and default is not None:
        listed = path.startswith(("zones", "lines", "schedules", "rules"))  # none by default: their lines are comments
        example = value if listed else at(tomllib.loads(EXAMPLE.read_text(encoding="utf-8")), path)
        assert example == (list(default) if isinstance(default, tuple) else default)
    elif default is None and table is None:
        assert value is not None


def test_the_wiring_page_and_the_example_name_the_same_pins() -> None:
    rows = re.findall(r"(?m)^\| `(\w+)` \| (\d+) \| (\d+) \|", (ROOT / "hardware/wiring.md").read_text("utf-8"))
    panel = uncommented()["panel"]
    assert {name: int(bcm) for name, bcm, _ in rows} == {
        name: panel[name] for name in ("bell", "tamper", "mains_lost", "privacy", "siren", "lamp", "led")
    }
    headers = {5: 29, 17: 11, 27: 13, 22: 15, 23: 16, 24: 18, 25: 22}  # of every Raspberry Pi with 40 pins
    assert {int(bcm): int(header) for _, bcm, header in rows} == headers


# -- mistakes ------------------------------------------------------------------------------------------------------


def test_the_smallest_configuration_is_right() -> None:
    assert problems(MINIMAL, Config) == []


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        (edited(camera={"with": 640}), "camera.with: unknown key; did you mean camera.width?"),
        (edited(camera={"bitrate": 640}), "camera.bitrate: unknown key; did you mean camera.bitrate_kbps?"),
        ({**MINIMAL, "recordings": {}}, "recordings: unknown key; did you mean recording?"),
        (
            edited(vision={"detector": {"thread": 1}}),
            "vision.detector.thread: unknown key; did you mean vision.detector.threads?",
        ),
        ({**MINIMAL, "zones": [{"name": "a", "polygn": []}]}, "zones[0].polygn: unknown key"),
        (edited(node={"id": "Gate North"}), "node.id: 'Gate North'"),
        (edited(camera={"fps": "fast"}), "camera.fps: 'fast'"),
        (edited(camera={"width": 640.5}), "camera.width: 640.5"),
        (edited(camera={"loop": 1}), "camera.loop: 1"),
        (edited(camera={"driver": "usb"}), "camera.driver: 'usb'"),
        (edited(camera={"privacy_masks": [[[0.1, 2.0]]]}), "camera.privacy_masks:"),
        (edited(panel={"bell": 28}), "panel.bell: 28"),
        (edited(uplink={"brokers": []}), "uplink.brokers:"),
        (edited(uplink={"tls": {}}), "uplink.tls.ca: missing"),
        (edited(uplink={"tls": "yes"}), "uplink.tls"),
        (edited(recording={"segment_s": 5}), "recording.segment_s: 5"),
        ({**MINIMAL, "node": "gate"}, "node"),
        ({**MINIMAL, "zones": {"name": "a"}}, "zones"),
        ({**MINIMAL, "lines": [{"name": "a", "points": [[0, 0]]}]}, "lines[0].points: "),
        (
            {**MINIMAL, "schedules": [{"name": "a", "hours": ["25:00-26:00"]}]},
            'schedules[0].hours: Expected hours like "22:00-06:00"',
        ),
        ({**MINIMAL, "schedules": [{"name": "a", "hours": []}]}, "schedules[0].hours: "),
        (
            {**MINIMAL, "rules": [{"name": "a", "kind": "entres"}]},
            "rules[0].kind: 'entres': invalid enum value 'entres'; did you mean 'enters'?",
        ),
        (
            {**MINIMAL, "rules": [{"name": "a", "kind": "enters", "labels": ["persn"]}]},
            "rules[0].labels: Invalid enum value 'persn' (at [0]); did you mean 'person'?",
        ),
        (edited(calendar={"timezone": "UTC"}), "calendar.timezone: unknown key; did you mean calendar.time_zone?"),
        (edited(vision={"ignore_masks": [[[0.1, 2.0]]]}), "vision.ignore_masks:"),
        ({**MINIMAL, "zones": [7]}, "zones[0]"),
        # [zones] where [[zones]] is meant, and the other way round: every value in it may be right
        (
            {**MINIMAL, "zones": {"name": "a", "polygon": [[0, 0], [1, 0], [1, 1]]}},
            "zones: is one table, should be a list of them: write [[zones]]",
        ),
        ({**MINIMAL, "rules": {"name": "a", "kind": "crowd"}}, "rules: is one table, should be a list"),
        ({**MINIMAL, "calendar": [{"time_zone": "UTC"}]}, "calendar: is a list, should be one table: write [calendar]"),
        (edited(vision={"tamper": [{"enabled": True}]}), "vision.tamper: is a list, should be one table"),
        (
            {**MINIMAL, "rules": [{"name": f"r{number}", "kind": "crowd"} for number in range(33)]},
            "rules: has 33 entries; 32 at most",
        ),
        (edited(vision={"ignore_masks": [[[0, 0], [1, 0], [1, 1]]] * 33}), "vision.ignore_masks:"),
        (edited(camera={"privacy_masks": [[[0.5, number / 100] for number in range(65)]]}), "camera.privacy_masks:"),
        ({k: v for k, v in MINIMAL.items() if k != "node"}, "node: missing"),
    ],
)
def test_a_mistake_is_named_with_its_path(tables: dict[str, Any], expected: str) -> None:
    found = problems(tables, Config)
    assert any(line.startswith(expected) for line in found), found
    assert not any("\n" in line or "$" in line for line in found)


def leaves() -> list[str]:
    return [
        path
        for path, _default, table in fields(Config)
        if table is None and not path.startswith(("zones", "lines", "schedules", "rules"))
    ]


@pytest.mark.parametrize("path", leaves())
@pytest.mark.parametrize("wrong", [{"a": 1}, [[["x"]]], -(10**30), "\x00 no"], ids=["table", "list", "huge", "text"])
def test_every_setting_refuses_what_it_cannot_be(path: str, wrong: Any) -> None:
    *tables, key = path.split(".")
    spoiled: dict[str, Any] = {name: dict(table) for name, table in MINIMAL.items()}
    place = spoiled
    for table in tables:
        place = place.setdefault(table, {})
    if path.startswith("uplink.tls."):
        place["ca"] = "x"
    place[key] = wrong
    found = problems(spoiled, Config)
    if isinstance(wrong, str) and isinstance(at_hint(path), type) and at_hint(path) is str:
        assert found == []  # a free text may be anything
    else:
        assert any(line.startswith(path) for line in found), found


def at_hint(path: str) -> Any:
    kind: Any = Config
    *tables, key = path.split(".")
    for table in tables:
        kind = config._settings_of(get_type_hints(kind, include_extras=True)[table])
    return get_type_hints(kind, include_extras=True)[key]


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[node]\nsite="S!"\nid="n"\n[camera]\nfpss=1\nwidth="x"\n[uplink]\nbrokers=[]\n[nonsense]\n')
    with pytest.raises(ConfigError) as caught:
        load(file, Config)
    lines = str(caught.value).splitlines()
    assert len(lines) == 6 and all(line.startswith(f"{file}: ") for line in lines)
    for where in ("node.site", "node.data", "camera.fpss", "camera.width", "uplink.brokers", "nonsense"):
        assert any(f"{file}: {where}" in line for line in lines), where


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no such file; start from deploy/node.example.toml"),
        (b"[node\n", "not TOML: .*line 1"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"", "node: missing"),
        (b"\xef\xbb\xbf[node]\n", "byte order mark"),
    ],
)
def test_a_file_that_is_none_says_so(tmp_path: Path, content: bytes | None, expected: str) -> None:
    file = tmp_path / "node.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        load(file, Config)


def test_a_folder_instead_of_a_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path, Config)


TOML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["node", "camera", "fps", "zones", "tls", "brokers", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=120, deadline=None)
@given(st.dictionaries(st.sampled_from([*(f.name for f in msgspec.structs.fields(Config)), "x", ""]), TOML))
@pytest.mark.parametrize("rest", [{}, MINIMAL], ids=["alone", "beside what is needed"])
def test_no_tables_whatever_make_it_stumble(rest: dict[str, Any], tables: dict[str, Any]) -> None:
    tables = {**rest, **tables}
    found = problems(tables, Config)
    try:
        msgspec.convert(tables, Config)
    except msgspec.ValidationError:
        assert found, "msgspec refuses what `problems` lets pass"
    else:
        assert found == [], "`problems` refuses what msgspec takes"


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_whatever_give_anything_but_a_config_error(content: bytes) -> None:
    file = Path(f"/proc/self/fd/{memfd(content)}")
    with pytest.raises(ConfigError):
        load(file, Config)


def memfd(content: bytes) -> int:
    """A file without a folder, closed with the next one: hypothesis and tmp_path do not go together."""
    import os

    global _FD  # noqa: PLW0603
    if _FD >= 0:
        os.close(_FD)
    _FD = os.memfd_create("config")
    os.write(_FD, content)
    return _FD


_FD = -1


def test_a_number_without_end_is_one_line(tmp_path: Path) -> None:
    """Found by the fuzzer: an integer of more than 4,300 digits is a ValueError that is no TOMLDecodeError."""
    path = tmp_path / "node.toml"
    path.write_text("a = " + "9" * 5000)
    with pytest.raises(ConfigError, match="not TOML") as told:
        config.read_toml(path)
    assert len(str(told.value)) < 300


def test_brackets_nested_without_end_are_one_line(tmp_path: Path) -> None:
    """Found by the fuzzer: the standard library's parser gives up with a RecursionError."""
    path = tmp_path / "node.toml"
    path.write_text("a = " + "[" * 5000 + "]" * 5000)
    with pytest.raises(ConfigError, match="nested"):
        config.read_toml(path)
