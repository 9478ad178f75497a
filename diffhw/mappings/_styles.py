"""Well-known dataflows by name, as programs whose clusters and tiles fit a layer and the PEs.

Structures as in MAESTRO's mapping files, with two orders changed: there the order of maps hardly counts,
here it decides what stays in a PE. yxp_os has its channels innermost (or sums would not stay), yrp_rs its
filters and channels outermost, as many as half of Eyeriss' 224-word weight pad holds. Usual sizes, cut
to the layer and the PEs: clusters of 64 (NVDLA), 16 filters and that pad (Eyeriss), 8 columns
(ShiDianNao); these are recalled, not looked up.
"""

import difflib
from collections.abc import Callable

import numpy as np

from diffhw.mappings._fit import layer_sizes, network_sizes
from diffhw.mappings._program import Cluster, Map, Program, Sz, cluster, spatial, temporal
from diffhw.workloads import Layer, Network

__all__ = ["STYLES", "style"]

_Directives = list[Map | Cluster]

_R, _S = Sz("R"), Sz("S")
_WINDOW = [temporal(_R, _R, "R"), temporal(_S, _S, "S")]
_ROW, _COLUMN = temporal(_R, 1, "Y"), temporal(_S, 1, "X")
_ONE_ROW, _ONE_COLUMN = temporal(1, 1, "Y'"), temporal(1, 1, "X'")


def _one(kind, dim: str) -> Map:
    return kind(1, 1, dim)


def _at_most(most: int, *limits: float) -> int:
    return max(int(min(most, *limits)), 1)


def _kcp_ws(z, pes) -> _Directives:
    n = _at_most(64, pes, z["c"])
    slide = [_ROW, _COLUMN]
    outer = [_one(spatial, "K"), temporal(n, n, "C"), *_WINDOW, *slide]
    return [*outer, cluster(n), _one(spatial, "C"), *slide, *_WINDOW]


def _ckp_ws(z, pes) -> _Directives:
    n = _at_most(64, pes, z["k"])
    outer = [_one(spatial, "C"), temporal(n, n, "K"), *_WINDOW, _ONE_ROW, _ONE_COLUMN]
    return [*outer, cluster(n), _one(spatial, "K"), *_WINDOW]


def _xp_ws(z, pes) -> _Directives:
    return [_one(temporal, "K"), _one(temporal, "C"), _ROW, spatial(_S, 1, "X"), *_WINDOW]


def _cp_nlr(z, pes) -> _Directives:
    return [_one(temporal, "K"), _ROW, _COLUMN, *_WINDOW, _one(spatial, "C")]


def _yrp_rs(z, pes) -> _Directives:
    _needs("yrp_rs", "filter rows", z["r"], pes)
    # Rows of p filters x q channels in half of the pad; the other half receives the next ones.
    k = _at_most(16, z["k"])
    c = _at_most(112 // (k * z["s"]), z["c"])
    outer = [temporal(k, k, "K"), temporal(c, c, "C"), spatial(1, 1, "Y'"), _ONE_COLUMN, *_WINDOW]
    return [*outer, cluster(_R), _one(spatial, "Y"), _one(spatial, "R"), _WINDOW[1]]


def _columns(z, pes) -> tuple[int, list[Map]]:
    """Columns a cluster, and the maps over rows and columns of the output-stationary styles."""
    n = _at_most(8, pes, z["q"])
    return n, [spatial(_R, 1, "Y"), temporal(n, n, "X'"), *_WINDOW]


def _yxp_os(z, pes) -> _Directives:
    n, rows = _columns(z, pes)
    outer = [_one(temporal, "K"), *rows, _one(temporal, "C")]  # channels inside: sums stay in their PE
    return [*outer, cluster(n), spatial(_S, 1, "X"), *_WINDOW]


def _maeri_3l(z, pes) -> _Directives:
    _needs("maeri_3l", "filter taps", z["r"] * z["s"], pes)
    outer = [_one(temporal, "C"), _one(spatial, "K"), _ONE_ROW, _ONE_COLUMN, *_WINDOW]
    rows = [cluster(_R), _one(spatial, "Y"), _one(spatial, "R")]
    return [*outer, *rows, cluster(_S), _one(spatial, "X"), _one(spatial, "S")]


def _cp_dw(z, pes) -> _Directives:
    return [_one(spatial, "C"), _ROW, _COLUMN, *_WINDOW]


def _yp_dw(z, pes) -> _Directives:
    return [_one(temporal, "C"), spatial(_R, 1, "Y"), _COLUMN, *_WINDOW]


def _yxp_dw(z, pes) -> _Directives:
    n, rows = _columns(z, pes)
    return [_one(temporal, "C"), *rows, cluster(n), spatial(_S, 1, "X"), *_WINDOW]


def _gemm_nmk(z, pes) -> _Directives:
    n = _at_most(64, pes, z["c"])
    outer = [_one(temporal, "N"), _one(spatial, "M"), temporal(n, n, "K")]
    return [*outer, cluster(n), _one(temporal, "N"), _one(temporal, "M"), _one(spatial, "K")]


def _gemm_np_os(z, pes) -> _Directives:
    m, k = _at_most(4, z["p"]), _at_most(16, z["c"])
    return [temporal(m, m, "M"), _one(spatial, "N"), temporal(k, k, "K")]


def _needs(name: str, what: str, units: float, pes: int) -> None:
    if units > pes:
        raise ValueError(
            f"style {name!r} puts the {units:g} {what} of this layer on PEs, of which there are {pes}"
        )


_BUILDERS: dict[str, tuple[Callable, str]] = {
    "kcp_ws": (_kcp_ws, "filters on clusters, up to 64 channels inside; weights stay (NVDLA-like)"),
    "ckp_ws": (_ckp_ws, "channels on clusters, up to 64 filters inside; weights stay"),
    "xp_ws": (_xp_ws, "output columns on PEs; weights stay"),
    "cp_nlr": (_cp_nlr, "channels on PEs; nothing stays (DianNao-like)"),
    "yrp_rs": (_yrp_rs, "output rows on clusters, filter rows inside; row stationary (Eyeriss-like)"),
    "yxp_os": (_yxp_os, "output rows on clusters, up to 8 columns inside; outputs stay (ShiDianNao-like)"),
    "maeri_3l": (_maeri_3l, "filters on clusters, filter rows and columns inside (MAERI-like)"),
    "cp_dw": (_cp_dw, "depthwise: channels on PEs"),
    "yp_dw": (_yp_dw, "depthwise: output rows on PEs"),
    "yxp_dw": (_yxp_dw, "depthwise: output rows on clusters, up to 8 columns inside"),
    "gemm_nmk": (_gemm_nmk, "matrix product: rows on clusters, up to 64 of the inner dimension inside"),
    "gemm_np_os": (_gemm_np_os, "matrix product: columns on PEs, tiles of 4 rows and 16 inner elements"),
}

STYLES = {name: text for name, (_, text) in _BUILDERS.items()}
"""Names of the well-known dataflows and one line about each."""


def style(name: str, layer: Layer | Network, pes) -> Program | list[Program]:
    """The dataflow ``name`` of `STYLES` as a program for a layer; for a `Network` one per row.

    pes: processing elements. Clusters are never larger than that, nor than the layer can fill.
    A matrix product is a convolution with 1 x 1 filters (rows Y, channels C, filters K); C of a depthwise
    layer is its groups. The matrix product styles need 1 x 1 filters. Host only: sizes are read.

    Raises ValueError for an unknown name, fewer PEs than the filter rows (yrp_rs) or taps (maeri_3l) need, or
    a matrix product style on larger filters.

    >>> print(style("gemm_nmk", Layer.gemm(128, 512, 1536), pes=256))
    TemporalMap(1,1) N;
    SpatialMap(1,1) M;
    TemporalMap(64,64) K;
    Cluster(64, P);
    TemporalMap(1,1) N;
    TemporalMap(1,1) M;
    SpatialMap(1,1) K;
    """
    if name not in _BUILDERS:
        near = difflib.get_close_matches(str(name).lower(), _BUILDERS, 1, 0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"unknown style {name!r}; {hint}Known: {', '.join(_BUILDERS)}")
    pes = int(np.asarray(pes))
    if pes < 1:
        raise ValueError(f"pes must be >= 1, got {pes}")
    if isinstance(layer, Network):
        return [_build(name, sizes, pes) for sizes in network_sizes(layer)]
    return _build(name, layer_sizes(layer), pes)


def _build(name: str, sizes: dict[str, float], pes: int) -> Program:
    if name.startswith("gemm") and (sizes["r"] > 1 or sizes["s"] > 1):
        raise ValueError(f"style {name!r} is for matrix products, this layer has filters larger than 1 x 1")
    return Program.create(*_BUILDERS[name][0](sizes, pes), name=name)
