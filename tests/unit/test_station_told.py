"""What ledgers tell of a range is read for several posts at once, and ahead of what is needed. Neither may change an
answer: held here against a reader that has all lines in memory and looks at one after the other."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from sqlalchemy import Engine, event, insert

from agent.clock import parse_rfc3339
from agent.evidence import records
from agent.evidence.records import Fact, Payload, RecordKind
from agent.recording.coverage import Stretch
from agent.station.db import migrate
from agent.station.db.engine import open_engine, writing
from agent.station.db.tables import line
from agent.station.footage import told
from agent.station.footage.told import Told
from agent.types import MS, NS, Cause, EndReason, Gap, Segment, TimeAnchor
from tests.fakes.database import Database

UTC_0 = 1_700_000_000 * NS
HOUR_NS = 3600 * NS
EVERYTHING = (UTC_0 - HOUR_NS, UTC_0 + 24 * HOUR_NS)
POSTS = [f"gate-{number}" for number in range(8)]
BOUNDS = {"LINES_MAX": 40, "ANCHORS_MAX": 3, "DELETIONS_MAX": 3, "ROOTS_MAX": 2, "VOUCHED_STEPS_MAX": 4}


@dataclass(frozen=True)
class Row:
    n: int
    node: str
    root: str
    seq: int
    kind: str
    body: bytes


# -- ledgers ------------------------------------------------------------------------------------------------------------


def ledger(
    draw: random.Random, node: str, root: str, lines: int, *, sound: bool = False
) -> Iterator[tuple[int, str, bytes]]:
    """Number, kind and line. `sound`: no clock is wrong, no line is missing, twice there, or not to be read."""
    boots = [f"{draw.getrandbits(128):032x}" for _ in range(4)]
    boot, boot_ns, session, wrong_ns = boots[0], 0, 0, 0
    utc_ns, seq = UTC_0 + draw.randrange(4) * HOUR_NS, 0
    while seq < lines:
        seq += 1 if sound or draw.random() < 0.95 else draw.randrange(2, 5)
        step_ns = draw.randrange(1, 60) * NS
        utc_ns, boot_ns = utc_ns + step_ns, boot_ns + step_ns
        kind = draw.choices(_KINDS, _OFTEN)[0] if session else RecordKind.START
        if kind == RecordKind.START:
            session += 1
            if draw.random() < 0.6:
                boot, boot_ns = draw.choice(boots), draw.randrange(100) * NS
        if not sound and draw.random() < 0.1:
            wrong_ns = draw.choice([0, 0, -HOUR_NS, 7 * HOUR_NS, -(10**9) * NS, 10**9 * NS])
        unc_ns = 40 * MS if sound or draw.random() < 0.7 else None
        fact = Fact(
            seq, kind, boot, boot_ns, utc_ns + wrong_ns, unc_ns, _said(draw, kind, boot, boot_ns, session, utc_ns)
        )
        # Two of one number say the same, or it would be the database's choice which is taken.
        broken = not sound and draw.random() < 0.05
        for copy in range(1 if sound or broken or draw.random() < 0.9 else 2):
            payload = records.payload_of(
                fact, node=f"site/{node}", epoch="e", seq=seq, prev=f"{copy:064x}", receipt=None
            )
            if broken:
                payload = draw.choice([b"{}", b"[1", payload.replace(b'"utc":"', b'"utc":"about '), payload[:-9]])
            body = {"payload": base64.b64encode(payload).decode(), "payloadType": records.PAYLOAD_TYPE, "copy": copy}
            yield seq, kind, json.dumps(body | {"root": root}).encode()


_KINDS = [RecordKind.SEGMENT, RecordKind.GAP, RecordKind.START, RecordKind.STOP, RecordKind.ANCHOR,
          RecordKind.CLOCK_STEP, RecordKind.DELETION, RecordKind.VERDICT]  # fmt: skip
_OFTEN = [60, 6, 5, 4, 4, 3, 3, 6]


def _said(draw: random.Random, kind: str, boot: str, boot_ns: int, session: int, utc_ns: int) -> bytes:
    start_ns = max(boot_ns - draw.randrange(1, 40) * NS, 0)
    sha256 = f"{draw.getrandbits(256):064x}"
    match kind:
        case RecordKind.SEGMENT:
            return records.segment_body(
                Segment("segments/1.mp4", session, boot, start_ns, boot_ns, 9, 1, sha256, EndReason.ROLLED, 640, 360)
            )
        case RecordKind.GAP:
            return records.gap_body(
                Gap(boot, start_ns, boot_ns, draw.choice([Cause.PRIVACY, Cause.CAMERA_FAULT]), "why")
            )
        case RecordKind.ANCHOR | RecordKind.CLOCK_STEP:
            unc_ns = draw.choice([None, 30 * MS, 3 * NS])
            return records.anchor_body(TimeAnchor(boot, boot_ns, utc_ns + draw.randrange(3) * HOUR_NS, unc_ns, "ntp"))
        case RecordKind.DELETION:
            return records.deletion_body([("segments/1.mp4", boot, start_ns, boot_ns, 9, sha256)], "budget")
        case RecordKind.START | RecordKind.STOP:
            return records.body(session=session if draw.random() < 0.9 else "one", reason="stop")
        case _:
            return records.body(what=1)


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    made = open_engine(database.url, pooled=False)
    migrate.upgrade(made)
    yield made
    made.dispose()


def heard(engine: Engine, said: Sequence[tuple[str, str, int, str, bytes]]) -> list[Row]:
    rows = [Row(n, *one) for n, one in enumerate(said, 1)]
    with writing(engine, "hear posts") as db:
        more = {"prev": "", "received_utc_ns": UTC_0}
        values = [{**vars(row), "sha256": records.digest(row.body), **more} for row in rows]
        db.execute(insert(line), values)
    return rows


# -- the reader that has it all in memory -------------------------------------------------------------------------------


class OneByOne:
    """The same rules, told in the plainest words: no index, nothing read ahead, one post after the other."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = sorted(rows, key=lambda row: (row.root, row.seq, records.digest(row.body)))

    def read(self, node: str, start_ns: int, end_ns: int) -> Told:
        found = Told()
        mine: dict[str, list[Row]] = {}
        for row in self._rows:
            if row.node == node:
                mine.setdefault(row.root, []).append(row)
        for rows in sorted(mine.values(), key=lambda rows: rows[0].n)[-told.ROOTS_MAX :]:
            self._ledger(found, rows, start_ns, end_ns)
        found.sessions.sort(key=lambda row: row.session)
        return found

    def _ledger(self, found: Told, rows: list[Row], start_ns: int, end_ns: int) -> None:
        first, last = rows[0].seq, rows[-1].seq
        low = self._from(rows, start_ns - told.MARGIN_NS, first, last)
        high = self._from(rows, end_ns + told.MARGIN_NS, low, last)
        starts = [row.seq for row in rows if row.kind == RecordKind.START]
        begun = max((seq for seq in starts if seq <= low), default=first)
        ends = min((seq for seq in starts if seq > high), default=last)

        def of(kinds: Sequence[str], one: int, other: int, most: int) -> list[Row]:
            each = [[row for row in rows if row.kind == kind and one <= row.seq <= other] for kind in kinds]
            return [row for lines in each for row in lines[::-1][:most]]

        anchors = [RecordKind.ANCHOR, RecordKind.CLOCK_STEP]
        wanted = of([*anchors, RecordKind.START], begun, low - 1, told.LINES_MAX)
        shown = [RecordKind.START, RecordKind.STOP, *anchors, RecordKind.SEGMENT, RecordKind.GAP]
        wanted += of(shown, max(low, begun), high, told.LINES_MAX + 1)
        found.cut = found.cut or len(wanted) > told.LINES_MAX
        wanted = sorted(wanted, key=lambda row: -row.seq)[: told.LINES_MAX + 1]
        wanted += of([*anchors, RecordKind.START, RecordKind.STOP], high + 1, ends, told.ANCHORS_MAX)
        for row in of([RecordKind.DELETION], begun, last, told.DELETIONS_MAX):
            if (payload := told._payload(row)) is not None:
                told._deletion(found, payload.body)
        wanted += [row for row in rows if row.seq == ends][:1]
        payloads = [payload for row in wanted if (payload := told._payload(row)) is not None]
        told._take(found, sorted(payloads, key=lambda payload: payload.seq))

    def _from(self, rows: list[Row], utc_ns: int, low: int, high: int) -> int:
        while low < high:
            middle = (low + high) // 2
            at, utc = self._dated([row for row in rows if middle <= row.seq <= high], middle)
            if utc is not None and utc < utc_ns:
                low = at + 1
            else:
                high = middle
        return low

    def _dated(self, rows: list[Row], middle: int) -> tuple[int, int | None]:
        """The first line that somebody vouches for, of a few; else the last that has a time at all."""
        dated = [
            (p, utc) for row in rows[: told.VOUCHED_STEPS_MAX] if (p := told._payload(row)) and (utc := self._utc(p))
        ]
        vouched = [one for one in dated if one[0].unc_ms is not None]
        for payload, utc in vouched[:1] or dated[-1:]:
            return payload.seq, utc
        return middle, None

    @staticmethod
    def _utc(payload: Payload) -> int | None:
        try:
            return parse_rfc3339(payload.utc)
        except ValueError:
            return None


def test_together_and_ahead_or_one_by_one_the_answer_is_the_same(
    engine: Engine, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random ledgers of eight posts, some with several: clocks that were set back, forward, and never; lines that are
    missing, twice there, or not to be read; and more of everything than is read at most.
    """
    for name, value in BOUNDS.items():
        monkeypatch.setattr(told, name, value)
    draw = random.Random(seed)
    said: list[tuple[str, str, int, str, bytes]] = []
    for node in POSTS[:-1]:  # the last was never heard
        for root in draw.sample("abcdef", draw.randrange(1, 4)):
            lines = draw.choice([1, 2, 9, 130]) if said else 130
            said += [(node, root * 64, *one) for one in ledger(draw, node, root, lines)]
    plain = OneByOne(heard(engine, said))
    drawn = [UTC_0 + draw.randrange(-HOUR_NS, 6 * HOUR_NS) for _ in range(3)]
    ranges = [(start_ns, start_ns + draw.choice([NS, HOUR_NS, 24 * HOUR_NS])) for start_ns in drawn]
    for start_ns, end_ns in [*ranges, EVERYTHING]:
        monkeypatch.setattr(told, "MARGIN_NS", draw.choice([0, 900 * NS]))
        expected = [plain.read(node, start_ns, end_ns) for node in POSTS]
        for ahead in (1, 4):
            monkeypatch.setattr(told, "STEPS_AHEAD", dict.fromkeys(told.STEPS_AHEAD, ahead))
            assert told.read_all(engine, POSTS, start_ns, end_ns) == expected
        node = draw.choice(POSTS)
        assert told.read(engine, node, start_ns, end_ns) == expected[POSTS.index(node)]
        assert all(_told(one, start_ns, end_ns) for one in expected)
    assert any(one.segments or one.gaps for one in expected), "of everything"
    assert told.read_all(engine, [], UTC_0, UTC_0 + NS) == []


def _told(one: Told, start_ns: int, end_ns: int) -> list[Stretch]:
    """Whatever the lines say, every second of the range has a label."""
    stretches, _ = one.account(start_ns, end_ns, now_utc_ns=end_ns)
    assert sum(part.end_utc_ns - part.start_utc_ns for part in stretches) == end_ns - start_ns
    return stretches


def test_eight_posts_take_as_many_trips_as_one(engine: Engine, database: Database, seed: int) -> None:
    """A statement is a trip to the server: what a page of eight posts waits for."""
    draw = random.Random(seed)
    heard(engine, [(node, "a" * 64, *one) for node in POSTS for one in ledger(draw, node, "a", 400, sound=True)])
    asked: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda _db, _cursor, statement, *_: asked.append(statement))
    start_ns, end_ns = UTC_0 + 2 * HOUR_NS, UTC_0 + 3 * HOUR_NS
    one = told.read_all(engine, POSTS[:1], start_ns, end_ns)
    alone = len(asked)
    asked.clear()
    eight = told.read_all(engine, POSTS, start_ns, end_ns)
    assert eight[:1] == one and all(found.segments for found in eight)
    if database.kind == "postgresql":
        # 2 for the roots, 2 for their ends, 3 and 3 for the halving, 4 for the lines; where halving meets a time that
        # nobody vouches for, it goes on from there by one more. One post after the other it would be some 400.
        assert alone <= len(asked) <= 40
    else:
        assert len(asked) <= 9 * alone, "no trip, no reason to look ahead"
    assert alone < 60
