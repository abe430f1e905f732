"""Updates for real: bundles of this very agent, real virtual environments, real processes of `wardpost run`.

What systemd does is done here by hand, in its order: the launcher, then the process, readiness, the watchdog's kill, and
again after each end. The time from the first start of a bad release to the good one running again is printed.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.release.bundle import this_architecture, this_python
from agent.release.making import make
from tests.fakes.release import KEY
from tests.fakes.wheels import wheel

ROOT = Path(__file__).resolve().parents[2]
READY_S_MAX = 90.0  # a busy machine; on a quiet one a release is ready within two seconds
HANGS_S = 3.0  # so long a release gets of which it is known that it never becomes ready: TimeoutStartSec, shortened
CRASH = b"raise RuntimeError('this release is broken')\n"
HANG = b"import threading\n\nthreading.Event().wait()\n"


def bundle(folder: Path, number: int, *, broken: bytes = b"") -> Path:
    """A release of the agent of this checkout; `broken` takes the place of its main module."""
    wheels = folder / f"wheels-{number}"
    files = {
        str(path.relative_to(ROOT)): path.read_bytes()
        for path in sorted((ROOT / "agent").rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }
    if broken:
        files["agent/main.py"] = broken
    wheel(wheels, files, version=f"0.{number}")
    # What the agent needs lies in this environment already: a .pth file, as an editable installation has one.
    site = sysconfig.get_paths()["purelib"]
    wheel(wheels, {"here.pth": f"{site}\n".encode()}, dist="here")
    output = folder / f"release-{number}.zip"
    make(output, signer=KEY, wheels=wheels, number=number, architecture=this_architecture(), python=this_python())
    return output


class Post:
    """A node under a service manager of ten lines."""

    def __init__(self, folder: Path, *, gate_s: float = 60.0) -> None:
        self.root, self.data, self.run_dir = folder / "opt", folder / "data", folder / "run"
        self.config = folder / "node.toml"
        base = self.root / "releases/0/bin"
        for path in (base, self.data, self.run_dir):
            path.mkdir(parents=True)
        (base / "python").symlink_to(sys.executable)
        site = sysconfig.get_paths()["purelib"]
        (base.parent / "pyvenv.cfg").write_text(
            f"home = {Path(sys.executable).resolve().parent}\ninclude-system-site-packages = false\n"
        )
        packages = base.parent / f"lib/python{this_python()}/site-packages"
        packages.mkdir(parents=True)
        (base / "python").unlink()
        (base / "python").symlink_to(Path(sys.executable).resolve())
        (packages / "here.pth").write_text(f"{site}\n{ROOT}\n")
        (base / "wardpost").write_text(
            f"#!{base}/python -P\nimport sys\nfrom agent.cli import main\nsys.exit(main())\n"
        )
        (base / "wardpost").chmod(0o755)
        (self.root / "current").symlink_to("releases/0")
        film = folder / "film.mp4"
        shutil.copy(_film(folder), film)
        self.config.write_text(
            f'[node]\nsite = "s"\nid = "n"\ndata = "{self.data}"\n'
            f'[camera]\ndriver = "stream"\nurl = "{film}"\nloop = true\n'
            '[vision.detector]\ndriver = "none"\n'
            '[uplink]\nbrokers = ["mqtt://127.0.0.1:9"]\n'
            "[recording]\nbudget_gb = 0.2\nfree_gb_min = 0.0\n"
            f'[release]\nroot = "{self.root}"\nkey = "{KEY.public.hex()}"\ngate_s = {gate_s}\n'
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.log = (folder / "log.txt").open("ab")

    @property
    def slot(self) -> str:
        return (self.root / "current").readlink().name

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        program = str(self.root / "current/bin/wardpost")
        return subprocess.run(
            [program, *words, "--config", str(self.config)], capture_output=True, text=True, timeout=180
        )

    def state(self) -> dict[str, dict[str, object]]:
        told: dict[str, dict[str, object]] = json.loads((self.data / "release/state.json").read_text())
        return told

    def start(self, *, broken: str = "") -> bool:
        """ExecStartPre, ExecStart, and the wait for READY=1; a process that is not ready in time is killed.

        `broken`: the slot of a release that cannot become ready.
        """
        subprocess.run(
            [
                sys.executable,
                "-I",
                str(ROOT / "deploy/wardpost-launch"),
                "--root",
                str(self.root),
                "--state",
                str(self.data / "release/state.json"),
            ],
            check=True,
            stdout=self.log,
        )
        (self.run_dir / "notify").unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(self.run_dir / "notify"))
            ready.settimeout(0.2)
            self.process = subprocess.Popen(
                [str(self.root / "current/bin/wardpost"), "run", "--config", str(self.config)],
                env=os.environ | {"NOTIFY_SOCKET": str(self.run_dir / "notify"), "PYTHONDONTWRITEBYTECODE": "1"},
                stdout=self.log,
                stderr=self.log,
                cwd=self.data,
            )
            until = time.monotonic() + (HANGS_S if self.slot == broken else READY_S_MAX)
            while time.monotonic() < until and self.process.poll() is None:
                try:
                    if b"READY=1" in ready.recv(4096):
                        return True
                except TimeoutError:
                    continue
        self.kill()
        return False

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        if self.process is not None:
            self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)


def _film(folder: Path) -> Path:
    """Ten seconds of moving picture, H.264."""
    import av
    import numpy as np

    path = folder / "made.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10, options={"g": "10", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for index in range(100):
            picture = np.full((240, 320, 3), 90, np.uint8)
            picture[100:140, index * 2 : index * 2 + 40] = 230
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    return path


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    made = Post(tmp_path)
    yield made
    made.kill()
    made.log.close()


def eventually(what: object, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if what():  # type: ignore[operator]
            return True
        time.sleep(0.2)
    return False


@pytest.mark.system
@pytest.mark.timeout(600)
def test_a_good_release_is_installed_started_and_confirmed(post: Post, tmp_path: Path) -> None:
    began = time.monotonic()
    done = post.command("release", "install", str(bundle(tmp_path, 1)))
    assert done.returncode == 0, done.stderr
    print(f"\nverified and installed in {time.monotonic() - began:.1f} s")
    assert post.slot == "1"
    # It was installed while nothing ran, so everything is asked of it, a broker too; there is none here.
    state = post.state()
    state["candidate"]["broker"] = False
    (post.data / "release/state.json").write_text(json.dumps(state))
    began = time.monotonic()
    assert post.start()
    print(f"ready {time.monotonic() - began:.1f} s after its first start")
    assert eventually(lambda: post.state()["good"]["number"] == 1, 240)
    print(f"confirmed {time.monotonic() - began:.1f} s after its first start")
    status = post.command("release", "status")
    assert "good: 1 0.1; running: 1" in status.stdout, status.stderr
    assert "before it: 0" in status.stdout
    post.stop()
    again = post.command("release", "install", str(tmp_path / "release-1.zip"))
    assert again.returncode != 0 and "runs already" in again.stderr


@pytest.mark.system
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "code"), [("crashes at its import", CRASH), ("hangs", HANG)])
def test_a_release_that_does_not_come_up_is_left_by_itself(post: Post, tmp_path: Path, kind: str, code: bytes) -> None:
    done = post.command("release", "install", str(bundle(tmp_path, 2, broken=code)))
    assert done.returncode == 0, done.stderr
    began = time.monotonic()
    starts = 0
    broken = post.slot
    while not post.start(broken=broken):
        starts += 1
        assert starts <= 3, "given up by now"
    took_s = time.monotonic() - began
    print(f"\na release that {kind}: the one before is ready again after {starts} starts, {took_s:.1f} s")
    assert starts == 3
    assert post.slot == "0"
    candidate = post.state()["candidate"]
    assert (candidate["phase"], candidate["why"]) == ("rolled-back", "3 starts without being confirmed")
    # It cannot tell by the state alone that it runs: ask it.
    assert eventually(lambda: "rolled-back" in post.command("release", "status").stdout, 90)
    post.stop()
