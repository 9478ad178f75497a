"""Bit widths per layer of one trained network: what is chosen, what it costs, and how it is really evaluated.

The index vector of a configuration holds bits - 1 per quantized layer, in the order of ``names``. Weights
are quantized after training (symmetric, per tensor), nothing is trained again. All searchers of bit widths
use this problem, and its ledger counts every evaluation.

`bit_problem` takes at each width the step of least squared error: with min-max steps two bits are often
worse than one, and accuracy jumps. mobilenet_v2_small on digits (1437 images), all layers at 2, 3, 4, 6, 8
bits: 0.100, 0.644, 0.890, 0.983, 0.985 with min-max steps, 0.170, 0.584, 0.973, 0.979, 0.985 with these; a
step per channel gives 0.097, 0.756, 0.983, 0.987, 0.983 but stores a number per channel, which no table here
counts.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

__all__ = ["BitProblem", "Ledger", "bit_problem"]


@dataclass
class Ledger:
    """Network evaluations and seconds spent on them."""

    evaluations: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class BitProblem:
    """One network and its images.

    network: its name.  names: quantized layers.  weights, macs: (L,) of each layer.  max_bits: widest.
    selection: images that accuracy means here, training images included, so it is exact for them and
    optimistic for others.  test: images that no search looks at.
    float_accuracy: on (selection, test), without quantization.  tables: metric -> (L, max_bits), what each
    layer adds at each width: "bytes" (weights alone; step sizes are not counted), "bops" (MACs x bits,
    inputs at 8 bits), and others that are sums over layers.  ledger: counts.
    """

    network: str
    names: tuple[str, ...]
    weights: np.ndarray
    macs: np.ndarray
    max_bits: int
    selection: Any
    test: Any
    float_accuracy: tuple[float, float]
    apply: Any
    quantized: Any
    model: Any
    tables: dict[str, np.ndarray]
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Legal values per layer."""
        return (self.max_bits,) * len(self.names)

    @property
    def space_size(self) -> int:
        """Configurations, a Python int."""
        return self.max_bits ** len(self.names)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the trained weights and their steps: two trainings of one network are two problems."""
        text = hashlib.sha256()
        for name, kernel in zip(self.names, self.quantized.kernels(), strict=True):
            text.update(name.encode() + np.asarray(kernel, np.float32).tobytes())
        text.update(self.quantized.static.weights.calibration.encode())
        return text.hexdigest()

    @cached_property
    def space(self):
        """The same as a `Space`: layer name -> `Bits`."""
        from diffhw.spaces import Bits, Space

        return Space({name: Bits(1, self.max_bits) for name in self.names})

    def cost(self, metric: str, indices) -> np.ndarray:
        """Exact metric (N,) of index vectors (N, L)."""
        return self.tables[metric][np.arange(len(self.names)), np.asarray(indices)].sum(axis=-1)

    def evaluate(self, indices, progress: Callable | None = None, count: bool = True) -> np.ndarray:
        """Accuracy (N,) on the selection images, float64: every configuration is really run."""
        begin = time.perf_counter()
        found = self._run(indices, self.selection, progress)
        if count:
            self.ledger.evaluations += len(found)
            self.ledger.seconds += time.perf_counter() - begin
        return found

    def observe(self, indices, progress: Callable | None = None) -> tuple[np.ndarray, np.ndarray]:
        """`evaluate`, and what the same runs tell beside it: (N,) and (N, A).

        The A columns are the share recognised of each class and, last, the mean probability of the right
        class. A surrogate that learns them too predicts the accuracy better (`search.fit_surrogate`).
        """
        begin = time.perf_counter()
        accuracy, aspects = self._look(indices, progress)
        self.ledger.evaluations += len(accuracy)
        self.ledger.seconds += time.perf_counter() - begin
        return accuracy, aspects

    def test_accuracy(self, indices) -> np.ndarray:
        """Accuracy (N,) on the test images; for reports only, not counted."""
        return self._run(indices, self.test, None)

    def _look(self, indices, progress) -> tuple[np.ndarray, np.ndarray]:
        from diffhw.training import observe_many

        found, back = np.unique(self._checked(indices), axis=0, return_inverse=True)
        accuracy, aspects = observe_many(self.apply, found + 1.0, self.selection, progress=progress)
        return accuracy[back.reshape(-1)], aspects[back.reshape(-1)]

    def _checked(self, indices) -> np.ndarray:
        indices = np.asarray(indices)
        if indices.ndim != 2 or indices.shape[1] != len(self.names):
            raise ValueError(
                f"{self.network} has {len(self.names)} quantized layers, got configurations of shape"
                f" {indices.shape}"
            )
        return indices

    def _run(self, indices, data, progress) -> np.ndarray:
        from diffhw.training import evaluate_many

        found, back = np.unique(self._checked(indices), axis=0, return_inverse=True)
        accuracy = evaluate_many(self.apply, found + 1.0, data, progress=progress)
        return accuracy.astype(np.float64)[back.reshape(-1)]


def bit_problem(
    network: str = "mobilenet_v2_small",
    data: str = "digits",
    *,
    seed: int = 0,
    max_bits: int = 8,
    epochs: int = 120,
    width: float = 1.0,
    calibration: str = "mse",
    checkpoint: Any = None,
    progress: Callable | None = None,
) -> BitProblem:
    """Trains a network of the training room (batch norms folded) and wraps it for bit searches.

    network, width: see `training.network`.  data: see `training.load`.  calibration: of the steps, see
    `quantization.QuantSpec`.  checkpoint: a folder in which the training is kept.
    progress: called with (epoch, epochs, validation accuracy).
    Raises ValueError for unknown names, missing data, max_bits not in 1 to 16.
    """
    from diffhw import training

    if isinstance(max_bits, bool) or max_bits != int(max_bits) or not 1 <= max_bits <= 16:
        raise ValueError(f"max_bits must be a whole number from 1 to 16, got {max_bits!r}")
    splits = training.load(data, seed=seed)
    model = training.network(
        network, input_shape=splits.train.input_shape, classes=splits.train.classes, width=width, rngs=seed
    )
    trained = training.train(model, splits, epochs=epochs, key=seed, checkpoint=checkpoint, progress=progress)
    selection = training.joined(splits.train, splits.validation)
    return wrap(trained.model, selection, splits.test, network, max_bits, calibration)


def wrap(
    model: Any, selection: Any, test: Any, network: str, max_bits: int = 8, calibration: str = "minmax"
) -> BitProblem:
    """A `BitProblem` of a trained `training.ConvNet`."""
    from diffhw import quantization, training

    folded = quantization.fold_batch_norm(model, selection.x[:64])
    spec = quantization.QuantSpec(calibration=calibration)
    quantized = quantization.QuantizedModel.of(folded, selection.x[:64], weights=spec, whole=True)
    layers = folded.layers()
    weights = np.array([float(layer.weights) for layer in layers])
    macs = np.array([float(layer.macs) for layer in layers])
    bits = np.arange(1, max_bits + 1)
    return BitProblem(
        network=network,
        names=tuple(quantized.names),
        weights=weights,
        macs=macs,
        max_bits=int(max_bits),
        selection=selection,
        test=test,
        float_accuracy=(training.evaluate(folded, selection), training.evaluate(folded, test)),
        apply=training.bits_apply(quantized, max_bits),
        quantized=quantized,
        model=folded,
        tables={"bytes": weights[:, None] * bits / 8, "bops": macs[:, None] * bits * 8.0},
    )
