"""MAESTRO's hardware files, and those of GAMMA: ``key: integer`` lines.

| MAESTRO | GAMMA | here |
|---|---|---|
| num_pes | NumPEs | rows x cols, as square as the number allows |
| l1_size_cstr | L1Size | a level of that capacity beside each PE |
| l2_size_cstr | L2Size | the shared level |
| noc_bw_cstr | NoC_BW | port of the shared level, words per cycle |
| NoC_NumHops | | no field: `read_maestro_keys` |
| offchip_bw_cstr | | DRAM bandwidth, words per cycle |

A size or bandwidth that is left out is unlimited in MAESTRO (2^31 - 1) and so has no area we could
state: without l2_size_cstr the file is refused, without l1 there is no such level.
"""

import difflib
import math

import jax.numpy as jnp

from diffhw._files.documents import read_text
from diffhw.hardware._accelerator import Accelerator, Level
from diffhw.hardware._dram import dram as make_dram
from diffhw.hardware._technology import Technology

__all__ = ["read_maestro_hw", "read_maestro_keys"]

_GAMMA = {"numpes": "num_pes", "l1size": "l1_size_cstr", "l2size": "l2_size_cstr", "noc_bw": "noc_bw_cstr"}
_KEYS = ("num_pes", "l1_size_cstr", "l2_size_cstr", "noc_bw_cstr", "NoC_NumHops", "offchip_bw_cstr")


def read_maestro_keys(path) -> dict[str, int]:
    """The integers of the file by MAESTRO's key (GAMMA's keys translated), only those it names.

    ``//`` starts a comment. Raises ValueError naming file, line, key, found and allowed.
    """
    known = {key.lower(): key for key in _KEYS} | _GAMMA
    found: dict[str, int] = {}
    for i, raw in enumerate(read_text(path).splitlines(), 1):
        line = raw.split("//")[0].strip().rstrip(";,").strip()
        if not line:
            continue
        key, separator, text = (part.strip() for part in line.partition(":"))
        if not separator:
            raise ValueError(f"{path} line {i}: expected 'key: integer', got {raw.strip()!r}")
        if key.lower() not in known:
            near = difflib.get_close_matches(key.lower(), list(known), 1, 0.0)[0]
            raise ValueError(
                f"{path} line {i}: unknown key {key!r}; did you mean {known[near]!r}? "
                f"Allowed: {', '.join(_KEYS)}"
            )
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"{path} line {i}: {key} must be an integer, got {text!r}") from None
        if value < 1:
            raise ValueError(f"{path} line {i}: {key} must be >= 1, got {value}")
        found[known[key.lower()]] = value
    if not found:
        raise ValueError(f"{path} holds no hardware: expected lines 'key: integer' with {', '.join(_KEYS)}")
    return found


def read_maestro_hw(
    path, *, freq_hz=1e9, word_bits=8, psum_bits=32, node_nm=22.0, dram="LPDDR4"
) -> Accelerator:
    """An accelerator from a MAESTRO or GAMMA hardware file (module docstring has the table).

    freq_hz, word_bits, psum_bits, node_nm, dram: what the file does not say; a word is ``word_bits`` wide.
    """
    keys = read_maestro_keys(path)
    pes = keys.get("num_pes", 1)
    rows = next(r for r in range(math.isqrt(pes), 0, -1) if pes % r == 0)
    if "l2_size_cstr" not in keys:
        raise ValueError(
            f"{path} needs l2_size_cstr: without it the shared buffer is unlimited and has no area"
        )
    word = word_bits / 8
    port = keys["noc_bw_cstr"] * word if "noc_bw_cstr" in keys else jnp.inf
    levels = [
        Level.create(
            name="l2",
            capacity_bytes=keys["l2_size_cstr"] * word,
            read_bytes_per_cycle=port,
            write_bytes_per_cycle=port,
        )
    ]
    if "l1_size_cstr" in keys:
        l1 = Level.create(
            name="l1", capacity_bytes=keys["l1_size_cstr"] * word, instances=pes, word_bits=word_bits
        )
        levels.insert(0, l1)
    offchip = keys.get("offchip_bw_cstr")
    return Accelerator.create(
        rows=rows,
        cols=pes // rows,
        levels=levels,
        weight_bits=word_bits,
        input_bits=word_bits,
        psum_bits=psum_bits,
        freq_hz=freq_hz,
        dram=make_dram(dram, gb_per_s=None if offchip is None else offchip * word * freq_hz / 1e9),
        technology=Technology.at(node_nm),
    )
