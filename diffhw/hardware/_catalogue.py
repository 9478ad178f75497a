"""Named designs with the source of each number, and a fair comparison between them.

A chip's DRAM often is no part of its paper; then a type of ours stands in and the notes say so.
"""

import difflib
from dataclasses import dataclass, replace
from pathlib import Path

from diffhw import numerics
from diffhw.hardware._accelerator import Accelerator, Dram, Level
from diffhw.hardware._dram import dram as make_dram
from diffhw.hardware._technology import Technology

__all__ = ["CatalogueEntry", "catalogue_entry", "load", "names", "normalise"]

KIB, MIB = 1024, 1024 * 1024


@dataclass(frozen=True)
class CatalogueEntry:
    """A named design. dataflow: the one of "os", "ws", "is" closest to how the chip works.

    source: of rows, columns, widths, capacities, clock and node.  notes: what had to be filled in.
    published_area_mm2, published_area_is: an area to compare with and what it covers, or None.
    """

    name: str
    hardware: Accelerator
    dataflow: str
    source: str
    notes: str
    published_area_mm2: float | None = None
    published_area_is: str = ""


def _level(name, keeps, capacity_bytes, word_bits=64, instances=1) -> Level:
    return Level.create(
        name=name, keeps=keeps, capacity_bytes=capacity_bytes, word_bits=word_bits, instances=instances
    )


def _eyeriss() -> CatalogueEntry:
    return CatalogueEntry(
        "eyeriss",
        Accelerator.create(
            rows=12,
            cols=14,
            weight_bits=16,
            input_bits=16,
            psum_bits=16,
            freq_hz=200e6,
            levels=(
                _level("weight_pad", "w", 448, 16, instances=168),
                _level("weight_buffer", "w", 8 * KIB),
                _level("global_buffer", "io", 100 * KIB),
            ),
            dram=make_dram("LPDDR4", gb_per_s=0.48),
            technology=Technology.at(65),
        ),
        "ws",
        "Y.-H. Chen et al., JSSC 52(1) 2017: 65 nm, 168 PEs of 16 bit, 108 KB buffer, 200 MHz (recalled)",
        "The chip is row stationary; ws is the nearest of the three. 224 x 16 bit of weights per PE are the "
        "inner level; its input (12 words) and partial-sum (24 words) pads are left out. DRAM: LPDDR4 is "
        "ours, at the chip's 64-bit link of 60 MHz (recalled, uncertain).",
        12.25,
        "core, JSSC 2017 (recalled)",
    )


def _tpu_v1() -> CatalogueEntry:
    return CatalogueEntry(
        "tpu_v1",
        Accelerator.create(
            rows=256,
            cols=256,
            freq_hz=700e6,
            levels=(
                _level("accumulators", "o", 4 * MIB, 256),
                _level("weight_fifo", "w", 256 * KIB, 256),
                _level("unified_buffer", "io", 24 * MIB, 256),
            ),
            dram=make_dram("DDR4", gb_per_s=34),
            technology=Technology.at(28),
        ),
        "ws",
        "N. Jouppi et al., ISCA 2017: 28 nm, 256 x 256 MACs of 8 bit with 32-bit sums, 700 MHz, 24 MiB "
        "unified buffer, 4 MiB accumulators, a weight FIFO of four 64 KiB tiles, 34 GB/s (recalled)",
        "The chip has two DDR3-2133 channels; DDR4's energy per bit (a value for DDR3 and DDR4) stands in, "
        "the bandwidth is the chip's. 256-bit words are ours.",
        331.0,
        "upper bound on the whole die, ISCA 2017 (recalled)",
    )


def _nvdla(name, atomic_c, atomic_k, banks, width, memory_bits, accumulators, dram) -> CatalogueEntry:
    capacity = banks * width * 512
    return CatalogueEntry(
        name,
        Accelerator.create(
            rows=atomic_c,
            cols=atomic_k,
            levels=(
                _level("accumulators", "o", accumulators),
                _level("convolution_buffer", "wi", capacity, 8 * width),
            ),
            dram=dram,
            technology=Technology.at(16),
        ),
        "ws",
        f"github.com/nvdla/hw spec/defs/{name.replace('nvdla', 'nv')}.spec: {atomic_c} x {atomic_k} MACs, "
        f"convolution buffer of {banks} banks x {width} B x 512, {memory_bits}-bit memory interface (read)",
        f"16 nm and 1 GHz as in the project's own estimates (recalled). Partial sums of 32 bit (the RTL's "
        f"are 34, recalled) and {accumulators // KIB} KiB for them are ours; the DRAM type is ours.",
    )


def _shidiannao() -> CatalogueEntry:
    return CatalogueEntry(
        "shidiannao",
        Accelerator.create(
            rows=8,
            cols=8,
            weight_bits=16,
            input_bits=16,
            psum_bits=32,
            freq_hz=1e9,
            levels=(
                _level("sb", "w", 128 * KIB),
                _level("nbin", "i", 64 * KIB),
                _level("nbout", "o", 64 * KIB),
            ),
            dram=make_dram("LPDDR4"),
            technology=Technology.at(65),
        ),
        "os",
        "Z. Du et al., ISCA 2015: 65 nm (read), 8 x 8 PEs of 16 bit, 1 GHz, 64 + 64 + 128 KB of data buffers "
        "(recalled)",
        "The 32 KB instruction buffer is left out. The chip has no DRAM (it sits beside a camera): LPDDR4 is "
        "ours.",
        4.86,
        "whole layout, abstract (read)",
    )


def _gemmini() -> CatalogueEntry:
    return CatalogueEntry(
        "gemmini",
        Accelerator.create(
            rows=16,
            cols=16,
            levels=(
                _level("accumulator", "o", 64 * KIB, 128),
                _level("scratchpad", "wi", 256 * KIB, 128),
            ),
            dram=make_dram("LPDDR4"),
        ),
        "ws",
        "H. Genc et al., DAC 2021: 16 x 16 MACs of 8 bit with 32-bit sums, 256 KB scratchpad, 64 KB "
        "accumulator, 22 nm (Intel 22FFL), 1 GHz (recalled)",
        "The generator leaves the DRAM to its user: LPDDR4 is ours.",
        0.806,
        "spatial array 0.116 + scratchpad 0.544 + accumulator 0.146, without its CPU, DAC 2021 (recalled)",
    )


def _ours(name, side, weight, activation, dram, what) -> CatalogueEntry:
    return CatalogueEntry(
        name,
        Accelerator.create(
            rows=side,
            cols=side,
            levels=(
                _level("weight", "w", weight),
                _level("input", "i", activation),
                _level("output", "o", activation),
            ),
            dram=make_dram(dram),
        ),
        "ws",
        f"ours: a plain {side} x {side} array at 22 nm and 1 GHz, {what}",
        "No chip: a starting point of a usual size, chosen by hand and not searched.",
    )


_ENTRIES = {
    "eyeriss": _eyeriss,
    "tpu_v1": _tpu_v1,
    "nvdla_small": lambda: _nvdla("nvdla_small", 8, 8, 32, 8, 64, 4 * KIB, make_dram("LPDDR4", gb_per_s=8)),
    "nvdla_large": lambda: _nvdla("nvdla_large", 64, 32, 16, 64, 256, 32 * KIB, make_dram("DDR4")),
    "shidiannao": _shidiannao,
    "gemmini": _gemmini,
    "edge": lambda: _ours("edge", 16, 64 * KIB, 64 * KIB, "LPDDR4", "for microcontrollers and sensors"),
    "mobile": lambda: _ours("mobile", 64, 512 * KIB, 512 * KIB, "LPDDR4", "for phones"),
    "cloud": lambda: _ours("cloud", 256, 4 * MIB, 4 * MIB, "HBM2", "for servers"),
}


def names() -> tuple[str, ...]:
    """Names that `load` and `catalogue_entry` know, in a fixed order."""
    return tuple(_ENTRIES)


def catalogue_entry(name: str) -> CatalogueEntry:
    """The entry ``name``, built anew in the current default dtype. Raises ValueError naming the nearest."""
    if name not in _ENTRIES:
        near = difflib.get_close_matches(str(name), names(), 1, 0.0)[0]
        raise ValueError(
            f"unknown hardware {name!r}; did you mean {near!r}? The catalogue has {', '.join(names())}"
        )
    return _ENTRIES[name]()


def load(name_or_path) -> Accelerator:
    """An accelerator by catalogue name, or from a file.

    .yaml, .yml, .json: our own format, alone or within a whole design.  .cfg: SCALE-Sim (its dataflow
    is left out: `read_scalesim_cfg` returns it).  Anything else: a MAESTRO or GAMMA hardware file.
    Raises ValueError for an unknown name, a missing file, or a mistake in the file.
    """
    from diffhw._files.documents import format_of
    from diffhw.hardware._maestro_hw import read_maestro_hw
    from diffhw.hardware._scalesim_cfg import read_scalesim_cfg
    from diffhw.hardware._yaml import read_yaml

    name = str(name_or_path)
    if name in _ENTRIES:
        return catalogue_entry(name).hardware
    path = Path(name)
    if not path.is_file():
        if path.suffix or len(path.parts) > 1:
            raise ValueError(f"no such file: {name}; the catalogue has {', '.join(names())}")
        return catalogue_entry(name).hardware  # raises, naming the nearest
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        kind = format_of(path)
        if kind:
            raise ValueError(
                f"{name} is {kind}, a memory hierarchy: read it with hardware.hierarchy({name!r})"
            )
        return read_yaml(path)
    if path.suffix.lower() in (".cfg", ".ini"):
        return read_scalesim_cfg(path)[0]
    return read_maestro_hw(path)


def normalise(
    hw: Accelerator,
    *,
    node_nm=22.0,
    weight_bits=8,
    input_bits=8,
    psum_bits=32,
    freq_hz=1e9,
    dram="LPDDR4",
    technology: Technology | None = None,
) -> Accelerator:
    """``hw`` at another node, operand width, clock and DRAM, so that designs compare fairly.

    Kept: rows, columns, lanes, flexibility, all levels with their capacities, words and ports.
    Replaced: technology (``technology``, else that of ``node_nm``), widths, clock, DRAM (a type's
    name or a `Dram`). Leaves of ``hw`` may be batched or traced. Raises ValueError like `create`.
    """
    return replace(
        hw,
        technology=Technology.at(node_nm) if technology is None else technology,
        weight_bits=numerics.positive("weight_bits", weight_bits),
        input_bits=numerics.positive("input_bits", input_bits),
        psum_bits=numerics.positive("psum_bits", psum_bits),
        freq_hz=numerics.positive("freq_hz", freq_hz),
        dram=dram if isinstance(dram, Dram) else make_dram(dram),
    )
