"""Marvel: full layers beside three fixed styles, and what pruning and decoupling cost on small ones.

    python -m benchmarks.marvel [--platform p1] [--network resnet50] [--objective edp] [--parts full ...]

Full layers: seconds after compile, size of the space before and after, bytes moved, runtime, energy, EDP.
Small layers (K, C <= 16, P, Q <= 14): every tile size, order of the loops and layout enumerated under the
distinct-block model; then each rule alone against no rule, and the decoupled against the joint search.
"""

import argparse
import json
import math
import time

import numpy as np

from benchmarks import _common
from diffhw import hardware, workloads
from diffhw.recipes import MARVEL_RULES, MARVEL_STYLES, marvel, marvel_joint, marvel_styles
from diffhw.recipes._marvel_off_chip import off_chip
from diffhw.recipes._marvel_on_chip import Machine, candidates, dataflow_tile, evaluate
from diffhw.workloads import Layer

QUICK = ["--network", "alexnet", "--layers", "conv3", "conv5", "fc6", "--small", "2",
         "--parts", "full", "off_chip_rules"]  # fmt: skip
LEFT_OUT = (
    "ResNet-50 (three layers of AlexNet instead), 22 of 24 small layers, on-chip rules, the joint search"
)

BLOCK = 8  # elements, for small layers
WIDTH = {"w": 1.0, "i": 1.0, "o": 1.0, "psum": 1.0}
PARTS = ("full", "off_chip_rules", "on_chip_rules", "decoupling")
OFF_CHIP_RULES = ("P1", "P2", "P5", "P6", "P7")


def geomean(values) -> float:
    return math.exp(float(np.mean(np.log(np.asarray(values)))))


def small_layers(count: int = 24, seed: int = 0) -> dict[str, tuple[Layer, int]]:
    """Name -> (layer, capacity of L2 in words): a twentieth to a half of the layer."""
    rng = np.random.default_rng(seed)
    kinds = ("conv3x3", "conv3x3", "conv1x1", "depthwise", "strided", "gemm")
    out = {}
    for i in range(count):
        kind = kinds[i % len(kinds)]
        k, c = (int(x) for x in rng.choice([6, 8, 10, 12, 16], 2))
        p, q = (int(x) for x in rng.choice([5, 6, 7, 10, 12, 14], 2))
        if kind == "conv3x3":
            layer = Layer.create(k=k, c=c, r=3, s=3, p=p, q=q, h=p, w=q, pad_top=1, pad_left=1)
        elif kind == "conv1x1":
            layer = Layer.create(k=k, c=c, p=p, q=q)
        elif kind == "depthwise":
            layer = Layer.create(g=c, r=3, s=3, p=p, q=q, h=p, w=q, pad_top=1, pad_left=1)
        elif kind == "strided":
            layer = Layer.create(k=k, c=c, r=3, s=3, p=p, q=q, stride_h=2, stride_w=2)
        else:
            layer = Layer.gemm(p, c, k)
        words = float(layer.weight_words + layer.input_words + layer.output_words)
        name = f"{kind} k{int(layer.k)} c{int(layer.c)} g{int(layer.g)} p{int(layer.p)} q{int(layer.q)}"
        out[name] = (layer, max(int(words * rng.uniform(0.05, 0.5)), 64))
    return out


def least_movement(layer: Layer, capacity: float, rules) -> float:
    """Words of the best tile, order and layouts; inf where the rules leave none that fits."""
    try:
        found = off_chip(
            layer, capacity, BLOCK, WIDTH, double_buffered=False, rules=rules, f_min=0.25, keep=1
        )
    except ValueError:
        return math.inf
    return float(found.movement[0])


def full(network: str, platform: str, objective: str, wanted) -> dict:
    """Every distinct layer of a network, or those of the ``wanted`` names."""
    net = workloads.load(network).merged()
    named = dict(zip(net.names, net.rows(), strict=True))
    if unknown := [name for name in wanted or () if name not in named]:
        raise SystemExit(f"{network} has no layer {unknown[0]!r}; it has {', '.join(named)}")
    named = {name: named[name] for name in wanted or named}
    layers = list(named.values())
    start = time.perf_counter()
    for layer in layers:
        marvel(layer, platform, objective=objective)
    compile_s = time.perf_counter() - start
    rows, shown = [], []
    for name, layer in named.items():
        seconds = []
        for _ in range(5):
            found = marvel(layer, platform, objective=objective)
            seconds.append(found.seconds)
        row = {
            "layer": name,
            "seconds": _common.median(seconds),
            "space": float(found.space.full),
            "space_of_divisors": float(found.space.divisors),
            "off_chip": found.space.off_chip,
            "on_chip": found.space.on_chip,
            "reduction": found.space.reduction,
            "least_moved_bytes": found.least_movement,
            "moved_bytes": float(found.locality.data_movement),
            "compulsory_bytes": float(layer.weight_words + layer.input_words + layer.output_words),
            "cycles": float(found.cost.cycles),
            "energy_pj": float(found.cost.energy_pj),
            "relaxed": found.relaxed,
        }
        best = {}
        for style, cost in marvel_styles(layer, platform).items():
            if cost is None or not float(cost.feasible):
                continue
            best[style] = (
                float(cost.cycles) / row["cycles"],
                float(cost.energy_pj) / row["energy_pj"],
                float(cost.edp) / float(found.cost.edp),
            )
        row["styles"] = best
        rows.append(row)
        shown.append(
            [name, row["seconds"], row["space"], row["off_chip"] + row["on_chip"], row["reduction"]]
            + [row["moved_bytes"] / row["compulsory_bytes"], row["moved_bytes"] / row["least_moved_bytes"]]
            + [row["cycles"]]
            + ["/".join(f"{x:.2f}" for x in best[style]) if style in best else "-" for style in MARVEL_STYLES]
        )
    header = [
        "layer",
        "s",
        "space",
        "left",
        "reduction",
        "moved/compulsory",
        "/optimum",
        "cycles",
        *MARVEL_STYLES,
    ]
    _common.table(
        f"{network} on {platform}, {objective}; styles: runtime/energy/EDP over ours", header, shown
    )

    def over(pick, style=None):
        """Geomean of a ratio, of one style or of the best of the three by that measure."""
        every = [
            row["styles"][style][pick] if style else min(one[pick] for one in row["styles"].values())
            for row in rows
            if (style in row["styles"] if style else row["styles"])
        ]
        return geomean(every)

    gains = {style: [over(i, style) for i in range(3)] for style in MARVEL_STYLES}
    gains["best of the three, layer by layer"] = [over(i) for i in range(3)]
    gains["all three"] = [geomean([gains[style][i] for style in MARVEL_STYLES]) for i in range(3)]
    _common.table(
        "geomean over layers", ["over", "runtime", "energy", "EDP"], [[n, *g] for n, g in gains.items()]
    )
    fewer = sum(min(one[2] for one in row["styles"].values()) < 1 for row in rows)
    seconds = [row["seconds"] for row in rows]
    print(
        f"{len(rows)} layers: first run of all {compile_s:.1f} s with compiling, then median "
        f"{_common.median(seconds):.2f} s, most {max(seconds):.2f} s; least reduction "
        f"{min(row['reduction'] for row in rows):.1e}; a style has a lower EDP on {fewer} layers"
    )
    return {
        "network": network,
        "platform": platform,
        "first_run_s": compile_s,
        "layers": rows,
        "geomean": gains,
    }


def small(count: int) -> dict:
    """The distinct-block optimum of small layers, with all rules, without each, with each alone."""
    sets = {"default": ("P2",), "all rules": OFF_CHIP_RULES}
    sets |= {f"without {rule}": tuple(r for r in OFF_CHIP_RULES if r != rule) for rule in OFF_CHIP_RULES}
    sets |= {f"{rule} alone": (rule,) for rule in OFF_CHIP_RULES}
    layers = small_layers(count)
    best = {name: least_movement(layer, capacity, ()) for name, (layer, capacity) in layers.items()}
    out, rows = {}, []
    for title, rules in sets.items():
        ratio = np.array([least_movement(*layers[name], rules) / best[name] for name in layers])
        finite = ratio[np.isfinite(ratio)]
        out[title] = {
            "optimum_percent": 100 * float(np.mean(ratio <= 1 + 1e-6)),
            "geomean": geomean(finite),
            "worst": float(finite.max()),
            "no_tile": int(np.sum(~np.isfinite(ratio))),
        }
        rows.append([title, *out[title].values()])
    _common.table(
        f"{count} small layers: movement over that of every tile, order and layout",
        ["rules", "optimum on %", "geomean", "worst", "no tile"],
        rows,
    )
    return out


def small_machine(capacity_bytes: float):
    """16 PEs with 64 bytes each and so many shared."""
    local = hardware.Level.create(name="l1", capacity_bytes=64, word_bits=8, instances=16)
    shared = hardware.Level.create(
        name="l2", capacity_bytes=capacity_bytes, read_bytes_per_cycle=8, write_bytes_per_cycle=8
    )
    return hardware.Accelerator.create(rows=4, cols=4, levels=(local, shared), dram=hardware.dram("LPDDR4"))


def on_chip_rules(layers) -> dict:
    """EDP of the best on-chip mapping of the chosen tile, with each rule over P2 alone, all enumerated."""
    sets = {"all rules": ("P1", "P2", "P3", "P4", "P6")}
    sets |= {f"{rule} beside P2": ("P2", rule) for rule in ("P1", "P3", "P4", "P6")}
    ratios = {title: [] for title in sets}
    for layer, capacity in layers:
        hw = small_machine(capacity)
        machine = Machine.of(hw, _bits(hw))
        found = marvel(layer, hw, block=BLOCK)
        tile, rank = dataflow_tile(layer, np.array(list(found.tile.values())), np.arange(8.0))

        def best(rules, layer=layer, hw=hw, machine=machine, tile=tile, rank=rank):
            pool = candidates(layer, tile, rank, machine, "edp", rules=rules, u_min=0.5).pool
            return float(evaluate(layer, hw, _bits(hw), pool, machine, "edp").min())

        least = best(("P2",))
        for title, rules in sets.items():
            ratios[title].append(math.exp(best(rules) - least))
    out = {
        title: {"optimum_percent": 100 * float(np.mean(np.array(r) <= 1.0001)), "geomean": geomean(r)}
        | {"worst": max(r)}
        for title, r in ratios.items()
    }
    _common.table(
        f"{len(layers)} small layers, on chip: EDP over that of every mapping of the same L2 tile (P2 on)",
        ["rules", "optimum on %", "geomean", "worst"],
        [[title, *one.values()] for title, one in out.items()],
    )
    return out


def _bits(hw):
    from diffhw.mappings import Precision

    return Precision.of(hw)


def decoupling(layers) -> dict:
    """EDP of the decoupled over the joint search."""
    out, rows = {}, []
    for keep in (1, 4):
        ratios, first, second = [], 0.0, 0.0
        for layer, capacity in layers:
            hw = small_machine(capacity)
            ours = marvel(layer, hw, block=BLOCK, keep=keep)
            joint = marvel_joint(layer, hw, block=BLOCK, per_tile=2048)
            ratios.append(ours.value / joint.value)
            first, second = first + ours.seconds, second + joint.seconds
        out[str(keep)] = {
            "geomean": geomean(ratios),
            "worst": max(ratios),
            "seconds": first,
            "joint_seconds": second,
        }
        rows.append([f"{keep} L2 tile(s) handed on", *out[str(keep)].values()])
    _common.table(
        f"{len(layers)} small layers: EDP decoupled over joint",
        ["decoupled", "geomean", "worst", "s", "joint s"],
        rows,
    )
    return out


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--platform", default="p1", help="p1 (edge, default), p2, or hardware")
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--objective", default="edp", choices=("edp", "latency", "energy"))
    parser.add_argument("--layers", nargs="*", help="of the network, by name (default all)")
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS, help="(default all)")
    parser.add_argument("--small", type=int, default=24, help="small layers (default 24)")
    parser.add_argument("--joint", type=int, default=6, help="of these also searched jointly (default 6)")
    parser.add_argument("--json", help="write the figures to this file")
    args = parser.parse_args(arguments)
    result: dict = {"rules": MARVEL_RULES, "machine": _common.machine()}
    if "full" in args.parts:
        result["full"] = full(args.network, args.platform, args.objective, args.layers)
    if "off_chip_rules" in args.parts:
        result["off_chip_rules"] = small(args.small)
    # The array's sums take four bytes.
    few = [(layer, 3 * capacity + 600) for layer, capacity in small_layers(args.small).values()][: args.joint]
    if "on_chip_rules" in args.parts:
        result["on_chip_rules"] = on_chip_rules(few)
    if "decoupling" in args.parts:
        result["decoupling"] = decoupling(few)
    _common.write("marvel", {name: part for name, part in result.items() if name != "machine"})
    if args.json:
        with open(args.json, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
