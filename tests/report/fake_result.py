"""A small `CodesignResult` with real costs and an invented search, for tests of what shows it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from diffhw import hardware
from diffhw.hardware import Accelerator, Level
from diffhw.mappings import Precision
from diffhw.models import systolic
from diffhw.recipes import Assumption, Certificate, CodesignResult, Design, Rival, Sensitivity
from diffhw.search import Designs, SearchResult
from diffhw.workloads import Layer, Network, NetworkInfo


@functools.cache
def network():
    layers = [
        Layer.create(k=16, c=3, h=32, w=32, r=3, s=3, pad_top=1, pad_left=1),
        Layer.create(g=16, h=32, w=32, r=3, s=3, pad_top=1, pad_left=1),
        Layer.gemm(1, 512, 10),
    ]
    info = NetworkInfo(name="tiny", names=("conv<b>", "depthwise (+1 alike)", "fc"), notes=("a note & more",))
    return Network.create(layers, counts=[1, 2, 1], info=info)


def accelerator(rows=8, cols=8):
    levels = [Level.create(name=n, keeps=n[0], capacity_bytes=8192) for n in ("input", "weight", "output")]
    return Accelerator.create(rows=rows, cols=cols, levels=levels, dram=hardware.dram("LPDDR4"))


_run = jax.jit(lambda network, hw: systolic(network, hw, "ws"))


@functools.cache
def cost(rows=8, cols=8):
    design = network(), accelerator(rows, cols)  # float32, as users make them
    with jax.enable_x64(True):
        double = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), tree)
        return jax.tree.map(np.asarray, _run(*double(design)))


def search(value):
    rng = np.random.default_rng(0)
    index = rng.integers(0, 5, (200, 3)).astype(np.int32)
    figures = np.exp(rng.normal(0, 0.5, (200, 4))) * [2 * value, 2.0, 0.2, 0.002]
    index[0], figures[0] = 0, [value, 1.7, 0.03, 0.0004]
    names = ("objective", "area_mm2", "latency_ms", "energy_mj")
    everything = Designs(index, figures, names)
    best = np.minimum.accumulate(figures[::-1, 0])
    return SearchResult(
        method="gradient",
        best=None,
        best_index=index[0],
        choices={"rows": 8.0, "cols": 8.0},
        value=value,
        feasible=True,
        violation=0.0,
        constraint_values={"area_mm2": 1.7},
        limits={"area_mm2": 3.0},
        binding="area_mm2",
        evaluations=812.0,
        gradient_evaluations=64,
        gradient_cost=3.2,
        seconds=0.1,
        compile_seconds=1.0,
        seed=7,
        key_data=(0, 7),
        space_size=125_000,
        pareto=Designs(index[:3], figures[:3, 2:], names[2:]),
        history={"evaluations": np.arange(1.0, 201), "seconds": np.linspace(0, 1, 200), "best": best},
        visited=Designs(index[::-20], figures[::-20], names),
        seen=everything,
    )


@functools.cache
def make():
    hw, one = accelerator(), cost()
    design = Design(hardware=hw, dataflow="ws", precision=Precision.of(hw))
    value = float(one.edp)
    over = accelerator(16, 16)
    other = Design(hardware=over, dataflow="ws", precision=Precision.of(over))
    rival = Rival("rival", other, (cost(16, 16),), float(cost(16, 16).edp), ("area_mm2",))
    return CodesignResult(
        networks=(network(),),
        objective="edp",
        value=value,
        limits={"area_mm2": 3.0},
        figures={
            "area_mm2": float(one.area_mm2),
            "power_w": float(one.power_w),
            "latency_ms": 1e3 * float(one.latency_s),
        },
        feasible=True,
        design=design,
        costs=(one,),
        search=search(value),
        rivals=(rival,),
        certificate=Certificate("all 125,000 legal designs", 0.0123, value / 1.0123, design, 125_000, 0.5),
        sensitivities=(
            Sensitivity("rows", 8.0, "PEs", -0.03, -0.02),
            Sensitivity("input buffer", 8192.0, "bytes", 0.01, 0.011),
        ),
        assumptions=(
            Assumption("sram_leakage", 1e-9, "W/byte", "a guess", (-0.01, ""), (0.02, "16 x 8, ws")),
        ),
        bounds=(("compute", "part-filled folds", "DRAM"),),
        space_size=125_000,
        space_text=(
            "hardware.rows  4, 8 (2 values)\n"
            "hardware.levels.0.capacity_bytes  8192 (1 value)\n"
            "125,000 designs"
        ),
        config={
            "networks": ["tiny"],
            "objective": "edp",
            "limits": {"area_mm2": {"value": 3.0, "unit": "mm2"}},
            "seed": 7,
            "versions": {"diffhw": "0", "jax": "0", "python": "0"},
            "device": "cpu",
            "dtype": "float32",
        },
        seconds={"search": 1.0, "certificate": 0.5},
    )  # fmt: skip
