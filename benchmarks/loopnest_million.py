"""A million random loop nests on three kinds of hierarchy: none may break a law of physics.

    python -m benchmarks.loopnest_million [--count N] [--hierarchies gemmini ...] [--chunk C] [--json FILE]

Layers of five networks, a quarter of them with other strides and dilations, under random mappings of
Gemmini-, Eyeriss- and Simba-like hierarchies whose energies, bandwidths and capacities are scaled by up
to 16 either way. Perfect and padded factors, any order, fitting or not. Everything in float32, as a
search runs it. Counts how many

* lose MACs: report others than the layer's, or give the units less work than the layer has;
* read less than compulsory: fewer words at the outermost level than the MACs touch, of any tensor;
* beat the roofline: MACs on all units, compulsory bits over the outermost port, or the bits of any
  level over its own ports; energy below that of the MACs and the compulsory accesses;
* are not finite: cycles, energy, violation, traffic, or any slope of log EDP in factors, places of the
  orders and the hierarchy.
"""

import argparse
import json
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _common
from benchmarks._loopnests import random_batch
from diffhw import hardware, numerics
from diffhw._cli._progress import Progress
from diffhw.models import loopnest, loopnest_counts

QUICK = ["--count", "8192", "--hierarchies", "gemmini"]
LEFT_OUT = "two of the three hierarchies; 8,192 of the million mappings"

LEAST = 1 - 1e-5  # float32


def touched(out, taps, stride, dilation):
    """Distinct input rows (or columns) under all windows of a layer, host integers."""
    common = np.gcd(stride, dilation)
    return out * taps - np.maximum(out - dilation // common, 0) * np.maximum(taps - stride // common, 0)


def compulsory(layer) -> dict[str, np.ndarray]:
    """Words per tensor that must cross the outermost level."""
    one = {name: np.int64(getattr(layer, name)) for name in layer.__dataclass_fields__}
    rows = touched(one["p"], one["r"], one["stride_h"], one["dilation_h"])
    columns = touched(one["q"], one["s"], one["stride_w"], one["dilation_w"])
    words = {
        "w": one["g"] * one["k"] * one["c"] * one["r"] * one["s"],
        "i": one["n"] * one["g"] * one["c"] * rows * columns,
        "o": one["n"] * one["g"] * one["k"] * one["p"] * one["q"],
    }
    return {t: np.float32(value) for t, value in words.items()}


def log_edp(layer, hierarchy, mapping):
    return _common.log_edp(loopnest.layer(layer, hierarchy, mapping))


def laws(layer, hierarchy, mapping, words):
    """Which laws one mapping breaks, by law; its cost."""
    cost = loopnest.layer(layer, hierarchy, mapping)
    counts = loopnest_counts(layer, hierarchy, mapping)
    outer = hierarchy.levels[-1]
    moved = {t: found.updates if t == "o" else found.reads for t, found in counts.tensors[-1].items()}
    bits = sum(words[t] * outer.bits(t) for t in "wio")
    bound = numerics.maximum(layer.macs / hierarchy.macs_per_cycle, bits / outer.shared_bits_per_cycle)
    for level, tensors in zip(hierarchy.levels, counts.tensors, strict=True):
        zero = 0 * cost.cycles
        read = sum((found.reads * level.bits(t) for t, found in tensors.items()), zero)
        write = sum(((found.fills + found.updates) * level.bits(t) for t, found in tensors.items()), zero)
        for amount, port in ((read, "read"), (write, "write"), (read + write, "shared")):
            bound = numerics.maximum(bound, amount / getattr(level, f"{port}_bits_per_cycle"))
    prices = {"w": outer.read_pj, "i": outer.read_pj, "o": outer.update_pj}
    energy = layer.macs * hierarchy.mac_pj + sum(
        words[t] * outer.bits(t) / outer.width_bits * prices[t] for t in "wio"
    )
    return {
        "loses MACs": (jnp.abs(cost.macs / layer.macs - 1) > 1e-5)
        | (counts.compute_cycles * counts.macs_used < LEAST * layer.macs),
        "reads less than compulsory": jnp.stack([moved[t] < LEAST * words[t] for t in "wio"]).any(),
        "beats the roofline": (cost.cycles < LEAST * bound) | (cost.energy_pj < LEAST * energy),
    }, cost


def infinite(tree) -> np.ndarray:
    """Where any leaf is not finite, on the host: within the program it would compile for minutes."""
    return ~np.all([np.isfinite(np.asarray(leaf)) for leaf in jax.tree.leaves(tree)], axis=0)


def scaled(hierarchy, count: int, rng):
    """``count`` variants of a hierarchy: energies, bandwidths and capacities times up to 16 either way."""
    many = jax.tree.map(lambda leaf: np.full((count,), leaf, np.float32), hierarchy)
    scale = lambda: np.float32(2.0 ** rng.uniform(-4, 4, count))
    names = ("capacity_bits", "read_pj", "fill_pj", "update_pj")
    names += ("read_bits_per_cycle", "write_bits_per_cycle", "shared_bits_per_cycle")
    levels = tuple(replace(lv, **{name: getattr(lv, name) * scale() for name in names}) for lv in many.levels)
    return replace(many, levels=levels, static_w=np.float32(rng.uniform(0, 1e-2, count)))


def violations(name: str, count: int, chunk: int, progress, done: int, total: int) -> dict:
    """How many of ``count`` random mappings on a hierarchy break a law, by law."""
    base = hardware.hierarchy(name)
    judge, slopes = jax.jit(jax.vmap(laws)), jax.jit(jax.vmap(jax.grad(log_edp, (1, 2))))
    found: dict = {}
    fitting = 0
    start = compile_s = time.perf_counter()
    for first in range(0, count, chunk):
        layer, nest = random_batch(base, chunk, seed=first + 1)
        hierarchy = scaled(base, chunk, np.random.default_rng(first))
        broken, cost = judge(layer, hierarchy, nest, compulsory(layer))
        broken["is not finite"] = infinite((cost, slopes(layer, hierarchy, nest)))
        if first == 0:
            compile_s = time.perf_counter() - start
        live = min(chunk, count - first)  # the last chunk may be larger than what is asked for
        for law, flags in broken.items():
            found[law] = found.get(law, 0) + int(np.sum(flags[:live]))
        fitting += int(np.sum(cost.feasible[:live]))
        progress("mappings", done + first + live, total, None)
    return {
        "hierarchy": name, "mappings": count, "fit": fitting, **found,
        "compile_and_first_chunk_s": compile_s, "seconds": time.perf_counter() - start,
    }  # fmt: skip


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="mappings in all (default 10^6)")
    parser.add_argument("--chunk", type=int, default=8192, help="mappings in a call (default 8192)")
    names = tuple(hardware.HIERARCHIES)
    parser.add_argument("--hierarchies", nargs="*", default=names, choices=names, help="(default: all)")
    parser.add_argument("--json", help="write the figures to this file")
    args = parser.parse_args(arguments)
    names = args.hierarchies
    shares = [args.count // len(names) + (i < args.count % len(names)) for i in range(len(names))]
    rows, done = [], 0
    with Progress() as progress:
        for name, share in zip(names, shares, strict=True):
            rows.append(violations(name, share, args.chunk, progress, done, args.count))
            done += share
    heads = list(rows[0])[:-2]
    _common.table(
        f"{args.count:,} random mappings, float32", heads, [[row[key] for key in heads] for row in rows]
    )
    _common.write("loopnest_million", {"of": args.count, "rows": rows})
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"machine": _common.machine(), "of": args.count, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
