"""From lines of a skeleton to lines as a map shows them.

Junctions that are nearer to each other than the class is wide are one crossing. The arms of a
skeleton bend inside of a junction, so they are led straight to the point that they aim at from
outside of it. Ends, which a skeleton leaves half a width short or leads into a corner, go on to
the border. Lines are smoothed within a fraction of the width.
"""

from __future__ import annotations

import numpy as np

from bhvit_seg.raster.vector.line_graph import Line, LineGraph

# Of the class's width there.
SMOOTHING = 0.25
# Nodes that are nearer than this many radii are one.
CROSSING = 2
# Squares and other wide places are not crossings of that width: this many usual widths count.
USUAL_AT_MOST = 1.5
# Holds the point that arms aim at near the skeleton's where they are almost parallel.
STIFFNESS = 0.1
# Nor do arms move it by more than this share of the junction's radius.
LARGEST_MOVE = 0.5
# Lines from a crossing to itself are parts of it up to this many radii.
INSIDE = 4
# Lines have turned into a corner where their radius is below this share of the usual one.
NARROW = 0.8
# Lines alone are dropped where they are not longer than this many times their width.
SLENDER = 2


def shape_lines(graph: LineGraph, width: float, shortest: float) -> list[Line]:
    """Return the lines of a pruned graph, which this uses up, as a map shows them.

    What is continued beyond the raster's edges is still there.

    Args:
        graph: The lines.
        width: How wide the class usually is, in cells.
        shortest: How long lines alone have to be, in cells, and at least twice their width.
    """
    _drop_scraps(graph, shortest)
    _merge_junctions(graph, USUAL_AT_MOST * width / 2)
    centres = {node: _aim(graph, node) for node in graph.nodes if graph.degree(node) > 2}
    lines = []
    for line in graph:
        is_end = {node: graph.degree(node) == 1 for node in line.nodes}
        for node in line.nodes:
            line = (_trim(line) if is_end[node] else line).reversed()
        line = _smooth(line)
        for node in line.nodes:
            if node in centres:
                line = _lead_to(line, *centres[node])
            elif is_end[node]:
                line = _extend(line, graph.size)
            line = line.reversed()
        lines.append(line)
    return lines


def _drop_scraps(graph: LineGraph, shortest: float) -> None:
    """Remove lines alone that are too short."""
    for node in graph.nodes:
        if graph.degree(node) == 1:
            number = graph.at(node)[0]
            line = graph.line(number)
            needed = max(shortest, SLENDER * 2 * line.radii.mean())
            if (all(graph.degree(end) == 1 for end in line.nodes)
                    and line.length_in(graph.size) < needed):
                graph.remove(number)


def _merge_junctions(graph: LineGraph, largest: float) -> None:
    """Make one node of junctions that are one crossing; circles count up to a largest radius."""
    parents: dict[int, int] = {}

    def root(node: int) -> int:
        while node in parents:
            node = parents[node]
        return node

    for line in sorted(graph, key=lambda line: line.length):
        one, other = map(root, line.nodes)
        if (one != other and min(map(graph.degree, line.nodes)) > 2
                and line.length < CROSSING * min(largest, max(line.radii[0], line.radii[-1]))):
            parents[max(one, other)] = min(one, other)
    for node in {**parents, **dict.fromkeys(parents.values())}:
        for number in graph.at(node):
            line = graph.remove(number)
            ends = root(line.nodes[0]), root(line.nodes[1])
            # Only what leaves the crossing on its way.
            if ends[0] != ends[1] or line.length > INSIDE * line.radii.max():
                graph.add(Line(line.points, line.radii, ends))
    graph.prune()


def _aim(graph: LineGraph, node: int) -> tuple[np.ndarray, float]:
    """Return the point (2,) that the arms of a junction aim at, and the junction's radius."""
    arms = []
    for number in graph.at(node):
        line = graph.line(number)
        arms += [arm for arm, end in zip((line, line.reversed()), line.nodes) if end == node]
    middle = np.mean([arm.points[0] for arm in arms], axis=0)
    radius = max(arm.radii[0] + np.hypot(*(arm.points[0] - middle)) for arm in arms)
    # Least squares of the distances from the arms' lines, outside of the junction.
    matrix, vector = STIFFNESS * np.eye(2), STIFFNESS * middle
    for arm in arms:
        direction = arm.heading(radius, 3 * radius)
        across = np.eye(2) - np.outer(direction, direction)
        matrix += across
        vector = vector + across @ arm.points[arm.reach(radius)]
    move = np.linalg.solve(matrix, vector) - middle
    return middle + move * min(1, LARGEST_MOVE * radius / max(np.hypot(*move), 1e-9)), radius


def _lead_to(line: Line, centre: np.ndarray, radius: float) -> Line:
    """Let a line start at a junction's centre, and go straight to where it leaves its circle."""
    outside = np.flatnonzero(np.hypot(*(line.points - centre).T) >= radius)
    first = outside[0] if len(outside) else len(line.points) - 1
    return line._replace(points=np.concatenate([[centre], line.points[first:]]),
                         radii=np.concatenate([line.radii[:1], line.radii[first:]]))


def _trim(line: Line) -> Line:
    """Let a line start where it is in the middle of the class, not where it turns into a corner."""
    usual = _usual_radius(line)
    # There it is nearer to the border than elsewhere.
    middle = np.flatnonzero(line.radii[:line.reach(2 * usual) + 1] >= NARROW * usual)
    first = min(middle[0], len(line.points) - 2) if len(middle) else 0
    return line._replace(points=line.points[first:], radii=line.radii[first:])


def _extend(line: Line, size: tuple[int, int]) -> Line:
    """Let a trimmed line start at the border of the class, as straight as it is farther on."""
    usual = _usual_radius(line)
    first = min(line.reach(usual / 2), len(line.points) - 2)
    rest = line._replace(points=line.points[first:], radii=line.radii[first:])
    direction = -rest.heading(0, 2 * usual)
    start = rest.points[0]
    length = np.hypot(*(line.points[0] - start)) + line.radii[0]
    edges = np.where(direction > 0, size[::-1], (0, 0))
    with np.errstate(divide='ignore', invalid='ignore'):
        to_edge = np.nanmin((edges - start) / direction)
    # As far as an edge that is nearly reached, and no farther.
    length = to_edge if to_edge < length + 2 else length
    return line._replace(points=np.concatenate([[start + length * direction], rest.points]),
                         radii=np.concatenate([line.radii[:1], rest.radii]))


def _usual_radius(line: Line) -> float:
    """Return the radius that a line has around its start."""
    return float(np.median(line.radii[:line.reach(4 * line.radii.max()) + 1]))


def _smooth(line: Line) -> Line:
    """Even out a line by a Gaussian, which leaves its ends where they are."""
    sigma = max(1.0, SMOOTHING * 2 * line.radii.mean())
    reach = min(int(np.ceil(3 * sigma)), len(line.points) - 1)
    kernel = np.exp(-np.arange(-reach, reach + 1)**2 / (2 * sigma**2))
    kernel /= kernel.sum()
    closed = (line.points[0] == line.points[-1]).all() and reach < len(line.points) - 1
    if closed:
        padded = np.pad(line.points[:-1], ((reach, reach + 1), (0, 0)), mode='wrap')
    else:
        padded = np.pad(line.points, ((reach, reach), (0, 0)), mode='reflect', reflect_type='odd')
    return line._replace(points=np.stack(
        [np.convolve(axis, kernel, mode='valid') for axis in padded.T], axis=1))
