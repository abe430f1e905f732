"""What a technician asks of a post, wired to the machine's own drivers: `wardpost check` and `wardpost selftest`.

Two programs cannot hold one camera, and one MQTT client id cannot be connected twice: a broker that takes the id from
the certificate ends the older connection, whatever id is given. So where the node runs, `check` asks the node instead
of opening things behind its back, and `selftest` wants it stopped.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent import config, drivers, selftest, wire
from agent.boot import STORE_NAME
from agent.check import Level, Probe, check
from agent.clock import Clock, SystemClock, uuid7_maker
from agent.config import Config
from agent.disk import PosixDisk
from agent.errors import ConfigError, Transient, WardpostError
from agent.folder import DataLock
from agent.local import status_of
from agent.selftest import Part, Skipped
from agent.store.store import Origin, Store
from agent.types import NS, Event, Kind, Phase, Priority
from agent.uplink import Connected, Disconnected, Hello, Received, Refused, Transport, parse_broker

CONNECT_S_MAX = 10.0
ECHO_S_MAX = 5.0
DISK_BYTES = 4 << 20
SUB_WIDTH_MAX = 1024


def run_check(path: Path, out: Callable[[str], None]) -> int:
    """Every problem of a configuration and of this machine. Returns the exit code; blocks for some 20 s at most."""
    clock = SystemClock()
    probes = [
        Probe("vision.detector", _detector),
        Probe("camera", lambda settings: _camera(settings, clock)),
        Probe("camera.sub_url", lambda settings: sub_stream(settings, clock), level=Level.WARNING),
        Probe("uplink.brokers", lambda settings: _brokers(settings, clock), level=Level.WARNING),
    ]
    return check(path, probes=probes, clock=clock, out=out)


def run_selftest(path: Path, out: Callable[[str], None]) -> int:
    """Uses each part once. Raises ConfigError for a bad file, or when the node runs. Returns the exit code."""
    settings = config.load(path, Config)
    clock = SystemClock()
    folder = Path(settings.node.data)
    disk = PosixDisk(folder)
    with DataLock(folder).take(clock):
        camera = _make_camera(settings, clock)
        parts = [
            Part("clock", lambda: selftest.prove_clock(clock)),
            Part("disk", lambda: selftest.prove_disk(disk, clock, secrets.token_bytes(DISK_BYTES))),
            Part("store", lambda: _prove_store(disk, clock, settings)),
            Part("camera", lambda: selftest.prove_camera(camera, clock)),
            Part("detector", lambda: _prove_detector(settings, clock)),
            Part("panel", lambda: _prove_panel(settings, clock)),
            Part("broker", lambda: _prove_broker(settings, clock)),
        ]
        return selftest.selftest(parts, clock=clock, out=out)


# -- check ------------------------------------------------------------------------------------------------------------


def _running(settings: Config) -> dict[str, Any] | None:
    try:
        return status_of(Path(settings.node.data))
    except WardpostError:
        return None


def _detector(settings: Config) -> str:
    detector = drivers.make_detector(settings.vision.detector)
    detector.open()
    return f"{detector.name} loads"


def _camera(settings: Config, clock: Clock) -> str:
    running = _running(settings)
    if running is not None:
        camera = running["camera"]
        if camera["frameagems"] is None or camera["frameagems"] > settings.camera.stall_s * 1000:
            raise Transient(f"{camera['name']}: the running node gets no pictures from it; check cable and power")
        return f"{camera['name']}: {camera['fps']} pictures a second, says the running node"
    if settings.camera.driver == "stream":
        from agent.camera.stream import probe

        found = probe(url=settings.camera.url, clock=clock, masks=settings.camera.privacy_masks)
        cost = "; every picture is decoded and encoded again: see camera in deploy/node.example.toml"
        fps = "" if found.fps is None else f", {found.fps:g} pictures a second"
        return f"{found.name}: {found.codec} {found.width}x{found.height}{fps}{cost if found.transcodes else ''}"
    return selftest.prove_camera(_make_camera(settings, clock), clock)


def sub_stream(settings: Config, clock: Clock) -> str:
    """What `camera.sub_url` is, in words; empty where there is none, or the node runs and has it.

    Raises ConfigError or Transient for one that saves nothing; without it the main stream is looked at.
    """
    camera = settings.camera
    if not camera.sub_url or camera.driver != "stream" or _running(settings) is not None:
        return ""
    from agent.camera.stream import probe

    found = probe(url=camera.sub_url, clock=clock)
    if camera.privacy_masks:
        raise ConfigError(
            "every picture of camera.url is encoded again for camera.privacy_masks and looked at: leave it empty"
        )
    if found.codec != "h264":
        raise ConfigError(f"{found.name}: is {found.codec}, all of which is decoded; set H.264 in the camera")
    if found.width > SUB_WIDTH_MAX:
        raise ConfigError(
            f"{found.name}: {found.width}x{found.height} is hardly a small stream; set 640 pixels of width in it"
        )
    return f"{found.name}: {found.codec} {found.width}x{found.height}, looked at in place of camera.url"


def _brokers(settings: Config, clock: Clock) -> str:
    running = _running(settings)
    if running is not None:
        if running["broker"] is None:
            raise Transient("the running node has no connection; its log says why")
        return f"the running node is connected to {running['broker']}"
    if _held(settings, clock):
        return "; ".join(_looked_at(url, settings) for url in settings.uplink.brokers)
    answers = []
    for url in settings.uplink.brokers:
        transport = drivers.make_transport(settings.uplink, clock)
        try:
            _connect(transport, url, Hello(settings.node.id), clock)
            answers.append(f"{url} accepts us")
        finally:
            transport.disconnect()
    return "; ".join(answers)


def _held(settings: Config, clock: Clock) -> bool:
    """Whether a node runs here, or may: it does not answer us, and to connect in its name would end its connection."""
    folder = Path(settings.node.data)
    if not folder.is_dir():
        return False
    try:
        DataLock(folder).take(clock).release()
    except ConfigError:  # in use, or not ours to look at
        return True
    return False


def _looked_at(url: str, settings: Config) -> str:
    """The broker as far as one can see without saying MQTT's CONNECT: it listens, and its certificate is good."""
    broker = parse_broker(url)
    try:
        with socket.create_connection((broker.host, broker.port), timeout=CONNECT_S_MAX) as plain:
            if broker.tls:
                from agent.uplink.mqtt import tls_context

                with tls_context(settings.uplink.tls).wrap_socket(plain, server_hostname=broker.host):
                    pass
    except (OSError, ValueError) as error:
        raise Transient(f"{url}: {error}") from None
    return f"{url} listens; whether it accepts this node is not tried, for that would end a running node's connection"


def _connect(transport: Transport, url: str, hello: Hello, clock: Clock) -> None:
    """Raises Transient with the broker's answer."""
    transport.connect(parse_broker(url), hello)
    until_ns = clock.boot_ns() + round(CONNECT_S_MAX * NS)
    while clock.boot_ns() < until_ns:
        for happening in transport.poll(0.2):
            if isinstance(happening, Connected):
                return
            if isinstance(happening, Refused | Disconnected):
                raise Transient(f"{url}: {happening.reason}")
    raise Transient(f"{url}: no answer within {CONNECT_S_MAX:.0f} s; is it the right port?")


# -- selftest ---------------------------------------------------------------------------------------------------------


def _make_camera(settings: Config, clock: Clock) -> Any:
    vision = settings.vision
    return drivers.make_camera(settings.camera, analysis_fps=vision.analysis_fps, luma_px=vision.luma_px, clock=clock)


def _prove_store(disk: PosixDisk, clock: Clock, settings: Config) -> str:
    """An event is committed to a store of its own and read back; the node's own store is not touched."""
    name = f"selftest-{STORE_NAME}"
    new_id = uuid7_maker(clock)
    store = Store(
        disk.path(name),
        clock=clock,
        new_id=new_id,
        origin=Origin(settings.node.site, settings.node.id, settings.node.place),
        outbox_rows_max=100,
        event_rows_max=100,
    )
    try:
        store.open()
        store.start_session()
        start_ns = clock.boot_ns()
        event = Event(new_id(), Kind.NODE, Phase.ENDED, start_ns, Priority.NOTICE, "Selftest")
        store.commit([event])
        took_ms = (clock.boot_ns() - start_ns) / 1e6
        if [wire.decode(row.body, wire.CloudEvent).subject for row in store.pending(2)] != [event.incident]:
            raise Transient(f"{disk.path(name)}: an event was committed and another came back; replace the card")
    finally:
        store.close()
        for suffix in ("", "-wal", "-shm"):
            disk.unlink(name + suffix)
    return f"an event committed in {took_ms:.1f} ms and read back"


def _prove_detector(settings: Config, clock: Clock) -> str:
    camera = _make_camera(settings, clock)
    detector = drivers.make_detector(settings.vision.detector)
    try:
        return selftest.prove_detector(detector, lambda: selftest.one_picture(camera, clock), clock)
    finally:
        camera.close()


def _prove_panel(settings: Config, clock: Clock) -> str:
    if settings.panel.driver == "none":
        raise Skipped('panel.driver = "none": nothing is wired to this post')
    return selftest.prove_panel(drivers.make_panel(settings.panel, clock), clock)


def _prove_broker(settings: Config, clock: Clock) -> str:
    """Connects to the first broker, subscribes to the node's commands, publishes, and waits for the PUBACK."""
    url = settings.uplink.brokers[0]
    topics = wire.Topics(settings.node.site, settings.node.id)
    transport = drivers.make_transport(settings.uplink, clock)
    try:
        _connect(transport, url, Hello(settings.node.id, ((topics.commands, 1),)), clock)
        start_ns = clock.boot_ns()
        mid = transport.publish(topics.heartbeat, b"{}", qos=1)
        until_ns = start_ns + round(ECHO_S_MAX * NS)
        while clock.boot_ns() < until_ns:
            for happening in transport.poll(0.2):
                if getattr(happening, "mid", None) == mid:
                    return f"{url}: connected, subscribed and published in {(clock.boot_ns() - start_ns) / 1e6:.0f} ms"
                if isinstance(happening, Disconnected):
                    raise Transient(f"{url}: {happening.reason}")
                if isinstance(happening, Received):
                    happening.ack()
        raise Transient(f"{url}: connected, but a published message was not acknowledged; may we publish there?")
    finally:
        transport.disconnect()
