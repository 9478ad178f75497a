"""Conditional generators: a suite of different designs for a target, without a new search.

`generator` fits one for any discrete `Space`; two families share an interface. "autoregressive" draws one
variable after the other from an explicit density and is fitted by maximum likelihood on random designs
labelled by a `Surrogate`, so it costs no evaluation beyond the surrogate's. "adversarial" is a conditional
Wasserstein GAN with gradient penalty, an auxiliary regressor and a diversity term (Kao et al., AQGAN, arXiv
2006.03968 says GAN; losses and sizes are our reconstruction).
"""

import hashlib
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffhw.search._generator_adversarial import fit_adversarial, sample_adversarial
from diffhw.search._generator_autoregressive import fit_autoregressive, sample_autoregressive
from diffhw.search._generator_pool import conditioned_pool
from diffhw.search._surrogate import Surrogate, doubted

__all__ = ["Condition", "Generator", "diversity", "generator", "load_generator"]

KINDS = ("autoregressive", "adversarial")
_FORMAT = 1


@dataclass(frozen=True)
class Condition:
    """Something asked of a design.

    name: of the metric.  kind: "target" (as near as possible) or "budget" (at most).
    table: (V, B) what each value of each variable adds to the metric, and ``base`` beside them, for metrics
    that are sums over variables (size, BOPs, energy of a layer-by-layer array); None: the surrogate predicts
    it. Budgets need a table: then no design over the budget is ever drawn.
    """

    name: str
    kind: str = "target"
    table: np.ndarray | None = None
    base: float = 0.0

    def value(self, indices: np.ndarray) -> np.ndarray:
        """Exact metric of index vectors (..., V), from the table."""
        if self.table is None:
            raise ValueError(f"{self.name} has no table: evaluate it")
        table = np.asarray(self.table, np.float64)
        return self.base + table[np.arange(len(table)), np.asarray(indices)].sum(axis=-1)


@dataclass(frozen=True)
class Generator:
    """A fitted generator; `sample` draws, `save` and `load_generator` keep it.

    sizes: legal values per variable.  conditions: with low, high: range of each that the generator has seen.
    history: (step, loss) of the fit.  seconds: of the fit.
    """

    kind: str
    sizes: tuple[int, ...]
    conditions: tuple[Condition, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    params: dict
    surrogate: Surrogate
    names: tuple[str, ...] = ()
    history: tuple[tuple[int, float], ...] = ()
    seconds: float = 0.0
    notes: dict = field(default_factory=dict)

    def _asked(self, wanted: Mapping[str, float | None]) -> tuple[np.ndarray, np.ndarray]:
        known = [one.name for one in self.conditions]
        for name in wanted:
            if name not in known:
                raise ValueError(f"the generator knows no condition {name!r}: it knows {', '.join(known)}")
        values, mask = np.zeros(len(known)), np.zeros(len(known))
        for i, (one, low, high) in enumerate(zip(self.conditions, self.low, self.high, strict=True)):
            asked = wanted.get(one.name)
            if asked is None:
                continue
            least = self.least(one) if one.kind == "budget" else low
            if not least <= asked or (one.kind == "target" and asked > high):
                reach = f"from {least:.6g}" + (f" to {high:.6g}" if one.kind == "target" else " up")
                raise ValueError(f"{one.name} {asked:.6g} is out of reach: designs have it {reach}")
            values[i], mask[i] = (min(asked, high) - low) / (high - low), 1.0
        return values, mask

    def least(self, condition: Condition) -> float:
        """Least value of a metric with a table."""
        table = np.asarray(condition.table, np.float64)
        rows = [row[:size].min() for row, size in zip(table, self.sizes, strict=True)]
        return condition.base + float(sum(rows))

    def sample(
        self, key: Array, wanted: Mapping[str, float | None], n: int = 64, temperature: float = 1.0
    ) -> np.ndarray:
        """``n`` index vectors, (n, V) int32, for the wanted metrics; what is left out, or None, is free.

        temperature: below 1 draws nearer to the likeliest designs ("autoregressive").
        Budgets with a table are kept by every design drawn from "autoregressive": what would break them is
        never drawn. Raises ValueError for an unknown condition or one out of reach (the range is named).
        """
        values, mask = self._asked(wanted)
        limits, tables = self._budgets(wanted)
        draw = {"autoregressive": sample_autoregressive, "adversarial": sample_adversarial}[self.kind]
        found = draw(self.params, self.sizes, key, values, mask, limits, tables, n, temperature)
        return np.asarray(found)

    def _budgets(self, wanted: Mapping[str, float | None]) -> tuple[np.ndarray, np.ndarray]:
        """Room left above the base (K,), tables (K, V, B), of all budgets; inf where nothing is asked."""
        widest = max(self.sizes)
        limits, tables = [], []
        for one in self.conditions:
            if one.kind == "budget":
                asked = wanted.get(one.name)
                limits.append(math.inf if asked is None else asked - one.base)
                tables.append(np.asarray(one.table, np.float64)[:, :widest])
        shape = (0, len(self.sizes), widest)
        return np.array(limits), np.stack(tables) if tables else np.zeros(shape)

    def predict(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Metrics of index vectors (n, V): by the table where there is one, else by the surrogate."""
        guessed = self.surrogate.predict(indices)
        found = {name: guessed[..., i] for i, name in enumerate(self.surrogate.names)}
        return found | {one.name: one.value(indices) for one in self.conditions if one.table is not None}

    def correct(
        self,
        key: Array,
        indices: np.ndarray,
        wanted: Mapping[str, float | None],
        rounds: int = 2,
        best: int = 4,
    ) -> np.ndarray:
        """Each design moved in one variable, to one of the ``best`` changes by the surrogate; no evaluation.

        Only where it brings the target nearer and breaks no budget.
        """
        targets = [
            one for one in self.conditions if one.kind == "target" and wanted.get(one.name) is not None
        ]
        here = np.asarray(indices)
        if not targets:
            return here
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
        moves = [(v, b) for v, size in enumerate(self.sizes) for b in range(size)]
        for _ in range(rounds):
            tries = np.repeat(here[:, None, :], len(moves) + 1, axis=1)
            for m, (v, b) in enumerate(moves):
                tries[:, m + 1, v] = b
            miss = self.miss(tries, wanted)
            order = np.argsort(miss, axis=1)[:, :best]
            pick = order[np.arange(len(here)), rng.integers(0, best, len(here))]
            better = miss[np.arange(len(here)), pick] < miss[:, 0]
            here = np.where(better[:, None], tries[np.arange(len(here)), pick], here)
        return here

    def miss(self, indices: np.ndarray, wanted: Mapping[str, float | None]) -> np.ndarray:
        """Expected distance from all targets, in their units; inf beyond a budget. (..., V) to (..).

        By prediction, and larger where the members of the surrogate differ.
        """
        indices = np.asarray(indices)
        each = self.surrogate.predict_each(indices)
        total = np.zeros(indices.shape[:-1])
        for one in self.conditions:
            asked = wanted.get(one.name)
            if asked is None:
                continue
            if one.kind == "budget":
                total = np.where(one.value(indices) > asked * (1 + 1e-9), np.inf, total)
            elif one.table is not None:
                total = total + np.abs(one.value(indices) - asked)
            else:
                place = self.surrogate.names.index(one.name)
                total = total + doubted(each[..., place], np.full(total.shape, float(asked)))
        return total

    def save(self, path: str | Path) -> None:
        """One file with a checksum; `load_generator` reads it."""
        leaves, structure = jax.tree.flatten((self.params, self.surrogate.params))
        del structure
        head = {
            "format": _FORMAT,
            "kind": self.kind,
            "sizes": self.sizes,
            "names": self.names,
            "low": self.low,
            "high": self.high,
            "conditions": [
                {"name": c.name, "kind": c.kind, "base": c.base, "table": None if c.table is None else i}
                for i, c in enumerate(self.conditions)
            ],
            "surrogate": {
                "low": np.asarray(self.surrogate.low, float).tolist(),
                "high": np.asarray(self.surrogate.high, float).tolist(),
                "sizes": self.surrogate.sizes,
                "names": self.surrogate.names,
            },
            "paths": _paths((self.params, self.surrogate.params)),
            "history": self.history,
            "seconds": self.seconds,
            "notes": self.notes,
        }
        arrays: dict = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
        arrays["head"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
        arrays |= {f"table{i}": c.table for i, c in enumerate(self.conditions) if c.table is not None}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        body = buffer.getvalue()
        path = Path(path)
        part = path.with_name(path.name + ".part")
        part.write_bytes(hashlib.sha256(body).digest() + body)
        part.replace(path)


def _paths(tree) -> list[str]:
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


def load_generator(path: str | Path, sizes: Sequence[int] | None = None) -> Generator:
    """A generator that `Generator.save` wrote.

    sizes: legal values per variable that the caller expects. Raises ValueError (one sentence) for a file
    that is not there, is damaged, is of another format, or was made for other variables.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(data) < 64 or hashlib.sha256(data[32:]).digest() != data[:32]:
        raise ValueError(f"{path}: is damaged or no generator (its checksum does not match); fit it again")
    with np.load(io.BytesIO(data[32:])) as stored:
        head = json.loads(bytes(stored["head"]))
        if head["format"] != _FORMAT:
            raise ValueError(f"{path}: has format {head['format']}, this version reads {_FORMAT}")
        leaves = [stored[f"leaf{i}"] for i in range(len(head["paths"]))]
        conditions = tuple(
            Condition(
                c["name"], c["kind"], None if c["table"] is None else stored[f"table{c['table']}"], c["base"]
            )
            for c in head["conditions"]
        )
    if sizes is not None and tuple(sizes) != tuple(head["sizes"]):
        raise ValueError(
            f"{path}: was made for {len(head['sizes'])} variables of sizes {head['sizes'][:4]}..., "
            f"not for these {len(sizes)} of sizes {list(sizes)[:4]}..."
        )
    params, members = _from_paths(head["paths"], leaves)
    surrogate = Surrogate(
        params=members,
        low=jnp.asarray(head["surrogate"]["low"], float),
        high=jnp.asarray(head["surrogate"]["high"], float),
        sizes=tuple(head["surrogate"]["sizes"]),
        names=tuple(head["surrogate"]["names"]),
    )
    return Generator(
        kind=head["kind"],
        sizes=tuple(head["sizes"]),
        conditions=conditions,
        low=tuple(head["low"]),
        high=tuple(head["high"]),
        params=params,
        surrogate=surrogate,
        names=tuple(head["names"]),
        history=tuple((int(s), float(v)) for s, v in head["history"]),
        seconds=head["seconds"],
        notes=head["notes"],
    )


def _from_paths(paths: list[str], leaves: list[np.ndarray]) -> tuple[dict, dict]:
    """Two trees of nested dicts from paths such as "[0]['w1']"."""
    trees: tuple[dict, dict] = ({}, {})
    for path, leaf in zip(paths, leaves, strict=True):
        first, *keys = path.replace("]", "").split("[")[1:]
        place = trees[int(first)]
        for key in keys[:-1]:
            place = place.setdefault(key.strip("'"), {})
        place[keys[-1].strip("'")] = jnp.asarray(leaf)
    return trees


def diversity(indices: np.ndarray) -> tuple[float, float]:
    """(distinct share, mean |difference| per variable over pairs) of designs (n, V).

    Look at both: a collapsed suite can still have a large mean distance.
    """
    indices = np.asarray(indices)
    distinct = len(np.unique(indices, axis=0)) / len(indices)
    pairs = np.abs(indices[:, None, :] - indices[None, :, :]).mean(axis=-1)
    n = len(indices)
    return distinct, float(pairs.sum() / max(n * (n - 1), 1))


def generator(
    surrogate: Surrogate,
    conditions: Sequence[Condition],
    key: Array,
    *,
    kind: str = "autoregressive",
    pool: int = 100_000,
    steps: int = 2500,
    polish: int = 600,
    hidden: int = 128,
    known: np.ndarray | None = None,
    names: Sequence[str] = (),
    resume: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Generator:
    """Fits a conditional generator; no design is evaluated beyond those that the surrogate has seen.

    surrogate: predicts every target.  conditions: metrics that may be asked for, alone or together.
    kind: "autoregressive" or "adversarial" (module docstring).  pool: random and guided designs labelled by
    the surrogate and by tables.  steps: of the fit.  polish: steps of policy gradient afterwards, on
    -|predicted - asked| with an entropy bonus ("autoregressive").  known: designs (N, V) to add to the pool.
    resume: file in which the fit is kept every few hundred steps, and from which it goes on.
    progress: called with the phase, steps done and in all.
    Raises ValueError for an unknown kind, a target that the surrogate lacks, a budget without a table.
    """
    import time

    begin = time.perf_counter()
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    conditions = tuple(
        one if one.table is None else replace(one, table=np.asarray(one.table, np.float64))
        for one in conditions
    )
    if not conditions:
        raise ValueError("a generator needs at least one condition")
    for one in conditions:
        if one.kind not in ("target", "budget"):
            raise ValueError(f"{one.name}: kind must be target or budget, got {one.kind!r}")
        if one.table is None and (one.kind == "budget" or one.name not in surrogate.names):
            raise ValueError(
                f"{one.name}: a {one.kind} needs a table of what each value adds"
                + ("" if one.kind == "budget" else f", or a surrogate that predicts it ({surrogate.names})")
            )
        if one.table is not None and one.table.shape != (len(surrogate.sizes), max(surrogate.sizes)):
            raise ValueError(
                f"{one.name}: the table must have shape {(len(surrogate.sizes), max(surrogate.sizes))}, "
                f"got {one.table.shape}"
            )
    draw, fit = jax.random.split(key)
    told = None if progress is None else progress
    designs, labels = conditioned_pool(surrogate, conditions, draw, pool, known, told)
    low, high = labels.min(axis=0), labels.max(axis=0)
    for i, one in enumerate(conditions):
        if one.table is None:  # predictions fall short of the ends that were really seen
            ends = surrogate.seen(one.name)
            low[i], high[i] = min(low[i], ends[0]), max(high[i], ends[1])
    high = np.maximum(high, low + 1e-9)
    unit = (labels - low) / (high - low)
    budgets = tuple(one.kind == "budget" for one in conditions)
    fitted = {"autoregressive": fit_autoregressive, "adversarial": fit_adversarial}[kind]
    params, history = fitted(
        surrogate, conditions, budgets, designs, unit, (low, high), fit, steps, polish, hidden, resume, told
    )
    return Generator(
        kind=kind,
        sizes=surrogate.sizes,
        conditions=conditions,
        low=tuple(map(float, low)),
        high=tuple(map(float, high)),
        params=params,
        surrogate=surrogate,
        names=tuple(names),
        history=tuple(history),
        seconds=time.perf_counter() - begin,
    )
