"""Published chips, for order and ranking only: the figures are recalled (see the module)."""

from diffhw.validation import eyeriss_alexnet


def test_eyeriss_processing_times_and_ranking():
    rows = eyeriss_alexnet()
    for row in rows:
        assert abs(row.compute_ms / row.published_processing_ms - 1) < 0.25, row
        assert row.bound_ms <= row.compute_ms <= row.ours_ms
    order = lambda key: sorted(rows, key=key)
    assert order(lambda r: r.compute_ms) == order(lambda r: r.published_processing_ms)
