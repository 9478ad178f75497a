"""``diffhw cost``: a network on given hardware."""

from diffhw._cli._errors import UserError
from diffhw._cli._runtime import compute_once, emit, emit_json, start_jax

__all__ = ["run"]

_TOP_LAYERS = 12


def _hardware(args):
    """(hardware, precision, batch, dataflow or None, name) that the arguments name. Raises ValueError."""
    from diffhw import hardware
    from diffhw.mappings import Precision

    if (args.hardware is None) == (args.design is None):
        raise UserError("cost needs one of --hardware NAME|FILE and --design FILE")
    if args.design is not None:
        from diffhw.recipes import read_design

        design, name = read_design(args.design), args.design
    else:
        design, name = None, args.hardware
    hw = hardware.load(args.hardware) if design is None else design.hardware
    precision = Precision.of(hw) if design is None else design.precision
    if args.bits is not None:
        precision = Precision.create(weight=args.bits, input=args.bits, psum=float(precision.psum))
    batch = args.batch or (1 if design is None else design.batch)
    return hw, precision, batch, design, name


def _evaluate(jax, network, hw, precision, mappings):
    """({mapping: cost}, the roofline's cycles as a cost) in float64, leaves numpy."""
    from dataclasses import replace

    import jax.numpy as jnp
    import numpy as np

    from diffhw.mappings import DATAFLOWS
    from diffhw.models import roofline, systolic
    from diffhw.models._network import folded

    with jax.enable_x64(True):
        double = lambda tree: jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)
        inputs = double((network, hw, precision))
        rows = inputs[0].mask.shape[0]
        # The layers once per dataflow, chosen as data: one compiled body for all. Sums over layers on the
        # host: in the program they would take two thirds of its compile time.
        own = [np.eye(3)[[DATAFLOWS.index(flow) for flow in _per_row(m, rows)]] for m in mappings.values()]
        again = lambda leaf: np.concatenate([leaf] * len(own)) if np.ndim(leaf) else leaf

        def by_layer(network, hw, precision, many, flows):
            costs = systolic(many, hw, flows, precision, one_hot=True).layers
            bound = roofline(network, hw, None, precision).by_layer()
            nothing = jax.tree.map(jnp.zeros_like, bound)  # of the bound, latency and energy are shown
            known = dict(cycles=bound.cycles, energy_pj=bound.energy_pj, freq_hz=bound.freq_hz)
            return costs, replace(nothing, **known)

        many = jax.tree.map(again, inputs[0])
        costs, bound = compute_once(jax, by_layer, *inputs, many, np.concatenate(own))
        total = lambda each: replace(folded(each), layers=each)
        part = lambda i: jax.tree.map(lambda leaf: leaf[i * rows : (i + 1) * rows], costs)
        return {name: total(part(i)) for i, name in enumerate(mappings)}, total(bound)


def _per_row(mapping, rows: int) -> list[str]:
    """A dataflow per padded row."""
    return [mapping] * rows if isinstance(mapping, str) else [*mapping] + ["os"] * (rows - len(mapping))


def _as_design(design, hw, precision, batch):
    """The `Design` read from a file with what the arguments changed, or one of the hardware alone."""
    from dataclasses import replace

    from diffhw.recipes import Design

    if design is None:
        return Design(hardware=hw, precision=precision, batch=batch)
    return replace(design, precision=precision, batch=batch)


def run(args) -> int:
    """The command; see ``diffhw cost --help``."""
    jax = start_jax()
    from concurrent.futures import ThreadPoolExecutor

    from diffhw import workloads
    from diffhw._cli._cost_dataflow import own_dataflows, run_dataflow
    from diffhw.mappings import DATAFLOWS

    if args.dataflow is not None and args.mapping is not None:
        raise UserError("cost takes --mapping (systolic array) or --dataflow (directives), not both")
    hw, precision, batch, design, hardware_name = _hardware(args)
    if args.dataflow is None and args.mapping is None and args.design is None and own_dataflows(args.network):
        args.dataflow = args.network
    if args.dataflow is not None:
        return run_dataflow(jax, args, _as_design(design, hw, precision, batch), hardware_name)
    if args.plots is not None:
        raise UserError("--plots draws dataflows: give --dataflow as well")
    network = workloads.load(args.network, batch=batch).merged()
    mapping = args.mapping or ("best" if args.design is None else "design")
    if mapping == "best":
        mappings = {name: name for name in DATAFLOWS}
    elif mapping == "design":
        own = design.mapping_of(network.info.name)
        if not isinstance(own, str) and len(own) != network.size:
            raise UserError(
                f"{args.design} has {len(own)} dataflows for {network.info.name}, which has {network.size} "
                "distinct layers; give --mapping"
            )
        mappings = {own if isinstance(own, str) else "per layer": own}
    else:
        mappings = {mapping: mapping}
    with ThreadPoolExecutor(1) as pool:  # what prints is imported while XLA compiles
        task = pool.submit(_evaluate, jax, network, hw, precision, mappings)
        from diffhw.models._bounds import bounds
        from diffhw.models._show import quantity
        from diffhw.report import _export as export
        from diffhw.report import _tables as tables
        from diffhw.report._grid import Table, column

        costs, bound = task.result()
    best = min(costs, key=lambda name: float(costs[name].edp))
    cost, flow = costs[best], mappings[best]
    words = bounds(network, hw, flow, cost)
    if args.json:
        emit_json(
            {
                "tool": "diffhw cost",
                "hardware_name": hardware_name,
                "design": export.design_json(_as_design(design, hw, precision, batch)),
                "mapping": best,
                "per_mapping": {
                    name: export.cost_json(one, network, layers=False) for name, one in costs.items()
                },
                **export.cost_json(cost, network, flow, words, bound),
            }
        )
        return 0
    network_name = network.info.name
    title = f"{network_name} on {hardware_name}, dataflow {best}" + (
        " (the best of the three by EDP)" if mapping == "best" else ""
    )
    if float(cost.feasible) < 1:
        short = f"{100 * float(cost.violation):.3g} %"
        title += f"; NOT FEASIBLE: a buffer is too small by {short} for the array's edge"
    top = None if args.layers else _TOP_LAYERS
    emit(
        tables.cost_table(cost, network, dataflow=flow, bounds=words, roofline=bound, top=top, title=title),
        "",
    )
    if len(costs) > 1:
        one = list(costs.values())
        emit(
            Table.of_columns(
                "dataflows",
                [
                    ("dataflow", list(costs)),
                    column("latency", [float(c.latency_s) for c in one], "s"),
                    column("energy", [float(c.energy_j) for c in one], "J"),
                    column("EDP", [float(c.edp) for c in one], "J s"),
                    column("utilization", [float(c.utilization) for c in one], "%"),
                    column("DRAM", [float(c.dram_bytes) for c in one], "B"),
                ],
                marked=(list(costs).index(best),),
            ),
            "",
        )
    emit(tables.energy_table((cost,)), "", tables.area_table(cost), "")
    emit(
        f"total: latency {quantity(float(cost.latency_s), 's')} ({quantity(float(cost.cycles), 'cycles')}), "
        f"energy {quantity(float(cost.energy_j), 'J')}, EDP {quantity(float(cost.edp), 'J s')}, "
        f"area {quantity(float(cost.area_mm2), 'mm2')}, power {quantity(float(cost.power_w), 'W')}, "
        f"utilization {quantity(float(cost.utilization), '%')}; no mapping can be faster than "
        f"{quantity(float(bound.latency_s), 's')} (roofline)"
    )
    return 0
