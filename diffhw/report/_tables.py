"""The tables of the report and of the command line."""

from diffhw.models import Cost
from diffhw.models._show import quantity
from diffhw.report import _content as content
from diffhw.report._grid import Table, column

__all__ = [
    "assumptions_table",
    "bounds_tables",
    "certificate_lines",
    "comparison_table",
    "cost_table",
    "energy_table",
    "evaluations_line",
    "sensitivities_table",
    "table",
]


def table(what, network=None) -> Table:
    """A readable table: per layer and total of a `Cost`, or the comparison of a `CodesignResult`.

    network: for layer names and counts of a `Cost`. The table prints as aligned text, shows itself in
    a notebook, and is what rich prints. A `Cost` of one layer or without per-layer costs has one row.
    Raises ValueError for a batch of costs (use ``jax.tree.map(lambda leaf: leaf[i], cost)``).
    """
    if isinstance(what, Cost):
        return cost_table(what, network)
    if hasattr(what, "costs") and hasattr(what, "design"):
        return comparison_table(what)
    raise ValueError(f"report.table takes a Cost or a CodesignResult, got {type(what).__name__}")


def _figures_row(cost: Cost) -> dict:
    sums = content.totals((cost,))
    return {
        "layer": "total",
        "count": None,
        "dataflow": "",
        "bound": "",
        "latency_share": 1.0,
        "energy_share": 1.0,
        "energy_parts": content.add_parts((cost,), "energy_parts"),
        **{
            key: sums[key] for key in ("cycles", "latency_s", "energy_j", "macs", "utilization", "dram_bytes")
        },
    }


def cost_table(
    cost: Cost,
    network=None,
    *,
    dataflow=None,
    bounds=None,
    roofline: Cost | None = None,
    top: int | None = None,
    title: str | None = None,
) -> Table:
    """Layers by name with the total last; ``top`` keeps the layers with the largest latency, in order."""
    import numpy as np

    if np.ndim(cost.cycles) != 0:
        raise ValueError(f"a table shows one cost, got a batch of shape {np.shape(cost.cycles)}")
    rows = []
    if cost.layers is not None:
        rows = content.layer_rows(cost, network, dataflow, bounds, roofline)
    left_out = 0
    if top is not None and len(rows) > top:
        keep = sorted(range(len(rows)), key=lambda i: -rows[i]["latency_s"])[:top]
        left_out = len(rows) - top
        rows = [rows[i] for i in sorted(keep)]
    total = _figures_row(cost)
    if roofline is not None:
        total["roofline_s"] = float(np.asarray(roofline.latency_s))
    rows.append(total)
    get = lambda key: [row[key] for row in rows]
    columns = [("layer", [_short(row["layer"]) for row in rows])]
    left = [0]
    if network is not None:
        columns.append(("runs", ["" if n is None else f"{n:g}" for n in get("count")]))
    if dataflow is not None and not isinstance(dataflow, str):
        left.append(len(columns))
        columns.append(("dataflow", get("dataflow")))
    columns += [
        column("MACs", get("macs"), "MACs"),
        column("cycles", get("cycles"), "cycles"),
        column("latency", get("latency_s"), "s"),
        column("of time", get("latency_share"), "%"),
    ]
    if roofline is not None:
        columns.append(column("roofline", get("roofline_s"), "s"))
    columns += [
        column("utilization", get("utilization"), "%"),
        column("energy", get("energy_j"), "J"),
        column("of energy", get("energy_share"), "%"),
        column("DRAM", get("dram_bytes"), "B"),
    ]
    if bounds is not None:
        left.append(len(columns))
        columns.append(("bound by", get("bound")))
    notes = [f"{left_out} more layers not shown, each shorter"] if left_out else []
    head = title or (content.network_name(network) if network is not None else "cost")
    return Table.of_columns(head, columns, left=tuple(left), marked=(len(rows) - 1,), notes=tuple(notes))


def _short(name: str, size: int = 44) -> str:
    return name if len(name) <= size else name[: size - 3] + "..."


def comparison_table(result, *, brief: bool = False) -> Table:
    """The found design among the catalogue's, all at the same node, clock, widths and DRAM.

    brief: only the columns that fit a terminal.
    """
    entries = [("found", result.design, result.costs, result.value, _over(result.figures, result.limits))]
    entries += [(r.name, r.design, r.costs, r.objective, r.over_budget) for r in result.rivals]
    sums = [content.totals(costs) for _, _, costs, _, _ in entries]
    designs = [design for _, design, _, _, _ in entries]
    ratios = [_ratio(value / result.value) for _, _, _, value, _ in entries]
    get = lambda key: [one[key] for one in sums]
    columns = [
        ("design", [name for name, *_ in entries]),
        ("rows x cols", [content.grid_text(design.hardware) for design in designs]),
        ("buffers i/w/o (KiB)", [content.buffers_text(design.hardware) for design in designs]),
        ("dataflow", [content.dataflow_word(design.dataflow) for design in designs]),
        column("cycles", get("cycles"), "cycles", like=sums[0]["cycles"]),
        column("latency", get("latency_s"), "s", like=sums[0]["latency_s"]),
        column("energy", get("energy_j"), "J", like=sums[0]["energy_j"]),
        column("EDP", get("edp_js"), "J s", like=sums[0]["edp_js"]),
        column("area", get("area_mm2"), "mm2", like=sums[0]["area_mm2"]),
        column("power", get("power_w"), "W", like=sums[0]["power_w"]),
        column("utilization", get("utilization"), "%"),
        (f"{_word(result)} / found", ratios),
        ("budget", [_verdict(over) for *_, over in entries]),
    ]
    notes = []
    if result.rivals:
        hw = result.design.hardware
        notes.append(
            f"catalogue designs brought to {float(hw.technology.node_nm):g} nm, "
            f"{float(hw.freq_hz) / 1e6:g} MHz, {float(hw.input_bits):g}-bit operands, "
            f"{content.dram_text(hw)}, each with its best single dataflow"
        )
        within = [rival for rival in result.rivals if not rival.over_budget]
        if within and result.limits:
            best = min(within, key=lambda rival: rival.objective)
            notes.append(
                f"best catalogue design within the budget: {best.name}, "
                f"{best.objective / result.value:.2f} x the {_word(result)} of the found one"
            )
        elif result.limits:
            notes.append("no catalogue design is within the budget")
    if brief:
        columns = [columns[i] for i in (0, 1, 3, 4, 6, 7, 8, 10, 11, 12)]
    names = " + ".join(content.network_name(net, i) for i, net in enumerate(result.networks))
    return Table.of_columns(
        f"{names}: the found design among the catalogue's", columns, 
        left=(0, 2, 9) if brief else (0, 3, 12), marked=(0,),
        notes=tuple(notes),
    )  # fmt: skip


def _ratio(value: float) -> str:
    return f"{value:.2f} x" if value < 100 else f"{value:,.0f} x"


def _word(result) -> str:
    return content.OBJECTIVE_WORDS[result.objective]


def _over(figures, limits) -> tuple[str, ...]:
    return tuple(key for key, limit in limits.items() if figures.get(key, 0.0) > limit)


def _verdict(over) -> str:
    return "within" if not over else "over " + ", ".join(content.limit_name(key)[0] for key in over)


def evaluations_line(result) -> str:
    """How many evaluations the search spent, and how that compares with the grid."""
    spent = float(result.search.evaluations)
    text = f"search: {spent:,.0f} evaluations"
    gradient_cost = getattr(result.search, "gradient_cost", None)
    if gradient_cost:
        text += f" (a gradient counted as {float(gradient_cost):.1f})"
    if spent:
        text += f", {result.space_size / spent:,.0f} times fewer than the {result.space_size:,} legal designs"
    if "search" in result.seconds:
        text += f", {result.seconds['search']:.1f} s"
    return text


def certificate_lines(result) -> list[str]:
    """How good the answer is, in sentences."""
    lines = [evaluations_line(result)]
    certificate, unit = result.certificate, content.OBJECTIVE_UNITS[result.objective]
    if certificate is None:
        return [*lines, "certificate: none asked for, so nothing is proved about the distance to the optimum"]
    if certificate.optimum is not None:
        best = certificate.optimum_design
        where = ""
        if best is not None:
            hw = best.hardware
            where = (
                f" ({content.grid_text(hw)}, {content.buffers_text(hw)} KiB, {content.dram_text(hw)}, "
                f"{content.dataflow_text(best.dataflow)})"
            )
        lines.append(f"certificate: {certificate.how}, {certificate.seconds:.1f} s")
        lines.append(f"optimum: {quantity(certificate.optimum, unit)}{where}")
        lines.append(f"found:   {quantity(result.value, unit)}, gap to the optimum {_gap(certificate.gap)}")
    else:
        lines.append(f"certificate: {certificate.how}, {certificate.seconds:.1f} s")
        gap = "none proved" if certificate.gap is None else f"at most {_gap(certificate.gap)}"
        lines.append(f"found: {quantity(result.value, unit)}, gap to the lower bound: {gap}")
    return lines


def _gap(gap: float) -> str:
    return f"{gap * 100:.3f} %"


def sensitivities_table(result) -> Table:
    """What +10 % of each number does to the objective."""
    rows = result.sensitivities
    plus = lambda share: f"{share * 100:+.2f}"
    return Table.of_columns(
        f"why this design: change of the {_word(result)} for +10 % of each number",
        [
            ("number", [one.name for one in rows]),
            ("now", [_value(one.value, one.unit) for one in rows]),
            ("by gradient (%)", [plus(one.by_gradient) for one in rows]),
            ("evaluated again (%)", [plus(one.by_value) for one in rows]),
        ],
        notes=(
            "by gradient: a tenth of the elasticity, steps by their surrogate slope; evaluated again: the "
            "exact model at 1.1 times the number (rows and columns at the next whole PE)",
        ),
    )


def _value(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1024:g} KiB"
    if unit == "Hz":
        return quantity(value, "Hz")
    return f"{value:.4g} {unit}"


def bounds_tables(result, top: int | None = 8) -> list[Table]:
    """Per network, the layers that take most of the time and what limits each."""
    out = []
    for i, (network, cost, bounds) in enumerate(
        zip(result.networks, result.costs, result.bounds, strict=True)
    ):
        flow = result.design.dataflow
        flow = flow if isinstance(flow, str) else flow[network.info.name]
        rows = content.layer_rows(cost, network, flow, bounds)
        rows.sort(key=lambda row: -row["latency_s"])
        shown = rows if top is None else rows[:top]
        get = lambda key, shown=shown: [row[key] for row in shown]
        share = sum(get("latency_share"))
        out.append(
            Table.of_columns(
                f"what bounds each layer: {content.network_name(network, i)}",
                [
                    ("layer", [_short(name) for name in get("layer")]),
                    ("runs", [f"{n:g}" for n in get("count")]),
                    ("dataflow", get("dataflow")),
                    column("latency", get("latency_s"), "s"),
                    column("of time", get("latency_share"), "%"),
                    column("energy", get("energy_j"), "J"),
                    column("of energy", get("energy_share"), "%"),
                    column("utilization", get("utilization"), "%"),
                    column("DRAM", get("dram_bytes"), "B"),
                    ("bound by", get("bound")),
                ],
                left=(0, 2, 9),
                notes=()
                if len(shown) == len(rows)
                else (f"{len(shown)} of {len(rows)} distinct layers, {share * 100:.0f} % of the time",),
            )
        )
    return out


_PART_NAMES = {
    "mac": "MACs",
    "registers": "PE registers",
    "sram": "SRAM",
    "wires": "wire hops",
    "l1": "L1 (beside the PEs)",
    "l2": "L2 (shared)",
    "noc": "network on chip",
    "dram": "DRAM transfers",
    "leakage": "leakage x time",
    "dram_static": "DRAM static power x time",
}


def part_name(name: str) -> str:
    """An energy part for reading."""
    return _PART_NAMES.get(name, name.replace("_", " "))


def energy_table(costs) -> Table:
    """Where the energy goes."""
    parts = sorted(content.add_parts(costs, "energy_parts").items(), key=lambda item: -item[1])
    total = sum(value for _, value in parts)
    return Table.of_columns(
        "where the energy goes",
        [
            ("part", [*(part_name(name) for name, _ in parts), "total"]),
            column("energy", [*(value * 1e-12 for _, value in parts), total * 1e-12], "J"),
            column("share", [*(value / total if total else 0.0 for _, value in parts), 1.0], "%"),
        ],
        marked=(len(parts),),
    )


def area_table(cost: Cost) -> Table:
    """Where the area goes."""
    parts = sorted(
        ((name, float(value)) for name, value in cost.area_parts.items()), key=lambda item: -item[1]
    )
    total = sum(value for _, value in parts)
    words = {"pe": "PEs", "sram": "SRAM", "noc": "neighbour links", "phy": "DRAM interface (PHY)", "l1": "L1"}
    return Table.of_columns(
        "where the area goes",
        [
            ("part", [*(words.get(name, name) for name, _ in parts), "total"]),
            column("area", [*(value for _, value in parts), total], "mm2"),
            column("share", [*(value / total if total else 0.0 for _, value in parts), 1.0], "%"),
        ],
        marked=(len(parts),),
    )


def assumptions_table(result) -> Table:
    """Every assumed number and what halving or doubling it does to the answer."""
    rows = result.assumptions

    def verdict(pair):
        share, text = pair
        return f"{share * 100:+.2f} %" + (f", then {text}" if text else ", same design")

    reasons = list(dict.fromkeys(one.why for one in rows))
    return Table.of_columns(
        "assumed numbers: the answer searched again with each halved and doubled",
        [
            ("number", [one.name for one in rows]),
            ("value", [f"{one.value:.4g} {one.unit}" for one in rows]),
            ("halved", [verdict(one.halved) for one in rows]),
            ("doubled", [verdict(one.doubled) for one in rows]),
            ("note", [f"[{reasons.index(one.why) + 1}]" for one in rows]),
        ],
        left=(0, 2, 3, 4),
        notes=tuple(f"[{i + 1}] {why}" for i, why in enumerate(reasons)),
    )
