"""``diffhw cost``: a network on given hardware."""

from diffhw._cli._errors import UserError
from diffhw._cli._runtime import emit, emit_json, start_jax

__all__ = ["run"]

_TOP_LAYERS = 12


def _design(args):
    """The `Design` that the arguments name, and what to call it. Raises ValueError."""
    from dataclasses import replace

    from diffhw import hardware, recipes
    from diffhw.mappings import Precision

    if (args.hardware is None) == (args.design is None):
        raise UserError("cost needs one of --hardware NAME|FILE and --design FILE")
    if args.design is not None:
        design, name = recipes.read_design(args.design), args.design
    else:
        hw, name = hardware.load(args.hardware), args.hardware
        design = recipes.Design(hardware=hw, precision=Precision.of(hw))
    if args.bits is not None:
        psum = float(design.precision.psum)
        design = replace(design, precision=Precision.create(weight=args.bits, input=args.bits, psum=psum))
    if args.batch is not None:
        design = replace(design, batch=args.batch)
    return design, name


def _evaluate(jax, network, design, mappings):
    """({mapping: cost}, roofline cost) in float64, leaves numpy."""
    import jax.numpy as jnp
    import numpy as np

    from diffhw.models import roofline, systolic

    with jax.enable_x64(True):
        double = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), tree)

        def every(network, hw, precision):
            costs = {name: systolic(network, hw, mapping, precision) for name, mapping in mappings.items()}
            return costs, roofline(network, hw, None, precision)

        out = jax.jit(every)(double(network), double(design.hardware), double(design.precision))
        return jax.tree.map(np.asarray, out)


def run(args) -> int:
    """The command; see ``diffhw cost --help``."""
    jax = start_jax()
    from diffhw import workloads
    from diffhw._cli._cost_dataflow import own_dataflows, run_dataflow
    from diffhw.mappings import DATAFLOWS
    from diffhw.models._show import quantity
    from diffhw.recipes._explain import bounds
    from diffhw.report import _export as export
    from diffhw.report import _tables as tables
    from diffhw.report._grid import Table, column

    if args.dataflow is not None and args.mapping is not None:
        raise UserError("cost takes --mapping (systolic array) or --dataflow (directives), not both")
    design, hardware_name = _design(args)
    if args.dataflow is None and args.mapping is None and args.design is None and own_dataflows(args.network):
        args.dataflow = args.network
    if args.dataflow is not None:
        return run_dataflow(jax, args, design, hardware_name)
    if args.plots is not None:
        raise UserError("--plots draws dataflows: give --dataflow as well")
    network = workloads.load(args.network, batch=design.batch).merged()
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
    costs, bound = _evaluate(jax, network, design, mappings)
    costs = {name: costs[name] for name in mappings}  # jit sorts the keys of a dict
    best = min(costs, key=lambda name: float(costs[name].edp))
    cost, flow = costs[best], mappings[best]
    words = bounds(network, design.hardware, flow, cost)
    if args.json:
        emit_json(
            {
                "tool": "diffhw cost",
                "hardware_name": hardware_name,
                "design": export.design_json(design),
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
