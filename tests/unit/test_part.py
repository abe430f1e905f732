"""A part of a file read as a file of its own says what the bytes of that part say, whatever is asked of it."""

from __future__ import annotations

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.part import part_of

WHOLE = bytes(range(256)) * 100
ASKED = st.one_of(
    st.tuples(st.just("read"), st.integers(-1, 20_000)),
    st.tuples(st.sampled_from(["set", "end"]), st.integers(0, 20_000)),
)


@given(st.integers(0, 26_000), st.integers(0, 20_000), st.lists(ASKED, max_size=12))
def test_it_answers_as_a_file_with_these_bytes_alone(start: int, size: int, asked: list[tuple[str, int]]) -> None:
    whole, alone = io.BytesIO(WHOLE), io.BytesIO(WHOLE[start : start + size])
    part = part_of(whole, start, len(alone.getvalue()))
    for what, number in asked:
        if what == "read":
            assert part.read(number) == alone.read(number)
        elif what == "set":
            assert part.seek(number) == alone.seek(number)
        else:
            back = min(number, len(alone.getvalue()))
            assert part.seek(-back, io.SEEK_END) == alone.seek(-back, io.SEEK_END)
        assert part.tell() == alone.tell()
        whole.seek(7)  # somebody else reads the whole file in between
    part.close()
    assert not whole.closed


def test_an_archive_inside_a_file_is_read_and_one_that_is_cut_short_is_refused() -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("name", b"content" * 1000)
    data = inner.getvalue()
    whole = io.BytesIO(b"before" * 50 + data + b"behind" * 50)
    with zipfile.ZipFile(part_of(whole, 300, len(data))) as archive:
        assert archive.read("name") == b"content" * 1000
    for size in (0, 10, len(data) - 1):
        with pytest.raises(zipfile.BadZipFile):
            zipfile.ZipFile(part_of(whole, 300, size))
