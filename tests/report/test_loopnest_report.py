"""Tables, slopes and pictures of mappings, against the model itself; the ski slope against everything tried."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import mapping_brute
import numpy as np
import pytest

from diffhw import hardware, recipes, report
from diffhw.mappings import LoopNest
from diffhw.models import loopnest
from diffhw.recipes._ski_slope import _traffic_only
from diffhw.report._loopnest import energy_by_level, hardware_line, mapped, mapping_total
from diffhw.report._loopnest_pictures import _by_part
from diffhw.workloads import Layer, Network, NetworkInfo


@pytest.fixture(scope="module")
def chip():
    return hardware.hierarchy("gemmini")


@pytest.fixture(scope="module")
def result(chip):
    """A product that the DRAM bounds, and one that the MACs bound, twice."""
    rows = [Layer.gemm(2, 512, 512), Layer.gemm(256, 256, 128)]
    info = NetworkInfo(name="two", names=("thin", "fat (+1 alike)"))
    return recipes.best_mappings(Network.create(rows, counts=[1, 2], info=info), chip, "edp")


@pytest.fixture(scope="module")
def what(result):
    return mapped(result)


def size_of(figure) -> int:
    return len(figure._repr_png_())


def test_sums_and_shares_are_the_models(result, what, chip):
    assert what.energy_pj == pytest.approx(result.energy_pj) and what.cycles == result.cycles
    assert what.in_unit(what.score) == pytest.approx(result.energy_pj * 1e-12 * result.cycles * 1e-9)
    parts = energy_by_level(what)
    assert list(parts) == ["MAC", "Registers", "Accumulator", "Scratchpad", "DRAM"]
    assert sum(sum(row.values()) for row in parts.values()) == pytest.approx(result.energy_pj)
    assert set(parts["Scratchpad"]) == {"weight", "input"}
    thin, fat = what.layers
    assert thin.bound_by == "DRAM port" and fat.bound_by == "MACs"
    # One layer that runs three times: its EDP is that of three runs.
    alone = mapped(recipes.best_mapping(Layer.gemm(8, 8, 8), chip, "edp"), "small", 3)
    assert alone.score == pytest.approx(alone.energy_pj * alone.cycles, rel=1e-6)
    assert alone.bound <= alone.score * (1 + 1e-9)


def test_tables_say_it(what):
    text = report.mapping_table(what, sizes=[12.0, 3.4e19]).text()
    for part in ("thin", "DRAM port", "3.4e+19", "proven", "shares of all runs", "utilization"):
        assert part in text
    few = report.mapping_table(what, top=1).text()
    assert "1 more layers" in few and "thin" not in few
    alone = report.mapping_table(what.layers[0].best).text()
    assert "runs" not in alone and "of all time" not in alone
    text = report.level_table(what).text()
    assert "Scratchpad" in text and "100.0" not in text
    assert "256 MACs < Registers (weight, 1.000 B) < " in hardware_line(what.hierarchy)
    lines = mapping_total(what)
    assert lines[0].startswith("total: energy ") and "proven: no mappings have less EDP in all" in lines[1]


def test_an_answer_without_proof_says_so(what):
    loose = replace(what, bound=what.score / 1.5)
    assert "at most 50 % above" in mapping_total(loose)[1]
    assert "no lower bound" in mapping_total(replace(what, bound=0.0))[1]
    one = replace(what.layers[0], best=replace(what.layers[0].best, objective="energy", bound=0.0))
    assert one.certificate == "energy: no bound of its own"
    one = replace(one, best=replace(one.best, bound=one.best.score / 1.02))
    assert one.certificate == "energy at most 2 % above the least"


@pytest.mark.slow
def test_slopes_are_those_of_the_numbers(what):
    """Against a thousandth more and less of each number, evaluated again."""
    names, total, alone = report.mapping_slopes(what)
    double = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), tree)

    def log_edp(level, field, factor):
        """Of the network, and of each layer."""
        found = []
        for one in what.layers:
            with jax.enable_x64(True):
                layer, chip, nest = double(one.best.layer), double(one.best.hierarchy), double(one.best.nest)
                at, levels = chip.names.index(level), list(chip.levels)
                levels[at] = replace(levels[at], **{field: getattr(levels[at], field) * factor})
                cost = loopnest.layer(layer, replace(chip, levels=tuple(levels)), nest)
                found.append((float(cost.energy_pj), float(cost.cycles)))
        found = np.array(found)
        return np.array([np.log((np.array([1, 2]) @ found).prod()), *np.log(found.prod(1))])

    step = 1e-3
    for name in ("DRAM.read_pj", "DRAM.shared_bits_per_cycle"):
        i = names.index(name)
        slope = (log_edp(*name.split("."), 1 + step) - log_edp(*name.split("."), 1 - step)) / (2 * step)
        # Cycles are whole: a thousandth of 33,000 is good to 3 %.
        slack = 0.03 if "cycle" in name else 1e-4
        np.testing.assert_allclose([total[i], *alone[:, i]], slope, atol=slack)
    assert alone[1, names.index("DRAM.shared_bits_per_cycle")] == 0  # the fat one waits for no port


@pytest.mark.slow
def test_slopes_of_edp_are_those_of_energy_and_latency(what):
    of = {
        o: dict(zip(*report.mapping_slopes(what, o)[:2], strict=True)) for o in ("energy", "latency", "edp")
    }
    assert set(of["edp"]) == set(of["energy"]) | set(of["latency"]) and "mac_pj" not in of["latency"]
    for name, slope in of["edp"].items():
        assert slope == pytest.approx(of["energy"].get(name, 0) + of["latency"].get(name, 0), abs=1e-9)


@pytest.mark.slow
def test_slopes_of_energies_add_up_to_one(what):
    """Energy is linear in its prices; bits of an access mirror the energy of its level."""
    names, total, alone = report.mapping_slopes(what, "energy")
    prices = [i for i, name in enumerate(names) if name.endswith("_pj")]
    assert total[prices].sum() == pytest.approx(1) and alone[:, prices].sum(1) == pytest.approx([1, 1])
    parts, sums, _ = _by_part(names, total, alone)
    assert "DRAM energy per access" in parts and not any("width" in part for part in parts)
    dram = sum(total[i] for i in prices if names[i].startswith("DRAM."))
    assert sums[parts.index("DRAM energy per access")] == pytest.approx(dram)
    # With leakage too: twice all prices and all leakage is twice the energy.
    leaky = recipes.best_mapping(Layer.gemm(8, 8, 8), hardware.hierarchy(hardware.load("edge")), "latency")
    names, total, _ = report.mapping_slopes(leaky, "energy")
    linear = [i for i, name in enumerate(names) if name.endswith(("_pj", "leakage_w", "static_w"))]
    assert "static_w" in names and total[linear].sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="objective must be one of"):
        report.mapping_slopes(what, "power")


@pytest.mark.slow
def test_pictures_draw(what, result):
    for draw in (report.energy_stack, report.latency_stack, report.gradient_tornado):
        assert size_of(draw(what)) > 5_000
        assert size_of(draw(result.layers[0])) > 5_000


def test_latency_bars_sum_to_the_cycles(what):
    figure = report.latency_stack(what)
    tops = {}
    for bar in figure.axes[0].patches:
        tops[round(bar.get_x() + bar.get_width() / 2)] = bar.get_y() + bar.get_height()
    want = [one.count * float(one.cost.cycles) for one in what.layers]
    assert tops[1] / tops[0] == pytest.approx(want[1] / want[0])
    assert [text.get_text() for text in figure.axes[0].texts] == ["DRAM"]


def test_convergence_band_holds_all_seeds():
    runs = [[(1, 9.0), (10, 5.0)], [(2, 8.0), (20, 4.0), (40, 6.0)], [(1, 7.0)]]
    figure = report.convergence_band(
        {"gradient": runs, "random": runs[:1]}, bound=3.0, unit="J", what="energy"
    )
    line = figure.axes[0].lines[0]
    assert list(line.get_xdata()) == [2, 10, 20, 40] and list(line.get_ydata()) == [8, 7, 5, 5]
    assert size_of(figure) > 5_000
    with pytest.raises(ValueError, match="'empty' has a seed without"):
        report.convergence_band({"empty": [[]]})


# The ski slope ----------------------------------------------------------------------------------


def shrunk(chip, words):
    """Gemmini with a scratchpad of so many words, and few words in the accumulator."""
    levels = list(chip.levels)
    levels[1] = replace(levels[1], capacity_bits=jnp.float32(32 * 4))
    levels[2] = replace(levels[2], capacity_bits=jnp.float32(8 * words))
    return replace(chip, levels=tuple(levels))


@pytest.mark.slow
def test_ski_slope_is_the_least_of_all_mappings(chip):
    """Every nest of a small layer, priced by the DRAM words that the model counts."""
    layer = Layer.create(k=4, c=2, p=4, q=1, r=2)
    sizes = [4, 8, 16, 64]
    curve = recipes.ski_slope(layer, shrunk(chip, 16), "Scratchpad", sizes)
    assert curve.proven.all() and curve.here == (16, curve.traffic_bytes[2])
    for size, moved in zip(sizes, curve.traffic_bytes, strict=True):
        small = _traffic_only(shrunk(chip, size))
        arrays = mapping_brute.all_nests(layer, small, 10**6)
        energy, _, feasible = mapping_brute.price(layer, small, arrays)
        assert moved == pytest.approx(float(np.min(energy[np.asarray(feasible) > 0])) / 8)


def test_ski_slope_falls_to_the_compulsory_traffic(chip):
    layer = Layer.gemm(32, 64, 48)
    curve = recipes.ski_slope(layer, chip, capacities=[256, 1 << 20, 1024, 64])
    assert list(curve.capacity_bytes) == [64, 256, 1024, 1 << 20] and curve.level == "Scratchpad"
    assert np.all(np.diff(curve.traffic_bytes) <= 0)
    assert curve.compulsory_bytes == 32 * 64 + 64 * 48 + 32 * 48 == curve.traffic_bytes[-1]
    # What the model says of a mapping is never below the curve.
    best = recipes.best_mapping(layer, chip, "edp")
    assert float(best.cost.dram_bytes) >= curve.here[1] * (1 - 1e-9)
    figure = report.ski_slope_picture(curve, found=best, title="gemm")
    assert size_of(figure) > 5_000
    assert "as built: 128 KiB" in [text.get_text() for text in figure.axes[0].get_legend().texts]


def test_ski_slope_mistakes(chip):
    layer = Layer.gemm(4, 4, 4)
    with pytest.raises(ValueError, match="no on-chip level is called 'DRAM'; known: Registers"):
        recipes.ski_slope(layer, chip, "DRAM")
    with pytest.raises(ValueError, match="capacities must be numbers of bytes > 0"):
        recipes.ski_slope(layer, chip, capacities=[0])
    with pytest.raises(ValueError, match="no mapping fits: Scratchpad"):
        recipes.ski_slope(layer, shrunk(chip, 1), capacities=[0.5, 1])
    curve = recipes.ski_slope(layer, chip, capacities=[1, 64])
    assert np.isnan(curve.traffic_bytes[0]) and curve.proven.tolist() == [False, True]


def test_the_nest_of_the_picture_is_the_mapping(what):
    """A result that was shown can be built again."""
    one = what.layers[0].best
    assert isinstance(one.nest, LoopNest)
    one.nest.check(one.layer)
