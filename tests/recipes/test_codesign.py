"""The main job end to end on a small network: the answer, its proof, its file, and a budget nobody meets."""

import jax
import numpy as np
import pytest

from diffhw import workloads
from diffhw.models import systolic
from diffhw.recipes import codesign, read_design, write_design
from diffhw.workloads import Layer, Network, NetworkInfo

pytestmark = pytest.mark.slow


def small():
    rows = [Layer.create(c=16, k=48, h=28, w=28, r=3, s=3, pad_top=1, pad_left=1), Layer.gemm(1, 512, 1000)]
    return Network.create(rows, counts=[3, 1], info=NetworkInfo(name="small", names=("conv", "fc")))


@pytest.fixture(scope="module")
def result():
    return codesign(small(), area_mm2=3.0, dram="LPDDR4", seed=1)


def test_the_answer_is_legal_and_close_to_the_enumerated_optimum(result):
    assert result.feasible and result.figures["area_mm2"] <= 3.0
    certificate = result.certificate
    assert certificate.designs == result.space_size == 25 * 25 * 1000 * 3
    assert -1e-12 <= certificate.gap <= 0.03
    assert result.search.evaluations < result.space_size / 25
    assert all(
        rival.objective >= certificate.optimum * (1 - 1e-9)
        for rival in result.rivals
        if not rival.over_budget
    )


def test_the_report_explains(result):
    assert {one.name for one in result.sensitivities} >= {"rows", "cols", "DRAM bandwidth", "MAC energy"}
    assert any(abs(one.by_gradient) > 1e-3 for one in result.sensitivities)
    names = {one.name for one in result.assumptions}
    assert "LPDDR4_static" in names and "sram_leakage" in names
    static = next(one for one in result.assumptions if one.name == "LPDDR4_static")
    assert static.halved[0] < 0 < static.doubled[0]
    assert len(result.bounds[0]) == result.networks[0].size == 2


def test_the_design_file_gives_the_same_numbers(result, tmp_path):
    write_design(result.design, tmp_path / "design.yaml")
    design = read_design(tmp_path / "design.yaml")
    price = jax.jit(lambda net, hw, bits: systolic(net, hw, design.mapping_of("small"), bits))
    cost = price(small().merged(), design.hardware, design.precision)
    np.testing.assert_allclose(float(cost.edp), result.value, rtol=1e-5)


def test_a_dataflow_per_layer_is_never_worse_before_its_overhead():
    """Same hardware: the switchable array's choice against each single dataflow, overheads switched off."""
    one = codesign(
        small(), area_mm2=3.0, dram="LPDDR4", per_layer_dataflow=True, certify=False, explain=False
    )
    hw = one.design.hardware
    assert float(hw.flexible) == 1.0
    names = one.design.dataflow["small"]
    assert len(names) == 2
    network = small().merged()
    chosen = float(systolic(network, hw, list(names)).edp)
    assert chosen == pytest.approx(one.value, rel=1e-5)
    assert all(chosen <= float(systolic(network, hw, name).edp) * (1 + 1e-6) for name in ("os", "ws", "is"))


def test_a_budget_that_no_design_meets_says_what_binds():
    one = codesign(small(), area_mm2=0.5, dram="LPDDR4", certify=False, explain=False)
    assert not one.feasible
    assert one.search.binding == "area_mm2" and one.search.violation > 0


def test_bad_arguments_are_one_sentence():
    for arguments, words in (
        (dict(area_mm2=-1), "area_mm2 must be a positive finite number, got -1"),
        (dict(power_w=float("nan")), "power_w must be a positive finite number"),
        (dict(batch=0), "batch must be a whole number >= 1"),
        (dict(dram="HBM3"), "did you mean HBM2"),
        (dict(objective="speed"), "objective must be one of"),
    ):
        with pytest.raises(ValueError, match=words):
            codesign(small(), **arguments)
    with pytest.raises(ValueError, match="resnet50"):
        codesign("resnet5O")
    assert "resnet50" in workloads.names()
