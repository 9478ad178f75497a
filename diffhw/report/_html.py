"""The HTML report: one file that opens without a network, in light and dark, wide and narrow."""

import base64
import re
import shlex
from pathlib import Path

from diffhw.models._show import quantity
from diffhw.report import _content as content
from diffhw.report import _tables as tables
from diffhw.report._bars import breakdown, tornado
from diffhw.report._figure import svg
from diffhw.report._grid import Table
from diffhw.report._plots import convergence, pareto, roofline

__all__ = ["command_line", "html"]

_OPTIONS = (
    ("objective", "edp"),
    ("hardware", None),
    ("bits", 8),
    ("batch", 1),
    ("node_nm", 22.0),
    ("freq_mhz", 1000.0),
    ("dram", "auto"),
    ("seed", 0),
)


def command_line(config: dict) -> str:
    """The ``diffhw codesign`` command that repeats a run, defaults left out."""
    words = ["diffhw", "codesign", *map(str, config.get("networks", ()))]
    for name, limit in config.get("limits", {}).items():
        words += [f"--{name.replace('_', '-')}", f"{limit['value'] if isinstance(limit, dict) else limit:g}"]
    for name, default in _OPTIONS:
        value = config.get(name, default)
        if value is not None and (value != default or name == "seed"):
            words += [f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    if config.get("per_layer_dataflow"):
        words.append("--per-layer-dataflow")
    return shlex.join(words)


def typeset(text: str) -> str:
    """Units as print has them: mm², µs. Text only, nothing is escaped here."""
    text = re.sub(r"\bum2\b", "µm²", text.replace("mm2", "mm²"))
    text = re.sub(r"\bum\b", "µm", text)
    return re.sub(r"(?<=[\d(] )?\bu(s|J|W|J s)\b", r"µ\1", text)


def _image(figure, alt: str) -> dict[str, str]:
    data = base64.b64encode(svg(figure)).decode("ascii")
    return {"source": f"data:image/svg+xml;base64,{data}", "alt": alt}


def _facts(result) -> list[tuple[str, str]]:
    """The answer in one card each: label, text with unit."""
    sums, hw, limits = content.totals(result.costs), result.design.hardware, result.limits
    many = len(result.costs) > 1
    of = lambda key, value, unit: (
        quantity(value, unit) + (f" of {quantity(limits[key], unit)}" if key in limits else "")
    )
    latency, power = quantity(sums["latency_s"], "s"), of("power_w", sums["power_w"], "W")
    # Limits are about the worst network: with several, that figure stands beside the limit.
    if many:
        slowest, hottest = (result.figures[key] for key in ("latency_ms", "power_w"))
        latency += f" in sum, slowest network {of('latency_ms', slowest, 'ms')}"
        power = f"{quantity(sums['power_w'], 'W')} on average, worst network {of('power_w', hottest, 'W')}"
    elif "latency_ms" in limits:
        latency += f" (limit {quantity(limits['latency_ms'] * 1e-3, 's')})"
    batch = result.design.batch
    return [
        *([("batch", f"{batch} inferences together; all figures are for the batch")] if batch > 1 else []),
        ("array", f"{content.grid_text(hw)} PEs, {content.dataflow_text(result.design.dataflow)}"),
        ("buffers input / weight / output", f"{content.buffers_text(hw).replace('/', ' / ')} KiB"),
        ("DRAM", f"{content.dram_text(hw)}, {float(hw.dram.gb_per_s):g} GB/s"),
        ("latency", f"{latency}, {quantity(sums['cycles'], 'cycles')}"),
        ("energy", quantity(sums["energy_j"], "J") + (" in sum" if many else "")),
        ("EDP", quantity(sums["edp_js"], "J s") + (" (sum of each network's)" if many else "")),
        ("area", of("area_mm2", sums["area_mm2"], "mm2")),
        ("power", power),
        ("utilization", quantity(sums["utilization"], "%")),
    ]


def _lead(result) -> str:
    """The answer in one sentence."""
    unit = content.OBJECTIVE_UNITS[result.objective]
    word = {"edp": "energy-delay product"}.get(result.objective, result.objective)
    text = f"The best design found has an {word} of {quantity(result.value, unit)}"
    if word[0] not in "aeiou":
        text = text.replace("has an ", "has a ")
    certificate = result.certificate
    if certificate is not None and certificate.gap is not None:
        what = (
            "the optimum of the whole legal grid"
            if certificate.optimum is not None
            else "a proven lower bound"
        )
        text += f", {certificate.gap * 100:.3f} % above {what}"
    within = [rival for rival in result.rivals if not rival.over_budget]
    if within:
        best = min(within, key=lambda rival: rival.objective)
        budget = " within the budget" if result.limits else ""
        times = f"{best.objective / result.value:.2f} times that"
        text += f"; the best catalogue design{budget}, {best.name}, has {times}"
    return text + "."


def _how(result) -> list[tuple[str, str]]:
    config = result.config
    versions = config.get("versions", {})
    return [
        ("seed", str(config.get("seed", "not recorded"))),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items()) or "not recorded"),
        ("device", str(config.get("device", "not recorded"))),
        ("numbers", str(config.get("dtype", "not recorded"))),
        ("date", str(config.get("date", "not recorded"))),
        ("time", ", ".join(f"{name} {value:.1f} s" for name, value in result.seconds.items())),
    ]


def html(result, *, command: str | None = None) -> str:
    """A `CodesignResult` as one HTML page; images are inside, no script, nothing is fetched.

    command: the command that was run; by default rebuilt from the result's config.
    """
    import jinja2

    template = Path(__file__).with_name("template.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["typeset"] = typeset
    names = " + ".join(content.network_name(net, i) for i, net in enumerate(result.networks))
    assumed = tables.assumptions_table(result)
    page = environment.from_string(template).render(
        title=f"{names} on the best array found",
        lead=_lead(result),
        facts=_facts(result),
        comparison=_safe(tables.comparison_table(result)),
        certificate=tables.certificate_lines(result),
        convergence=_image(convergence(result), "Best legal objective over evaluations of the search"),
        pareto=_image(pareto(result), "Evaluated designs, Pareto front, search path and catalogue designs"),
        breakdown=_image(breakdown(result), "Latency and energy of each layer as stacked bars"),
        roofline=_image(roofline(result), "Speed of each layer over its MACs per DRAM byte, under the roof"),
        tornado=_image(tornado(result), "Change of the objective for ten percent more of each number"),
        energy=_safe(tables.energy_table(result.costs)),
        area=_safe(tables.area_table(result.costs[0])),
        sensitivities=_safe(tables.sensitivities_table(result)) if result.sensitivities else "",
        bounds=[_safe(one) for one in tables.bounds_tables(result, top=None)],
        assumed=_safe(assumed) if result.assumptions else "",
        space=content.space_rows(result),
        space_size=f"{result.space_size:,}",
        notes=[f"{net.info.name}: {note}" for net in result.networks for note in net.info.notes],
        command=command or command_line(result.config),
        how=_how(result),
    )
    return page


def _safe(table: Table):
    """The table's own HTML (escaped there), units typeset, marked safe for the template."""
    import markupsafe

    return markupsafe.Markup(typeset(table.html()))
