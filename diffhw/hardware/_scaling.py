"""From one process node to another: factors on area and on switching energy. Host only, plain floats."""

import math

from diffhw.hardware import _tables as t

__all__ = ["RULES", "area_factor", "check_node", "energy_factor", "sram_factors"]

RULES = ("linear", "accelergy")
VDD_V = 0.9
"""Supply at which energies of two nodes are compared: that of the 45 nm table."""


def check_node(node_nm) -> float:
    """``node_nm`` as a float, or a ValueError saying which nodes the tables cover."""
    low, high = t.STILLMAKER_NODES[-1], t.STILLMAKER_NODES[0]
    try:
        node = float(node_nm)
    except (TypeError, ValueError) as error:
        raise ValueError(f"node_nm must be a number from {low} to {high}, got {node_nm!r}") from error
    if not low <= node <= high:  # also false for NaN
        raise ValueError(f"node_nm must be from {low} to {high} (the scaling tables), got {node:g}")
    return node


def _weights(node_nm: float, rules: str) -> list[tuple[int, float]]:
    """Table indices around a node with their weights."""
    nodes = t.STILLMAKER_NODES
    if node_nm in nodes:
        return [(nodes.index(node_nm), 1.0)]
    right = next(i for i, node in enumerate(nodes) if node < node_nm)
    upper, lower = nodes[right - 1], nodes[right]
    share = (node_nm - lower) / (upper - lower)
    if rules == "accelergy":
        share = 1 - share
    return [(right - 1, share), (right, 1 - share)]


def _check_rules(rules: str) -> None:
    if rules not in RULES:
        raise ValueError(f"rules must be one of {', '.join(RULES)}, got {rules!r}")


def area_factor(from_nm, to_nm, rules: str = "linear") -> float:
    """Area at ``to_nm`` over area at ``from_nm``: bilinear in the two nodes between table entries.

    rules: "linear" weighs the nearer node more. "accelergy" replays accelergy-library-plug-in, whose
    two weights are exchanged (28 nm is treated as 24 nm); it exists to match that tool's figures.
    Between entries neither rule gives exactly 1 for equal nodes (the matrix is rounded), so
    `Technology.at` goes through the 45 nm row. Source: Stillmaker & Baas 2017.

    >>> area_factor(45, 32)
    0.46
    """
    _check_rules(rules)
    rows, columns = (_weights(check_node(node), rules) for node in (from_nm, to_nm))
    return sum(wr * wc * t.STILLMAKER_AREA[r][c] for r, wr in rows for c, wc in columns)


def _energy(node_nm: float, vdd_v: float, rules: str) -> float:
    total = 0.0
    for index, weight in _weights(node_nm, rules):
        a, b, c = t.STILLMAKER_ENERGY[index]
        total += weight * (a * vdd_v**2 + b * vdd_v + c)
    return total


def energy_factor(from_nm, to_nm, vdd_v: float = VDD_V, rules: str = "linear") -> float:
    """Switching energy at ``to_nm`` over that at ``from_nm``, both at the supply ``vdd_v``.

    rules: as in `area_factor`. Source: Stillmaker & Baas 2017, polynomials in the supply voltage.
    """
    _check_rules(rules)
    start, end = check_node(from_nm), check_node(to_nm)
    return _energy(end, vdd_v, rules) / _energy(start, vdd_v, rules)


def _cacti_factors(node: int) -> tuple[float, float]:
    """Geometric mean over the capacities of (read energy, area) at ``node`` over those at 45 nm."""
    sizes = [size for size, port, nm in t.CACTI_SRAM if nm == node and port == 64]
    logs = [0.0, 0.0]
    for size in sizes:
        for i in range(2):
            logs[i] += math.log(t.CACTI_SRAM[size, 64, node][i] / t.CACTI_SRAM[size, 64, 45][i]) / len(sizes)
    return math.exp(logs[0]), math.exp(logs[1])


def sram_factors(node_nm) -> tuple[float, float]:
    """(read energy, area) of an SRAM at ``node_nm`` over those at 45 nm.

    From the CACTI sweep at 22, 32, 45, 65 and 90 nm, linear between them; outside, the logic's
    factor carries on from the last swept node (optimistic below 22 nm, where bit cells shrink less).
    """
    node = check_node(node_nm)
    swept = (22, 32, 45, 65, 90)
    if node < swept[0] or node > swept[-1]:
        end = swept[0] if node < swept[0] else swept[-1]
        energy, area = _cacti_factors(end)
        return energy * energy_factor(end, node), area * area_factor(45, node) / area_factor(45, end)
    low = max(nm for nm in swept if nm <= node)
    high = min(nm for nm in swept if nm >= node)
    share = 0.0 if high == low else (node - low) / (high - low)
    first, second = _cacti_factors(low), _cacti_factors(high)
    energy, area = ((1 - share) * a + share * b for a, b in zip(first, second, strict=True))
    return energy, area
