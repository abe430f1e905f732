"""Every target of targets.py, mutated by hypothesis for seconds: no traceback, no hang, no wrong acceptance, in
bounded memory. Minutes, guided by coverage: test_atheris.py."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import targets
from tests.fuzz.targets import Target

NAMES = [
    "segment", "recover", "store", "ledger", "receipts", "line", "package", "labels", "settings", "wire", "command",
    "socket",
]  # fmt: skip
EXAMPLES = {"store": 25, "package": 25, "ledger": 40, "socket": 60}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    found = {target.name: target for target in targets.make(tmp_path_factory.mktemp("fuzz"))}
    assert list(found) == NAMES
    return found


@st.composite
def mutations(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed with some of what cards, cuts and people do to files."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.integers(0, 8)):
            case 0 if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                data[at : at + 4] = draw(
                    st.sampled_from([b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\0\0\0\1"])
                )
            case 2:
                del data[at:]
            case 3:
                data[at:at] = draw(st.binary(max_size=64))
            case 4:
                size = draw(st.sampled_from([512, 4096]))
                data[at // size * size : at // size * size + size] = bytes(size)
            case 5:
                to = draw(st.integers(0, max(len(data) - 1, 0)))
                data[to : to + 256] = data[at : at + 256]
            case 6:
                del data[at : at + draw(st.integers(1, 600))]
            case 7:
                data += data[at : at + 4096]
            case _:
                data[at:at] = draw(
                    st.sampled_from([b"[" * 5000, b'{"a":' * 3000, b"9" * 5000, b"\xed\xa0\x80", b"1e999"])
                )
    return bytes(data)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_right_is_taken(made: dict[str, Target], name: str) -> None:
    for seed in made[name].seeds:
        made[name].check(seed)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_wrong_is_refused_in_one_line(made: dict[str, Target], name: str) -> None:
    target = made[name]

    @settings(
        max_examples=EXAMPLES.get(name, 120) * int(os.environ.get("WARDPOST_FUZZ_TIMES", "1")), deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(mutations(target.seeds))
    def run(data: bytes) -> None:
        target.check(data)

    run()
