"""AQGAN's generator of bit widths on five networks: wishes for an accuracy, with and without a budget.

   python -m benchmarks.aqgan [--network NAME ...] [--seed N ...] [--evaluations 10000] [--targets 20]
   python -m benchmarks.aqgan --front            the network whose whole space is enumerated
   python -m benchmarks.aqgan --show             the tables of what was measured so far

A run that is stopped goes on where it was: finished cells (a network and a seed) are in the result file,
trained networks, training sets, surrogates, half fitted generators and evaluations under build/aqgan.
Every accuracy is measured by running the quantized network; errors are |accuracy - target| in points, "mean
over the targets / mean of the worst target". raw: all samples as drawn. kept: 8 of them that the surrogate
holds for the nearest. found: the 8 nearest after evaluating all. corrected: the same after the surrogate
has moved each in single layers, which costs no evaluation.
"""

import argparse
import time
from typing import Any

import jax
import numpy as np

from benchmarks import _common
from diffhw.search import Surrogate

NETWORKS = {  # quantized layers
    "mobilenet_v2_small": 20,
    "shufflenet_v2_small": 25,
    "squeezenet_small": 14,
    "mnasnet_small": 20,
    "efficientnet_small": 27,
}
BUILD = _common.BUILD / "aqgan"
SAMPLES, KEPT = 64, 8
ENDS = ("low", "high")
QUICK = ["--show"]
LEFT_OUT = "every training: only the tables of the kept results are printed"
BUDGETS = ("30 %", "10 %", "2 %", "below all")  # of random designs of the wished accuracy are smaller
NEAR = 0.015  # of the target: counts as meeting it


class Memo:
    """A problem whose evaluations are kept on disk: a second run of the benchmark pays for none twice."""

    def __init__(self, problem, folder):
        self.folder = folder
        # By which images: bytes of a design -> its row of figures.
        self.known: dict[str, dict[bytes, np.ndarray]] = {"observed": {}, "selection": {}, "test": {}}
        for name, table in self.known.items():
            if (folder / f"{name}.npz").exists():
                with np.load(folder / f"{name}.npz") as stored:
                    codes = [row.tobytes() for row in stored["designs"]]
                    table.update(zip(codes, stored["figures"], strict=True))
        run, look = problem._run, problem._look

        def remembered_run(indices, data, progress):
            name = "test" if data is problem.test else "selection"
            return self.rows(name, indices, lambda new: run(new, data, None)[:, None])[:, 0]

        def remembered_look(indices, progress):
            found = self.rows("observed", indices, lambda new: np.column_stack(look(new, None)))
            return found[:, 0], found[:, 1:]

        object.__setattr__(problem, "_run", remembered_run)
        object.__setattr__(problem, "_look", remembered_look)

    def rows(self, name: str, indices, measure, chunk: int = 512) -> np.ndarray:
        """Figures of designs (N, L), (N, C): remembered, or measured in chunks that are kept at once."""
        table, designs = self.known[name], np.ascontiguousarray(indices, np.int64)
        codes = [row.tobytes() for row in designs]
        new = list(dict.fromkeys(code for code in codes if code not in table))
        for begin in range(0, len(new), chunk):
            part = new[begin : begin + chunk]
            found = measure(np.array([np.frombuffer(code, np.int64) for code in part]))
            table.update(zip(part, found.astype(float), strict=True))
            if len(part) == chunk:
                self.save()
        return np.array([table[code] for code in codes])

    def save(self) -> None:
        """Each file replaced as a whole."""
        for name, table in self.known.items():
            part = self.folder / f"{name}.part.npz"
            designs = np.array([np.frombuffer(code, np.int64) for code in table])
            np.savez(part, designs=designs, figures=np.array(list(table.values())))
            part.replace(self.folder / f"{name}.npz")


def say(*words) -> None:
    print(" ", *words, flush=True)


def fitted(network: str, seed: int, evaluations: int, epochs: int):
    """(problem, memo, suite, seconds of the parts)."""
    from diffhw import recipes

    folder = BUILD / f"{network}_{seed}_{evaluations}"
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    problem = recipes.bit_problem(
        network, seed=seed, epochs=epochs, checkpoint=BUILD / f"{network}_{seed}_trained"
    )
    say(f"{network} seed {seed}: accuracy {problem.float_accuracy}, {time.perf_counter() - begin:.0f} s")
    memo = Memo(problem, folder)
    if (folder / "suite").exists():
        return problem, memo, recipes.load_aqgan(folder / "suite", problem)

    def told(phase, done, total):
        if phase != "designs to learn from" or done == total:
            say(phase, done, total, f"{time.perf_counter() - begin:.0f} s")

    begin = time.perf_counter()
    known = recipes.sample_bits(problem, evaluations, seed, resume=folder / "samples.npz", progress=told)
    surrogate = kept_surrogate(problem, known, seed, folder, told)
    suite = recipes.aqgan(
        problem,
        seed=seed,
        training_set=known,
        surrogate=surrogate,
        resume=folder / "fit.npz",
        progress=told,
    )
    suite.save(folder / "suite")
    return problem, memo, suite


def kept_surrogate(problem, known, seed: int, folder, told, members: int = 4, steps: int = 2000):
    """As `aqgan` fits it, but its members one by one, each kept on disk."""
    import jax.numpy as jnp

    from diffhw.recipes._bit_samples import bit_surrogate

    key, made = jax.random.fold_in(jax.random.key(seed), 100), []
    for member in range(members):
        path = folder / f"member{member}.npz"
        if not path.exists():
            one = bit_surrogate(problem, known, jax.random.fold_in(key, member), 1, steps)
            leaves: dict[str, Any] = {name: np.asarray(leaf) for name, leaf in one.params.items()}
            np.savez(folder / "member.part.npz", low=one.low, high=one.high, **leaves)
            (folder / "member.part.npz").replace(path)
        told("surrogate", member + 1, members)
        with np.load(path) as stored:
            made.append({name: jnp.asarray(stored[name]) for name in stored.files})
    params = {name: jnp.concatenate([one[name] for one in made]) for name in made[0] if name not in ENDS}
    return Surrogate(params, made[0]["low"], made[0]["high"], sizes=problem.sizes, names=("accuracy",))


def errors(accuracy: np.ndarray, target: float) -> np.ndarray:
    return 100 * np.abs(accuracy - target)


def columns(problem, suite, designs: np.ndarray, wish: dict) -> dict:
    """The three errors of one suite, how different its designs are, and the gap on the test images."""
    from diffhw import search

    target = wish["accuracy"]
    accuracy = problem.evaluate(designs)
    off = errors(accuracy, target)
    kept = np.argsort(suite.generator.miss(designs, wish), kind="stable")[:KEPT]
    found = np.argsort(off, kind="stable")[:KEPT]
    test = problem.test_accuracy(designs[found])
    distinct, apart = search.diversity(designs)
    return {
        "all": float(off.mean()),
        "kept": float(off[kept].mean()),
        "found": float(off[found].mean()),
        "distinct": distinct,
        "apart": apart,
        "test_gap": float(errors(test, target).mean()),
        "test_shift": float(100 * (test - accuracy[found]).mean()),
    }


def rivals(problem, suite, target: float, seed: int, budget: float | None = None) -> dict:
    """Designs of the trivial methods at as many evaluations (none for the nearest of the training set)."""
    from diffhw import recipes

    wish: dict[str, Any] = dict(target=target, budget=budget)
    return {
        "best of 8192 random": recipes.best_of_random(
            problem, suite.generator.surrogate.predict, keep=SAMPLES, seed=seed, **wish
        ),
        "local search": recipes.local_bits(problem, evaluations=SAMPLES, seed=seed, **wish),
        "nearest in the training set": recipes.nearest_known(
            problem, suite.designs, suite.accuracy, keep=SAMPLES, **wish
        ),
    }


def for_accuracy(problem, memo, suite, targets: np.ndarray, seed: int) -> dict:
    """Wishes for an accuracy alone; the rivals for every fourth of them."""
    rows: dict[str, list] = {"raw": [], "corrected": []}
    seconds: dict[str, list] = {"raw": [], "corrected": []}
    others: dict[str, list] = {}
    suite.propose({"accuracy": targets[0]}, SAMPLES, seed)  # compiles
    for i, target in enumerate(targets):
        wish = {"accuracy": float(target)}
        for name in rows:
            begin = time.perf_counter()
            designs = suite.propose(wish, SAMPLES, 1000 * seed + i, correct=name == "corrected")
            seconds[name].append(time.perf_counter() - begin)
            rows[name].append(columns(problem, suite, designs, wish))
        trivial = rivals(problem, suite, float(target), 1000 * seed + i) if i % 4 == 2 else {}
        for name, found in trivial.items():
            off = errors(found.accuracy, target)
            others.setdefault(name, []).append(
                {"all": float(off.mean()), "found": float(np.sort(off)[:KEPT].mean())}
            )
        memo.save()
        say(f"target {target:.3f}:", *(f"{name} {rows[name][-1]['all']:.2f}" for name in rows))
    return {
        "targets": [float(target) for target in targets],
        **rows,
        "rivals": others,
        "seconds_per_wish": {name: float(np.median(values)) for name, values in seconds.items()},
    }


def joint_wishes(problem, suite, seed: int, low: float, high: float) -> list[tuple[float, float, str]]:
    """(accuracy, bytes, how tight): the 30, 10 and 2 % smallest of what random designs of that accuracy take,
    and 3 % less than the smallest of them all, where drawing at random finds next to nothing."""
    from diffhw.search._generator_pool import random_designs

    pool = random_designs(np.random.default_rng([seed, 5]), problem.sizes, 20_000)
    guess, cost = suite.generator.surrogate.predict(pool)[:, 0], problem.cost("bytes", pool)
    wishes = []
    for target in low + (high - low) * np.array([0.5, 0.9]):
        like = np.abs(guess - target) < NEAR
        if like.sum() >= 50:
            budgets = {f"{100 * q:.0f} %": float(np.quantile(cost[like], q)) for q in (0.3, 0.1, 0.02)}
            budgets["below all"] = 0.97 * float(cost[like].min())
            wishes += [(float(target), budget, tight) for tight, budget in budgets.items()]
    return wishes


def for_both(problem, memo, suite, wishes: list[tuple[float, float, str]], seed: int) -> list[dict]:
    """Wishes for an accuracy within a byte budget."""
    rows = []
    for i, (target, budget, tight) in enumerate(wishes):
        wish = {"accuracy": target, "bytes": budget}
        made = {
            name: suite.propose(wish, SAMPLES, 1000 * seed + i, correct=name == "corrected")
            for name in ("raw", "corrected")
        }
        found = rivals(problem, suite, target, 1000 * seed + i, budget)
        row: dict = {"accuracy": target, "bytes": budget, "tight": tight, "methods": {}}
        for name, designs in made.items():
            row["methods"][name] = met(problem, designs, problem.evaluate(designs), target, budget)
        for name, one in found.items():
            row["methods"][name] = met(problem, one.indices, one.accuracy, target, budget)
        rows.append(row)
        say(
            f"{target:.3f} in {budget:.0f} bytes:",
            {k: round(v["both"], 2) for k, v in row["methods"].items()},
        )
    return rows


def met(problem, designs, accuracy, target: float, budget: float) -> dict:
    """Shares of ``SAMPLES`` wished designs: within the budget; near the target too; and the errors."""
    if not len(designs):
        return {"within": 0.0, "both": 0.0, "all": None, "found": None, "different": 0}
    within = problem.cost("bytes", designs) <= budget * (1 + 1e-9)
    off = errors(accuracy, target)
    good = within & (off <= 100 * NEAR)
    return {
        "within": float(within.mean()),
        "both": float(good.sum() / SAMPLES),
        "all": float(off.mean()),
        "found": float(np.sort(off[within])[:KEPT].mean()) if within.any() else None,
        "different": len(np.unique(np.asarray(designs)[good], axis=0)),
    }


def cell(network: str, seed: int, evaluations: int, targets: int, epochs: int) -> dict:
    """All figures of one network and seed."""
    from diffhw import search

    problem, memo, suite = fitted(network, seed, evaluations, epochs)
    # What the training set reached, less half a percent of it at either end.
    low, high = np.quantile(suite.accuracy, [0.005, 0.995])
    wished = np.linspace(low, high, targets)
    try:
        alone = for_accuracy(problem, memo, suite, wished, seed)
        both = for_both(problem, memo, suite, joint_wishes(problem, suite, seed, low, high), seed)
    finally:
        memo.save()
    near = [np.abs(suite.accuracy - target) < NEAR for target in wished]
    apart = [search.diversity(suite.designs[rows][:SAMPLES])[1] for rows in near if rows.sum() > 1]
    images, held = len(problem.selection), len(problem.test)
    middle = float(np.median(wished))
    return {
        "network": network,
        "layers": len(problem.names),
        "seed": seed,
        "epochs": epochs,
        "evaluations": suite.evaluations,
        "float_accuracy": [float(value) for value in problem.float_accuracy],
        "range": [float(low), float(high)],
        "selection_images": images,
        "test_images": held,
        "standard_error_selection": 100 * (middle * (1 - middle) / images) ** 0.5,
        "standard_error_test": 100 * (middle * (1 - middle) / held) ** 0.5,
        "apart_training_set": float(np.mean(apart)) if apart else None,
        "fit_seconds": suite.seconds,
        "ledger": {
            "evaluations": problem.ledger.evaluations,
            "seconds": round(problem.ledger.seconds, 1),
            "training_set": suite.evaluations,
        },
        "accuracy": alone,
        "joint": both,
    }


def _both(joint: list[dict], name: str, tight: str) -> float | None:
    """Mean share of different designs that meet both, over the wishes of one tightness, if there are any."""
    rows = [row["methods"][name]["different"] for row in joint if row["tight"] == tight]
    return float(np.mean(rows)) / SAMPLES if rows else None


def mean(values) -> str:
    """Of those there are."""
    values = [value for value in values if value is not None]
    return f"{np.mean(values):.2f}" if values else "-"


def pair(values) -> str:
    """Mean over targets / worst target."""
    values = [value for value in values if value is not None]
    return f"{np.mean(values):.2f}/{np.max(values):.2f}" if values else "-"


def summary(cells: dict) -> None:
    """A line per network and form, all its seeds together."""
    rows, joint = [], []
    for network in dict.fromkeys(one["network"] for one in cells.values()):
        mine = [one for one in cells.values() if one["network"] == network]
        who = f"{network} ({mine[0]['layers']}), {len(mine)} seeds"
        for name in ("raw", "corrected"):
            parts = [one["accuracy"][name] for one in mine]
            means = lambda key, parts=parts: [np.mean([row[key] for row in part]) for part in parts]
            worst = lambda key, parts=parts: max(row[key] for part in parts for row in part)
            figures = [
                f"{np.mean(means(key)):.2f} ({max(means(key)):.2f})/{worst(key):.2f}"
                for key in ("all", "kept", "found", "test_gap")
            ]
            least = min(row["distinct"] for part in parts for row in part)
            rows.append([who, name, *figures, f"{least:.3f}"])
        wishes = [row for one in mine for row in one["joint"]]
        for name in wishes[0]["methods"] if wishes else ():
            shares = [mean(_both(one["joint"], name, tight) for one in mine) for tight in BUDGETS]
            within = min(row["methods"][name]["within"] for row in wishes)
            joint.append([who, name, f"{within:.3f}", *shares])
    _common.table(
        "|accuracy - target| in points: mean over seeds (worst seed) / worst target of any seed",
        ["", "", "all 64", "8 kept", "8 found", "8 found, on test", "least distinct"],
        rows,
    )
    _common.table(
        f"accuracy within {100 * NEAR} points and a byte budget, shares of {SAMPLES}, mean over seeds",
        ["", "", "in budget, least", *(f"both, {tight}" for tight in BUDGETS)],
        joint,
    )


def show(cells: dict) -> None:
    """The tables."""
    if cells:
        summary(cells)
    rows, seen, others, joint = [], [], [], []
    for one in cells.values():
        who = f"{one['network']} ({one['layers']}), {one['seed']}"
        alone = one["accuracy"]
        for name in ("raw", "corrected"):
            got = lambda key, part=alone[name]: [row[key] for row in part]
            rows.append(
                [who, name, f"{one['range'][0]:.2f}-{one['range'][1]:.3f}"]
                + [pair(got(key)) for key in ("all", "kept", "found")]
                + [f"{np.mean(got('distinct')):.3f}", f"{np.mean(got('apart')):.2f}"]
                + [mean([one["apart_training_set"]]), f"{1e3 * alone['seconds_per_wish'][name]:.0f}"]
            )
        gap = [row["test_gap"] for row in alone["raw"]]
        seen.append(
            [
                who,
                f"{one['standard_error_selection']:.1f}",
                pair(gap),
                f"{one['standard_error_test']:.1f}",
                one["evaluations"],
                round(one["fit_seconds"]),
                one["ledger"]["evaluations"],
            ]
        )
        for name, part in alone["rivals"].items():
            others.append([who, name, *(pair([row[key] for row in part]) for key in ("all", "found"))])
        for name in one["joint"][0]["methods"] if one["joint"] else ():
            parts = [row["methods"][name] for row in one["joint"]]
            within = f"{np.mean([part['within'] for part in parts]):.3f}"
            both = [mean([_both(one["joint"], name, tight)]) for tight in BUDGETS]
            found = pair([part["found"] for part in parts])
            joint.append([who, name, len(parts), within, *both, found])
    apart = ("apart", "apart in data")
    _common.table(
        "|accuracy - target| in points, mean over targets / worst target",
        ["network (layers), seed", "", "range", "all 64", "8 kept", "8 found", "distinct", *apart, "ms"],
        rows,
    )
    _common.table(
        "standard errors (points, at the middle target), test split, cost",
        [
            "",
            "se selection",
            "found on test",
            "se test",
            "training set",
            "fit, s (last piece)",
            "other evaluations",
        ],
        seen,
    )
    _common.table(
        "the same of trivial rivals, 64 evaluations a target, every fourth target",
        ["", "", "all", "8 found"],
        others,
    )
    _common.table(
        f"accuracy within {100 * NEAR} points and a byte budget, different designs, shares of {SAMPLES}",
        ["", "", "wishes", "in budget", *(f"both, {tight}" for tight in BUDGETS), "8 found"],
        joint,
    )


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--evaluations", type=int, default=10_000, help="of the training set")
    parser.add_argument("--targets", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=40, help="of the networks' training")
    parser.add_argument("--front", action="store_true", help="the enumerable network instead")
    parser.add_argument("--show", action="store_true", help="print the tables and run nothing")
    args = parser.parse_args(arguments)
    jax.config.update("jax_num_cpu_devices", 2)  # before the first use: see evaluate_many
    if args.front:
        from benchmarks import _aqgan_front

        result = _common.read("aqgan")
        _common.write("aqgan", {**result, "front": _aqgan_front.measure(BUILD)})
        return
    if not args.show:
        for seed in args.seed:
            for network in args.network:
                key = f"{network}/{seed}/{args.evaluations}/{args.targets}"
                if key in _common.read("aqgan").get("cells", {}):
                    continue
                one = cell(network, seed, args.evaluations, args.targets, args.epochs)
                result = _common.read("aqgan")  # anew: another piece may have finished
                cells = {**result.get("cells", {}), key: one}
                _common.write("aqgan", {**result, "cells": cells})
    show(_common.read("aqgan").get("cells", {}))


if __name__ == "__main__":
    main()
