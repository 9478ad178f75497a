"""Random layers and loop nests for the loop-nest benchmarks: zoo layers, any factors, any orders."""

from dataclasses import replace

import jax
import numpy as np

from diffhw import workloads
from diffhw.mappings import LOOPS, LoopLevel, LoopNest

__all__ = ["NETWORKS", "random_batch"]

NETWORKS = ("vgg16", "resnet50", "mobilenet_v2", "bert_base", "alexnet")
_MOST = 1 << 16


def _smallest_primes() -> np.ndarray:
    """Smallest prime factor of every number below 2^16."""
    found = np.arange(_MOST)
    for p in range(2, 257):
        if found[p] == p:
            found[p * p :: p] = np.minimum(found[p * p :: p], p)
    return found


_PRIME = _smallest_primes()


def _zoo_layers(rng, n: int):
    nets = [workloads.load(name).merged() for name in NETWORKS]
    rows = [jax.tree.map(lambda leaf, net=net: np.asarray(leaf)[: net.size], net.layers) for net in nets]
    every = jax.tree.map(lambda *leaves: np.concatenate(leaves), *rows)
    pick = rng.integers(0, every.n.shape[0], n)
    layer = jax.tree.map(lambda leaf: np.float32(leaf[pick]), every)
    other = rng.random(n) < 0.25
    steps = {
        name: np.float32(np.where(other, rng.integers(1, 4, n), getattr(layer, name)))
        for name in ("stride_h", "stride_w", "dilation_h", "dilation_w")
    }
    return replace(layer, **steps)


def random_batch(hierarchy, n: int, seed: int = 0, layer=None):
    """(layers, nests) with leaves (n,), numpy float32, for one hierarchy.

    Layers of the zoo; a quarter with other strides and dilations. Each prime of each extent goes to a
    random level, in time or along an allowed axis as long as the fan-out has room; any order. A third of
    the extents is padded to a multiple of 2 to 8 first. Capacities are not looked at. ``layer``: one to take
    as it is instead of those of the zoo.
    """
    rng = np.random.default_rng(seed)
    layer = _zoo_layers(rng, n) if layer is None else jax.tree.map(lambda v: np.full(n, v, np.float32), layer)
    depth = len(hierarchy.levels)
    fan = {axis: [int(getattr(level, f"fanout_{axis}")) for level in hierarchy.levels] for axis in ("x", "y")}
    made = {kind: np.ones((depth, len(LOOPS), n), np.int64) for kind in ("time", "x", "y")}
    used = {axis: np.ones((depth, n), np.int64) for axis in ("x", "y")}
    for i in rng.permutation(len(LOOPS)):
        d = LOOPS[i]
        step = np.where(rng.random(n) < 1 / 3, rng.integers(2, 9, n), 1)
        rest = np.int64(getattr(layer, d))
        rest = np.where(rest > 1, -(-rest // step) * step, 1)
        axes = [
            (axis, k)
            for k, level in enumerate(hierarchy.levels)
            for axis in ("x", "y")
            if d in getattr(level, f"spatial_{axis}") and fan[axis][k] > 1
        ]
        while np.any(rest > 1):
            prime = _PRIME[rest]
            rest = rest // prime
            level = rng.integers(0, depth, n)
            spread = rng.random(n) < 0.5
            for axis, k in (axes[j] for j in rng.permutation(len(axes))):
                here = spread & (prime > 1) & (used[axis][k] * prime <= fan[axis][k])
                used[axis][k] *= np.where(here, prime, 1)
                made[axis][k, i] *= np.where(here, prime, 1)
                prime = np.where(here, 1, prime)
            made["time"][level, i, np.arange(n)] *= prime
    levels = []
    for k, level in enumerate(hierarchy.levels):
        order = np.argsort(rng.random((n, len(LOOPS))), 1).astype(np.float32)
        spatial = {
            axis: {
                d: np.float32(made[axis][k, LOOPS.index(d)])
                for d in (getattr(level, f"spatial_{axis}") if fan[axis][k] > 1 else "")
            }
            for axis in ("x", "y")
        }
        levels.append(
            LoopLevel(
                temporal={d: np.float32(made["time"][k, i]) for i, d in enumerate(LOOPS)},
                order={d: order[:, i] for i, d in enumerate(LOOPS)},
                spatial_x=spatial["x"],
                spatial_y=spatial["y"],
            )
        )
    return layer, LoopNest(levels=tuple(levels))
