"""Settings: TOML to frozen typed values. `deploy/node.example.toml` documents each one.

Unknown keys are errors that name their path and the nearest right name: a setting nobody reads is a setting that
somebody relies on. `problems` finds everything that is wrong, not only the first thing.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from agent.errors import ConfigError

Id = Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,32}$(?!\n)")]
Unit = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1)]
Pin = Annotated[int, Meta(ge=0, le=27)]
ENTRIES_MAX = 32  # zones, lines, schedules, rules, masks: of each
Polygon = Annotated[tuple[tuple[Unit, Unit], ...], Meta(max_length=64)]
Masks = Annotated[tuple[Polygon, ...], Meta(max_length=ENTRIES_MAX)]


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table of the file."""


class NodeSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[node]: who this post is."""

    site: Id
    id: Id
    data: str  # folder, on its own partition
    place: str = ""  # in words, for the people who receive an alert


class CameraSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[camera]: where pictures come from."""

    driver: Literal["picamera2", "stream"] = "picamera2"
    url: str = ""  # stream: rtsp://..., /dev/video0, or a file
    sub_url: str = ""  # stream: a small stream of the same camera, to look at; the other one is kept
    width: Annotated[int, Meta(ge=160, le=4096)] = 1280
    height: Annotated[int, Meta(ge=120, le=3072)] = 720
    fps: Annotated[float, Meta(gt=0, le=120)] = 15
    bitrate_kbps: Annotated[int, Meta(ge=100, le=50_000)] = 2500
    loop: bool = False  # a file starts again at its end
    paced: bool = True  # a file is played at its own speed
    stall_s: Annotated[float, Meta(ge=1, le=60)] = 4.0  # no frame for so long means that the camera is lost
    privacy_masks: Masks = ()  # privacy: polygons, 0..1, blackened before encoding


class DetectorSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[vision.detector]: which model looks at what moves."""

    driver: Literal["tflite", "none"] = "tflite"
    model: str = ""  # path; empty: the pinned default, from `wardpost model fetch`
    labels: str = ""  # path of a text file, one label a line; empty: the default model's
    threads: Annotated[int, Meta(ge=1, le=4)] = 1
    delegate: str = ""  # path of an accelerator's TFLite library (libedgetpu.so.1); empty: the CPU


class TamperSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[vision.tamper]: what is wrong with the camera's view, and how long it must be."""

    enabled: bool = True
    confirm_s: Annotated[float, Meta(ge=1, le=600)] = 15.0  # a bus that passes is gone before this
    clear_s: Annotated[float, Meta(ge=1, le=600)] = 10.0  # a normal view for so long ends the incident
    frozen_s: Annotated[float, Meta(ge=5, le=3600)] = 60.0  # the same picture, noise and all, for so long
    adopt_h: Annotated[float, Meta(gt=0, le=720)] = 12.0  # after so long, another view or focus is the normal one
    alert_on: tuple[Literal["covered", "turned", "defocused", "dark", "bright", "frozen", "infrared"], ...] = (
        "covered",
        "turned",
        "defocused",
        "dark",
        "frozen",
    )


class VisionSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[vision]: what is looked at, and what is worth an alert."""

    analysis_fps: Annotated[float, Meta(gt=0, le=30)] = 5.0
    luma_px: Annotated[int, Meta(ge=96, le=1280)] = 320  # width of the low-resolution picture
    motion_area_min: Annotated[float, Meta(gt=0, lt=1)] = 0.0008  # of the picture
    motion_s: Annotated[float, Meta(gt=0, le=60)] = 2.0  # motion that no object explains must last so long
    score_min: Unit = 0.4  # a track needs this once to be confirmed
    confirm_frames: Annotated[int, Meta(ge=1, le=20)] = 3
    gone_s: Annotated[float, Meta(gt=0, le=60)] = 3.0  # unseen for so long: the incident has ended
    update_s: Annotated[float, Meta(ge=1, le=3600)] = 10.0  # at most one `updated` in so long
    alert_on: tuple[Literal["person", "vehicle", "bicycle", "animal", "motion"], ...] = ("person",)  # without [[rules]]
    static_s: Annotated[float, Meta(ge=0, le=86_400)] = 600.0  # what never moves for so long is ignored; 0: never
    ignore_masks: Masks = ()  # polygons, 0..1: recorded, but not looked at
    detector: DetectorSettings = DetectorSettings()
    tamper: TamperSettings = TamperSettings()


class ZoneSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[[zones]]: a named polygon, 0..1 of the picture. An object is in the zone in which its foot stands."""

    name: Id
    polygon: Annotated[tuple[tuple[Unit, Unit], ...], Meta(min_length=3, max_length=64)]


class LineSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[[lines]]: a named line, 0..1 of the picture, for rules of the kind `crosses`."""

    name: Id
    points: Annotated[tuple[tuple[Unit, Unit], ...], Meta(min_length=2, max_length=2)]


class CalendarSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[calendar]: in which time zone schedules are meant, and what counts while the clock is wrong."""

    time_zone: str = "UTC"  # IANA name
    unsynchronised: Literal["active", "inactive"] = (
        "active"  # rules with a schedule, while nobody vouches for the clock
    )


class ScheduleSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[[schedules]]: a named set of windows in local time. One across midnight belongs to the day it begins on."""

    name: Id
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = (
        "mon", "tue", "wed", "thu", "fri", "sat", "sun",
    )  # fmt: skip
    hours: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d-(([01]\d|2[0-3]):[0-5]\d|24:00)$(?!\n)")], ...],
        Meta(min_length=1, max_length=16),
    ]
    except_on: Annotated[tuple[str, ...], Meta(max_length=64)] = ()  # 2026-12-24, or 2026-12-24/2027-01-06


class RuleSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[[rules]]: what is worth an alert. With any rule, `vision.alert_on` is not asked."""

    name: Id
    kind: Literal["enters", "leaves", "crosses", "loiters", "crowd", "congestion", "forbidden", "allowed-only"]
    zones: Annotated[tuple[Id, ...], Meta(max_length=32)] = ()  # in any of them; empty: the whole picture
    line: str = ""  # crosses: the name of a line
    direction: Literal["any", "left", "right"] = "any"  # crosses: to that side of who looks from its first point
    labels: tuple[Literal["person", "vehicle", "bicycle", "animal"], ...] = ()  # empty: person; congestion: vehicle
    for_s: Annotated[float, Meta(ge=0, le=86_400)] = 30.0  # loiters, crowd, congestion
    count: Annotated[int, Meta(ge=1, le=30)] = 5  # crowd, congestion
    severity: Literal["alert", "notice"] = "alert"
    cooldown_s: Annotated[float, Meta(ge=0, le=86_400)] = 30.0  # so long after an alert of this rule, it gives notices
    during: Annotated[tuple[Id, ...], Meta(max_length=16)] = ()  # schedules in which it counts; empty: always
    outside: Annotated[tuple[Id, ...], Meta(max_length=16)] = ()  # schedules in which it does not


class RecordingSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[recording]: how much is kept."""

    segment_s: Annotated[float, Meta(ge=10, le=60)] = 30.0
    fragment_s: Annotated[float, Meta(ge=0.25, le=2)] = 0.5  # a power cut costs this and a sync: under 1 s
    budget_gb: Annotated[float, Meta(gt=0)] = 24.0
    keep_days_max: Annotated[float, Meta(gt=0, le=3660)] = 30.0
    free_gb_min: Annotated[float, Meta(ge=0)] = 0.5  # always left free, whatever the budget
    preroll_s: Annotated[float, Meta(ge=0, le=600)] = 10.0  # footage so long before an event outlives ordinary footage
    postroll_s: Annotated[float, Meta(ge=0, le=600)] = 30.0  # and so long after it
    event_share_max: Annotated[float, Meta(ge=0, le=0.45)] = 0.4  # of the budget, for footage around events
    event_days_max: Annotated[float, Meta(gt=0, le=3660)] = 90.0
    hold_share_max: Annotated[float, Meta(ge=0, le=0.45)] = 0.4  # of the budget, for what is held
    hold_days_max: Annotated[float, Meta(gt=0, le=3660)] = 180.0  # the longest `until` of a hold
    young_h: Annotated[float, Meta(ge=0, le=8760)] = 24.0  # footage younger than this should not have to go
    notice_h: Annotated[float, Meta(ge=0, le=168)] = 2.0  # so long before it has to, headquarters is told
    queue_s_max: Annotated[float, Meta(gt=0, le=60)] = 10.0  # footage in memory while the disk stalls
    queue_mb_max: Annotated[int, Meta(ge=1, le=512)] = 32
    seal_key: str = ""  # path of the station's X25519 public key (PEM): footage is written so that only it can read it


class StoreSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[store]: how much is remembered."""

    outbox_rows_max: Annotated[int, Meta(ge=100, le=10_000_000)] = 50_000
    event_rows_max: Annotated[int, Meta(ge=100, le=10_000_000)] = 200_000


class TlsSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[uplink.tls]: paths of PEM files."""

    ca: str
    cert: str = ""
    key: str = ""


class UplinkSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[uplink]: where headquarters is."""

    brokers: Annotated[tuple[str, ...], Meta(min_length=1, max_length=8)]  # mqtt://host:1883 or mqtts://host:8883
    username: str = ""
    password_file: str = ""
    tls: TlsSettings | None = None
    keepalive_s: Annotated[int, Meta(ge=5, le=120)] = 20
    backoff_s_max: Annotated[float, Meta(ge=1, le=60)] = 10.0
    window_rows_max: Annotated[int, Meta(ge=1, le=1000)] = 250  # sent, not yet acknowledged by the station
    ack_timeout_s: Annotated[float, Meta(ge=1, le=300)] = 10.0
    command_key: str = ""  # path of the station's Ed25519 public key (PEM); without one, commands that act are refused
    station_key: str = ""  # of the station's receipts: 64 hex digits or a PEM file; else the first one is believed


class PanelSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[panel]: what is wired to the post. Pins are BCM numbers; hardware/wiring.md draws them."""

    driver: Literal["gpio", "none"] = "none"
    bell: Pin | None = None  # input, pulled up, closes to ground
    tamper: Pin | None = None  # input, pulled up, opens when the box is opened
    mains_lost: Pin | None = None  # input, pulled up, closes to ground when the mains is gone
    siren: Pin | None = None  # output
    lamp: Pin | None = None  # output
    led: Pin | None = None  # output
    privacy: Pin | None = None  # input, pulled up, closes to ground: nothing is recorded or looked at
    debounce_ms: Annotated[int, Meta(ge=1, le=1000)] = 50
    privacy_s_max: Annotated[float, Meta(ge=1, le=86_400)] = 900.0  # privacy ends by itself, whoever asked for it
    siren_s_max: Annotated[float, Meta(gt=0, le=600)] = 60.0
    signals_during: Annotated[tuple[Id, ...], Meta(max_length=32)] = ()  # schedules; headquarters' siren, lamp: no else


class HealthSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[health]: how often the post says that it lives."""

    heartbeat_s: Annotated[float, Meta(ge=1, le=600)] = 30.0


class ReleaseSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[release]: how the agent is replaced by a newer one, and when a new one counts as good."""

    key: str = ""  # the site's release key, Ed25519: 64 hex digits or a PEM file; without one no release is believed
    root: str = "/opt/wardpost"  # holds releases/ and current
    gate_s: Annotated[float, Meta(ge=30, le=3600)] = 300.0  # frames and storage within so long, or it is rolled back
    network_s: Annotated[float, Meta(ge=30, le=86_400)] = 900.0  # a broker within so long
    download_mb_max: Annotated[int, Meta(ge=1, le=1024)] = 400


class SetupPageSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[setup_page]: the page that a technician at the post sees while he installs it."""

    code: Annotated[str, Meta(pattern=r"^([A-HJ-NP-Z2-9]{5}-?[A-HJ-NP-Z2-9]{5})?$(?!\n)")] = ""  # empty: no page
    addresses: Annotated[tuple[str, ...], Meta(max_length=4)] = ("10.42.77.1/24", "10.12.194.1/28")
    port: Annotated[int, Meta(ge=1024, le=65_535)] = 8080
    page_minutes_max: Annotated[float, Meta(gt=0, le=240)] = 30.0
    hold_s: Annotated[float, Meta(ge=3, le=50)] = 10.0  # the bell, while the box is open, switches the page on
    request_file: str = "/boot/firmware/node/setup-page.txt"  # each new content of it does so once


class SendingSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[sending]: footage to headquarters, ordered or for an alert. Who sends is proved by the certificate of
    [uplink.tls].
    """

    url: str = ""  # https://host:8444, the [uploads] of the station; empty: this post sends no footage
    kbps_max: Annotated[float, Meta(ge=64, le=1_000_000)] = 2000.0  # kilobits a second; nothing while an alert waits
    clips: Literal["none", "bell", "alert"] = "alert"  # from which severity on an alert's footage goes without an order
    clips_before_s: Annotated[float, Meta(ge=0, le=60)] = 5.0  # of the moment of alarm: these files go first
    clips_after_s: Annotated[float, Meta(ge=0, le=60)] = 10.0
    clips_incident_s_max: Annotated[float, Meta(ge=0, le=300)] = 120.0  # of the rest, to either side; 0: only the above
    clips_mb_per_day_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 500  # in 24 h of running; orders are not counted


class LiveSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[live]: what headquarters may watch as it happens, by a signed command, on record."""

    enabled: bool = True
    viewers_max: Annotated[int, Meta(ge=1, le=8)] = 2  # of video
    still_viewers_max: Annotated[int, Meta(ge=1, le=8)] = 6  # beside them: boards that show stills around a bell
    s_max: Annotated[float, Meta(ge=10, le=3600)] = 120.0  # of one grant; who watches may ask for the next
    still_period_s: Annotated[float, Meta(ge=1, le=60)] = 2.0  # between stills, where no video gets through


class Config(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node's whole configuration file."""

    node: NodeSettings
    camera: CameraSettings
    uplink: UplinkSettings
    vision: VisionSettings = VisionSettings()
    zones: Annotated[tuple[ZoneSettings, ...], Meta(max_length=ENTRIES_MAX)] = ()
    lines: Annotated[tuple[LineSettings, ...], Meta(max_length=ENTRIES_MAX)] = ()
    calendar: CalendarSettings = CalendarSettings()
    schedules: Annotated[tuple[ScheduleSettings, ...], Meta(max_length=ENTRIES_MAX)] = ()
    rules: Annotated[tuple[RuleSettings, ...], Meta(max_length=ENTRIES_MAX)] = ()
    recording: RecordingSettings = RecordingSettings()
    store: StoreSettings = StoreSettings()
    panel: PanelSettings = PanelSettings()
    health: HealthSettings = HealthSettings()
    release: ReleaseSettings = ReleaseSettings()
    sending: SendingSettings = SendingSettings()
    setup_page: SetupPageSettings = SetupPageSettings()
    live: LiveSettings = LiveSettings()


S = TypeVar("S", bound=Settings)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises ConfigError naming file and line."""
    try:
        text = path.read_text(encoding="utf-8")
        if text.startswith("\ufeff"):
            raise ConfigError(f"{path}: begins with a byte order mark; save it as UTF-8 without one (BOM)")
        return tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; start from deploy/node.example.toml") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except ValueError as error:  # TOMLDecodeError is one, and so is what an integer of 4,300 digits raises
        raise ConfigError(f"{path}: not TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: not a configuration: brackets are nested hundreds deep") from None


def fingerprint(settings: Settings) -> str:
    """SHA-256 of the settings in force, defaults included, as JSON with sorted keys: what the ledger says of them."""
    return hashlib.sha256(msgspec.json.encode(settings, order="sorted")).hexdigest()


def load(path: Path, kind: type[S]) -> S:
    """Reads a file into `kind`. Raises ConfigError with every problem, a line each."""
    tables = read_toml(path)
    found = problems(tables, kind)
    if found:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in found))
    return msgspec.convert(tables, kind)


TEXT_CHARS_MAX = 200
"""Of a wrong value, and of what is said about it: a line is to be read."""


def problems(tables: dict[str, Any], kind: type[Settings]) -> list[str]:
    """Everything in `tables` that `kind` does not take, one line each: path, what is wrong, what would be right."""
    found = list(_problems(tables, kind, ""))
    if not found:  # whoever finds nothing wrong can load it
        try:
            msgspec.convert(tables, kind)
        except msgspec.ValidationError as error:
            found.append(f"file: {_plain(str(error), tables)}")
    return found


def _problems(value: Any, kind: Any, path: str) -> Iterator[str]:
    """Walks the tables; a leaf is judged by msgspec itself, so that there is one set of rules."""
    kind = _settings_of(kind)
    if kind is None:
        return
    if not isinstance(value, dict):
        yield f"{path}: is {_typename(value)}, should be a table"
        return
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for key in value:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
            hint = f"did you mean {_join(path, near[0])}?" if near else f"known here: {', '.join(sorted(fields))}"
            yield f"{_join(path, key)}: unknown key; {hint}"
    hints = get_type_hints(kind, include_extras=True)
    for name, field in fields.items():
        if name in value:
            yield from _field_problems(value[name], hints[field.name], _join(path, name))
        elif field.required:
            yield f"{_join(path, name)}: missing"


def _field_problems(value: Any, hint: Any, path: str) -> Iterator[str]:
    inner = _settings_of(hint)
    if inner is not None and isinstance(value, dict) and _many(hint):
        yield f"{path}: is one table, should be a list of them: write [[{path}]]"
    elif inner is not None and isinstance(value, dict):
        yield from _problems(value, inner, path)
    elif inner is not None and isinstance(value, list) and not _many(hint):
        yield f"{path}: is a list, should be one table: write [{path}]"
    elif inner is not None and isinstance(value, list):
        if len(value) > ENTRIES_MAX:
            yield f"{path}: has {len(value)} entries; {ENTRIES_MAX} at most"
        for index, item in enumerate(value[:ENTRIES_MAX]):
            yield from _problems(item, inner, f"{path}[{index}]")
    else:
        try:
            msgspec.convert(value, hint)
        except msgspec.ValidationError as error:
            yield f"{path}: {_plain(str(error), value)}{_nearest(str(error), hint)}"


def _settings_of(hint: Any) -> type[Settings] | None:
    """The Settings class inside a type hint: itself, optional, or the items of a tuple."""
    if isinstance(hint, type) and issubclass(hint, Settings):
        return hint
    for part in getattr(hint, "__args__", ()):
        found = _settings_of(part)
        if found is not None:
            return found
    return None


def _many(hint: Any) -> bool:
    """Whether a type hint asks for a list of tables, not for one."""
    return get_origin(hint) is tuple or any(_many(part) for part in get_args(hint))


def _plain(text: str, value: Any) -> str:
    """The message of msgspec in words, with the value that was given."""
    text = re.sub(r" - at `\$(.*?)`$", lambda m: f" (at {m[1]})", text)
    text = text.replace(r"$(?!\\n)", "$")  # see wire.Id
    text = text.replace("`str` matching regex '^[a-z0-9-]{1,32}$'", "1 to 32 lower-case letters, digits and hyphens")
    text = re.sub(r"`str` matching regex '\^\(\[01\].*?24:00\)\$'", 'hours like "22:00-06:00"', text)
    text = text if len(text) <= TEXT_CHARS_MAX else f"{text[: TEXT_CHARS_MAX - 1]}…"
    given = repr(value)
    given = given if len(given) <= TEXT_CHARS_MAX else f"{given[: TEXT_CHARS_MAX - 1]}…"
    return f"{given}: {text[0].lower()}{text[1:]}" if not isinstance(value, dict | list) else text


def _nearest(text: str, hint: Any) -> str:
    """What somebody may have meant who wrote a word that is none of the choices, or all of them; or nothing."""
    wrong = re.search(r"nvalid enum value '(.*?)'", text)
    choices = sorted(_choices(hint))
    if wrong is None or not choices:
        return ""
    near = difflib.get_close_matches(wrong[1], choices, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known here: {', '.join(choices)}"


def _choices(hint: Any) -> set[str]:
    """The words of a Literal, wherever it stands in a type hint."""
    if get_origin(hint) is Literal:
        return set(get_args(hint))
    return {word for part in get_args(hint) for word in _choices(part)}


def _typename(value: Any) -> str:
    return {str: "text", int: "a number", float: "a number", bool: "true or false", list: "a list"}.get(
        type(value), "odd"
    )


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
