"""Hierarchies by name, and the hierarchy of an accelerator."""

import difflib
import os
from pathlib import Path

from jax.core import Tracer

from diffhw import numerics
from diffhw.hardware._accelerator import Accelerator
from diffhw.hardware._hierarchy import Hierarchy, Memory

__all__ = ["HIERARCHIES", "eyeriss_like", "gemmini", "hierarchy", "simba_like"]


def gemmini(pe_dim=16, accumulator_kb=32, scratchpad_kb=128) -> Hierarchy:
    """Gemmini as DOSA models it: registers (weights), accumulator (outputs), scratchpad, DRAM.

    pe_dim: side of the square array; c spreads over it below the accumulator, k below the scratchpad.
    accumulator_kb, scratchpad_kb: KiB in all. Numbers or arrays of shape (); differentiable, the energy
    per access included. Energies, 40 nm, pJ per word: MAC 0.5608, register 0.48746172, accumulator
    1.94 + 0.1005 KB / side, scratchpad 0.49 + 0.02513 KB, DRAM 100; words of 8 bits, 32 in the
    accumulator; words per cycle: 2 per accumulator, 2 x side from the scratchpad, 8 from DRAM
    (Hong et al., MICRO 2023, the fit in its public program). No areas: see `recipes.dosa`.
    """
    side, acc_kb, spad_kb = (numerics.as_float(v) for v in (pe_dim, accumulator_kb, scratchpad_kb))
    accumulator_pj = 1.94 + 0.1005 * acc_kb / side
    scratchpad_pj = 0.49 + 0.02513 * spad_kb
    levels = (
        Memory.create(
            name="Registers",
            keeps="w",
            capacity_words=1,
            word_bits=8,
            read_pj=0.48746172,
            spatial_x="",
            spatial_y="",
        ),
        Memory.create(
            name="Accumulator",
            keeps="o",
            capacity_words=acc_kb * 256 / side,
            word_bits=32,
            shared_words_per_cycle=2,
            read_pj=accumulator_pj,
            fanout_y=side,
            spatial_x="",
            spatial_y="c",
        ),
        Memory.create(
            name="Scratchpad",
            keeps="wi",
            capacity_words=spad_kb * 1024,
            word_bits=8,
            shared_words_per_cycle=2 * side,
            read_pj=scratchpad_pj,
            fanout_x=side,
            spatial_x="k",
            spatial_y="",
        ),
        Memory.create(
            name="DRAM",
            word_bits=8,
            shared_words_per_cycle=8,
            read_pj=100.0,
            spatial_x="",
            spatial_y="",
        ),
    )
    return Hierarchy.create(levels=levels, mac_pj=0.5608)


def eyeriss_like(pe_x=14, pe_y=12, glb_kb=128) -> Hierarchy:
    """Per-PE scratch pads for outputs, weights and inputs, a shared buffer (inputs, outputs), DRAM.

    An Eyeriss-like shape (ISCA 2016: 14 x 12 PEs, 16-bit words); the energies are the model constants of
    our referee table "eyeriss_like" and no silicon claim.
    """
    pad = dict(word_bits=16, read_words_per_cycle=2, write_words_per_cycle=2, spatial_x="", spatial_y="")
    levels = (
        Memory.create(name="PsumSpad", keeps="o", capacity_words=16, read_pj=0.97, fill_pj=1.07, **pad),
        Memory.create(name="WeightSpad", keeps="w", capacity_words=192, read_pj=1.83, fill_pj=2.1, **pad),
        Memory.create(name="IfmapSpad", keeps="i", capacity_words=12, read_pj=0.45, fill_pj=0.5, **pad),
        Memory.create(
            name="SharedGLB",
            keeps="io",
            capacity_words=glb_kb * 512,
            word_bits=16,
            block_words=4,
            read_words_per_cycle=16,
            write_words_per_cycle=16,
            read_pj=24.0,
            fill_pj=26.0,
            fanout_x=pe_x,
            fanout_y=pe_y,
            spatial_x="pk",
            spatial_y="rck",
        ),
        Memory.create(
            name="DRAM",
            word_bits=16,
            block_words=4,
            shared_words_per_cycle=4,
            read_pj=512.0,
            spatial_x="",
            spatial_y="",
        ),
    )
    return Hierarchy.create(levels=levels, mac_pj=2.2)


def simba_like(pe_x=4, pe_y=4, glb_kb=64) -> Hierarchy:
    """Vector MACs with weight registers, accumulation, weight, input buffers per PE, a global buffer, DRAM.

    A Simba-like shape (MICRO 2019); sizes and energies are the model constants of our referee table
    "simba_like" and no silicon claim.
    """
    none = dict(spatial_x="", spatial_y="")
    levels = (
        Memory.create(
            name="WeightRegs", keeps="w", capacity_words=1, word_bits=8, read_pj=0.05, fill_pj=0.06, **none
        ),
        Memory.create(
            name="AccumBuf",
            keeps="o",
            capacity_words=64,
            word_bits=24,
            read_pj=0.9,
            fill_pj=1.0,
            fanout_y=4,
            spatial_x="",
            spatial_y="c",
        ),
        Memory.create(
            name="WeightBuf",
            keeps="w",
            capacity_words=16384,
            word_bits=8,
            block_words=4,
            read_pj=5.0,
            fill_pj=5.4,
            **none,
        ),
        Memory.create(
            name="InputBuf",
            keeps="i",
            capacity_words=8192,
            word_bits=8,
            block_words=4,
            read_pj=3.1,
            fill_pj=3.4,
            fanout_y=4,
            spatial_x="",
            spatial_y="k",
        ),
        Memory.create(
            name="GlobalBuf",
            keeps="io",
            capacity_words=glb_kb * 1024,
            word_bits=8,
            block_words=8,
            read_words_per_cycle=16,
            write_words_per_cycle=16,
            read_pj=16.0,
            fill_pj=17.5,
            fanout_x=pe_x,
            fanout_y=pe_y,
            spatial_x="k",
            spatial_y="cqp",
        ),
        Memory.create(
            name="DRAM", word_bits=8, block_words=8, shared_words_per_cycle=8, read_pj=512.0, **none
        ),
    )
    return Hierarchy.create(levels=levels, mac_pj=0.56)


def _one_per_pe(level, hw: Accelerator) -> bool:
    """Whether the level sits beside the PEs: that shapes the hierarchy, so it must not be traced."""
    traced = isinstance(level.instances, Tracer)
    if isinstance(hw.pes, Tracer) and not traced and float(level.instances) == 1:
        return False
    if traced or isinstance(hw.pes, Tracer):
        raise ValueError(
            f"level {level.name!r} has several instances: rows, cols and instances cannot vary, or it is not "
            "known whether it sits beside the PEs"
        )
    return bool(level.instances >= hw.pes)


def _of_accelerator(hw: Accelerator) -> Hierarchy:
    tech = hw.technology
    leaks = tech.logic_leakage_w_per_mm2
    pe_bits = hw.weight_bits + hw.input_bits + hw.psum_bits
    widths = dict(weight_bits=hw.weight_bits, input_bits=hw.input_bits, output_bits=hw.psum_bits)
    # Half of a flip-flop's write-and-read energy each way, for a mean word.
    register_pj = tech.register_pj_per_bit / 2
    levels = [
        Memory.create(
            name="registers",
            keeps="wio",
            capacity_bits=pe_bits,
            width_bits=1,
            read_pj=register_pj,
            fanout_x=hw.lanes,
            area_mm2=hw.pe_area_mm2()
            - hw.lanes * tech.mac_area_mm2(hw.weight_bits, hw.input_bits, hw.psum_bits),
            **widths,
        )
    ]
    spread = False
    for level in hw.levels:
        beside = not spread and _one_per_pe(level, hw)
        bytes_ = level.capacity_bytes
        read = tech.sram_read_pj_per_bit(bytes_, level.word_bits) * level.word_bits
        ports = {
            f"{kind}_words_per_cycle": getattr(level, f"{kind}_bytes_per_cycle") * 8
            for kind in ("read", "write", "shared")
        }
        levels.append(
            Memory.create(
                name=level.name,
                keeps=level.keeps,
                capacity_bits=bytes_ * level.instances * (1 if not beside else 1 / hw.pes) * 4,
                word_bits=1,
                width_bits=level.word_bits,
                read_pj=read,
                fill_pj=read * tech.sram_write_ratio,
                fanout_x=1 if beside or spread else hw.cols,
                fanout_y=1 if beside or spread else hw.rows,
                area_mm2=tech.sram_area_mm2(bytes_) * level.instances / (hw.pes if beside else 1),
                leakage_w=tech.sram_leakage_w(bytes_) * level.instances / (hw.pes if beside else 1),
                **ports,
                **widths,
            )
        )
        spread = spread or not beside
    levels.append(
        Memory.create(
            name="DRAM",
            word_bits=8,
            width_bits=8,
            shared_words_per_cycle=hw.dram_bytes_per_cycle,
            read_pj=8 * hw.dram.pj_per_bit,
            fanout_x=1 if spread else hw.cols,
            fanout_y=1 if spread else hw.rows,
            area_mm2=hw.dram.phy_area_mm2,
            weight_bits=hw.weight_bits,
            input_bits=hw.input_bits,
            output_bits=hw.input_bits,
        )
    )
    return Hierarchy.create(
        levels=levels,
        mac_pj=tech.mac_energy_pj(hw.weight_bits, hw.input_bits, hw.psum_bits),
        mac_area_mm2=tech.mac_area_mm2(hw.weight_bits, hw.input_bits, hw.psum_bits),
        freq_hz=hw.freq_hz,
        static_w=hw.dram.static_w + leaks * hw.pes * hw.pe_area_mm2(),
    )


def _of_file(path: Path) -> Hierarchy:
    from diffhw._files.documents import format_of
    from diffhw.hardware._timeloop import read_timeloop
    from diffhw.hardware._yaml import read_yaml
    from diffhw.hardware._zigzag import read_zigzag

    kind = format_of(path)
    if kind == "a Timeloop architecture":
        beside = path.with_suffix(".ert.yaml")
        return read_timeloop(path, beside if beside.is_file() else None)
    if kind == "a ZigZag accelerator":
        return read_zigzag(path)
    return _of_accelerator(read_yaml(path))


HIERARCHIES = {"gemmini": gemmini, "eyeriss_like": eyeriss_like, "simba_like": simba_like}
"""Hierarchies by name: functions of a few sizes, all with defaults."""


def hierarchy(what) -> Hierarchy:
    """A `Hierarchy` by name (`HIERARCHIES`), of a file, or of an `Accelerator`; a `Hierarchy` passes.

    A file (.yaml, .yml): of Timeloop (its energies within or beside it, ending in .ert.yaml) or of ZigZag;
    see `read_timeloop` and `read_zigzag`, which have options. Our own format gives an accelerator's.

    Of an accelerator: registers for one word of each operand per PE; a level with an instance per PE
    sits beside it; below the first shared level the PE grid fans out (any loop along either axis).
    Buffers are double buffered: half the capacity holds a tile. Energies of `Technology`.
    Raises ValueError with the nearest name.
    """
    if isinstance(what, Hierarchy):
        return what
    if isinstance(what, Accelerator):
        return _of_accelerator(what)
    if isinstance(what, os.PathLike) or str(what).lower().endswith((".yaml", ".yml")):
        return _of_file(Path(what))
    if what not in HIERARCHIES:
        near = difflib.get_close_matches(str(what), HIERARCHIES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(HIERARCHIES)}"
        raise ValueError(f"no hierarchy is called {what!r}{hint}")
    return HIERARCHIES[what]()
