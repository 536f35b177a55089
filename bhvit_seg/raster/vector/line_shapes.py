"""Centre lines from the lines of a skeleton.

Junctions closer than the class is wide are merged into one crossing. Arms bend inside a junction,
so they are redrawn straight to their common target. Ends, half a width short of the border or in a
corner, are extended straight to the border. Lines are smoothed within a fraction of the width.
"""

import numpy as np

from bhvit_seg.raster.vector.line_graph import Line, LineGraph

SMOOTHING = 0.25  # standard deviation of the smoothing, in widths of the class
CROSSING = 2  # junctions closer than this many radii are merged
USUAL_AT_MOST = 1.5  # in squares and other wide places, radii count up to this many usual radii
# Weight of the skeleton's junction against the point that arms aim at, which is ill-defined where
# they are almost parallel.
STIFFNESS = 0.1
LARGEST_MOVE = 0.5  # a junction moves by at most this fraction of its radius
INSIDE = 4  # lines from a crossing to itself belong to it up to this many radii
# A line has turned into a corner where its radius is below this fraction of the usual one.
NARROW = 0.8
SLENDER = 2  # isolated lines need at least this many times their width


def shape_lines(graph: LineGraph, width: float, shortest: float) -> list[Line]:
    """Return the centre lines, in cells, of a graph, which is changed. ``width`` is the usual one
    of the class, ``shortest`` the length of isolated lines, besides twice their width."""
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
    for node in graph.nodes:
        if graph.degree(node) == 1:
            (number, line), = graph.at(node).items()
            needed = max(shortest, SLENDER * 2 * line.radii.mean())
            if (all(graph.degree(end) == 1 for end in line.nodes)
                    and line.length_in(graph.size) < needed):
                graph.remove(number)


def _merge_junctions(graph: LineGraph, largest: float) -> None:
    """Merge junctions that are one crossing; radii count up to a largest one."""
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
            # Keep only lines that leave the crossing.
            if ends[0] != ends[1] or line.length > INSIDE * line.radii.max():
                graph.add(Line(line.points, line.radii, ends))
    graph.prune()


def _aim(graph: LineGraph, node: int) -> tuple[np.ndarray, float]:
    """Return the point (2,) that the arms of a junction aim at, and the junction's radius."""
    arms = [arm for line in graph.at(node).values()
            for arm, end in zip((line, line.reversed()), line.nodes) if end == node]
    middle = np.mean([arm.points[0] for arm in arms], axis=0)
    radius = max(arm.radii[0] + np.hypot(*(arm.points[0] - middle)) for arm in arms)
    # Least squares of the distances from the arms' lines, outside the junction.
    matrix, vector = STIFFNESS * np.eye(2), STIFFNESS * middle
    for arm in arms:
        direction = arm.heading(radius, 3 * radius)
        across = np.eye(2) - np.outer(direction, direction)
        matrix += across
        vector = vector + across @ arm.points[arm.reach(radius)]
    move = np.linalg.solve(matrix, vector) - middle
    return middle + move * min(1, LARGEST_MOVE * radius / max(np.hypot(*move), 1e-9)), radius


def _lead_to(line: Line, centre: np.ndarray, radius: float) -> Line:
    """Start a line at a junction's centre, straight to where it leaves the junction's circle."""
    outside = np.flatnonzero(np.hypot(*(line.points - centre).T) >= radius)
    first = outside[0] if len(outside) else len(line.points) - 1
    return line._replace(points=np.concatenate([[centre], line.points[first:]]),
                         radii=np.concatenate([line.radii[:1], line.radii[first:]]))


def _trim(line: Line) -> Line:
    """Start a line where it is in the middle of the class, not where it turns into a corner."""
    usual = _usual_radius(line)
    # In a corner it is closer to the border.
    middle = np.flatnonzero(line.radii[:line.reach(2 * usual) + 1] >= NARROW * usual)
    first = min(middle[0], len(line.points) - 2) if len(middle) else 0
    return line._replace(points=line.points[first:], radii=line.radii[first:])


def _extend(line: Line, size: tuple[int, int]) -> Line:
    """Extend the start of a trimmed line to the border of the class, in its direction there."""
    usual = _usual_radius(line)
    first = min(line.reach(usual / 2), len(line.points) - 2)
    rest = line._replace(points=line.points[first:], radii=line.radii[first:])
    direction = -rest.heading(0, 2 * usual)
    start = rest.points[0]
    length = np.hypot(*(line.points[0] - start)) + line.radii[0]
    edges = np.where(direction > 0, size[::-1], (0, 0))
    with np.errstate(divide='ignore', invalid='ignore'):
        to_edge = np.nanmin((edges - start) / direction)
    # To the raster's edge if that is almost reached, and not beyond.
    length = to_edge if to_edge < length + 2 else length
    return line._replace(points=np.concatenate([[start + length * direction], rest.points]),
                         radii=np.concatenate([line.radii[:1], rest.radii]))


def _usual_radius(line: Line) -> float:
    return float(np.median(line.radii[:line.reach(4 * line.radii.max()) + 1]))


def _smooth(line: Line) -> Line:
    """Smooth a line by a Gaussian that keeps its ends in place."""
    from scipy.ndimage import gaussian_filter1d

    sigma = max(1.0, SMOOTHING * 2 * line.radii.mean())
    reach = min(int(np.ceil(3 * sigma)), len(line.points) - 1)
    if (line.points[0] == line.points[-1]).all() and reach < len(line.points) - 1:
        points = gaussian_filter1d(line.points[:-1], sigma, axis=0, mode='wrap', radius=reach)
        return line._replace(points=np.concatenate([points, points[:1]]))
    # Point reflection at the ends, which scipy has no mode for.
    padded = np.pad(line.points, ((reach, reach), (0, 0)), mode='reflect', reflect_type='odd')
    points = gaussian_filter1d(padded, sigma, axis=0, radius=reach)
    return line._replace(points=points[reach:reach + len(line.points)])
