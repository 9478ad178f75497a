"""Tables, plots, the HTML page and the data files say what the result says, and nothing is cut off."""

import base64
import csv
import importlib.util
import io
import json
import pathlib
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffhw import report
from diffhw.models import systolic
from diffhw.models._show import quantity, scaled_unit
from diffhw.report import _tables as tables
from diffhw.report._grid import Table, column
from diffhw.report._html import command_line, typeset

_spec = importlib.util.spec_from_file_location(
    "fake_result", pathlib.Path(__file__).with_name("fake_result.py")
)
fake = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)

PLOTS = ("pareto", "roofline", "breakdown", "tornado", "convergence")


# ---- Numbers for reading ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, unit, text",
    [
        (0.0, "s", "0 s"),
        (1.5e-6, "s", "1.500 us"),
        (0.99999, "s", "1.000 s"),
        (2.5e-9, "J s", "2.500 nJ s"),
        (3e-13, "J s", "300.0 fJ s"),
        (1536.0, "B", "1.536 kB"),
        (0.5, "B", "0.5000 B"),
        (4.0, "mm2", "4.000 mm2"),
        (123456789.0, "MACs", "123.5 M MACs"),
        (0.123456, "%", "12.3 %"),
        (-0.002, "W", "-2.000 mW"),
        (float("inf"), "W", "inf W"),
        (float("nan"), "s", "nan s"),
    ],
)
def test_quantities_carry_a_unit_of_a_readable_size(value, unit, text):
    assert quantity(value, unit) == text


def test_a_column_has_one_unit():
    assert column("latency", [1e-3, 2e-6, None], "s") == ("latency (ms)", ["1.000", "0.002000", "-"])
    assert column("cycles", [1e6], "cycles")[0] == "cycles (M)"
    assert column("cycles", [10.0], "cycles")[0] == "cycles"
    assert scaled_unit(0.0, "s") == (1.0, "s")


def test_units_are_typeset():
    assert typeset("5 uJ s on 4 mm2, (us), 0.08 um2 per um") == "5 µJ s on 4 mm², (µs), 0.08 µm² per µm"


# ---- A cost shows itself ----------------------------------------------------------------------------


def test_cost_prints_its_figures():
    text = repr(fake.cost())
    for word in ("latency", "energy", "EDP", "power", "area", "utilization", "DRAM", "mm2", "cycles"):
        assert word in text
    assert "feasible" not in text
    assert "<table>" in fake.cost()._repr_html_()


def test_cost_shows_ranges_of_a_batch_and_survives_tracing():
    one = fake.cost()
    batch = jax.tree.map(lambda leaf: np.stack([leaf, 2 * leaf]), replace(one, layers=None))
    batch = replace(batch, feasible=np.array([1.0, 0.0]), violation=np.array([0.0, 0.5]))
    assert " to " in repr(batch) and "1 of 2 designs feasible" in repr(batch)
    with pytest.raises(ValueError, match="one cost, got a batch"):
        report.table(batch)
    seen = []

    def traced(rows):
        cost = systolic(fake.network(), replace(fake.accelerator(), rows=rows), "ws")
        seen.extend([repr(cost), cost._repr_html_()])
        return cost

    shapes = jax.eval_shape(traced, jnp.float32(8.0))
    assert "traced" in seen[0] and "shape ()" in repr(shapes)
    assert repr(jax.tree.map(lambda leaf: None, one, is_leaf=lambda leaf: isinstance(leaf, np.ndarray)))


def test_an_infeasible_cost_says_so():
    assert "violation" in repr(replace(fake.cost(), feasible=np.array(0.0), violation=np.array(0.5)))


# ---- Tables -----------------------------------------------------------------------------------------


def test_cost_table_has_all_layers_and_a_total_with_units():
    table = report.table(fake.cost(), fake.network())
    assert [row[0] for row in table.rows] == ["conv<b>", "depthwise (+1 alike)", "fc", "total"]
    heads = " ".join(table.heads)
    for unit in ("(us)", "(%)", "(MACs)", "(uJ)", "(kB)"):
        assert unit in heads or unit.replace("MACs", "k") in heads
    share = table.heads.index("of time (%)")
    assert sum(float(row[share]) for row in table.rows[:-1]) == pytest.approx(100, abs=0.2)
    assert "conv<b>" in str(table) and "conv&lt;b&gt;" in table._repr_html_()
    assert report.table(fake.cost()).rows[0][0] == "layer0"


def test_cost_table_keeps_the_longest_layers_in_order():
    table = tables.cost_table(fake.cost(), fake.network(), top=2)
    assert len(table.rows) == 3 and table.notes == ("1 more layers not shown, each shorter",)


def test_table_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="takes a Cost or a CodesignResult, got int"):
        report.table(3)


def test_comparison_names_the_budget_that_is_broken():
    table = report.table(fake.make())
    assert table.rows[0][-1] == "within" and table.rows[1][-1] == "over area"
    assert "no catalogue design is within the budget" in table.notes


def test_text_is_aligned_and_rich_can_draw_it():
    from rich.console import Console

    table = Table("title", ("name", "a long head (ms)"), (("x", "1"), ("longer", "22")), marked=(1,))
    lines = table.text().splitlines()
    assert len({len(line) for line in lines[2:5]}) <= 2 and lines[-1].startswith("> longer")
    out = io.StringIO()
    Console(file=out, width=60).print(table)
    assert "longer" in out.getvalue() and "title" in out.getvalue()


def test_certificate_says_what_was_proved():
    lines = " ".join(tables.certificate_lines(fake.make()))
    assert "1.230 %" in lines and "154 times fewer" in lines
    unproved = replace(fake.make(), certificate=None)
    assert "nothing is proved" in " ".join(tables.certificate_lines(unproved))


# ---- Data -------------------------------------------------------------------------------------------


def test_json_is_strict_and_complete():
    result = fake.make()
    document = report.to_json(result)
    again = json.loads(json.dumps(document, allow_nan=False))
    assert again == document
    assert again["optimality_gap"] == 0.0123 and again["seed"] == 7
    assert {"config", "versions", "device", "dtype", "figures", "certificate"} <= set(again)
    assert again["value"] == result.value and again["figures"]["edp_js"] == result.value
    assert set(report.to_json(replace(result, certificate=None, rivals=()))) == set(again)


def test_layers_csv_adds_up_to_the_total():
    rows = list(csv.DictReader(io.StringIO(report.layers_csv(fake.make()))))
    cost = fake.cost()
    assert [row["layer"] for row in rows] == list(fake.network().names)
    assert sum(float(row["cycles"]) for row in rows) == pytest.approx(float(cost.cycles), rel=1e-12)
    assert sum(float(row["energy_j"]) for row in rows) == pytest.approx(float(cost.energy_j), rel=1e-12)
    assert rows[0]["k"] == "16" and rows[2]["bound"] == "DRAM"


# ---- Plots ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLOTS)
def test_plots_are_labelled_and_nothing_is_cut_off(name):
    figure = getattr(report, name)(fake.make())
    labels = [label for ax in figure.axes for label in (ax.get_xlabel(), ax.get_ylabel()) if label]
    assert labels and any("(" in label or "per" in label for label in labels)
    figure.draw_without_rendering()  # the layout is settled when drawing
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 > -0.02 and box.y0 > -0.02 and box.x1 < width + 0.02 and box.y1 < height + 0.02
    assert figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["pareto", "convergence"])
def test_plots_take_a_search_result_alone(name):
    search = fake.make().search
    assert getattr(report, name)(search).axes
    bare = replace(search, limits={}, seen=replace_names(search.seen), visited=None)
    assert getattr(report, name)(bare).axes


def replace_names(designs):
    return replace(designs, figures=designs.figures[:, :1], names=("objective",))


def test_plots_survive_a_search_that_found_nothing():
    search = replace(
        fake.make().search,
        history={"evaluations": np.ones(1), "seconds": np.ones(1), "best": np.array([np.inf])},
    )
    assert report.convergence(search).axes
    assert report.tornado(replace(fake.make(), sensitivities=())) is not None  # fmt: skip


# ---- The page ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page():
    return report.html(fake.make(), command="diffhw codesign tiny --area-mm2 3")


def test_page_needs_nothing_from_outside(page):
    assert "<script" not in page and "@import" not in page and "url(" not in page
    for attribute, target in re.findall(r"\b(src|href)=[\"']([^\"']*)", page):
        assert target.startswith("#") or target.startswith("data:"), (attribute, target[:60])
    for data in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page):
        picture = base64.b64decode(data).decode()
        # Namespaces are names, not addresses; nothing in the pictures may be fetched.
        assert not re.findall(r"(?:href|src)=\"(?!#|data:)", picture)


def test_page_has_every_section_and_escapes_names(page):
    for section in (
        "comparison",
        "certificate",
        "pareto",
        "layers",
        "why",
        "bounds",
        "assumed",
        "space",
        "how",
    ):
        assert f'id="{section}"' in page and f'href="#{section}"' in page
    assert page.count("<img ") == len(PLOTS) and page.count('alt="') == len(PLOTS)
    assert "conv<b>" not in page and "conv&lt;b&gt;" in page and "a note &amp; more" in page
    assert "diffhw codesign tiny --area-mm2 3" in page and "input buffer (bytes)" in page
    assert page.count("<table") == page.count("</table>") and page.count("<div") == page.count("</div>")
    assert "mm2" not in re.sub(r"base64,[^\"]*|--area-mm2|area_mm2", "", page)


@pytest.mark.slow
def test_page_of_a_bare_result():
    bare = replace(fake.make(), certificate=None, rivals=(), sensitivities=(), assumptions=(), limits={})
    page = report.html(bare)
    assert "nothing is proved" in page and "Not examined in this run" in page


def test_command_line_is_rebuilt():
    assert command_line(fake.make().config) == "diffhw codesign tiny --area-mm2 3 --seed 7"
