"""Imports only point down, and what must live in one module lives in one module.

The table is the architecture of agent/DESIGN.md, bottom up. A module may import its own layer and those below, except
where a layer says that its members never import each other. A new module must be put in the table: that is the moment
to think about where it belongs.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LAYERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "base",
        (
            "agent",
            "types",
            "clock",
            "disk",
            "errors",
            "garbage",
            "config",
            "wire",
            "contract",
            "worker",
            "logs",
            "notify",
            "login",
            "part",
            "quantities",
            "state_file",
            "transaction",
            "tus",
        ),
    ),
    (
        "logic",  # protocols, pure logic, the store
        (
            "audit",
            "boot",
            "camera",
            "camera.h264",
            "camera.timeline",
            "camera.vigilance",
            "camera.yuv",
            "card",
            "card.bundle",
            "card.install",
            "card.kit",
            "card.mbr",
            "card.seed",
            "doctor",
            "doctor.facts",
            "doctor.rules",
            "evidence",
            "evidence.c2pa",
            "evidence.case_package",
            "evidence.chain",
            "evidence.dsse",
            "evidence.keys",
            "evidence.ledger",
            "evidence.opening",
            "evidence.package",
            "evidence.receipts",
            "evidence.records",
            "evidence.report",
            "evidence.rotation",
            "evidence.seal",
            "evidence.standalone",
            "evidence.verify",
            "folder",
            "live",
            "live.feed",
            "live.request",
            "live.views",
            "mapped",
            "model_weights",
            "overrides",
            "panel",
            "panel.bell",
            "panel.signals",
            "recording",
            "recording.account",
            "recording.coverage",
            "recording.footage",
            "recording.fragments",
            "recording.holds",
            "recording.index",
            "recording.marks",
            "recording.packet_queue",
            "recording.recover",
            "recording.runs",
            "recording.testimony",
            "recording.timeline",
            "recording.timeline_svg",
            "release",
            "release.bundle",
            "release.making",
            "release.plan",
            "release.settings",
            "release.slots",
            "release.starts",
            "release.tree",
            "release.wheel",
            "renewal",
            "reporter",
            "sending",
            "sending.address",
            "sending.carrier",
            "sending.clip_errand",
            "sending.clips",
            "sending.plan",
            "setup_page",
            "setup_page.gate",
            "setup_page.link",
            "setup_page.network",
            "setup_page.opening",
            "setup_page.view",
            "site",
            "site.authority",
            "site.backup",
            "site.brokers",
            "site.folder",
            "site.founding",
            "site.proof",
            "site.register",
            "site.rights",
            "station.rings",
            "station.rollout",
            "station.states",
            "store",
            "store.rebuild",
            "store.store",
            "store.trim",
            "uplink",
            "uplink.commands",
            "uplink.parcels",
            "uplink.window",
            "verdicts",
            "vision",
            "vision.album",
            "vision.detector",
            "vision.detector.decode",
            "vision.detector.labels",
            "vision.appearance",
            "vision.assignment",
            "vision.draw",
            "vision.evaluate",
            "vision.film",
            "vision.faults",
            "vision.geometry",
            "vision.guard",
            "vision.incidents",
            "vision.masks",
            "vision.motion",
            "vision.opencv",
            "vision.picture_stats",
            "vision.regions",
            "vision.rules",
            "vision.schedule",
            "vision.snapshot",
            "vision.statics",
            "vision.thumbnail",
            "vision.tamper",
            "vision.tracker",
            "vision.view_reference",
            "vision.view_shelf",
            "vision.zones",
        ),
    ),
    (
        "drivers",  # one library or device each
        (
            "assets",
            "camera.demux",
            "camera.picamera2",
            "camera.session",
            "camera.stream",
            "camera.substream",
            "camera.transcode",
            "live.rtc",
            "machine",
            "panel.gpio",
            "panel.none",
            "release.download",
            "sending.depot",
            "uplink.mqtt",
            "vision.detector.none",
            "vision.detector.tflite",
        ),
    ),
    (
        "workers",  # never import each other: they meet in assembly
        (
            "camera.worker",
            "evidence.worker",
            "enrolment",
            "health",
            "live.worker",
            "local",
            "panel.worker",
            "privacy",
            "recording.recorder",
            "recording.retention",
            "release.worker",
            "sending.worker",
            "setup_page.worker",
            "supervisor",
            "uplink.worker",
            "vision.worker",
        ),
    ),
    ("station", ("station", "station.*")),
    (
        "programs",
        (
            "assembly",
            "assembly.*",
            "auditing",
            "card.*",
            "check",
            "configure",
            "desk",
            "doctor.*",
            "drivers",
            "enrolling",
            "evaluation",
            "extraction",
            "fleet",
            "main",
            "modelbench",
            "pictures",
            "release.desk",
            "release.settings_desk",
            "release.settings_errand",
            "remote",
            "replay",
            "selftest",
            "setup_page.*",
            "site.*",
            "state",
            "technician",
            "zones_page",
            "zones_page.*",
        ),
    ),
    ("demo", ("demo", "demo.*")),
    ("command", ("cli", "__main__")),
)

# The station is a program of its own that shares only the contract, layer 0, and the MQTT driver with the node.
STATION_MAY = (
    "station.*",
    "uplink",
    "uplink.mqtt",
    "evidence",
    "evidence.case_package",
    "evidence.chain",
    "evidence.dsse",
    "evidence.keys",
    "evidence.package",
    "evidence.receipts",
    "evidence.records",
    "evidence.standalone",
    "site.authority",
    "site.folder",
    "site.founding",
    "site.proof",
    "site.register",
    "assets",
    "model_weights",
    "recording.coverage",
    "recording.fragments",
    "recording.runs",
    "recording.timeline",
    "store.store",
)

# Libraries that are slow to load or absent on most machines, and who may know them.
HEAVY: dict[str, tuple[str, ...]] = {
    "picamera2": ("camera.picamera2",),
    "libcamera": ("camera.picamera2",),
    "cv2": ("vision.opencv", "camera.yuv"),
    "ai_edge_litert": ("vision.detector.tflite", "model_weights"),
    "flatbuffers": ("model_weights",),
    "tflite_runtime": ("vision.detector.tflite",),
    "paho": ("uplink.mqtt",),
    "gpiozero": ("panel.gpio",),
    "lgpio": ("panel.gpio",),
    "tomlkit": ("zones_page.edit",),
    "psutil": ("machine",),
    "sqlite3": (
        "transaction",
        "site.register",
        "store.store",
        "store.trim",
        "station.old_books",
        "station.db.engine",
        "station.db.migrations.versions.r0001_station",
        "store.rebuild",
        "demo.*",
    ),
    "sqlalchemy": ("station.*",),
    "apprise": ("station.outward.messages",),
    "starlette": ("station.web.*", "station.uploads*", "station.serving"),
    "aiortc": ("live.rtc",),  # WebRTC: loaded with the first viewer, not before
    "uvicorn": ("station.serving",),
    "joserfc": ("station.people.oidc.token",),
    "h11": ("station.people.oidc.http",),
    "obstore": ("station.archive.s3",),
    "jinja2": ("station.web.pages",),
    "argon2": ("station.people.passwords",),
    "alembic": ("station.db.migrate", "station.db.migrations.*"),
    # FFmpeg: into the node (demux, transcode), onto the disk (fragments), out to a person (footage)
    "av": (
        "vision.film",
        "camera.demux",
        "camera.session",
        "camera.transcode",
        "live.rtc",
        "recording.fragments",
        "recording.footage",
        "demo.*",
    ),
}

# Who may open files for writing, and why. Footage is written by disk.py alone.
WRITERS: dict[str, str] = {
    "disk": "the only writer of footage",
    "folder": "the lock file, empty but for a process id",
    "site.backup": "a tar file in memory; the backup goes through agent.disk",
    "station.lock": "the station's lock file, on another machine than the footage",
    "assets": "the cache of downloads, outside any data folder",
    "release.tree": "the releases of the agent; never footage",
    "release.making": "a release bundle, at headquarters, at the path a person asked for",
    "desk": "the picture of a coverage, at the path a person asked for",
    "recording.footage": "the extracted clip, at the path a person asked for",
    "recording.fragments": "FFmpeg muxes into memory there; the bytes go through a DurableFile",
    "replay": "the detections a person asked for",
    "evidence.package": "the evidence package, at the path a person asked for",
    "evidence.opening": "a package that was opened, at the station",
    "evidence.case_package": "the package of a case, at the station",
    "evidence.standalone": "what openssl is to read, in a temporary folder",
    "cli": "standard output is pointed at /dev/null when its reader has gone",
    "vision.film": "the film of a replay, at the path a person asked for",
    "vision.album": "the picture of a replay, at the path a person asked for",
    "zones_page.desk": "the node's configuration, which a person has drawn anew; never footage",
    "card.install": "the files of a new post, before the agent has ever run; standard library only",
    "card.image": "a card or image file, before it has ever been in a post",
    "card.collect": "the bundle, at the path a person asked for",
    "demo.*": "a scratch folder of its own",
}

REGISTRIES = [  # put together here, so that this file does not hold what it forbids
    "py" + "pi.org",
    "python" + "hosted.org",
    "npm" + "js.org",
    "npm" + "js.com",
    "deb." + "debian.org",
    "archive." + "ubuntu.com",
    "proxy." + "golang.org",
    "crates" + ".io",
]


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / "agent").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / "agent").with_suffix("").parts).removesuffix("__init__").rstrip(".")
        found[name or "agent"] = path
    return found


MODULES = modules()


@cache
def tree_of(name: str) -> ast.Module:
    """Parsed when a test asks: every process of a test run collects this file, and one runs it."""
    return ast.parse(MODULES[name].read_text(encoding="utf-8"), str(MODULES[name]))


def fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@cache
def layer(name: str) -> int:
    """The layer of a module; its exact name counts before a pattern."""
    for exact in (True, False):
        for number, (_, patterns) in enumerate(LAYERS):
            if name in patterns if exact else fits(name, patterns):
                return number
    raise AssertionError(f"agent/{name.replace('.', '/')}.py is in no layer: put it into the table above")


def imports(tree: ast.Module) -> Iterator[str]:
    """Absolute names of what is imported anywhere in a module, functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they point"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def ours(names: Iterable[str]) -> Iterator[str]:
    """Modules of agent/ among what is imported."""
    for name in names:
        short = name.removeprefix("agent.")
        if name.startswith("agent."):
            while short not in MODULES and "." in short:
                short = short.rpartition(".")[0]
            yield short if short in MODULES else "agent"


@cache
def imports_of(name: str) -> frozenset[str]:
    return frozenset(imports(tree_of(name)))


@pytest.mark.parametrize("name", MODULES)
def test_imports_only_point_down(name: str) -> None:
    mine = layer(name)
    for other in set(ours(imports_of(name))) - {name}:
        assert layer(other) <= mine, (
            f"agent.{name} ({LAYERS[mine][0]}) imports agent.{other} ({LAYERS[layer(other)][0]})"
        )


@pytest.mark.parametrize("name", [n for n in MODULES if LAYERS[layer(n)][0] == "workers"])
def test_workers_never_import_each_other(name: str) -> None:
    others = {other for other in ours(imports_of(name)) if LAYERS[layer(other)][0] == "workers"} - {name}
    assert not others, f"agent.{name} imports {others}; workers meet in agent/assembly"


@pytest.mark.parametrize("name", [n for n in MODULES if LAYERS[layer(n)][0] == "drivers"])
def test_drivers_know_only_their_own_family(name: str) -> None:
    for other in set(ours(imports_of(name))) - {name}:
        if LAYERS[layer(other)][0] == "drivers":
            assert other.rpartition(".")[0] == name.rpartition(".")[0], f"agent.{name} imports agent.{other}"


@pytest.mark.parametrize("name", [n for n in MODULES if fits(n, ("station", "station.*"))])
def test_the_station_shares_only_the_contract_with_the_node(name: str) -> None:
    for other in set(ours(imports_of(name))):
        assert layer(other) == 0 or fits(other, (*STATION_MAY, "station")), f"agent.{name} imports agent.{other}"


@pytest.mark.parametrize("library", HEAVY)
def test_a_heavy_library_stays_in_its_module(library: str) -> None:
    users = {name for name in MODULES for i in imports_of(name) if i.split(".")[0] == library}
    assert {user for user in users if not fits(user, HEAVY[library])} == set()


def test_only_the_clock_reads_time() -> None:
    for name in MODULES:
        if name == "clock":
            continue
        assert not [i for i in imports_of(name) if i.split(".")[0] == "time"], f"agent.{name} imports time"
        named = [node for node in ast.walk(tree_of(name)) if isinstance(node, ast.Attribute)]
        calls = {ast.unparse(node) for node in named if node.attr in {"now", "utcnow", "today"}}
        asked = [call for call in calls if re.search(r"\b(dt|date|datetime)\.(now|utcnow|today)$", call)]
        assert not asked, f"agent.{name} calls {asked}"


def writes(tree: ast.Module) -> Iterator[str]:
    """Calls that open a file for writing, as far as they can be seen in the source."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        method = node.func.attr if isinstance(node.func, ast.Attribute) else None
        opens = method == "open" or (isinstance(node.func, ast.Name) and node.func.id == "open")
        if method not in {"write_text", "write_bytes"} and not opens:
            continue
        text = ast.unparse(node)
        if not opens or (text.startswith("os.open(") and re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC|APPEND)", text)):
            yield text
        else:
            values = [a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)]
            if any(isinstance(v, str) and re.fullmatch(r"[rbt]*[wax+][wabtx+]*", v) for v in values):
                yield text


def test_only_the_named_modules_write_files() -> None:
    for name in MODULES:
        if not fits(name, tuple(WRITERS)):
            assert list(writes(tree_of(name))) == [], (
                f"agent.{name} opens a file for writing; footage goes through agent.disk"
            )


def test_the_walk_sees_what_it_looks_for() -> None:
    """A net with holes catches nothing: the rules above are tried on code that breaks them."""
    bad = ast.parse(
        "import time\n"
        "def f():\n"
        "    from cv2 import resize\n"
        "    Path('x').open('wb'); open('y', mode='a'); Path('z').write_bytes(b''); os.open('q', os.O_CREAT)\n"
        "    Path('fine').open('rb'); tarfile.open(p, 'r:gz')\n"
    )
    assert set(imports(bad)) == {"time", "cv2.resize"}
    assert len(list(writes(bad))) == 4
    assert set(ours(imports(ast.parse("from agent.store.store import Store\nfrom agent import wire")))) == {
        "store.store",
        "wire",
    }
    with pytest.raises(AssertionError, match="in no layer"):
        layer("surprise")
    assert layer("main") > layer("camera.worker") > layer("camera.stream") > layer("store.store") > layer("wire")


def texts() -> Iterator[Path]:
    """Files that are, or would be, committed."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            yield ROOT / name


def test_no_file_names_a_registry_host() -> None:
    for path in texts():
        data = path.read_bytes().lower()
        for host in REGISTRIES:
            assert host.encode() not in data, (
                f"{path.relative_to(ROOT)} names {host}; let the client's own settings decide"
            )
