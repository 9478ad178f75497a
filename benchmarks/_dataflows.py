"""Random layers, dataflows and hardware for the dataflow benchmarks: synthetic, of mixed structure."""

import numpy as np

from diffhw import hardware, workloads
from diffhw.mappings import DIMS, ClusterLevel, Dataflow

__all__ = ["NETWORKS", "base", "random_batch"]

NETWORKS = ("vgg16", "resnet50", "mobilenet_v2", "bert_base", "alexnet")


def base(rows=16, cols=16):
    """An array with a buffer beside each PE, a shared one, and LPDDR4."""
    local = hardware.Level.create(name="l1", capacity_bytes=512, word_bits=8, instances=rows * cols)
    shared = hardware.Level.create(
        name="l2", capacity_bytes=108_000, read_bytes_per_cycle=64, write_bytes_per_cycle=64
    )
    return hardware.Accelerator.create(
        rows=rows, cols=cols, levels=(local, shared), dram=hardware.dram("LPDDR4")
    )


def random_batch(n: int, seed: int = 0):
    """(layers, dataflows) with leaves (n,), numpy float32: zoo layers; tiles log-uniform, any loop order,
    zero to one dimension dealt out per level, one to three levels, clusters of 1 to 64.
    """
    rng = np.random.default_rng(seed)
    layers = [workloads.load(name).merged() for name in NETWORKS]
    import jax

    rows = [jax.tree.map(lambda leaf, net=net: np.asarray(leaf)[: net.size], net.layers) for net in layers]
    every = jax.tree.map(lambda *leaves: np.concatenate(leaves), *rows)
    pick = rng.integers(0, every.n.shape[0], n)
    layer = jax.tree.map(lambda leaf: np.float32(leaf[pick]), every)
    levels = []
    depth = rng.integers(1, 4, n)
    for index in range(3):
        live = depth > index
        order = np.argsort(rng.random((n, 7)), 1).astype(np.float32)
        dealt = rng.integers(0, 8, n)
        tile, spatial = {}, {}
        for i, d in enumerate(DIMS):
            extent = np.maximum(getattr(layer, d), layer.g if d == "c" else 1)
            size = np.floor(np.exp(rng.random(n) * np.log(extent + 1)))
            size = np.where(rng.random(n) < 0.3, 1e9, np.maximum(size, 1))
            if d in "rs":
                size = np.where(dealt == i, 1, 1e9)
            tile[d] = np.float32(np.where(live, size, 1e9))
            spatial[d] = np.float32(live & (dealt == i))
        units = np.where(live & (dealt < 7), np.floor(np.exp(rng.random(n) * np.log(64))), 1)
        levels.append(
            ClusterLevel(
                tile=tile,
                offset=tile,
                rank={d: order[:, i] for i, d in enumerate(DIMS)},
                spatial=spatial,
                units=np.float32(units),
            )
        )
    return layer, Dataflow(levels=tuple(levels))
