"""What one low-resolution picture is like: its light, its structure, its sharpness. Pure: a picture in, numbers out.

Structure is a field of gradients of the picture shrunk to STRUCTURE_PX columns: coarse enough to survive defocus, noise
and a swinging pole. Sharpness is what the full luma shows beyond that. Two fields are compared by direction, not by
strength, so that neither exposure nor dusk matters: 1 is the same view, 0 an unrelated one (measured on seven real
scenes: 0.7 to 0.98 within one, 0.31 at most between two).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agent.vision.opencv import cv2

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.types import Luma

    Small = NDArray[np.float32]  # (rows, STRUCTURE_PX): the shrunk picture, or one number for each of its pixels
    Mask = NDArray[np.bool_]

STRUCTURE_PX = 80
ROWS_MAX = 160
_GRADIENT_MIN = 2.0  # luma per pixel of the shrunk picture: weaker is noise and shade
_GRADIENT_NOISE = 1.0
_EDGE_MIN = 3.0  # and weaker than this is no edge that survives a cloud
_EDGE_SHARE = 0.25  # the strongest part of the picture is its edges
EDGES_MIN = 200  # pixels of the shrunk picture (of 3600 at 16:9); with fewer there is nothing to hold on to
_BRIGHT = 235


@dataclass(frozen=True, slots=True)
class Light:
    """Levels of luma, 0..255."""

    mean: float
    low: float  # the 5th percentile
    high: float  # the 95th percentile
    bright_share: float  # of the picture at 235 or above


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """The gradients of a shrunk picture, luma per pixel."""

    x: Small
    y: Small
    strength: Small

    def edges(self) -> Mask:
        """Where its strongest gradients are; fewer than EDGES_MIN of them mean a view without features."""
        rank = int(self.strength.size * (1 - _EDGE_SHARE))
        level = float(np.partition(self.strength.ravel(), rank)[rank])
        return self.strength >= max(level, _EDGE_MIN)


def shrunk(luma: Luma) -> Small:
    """`luma` at STRUCTURE_PX columns; rows in proportion, 8 to ROWS_MAX of them."""
    height, width = luma.shape
    rows = min(max(round(STRUCTURE_PX * height / width), 8), ROWS_MAX)
    small = cv2.resize(luma, (STRUCTURE_PX, rows), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32)


def light(small: Small) -> Light:
    """Levels of a shrunk picture."""
    counts = np.cumsum(cv2.calcHist([small], [0], None, [256], [0, 256]))  # a tenth of the cost of sorting
    size = float(counts[-1])
    return Light(
        mean=cv2.mean(small)[0],
        low=float(np.searchsorted(counts, 0.05 * size)),
        high=float(np.searchsorted(counts, 0.95 * size)),
        bright_share=1 - float(counts[_BRIGHT - 1]) / size,
    )


def structure(small: Small) -> Structure:
    """Gradients of a shrunk picture (Scharr, after a blur of one pixel)."""
    smooth = cv2.GaussianBlur(small, (5, 5), 1.0)
    x = cv2.Scharr(smooth, cv2.CV_32F, 1, 0, scale=1 / 32)
    y = cv2.Scharr(smooth, cv2.CV_32F, 0, 1, scale=1 / 32)
    return Structure(x, y, cv2.magnitude(x, y))  # type: ignore[arg-type]


def likeness(known: Structure, edges: Mask, now: Structure) -> float:
    """Agreement of direction on the `edges` of `known`, -1..1 (normalised gradient fields, Haber and Modersitzki)."""
    kx, ky, ks = known.x[edges], known.y[edges], known.strength[edges]
    nx, ny, ns = now.x[edges], now.y[edges], now.strength[edges]
    if ks.size == 0:
        return 0.0
    along = (kx * nx + ky * ny) / (ks * np.sqrt(ns * ns + _GRADIENT_NOISE**2))
    return float(along.mean())


def sharpness(luma: Luma, edges: Mask, now: Structure) -> float | None:
    """Fine detail per coarse gradient at the `edges`, sensor noise taken out. Contrast cancels.

    Relative to the same view in focus: 0.3 when defocused by a standard deviation of one pixel of `luma`, 0.15 by two.
    None where nothing is left of the edges that could be sharp.
    """
    strength = now.strength[edges]
    coarse = float(np.sqrt((strength * strength).mean())) if strength.size else 0.0
    if coarse < _GRADIENT_MIN / 2:
        return None
    rows, columns = edges.shape
    fine = cv2.resize(cv2.Laplacian(luma, cv2.CV_8U), (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
    energy = fine * fine
    calm = energy[now.strength < cv2.mean(now.strength)[0] / 3]
    middle = calm.size // 2
    noise = float(np.partition(calm, middle)[middle]) if calm.size >= EDGES_MIN else 0.0
    return 2 * math.sqrt(max(float(energy[edges].mean()) - noise, 0.0)) / coarse


def shift(known: Small, now: Small) -> tuple[int, int]:
    """By how many columns and rows `now` shows what `known` shows (phase correlation); the answer is to be checked."""
    window = cv2.createHanningWindow((known.shape[1], known.shape[0]), cv2.CV_32F)
    # OpenCV multiplies the window into the pictures it is given when their size needs no padding: it gets copies.
    (x, y), _ = cv2.phaseCorrelate(known.copy(), now.copy(), window)
    return round(x), round(y)


def shifted_likeness(known: Structure, edges: Mask, now: Structure, by: tuple[int, int]) -> float:
    """`likeness` when `known` is moved `by` (columns, rows); what leaves the picture does not count."""
    columns, rows = by
    height, width = edges.shape
    if abs(columns) >= width // 2 or abs(rows) >= height // 2:
        return 0.0
    here = (slice(max(-rows, 0), height - max(rows, 0)), slice(max(-columns, 0), width - max(columns, 0)))
    there = (slice(max(rows, 0), height - max(-rows, 0)), slice(max(columns, 0), width - max(-columns, 0)))
    if np.count_nonzero(edges[here]) < EDGES_MIN // 2:
        return 0.0
    part = Structure(known.x[here], known.y[here], known.strength[here])
    return likeness(part, edges[here], Structure(now.x[there], now.y[there], now.strength[there]))
