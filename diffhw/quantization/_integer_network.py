"""An integer network: read from files and evaluated by numpy alone, in a process without JAX."""

from dataclasses import dataclass

import numpy as np

from diffhw.quantization._graph import Op
from diffhw.quantization._integer_ops import IntegerLayer, apply_layer, apply_op

__all__ = ["IntegerNetwork"]


@dataclass(frozen=True)
class IntegerNetwork:
    """A network of integers. ops: the steps.  layers: by path.  result: name of the output step.

    fraction: fractional bits of values between layers.
    """

    ops: tuple[Op, ...]
    layers: dict[str, IntegerLayer]
    result: str
    fraction: int = 24

    def run(self, x, *, batch: int = 256) -> np.ndarray:
        """Output of the network in fixed point, int64. x: real inputs, (n, h, w, c) or (n, c).

        Raises ValueError for values that fixed point cannot hold.
        """
        x = np.asarray(x, np.float64)
        if not np.all(np.abs(x) < 2.0 ** (40 - self.fraction)):
            raise ValueError(
                f"inputs must be numbers below {2 ** (40 - self.fraction)} in magnitude, got "
                f"{np.abs(x).max()}"
            )
        fixed = np.round(x * 2.0**self.fraction).astype(np.int64)
        return np.concatenate([self._run(fixed[i : i + batch]) for i in range(0, len(fixed), batch)])

    def _run(self, fixed: np.ndarray) -> np.ndarray:
        values = {"input": fixed}
        last = {name: i for i, op in enumerate(self.ops) for name in op.inputs}
        for i, op in enumerate(self.ops):
            inputs = [values[name] for name in op.inputs]
            if op.layer is not None:
                values[op.name] = apply_layer(inputs[0], self.layers[op.layer])
            else:
                values[op.name] = apply_op(op.kind, op.settings, inputs, self.fraction)
            for name in op.inputs:
                if last[name] == i and name != self.result:
                    values.pop(name, None)
        return values[self.result]

    def logits(self, x, *, batch: int = 256) -> np.ndarray:
        """The output as real numbers, float64."""
        return self.run(x, batch=batch) / 2.0**self.fraction

    def predict(self, x, *, batch: int = 256) -> np.ndarray:
        """Index of the largest output, decided in integers."""
        return self.run(x, batch=batch).argmax(-1)

    @property
    def weight_bytes(self) -> float:
        """Size of the kernels at their bit widths (a file holds them as bytes, so it is larger)."""
        return sum(layer.kernel.size * layer.weight_bits for layer in self.layers.values()) / 8

    def save(self, path) -> tuple[str, str]:
        """Write arrays to ``path`` (.npz or .safetensors) and scales to the same name with .json.

        Returns both paths. Raises ValueError for another suffix.
        """
        from diffhw.quantization._integer_files import save

        return save(self, path)

    @classmethod
    def load(cls, path) -> "IntegerNetwork":
        """What `save` wrote, given either path. Raises ValueError naming the file and what is wrong."""
        from diffhw.quantization._integer_files import load

        return load(path)
