"""Questions to the database that are asked together: each has the rows that it would have alone, whatever stands in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, bindparam, insert, literal_column, select

from agent.station.db import migrate
from agent.station.db.engine import open_engine, reading, writing
from agent.station.db.tables import line, meta
from agent.station.db.together import Among, Ask, OnePack, Packed, Question, Reading, abreast, answered
from agent.station.db.types import Whole
from agent.station.db.upsert import Upsert
from tests.fakes.database import Database

HARD = [
    "plain",
    "",
    "it's",
    'a "word"',
    "back\\slash",
    "\\u0000",
    "{a,b}",
    "NULL",
    "Phường",
    "\U0001f6a8",
    "a\0b",
    "%s :x",
]
ABOVE = Question(
    lambda of: (
        select(meta.c.key, meta.c.value).where(meta.c.value > of["value"]).order_by(meta.c.value).limit(of["limit"])
    ),
    {"value": meta.c.value.type, "limit": Whole},
)
IS = Question(lambda of: select(meta.c.key).where(meta.c.value == of["value"]), {"value": meta.c.value.type})
AMONG = Among(select(meta.c.key).where(meta.c.key != bindparam("but")).order_by(meta.c.key), meta.c.value)
BODIES = [b'{"payload":"e30="}', b"", b"\0", b"\xff\xfe", b"two\nlines", "Phường".encode(), b"\\x00", b"x" * 5000]
"""Nothing but lines gets into that table, and a question must not depend on it."""
PACKED = Packed(
    lambda of: select(line.c.seq, line.c.n, line.c.kind, line.c.body).where(
        line.c.node == of["node"], line.c.seq <= of["high"]
    ),
    {"node": line.c.node.type, "high": line.c.seq.type},
    pack=line.c.seq // literal_column("4", line.c.seq.type),
)

ONE_PACK = OnePack(
    select(line.c.seq, line.c.kind, line.c.body)
    .where(line.c.node == bindparam("node"), line.c.seq > bindparam("after"))
    .order_by(line.c.seq)
    .limit(bindparam("limit"))
)


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    made = open_engine(database.url, pooled=False)
    migrate.upgrade(made)
    with writing(made, "prepare a test") as db:
        db.execute(insert(meta), [{"key": f"k{n:02d}", "value": value} for n, value in enumerate(HARD)])
        db.execute(insert(line), [
            {"node": node, "root": "r", "seq": n + 1, "sha256": "", "prev": "", "kind": f"{node} {n}",
             "received_utc_ns": 0, "body": body}
            for node in ("cam-1", 'cam "2"') for n, body in enumerate(BODIES)
        ])  # fmt: skip
    yield made
    made.dispose()


def test_whatever_stands_in_a_value_it_is_found_again(engine: Engine) -> None:
    with reading(engine) as db:
        found = IS.ask(db, [{"value": value} for value in [*HARD, "nobody", *HARD[:2]]])
        assert [[row.key for row in rows] for rows in found] == [
            *([f"k{n:02d}"] for n in range(len(HARD))), [], ["k00"], ["k01"],
        ]  # fmt: skip
        assert [row.key for row in AMONG.ask(db, [*HARD, "nobody"] * 200, but="k03")] == [
            f"k{n:02d}" for n in range(len(HARD)) if n != 3
        ]
        assert IS.ask(db, []) == []
        assert AMONG.ask(db, [], but="") == []


def test_rows_that_are_written_together_are_what_each_would_be_alone(engine: Engine) -> None:
    add = Upsert(line, lambda made: made.on_conflict_do_nothing())
    words, numbers = [*HARD, "\\u0000\0", "\u2028"], [1, 2**53 + 1, 2**63 - 1]
    rows: list[dict[str, Any]] = [
        {"node": f"cam-9 {word}", "root": word, "seq": numbers[n % 3], "sha256": word, "prev": word, "kind": word,
         "received_utc_ns": -numbers[n % 3], "body": BODIES[n % len(BODIES)]}
        for n, word in enumerate(words)
    ]  # fmt: skip
    with writing(engine, "write together") as db:
        assert len(add.many(db, rows)) == len(rows)
        assert add.many(db, rows) == [], "each is there already"
    with reading(engine) as db:
        found = db.execute(select(line).where(line.c.node.startswith("cam-9")).order_by(line.c.n)).mappings()
        told = [{name: bytes(row[name]) if name == "body" else row[name] for name in rows[0]} for row in found]
    assert told == [
        {name: one.replace("\0", "\ufffd") if isinstance(one, str) else one for name, one in row.items()}
        for row in rows
    ]


def test_each_question_has_its_own_order_and_bound(engine: Engine) -> None:
    with reading(engine) as db:
        rows, none, more = ABOVE.ask(
            db, [{"value": "a", "limit": 2}, {"value": "a", "limit": 0}, {"value": "b", "limit": 50}]
        )
    assert none == [] and [row.value for row in rows] == ['a "word"', "a\ufffdb"]
    assert {row.value for row in more} >= {"back\\slash", "plain", "{a,b}"} and rows[0].key == "k03"


def test_many_lines_that_come_as_one_row_are_each_what_they_were(engine: Engine) -> None:
    asked: list[dict[str, Any]] = [
        {"node": "cam-1", "high": 99},
        {"node": "nobody", "high": 99},
        {"node": 'cam "2"', "high": 6},
    ]
    with reading(engine) as db:
        found = PACKED.ask(db, asked)
    assert [[(row.seq, row.kind, bytes(row.body)) for row in sorted(rows, key=lambda row: row.seq)] for rows in found] == [
        [(n + 1, f"{one['node']} {n}", body) for n, body in enumerate(BODIES[: one["high"]])]
        if one["node"] != "nobody" else []
        for one in asked
    ]  # fmt: skip


def test_the_oldest_of_many_come_as_one_row_in_their_order(engine: Engine) -> None:
    with reading(engine) as db:
        part = ONE_PACK.ask(db, node='cam "2"', after=2, limit=3)
        rest = ONE_PACK.ask(db, node='cam "2"', after=5, limit=100)
        assert ONE_PACK.ask(db, node="nobody", after=0, limit=3) == []
        assert ONE_PACK.ask(db, node="cam-1", after=0, limit=0) == []
    assert [(row.seq, row.kind, row.body) for row in (*part, *rest)] == [
        (n + 1, f'cam "2" {n}', body) for n, body in enumerate(BODIES) if n >= 2
    ]
    assert len(part) == 3


def test_readings_of_any_length_go_abreast_and_keep_their_answers_apart(engine: Engine) -> None:
    asked: list[int] = []

    def reading_of(values: list[str]) -> Reading[list[str]]:
        keys = []
        for value in values:
            (rows,) = yield [Ask(IS, {"value": value})]
            keys += [row.key for row in rows]
        return keys

    def nested() -> Reading[list[list[str]]]:
        (first, second), _ = yield [Ask(ABOVE, {"value": "p", "limit": 2}), Ask(IS, {"value": "plain"})]
        assert first.value == "plain" and second.value > "plain"
        return (yield from abreast([reading_of([]), reading_of(["plain"])]))

    def counted(one: Reading[list[object]]) -> Reading[list[object]]:
        try:
            asks = next(one)
            while True:
                asked.append(len(asks))
                asks = one.send((yield asks))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    parts: list[Reading[object]] = [reading_of(HARD[:3]), reading_of([]), nested(), reading_of(["nobody", "plain"])]
    with reading(engine) as db:
        found = answered(db, counted(abreast(parts)))
    assert found == [["k00", "k01", "k02"], [], [[], ["k00"]], ["k00"]]
    assert asked == [4, 3, 1], "as many rounds as the longest has"
