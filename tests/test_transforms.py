"""Each cost function plain, under jit, vmap, vmap of grad, and sharded over four devices: one answer."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffhw import hardware
from diffhw.mappings import LoopNest
from diffhw.models import loopnest, roofline, systolic
from diffhw.workloads import Layer, Network

NETWORK = Network.create(
    [Layer.create(c=16, k=32, h=20, w=20, r=3, s=3), Layer.gemm(64, 100, 50)], counts=[1, 3]
)
HARDWARE = hardware.load("edge")
NESTS = [
    LoopNest.create(
        [{"temporal": {"q": 18}}, {"temporal": {"r": 3, "s": 3}, "y": {"c": 4}},
         {"temporal": {"p": 6, "k": 2}, "x": {"k": 4}}, {"temporal": {"c": 4, "p": 3, "k": 4}}],
        hardware.gemmini(), NETWORK.rows()[0],
    ),
    LoopNest.create(
        [{"temporal": {"p": 64}}, {"temporal": {"c": 5}, "y": {"c": 4}},
         {"temporal": {"k": 5}, "x": {"k": 2}}, {"temporal": {"k": 5, "c": 5}}],
        hardware.gemmini(), NETWORK.rows()[1],
    ),
]  # fmt: skip


def gemmini(hw):
    return hardware.gemmini(hw.rows, 2 * hw.cols, 4 * hw.rows)


def padded(nests):
    """A nest per padded layer row."""
    nests = [*nests, *nests[:1] * (NETWORK.mask.shape[0] - len(nests))]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *nests)


FUNCTIONS = {
    "systolic by name": lambda hw: systolic(NETWORK, hw, "os").edp,
    "systolic by weights": lambda hw: systolic(NETWORK, hw, jnp.array([0.2, 0.3, 0.5])).edp,
    "systolic one-hot": lambda hw: systolic(NETWORK, hw, jnp.eye(3)[1], one_hot=True, layer_loop="scan").edp,
    "systolic.layer": lambda hw: systolic.layer(NETWORK.rows()[0], hw, "is").edp,
    "roofline": lambda hw: roofline(NETWORK, hw).edp,
    "loopnest.layer": lambda hw: loopnest.layer(NETWORK.rows()[0], gemmini(hw), NESTS[0]).edp,
    "loopnest": lambda hw: loopnest(NETWORK, gemmini(hw), padded(NESTS)).edp,
    "area_mm2": hardware.area_mm2,
    "leakage_w": hardware.leakage_w,
}


def varied(rows):
    return replace(HARDWARE, rows=rows, cols=rows + 3.0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_transforms_agree(name):
    function = lambda rows: FUNCTIONS[name](varied(rows))
    batch = jnp.array([4.0, 7.0, 16.0, 33.0])
    plain = np.array([function(rows) for rows in batch])
    slopes = np.array([jax.grad(function)(rows) for rows in batch])
    assert np.all(np.isfinite(plain)) and np.all(plain > 0)
    assert np.any(slopes != 0)
    np.testing.assert_allclose([jax.jit(function)(rows) for rows in batch], plain, rtol=1e-5)
    batched = jax.jit(jax.vmap(function))
    np.testing.assert_allclose(batched(batch), plain, rtol=1e-5)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(jax.grad(function)))(batch), slopes, rtol=1e-3, atol=1e-6 * abs(slopes).max()
    )
    assert len(jax.devices()) == 4
    spread = jax.device_put(
        batch, NamedSharding(Mesh(np.array(jax.devices()), ("population",)), PartitionSpec("population"))
    )
    np.testing.assert_allclose(batched(spread), plain, rtol=1e-5)
