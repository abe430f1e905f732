"""Broker, station and node of the demo with everything between them: settings, processes, cable, questions."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

from agent.clock import Clock, rfc3339
from agent.demo.cable import Cable
from agent.demo.programs import Program, broker_config, broker_program, free_port, wardpost
from agent.errors import Corrupt, Transient, WardpostError
from agent.local import status_of
from agent.types import NS

SITE = "demo"
NODE = "gate-1"
STATUS_EVERY_S = 0.5
FOOTAGE_S_MAX = 120.0


class Rig:
    """One thread. `stop` ends everything, whatever has happened; processes die with the demo even without it."""

    def __init__(self, out: Path, *, url: str, loop: bool, place: str, model: Path, labels: Path, clock: Clock) -> None:
        """Writes the settings into `out`, and starts nothing. Raises ConfigError when there is no broker program."""
        self._clock = clock
        self._status: dict[str, Any] = {}
        self._asked_ns = 0
        self.node_folder, self.station_folder = out / "node", out / "station"
        self._settings = out / "node.toml"
        logs = out / "logs"
        for folder in (logs, self.node_folder, self.station_folder, out / "broker"):
            folder.mkdir()
        self._mqtt_port = free_port()
        self.cable = Cable(("127.0.0.1", self._mqtt_port), port=free_port())
        self.cable.restore()
        (out / "broker.conf").write_text(broker_config(out / "broker", free_port(), self._mqtt_port))
        (out / "station.toml").write_text(station_settings(self.station_folder, self._mqtt_port))
        self._settings.write_text(
            node_settings(
                self.node_folder, url=url, loop=loop, place=place, model=model, labels=labels, port=self.cable.port
            )
        )
        env = os.environ | {"PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}

        def program(name: str, command: list[str]) -> Program:
            return Program(name, command, log=logs / f"{name}.log", environment=env)

        self.broker = program("broker", [broker_program(), "-c", str(out / "broker.conf")])
        self.station = program("station", wardpost("station", "--config", str(out / "station.toml")))
        self.node = program("node", wardpost("run", "--config", str(self._settings)))
        self._wanted: list[Program] = []
        self._newest = ("", 0)  # recording in progress, and when it was first seen there

    def start(self, program: Program) -> None:
        """Starts one of the three; from now on it must run."""
        program.start()
        self._wanted.append(program)

    def kill_node(self) -> int:
        """As `kill -9`. Returns the moment, in CLOCK_BOOTTIME ns."""
        self._wanted.remove(self.node)
        self.node.kill()
        self._status = {}
        return self._clock.boot_ns()

    def stop(self) -> int | None:
        """Stops the node, then the station, then the broker, and cuts the cable. Returns the node's exit code."""
        self._wanted.clear()
        code = self.node.stop()
        self.station.stop()
        self.broker.stop()
        self.cable.cut()
        return code

    def need_all(self) -> None:
        """Raises Transient when something that was started has ended by itself, with its last words."""
        for program in self._wanted:
            if not program.running:
                raise Transient(
                    f"the {program.name} has ended by itself (exit code {program.exit_code}):"
                    f" {_last_line(program)}; see {program.log}"
                )

    # -- questions ----------------------------------------------------------------------------------------------------

    def broker_answers(self) -> bool:
        """Whether the broker takes connections."""
        try:
            socket.create_connection(("127.0.0.1", self._mqtt_port), 1.0).close()
        except OSError:
            return False
        return True

    def station_listens(self) -> bool:
        """Whether the station has subscribed."""
        return "connected to" in self.station.said()

    def ask_node(self) -> None:
        """Refreshes what the node says of itself, twice a second at most."""
        now_ns = self._clock.boot_ns()
        if not self.node.running or now_ns - self._asked_ns < STATUS_EVERY_S * NS:
            return
        self._asked_ns = now_ns
        files = sorted(self.node_folder.glob("segments/*"))
        if files and files[-1].name != self._newest[0]:
            self._newest = (files[-1].name, now_ns)
        try:
            self._status = status_of(self.node_folder)
        except WardpostError:
            return  # it is starting, or busy: the next time

    def node_records(self) -> bool:
        """Whether the node writes footage and has its broker."""
        return bool(self._status and self._status["recording"]["recording"] and self._status["broker"])

    def in_file_s(self) -> float:
        """For how long the recording in progress has been written; 0 when nothing is recorded."""
        return (self._clock.boot_ns() - self._newest[1]) / NS if self.node_records() and self._newest[0] else 0.0

    def waiting(self) -> int | None:
        """Messages that the node has not delivered; None while it says nothing."""
        return int(self._status["queue"]["outboxrows"]) if self._status else None

    def oldest_waits_s(self) -> float:
        """How long ago the oldest undelivered event happened."""
        return float((self._status["queue"]["oldestage_s"] if self._status else 0) or 0)

    def no_camera(self) -> str:
        """Why the node does not record, in its own words."""
        return f"the node does not record: {_last_line(self.node)}"

    def footage(self, start_ns: int, end_ns: int, target: Path) -> dict[str, Any]:
        """`wardpost footage --json`, as a person would call it, for a stretch of this boot. May raise Transient."""
        offset_ns = self._clock.utc().utc_ns - self._clock.boot_ns()
        command = wardpost(
            "footage", "--config", str(self._settings), "-o", str(target), "--json",
            "--from", rfc3339(start_ns + offset_ns), "--to", rfc3339(end_ns + offset_ns),
        )  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=FOOTAGE_S_MAX, check=False)
        except subprocess.TimeoutExpired:
            raise Transient(f"wardpost footage gave no answer within {FOOTAGE_S_MAX:.0f} s") from None
        if done.returncode != 0:
            raise Transient(f"wardpost footage: {(done.stderr or done.stdout).strip() or done.returncode}")
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
        except ValueError as error:
            raise Corrupt(f"wardpost footage --json: not JSON: {error}") from None
        return answer


def _last_line(program: Program) -> str:
    lines = [line for line in program.said().splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def station_settings(folder: Path, port: int) -> str:
    """station.toml."""
    return (
        f'[station]\nsite = "{SITE}"\nid = "desk"\ndata = {_text(folder)}\n\n'
        f'[broker]\nbrokers = ["mqtt://127.0.0.1:{port}"]\n'
    )


def node_settings(folder: Path, *, url: str, loop: bool, place: str, model: Path, labels: Path, port: int) -> str:
    """node.toml. Short files and a quick heartbeat, so that 90 seconds show something."""
    return (
        f'[node]\nsite = "{SITE}"\nid = "{NODE}"\nplace = {_text(place)}\ndata = {_text(folder)}\n\n'
        f'[camera]\ndriver = "stream"\nurl = {_text(url)}\nloop = {str(loop).lower()}\n\n'
        f"[vision.detector]\nmodel = {_text(model)}\nlabels = {_text(labels)}\n\n"
        "[recording]\nsegment_s = 10.0\nbudget_gb = 1.0\nfree_gb_min = 0.1\n\n"
        f'[uplink]\nbrokers = ["mqtt://127.0.0.1:{port}"]\nbackoff_s_max = 2.0\nack_timeout_s = 3.0\n\n'
        "[health]\nheartbeat_s = 5.0\n"
    )


def _text(value: str | Path) -> str:
    """A TOML basic string: JSON's escapes are a subset of TOML's, but for DEL, which JSON leaves as it is."""
    return json.dumps(str(value)).replace("\x7f", "\\u007f")
