"""A sweep: millions to billions of designs of a space on one or several networks, every figure exact."""

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffhw
from diffhw import search, workloads
from diffhw._files.documents import nearest
from diffhw.mappings import DATAFLOWS, STYLES
from diffhw.recipes._space_file import LIMITS, MODELS, NamedSpace, SpaceFile, read_space
from diffhw.recipes._sweep_models import (
    METRICS,
    bare,
    combined,
    dataflow_costs,
    free_mapping,
    given_mappings,
    systolic_costs,
)
from diffhw.spaces import Choice, Space, Variable
from diffhw.workloads import Network

__all__ = ["METRICS", "SweepProblem", "metric_name", "run_sweep", "sweep", "sweep_problem"]

_SHORT = {"latency": "latency_s", "energy": "energy_pj", "area": "area_mm2", "power": "power_w"}
_COMBINE = ("sum", "worst")
_ROWS = 256  # designs costed in float64 at once: always as many, so that nothing is compiled twice


def metric_name(name: str) -> str:
    """One of `METRICS`; "latency" is short for "latency_s" and so on. Raises ValueError with the nearest."""
    if name in METRICS:
        return name
    if name in _SHORT:
        return _SHORT[name]
    raise ValueError(f"no figure is called {name!r}{nearest(name, METRICS)}")


@dataclass(frozen=True, eq=False)
class SweepProblem:
    """A space and what each design in it costs: for `search.sweep`, or for any other search.

    space:    decodes to {"hardware": ..., "dataflow" or "mapping" where they vary}.
    evaluate: one design -> {name of `METRICS` or "feasible": value of shape ()}. jit, vmap, grad.
    excess:   one design -> {limit: figure / limit - 1, ..., "fit": how far it is from what its own buffers
        and array allow}; shape (), feasible where all are <= 0.
    build:    ``design["hardware"]`` -> what the model takes (`Accelerator` or `Hierarchy`).
    identity: what makes the sweep this one; plain numbers and strings.
    networks: merged.  base_name: for people.  limits: {"area_mm2": 10.0}.
    dataflow: where it is fixed.  layer: whose mappings vary.
    """

    model: str
    space: Space
    evaluate: Callable[[Any], dict[str, Any]]
    excess: Callable[[Any], dict[str, Any]]
    build: Callable[[Any], Any]
    identity: dict[str, Any]
    networks: tuple[Network, ...]
    base_name: str
    limits: dict[str, float]
    dataflow: str | None = None
    layer: str | None = None

    @functools.cached_property
    def _priced(self) -> Callable:
        """The figures of `_ROWS` designs, from the values of their variables: one program for all designs.

        On CPU without XLA's fusion: so few rows need none, and compiling takes half as long (the dataflow
        model: 5.2 s instead of 11.1 s).
        """
        plain = {"xla_disable_hlo_passes": "fusion"} if jax.default_backend() == "cpu" else None
        one = lambda values: self.evaluate(self.space.fill(values))
        return jax.jit(jax.vmap(one), compiler_options=plain)

    def exact(self, index) -> dict[str, np.ndarray]:
        """`METRICS` and "feasible" in float64 of designs by index vector, (n, V) -> each (n,)."""
        index = np.atleast_2d(np.asarray(index, np.int32))
        parts = []
        with jax.enable_x64(True):
            for begin in range(0, len(index), _ROWS):
                rows = index[begin : begin + _ROWS]
                padded = np.concatenate([rows, np.repeat(rows[:1], _ROWS - len(rows), axis=0)])
                found = self._priced([_values(slot, at) for slot, at in zip(self.space.variables, padded.T)])
                parts.append({name: np.asarray(value)[: len(rows)] for name, value in found.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _values(slot, places: np.ndarray):
    """Values of a variable at (n,) places, leaves (n, ...)."""
    once, back = np.unique(places, return_inverse=True)
    values = [slot.variable.at(int(i)) for i in once]
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves])[back], *values)


def sweep(networks, space, *, out: Path | str | None = None, **options) -> "search.SweepResult":
    """Evaluate the designs of a space, keep the best and the Pareto set, and lose nothing in a kill.

    networks, space: as for `sweep_problem`.  out: folder of the sweep (None: nothing is written); the same
    call goes on there where it stopped, another one is refused.
    options: those of `sweep_problem` (model, constraints, combine, ...) and of `run_sweep` (objective,
    budget, order, top_k, pareto, record, ...). Raises ValueError for a bad argument.
    """
    keys = tuple(inspect.signature(sweep_problem).parameters)
    known = {*keys, *inspect.signature(run_sweep).parameters}
    for name in options:
        if name not in known:
            raise ValueError(f"sweep has no option {name!r}{nearest(name, sorted(known))}")
    made = sweep_problem(networks, space, **{k: options.pop(k) for k in keys if k in options})
    return run_sweep(made, out=out, **options)


def run_sweep(
    problem: SweepProblem,
    *,
    objective: str = "edp",
    budget: int | None = None,
    order: str | None = None,
    top_k: int = 10,
    pareto: Sequence[str] = ("latency_s", "energy_pj", "area_mm2"),
    record: bool | Sequence[str] = False,
    out: Path | str | None = None,
    seed: int = 0,
    **engine,
) -> "search.SweepResult":
    """`search.sweep` of a problem, with its identity.

    objective, pareto: names of `METRICS`, all made small.
    budget: designs to visit, None for all.  order: "enumerate", "random" or "low-discrepancy"; default:
        enumerate if every design is visited, else random.
    record: True for every figure of every design (Parquet, needs pyarrow), or names of some.
    out, seed, top_k and what else ``engine`` says (chunk, block, host, claim_seconds, progress): see
        `search.sweep`.
    """
    everything = budget is None or budget >= problem.space.size
    if order is None:
        order = "enumerate" if everything else "random"
    return search.sweep(
        problem.evaluate,
        problem.space,
        out=out,
        objective=metric_name(objective),
        order=order,
        budget=None if everything and order == "enumerate" else budget,
        seed=seed,
        top_k=top_k,
        pareto=tuple(metric_name(name) for name in pareto),
        record=record if isinstance(record, bool) else tuple(metric_name(name) for name in record),
        identity=problem.identity,
        **engine,
    )


def sweep_problem(
    networks,
    space,
    *,
    model: str | None = None,
    combine: str = "sum",
    constraints: Mapping[str, float] | None = None,
    dataflow: str | None = None,
    layer: str | None = None,
    mapping: Path | str | None = None,
    batch: int = 1,
) -> SweepProblem:
    """The space and the cost of one design of it.

    networks: a source for `workloads.load`, or several.
    space: a space.yaml (`read_space`), or a `Space` over an `Accelerator`, over {"hardware": accelerator,
        "dataflow": Choice} or, for the loop-nest model, over a `Hierarchy`.
    model: "systolic" (default), "dataflow" or "loopnest".
    combine: of several networks: "sum" (one after the other) or "worst" (the largest figure of any).
    constraints: limits beside those of the file: area_mm2, power_w, latency_s, energy_pj.
    dataflow: a systolic dataflow or a style where it is no variable (default: the base's own).
    layer, mapping: of the loop-nest model: the layer whose mappings are swept together with the hardware,
        or Timeloop mapping files for all layers (a file or a folder).

    Raises ValueError for a bad argument or file.
    """
    if combine not in _COMBINE:
        raise ValueError(f"combine must be {' or '.join(_COMBINE)}, got {combine!r}")
    file = space if isinstance(space, SpaceFile) else None
    if isinstance(space, Space):
        file = _from_space(space, model or "systolic")
    elif file is None:
        file = read_space(space, model)
    single = isinstance(networks, str | Path | Network) or callable(networks)
    sources = [networks] if single else list(networks)
    if not sources:
        raise ValueError("a sweep needs at least one network, got none")
    loaded = tuple(workloads.load(source, batch=batch).merged() for source in sources)
    limits = dict(file.limits)
    for name, limit in (constraints or {}).items():
        if name not in LIMITS:
            raise ValueError(f"no limit is called {name!r}{nearest(name, LIMITS)}")
        limits[name] = min(float(limit), limits.get(name, np.inf))
    template, costs, named, layer = _costs(file, loaded, dataflow, layer, mapping)

    def evaluate(design) -> dict[str, Any]:
        figures = combined(costs(design), combine)
        for name, limit in limits.items():
            figures["feasible"] = figures["feasible"] * (figures[name] <= limit)
        return figures

    def excess(design) -> dict[str, Any]:
        found = costs(design)
        figures = combined(found, combine)
        over = {name: figures[name] / limit - 1 for name, limit in limits.items()}
        worst = functools.reduce(jnp.maximum, [cost.violation for cost in found])
        # Infeasible for a reason that has no size (a style that needs more PEs): farther than any limit.
        return over | {"fit": jnp.where((figures["feasible"] < 1) & (worst <= 0), jnp.inf, worst)}

    is_variable = lambda node: isinstance(node, Variable)
    if not any(map(is_variable, jax.tree.leaves(template, is_leaf=is_variable))):
        raise ValueError(f"{file.path} names no number that is to be chosen (variables)")
    whole = NamedSpace(template)
    given = mapping if mapping is not None else file.mapping
    return SweepProblem(
        model=file.model,
        space=whole,
        evaluate=evaluate,
        excess=excess,
        build=file.build,
        identity={
            "model": file.model,
            "networks": {network.info.name: _network_text(network) for network in loaded},
            "batch": batch,
            "combine": combine,
            "constraints": limits,
            "dataflow": named or file.spread,
            "layer": layer,
            "mapping": None if given is None else _digest_files(Path(given)),
            "base": _base_text(file),
            "options": {
                slot.name: _options_text(slot.variable)
                for slot in whole.variables
                if isinstance(slot.variable, Choice)
            },
            "code": _digest_code(),
        },
        networks=loaded,
        base_name=file.base_name,
        limits=limits,
        dataflow=named,
        layer=layer,
    )


def _costs(file: SpaceFile, networks, dataflow, layer, mapping):
    """(template, costs of a design, fixed dataflow or None, layer or None)."""
    template = file.template
    if file.model == "loopnest":
        if dataflow is not None:
            raise ValueError(
                "dataflow is for the systolic and the dataflow model, the model here is loopnest"
            )
        path = file.mapping if mapping is None else Path(mapping)
        if path is not None:
            return template, given_mappings(networks, template, file.build, path), None, None
        if len(networks) > 1:
            raise ValueError(f"mappings of one layer of one network are swept, got {len(networks)} networks")
        template, layer, costs = free_mapping(networks[0], template, file.build, layer or file.layer)
        return template, costs, None, layer
    if layer is not None or mapping is not None:
        raise ValueError(f"layer and mapping are for the loopnest model, the model here is {file.model}")
    known = DATAFLOWS if file.model == "systolic" else tuple(STYLES)
    if "dataflow" in template:
        if dataflow is not None:
            raise ValueError("dataflow is a variable of the space already")
        names = template["dataflow"].names
    else:
        dataflow = dataflow or file.dataflow
        if dataflow is None:
            raise ValueError(
                f"{file.path} needs a dataflow, as a variable or fixed; known: {', '.join(known)}"
            )
        if dataflow not in known:
            raise ValueError(f"dataflow must be one of {', '.join(known)}, got {dataflow!r}")
        names = (dataflow,)
    if file.model == "systolic":
        return template, systolic_costs(networks, file.build, dataflow), dataflow, None
    return template, dataflow_costs(networks, template, file.build, names), dataflow, None


def _from_space(space: Space, model: str) -> SpaceFile:
    """A `Space` made in Python as what a file would say."""
    if model not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {model!r}")
    template = space.template
    if not isinstance(template, dict):
        template = {"hardware": template}
    unknown = set(template) - {"hardware", "dataflow"}
    if unknown or "hardware" not in template:
        raise ValueError(
            "a space for a sweep is over hardware, or over {'hardware': ..., 'dataflow': Choice(...)}, "
            f"got the keys {', '.join(map(str, template))}"
        )
    if not isinstance(template.get("dataflow", Choice(DATAFLOWS)), Choice):
        raise ValueError(f"dataflow must be a Choice of names, got {template['dataflow']!r}")
    return SpaceFile(
        path=Path("the space"),
        model=model,
        base_name="a design of your own",
        template=template,
        base=template["hardware"],
        build=lambda hardware: hardware,
        dataflow="ws" if model == "systolic" and "dataflow" not in template else None,
    )


# What makes a sweep this one ------------------------------------------------------------------


def _digest(*parts) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def _base_text(file: SpaceFile) -> str:
    """What a design's numbers do not say: what levels keep, which loops may be spread."""
    is_variable = lambda node: isinstance(node, Variable)
    shape = jax.tree.structure(file.base, is_leaf=is_variable)
    named = file.base_name if Path(file.base_name).suffix == "" else "a file"
    return f"{named} [{_digest(str(shape))}]"


def _options_text(choice: Choice) -> str:
    """Names, and a digest of the numbers behind them."""
    leaves = [jax.tree.leaves(choice.at(i)) for i in range(choice.size)]
    numbers = [[np.asarray(leaf, np.float64).tolist() for leaf in option] for option in leaves]
    return f"{', '.join(choice.names)} [{_digest(numbers)}]"


def _network_text(network: Network) -> str:
    """Layers, MACs, and a digest of every number of every layer."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(bare(network)):
        digest.update(np.asarray(leaf, np.float64).tobytes())
    return f"{network.size} layers, {float(network.macs):.6g} MACs [{digest.hexdigest()[:12]}]"


def _digest_files(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path.glob("*.yaml")) if path.is_dir() else [path]:
        digest.update(file.name.encode() + file.read_bytes())
    return f"{path.name} [{digest.hexdigest()[:12]}]"


def _digest_code() -> str:
    """Of everything a figure depends on: models, hardware, mappings, variables, numerics, and the sweep."""
    root = Path(diffhw.__file__).parent
    rooms = ("hardware", "mappings", "models", "spaces", "recipes/_sweep*", "search/_sweep*", "numerics.py")
    digest = hashlib.sha256()
    for room in rooms:
        for file in sorted(root.glob(room if room.endswith((".py", "*")) else f"{room}/*.py")):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:12]
