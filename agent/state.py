"""What a node knows about itself, gathered from its workers: for heartbeat, LED, `wardpost status` and commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from agent import __version__, wire
from agent.camera.worker import CameraWorker
from agent.clock import Clock, rfc3339
from agent.config import Config
from agent.disk import Disk
from agent.errors import Corrupt
from agent.health import Probes
from agent.panel import PostState, post_state
from agent.panel.worker import PanelWorker
from agent.recording.recorder import RecorderWorker
from agent.store.store import Store
from agent.supervisor import Supervisor
from agent.types import MS, NS
from agent.uplink.commands import Verb
from agent.uplink.worker import UplinkWorker
from agent.vision.worker import VisionWorker


class NodeState:
    """Reads the workers' published snapshots. Any thread; cheap; changes nothing."""

    def __init__(
        self,
        *,
        config: Config,
        clock: Clock,
        disk: Disk,
        store: Store,
        camera_name: str,
        camera: CameraWorker,
        vision: VisionWorker,
        recorder: RecorderWorker,
    ) -> None:
        self._config = config
        self._clock = clock
        self._disk = disk
        self._store = store
        self._camera_name = camera_name
        self._camera = camera
        self._vision = vision
        self._recorder = recorder
        self.uplink: UplinkWorker | None = None  # made after this: its heartbeat comes from here
        self._supervisor: Supervisor | None = None

    def watch(self, supervisor: Supervisor) -> None:
        """Where restarts and troubles can be read, once there is a supervisor."""
        self._supervisor = supervisor

    # -- heartbeat ----------------------------------------------------------------------------------------------------

    def probes(self) -> Probes:
        """How the heartbeat asks each part."""
        return Probes(
            camera=self.camera,
            vision=self.vision,
            recording=self.recording,
            queue=self.queue,
            disk_free_bytes=self._disk.free_bytes,
        )

    def camera(self) -> wire.CameraState:
        stats = self._camera.stats
        age_ns = None if stats.newest_ns is None else max(self._clock.boot_ns() - stats.newest_ns, 0)
        return wire.CameraState(
            name=self._camera_name,
            fps=round(stats.fps, 1),
            frameagems=None if age_ns is None else age_ns // MS,
            frames=stats.frames,
            restarts=stats.restarts,
        )

    def vision(self) -> wire.VisionState:
        stats = self._vision.stats
        return wire.VisionState(
            detector=stats.detector,
            healthy=not stats.detector_fault,
            detectorruns=stats.detector_runs,
            inferencems=round(stats.detector_ms_mean, 1),
        )

    def recording(self) -> wire.RecordingState:
        state = self._recorder.state
        footage = self._store.footage()
        return wire.RecordingState(
            recording=state.recording,
            segments=footage.segments,
            bytes=footage.bytes,
            oldest=None if footage.oldest_utc_ns is None else rfc3339(footage.oldest_utc_ns),
            droppedpackets=state.packets_dropped,
        )

    def queue(self) -> wire.QueueState:
        oldest_ns = self._store.oldest_pending_ns()
        age_s = None if oldest_ns is None else round(max(self._clock.boot_ns() - oldest_ns, 0) / NS, 1)
        return wire.QueueState(outboxrows=self._store.outbox_rows, oldestage_s=age_s, dropped=self._store.shed_rows())

    # -- LED and local status -----------------------------------------------------------------------------------------

    def post(self) -> PostState:
        """What the LED says."""
        lives = {} if self._supervisor is None else self._supervisor.lives
        return post_state(
            booting=any(not life.tried for life in lives.values()),
            network=self.uplink is not None and self.uplink.broker is not None,
            camera=self._camera.stats.up,
            fault=bool(self._recorder.state.fault) or any(life.trouble for life in lives.values()),
        )

    def status(self) -> dict[str, Any]:
        """For `wardpost status`: the same facts as the heartbeat, and what only matters on the spot."""
        lives = {} if self._supervisor is None else self._supervisor.lives
        broker = None if self.uplink is None or self.uplink.broker is None else str(self.uplink.broker)
        return {
            "node": f"{self._config.node.site}/{self._config.node.id}",
            "version": __version__,
            "session": self._store.session,
            "boot_id": self._clock.boot_id,
            "post": self.post().value,
            "broker": broker,
            "station_silent": self.uplink is not None and self.uplink.station_silent,
            "camera": msgspec.to_builtins(self.camera()),
            "vision": msgspec.to_builtins(self.vision()),
            "recording": msgspec.to_builtins(self.recording()) | {"fault": self._recorder.state.fault},
            "queue": msgspec.to_builtins(self.queue()),
            "workers": {name: {"restarts": life.restarts, "trouble": life.trouble} for name, life in lives.items()},
        }


def verbs(*, heartbeat: Callable[[], wire.Heartbeat], panel: PanelWorker, state: NodeState) -> dict[str, Verb]:
    """What a station may ask of this node: see `agent.uplink.commands` for who is believed."""

    def seconds(args: dict[str, Any], default: float) -> float:
        value = args.get("seconds", default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Corrupt(f"seconds: {value!r} is not a number")
        return float(value)

    return {
        "heartbeat": Verb(lambda _: msgspec.to_builtins(heartbeat()), acting=False),
        "status": Verb(lambda _: state.status(), acting=False),
        "identify": Verb(lambda args: {"seconds": panel.identify(seconds(args, 30.0))}, acting=True),
        "siren": Verb(lambda args: {"seconds": panel.siren(seconds(args, 10.0))}, acting=True),
        "lamp": Verb(lambda args: {"seconds": panel.lamp(seconds(args, 60.0))}, acting=True),
    }
