"""Input traffic of a loop nest with neighbour links, in plain integers: loops, sets and dictionaries.

Its own reading of the rule (perfect factors), beside the array form in `models._loopnest_links`.
"""

import math
from fractions import Fraction

ORDER = "srqpckn"
AXIS = {"n": 0, "c": 1, "p": 2, "r": 2, "q": 3, "s": 3}


def input_counts(layer: dict, levels: list[dict], keeps: list[bool], mesh_x: list[int]):
    """[(reads, fills)] per level, innermost first; None where a level keeps no inputs.

    layer: strides and dilations.  levels: per level {"temporal": [(loop, factor), ...] innermost first,
    "x": {loop: factor}, "y": {loop: factor}}; level 0 has no spatial loops.  mesh_x: width of the fan-out.
    """
    unit = {
        "p": layer["stride_h"],
        "q": layer["stride_w"],
        "r": layer["dilation_h"],
        "s": layer["dilation_w"],
    }
    depth = len(levels)
    compute = math.prod(f for level in levels for _, f in level["temporal"])
    spread = [math.prod([*level["x"].values(), *level["y"].values()]) for level in levels]
    instances = [math.prod(spread[k + 1 :]) for k in range(depth)]
    inside = dict.fromkeys("nkcpqrs", 1)
    for d, f in levels[0]["temporal"]:
        inside[d] *= f
    content, passing, link = [Fraction(compute)], [], [Fraction(0)]
    for k in range(1, depth):
        out, siblings, distinct, saved, linked = _boundary(unit, levels[k:], dict(inside), mesh_x[k])
        total, sent = distinct * out - saved, siblings * out - linked
        content.append(Fraction(total) if keeps[k - 1] else content[-1] * siblings * Fraction(total, sent))
        passing.append(Fraction(sent, siblings))
        link.append(Fraction(linked))
        for axis in "xy":
            for d, f in levels[k][axis].items():
                inside[d] *= f
        for d, f in levels[k]["temporal"]:
            inside[d] *= f
    link.append(Fraction(0))
    found: list = []
    for k in range(depth):
        fills = 0 if k == depth - 1 else math.floor(passing[k] + link[k + 1] / instances[k])
        reads = math.floor(content[k] + link[k + 1] / instances[k] + Fraction(1, 2))
        found.append((reads, fills) if keeps[k] else None)
    return found, sum(link)


def _boundary(unit: dict, levels: list[dict], inside: dict, mesh: int):
    extent = (
        inside["n"],
        inside["c"],
        (inside["p"] - 1) * unit["p"] + (inside["r"] - 1) * unit["r"] + 1,
        (inside["q"] - 1) * unit["q"] + (inside["s"] - 1) * unit["s"] + 1,
    )
    volume = math.prod(extent)
    places = _places(unit, levels[0], inside)
    running, steps = dict(inside), []
    for level in levels:
        for axis in "xy":
            for d, f in level[axis].items():
                running[d] *= f
        for d, f in level["temporal"]:
            if f > 1:
                steps.append((f, _vector(d, unit.get(d, 1) * running[d])))
                running[d] *= f
    moves, fallen = [], (0, 0, 0, 0)
    for _, own in steps:
        moves.append(tuple(a - b for a, b in zip(own, fallen)))
        fallen = tuple(a + b for a, b in zip(own, fallen))
    times = [(f - 1) * math.prod(g for g, _ in steps[j + 1 :]) for j, (f, _) in enumerate(steps)]
    moving = [j for j, move in enumerate(moves) if any(move)]
    siblings, distinct = len(places), len(set(places))
    if not moving:
        return volume, siblings, distinct, 0, 0
    a = moves[moving[0]]
    part = volume - math.prod(max(0, t - abs(x)) for t, x in zip(extent, a))
    out = volume + sum(w * (part if moves[j] == a else volume) for j, w in enumerate(times) if j in moving)
    events = []
    if moving[0] == 0 and siblings > 1:
        apart, more = part == volume, steps[0][0] - 1
        if apart:
            events.append((more, part, a))
        for j in range(1, len(steps)):
            if moves[j] == a or (j in moving and apart):
                events.append((more * times[j], part, a))
            if moves[j] == a:
                events.append((times[j], part, a))
            elif j in moving and apart:
                events.append((times[j], volume, moves[j]))
    saved = linked = 0
    width = max(mesh, math.prod(levels[0]["x"].values()))
    for weight, delta, u in events:
        count, left = 0, set()
        for i, here in enumerate(places):
            near = [i - width, i + width]
            near += [i - 1] if i % width else []
            near += [i + 1] if (i + 1) % width else []
            near = [places[b] for b in near if 0 <= b < siblings]
            if any(tuple(x - y for x, y in zip(there, here)) == u for there in near):
                count += 1
            else:
                left.add(here)
        if len(left) == distinct:
            count = 0
        saved += weight * delta * (distinct - len(left))
        linked += weight * delta * count
    return out, siblings, distinct, saved, linked


def _vector(d: str, length: int) -> tuple:
    return tuple(length * (AXIS.get(d) == axis) for axis in range(4))


def _places(unit: dict, level: dict, inside: dict) -> list[tuple]:
    loops = [(d, level[axis][d]) for axis in "xy" for d in ORDER if d in level[axis]]
    places = []
    for i in range(math.prod(f for _, f in loops)):
        at, rest, scale = (0, 0, 0, 0), i, dict(inside)
        for d, f in loops:
            step = _vector(d, unit.get(d, 1) * scale[d] * (rest % f))
            at = tuple(a + b for a, b in zip(at, step))
            rest //= f
            scale[d] *= f
        places.append(at)
    return places
