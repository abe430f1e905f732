"""What goes together: a backlog in batches, within their bounds; alerts, bells and what is fresh by themselves and first."""

from __future__ import annotations

from collections.abc import Collection

from hypothesis import given
from hypothesis import strategies as st

from agent import wire
from agent.store.store import OutboxRow
from agent.types import Priority
from agent.uplink.parcels import Parcel, pack

NODE = wire.Topics("ward-7", "gate-2")
BODY = b'{"historical":false,"pad":"%s"}'


def row(sequence: int, priority: Priority, *, kind: str = "person", fresh: bool = False, size: int = 10) -> OutboxRow:
    return OutboxRow(sequence, priority, kind, 2 if fresh else 1, 0, BODY % (b"x" * size))


def packed(rows: list[OutboxRow], alone: Collection[int] = (), events: int = 64, size: int = 4096) -> list[Parcel]:
    return list(
        pack(rows, late=lambda one: one.session == 1, alone=alone, batch_events_max=events, batch_bytes_max=size)
    )


def numbers(parcels: list[Parcel]) -> list[tuple[str, list[int]]]:
    return [
        (parcel.topic(NODE).removeprefix(NODE.base + "/"), [one.sequence for one in parcel.rows]) for parcel in parcels
    ]


def test_a_backlog_goes_alerts_first_and_one_by_one_then_the_rest_together_and_what_is_fresh_before_it() -> None:
    rows = [
        row(9, Priority.BELL, kind="bell"),
        row(1, Priority.ALERT),
        row(4, Priority.ALERT),
        row(2, Priority.NOTICE),
        row(3, Priority.NOTICE),
        row(8, Priority.NOTICE, fresh=True),
        row(5, Priority.RECORD, kind="record"),
        row(6, Priority.RECORD, kind="record", fresh=True),
        row(7, Priority.THUMBNAIL),
    ]
    assert numbers(packed(rows)) == [
        ("event/bell", [9]),
        ("event/person", [1]),
        ("event/person", [4]),
        ("event/person", [8]),
        ("events", [2, 3]),
        ("records", [5, 6]),
        ("event/person", [7]),
    ]


def test_what_is_late_says_so_and_a_part_of_a_batch_is_what_it_would_be_alone() -> None:
    rows = [row(n, Priority.NOTICE) for n in (1, 2)]
    [batch] = packed(rows)
    singles = packed(rows, alone={1, 2})
    assert [one.payload() for one in singles] == wire.decode_batch(batch.payload())
    assert all(b'"historical":true' in one.payload() for one in singles)
    [fresh] = packed([row(3, Priority.NOTICE, fresh=True)])
    assert b'"historical":false' in fresh.payload()


def test_what_has_been_sent_in_vain_goes_alone() -> None:
    rows = [row(n, Priority.NOTICE) for n in range(1, 6)]
    assert numbers(packed(rows, alone={2})) == [("event/person", [2]), ("events", [1, 3, 4, 5])]


@given(
    st.lists(st.tuples(st.sampled_from(Priority), st.booleans(), st.booleans(), st.integers(0, 900)), max_size=60),
    st.integers(1, 20),
)
def test_every_row_goes_exactly_once_in_order_of_urgency_and_no_message_is_too_large(
    wanted: list[tuple[Priority, bool, bool, int]], events_max: int
) -> None:
    rows = sorted(
        (
            row(n, priority, kind="record" if record else "person", fresh=fresh, size=size)
            for n, (priority, record, fresh, size) in enumerate(wanted, start=1)
        ),
        key=lambda one: (one.priority, one.sequence),
    )
    parcels = packed(rows, events=events_max, size=1500)
    sent = [one for parcel in parcels for one in parcel.rows]
    assert sorted(one.sequence for one in sent) == sorted(one.sequence for one in rows)
    assert [one.priority for one in sent] == [one.priority for one in rows]
    for parcel in parcels:
        assert len(parcel.rows) <= events_max
        assert len(parcel.rows) == 1 or len(parcel.payload()) <= 1500
        assert len(parcel.rows) == 1 or parcel.is_record or parcel.rows[0].priority > Priority.ALERT
