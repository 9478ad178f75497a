"""Bits of each tensor."""

from flax import struct
from jax import Array

from diffhw import numerics

__all__ = ["Precision"]


@struct.dataclass(kw_only=True)
class Precision:
    """Bits per word of each tensor. Leaves of shape () or (L,), real-valued and differentiable.

    weight, input, output: as stored in SRAM and DRAM.  psum: partial sums, in SRAM and when spilled.
    """

    weight: Array
    input: Array
    psum: Array
    output: Array

    @classmethod
    def create(cls, *, weight=8, input=8, psum=32, output=None) -> "Precision":
        """Check and convert; ``output`` defaults to ``input``. Raises ValueError for bits <= 0."""
        output = input if output is None else output
        return cls(
            weight=numerics.positive("weight bits", weight),
            input=numerics.positive("input bits", input),
            psum=numerics.positive("psum bits", psum),
            output=numerics.positive("output bits", output),
        )

    @classmethod
    def of(cls, hw) -> "Precision":
        """The widths of an accelerator's datapath; outputs are stored at the input width."""
        return cls(weight=hw.weight_bits, input=hw.input_bits, psum=hw.psum_bits, output=hw.input_bits)
