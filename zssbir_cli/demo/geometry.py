"""Points and curves of the demo shapes, in a unit frame (x right, y down, about -1..1)."""

from collections.abc import Sequence

import numpy as np

from zssbir_cli.arrays import Floats

Points = Floats
"""A polyline or polygon, [N, 2]."""

PointList = Sequence[tuple[float, float]] | Points


def ellipse(
    cx: float, cy: float, rx: float, ry: float, start: float = 0, end: float = 360, *, n: int = 40
) -> Points:
    """Points on an ellipse from angle `start` to `end` in degrees (0 = right, 90 = down)."""
    whole = abs(end - start) >= 360
    angle = np.radians(np.linspace(start, end, n, endpoint=not whole))
    return np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], axis=1)


def box(x0: float, y0: float, x1: float, y1: float, radius: float = 0.0) -> Points:
    """A rectangle, with rounded corners if `radius` > 0."""
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    return rounded(corners, radius) if radius > 0 else corners


def rounded(points: PointList, radius: float) -> Points:
    """A polygon with its corners rounded off by quadratic curves that start `radius` before the corner."""
    p = np.asarray(points, dtype=np.float64)
    before, after = np.roll(p, 1, axis=0), np.roll(p, -1, axis=0)
    t = np.linspace(0, 1, 5)[:, None]
    pieces = []
    for a, corner, b in zip(before, p, after, strict=True):
        start = corner + _towards(corner, a, radius)
        end = corner + _towards(corner, b, radius)
        pieces.append((1 - t) ** 2 * start + 2 * t * (1 - t) * corner + t**2 * end)
    return np.concatenate(pieces)


def _towards(origin: Points, target: Points, distance: float) -> Points:
    step = target - origin
    length = float(np.hypot(step[0], step[1]))
    return step * min(distance / max(length, 1e-9), 0.48)


def smooth(points: PointList, closed: bool = True) -> Points:
    """A Catmull-Rom curve through `points`, seven steps between neighbours."""
    p = np.asarray(points, dtype=np.float64)
    if closed:
        q = np.concatenate([p[-1:], p, p[:2]])
    else:
        q = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.linspace(0, 1, 7, endpoint=False)[None, :, None]
    p0, p1, p2, p3 = (q[i : len(q) - 3 + i, None, :] for i in range(4))
    curve = 0.5 * (
        2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )
    flat = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, p[-1:]])


def curve(points: PointList) -> Points:
    """An open `smooth` curve."""
    return smooth(points, closed=False)


def symmetric(half: PointList) -> Points:
    """A closed outline from its right half, given from top to bottom; the left half is its mirror image."""
    p = np.asarray(half, dtype=np.float64)
    return np.concatenate([p, p[::-1] * (-1, 1)])


def turn(points: PointList, degrees: float, about: tuple[float, float] = (0.0, 0.0)) -> Points:
    """`points` rotated clockwise (y is down) about a point."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    centre = np.asarray(about)
    return np.asarray((np.asarray(points, dtype=np.float64) - centre) @ np.array([[c, s], [-s, c]]) + centre)


def resample(points: Points, step: float, closed: bool) -> Points:
    """Points at about equal distances `step` along a path (at least 2; the ends are kept)."""
    p = np.concatenate([points, points[:1]]) if closed else points
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(p, axis=0).T))])
    n = max(2, round(along[-1] / step) + 1)
    at = np.linspace(0, along[-1], n)
    return np.stack([np.interp(at, along, p[:, 0]), np.interp(at, along, p[:, 1])], axis=1)


def tube(points: Points, width: float, closed: bool) -> list[Points]:
    """Outlines of a line of some thickness: one for an open line, inner and outer for a closed one."""
    p = resample(points, 0.05, closed)
    if closed:
        p = p[:-1]
        tangent = np.roll(p, -1, axis=0) - np.roll(p, 1, axis=0)
    else:
        tangent = np.gradient(p, axis=0)
    tangent /= np.maximum(np.hypot(tangent[:, 0], tangent[:, 1]), 1e-9)[:, None]
    side = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) * width / 2
    if closed:
        return [p + side, p - side]
    return [np.concatenate([p + side, (p - side)[::-1]])]
