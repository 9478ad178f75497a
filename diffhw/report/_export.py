"""The result as data: a JSON object and a CSV of layers. Plain, strict, the same for equal results."""

import csv
import io
import math
from typing import Any

import numpy as np

from diffhw import hardware
from diffhw.report import _content as content

__all__ = ["clean", "cost_json", "design_json", "layers_csv", "to_json"]


def clean(value: Any) -> Any:
    """``value`` with plain Python numbers only; infinity as the text "inf", NaN as None (strict JSON)."""
    if isinstance(value, dict):
        return {str(key): clean(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [clean(one) for one in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if not isinstance(value, float):
        array = np.asarray(value)
        if array.ndim:
            return clean(array.tolist())
        value = array.item()
        if not isinstance(value, float):
            return value
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value


def design_json(design) -> dict:
    """A `Design` as plain data, with the keys of its YAML file."""
    bits = design.precision
    flow = design.dataflow
    return clean(
        {
            "hardware": hardware.to_dict(design.hardware),
            "mapping": {"model": "systolic", "dataflow": flow},
            "precision": {name: float(getattr(bits, name)) for name in ("weight", "input", "psum", "output")},
            "batch": design.batch,
        }
    )


def _parts(parts) -> dict[str, float]:
    return {name: float(np.asarray(value)) for name, value in parts.items()}


def cost_json(cost, network=None, dataflow=None, bounds=None, roofline=None, layers: bool = True) -> dict:
    """Totals of one network's `Cost`, its named parts, and one object per layer."""
    sums = content.totals((cost,))
    out: dict[str, Any] = {
        "network": content.network_name(network) if network is not None else None,
        **sums,
        "energy_parts_pj": _parts(cost.energy_parts),
        "cycle_parts": _parts(cost.cycle_parts),
        "area_parts_mm2": _parts(cost.area_parts),
        "traffic_bytes": _parts(cost.traffic_bytes),
    }
    if roofline is not None:
        out["roofline"] = {
            "latency_s": float(np.asarray(roofline.latency_s)),
            "energy_j": float(np.asarray(roofline.energy_j)),
        }
    if layers and cost.layers is not None:
        out["layers"] = content.layer_rows(cost, network, dataflow, bounds, roofline)
    return clean(out)


def _flow_of(design, network):
    return design.dataflow if isinstance(design.dataflow, str) else design.dataflow[network.info.name]


def to_json(result) -> dict:
    """The content of ``result.json``: what was asked, what was found, how good it is, how to repeat it.

    result: `CodesignResult`. Keys do not depend on values; ``optimality_gap`` is a fraction above
    the optimum (above a proven bound if ``certificate.optimum`` is null), null if nothing was proved.
    """
    certificate = result.certificate
    config = dict(result.config)
    search = result.search
    return clean(
        {
            "tool": "diffhw codesign",
            "seed": config.get("seed"),
            "versions": config.get("versions"),
            "device": config.get("device"),
            "dtype": config.get("dtype"),
            "config": config,
            "objective": result.objective,
            "unit": content.OBJECTIVE_UNITS[result.objective],
            "value": result.value,
            "feasible": result.feasible,
            "limits": result.limits,
            "figures": content.totals(result.costs),
            "constrained": result.figures,
            "optimality_gap": None if certificate is None else certificate.gap,
            "certificate": None
            if certificate is None
            else {
                "how": certificate.how,
                "optimum": certificate.optimum,
                "optimum_design": None
                if certificate.optimum_design is None
                else design_json(certificate.optimum_design),
                "designs": certificate.designs,
                "seconds": certificate.seconds,
            },
            "design": design_json(result.design),
            "networks": [
                cost_json(cost, network, _flow_of(result.design, network), bounds)
                for network, cost, bounds in zip(result.networks, result.costs, result.bounds, strict=True)
            ],
            "rivals": [
                {
                    "name": rival.name,
                    "objective": rival.objective,
                    "over_budget": list(rival.over_budget),
                    "dataflow": rival.design.dataflow,
                    "rows": float(rival.design.hardware.rows),
                    "cols": float(rival.design.hardware.cols),
                    "lanes": float(rival.design.hardware.lanes),
                    **content.totals(rival.costs),
                }
                for rival in result.rivals
            ],
            "sensitivities": [dict(vars(one)) for one in result.sensitivities],
            "assumptions": [
                {
                    "name": one.name,
                    "value": one.value,
                    "unit": one.unit,
                    "why": one.why,
                    "halved": {"change": one.halved[0], "design": one.halved[1] or None},
                    "doubled": {"change": one.doubled[0], "design": one.doubled[1] or None},
                }
                for one in result.assumptions
            ],
            "search": search.figures(),
            "space": {"designs": result.space_size, "grid": result.space_text.splitlines()},
            "seconds": result.seconds,
        }
    )


_SIZES = (
    *("n", "g", "k", "c", "p", "q", "r", "s", "h", "w"),
    *("stride_h", "stride_w", "dilation_h", "dilation_w", "pad_top", "pad_left"),
)


def layers_csv(result) -> str:
    """The content of ``layers.csv``: one line per network and distinct layer, figures times its count.

    result: `CodesignResult`. Units are in the column names; sizes are those of one run.
    """
    table: list[dict[str, Any]] = []
    for network, cost, bounds in zip(result.networks, result.costs, result.bounds, strict=True):
        rows = content.layer_rows(cost, network, _flow_of(result.design, network), bounds)
        for i, row in enumerate(rows):
            sizes = {name: _plain(np.asarray(getattr(network.layers, name))[i]) for name in _SIZES}
            plain = {
                k: _plain(v) for k, v in row.items() if not isinstance(v, dict) and not k.endswith("_share")
            }
            table.append(
                {"network": content.network_name(network)}
                | plain
                | {f"{name}_cycles": _plain(value) for name, value in row["cycle_parts"].items()}
                | {f"{name}_pj": _plain(value) for name, value in row["energy_parts"].items()}
                | {f"{name}_bytes": _plain(value) for name, value in row["traffic_bytes"].items()}
                | sizes
            )
    out = io.StringIO()
    writer = csv.DictWriter(out, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()


def _plain(value):
    """Whole numbers without a point, others with all digits, text as it is."""
    if value is None or isinstance(value, str):
        return value
    number = float(value)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number
