"""Live view in a real browser: a NAT before the post, another before the browser, and Debian's coturn between them.

Broker, node, station, Chromium and coturn are real, and so are the NATs: see `nat.py`.
"""

from __future__ import annotations

import base64
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from agent.assets import Assets
from agent.cli import main
from tests.e2e.brokers import NatsServer
from tests.e2e.post import recording
from tests.e2e.test_live_view import SynchronisedPost, records_of
from tests.fakes.certificates import self_signed
from tests.fakes.footage import make_video
from tests.system.axe import violations
from tests.system.browser import Browser, chromium
from tests.system.nat import HQ, Nets, NoNatError
from tests.system.test_board import Headquarters, log_in

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "test-out" / "live"
SECRET = "a secret that coturn has too"
LIVE = """\
[live]
seconds = 300
turn = ["turn:{host}:3478?transport=udp", "turn:{host}:443?transport=tcp"]
turn_secret_file = "{secret}"
"""
NODE_MORE = '\n[vision.detector]\ndriver = "none"\n[live]\nstill_period_s = 1.0\n'
# What a network that is too thin does to video, without chance: no picture comes through whole.
# By whichever of the two ways the post has come to coturn; the broker is reached as before.
THIN = (
    "table ip thin { chain through { type filter hook forward priority 0;"
    " ip protocol udp ip length > 400 drop; tcp dport 443 ip length > 400 drop; }; }"
)
NO_UDP = "table ip shut { chain through { type filter hook forward priority 0; ip protocol udp drop; }; }"
PICTURES = "document.querySelector('#video').getVideoPlaybackQuality().totalVideoFrames"
# Of the pair of addresses in use: kind and transport of the browser's, kind of the post's.
WAY = """wardpostPeer.getStats().then((all) => {
  const transport = [...all.values()].find((one) => one.type === "transport"), pair = all.get(transport.selectedCandidatePairId);
  const ours = all.get(pair.localCandidateId), theirs = all.get(pair.remoteCandidateId);
  return [ours.candidateType, ours.relayProtocol, theirs.candidateType].join(" ");
})"""


class WideBroker(NatsServer):
    """Reached from other networks."""

    def command(self) -> list[str]:
        command = super().command()
        conf = Path(command[-1])
        conf.write_text(conf.read_text().replace('mqtt { host: "127.0.0.1"', 'mqtt { host: "0.0.0.0"'))
        return command


@contextmanager
def coturn(folder: Path) -> Iterator[None]:
    """By the configuration that a technician is given."""
    certificate, key = self_signed(folder)
    text = (ROOT / "deploy" / "turnserver.conf.example").read_text()
    for blank, value in (
        ("<the certificate, PEM>", certificate),
        ("<its key, PEM>", key),
        ("<the secret>", SECRET),
        ("<the name of this machine>", "hq.example.org"),
        ("<address of this machine>", HQ),
    ):
        assert text.count(f"={blank}\n") == 1
        text = text.replace(blank, str(value))
    conf = folder / "turnserver.conf"
    conf.write_text(text)
    own = [f"--pidfile={folder}/turnserver.pid", f"--userdb={folder}/turndb", "--log-file=stdout"]
    with (folder / "turnserver.log").open("wb") as log:
        process = subprocess.Popen(["turnserver", "-c", conf, *own], cwd=folder, stdout=log, stderr=log)
    try:
        yield
        assert process.poll() is None, (folder / "turnserver.log").read_text()[-3000:]
    finally:
        process.terminate()
        process.wait(60)


class Scene:
    """Headquarters and coturn on the wide net, a post behind its NAT. This thread stays at headquarters."""

    def __init__(self, nets: Nets, folder: Path, undo: ExitStack) -> None:
        for name in ("broker", "post"):
            (folder / name).mkdir()
        self.broker = WideBroker(folder / "broker")
        undo.callback(self.broker.stop)
        self.broker.start()
        self.hq = Headquarters(folder, self.broker, HQ)
        secret = folder / "turn.secret"
        secret.write_text(SECRET)
        with self.hq.config.open("a") as file:
            file.write(LIVE.format(host=HQ, secret=secret))
        self.hq.person("minh", "operator", "--name", "Nguyễn Minh")
        undo.callback(self.hq.stop)
        self.hq.start()
        film = make_video(folder / "film.mp4", seconds=20.0, options={"bf": "0", "qp": "4"})  # some 190 kbit/s
        self.post = SynchronisedPost(folder / "post", film, f"mqtt://{HQ}:{self.broker.port}")
        config = self.post.config.read_text().replace('site = "ward"', 'site = "ward-7"')
        config = config.replace("[uplink]", f'[uplink]\ncommand_key = "{self.hq.public_key}"')
        self.post.config.write_text(config + NODE_MORE)
        undo.callback(self.post.clean_up)
        with nets.inside("home"):
            self.post.start()


@pytest.fixture
def nets() -> Iterator[Nets]:
    for program, package in (("ip", "iproute2"), ("nft", "nftables"), ("turnserver", "coturn")):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} on this machine: apt install {package}")
    made = Nets()
    try:
        try:
            made.build()
        except NoNatError as error:
            pytest.skip(f"no NAT can be made on this machine: {error}")
        yield made
    finally:
        made.clear()


@pytest.fixture
def scene(nets: Nets, tmp_path: Path) -> Iterator[Scene]:
    with nets.inside("hq"), coturn(tmp_path), ExitStack() as undo:
        yield Scene(nets, tmp_path, undo)


def soon(browser: Browser, expression: str) -> None:
    """It becomes true; what takes seconds is not asked for twenty times in each."""
    browser.wait(f"Boolean({expression})", every_s=0.5)


def watch(browser: Browser) -> None:
    """Whoever says why may watch; it plays."""
    browser.press("button[value=video]")
    soon(browser, f"{PICTURES} >= 10 && document.querySelector('#video').videoWidth === 320")
    assert browser.js(
        "document.querySelector('#state').textContent === document.querySelector('#live').dataset.playing"
    )


def shown_stills(browser: Browser) -> None:
    """Single pictures come, one after the other, at a rate that is stated."""
    soon(browser, "Number(document.querySelector('#still').src.split('?')[1]) > 0")
    first = browser.js("document.querySelector('#still').src")
    soon(browser, f"document.querySelector('#still').src !== {json.dumps(first)}")
    soon(browser, "document.querySelector('#still').naturalWidth > 0")
    assert browser.js("document.querySelector('#video').hidden")
    assert "A picture every 1 s" in browser.js("document.querySelector('#rate').textContent")


def end(browser: Browser) -> None:
    browser.press("#end")
    soon(browser, "document.querySelector('#start').checkVisibility()")


def test_a_post_behind_a_nat_is_watched_from_behind_another(
    nets: Nets, scene: Scene, tmp_path: Path, assets: Assets
) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    with ExitStack() as window:
        with nets.inside("office"):
            browser = window.enter_context(chromium(tmp_path / "profile"))
        browser.size(1440, 900)
        scene.post.wait_for(recording)
        log_in(browser, scene.hq.origin, "minh")
        browser.go(f"{scene.hq.origin}/live/cam-7")
        browser.js("document.querySelector('#reason').value = 'somebody calls for help'")

        # Neither is reached at an address of its own: what plays has come through coturn, which both have asked.
        watch(browser)
        assert browser.js(WAY) == "relay udp relay"
        assert scene.post.status()["watching"] == ["Nguyễn Minh"]
        servers = browser.js("JSON.stringify(wardpostPeer.getConfiguration().iceServers)")
        assert SECRET not in servers
        ends_s = {int(one["username"].split(":")[0]) for one in json.loads(servers)}
        assert max(ends_s) <= time.time() + 3600, "what the page was given ends by itself"
        browser.picture(SHOTS / "video-1440.png")
        browser.size(390, 844, phone=True)
        browser.picture(SHOTS / "video-390.png")
        assert browser.js("document.documentElement.scrollWidth") <= 390

        # The post's network becomes too thin for it.
        nets.rules("home-nat", THIN)
        soon(browser, "document.querySelector('#said').textContent.includes('single pictures')")
        shown_stills(browser)
        browser.picture(SHOTS / "stills-390.png")
        assert violations(browser, assets) == []
        end(browser)

        # It is as before, but both networks let nothing out but what looks like the web.
        nets.rules("home-nat", "delete table ip thin")
        for net in ("home-nat", "office-nat"):
            nets.rules(net, NO_UDP)
        watch(browser)
        assert browser.js(WAY) == "relay tcp relay"
        end(browser)

        # A browser that cannot play what the post sends.
        browser.js("RTCRtpReceiver.getCapabilities = () => ({ codecs: [] }); true")
        browser.press("button[value=video]")
        soon(browser, "document.querySelector('#said').textContent.includes('cannot play')")
        shown_stills(browser)
        assert browser.errors == []

    # The browser is gone without a word; nobody watches any more, by itself, and all of it is on record on both sides.
    scene.post.wait_for(lambda status: not status["watching"])
    assert scene.post.end(signal.SIGTERM) == 0
    records = records_of(scene.post)
    assert {(one["by"], one["reason"]) for one in records} == {("Nguyễn Minh", "somebody calls for help")}
    assert [one.get("mode") for one in records if one["what"] == "began"] == ["video", "stills", "video", "stills"]
    assert {one["view"] for one in records if one["what"] == "ended"} == {one["view"] for one in records}
    scene.hq.stop()
    trail = tmp_path / "trail.jsonl"
    assert main(["trail", "export", "-o", str(trail), "--config", str(scene.hq.config)]) == 0
    said = [json.loads(base64.b64decode(json.loads(line)["payload"])) for line in trail.read_bytes().splitlines()]
    began = {one["body"]["view"] for one in said if one.get("kind") == "desk-live-began"}
    ended = {one["body"]["view"]: one["body"]["how"] for one in said if one.get("kind") == "desk-live-ended"}
    assert began == set(ended) == {one["view"] for one in records}
    assert list(ended.values())[-1] == "the page was closed"
