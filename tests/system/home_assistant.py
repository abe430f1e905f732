"""A real Home Assistant: a release from the registry, in a virtual environment of its own, spoken to over its REST API."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.brokers import free_port
from tests.system.fetching import fetched

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / "tests" / "requirements-home-assistant.txt"
CACHE = Path(os.environ.get("WARDPOST_CACHE", ROOT / ".cache" / "assets")).parent / "home-assistant"
INSTALL_S_MAX = 150.0
START_S_MAX = 120.0  # a busy machine; on a quiet one it answers within six seconds
ANSWER_S_MAX = 30.0
PYTHONS = ((3, 11), (3, 12))
"""For these the release on the list has wheels."""


def home_assistant() -> Path:
    """Its program. Fetched once for each list; skips the test when it cannot be had."""
    name = hashlib.sha256(LIST.read_bytes()).hexdigest()[:16]
    program = CACHE / name / "bin" / "hass"
    if not program.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        making = CACHE / f"{name}.making"
        try:
            fetched(lambda: _install(making), subprocess.SubprocessError)
        except subprocess.SubprocessError as error:
            said = getattr(error, "stderr", None) or b""
            pytest.skip(f"no Home Assistant from the registry: {error}: {said.decode(errors='replace')[-500:]}")
        for old in CACHE.iterdir():
            if old != making:
                shutil.rmtree(old)
        making.rename(CACHE / name)
    return program


def _install(folder: Path) -> None:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        pytest.skip("no uv here: pip install -r tests/requirements-system.txt")
    named = [f"python{major}.{minor}" for major, minor in PYTHONS]
    python = sys.executable if sys.version_info[:2] in PYTHONS else next(filter(None, map(shutil.which, named)), "")
    if not python:
        pytest.skip(f"its release on the list needs {' or '.join(named)}")
    shutil.rmtree(folder, ignore_errors=True)
    venv = ["venv", "--quiet", "--relocatable", "--python", python, str(folder)]
    # Hashes are verified. --require-hashes would refuse what two packages without wheels need for being built.
    packages = ["pip", "install", "--quiet", "--no-deps", "--verify-hashes", "--python", str(folder), "-r", str(LIST)]
    for command in (venv, packages):
        subprocess.run(["nice", uv, "--no-cache", *command], capture_output=True, check=True, timeout=INSTALL_S_MAX)


class House:
    """A new Home Assistant with nothing but MQTT, which its owner adds as people do."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        (folder / "pages").mkdir()  # of its frontend, which is another package: 50 MB that nobody looks at here
        (folder / "configuration.yaml").write_text(
            f"http: {{server_host: 127.0.0.1, server_port: {port}}}\n"
            f"frontend: {{development_repo: {folder / 'pages'}}}\n"
        )
        self._client = httpx.Client(base_url=self.url, timeout=ANSWER_S_MAX)

    def start(self) -> None:
        with (self._folder / "hass.log").open("ab") as out:
            command = ["nice", str(self._program), "--config", str(self._folder), "--skip-pip"]
            self._process = subprocess.Popen(command, stdout=out, stderr=out)
        self.wait_for(self._answers, "Home Assistant does not answer", START_S_MAX)

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self.log()
        with contextlib.suppress(httpx.TransportError):
            return self._client.get("/manifest.json").status_code == 200
        return False

    def end(self) -> None:
        """As people end it: it writes down what it knows."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(START_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def close(self) -> None:
        self.end()
        self._client.close()

    def move_in(self, *, broker: int) -> None:
        """Its owner gets an account and tells it of the broker at that port."""
        owner = {"name": "Lan", "username": "lan", "password": "of-lan", "language": "en", "client_id": self.url}
        code = self._post("/api/onboarding/users", json=owner)["auth_code"]
        asked = {"client_id": self.url, "grant_type": "authorization_code", "code": code}
        token = self._post("/auth/token", data=asked)["access_token"]
        self._client.headers["authorization"] = f"Bearer {token}"
        flow = self._post("/api/config/config_entries/flow", json={"handler": "mqtt"})
        answer = {"broker": "127.0.0.1", "port": broker}
        made = self._post(f"/api/config/config_entries/flow/{flow['flow_id']}", json=answer)
        assert made["type"] == "create_entry", made

    def entity(self, name: str) -> dict[str, Any] | None:
        """Its state and attributes; None: there is none of this name."""
        answer = self._client.get(f"/api/states/{name}")
        if answer.status_code == 404:
            return None
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def state(self, name: str) -> str | None:
        return None if (found := self.entity(name)) is None else str(found["state"])

    def device(self, entity: str, attribute: str) -> str:
        """Of the device to which an entity belongs, by the page's own template language; "None": there is none."""
        asked = {"template": f"{{{{ device_attr({entity!r}, {attribute!r}) }}}}"}
        return self._client.post("/api/template", json=asked).raise_for_status().text

    def complaints(self) -> list[str]:
        """What it has logged of MQTT that is no more than information."""
        said = (self._folder / "home-assistant.log").read_text().splitlines()
        return [line for line in said if re.search(r" (WARNING|ERROR) .*(mqtt|binary_sensor|event\b)", line)]

    def log(self) -> str:
        return (self._folder / "hass.log").read_text()[-3000:]

    def wait_for(self, so: Callable[[], bool], what: str, within_s: float) -> None:
        end = time.monotonic() + within_s
        while not so():
            assert time.monotonic() < end, f"{what}: {self.log()}"
            time.sleep(0.1)

    def _post(self, path: str, **sent: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._client.post(path, **sent).raise_for_status().json()
        return found
