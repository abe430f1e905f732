"""Verdicts and what is known of posts, in the words of words.*.json. Pure, but for reading that file."""

from __future__ import annotations

import importlib.resources
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any

from agent.clock import rfc3339
from agent.quantities import DAY_S
from agent.station.posts.fleet import PostView
from agent.station.posts.known import Evidence, Known
from agent.station.posts.upkeep import BellLine, bell_of, storage_days
from agent.station.posts.why_dark import Verdict

DEFAULT = "en"
FOLDER: Traversable = importlib.resources.files("agent.station.posts")
_LANGUAGE = re.compile(r"[a-z]{2}")


@dataclass(frozen=True, slots=True)
class Words:
    """One language."""

    texts: Mapping[str, str]

    @classmethod
    def of(cls, language: str) -> Words:
        """By its file; English where there is none, and for what it does not say."""
        texts = _read(DEFAULT)
        return cls(texts if language == DEFAULT else texts | _read(language))

    def __call__(self, key: str) -> str:
        return self.texts[key]

    def span(self, seconds: float) -> str:
        """As agent.quantities.span, in this language."""
        for unit, size, below in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 2 * DAY_S)):
            if seconds < below:
                return self(f"unit.{unit}").format(n=f"{max(seconds, 0) / size:.0f}")
        return self("unit.days").format(n=f"{seconds / DAY_S:.0f}")

    def evidence(self, one: Evidence) -> str:
        """The sentence alone."""
        values = {}
        for name, value in one.values.items():
            if name.endswith("_s") and isinstance(value, int | float):
                values[name] = self.span(value)
            else:
                values[name] = self(str(value)) if name == "shared" else str(value)
        return self(one.what).format(**values)

    def source(self, one: Evidence) -> str:
        """Who says so, and when."""
        name = self(f"source.{one.source}")
        return name if one.utc_ns is None else f"{name}, {rfc3339(one.utc_ns)}"

    def state(self, post: Known) -> str:
        """`dark`; `revoked · dark`."""
        state = self(f"state.{post.state}")
        return f"{self('state.revoked')} · {state}" if post.revoked else state

    def why(self, verdict: Verdict) -> str:
        """`network, the provider (likely)`."""
        where = "" if verdict.scope == "post" else f", {self(f'scope.{verdict.scope}')}"
        sure = "" if verdict.confidence == 0 else f" ({self(f'word.{verdict.word}')})"
        return f"{self(f'cause.{verdict.cause}')}{where}{sure}"


def _read(language: str) -> dict[str, str]:
    path = FOLDER.joinpath(f"words.{language}.json")
    if not _LANGUAGE.fullmatch(language) or not path.is_file():
        return {}
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found


def verdict_dict(verdict: Verdict, words: Words) -> dict[str, Any]:
    """For a program: codes, and the sentences beside them."""
    return {
        "cause": verdict.cause.value,
        "confidence": verdict.confidence,
        "word": verdict.word,
        "scope": verdict.scope,
        "evidence": [
            {
                "what": one.what,
                "source": one.source,
                "time": None if one.utc_ns is None else rfc3339(one.utc_ns),
                "text": words.evidence(one),
            }
            for one in verdict.evidence
        ],
        "others": [{"cause": one.cause.value, "confidence": one.confidence} for one in verdict.others],
        "more": [words(key) for key in verdict.more],
    }


def overwrite_of(view: PostView) -> str | None:
    """When the oldest of the footage that goes first is expected to be overwritten; RFC 3339, as the node said it."""
    recording = None if view.post.beat is None else view.post.beat.said.recording
    if recording is None:
        return None
    return next((one.overwrite for one in recording.classes if one.overwrite is not None), None)


def bell_time(line: BellLine) -> str | None:
    """RFC 3339."""
    return None if line.utc_ns is None else rfc3339(line.utc_ns)


def view_dict(view: PostView, words: Words, now_utc_ns: int) -> dict[str, Any]:
    """One post for a program."""
    post, task = view.post, view.task
    up = view.uptime
    bell = bell_of(post, now_utc_ns)
    kept = storage_days(post, now_utc_ns)
    free = None if post.beat is None else post.beat.said.machine.diskfreebytes
    return {
        "node": post.node,
        "place": post.place,
        "state": post.state,
        "seen": rfc3339(post.seen_utc_ns),
        "why": None if view.now is None else verdict_dict(view.now, words),
        "footagedays": None if kept is None else round(kept, 2),
        "diskfreebytes": free,
        "overwrite": overwrite_of(view),
        "bell": None if bell is None else {"state": bell.look, "time": bell_time(bell)},
        "uptime": None if up.up is None else round(up.up, 5),
        "outages": up.outages,
        "outagemedian_s": up.median_s,
        "days": [
            {
                "date": day.date.isoformat(),
                "up": None if day.up is None else round(day.up, 4),
                "away_s": round(day.away_s),
            }
            for day in up.days
        ],
        "past": [
            {
                "from": rfc3339(one.outage.start_utc_ns),
                "to": None if one.outage.end_utc_ns is None else rfc3339(one.outage.end_utc_ns),
                "seconds": round(one.outage.seconds(now_utc_ns)),
                "why": verdict_dict(one.verdict, words),
            }
            for one in view.past
        ],
        "upkeep": {
            "hours": round(view.cost.total_h, 2),
            "visits": round(view.cost.visits_h, 2),
            "outages": round(view.cost.outages_h, 2),
            "storage": round(view.cost.storage_h, 2),
            "falsealerts": round(view.cost.false_h, 2),
        },
        "todo": None
        if task is None
        else {
            "what": words(task.what),
            "bring": [words(key) for key in task.bring],
            "urgency": task.urgency.name.lower(),
            "trip": task.trip,
        },
    }
