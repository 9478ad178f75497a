"""What every search returns."""

import html
import math
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jax import Array

from diffhw.search._archive import Archive, violation_of
from diffhw.search._pareto import nondominated
from diffhw.search._problem import EXACT_BATCH, MARGIN, MOST_EXACT

__all__ = ["Designs", "SearchResult", "finish", "key_of", "settle"]

_LONGEST_PATH = 5000
_SCALARS = (
    *("method", "choices", "value", "feasible", "violation", "constraint_values", "limits", "binding"),
    *("evaluations", "gradient_evaluations", "gradient_cost", "seconds", "compile_seconds"),
    *("seed", "space_size", "certified", "optimality_gap"),
)


@dataclass(frozen=True)
class Designs:
    """Some designs by index vector, with figures.

    index: (n, V) int32.  figures: (n, F) float64.  names: of the F figures.
    """

    index: np.ndarray
    figures: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, kw_only=True, repr=False)
class SearchResult:
    """The answer of a search, and how it was found.

    method:           name of the search.
    best:             the best legal design, feasible first; best_index: its index vector (V,).
    choices:          name of each variable -> its value in ``best``.
    value:            objective of ``best``, re-evaluated in float64.
    feasible:         True if every constraint is met (in float64).
    violation:        largest relative excess over a limit, 0 if feasible.
    constraint_values, limits: name -> value (float64) and limit.
    binding:          if feasible: the constraint that rules out the best design seen without constraints
                      (None if nothing does); else: the constraint that ``best`` exceeds most.
    evaluations:      designs evaluated, a gradient counted as ``gradient_cost``.
    gradient_evaluations, gradient_cost: number of gradients; time of value and gradient over value, at the
                      same batch size and form, measured in this call.
    seconds:          search time; compile_seconds and the measurement of gradient_cost come on top.
    seed, key_data:   of the key.  space_size: legal designs (int, or inf).
    certified:        True if ``optimality_gap`` is proven.
    optimality_gap:   fraction above the optimum, or None if unknown.
    pareto:           non-dominated feasible designs seen, over the metrics (without any: over the
                      objective and the constrained quantities).
    top:              the best designs seen, feasible, by objective.
    history:          arrays "evaluations", "seconds", "best" (inf before the first feasible design).
    visited:          designs on the search's way, in order (at most 5,000), with all figures.
    seen, rounds:     every design evaluated, and rounds done: with them a search resumes (``resume=result``).
    """

    method: str
    best: Any
    best_index: np.ndarray
    choices: dict[str, float | int | str]
    value: float
    feasible: bool
    violation: float
    constraint_values: dict[str, float]
    limits: dict[str, float]
    binding: str | None
    evaluations: float
    gradient_evaluations: int
    gradient_cost: float
    seconds: float
    compile_seconds: float
    seed: int
    key_data: tuple[int, ...]
    space_size: int | float
    certified: bool = False
    optimality_gap: float | None = None
    pareto: Designs | None = None
    top: Designs | None = None
    history: dict[str, np.ndarray] = field(default_factory=dict)
    visited: Designs | None = None
    seen: Designs | None = None
    rounds: int = 1

    def certified_by(self, proof: "SearchResult") -> "SearchResult":
        """This answer with its gap to the optimum that ``proof`` (a certified result) found.

        The answer itself is not replaced. Raises ValueError if ``proof`` is not certified.
        """
        if not proof.certified:
            raise ValueError(f"the {proof.method} result is not certified")
        gap = self.value / proof.value - 1.0 if self.feasible and proof.feasible else None
        return replace(self, certified=gap is not None, optimality_gap=gap)

    def figures(self) -> dict[str, Any]:
        """The scalar figures as plain Python values, for a JSON file."""
        return {name: getattr(self, name) for name in _SCALARS} | {"best_index": self.best_index.tolist()}

    def rows(self) -> list[tuple[str, str]]:
        """Label and text of each line of the table."""
        rows = [(name, _short(value)) for name, value in self.choices.items()]
        rows.append(("objective", f"{self.value:.6g}"))
        for name, limit in self.limits.items():
            note = "  (binds)" if name == self.binding else ""
            rows.append((name, f"{self.constraint_values[name]:.6g} <= {limit:g}{note}"))
        if not self.feasible:
            rows.append(
                (
                    "INFEASIBLE",
                    f"{self.binding} exceeded by at least {100 * self.violation:.3g} % in all seen",
                )
            )
        size = f"{self.space_size:,}" if isinstance(self.space_size, int) else "infinitely many"
        rows.append(("evaluations", f"{self.evaluations:,.0f} of {size} designs"))
        if self.gradient_evaluations:
            gradients = f"{self.gradient_evaluations:,}, each counted as {self.gradient_cost:.2f}"
            rows.append(("gradients", gradients))
        rows.append(("seconds", f"{self.seconds:.3f} search, {self.compile_seconds:.2f} compile"))
        if self.optimality_gap is not None:
            kind = "certified" if self.certified else "not proven"
            rows.append(("optimality gap", f"{100 * self.optimality_gap:.4f} % ({kind})"))
        return rows

    def __repr__(self) -> str:
        rows = self.rows()
        width = max(len(label) for label, _ in rows)
        lines = [f"{label:<{width}}  {text}" for label, text in rows]
        return "\n".join([f"{self.method} search, seed {self.seed}", *lines])

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(label)}</th><td>{html.escape(text)}</td></tr>"
            for label, text in self.rows()
        )
        title = f"{html.escape(self.method)} search, seed {self.seed}"
        return f"<table><caption>{title}</caption>{cells}</table>"


def _short(value) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def key_of(key: Array | int) -> Array:
    """A typed key; a seed is turned into one."""
    return jax.random.key(key) if isinstance(key, int | np.integer) else key


def settle(archive: Archive, index, objective, constrained) -> tuple[np.ndarray, float, np.ndarray, float]:
    """Decide in float64 between the designs that float32 cannot tell apart.

    index (n, V), objective (n,), constrained (n, C): designs whose float32 figures are known.
    Returns the best index vector, its objective, constrained quantities and violation in float64.
    """
    excess = np.max(constrained / archive.limits - 1.0, axis=1, initial=-1.0)
    objective = np.where(np.isfinite(objective) & ~np.isnan(excess), objective, np.inf)
    safe = np.where(excess <= -MARGIN, objective, np.inf)
    nearly = np.where(excess <= MARGIN, objective, np.inf)
    if np.isfinite(nearly.min()):
        # No safe one: every design that is nearly feasible is judged.
        bound = min(safe.min(), np.finfo(np.float64).max / 2) * (1 + MARGIN)
        close = np.flatnonzero(nearly <= bound)
        close = close[np.argsort(nearly[close], kind="stable")][:MOST_EXACT]
        close = np.unique([*close, *([safe.argmin()] if np.isfinite(safe.min()) else [])])
    else:
        close = np.argsort(np.where(np.isfinite(objective), excess, np.inf))[:EXACT_BATCH]
    value, values, _ = archive.problem.exact(index[close])
    violation = violation_of(value, values, archive.limits)
    pick = np.lexsort((*index[close].T[::-1], value, violation))[0]
    return index[close[pick]], float(value[pick]), values[pick], float(violation[pick])


def binding_of(archive: Archive, feasible, value, free_value, constrained, free_constrained) -> str | None:
    """See `SearchResult.binding`; ``free_*``: the best design seen when constraints are ignored."""
    if not archive.constraints:
        return None
    if feasible and not free_value < value * (1 - MARGIN):
        return None
    ratios = (free_constrained if feasible else constrained) / archive.limits
    worst = int(np.argmax(np.where(np.isnan(ratios), np.inf, ratios)))
    return archive.constraints[worst].name if not feasible or ratios[worst] > 1 else None


def metric_names(archive: Archive) -> tuple[str, ...]:
    """Names of the metrics, as given."""
    named = [m if isinstance(m, str) else getattr(m, "__name__", "metric") for m in archive.problem.metrics]
    return tuple(f"metric {i}" if n == "<lambda>" else n for i, n in enumerate(named))


def all_names(archive: Archive) -> tuple[str, ...]:
    """Names of all figures of a row: objective, constrained quantities, metrics."""
    return ("objective", *(one.name for one in archive.constraints), *metric_names(archive))


def finish(
    archive: Archive, method: str, key: Array | None, *, visited: np.ndarray | None = None, top: int = 16
) -> SearchResult:
    """The result of a search from its archive. visited: rows in the order of the path."""
    index, objective, constrained = archive.index, archive.objective, archive.constrained
    best, value, values, violation = settle(archive, index, objective, constrained)
    free = int(np.argmin(objective))
    feasible = violation == 0
    figures = np.concatenate([objective[:, None], constrained, archive.metrics], axis=1)
    names, c = all_names(archive), 1 + len(archive.constraints)
    axes = slice(c, None) if archive.problem.metrics else slice(0, c)
    legal = np.flatnonzero(archive.violation == 0)
    front = legal[nondominated(figures[legal, axes])]
    leaders = archive.order(legal)[:top]
    path = np.arange(0) if visited is None else visited[visited >= 0]
    if len(path) > _LONGEST_PATH:
        path = path[np.linspace(0, len(path) - 1, _LONGEST_PATH).astype(int)]
    return SearchResult(
        **shared_fields(archive, method, key),
        best=archive.space.at(best),
        best_index=best,
        choices=archive.space.labels(best),
        value=value,
        feasible=feasible,
        violation=violation,
        constraint_values={one.name: float(v) for one, v in zip(archive.constraints, values, strict=True)},
        binding=binding_of(archive, feasible, value, objective[free], values, constrained[free]),
        pareto=Designs(index[front], figures[front, axes], names[axes]),
        top=Designs(index[leaders], figures[leaders], names),
        visited=Designs(index[path], figures[path], names),
        seen=Designs(index.copy(), figures, names),
    )


def shared_fields(archive: Archive, method: str, key: Array | None) -> dict[str, Any]:
    """The fields that only tell how the search went."""
    seconds = archive.seconds
    data = () if key is None else tuple(np.asarray(jax.random.key_data(key)).ravel().tolist())
    if archive.progress is not None:
        last = archive.history["best"]
        archive.progress(archive.evaluations, archive.evaluations, float(last[-1]) if len(last) else math.inf)
    return dict(
        method=method,
        limits={one.name: one.limit for one in archive.constraints},
        evaluations=archive.evaluations,
        gradient_evaluations=archive.gradient_evaluations,
        gradient_cost=archive.gradient_cost,
        seconds=seconds,
        compile_seconds=archive.compile_seconds,
        seed=int(data[-1]) if data else 0,
        key_data=data,
        space_size=archive.space.size,
        history=archive.history,
        rounds=archive.rounds + 1,
    )
