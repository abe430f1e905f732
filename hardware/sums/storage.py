"""How long a card or SSD lives, and how many days it holds."""

from __future__ import annotations

from hardware.sums import table

AMPLIFICATION = 1.59
"""Bytes written to the disk per byte of video by the whole node: measured, README.md, "What it costs"."""
CARD_AMPLIFICATION = 2.0
"""What the card writes inside per byte written to it: an assumption, for no card says it."""
DAY_S = 86_400


def written_gb_a_day(kbps: float) -> float:
    """What the node writes in a day at this bit rate of video, in GB of 10^9 bytes."""
    return kbps * 1000 / 8 * DAY_S * AMPLIFICATION / 1e9


def years(*, gb: float, cycles: float, kbps: float, inside: float = CARD_AMPLIFICATION) -> float:
    """Years until every cell has seen `cycles`, if the card levels its wear over all of itself."""
    return gb * cycles / (written_gb_a_day(kbps) * inside) / 365.25


def days_kept(*, budget_gb: float, kbps: float) -> float:
    """Days of footage that `recording.budget_gb` holds."""
    return budget_gb * 1e9 / (kbps * 1000 / 8 * DAY_S)


def endurance() -> str:
    """The table of hardware/storage.md, at the default bit rate."""
    rows = []
    for name, gb, cycles in (
        ("cheap card, QLC or unknown, 64 GB", 64, 500),
        ("ordinary TLC card, 64 GB", 64, 1000),
        ("high endurance card, 64 GB", 64, 3000),
        ("high endurance card, 128 GB", 128, 3000),
        ("industrial pSLC card, 32 GB", 32, 20_000),
        ("SSD, TLC, 256 GB", 256, 1000),
    ):
        rows.append(
            (
                name,
                f"{cycles:,}",
                f"{gb * cycles / 1000:.0f} TB",
                *(f"{years(gb=gb, cycles=cycles, kbps=k):.1f}" for k in (1000, 2500, 4000)),
            )
        )
    head = ("medium", "cycles assumed", "cells bear", "years at 1 Mbit/s", "at 2.5 Mbit/s (default)", "at 4 Mbit/s")
    return table(head, rows)
