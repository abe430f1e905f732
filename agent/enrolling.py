"""`wardpost enrol`: the enrolment of a card, wired. Safe to run at every boot: once enrolled, it has nothing to do."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

from agent.clock import Clock
from agent.config import Config, TlsSettings, load
from agent.disk import PosixDisk
from agent.enrolment import CA, CERT, CLAIM_CERT, CLAIM_FILE, CLAIM_KEY, KEY, ClaimSettings, Enrolment
from agent.errors import ConfigError, Transient
from agent.types import NS
from agent.uplink import parse_broker
from agent.uplink.mqtt import Credentials, PahoTransport

RETRY_S = 5.0


def enrol(path: Path, *, wait_s: float, clock: Clock, stop: threading.Event, out: Callable[[str], None]) -> int:
    """Blocks until the card has its certificate (0), is refused (1), `wait_s` has passed (1; 0: no bound), or `stop`.

    Raises ConfigError.
    """
    settings = load(path, Config)
    tls = settings.uplink.tls
    folder = Path(tls.key).parent if tls else Path()
    names = (folder / CA, folder / CERT, folder / KEY)
    if tls is None or (Path(tls.ca), Path(tls.cert), Path(tls.key)) != names:
        raise ConfigError(
            f"{path}: uplink.tls must name {CA}, {CERT} and {KEY} in one folder; there is nothing to enrol"
        )
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; it holds the claim of this post")
    claim = _claim(folder, settings)
    transport = PahoTransport(
        clock=clock,
        credentials=Credentials(tls=TlsSettings(
            ca=tls.ca, cert=str(folder / CLAIM_CERT), key=str(folder / CLAIM_KEY)
        )),
        keepalive_s=settings.uplink.keepalive_s,
    )  # fmt: skip
    worker = Enrolment(
        disk=PosixDisk(folder),
        transport=transport,
        clock=clock,
        rng=random.Random(),  # noqa: S311  (of the back-off)
        site=settings.node.site,
        node=settings.node.id,
        claim=claim,
        brokers=[parse_broker(url) for url in settings.uplink.brokers],
    )
    until_s = clock.boot_ns() / NS + wait_s if wait_s else float("inf")
    try:
        return _run(worker, until_s, clock=clock, stop=stop, out=out)
    finally:
        worker.close()
        transport.close()


def _run(worker: Enrolment, until_s: float, *, clock: Clock, stop: threading.Event, out: Callable[[str], None]) -> int:
    opened = False
    while not stop.is_set():
        try:
            if not opened:
                worker.open()
                opened = True
            while not (worker.done or worker.refused or stop.is_set()) and clock.boot_ns() / NS < until_s:
                clock.wait(stop, worker.step(clock.boot_ns() / NS) - clock.boot_ns() / NS)
        except Transient as error:
            out(f"{error}; next attempt in {RETRY_S:g} s")
            worker.close()
            opened = False
            clock.wait(stop, RETRY_S)
        if worker.done:
            out("enrolled: the post has its certificate")
            return 0
        if worker.refused:
            out(f"refused: {worker.refused}")
            return 1
        if clock.boot_ns() / NS >= until_s:
            out("not enrolled yet: no station has answered; the post records meanwhile, say it again later")
            return 1
    return 1


def _claim(folder: Path, settings: Config) -> str:
    """The claim's name, for this post; empty when it is used up. Raises ConfigError."""
    if not (folder / CLAIM_FILE).exists():
        return ""
    claim = load(folder / CLAIM_FILE, ClaimSettings)
    if (claim.site, claim.node) != (settings.node.site, settings.node.id):
        raise ConfigError(
            f"{folder / CLAIM_FILE}: is for {claim.site}/{claim.node}, this post is"
            f" {settings.node.site}/{settings.node.id}: the card holds files of two posts; flash it again"
        )
    return claim.claim
