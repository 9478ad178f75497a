"""How good can any design be: branch and bound over hardware, with the exact mapper's lower bounds."""

import math
import time
from dataclasses import replace

import numpy as np

from diffhw.hardware import gemmini
from diffhw.recipes._dosa_space import MAX_SIDE, Problem
from diffhw.recipes._map import product_bound
from diffhw.recipes._map_queue import MappingQueue
from diffhw.workloads import Network

__all__ = ["dosa_bound"]


def dosa_bound(network: Network, edp: float, *, seconds: float = 30.0) -> tuple[float, str]:
    """A proven lower bound of the EDP (uJ x cycles) over all hardware and mappings, and what makes it loose.

    Branch and bound on (accumulator words, scratchpad KiB): within a box every capacity is that of its
    upper corner and every price that of its lower corner; the side is 128, which only widens the choice.
    edp: of the best design known; boxes that cannot beat it are closed.
    """
    begin = time.perf_counter()
    problem = Problem.of(network)
    counts = np.asarray(problem.counts, float)[: len(problem.rows)]
    most_words = float(max(math.prod(float(getattr(row, d)) for d in "nkpq") for row in problem.rows))
    most_kb = float(
        max(math.ceil(float(row.weight_words + row.n * row.c * _window(row)) / 1024) for row in problem.rows)
    )

    def floor(box) -> float:
        (w0, w1), (k0, k1) = box
        cheap = gemmini(MAX_SIDE, w0 * MAX_SIDE / 256, k0)
        roomy = gemmini(MAX_SIDE, w1 * MAX_SIDE / 256, k1)
        levels = tuple(
            replace(a, capacity_bits=b.capacity_bits) for a, b in zip(cheap.levels, roomy.levels, strict=True)
        )
        chip = replace(cheap, levels=levels)
        queues = [MappingQueue(row, chip) for row in problem.rows]
        least = {
            goal: sum(c * q.floor(goal) for c, q in zip(counts, queues, strict=True))
            for goal in ("energy", "latency")
        }
        price = least["energy"] / least["latency"]
        both = sum(c * q.floor(price) for c, q in zip(counts, queues, strict=True))
        return product_bound([(price, both)], least["energy"], least["latency"]) * 1e-6

    boxes = [(floor(((1.0, most_words), (1.0, most_kb))), ((1.0, most_words), (1.0, most_kb)))]
    while time.perf_counter() - begin < seconds:
        boxes.sort(key=lambda one: one[0])
        bound, (words, kb) = boxes[0]
        if bound >= edp * (1 - 1e-6):
            return edp, "nothing: the best design is proven"
        boxes.pop(0)
        wide = words[1] / words[0] > kb[1] / kb[0]
        low, high = words if wide else kb
        if high - low < 1:
            boxes.append((bound, (words, kb)))
            break
        cut = math.floor(math.sqrt(low * high))
        parts = [(low, max(cut, low)), (cut + 1.0, high)]
        for part in parts:
            if part[0] > part[1]:
                continue
            box = (part, kb) if wide else (words, part)
            boxes.append((max(bound, floor(box)), box))
    bound, (words, kb) = min(boxes, key=lambda one: one[0])
    return min(bound, edp), (
        f"accumulators of {words[0]:g} to {words[1]:g} words with scratchpads of {kb[0]:g} to {kb[1]:g} KiB"
        " are bounded together, with the capacity of the largest and the energy of the smallest"
    )


def _window(row):
    return ((row.p - 1) * row.stride_h + (row.r - 1) * row.dilation_h + 1) * (
        (row.q - 1) * row.stride_w + (row.s - 1) * row.dilation_w + 1
    )
