"""A bit-width problem whose accuracy is a formula."""

from dataclasses import dataclass

import numpy as np

from diffhw.recipes._bit_problem import BitProblem

NAMES = ("stem", "depthwise", "pointwise", "middle", "head")
WEIGHTS = np.array([72.0, 144.0, 1024.0, 4096.0, 640.0])
NEED = np.array([0.9, 1.4, 0.5, 0.35, 0.8])


@dataclass(frozen=True)
class Analytic(BitProblem):
    """Accuracy by formula: saturating in every layer's bits."""

    fingerprint = "toy weights"

    def _run(self, indices, data, progress):
        return accuracy(indices)

    def _look(self, indices, progress):
        return accuracy(indices), np.zeros((len(indices), 0))


def accuracy(indices):
    """(N,) of index vectors (bits - 1)."""
    return 0.1 + 0.88 * np.exp(-1.5 * (NEED * np.exp(-0.8 * np.asarray(indices))).sum(axis=-1))


class Images(list):
    """Stands for images."""

    classes = 10

    def standard_error(self, accuracy):
        """Of an accuracy measured on them."""
        return (accuracy * (1 - accuracy) / len(self)) ** 0.5


def toy_problem():
    """Five layers, 1 to 8 bits."""
    bits = np.arange(1, 9)
    return Analytic(
        network="toy",
        names=NAMES,
        weights=WEIGHTS,
        macs=WEIGHTS * 16,
        max_bits=8,
        selection=Images([0] * 1000),
        test=Images([0] * 100),
        float_accuracy=(0.98, 0.97),
        apply=None,
        quantized=None,
        model=None,
        tables={"bytes": WEIGHTS[:, None] * bits / 8, "bops": WEIGHTS[:, None] * 16 * bits * 8.0},
    )
