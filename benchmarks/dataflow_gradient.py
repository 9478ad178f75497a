"""Does following the gradient of the dataflow model help? Tiles of 50 random starts per layer.

    python -m benchmarks.dataflow_gradient [--starts N] [--steps N]

Structure (order, dimensions dealt out) is that of a named style; variables are the tiles of both levels
and the cluster size. Objective: log EDP, plus 5 log(1 + violation). From each start: Adam on the
unconstrained tiles, every step snapped to legal integers (straight-through), the best step kept; beside
it random moves (one variable drawn anew, kept if better): as many as gradient steps, and as many as cost
the same, where a gradient step counts as five evaluations (what one in a batch costs). Reported: the
improvement over the start.
"""

import argparse
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from benchmarks import _common
from benchmarks._dataflows import base
from diffhw import workloads
from diffhw.mappings import DIMS, fit, style
from diffhw.models import dataflow
from diffhw.spaces import Integer, Space

QUICK = ["--starts", "8", "--steps", "20", "--cases", "1"]
LEFT_OUT = "four of the five layers, 42 of 50 starts, half of the steps"

CASES = (
    ("resnet50", 20, "kcp_ws"),
    ("vgg16", 3, "yrp_rs"),
    ("bert_base", 1, "kcp_ws"),
    ("mobilenet_v2", 4, "yxp_dw"),
    ("vgg16", 8, "ckp_ws"),
)
GRADIENT_COST = 5  # evaluations a value and gradient takes (benchmarks.dataflow prints both speeds)


def row_of(network: str, row: int):
    net = workloads.load(network).merged()
    row = min(row, net.size - 1)
    return net.names[row], jax.tree.map(lambda leaf: leaf[row], net.layers)


def space_of(layer, program):
    """The dataflow of ``program`` with every tile that is not the filter's a variable."""
    start = fit(program, layer)
    levels = []
    for index, level in enumerate(start.levels):
        tile, offset = dict(level.tile), dict(level.offset)
        for d in DIMS:
            extent = int(max(float(getattr(layer, d)), float(layer.g) if d == "c" else 1))
            if index < 2 and d not in "rs" and extent > 1:
                tile[d] = offset[d] = Integer(1, extent, scale="log")
        units = Integer(1, 256, scale="log") if index == 1 else level.units
        levels.append(replace(level, tile=tile, offset=offset, units=units))
    return Space(replace(start, levels=tuple(levels)))


def compare(layer, space, hw, starts: int, steps: int, seed: int = 0):
    """Objectives, each (starts,): at the start, by gradient, by as many random moves, by as dear ones."""

    def objective(mapping):
        cost = dataflow.layer(layer, hw, mapping)
        return _common.log_edp(cost) + 5 * jnp.log1p(cost.violation)

    key = jax.random.key(seed)
    params = jax.vmap(space.init)(jax.random.split(key, starts))
    adam = optax.adam(optax.cosine_decay_schedule(0.3, steps, 0.05))

    # Forward mode, one start at a time: the same slopes as backward and in a batch, traced and compiled in
    # half the time, which is nearly all of it. A step still counts as what a gradient in a batch costs.
    flat, filled = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], params))

    @jax.jit
    def descend(at, opt):
        along = lambda tangent: jax.jvp(lambda x: objective(space.decode(filled(x))), (at,), (tangent,))
        value, slope = jax.vmap(along)(jnp.eye(flat.size))
        updates, opt = adam.update(slope, opt)
        return value[0], optax.apply_updates(at, updates), opt

    def descent(at):
        values, opt = [], adam.init(at)
        for _ in range(steps + 1):  # and where the last step ends
            value, at, opt = descend(at, opt)
            values.append(float(value))
        return values

    values = np.array([descent(at) for at in jax.vmap(lambda one: ravel_pytree(one)[0])(params)])
    first, after = values[:, 0], values.min(axis=1)

    # Random moves from the same starts, in index vectors.
    rng = np.random.default_rng(seed)
    index = np.array(jax.vmap(space.index)(params))
    cost = jax.jit(jax.vmap(lambda i: objective(space.at(i))))
    best = np.array(cost(index))
    sizes = np.asarray(space.sizes)
    as_many = best
    for done in range(steps * GRADIENT_COST):
        move = index.copy()
        which = rng.integers(0, len(sizes), starts)
        move[np.arange(starts), which] = rng.integers(0, sizes[which])
        value = np.asarray(cost(move))
        better = value < best
        index[better], best[better] = move[better], value[better]
        if done + 1 == steps:
            as_many = best.copy()
    return np.asarray(first), np.asarray(after), as_many, best


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=50)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--cases", type=int, default=len(CASES), help="how many of the layers (default all)")
    parser.add_argument("--json", help="write the figures to this file")
    args = parser.parse_args(arguments)
    hw, rows = base(), []
    print("median improvement of log EDP over the start (more is better); starts where the gradient wins")
    heads = (
        f"{'layer':42s}",
        f"{'style':8s}",
        f"{'gradient':>10s}",
        f"{'as many moves':>14s}",
        f"{'wins':>9s}",
    )
    print("".join(heads) + f"{'equal cost':>14s}{'wins':>9s}")
    for network, row, name in CASES[: args.cases]:
        label, layer = row_of(network, row)
        space = space_of(layer, style(name, layer, 256))
        first, after, as_many, as_dear = compare(layer, space, hw, args.starts, args.steps)
        wins = [int(np.sum(after < other - 1e-6)) for other in (as_many, as_dear)]
        print(
            f"{network + '/' + label:42s}{name:8s}{np.median(first - after):10.2f}"
            + "".join(
                f"{np.median(first - other):14.2f}{won:6d}/{args.starts}"
                for other, won in zip((as_many, as_dear), wins, strict=True)
            ),
            flush=True,
        )
        rows.append(
            dict(
                network=network,
                layer=label,
                style=name,
                gradient=(first - after).tolist(),
                as_many=(first - as_many).tolist(),
                equal_cost=(first - as_dear).tolist(),
                wins=wins,
            )
        )
    _common.write("dataflow_gradient", {"starts": args.starts, "steps": args.steps, "rows": rows})
    if args.json:
        with open(args.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
