"""What ledgers tell of a range is read for several posts at once, ahead of what is needed, and remembered as runs of
files. None of it may change an answer: held here against a reader that has all lines in memory and looks at one after
the other."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest
from sqlalchemy import Engine, delete, event, func, insert, select

from agent.clock import parse_rfc3339
from agent.evidence import records
from agent.evidence.records import Fact, Payload, RecordKind
from agent.recording.coverage import Stretch
from agent.station.db import migrate
from agent.station.db.engine import open_engine, writing
from agent.station.db.tables import line
from agent.station.footage import blocks, told
from agent.station.footage.blocks import BLOCK
from agent.station.footage.lines import payload_of
from agent.station.footage.told import Reader, Told
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
    boot, boot_ns, session, wrong_ns, fed = boots[0], 0, 0, 0, ("", 0)
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
        since_ns = fed[1] + draw.choice(_JITTER) if fed[0] == boot and draw.random() < 0.9 else None
        body = _said(draw, kind, boot, boot_ns, session, utc_ns, since_ns, sound=sound)
        fed = (boot, boot_ns) if kind == RecordKind.SEGMENT else fed
        fact = Fact(seq, kind, boot, boot_ns, utc_ns + wrong_ns, unc_ns, body)
        # Two of one number say the same, or it would be the database's choice which is taken.
        broken = not sound and draw.random() < 0.05
        for copy in range(1 if sound or broken or draw.random() < 0.9 else 2):
            payload = records.payload_of(
                fact, node=f"site/{node}", epoch="e", seq=seq, prev=f"{copy:064x}", receipt=None
            )
            if broken:
                payload = draw.choice([b"{}", b"[1", payload.replace(b'"utc":"', b'"utc":"about '), payload[:-9]])
            raw = {"payload": base64.b64encode(payload).decode(), "payloadType": records.PAYLOAD_TYPE, "copy": copy}
            yield seq, kind, json.dumps(raw | {"root": root}).encode()


_KINDS = [RecordKind.SEGMENT, RecordKind.GAP, RecordKind.START, RecordKind.STOP, RecordKind.ANCHOR,
          RecordKind.CLOCK_STEP, RecordKind.DELETION, RecordKind.VERDICT]  # fmt: skip
_OFTEN = [90, 4, 3, 3, 4, 3, 3, 6]
_JITTER = [0] * 12 + [NS // 20, NS, 2 * NS, -NS]


def _said(
    draw: random.Random,
    kind: str,
    boot: str,
    boot_ns: int,
    session: int,
    utc_ns: int,
    since_ns: int | None,
    *,
    sound: bool,
) -> bytes:
    """`since_ns`: where a file begins that follows the one before."""
    start_ns = max(boot_ns - draw.randrange(1, 40) * NS, 0)
    if kind == RecordKind.SEGMENT and since_ns is not None:
        start_ns = since_ns
    sha256 = f"{draw.getrandbits(256):064x}"
    match kind:
        case RecordKind.SEGMENT:
            why = draw.choice([EndReason.ROLLED] * 15 + [EndReason.CAMERA])
            return records.segment_body(
                Segment("segments/1.mp4", session, boot, start_ns, boot_ns, 9, 1, sha256, why, 640, 360)
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
            return records.body(session=session if sound or draw.random() < 0.9 else "one", reason="stop")
        case _:
            return records.body(what=1)


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    made = open_engine(database.url, pooled=False)
    migrate.upgrade(made)
    yield made
    made.dispose()


def heard(engine: Engine, said: Sequence[tuple[str, str, int, str, bytes]]) -> list[Row]:
    with writing(engine, "hear posts") as db:
        first = (db.execute(select(func.max(line.c.n))).scalar() or 0) + 1
        rows = [Row(n, *one) for n, one in enumerate(said, first)]
        more = {"prev": "", "received_utc_ns": UTC_0}
        values = [{**vars(row), "sha256": records.digest(row.body), **more} for row in rows]
        db.execute(insert(line), values)
    return rows


# -- the reader that has it all in memory -------------------------------------------------------------------------------


class OneByOne:
    """The same rules, told in the plainest words: no index, nothing read ahead, one post after the other."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = sorted(rows, key=lambda row: (row.root, row.seq, row.n))

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
        behind = last // BLOCK + 1
        since = self._from(rows, start_ns - told.MARGIN_NS, first // BLOCK, behind)
        until = self._from(rows, end_ns + told.MARGIN_NS, since, behind)
        low = max((since - 1) * BLOCK, first)
        high = min(until * BLOCK + BLOCK - 1, last)
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
            if (payload := payload_of(row.body)) is not None:
                told._deletion(found, payload.body)
        wanted += [row for row in rows if row.seq == ends][:1]
        payloads = [payload for row in wanted if (payload := payload_of(row.body)) is not None]
        told._take(found, told._once(payloads))

    def _from(self, rows: list[Row], utc_ns: int, low: int, high: int) -> int:
        """The block that begins at about this time: halved at the number with the most factors of two."""
        while low < high:
            middle = max(range(low, high), key=lambda number: (number & -number) if number else high)
            at, utc = self._dated([row for row in rows if middle * BLOCK <= row.seq], middle * BLOCK)
            if utc is not None and utc < utc_ns:
                low = at // BLOCK + 1
            else:
                high = middle
        return low

    def _dated(self, rows: list[Row], middle: int) -> tuple[int, int | None]:
        """The first line that somebody vouches for, of a few; else the last that has a time at all."""
        dated = [
            (p, utc) for row in rows[: told.VOUCHED_STEPS_MAX] if (p := payload_of(row.body)) and (utc := self._utc(p))
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


@pytest.mark.parametrize("lines_max", [40, 20_000])
def test_together_ahead_and_remembered_or_one_by_one_the_answer_is_the_same(
    engine: Engine, seed: int, lines_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random ledgers of eight posts, some with several: clocks that were set back, forward, and never; files that
    follow each other, or nearly, or overlap; lines that are missing, twice there, or not to be read; and more of
    everything than is read at most.
    """
    for name, value in (BOUNDS | {"LINES_MAX": lines_max}).items():
        monkeypatch.setattr(told, name, value)
    draw = random.Random(seed)
    said: list[tuple[str, str, int, str, bytes]] = []
    for node in POSTS[:-1]:  # the last was never heard
        for root in draw.sample("abcdef", draw.randrange(1, 4)):
            lines = draw.choice([1, 2, 9, 130, 300]) if said else 400
            said += [(node, root * 64, *one) for one in ledger(draw, node, root, lines)]
    plain = OneByOne(heard(engine, said))
    drawn = [UTC_0 + draw.randrange(-HOUR_NS, 6 * HOUR_NS) for _ in range(3)]
    ranges = [(start_ns, start_ns + draw.choice([NS, HOUR_NS, 24 * HOUR_NS])) for start_ns in drawn]
    remembers = Reader(engine)
    for start_ns, end_ns in [*ranges, EVERYTHING]:
        monkeypatch.setattr(told, "MARGIN_NS", draw.choice([0, 900 * NS]))
        expected = [plain.read(node, start_ns, end_ns) for node in POSTS]
        for ahead in (1, 4):
            monkeypatch.setattr(told, "STEPS_AHEAD", dict.fromkeys(told.STEPS_AHEAD, ahead))
            assert told.read_all(engine, POSTS, start_ns, end_ns) == expected
        for reader, bytes_max in ((remembers, blocks.BYTES_MAX), (Reader(engine, bytes_max=20_000), 20_000)):
            for nodes in (POSTS[2:4], POSTS, POSTS):
                alike(reader.read_all(nodes, start_ns, end_ns), nodes, expected, start_ns, end_ns)
            assert 0 <= reader.bytes <= bytes_max
        node = draw.choice(POSTS)
        assert told.read(engine, node, start_ns, end_ns) == expected[POSTS.index(node)]
        assert all(_told(one, start_ns, end_ns) for one in expected)
    assert any(one.segments or one.gaps for one in expected), "of everything"
    assert told.read_all(engine, [], UTC_0, UTC_0 + NS) == []


def alike(found: Sequence[Told], nodes: Sequence[str], expected: Sequence[Told], start_ns: int, end_ns: int) -> None:
    """The same rows, and the same account of every second; but that files which follow each other are runs."""
    assert len(found) == len(nodes)
    for node, one in zip(nodes, found, strict=True):
        plain = expected[POSTS.index(node)]
        assert replace(one, segments=[], runs=[]) == replace(plain, segments=[])
        assert sorted(one.digests()) == sorted(plain.digests())
        assert sorted(one.named(start_ns, end_ns)) == sorted(plain.named(start_ns, end_ns))
        assert _told(one, start_ns, end_ns) == _told(plain, start_ns, end_ns)


def test_no_more_is_read_of_a_long_ledger_than_is_near_the_range(
    engine: Engine, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(told, "MARGIN_NS", 60 * NS)
    draw = random.Random(seed)
    rows = heard(engine, [(POSTS[0], "a" * 64, *one) for one in ledger(draw, POSTS[0], "a", 1000, sound=True)])
    payload = payload_of(rows[500].body)
    assert payload is not None
    at_ns = parse_rfc3339(payload.utc)
    read = told.read(engine, POSTS[0], at_ns, at_ns + NS)
    near = {row.seq // BLOCK for row in rows if abs(parse_rfc3339(payload_of(row.body).utc) - at_ns) < 60 * NS}  # type: ignore[union-attr]
    assert len(read.segments) + len(read.gaps) <= (len(near) + 2) * BLOCK
    told_of = {one.end_ns for one in read.segments}
    assert told_of and any(one.boot_id == payload.boot_id for one in read.sessions)


def test_what_is_remembered_holds_until_a_line_comes_or_goes(
    engine: Engine, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day is read once; then late lines come, with old numbers and a number that is there, new ones, and the oldest
    are given up. Read again is what they change, and nothing else.
    """
    draw = random.Random(seed)
    read: list[int] = []

    def counted(rows: Sequence[Row], *, lines: int, oldest: int) -> blocks.Block:
        read.append(lines)
        return blocks.block_of(rows, lines=lines, oldest=oldest)

    monkeypatch.setattr(told, "block_of", counted)
    lines = [(node, "a" * 64, *one) for node in POSTS[:3] for one in ledger(draw, node, "a", 600, sound=True)]
    late = [one for one in lines if one[2] in (100, 101, 350)]
    new = [one for one in lines if one[2] > 590]
    heard(engine, [one for one in lines if one not in late and one not in new])
    reader = Reader(engine)

    def again(*, blocks_read: int | None) -> None:
        read.clear()
        found = reader.read_all(POSTS[:3], *EVERYTHING)
        assert blocks_read is None or len(read) == blocks_read
        plain = told.read_all(engine, POSTS[:3], *EVERYTHING)
        alike(found, POSTS[:3], plain, *EVERYTHING)

    again(blocks_read=3 * 10)
    again(blocks_read=0)
    heard(engine, late)
    again(blocks_read=3 * 2)
    again(blocks_read=0)
    heard(engine, new)
    again(blocks_read=3)
    twice = [(node, root, 200, kind, body + b" ") for node, root, _, kind, body in lines[199:200]]
    heard(engine, twice)
    again(blocks_read=1)
    again(blocks_read=0)
    with writing(engine, "give up the oldest") as db:
        db.execute(delete(line).where(line.c.n <= 700))  # all of the first post but its late ones, some of the second
    again(blocks_read=None)
    again(blocks_read=0)
    with writing(engine, "give up everything") as db:
        db.execute(delete(line))
    again(blocks_read=0)


def test_a_line_given_up_and_a_late_one_in_its_block_are_both_noticed(engine: Engine, seed: int) -> None:
    """The block has as many lines as before, but not the same."""
    draw = random.Random(seed)
    lines = [(POSTS[0], "a" * 64, *one) for one in ledger(draw, POSTS[0], "a", 60, sound=True)]
    heard(engine, lines[:30] + lines[31:])
    reader = Reader(engine)
    assert reader.read_all(POSTS[:1], *EVERYTHING)[0].last is not None
    with writing(engine, "give up the oldest") as db:
        db.execute(delete(line).where(line.c.n <= 1))
    heard(engine, lines[30:31])
    plain = told.read_all(engine, POSTS[:1], *EVERYTHING)
    alike(reader.read_all(POSTS[:1], *EVERYTHING), POSTS[:1], plain, *EVERYTHING)


def test_of_a_number_with_more_lines_than_a_post_writes_nothing_is_remembered(engine: Engine, seed: int) -> None:
    """A node may sign as many lines of one number as it likes: they are read as ever, and take no memory."""
    draw = random.Random(seed)
    one = next(one for one in ledger(draw, POSTS[0], "a", 90, sound=True) if one[1] == RecordKind.SEGMENT)
    lines = [(POSTS[0], "a" * 64, one[0], one[1], one[2] + b" " * n) for n in range(blocks.LINES_MAX + 1)]
    heard(engine, lines)
    reader = Reader(engine)
    alike(
        reader.read_all(POSTS[:1], *EVERYTHING), POSTS[:1], told.read_all(engine, POSTS[:1], *EVERYTHING), *EVERYTHING
    )
    assert reader.bytes == 0


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
