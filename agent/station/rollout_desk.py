"""Rollouts: acts. What to do is decided in rollout.py; each step is durable before a post hears of it.

The order of things, so that a station may be killed at any moment: the step, with the id of the command, into the
station's database; then the command of that id into the queue. A command that is missing there is made again under
its own id. A post that is told twice all the same answers that it has the release: by its number `update` is safe to
repeat.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence

from agent import wire
from agent.clock import Clock
from agent.errors import ConfigError, Corrupt, Transient, WardpostError
from agent.station import rings, rollout
from agent.station.orders import OrderBook, Request
from agent.station.rollout import Has, Post, Rollout, Seen, State
from agent.station.rollouts import Note
from agent.station.signing import Signer, command_key
from agent.station.states import NodeState
from agent.station.store import StationStore
from agent.types import NS

EVERY_S = 5.0
SAVE_S = 60.0
"""Counted seconds are saved so often at least: a station that is killed loses no more of them."""
_HEARD = (NodeState.ONLINE, NodeState.LATE)
FRAME_AGE_MS_MAX = 30_000
LIVE = (State.RUNNING, State.PAUSED)

log = logging.getLogger(__name__)


class RolloutDesk:
    """Drives the newest rollout, and does what `wardpost rollout` asks. The station's thread."""

    def __init__(
        self, *, store: StationStore, orders: OrderBook, clock: Clock, signer: Signer, new_id: Callable[[], str]
    ) -> None:
        """`store` and `orders` are opened and closed by their owner."""
        self._store, self._orders, self._clock, self._signer, self._new_id = store, orders, clock, signer, new_id
        self._rollout: Rollout | None = None
        self._saved: dict[str, Post] = {}
        self._loaded = False
        self._looked_ns: int | None = None
        self._saved_ns = 0
        self._beats: dict[str, tuple[bytes, wire.Heartbeat | None]] = {}

    def forget(self) -> None:
        """What is in memory: it is read again from the disk."""
        self._loaded, self._looked_ns = False, None
        self._beats.clear()

    def step(self, *, connected: bool) -> None:
        """Does what is due; quick when nothing is. Raises Transient, Corrupt: then it is tried again later."""
        now_ns = self._clock.boot_ns()
        if self._looked_ns is not None and now_ns - self._looked_ns < EVERY_S * NS and not self._orders.requests():
            return
        try:
            self._load()
            for request in self._orders.requests():
                self._take(request)
            elapsed_s = 0.0 if self._looked_ns is None else (now_ns - self._looked_ns) / NS
            self._looked_ns = now_ns
            if self._rollout is not None and self._rollout.state is not State.DONE and connected:
                self._go_on(self._rollout, elapsed_s)
        except WardpostError:
            self.forget()  # what was decided and not saved is decided again
            raise

    def _load(self) -> None:
        if not self._loaded:
            self._rollout = self._store.rollout()
            self._saved = {} if self._rollout is None else {post.node: post for post in self._rollout.posts}
            self._loaded = True

    # -- what people ask ----------------------------------------------------------------------------------------------

    def _take(self, request: Request) -> None:
        done = self._store.settled(request.id)
        if done is None:
            try:
                done = self._asked(request)
            except (ConfigError, Corrupt) as error:
                self._orders.settle(request.id, json.dumps({"ok": False, "text": str(error)}))
                return
        self._orders.settle(request.id, json.dumps({"ok": True, "text": done}))

    def _asked(self, request: Request) -> str:
        """Does it, and puts it on record. Raises ConfigError with why not, Corrupt, Transient."""
        asked = rings.read(request.verb, request.body)
        now, by = self._rollout, f" by {asked.by}" if asked.by else ""
        if isinstance(asked, rings.Start):
            if now is not None and now.state in LIVE:
                raise ConfigError(f"the rollout of release {now.number} is {now.state.value}; stop it first")
            command_key(self._signer.key)  # refused now, not at the first post
            if now is not None and now.state is State.STOPPED:
                self._taken_back(now, [])
            now, text = rings.begun(asked, request.id), f"rollout of release {asked.number} is started{by}"
            self._saved = {}
        elif now is None or now.state is State.DONE:
            raise ConfigError("there is no rollout that is not done")
        elif request.verb == "resume":
            if now.state is State.RUNNING:
                raise ConfigError("it is running")
            now, text = rollout.resumed(now), f"resumed{by}"
        elif request.verb in ("pause", "stop"):
            if now.state is State.STOPPED or (request.verb == "pause" and now.state is State.PAUSED):
                raise ConfigError(f"it is {now.state.value} already")
            text = f"{'paused' if request.verb == 'pause' else 'stopped'}{by}"
            now = rollout.paused(now, text) if request.verb == "pause" else rollout.stopped(now, text)
        else:
            raise Corrupt(f"nobody here knows {request.verb[:40]!r}")
        self._save(now, [Note(now.id, text, request.id)])
        log.info("rollout of release %d: %s", now.number, text)
        return text

    # -- going on -----------------------------------------------------------------------------------------------------

    def _go_on(self, before: Rollout, elapsed_s: float) -> None:
        now = before
        notes: list[Note] = []
        if now.state is not State.RUNNING:
            now = self._taken_back(now, notes)
        found = rollout.step(now, self._seen(now), elapsed_s=elapsed_s)
        now = rollout.with_orders(found.rollout, {node: self._new_id() for node in found.tell})
        notes += [Note(now.id, text) for text in found.log]
        for note in notes:
            log.info("rollout of release %d: %s", now.number, note.text)
        self._rollout = now
        due = self._clock.boot_ns() - self._saved_ns >= SAVE_S * NS
        if notes or now.state is not before.state or (due and now.state is State.RUNNING) or _moved(before, now):
            self._save(now, notes)
        if now.state is State.RUNNING:
            self._tell(now)

    def _tell(self, now: Rollout) -> None:
        """Sees to it that the command of every post that is told lies in the queue."""
        args = {"number": now.number, "url": now.url, "bytes": now.bytes, "sha256": now.sha256}
        for post in now.posts:
            if post.has is Has.TOLD and post.order and self._orders.find(post.order) is None:
                try:
                    self._signer.queue(
                        self._orders, post.node, "update", args, command_id=post.order, clock=self._clock
                    )
                except ConfigError as error:
                    raise Transient(f"rollout: {post.node} cannot be told: {error}") from None

    def _taken_back(self, now: Rollout, notes: list[Note]) -> Rollout:
        """Withdraws the commands that no post has answered yet."""
        gone = [
            post.node
            for post in now.posts
            if post.has is Has.TOLD
            and (self._orders.find(post.order) is None or self._orders.withdraw(post.order, f"it is {now.state.value}"))
        ]
        notes += [Note(now.id, f"{node}: its command is withdrawn") for node in gone]
        return rollout.taken_back(now, gone)

    def _save(self, now: Rollout, notes: Sequence[Note]) -> None:
        changed = [post for post in now.posts if self._saved.get(post.node) != post]
        self._store.save_rollout(now, changed, notes)
        self._rollout = now
        self._saved.update({post.node: post for post in changed})
        self._saved_ns = self._clock.boot_ns()

    def _seen(self, now: Rollout) -> dict[str, Seen]:
        heard = {one.node for one in self._store.nodes() if one.state in _HEARD}
        beats = self._store.heartbeats()
        return {post.node: self._look(post, post.node in heard, beats) for post in now.posts}

    def _look(self, post: Post, heard: bool, beats: Mapping[str, bytes]) -> Seen:
        beat = self._beat(post.node, beats.get(post.node))
        order = self._orders.find(post.order) if post.order and post.has is Has.TOLD else None
        state, answer = ("", "") if order is None else (order.state, _answer(order.answer))
        if beat is None:
            return Seen(heard=heard, order=state, answer=answer)
        told = beat.release
        if told is None:
            return Seen(heard=heard, fit=fit(beat), session=beat.session, order=state, answer=answer)
        return Seen(
            heard=heard,
            fit=fit(beat),
            session=beat.session,
            number=told.number,
            tried=told.tried,
            phase=told.phase,
            doubt=told.doubt,
            why=told.why,
            order=state,
            answer=answer,
        )

    def _beat(self, node: str, body: bytes | None) -> wire.Heartbeat | None:
        """Decoded once for each that came."""
        if body is None:
            return None
        known = self._beats.get(node)
        if known is None or known[0] != body:
            try:
                known = (body, wire.decode(body, wire.Heartbeat))
            except Corrupt:
                known = (body, None)
            self._beats[node] = known
        return known[1]


def fit(beat: wire.Heartbeat) -> bool:
    """Whether frames come and are recorded; a privacy switch is no sickness."""
    camera, recording = beat.camera, beat.recording
    if recording is not None and recording.privacyleft_s > 0:
        return True
    frames = camera is not None and camera.frameagems is not None and camera.frameagems <= FRAME_AGE_MS_MAX
    return frames and recording is not None and recording.recording


def _answer(text: str) -> str:
    try:
        reply = wire.decode(text.encode(), wire.Reply) if text else None
    except Corrupt:
        return ""
    return "" if reply is None else str(reply.detail or reply.result.get("summary", ""))


def _moved(before: Rollout, now: Rollout) -> bool:
    """Whether a post has come to something else; counted seconds are no such thing."""
    return any(
        old.has is not new.has or old.order != new.order for old, new in zip(before.posts, now.posts, strict=True)
    )
