"""A small network with every kind of layer that integers know, and its graph."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffhw.quantization import Graph


class Net(nnx.Module):
    """Convolution with batch norm, depthwise (strided), pointwise, grouped, residual, pools, dense."""

    def __init__(self, seed=0):
        rngs = nnx.Rngs(seed)
        self.stem = nnx.Conv(1, 6, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(6, use_running_average=True, rngs=rngs)
        self.depthwise = nnx.Conv(6, 6, (3, 3), strides=(2, 2), feature_group_count=6, rngs=rngs)
        self.blocks = nnx.List([nnx.Conv(6, 8, (1, 1), rngs=rngs)])
        self.grouped = nnx.Conv(8, 8, (3, 3), feature_group_count=2, rngs=rngs)
        self.head = nnx.Linear(8, 4, rngs=rngs)
        keys = jax.random.split(jax.random.key(seed), 2)
        self.norm.mean[...] = 0.2 * jax.random.normal(keys[0], (6,))
        self.norm.var[...] = jax.random.uniform(keys[1], (6,)) + 0.5

    def __call__(self, x):
        x = nnx.max_pool(jax.nn.relu(self.norm(self.stem(x))), (2, 2), (1, 1), "SAME")
        x = self.blocks[0](jax.nn.relu6(self.depthwise(x)))
        x = x + jax.nn.hard_swish(self.grouped(x))
        return self.head(x.mean((1, 2)))

    def graph(self):
        g = Graph()
        x = g.max_pool(g.relu(g.conv(g.input, "stem")), (2, 2), (1, 1), "SAME")
        x = g.conv(g.relu6(g.conv(x, "depthwise")), "blocks/0")
        x = g.add(x, g.hard_swish(g.conv(x, "grouped")))
        return g.output(g.dense(g.mean(x), "head"))


NAMES = ("stem", "depthwise", "blocks/0", "grouped", "head")


def images(n=24, seed=0):
    """Pixels k / 16, as digits have them: half-way values are common."""
    return jnp.asarray(np.random.default_rng(seed).integers(0, 17, (n, 8, 8, 1)) / 16, jnp.float32)
