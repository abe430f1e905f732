"""Points, segments and polygons in 0..1 of the picture; y grows downwards. Pure."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, float]
Polygon = Sequence[Point]


def crossing(polygon: Polygon) -> tuple[int, int] | None:
    """Two sides (numbered from 0) of a polygon that cross or overlap, or None for a simple one."""
    count = len(polygon)
    sides = [(polygon[i], polygon[(i + 1) % count]) for i in range(count)]
    for i in range(count):
        (a, corner), (_, b) = sides[i], sides[(i + 1) % count]
        if _folds_back(a, corner, b):
            return i, (i + 1) % count
        for j in range(i + 2, count):
            if (i, j) != (0, count - 1) and touch(*sides[i], *sides[j]):
                return i, j
    return None


def area(polygon: Polygon) -> float:
    """The shoelace formula; of an outline that crosses itself parts may cancel."""
    count = len(polygon)
    return abs(sum(turn((0.0, 0.0), polygon[i], polygon[(i + 1) % count]) for i in range(count))) / 2


def contains(polygon: Polygon, x: float, y: float) -> bool:
    """Even-odd rule: a ray to the right crosses the outline an odd number of times."""
    inside = False
    x1, y1 = polygon[-1]
    for x2, y2 in polygon:
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
            inside = not inside
        x1, y1 = x2, y2
    return inside


def touch(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Whether the segments ab and cd have a point in common."""
    abc, abd, cda, cdb = turn(a, b, c), turn(a, b, d), turn(c, d, a), turn(c, d, b)
    if abc * abd < 0 and cda * cdb < 0:
        return True
    ends = ((abc, a, b, c), (abd, a, b, d), (cda, c, d, a), (cdb, c, d, b))
    return any(turned == 0 and _within(p, q, r) for turned, p, q, r in ends)


def turn(a: Point, b: Point, c: Point) -> float:
    """Twice the signed area of a triangle: 0 on a line, above 0 when c is to the right of who looks from a to b.

    (To the right as seen in the picture, where y grows downwards.)
    """
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _within(a: Point, b: Point, c: Point) -> bool:
    """Whether `c`, known to lie on the line through a and b, lies between them."""
    return min(a[0], b[0]) <= c[0] <= max(a[0], b[0]) and min(a[1], b[1]) <= c[1] <= max(a[1], b[1])


def _folds_back(a: Point, corner: Point, b: Point) -> bool:
    """Whether the side from `corner` to b goes back on the side from a to `corner`."""
    ahead = (a[0] - corner[0]) * (b[0] - corner[0]) + (a[1] - corner[1]) * (b[1] - corner[1]) > 0
    return turn(corner, a, b) == 0 and ahead
