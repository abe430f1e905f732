"""What happens in the demo, and when. Each act ends when what it shows has happened, or when its time is up."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.assets import LABELS, MODEL, Assets
from agent.clock import Clock, SystemClock
from agent.demo import evidence as found
from agent.demo import picture
from agent.demo.checks import Verdict, duplicates, judge, lost_events, lost_footage_s
from agent.demo.evidence import Evidence, Story
from agent.demo.film import make_film
from agent.demo.outdir import own_folder
from agent.demo.rig import Rig
from agent.demo.screen import Screen
from agent.demo.viewer import Viewer
from agent.errors import ConfigError, Transient, WardpostError
from agent.recording.coverage import RECORDED
from agent.types import NS
from agent.uplink.worker import HISTORICAL_S

POLL_S = 0.15
START_S_MAX = 30.0
# At least, and at most, so many seconds for each act.
WATCH_S = (18.0, 30.0)
CUT_S = (18.0, 35.0)
DELIVERED_S = (2.0, 30.0)
RECORD_S = (1.0, 20.0)
IN_FILE_S = (3.0, 7.0)  # of files of 10 s: the kill comes in the middle of one, not between two
DEAD_S = (4.0, 4.0)
AGAIN_S = (9.0, 30.0)
QUIET_S = (0.0, 15.0)


def tell(camera: str | None, out: Path) -> int:
    """See `agent.demo.main`."""
    url, is_file = _source(camera)
    terminal = sys.stdout.isatty()
    screen = Screen(sys.stdout, terminal=terminal, colour=terminal and not os.environ.get("NO_COLOR"))
    with own_folder(out) as folder, _interruptible():
        demo = Demo(
            url=url, loop=is_file, out=folder, clock=SystemClock(), screen=screen, assets=Assets(say=screen.say)
        )
        try:
            return demo.run()
        except KeyboardInterrupt:
            screen.say("Interrupted; everything that was started is being stopped.")
            return 130
        finally:
            demo.stop()


def _source(camera: str | None) -> tuple[str | None, bool]:
    """The camera's URL as the node needs it, and whether it is a file (which is then played in a loop)."""
    if camera is None or "://" in camera:
        return camera, False
    path = Path(camera).expanduser()
    if not path.exists() or path.is_dir():
        raise ConfigError(f"demo: --camera {camera}: no such file or device; write rtsp://..., /dev/video0 or a file")
    return str(path.resolve()), path.is_file()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does: in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Demo:
    """One run. Made, `run` once, then `stop`, whatever happened; all from one thread."""

    def __init__(self, *, url: str | None, loop: bool, out: Path, clock: Clock, screen: Screen, assets: Assets) -> None:
        """`url` None is the film made from the sample footage."""
        self._url = url
        self._loop = loop
        self._sample = url is None
        self._out = out
        self._clock = clock
        self._screen = screen
        self._assets = assets
        self._viewer = Viewer(out / "station")
        self._rig: Rig | None = None

    def run(self) -> int:
        """All of it; returns the exit code."""
        began_ns = self._clock.boot_ns()
        self._introduce()
        rig = self._rig = self._made()
        self._come_up(rig)
        first_ns = self._clock.boot_ns()
        self._watch(rig)
        cut_ns, restored_ns = self._cut(rig)
        killed_ns = self._kill(rig)
        stopped_ns = self._end(rig)
        story = Story(first_ns, cut_ns, restored_ns, killed_ns, stopped_ns, tuple(self._viewer.shown))
        evidence = self._gather(rig, story)
        verdicts = judge(evidence, sample=self._sample)
        return self._conclude(evidence, verdicts, (self._clock.boot_ns() - began_ns) / NS)

    def stop(self) -> None:
        """Ends whatever still runs. May be called twice."""
        self._screen.clear()
        self._viewer.close()
        if self._rig is not None:
            self._rig.stop()

    # -- the acts -----------------------------------------------------------------------------------------------------

    def _introduce(self) -> None:
        self._screen.heading("Wardpost demo: a post, a broker and a station, all on this machine")
        if self._sample:
            self._screen.say(
                "The camera is a film: real pixels of a street, composed so that it stands still as a post's camera"
                " does. A man walks by every ten seconds. The node sees it at its own speed, as from a camera."
            )
        else:
            self._screen.say(
                "The camera is yours. Walk through its view now and then, so that there is something to see."
            )
        if self._clock.utc().unc_ns is None:
            self._screen.say(
                "(Nobody vouches for this machine's clock. A real station says so beside each time.)", style="dim"
            )

    def _made(self) -> Rig:
        model, labels = self._assets.get(MODEL), self._assets.get(LABELS)
        url, place = self._url, "your camera"
        if url is None:
            url, place = str(self._out / "camera.mp4"), "the wall"
            self._screen.progress(0, 1, "composing the film")
            make_film(self._assets.footage(), Path(url))
        return Rig(
            self._out,
            url=url,
            loop=self._loop or self._sample,
            place=place,
            model=model,
            labels=labels,
            clock=self._clock,
        )

    def _come_up(self, rig: Rig) -> None:
        limit = (0.0, START_S_MAX)
        rig.start(rig.broker)
        self._until(rig.broker_answers, limit, "starting the broker", lambda: "the broker does not answer")
        rig.start(rig.station)
        self._until(rig.station_listens, limit, "starting the station", lambda: "the station does not come up")
        rig.start(rig.node)
        self._until(rig.node_records, limit, "starting the node", rig.no_camera)

    def _watch(self, _rig: Rig) -> None:
        self._screen.heading("1. The post watches. What arrives at the station:")
        self._until(lambda: not self._sample or len(self._viewer.visits) > 1, WATCH_S, "watching")

    def _cut(self, rig: Rig) -> tuple[int, int]:
        self._screen.heading("2. The network is cut. The post goes on by itself.")
        rig.cable.cut()
        cut_ns = self._clock.boot_ns()

        def old_enough() -> bool:
            return not self._sample or rig.oldest_waits_s() > HISTORICAL_S + 1.0

        self._until(old_enough, CUT_S, lambda: f"no network: still recording, {rig.waiting() or 0} messages wait")
        restored_ns = self._clock.boot_ns()
        self._screen.say(
            f"After {(restored_ns - cut_ns) / NS:.0f} s without network, {rig.waiting() or 0} messages wait on the"
            " post's disk. The cable is plugged in again, and they arrive, alerts first:"
        )
        rig.cable.restore()
        self._until(lambda: rig.waiting() == 0, DELIVERED_S, "the backlog arrives")
        return cut_ns, restored_ns

    def _kill(self, rig: Rig) -> int:
        self._until(lambda: IN_FILE_S[0] < rig.in_file_s() < IN_FILE_S[1], RECORD_S, "recording")
        self._screen.heading("3. The node is killed (kill -9) in the middle of a recording.")
        killed_ns = rig.kill_node()
        self._until(lambda: True, DEAD_S, "nobody records")
        self._screen.say("It starts again. The first thing it does is to repair what it was writing:")
        rig.start(rig.node)
        self._until(rig.node_records, (0.0, START_S_MAX), "starting again", rig.no_camera)
        visits = len(self._viewer.visits)
        self._until(lambda: not self._sample or len(self._viewer.visits) > visits, AGAIN_S, "watching again")
        self._screen.say("Asked for the footage around that time (wardpost footage), the post answers:")
        answer = rig.footage(killed_ns - 6 * NS, self._clock.boot_ns() - 2 * NS, self._out / "around-the-kill.mp4")
        for stretch in answer["coverage"]:
            recorded = stretch["what"] == RECORDED
            what = RECORDED if recorded else f"nothing recorded: {stretch['detail'] or stretch['what']}"
            self._screen.say(f"{stretch['from'][11:19]}  {stretch['seconds']:5.1f} s  {what}", indent="    ")
        return killed_ns

    def _end(self, rig: Rig) -> int:
        self._until(lambda: not self._viewer.open and rig.waiting() == 0, QUIET_S, "waiting for a quiet moment")
        stopped_ns = self._clock.boot_ns()
        self._screen.progress(1, 1, "stopping the node, then the station and the broker")
        code = rig.stop()
        self._show()
        if code != 0:
            raise Transient(f"the node did not stop cleanly (exit code {code}); see {rig.node.log}")
        return stopped_ns

    # -- afterwards ---------------------------------------------------------------------------------------------------

    def _gather(self, rig: Rig, story: Story) -> Evidence:
        self._screen.progress(1, 1, "looking at what is on the disks")
        trouble: list[str] = []
        committed, undelivered, given_up = found.committed_of(rig.node_folder)
        received, refused = found.received_of(rig.station_folder, self._clock)
        segments, coverage = found.footage_of(
            rig.node_folder, clock=self._clock, start_ns=story.began_ns, end_ns=story.stopped_ns
        )
        clip = self._out / "recording.mp4"
        frames, seconds = 0, 0.0
        try:
            rig.footage(story.began_ns, story.stopped_ns, clip)
            frames, seconds = found.decoded(clip)
        except WardpostError as error:
            trouble.append(str(error))
        drawn: Path | None = None
        seen = picture.best([each.event for each in received], self._clock.boot_id)
        if seen is not None:
            drawn = self._out / "detection.jpg"
            try:
                picture.draw(seen, node=rig.node_folder, clock=self._clock, target=drawn)
            except WardpostError as error:
                trouble.append(str(error))
        return Evidence(
            story=story,
            committed=committed,
            undelivered=undelivered,
            given_up=given_up,
            received=received,
            refused=refused,
            segments=segments,
            sha256={segment.name: found.sha256_of(rig.node_folder / segment.name) for segment in segments},
            coverage=coverage,
            clip_frames=frames,
            clip_s=seconds,
            picture=drawn,
            trouble=tuple(trouble),
        )

    def _conclude(self, evidence: Evidence, verdicts: list[Verdict], took_s: float) -> int:
        say, out = self._screen.say, _relative(self._out)
        self._screen.heading("4. What was promised, checked against databases and files:")
        for verdict in verdicts:
            self._screen.result(verdict.passed, verdict.name, verdict.detail)
        lost, twice, lost_s = len(lost_events(evidence)), duplicates(evidence), lost_footage_s(evidence)
        seen = len(evidence.committed)
        figures = {
            "events": seen,
            "delivered": seen - lost,
            "lost": lost,
            "duplicates": twice,
            "visits": len(self._viewer.visits),
            "footage_lost_s": round(lost_s, 2),
            "seconds": round(took_s, 1),
            "checks": {verdict.name: verdict.passed for verdict in verdicts},
        }
        (self._out / "summary.json").write_text(json.dumps(figures, indent=2) + "\n")
        self._screen.heading("Summary")
        say(
            f"{seen} events seen, {seen - lost} delivered, lost = {lost}, duplicates = {twice};"
            f" {lost_s:.1f} s of footage lost; {took_s:.0f} s in all"
        )
        self._screen.fact("the recording:", f"{out}/recording.mp4  (any player: ffplay, vlc, a browser)")
        if evidence.picture is not None:
            self._screen.fact("a detection:", f"{out}/{evidence.picture.name}")
        self._screen.fact("the rest:", f"{out}/  (node, station, logs)")
        failed = [verdict for verdict in verdicts if not verdict.passed]
        if failed:
            say(f"{len(failed)} of {len(verdicts)} promises did not hold; {out}/logs tells more.", "bad")
            return 1
        say(f"All {len(verdicts)} promises held.", "good")
        return 0

    # -- seeing -------------------------------------------------------------------------------------------------------

    def _until(
        self,
        condition: Callable[[], bool],
        seconds: tuple[float, float],
        text: str | Callable[[], str],
        otherwise: Callable[[], str] | None = None,
    ) -> None:
        """Shows what arrives until `condition` holds, for at least and at most so many `seconds`.

        When the time is up: raises Transient with `otherwise`, or goes on when that is None (the checks will tell).
        """
        least_s, most_s = seconds
        never = threading.Event()
        started_ns = self._clock.boot_ns()
        while True:
            self._show()
            if self._rig is not None:
                self._rig.ask_node()
                self._rig.need_all()
            passed_s = (self._clock.boot_ns() - started_ns) / NS
            if passed_s >= least_s and condition():
                return
            if passed_s >= most_s:
                if otherwise is None:
                    return
                raise Transient(otherwise())
            self._screen.progress(passed_s, least_s or most_s, text if isinstance(text, str) else text())
            self._clock.wait(never, POLL_S)

    def _show(self) -> None:
        for line in self._viewer.lines():
            self._screen.event(line.text, line.style)


def _relative(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
