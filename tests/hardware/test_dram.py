"""DRAM types: bandwidth has a price."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffhw import hardware as h


def test_order_is_the_kind():
    assert h.DRAM_TYPES == ("LPDDR4", "DDR4", "GDDR5", "GDDR6", "HBM2")
    for i, name in enumerate(h.DRAM_TYPES):
        made = h.dram(name)
        assert float(made.kind) == i and h.dram_name(made) == name
        assert "(read)" in h.dram_type(name).source or "(recalled)" in h.dram_type(name).source
    assert h.dram_name(h.Dram.create(gb_per_s=1, pj_per_bit=1)) == "custom"


def test_bandwidths_are_rate_times_width():
    # Gb/s per pin x pins / 8
    by_hand = {"LPDDR4": 3.2 * 32, "DDR4": 3.2 * 64, "GDDR5": 8 * 32, "GDDR6": 16 * 32, "HBM2": 2 * 1024}
    for name, gigabits in by_hand.items():
        assert float(h.dram(name).gb_per_s) == pytest.approx(gigabits / 8)


def test_no_type_is_best_at_everything():
    """More bandwidth takes more die area or idle power, so the best type depends on the budget."""
    drams = [h.dram(name) for name in h.DRAM_TYPES]
    columns = np.array([[-float(d.gb_per_s), float(d.phy_area_mm2), float(d.static_w)] for d in drams])
    best = {int(column.argmin()) for column in columns.T}
    assert len(best) > 1
    fastest = int(columns[:, 0].argmin())
    assert columns[fastest, 1] == columns[:, 1].max() and columns[fastest, 2] == columns[:, 2].max()


def test_wider_interfaces_pay_in_proportion():
    one, two = h.dram("GDDR6"), h.dram("gddr6", gb_per_s=128)
    assert float(two.phy_area_mm2) == pytest.approx(2 * float(one.phy_area_mm2))
    assert float(two.static_w) == pytest.approx(2 * float(one.static_w))
    assert float(two.pj_per_bit) == float(one.pj_per_bit) and h.dram_name(two) == "GDDR6"
    assert two.gb_per_s.dtype == jnp.zeros(()).dtype


@pytest.mark.parametrize(
    ("name", "gb_per_s", "message"),
    [
        ("LPDDR5", None, "did you mean LPDDR4"),
        ("", None, "There are LPDDR4"),
        ("DDR4", 0, "dram.gb_per_s must be > 0, got 0"),
        ("DDR4", float("nan"), "dram.gb_per_s must be > 0, got nan"),
        ("DDR4", "fast", "dram.gb_per_s must be a number, got 'fast'"),
    ],
)
def test_bad_types_are_named(name, gb_per_s, message):
    with pytest.raises(ValueError, match=message):
        h.dram(name, gb_per_s=gb_per_s)
