"""Predictions of a quantized network in plain numpy integers, beside those of JAX with fake quantization.

    python -m benchmarks.integer_export [--networks mobilenet_v2_small ...] [--epochs 40] [--least-bits 8 4 3]

Trains a network (kept in benchmarks/build, so that the next run is quick), folds its batch norms, gives
each layer weight bits of its own (drawn from a seed) and 8-bit inputs, and exports it as integers (.npz and
.json). Another process, which never imports JAX, reads the files and recognises all images in integers.
Printed: the share of images with the same prediction, where they differ and why, both accuracies.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from benchmarks import _common

QUICK = ["--epochs", "10", "--least-bits", "3"]
LEFT_OUT = "two of the three cases: 8 bits everywhere, and 4 to 8 bits; 30 of 40 epochs of training"

READER = """
import json, sys, time
import numpy as np
from diffhw.quantization import IntegerNetwork

network = IntegerNetwork.load(sys.argv[1])
images = np.load(sys.argv[2])
out, seconds = network.run(images), []
for _ in range(5):
    begin = time.perf_counter()
    network.run(images[:360])
    seconds.append((time.perf_counter() - begin) / len(images[:360]))
np.save(sys.argv[3], out)
kinds = sorted({str(layer.kernel.dtype) for layer in network.layers.values()})
assert "jax" not in sys.modules and "flax" not in sys.modules
said = {"dtype": str(out.dtype), "seconds_per_image": sorted(seconds)[2], "kernels": kinds}
print(json.dumps(said | {"bytes": network.weight_bytes}))
"""
CASES = {
    "8 bits everywhere": (8, 8, None),
    "4 to 8 bits, a step per tensor": (4, 8, None),
    "3 to 8 bits, a step per channel": (3, 8, -1),
}
"""Title -> (least, most weight bits, channel axis)."""


def integers(network, images: np.ndarray) -> tuple[np.ndarray, dict]:
    """Fixed-point outputs by a process without JAX, and what it says."""
    with tempfile.TemporaryDirectory() as folder:
        at, seen, out = (Path(folder) / name for name in ("network.npz", "images.npy", "out.npy"))
        network.save(at)
        np.save(seen, images)
        done = subprocess.run(
            [sys.executable, "-c", READER, at, seen, out],
            check=True,
            capture_output=True,
            text=True,
            cwd=_common.HERE.parent,
        )
        said = json.loads(done.stdout) | {"file_bytes": at.stat().st_size}
        return np.load(out), said


def measure(name: str, epochs: int, seed: int, least_bits) -> list[dict]:
    """Cases of one network."""
    from diffhw import quantization, training
    from diffhw.quantization import QuantizedModel, QuantSpec
    from diffhw.quantization._layers import kernel_modules

    splits = training.load("digits", seed=seed)
    shape = splits.train.input_shape
    model = training.network(name, input_shape=shape, classes=splits.train.classes, rngs=seed)
    kept = _common.BUILD / f"{name}-{epochs}-{seed}"
    model = training.train(model, splits, epochs=epochs, key=seed, checkpoint=kept).model
    selection = training.joined(splits.train, splits.validation)
    folded = quantization.fold_batch_norm(model, selection.x[:64])
    images = np.concatenate([splits.test.x, selection.x])
    labels = np.concatenate([splits.test.y, selection.y])
    tests = len(splits.test)
    rng = np.random.default_rng(seed)
    found = []
    for title, (least, most, axis) in CASES.items():
        widths = rng.integers(least, most + 1, len(kernel_modules(folded)))
        if least not in least_bits:
            continue
        quantized = QuantizedModel.of(
            folded,
            selection.x[:256],
            weights=QuantSpec(channel_axis=axis),
            activations=QuantSpec("auto"),
            whole=True,
        )
        bits = {"weights": widths.astype(np.float32), "activations": np.full(len(widths), 8, np.float32)}
        exported = quantization.integer_network(quantized, bits, folded.graph(), sample=selection.x[:64])
        run = jax.jit(lambda q, bits, x: q(bits, x))
        floats = np.concatenate(
            [np.asarray(run(quantized, bits, x), np.float64) for x in np.array_split(images, 3)]
        )
        fixed, said = integers(exported, images)
        ours = fixed / 2.0**exported.fraction
        same = fixed.argmax(1) == floats.argmax(1)
        other = np.flatnonzero(~same)
        # How near the float pass itself was to a draw, where it decided otherwise.
        top = np.sort(floats, axis=1)
        margins = (top[:, -1] - top[:, -2]) / np.abs(floats).max()
        right = lambda logits, part: float((logits.argmax(1) == labels)[part].mean())
        parts = {"test": slice(0, tests), "selection": slice(tests, None)}
        found.append(
            {
                "network": name,
                "case": title,
                "weight_bits": widths.tolist(),
                "images": {part: len(labels[at]) for part, at in parts.items()},
                "same": {part: float(same[at].mean()) for part, at in parts.items()},
                "different": int((~same).sum()),
                "margin_where_different": margins[other].tolist(),
                "largest_gap_of_logits": float(np.abs(ours - floats).max() / np.abs(floats).max()),
                "images_with_a_gap": int((np.abs(ours - floats).max(1) > 1e-4 * np.abs(floats).max()).sum()),
                "accuracy_integers": {part: right(fixed, at) for part, at in parts.items()},
                "accuracy_jax": {part: right(floats, at) for part, at in parts.items()},
                "reader": said,
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v2_small"])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--least-bits", nargs="+", type=int, default=[8, 4, 3], choices=[8, 4, 3], help="cases (default all)"
    )
    parser.add_argument("--json", default="integer_export", help="name of the result file")
    args = parser.parse_args()
    begin = time.perf_counter()
    found = [one for name in args.networks for one in measure(name, args.epochs, args.seed, args.least_bits)]
    both = lambda one, key: [one[key][part] for part in ("test", "selection")]
    rows = [
        [
            f"{one['network']}, {one['case']}",
            *(f"{share:.2%}" for share in both(one, "same")),
            str(one["different"]),
            " ".join(f"{share:.2%}" for share in both(one, "accuracy_integers")),
            " ".join(f"{share:.2%}" for share in both(one, "accuracy_jax")),
            f"{one['largest_gap_of_logits']:.2g}",
            f"{1 / one['reader']['seconds_per_image']:.0f}",
        ]
        for one in found
    ]
    _common.table(
        "{test} test and {selection} selection images, 8-bit inputs".format(**found[0]["images"]),
        ["", "same, test", "selection", "others", "right, integers", "right, JAX", "logit gap", "images/s"],
        rows,
    )
    _common.write(args.json, {"cases": found, "seconds": time.perf_counter() - begin})


if __name__ == "__main__":
    main()
