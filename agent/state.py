"""What a node knows about itself, gathered from its workers: for heartbeat, LED, `wardpost status` and commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from agent import __version__, wire
from agent.camera.worker import CameraWorker
from agent.clock import Clock, parse_rfc3339, rfc3339
from agent.config import Config
from agent.disk import Disk
from agent.errors import Corrupt
from agent.health import Probes
from agent.panel import PostState, post_state
from agent.panel.bell import BellReport
from agent.panel.worker import PanelWorker
from agent.privacy import PrivacyWorker
from agent.recording.account import account, as_reply
from agent.recording.coverage import Now
from agent.recording.holds import HoldDesk
from agent.recording.recorder import RecorderWorker
from agent.recording.retention import Keep, RetentionWorker
from agent.store.store import Store
from agent.supervisor import Supervisor
from agent.types import MS, NS
from agent.uplink.commands import Verb
from agent.uplink.worker import UplinkWorker
from agent.verdicts import VerdictDesk
from agent.vision.worker import VisionWorker

COVERAGE_DAYS_MAX = 31
HEADQUARTERS = "headquarters"


def bell_state(found: BellReport, base_ns: int) -> wire.BellState:
    """As it goes over the wire. `base_ns`: UTC of this boot's moment 0."""
    tested = "" if found.tested_ns is None else rfc3339(base_ns + found.tested_ns)
    return wire.BellState(state=found.state.value, since=rfc3339(base_ns + found.since_ns), tested=tested)


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
        privacy_left_s: Callable[[], float],
        station: Callable[[], Mapping[str, str | int | bool]] = dict,
    ) -> None:
        self._config = config
        self._clock = clock
        self._disk = disk
        self._store = store
        self._camera_name = camera_name
        self._camera = camera
        self._vision = vision
        self._recorder = recorder
        self._privacy_left_s = privacy_left_s
        self._station = station
        self.retention: RetentionWorker | None = None  # made after this
        self.uplink: UplinkWorker | None = None  # made after this: its heartbeat comes from here
        self.release: Callable[[], wire.ReleaseState | None] = lambda: None  # made after this
        self.settings: Callable[[], wire.SettingsState | None] = lambda: None  # made after this
        self.bell_line: Callable[[], BellReport | None] = lambda: None  # made after this
        self.watching: Callable[[], tuple[str, ...]] = tuple  # made after this: who sees the live picture
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
            release=lambda: self.release(),  # noqa: PLW0108  (made after this)
            settings=lambda: self.settings(),  # noqa: PLW0108  (made after this)
            bell=self.bell,
        )

    def bell(self) -> wire.BellState | None:
        found = self.bell_line()
        return None if found is None else bell_state(found, self._clock.utc().utc_ns - self._clock.boot_ns())

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
            classes=self._classes(),
            privacyleft_s=round(self._privacy_left_s(), 1),
        )

    def _classes(self) -> list[wire.FootageClass]:
        """The newest outlook of retention: when what will be gone."""
        if self.retention is None:
            return []
        outlook = self.retention.outlook
        utc_ns, now_ns = self._clock.utc().utc_ns, self._clock.boot_ns()
        found = []
        for name, keep in (
            ("continuous", Keep.CONTINUOUS),
            ("event", Keep.EVENT),
            ("unsent", Keep.UNSENT),
            ("held", Keep.HELD),
        ):
            one = outlook.classes.get(keep)
            if one is None:
                continue
            gone_ns = None if one.gone_in_s is None else utc_ns - (now_ns - outlook.boot_ns) + round(one.gone_in_s * NS)
            oldest_ns = None if one.age_s is None else utc_ns - (now_ns - outlook.boot_ns) - round(one.age_s * NS)
            found.append(
                wire.FootageClass(
                    name=name,  # type: ignore[arg-type]
                    segments=one.segments,
                    bytes=one.bytes,
                    oldest=None if oldest_ns is None else rfc3339(oldest_ns),
                    overwrite=None if gone_ns is None else rfc3339(gone_ns),
                )
            )
        return found

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
            privacy=self._privacy_left_s() > 0,
            watched=bool(self.watching()),
        )

    def coverage(self, args: dict[str, Any]) -> dict[str, Any]:
        """The account of a range, bounded as `agent.recording.account` says: `from`, `to`. Raises Corrupt."""
        try:
            start_ns, end_ns = (parse_rfc3339(str(args.get(name))) for name in ("from", "to"))
        except ValueError as error:
            raise Corrupt(f"coverage: {error}") from None
        if not start_ns < end_ns <= start_ns + COVERAGE_DAYS_MAX * 86_400 * NS:
            raise Corrupt(f"coverage: to must lie after from, by {COVERAGE_DAYS_MAX} days at most")
        writing = self._recorder.state.writing
        now = Now(self._clock.boot_id, self._clock.boot_ns())
        return as_reply(account(self._store, start_ns, end_ns, writing=[writing] if writing else [], now=now))

    def link(self) -> str:
        """Empty while the uplink stands, else what is wrong with it."""
        if self.uplink is None or self.uplink.broker is None:
            return "no broker is connected"
        return "connected, but no station acknowledges" if self.uplink.station_silent else ""

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
            "station": dict(self._station()),
            "link": {
                "away_s": 0.0 if self.uplink is None else round(self.uplink.away_s, 1),
                "trouble": "" if self.uplink is None else self.uplink.trouble,
            },
            "watching": list(self.watching()),
            "station_silent": self.uplink is not None and self.uplink.station_silent,
            "camera": msgspec.to_builtins(self.camera()),
            "vision": msgspec.to_builtins(self.vision()) | {"fault": self._vision.stats.detector_fault},
            "recording": msgspec.to_builtins(self.recording()) | {"fault": self._recorder.state.fault},
            "queue": msgspec.to_builtins(self.queue()),
            "workers": {
                name: {"restarts": life.restarts, "trouble": life.trouble, "up_s": round(life.up_s, 1)}
                for name, life in lives.items()
            },
        }


def verbs(
    *,
    heartbeat: Callable[[], wire.Heartbeat],
    panel: PanelWorker,
    state: NodeState,
    holds: HoldDesk,
    privacy: PrivacyWorker,
    verdicts: VerdictDesk,
    update: Callable[[dict[str, Any]], dict[str, Any]],
    doctor: Callable[[dict[str, Any]], dict[str, Any]],
    signal: Callable[[str, dict[str, Any]], dict[str, Any]],
    send: Callable[[dict[str, Any]], dict[str, Any]],
    live: Callable[[dict[str, Any]], dict[str, Any]],
) -> dict[str, Verb]:
    """What a station may ask of this node: see `agent.uplink.commands` for who is believed."""

    def seconds(args: dict[str, Any], default: float) -> float:
        value = args.get("seconds", default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Corrupt(f"seconds: {value!r} is not a number")
        return float(value)

    return {
        "heartbeat": Verb(lambda _: msgspec.to_builtins(heartbeat()), acting=False),
        "status": Verb(lambda _: state.status(), acting=False),
        "doctor": Verb(doctor, acting=False),
        "identify": Verb(lambda args: {"seconds": panel.identify(seconds(args, 30.0))}, acting=True),
        "siren": Verb(lambda args: signal("siren", args), acting=True),
        "lamp": Verb(lambda args: signal("lamp", args), acting=True),
        "coverage": Verb(state.coverage, acting=False),
        "holds": Verb(lambda _: holds.listing(), acting=False),
        "hold": Verb(lambda args: holds.hold(args, HEADQUARTERS), acting=True, lasting=True, needs_time=False),
        "release": Verb(lambda args: holds.release(args, HEADQUARTERS), acting=True, lasting=True),
        "live": Verb(live, acting=True),
        "send": Verb(send, acting=True, lasting=True, needs_time=False),
        "verdict": Verb(lambda args: verdicts.take(args, HEADQUARTERS), acting=True, lasting=True, needs_time=False),
        "update": Verb(update, acting=True, lasting=True, needs_time=False),  # its number is what replay is judged by
        "privacy": Verb(lambda args: {"seconds": privacy.command(seconds(args, 300.0))}, acting=True),
    }
