"""Bit configurations evaluated per second: batched, one at a time, and in PyTorch.

    python -m benchmarks.quantized_evaluation [--networks NAME ...] [--count N] [--epochs E] [--json NAME]

Every configuration (bits per layer, weights quantized after training) is run on the 1437 selection images
of digits. All contenders have the same trained weights and give the same logits, which is checked first:

* batched: `training.evaluate_many` with `training.bits_apply`, as all searches of bit widths call it;
* one at a time: the same forward pass, jitted, one configuration per call;
* one at a time, quantizing: the jitted flax model that quantizes its kernels in the forward pass, which is
  what one would write without the fast path;
* PyTorch: the same steps in torch.nn.functional, kernels through fake_quantize_per_tensor_affine, one
  configuration after another, in the fastest of several settings, tried first: images per batch, memory
  format, threads of an operator, configurations in parallel on as many threads as cores;
* PyTorch, vmapped: torch.func.vmap over quantized kernels from a table, 16 configurations at once.

PyTorch is optional: without it those rows are left out.
"""

import argparse
import itertools
import os
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _common
from diffhw.quantization._quantizer import SIGN_SLACK

QUICK = ["--networks", "cnn_tiny", "--count", "64", "--epochs", "2"]
LEFT_OUT = "mobilenet_v2_small; three quarters of the configurations"

_TILE = 64
_VMAPPED = 16


def torch_network(model, kernels_of):
    """``forward(bits, images) -> logits`` of a folded `training.ConvNet` in PyTorch, images (n, c, h, w).

    kernels_of: ``kernels_of(bits) -> {step name: kernel}``, (k, c / groups, r, s) or (k, c).
    """
    import torch
    import torch.nn.functional as F

    acts = {"relu": F.relu, "relu6": F.relu6, "swish": F.silu, "sigmoid": torch.sigmoid}
    biases = {}
    for step in model.steps:
        module = getattr(model, step.name, None)
        if step.kind in ("conv", "dense") and module.bias is not None:
            biases[step.name] = torch.from_numpy(np.array(module.bias[...]))

    def run(step, kernels, x, *more):
        match step.kind:
            case "conv":
                bias = biases.get(step.name)
                return F.conv2d(x, kernels[step.name], bias, step.stride, step.pad, 1, step.groups)
            case "dense":
                return F.linear(x, kernels[step.name], biases.get(step.name))
            case "act":
                return acts[step.function](x)
            case "add":
                return x + more[0]
            case "multiply":
                return x * more[0][:, :, None, None]
            case "mean":
                return x.mean((2, 3))
            case "max_pool":
                return F.max_pool2d(x, step.filter, step.stride, step.pad)
            case "concat":
                return torch.cat([x, *more], 1)
            case "slice":
                return x[:, step.start : step.stop]
            case "shuffle":
                n, c, h, w = x.shape
                return x.reshape(n, step.groups, c // step.groups, h, w).transpose(1, 2).reshape(n, c, h, w)
        raise ValueError(f"a step of unknown kind {step.kind!r}")

    def forward(bits, images):
        kernels, made = kernels_of(bits), {"input": images}
        for step in model.steps:
            made[step.name] = run(step, kernels, *(made[name] for name in step.inputs))
        return made[model.steps[-1].name]

    return forward


def torch_quantizers(quantized):
    """{layer: ``quantize(bits) -> kernel``} in PyTorch, on the grids of our calibrated quantizers."""
    import torch

    made = {}
    for name, kernel, quantizer in zip(
        quantized.names, quantized.kernels(), quantized.weight_quantizers, strict=True
    ):
        kernel = np.array(kernel)
        order = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
        kernel = torch.from_numpy(np.ascontiguousarray(kernel.transpose(order)))
        inverse = np.array(quantizer.inverse)

        def quantize(bits, kernel=kernel, inverse=inverse):
            scale = float(1.0 / inverse[bits - 1])
            if bits == 1:
                return torch.where(kernel >= SIGN_SLACK * scale, scale, -scale)
            top = 2 ** (bits - 1) - 1
            return torch.fake_quantize_per_tensor_affine(kernel, scale, 0, -top, top)

        made[name] = quantize
    return made


def torch_contenders(problem, configs) -> dict:
    """{title: (configurations, run)} with ``run() -> correct images per configuration``."""
    import torch

    names, quantizers = problem.names, torch_quantizers(problem.quantized)
    images = torch.from_numpy(np.ascontiguousarray(problem.selection.x.transpose(0, 3, 1, 2)))
    labels = torch.from_numpy(np.array(problem.selection.y, np.int64))
    one = torch_network(problem.model, lambda bits: {n: quantizers[n](int(b)) for n, b in zip(names, bits)})
    check(problem, one, images, configs)

    def singly(batch, form, threads, workers, configs=configs):
        parts = list(zip(images.contiguous(memory_format=form).split(batch), labels.split(batch)))

        def right(bits):
            with torch.inference_mode():
                return sum(int((one(bits, x).argmax(1) == y).sum()) for x, y in parts)

        def run():
            torch.set_num_threads(threads)
            with ThreadPoolExecutor(workers) as pool:
                return np.array(list(pool.map(right, configs) if workers > 1 else map(right, configs)))

        return run

    tables = {n: torch.stack([quantizers[n](b) for b in range(1, problem.max_bits + 1)]) for n in names}
    place = {name: i for i, name in enumerate(names)}
    given = torch_network(problem.model, lambda kernels: kernels)
    many = torch.func.vmap(given, in_dims=(0, None))

    def vmapped():
        torch.set_num_threads(os.cpu_count() or 1)
        found = []
        with torch.inference_mode():
            for part in np.split(configs, range(_VMAPPED, len(configs), _VMAPPED)):
                rows = torch.from_numpy(part - 1)
                logits = many({n: tables[n][rows[:, place[n]]] for n in names}, images)
                found.append((logits.argmax(-1) == labels).sum(-1).numpy())
        return np.concatenate(found)

    cores = os.cpu_count() or 1
    formats = (torch.contiguous_format, torch.channels_last)
    ways = sorted({(1, 1), (cores, 1), (1, cores)})
    settings = list(itertools.product((_TILE, 256, len(labels)), formats, ways))
    seconds = []
    for batch, form, way in settings:
        run = singly(batch, form, *way, configs=configs[:4])
        run()
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    batch, form, way = settings[int(np.argmin(seconds))]
    title = f"PyTorch, batches of {batch}, {str(form).split('.')[-1]}, {way[0]} x {way[1]} threads"
    return {
        title: (configs, singly(batch, form, *way)),
        f"PyTorch, vmapped by {_VMAPPED}": (configs, vmapped),
    }


def check(problem, forward, images, configs) -> None:
    """Exits unless the PyTorch network gives our logits."""
    import torch

    gaps, most = [], 0.0
    for bits in configs[:8]:
        ours = np.asarray(problem.quantized(jnp.asarray(bits, float), jnp.asarray(problem.selection.x)))
        with torch.inference_mode():
            gaps.append(float(np.abs(forward(bits, images).numpy() - ours).max()))
        most = max(most, float(np.abs(ours).max()))
    print(f"  PyTorch's logits differ from ours by {max(gaps):.2g} at most (logits up to {most:.3g})")
    if max(gaps) > 1e-3 * most:
        raise SystemExit("the PyTorch network is not ours: nothing is compared")


def our_contenders(problem, configs, few) -> dict:
    """The same for ours; ``few`` configurations for the slow forms."""
    from diffhw import training
    from diffhw.training._train import tiles

    data = problem.selection
    arrays = tuple(map(jnp.asarray, tiles(data, _TILE)))

    @jax.jit
    def right(forward, row, x, y, on):
        hits = jax.lax.map(lambda part: (forward(row, part[0]).argmax(-1) == part[1]) @ part[2], (x, y, on))
        return hits.sum()

    def singly(forward):
        return lambda: np.array([int(right(forward, jnp.asarray(row, jnp.float32), *arrays)) for row in few])

    batched = lambda: np.rint(training.evaluate_many(problem.apply, configs, data) * len(data)).astype(int)
    return {
        "batched": (configs, batched),
        "one at a time": (few, singly(problem.apply)),
        "one at a time, quantizing": (few, singly(jax.tree_util.Partial(problem.quantized))),
    }


def measure(network: str, count: int, epochs: int, repeats: int) -> dict:
    """Rates of all contenders on one network."""
    from diffhw.recipes._bit_front import tiny_bit_problem
    from diffhw.recipes._bit_problem import bit_problem

    make = tiny_bit_problem if network == "cnn_tiny" else lambda **kw: bit_problem(network, **kw)
    problem = make(epochs=epochs)
    rng = np.random.default_rng(0)
    configs = rng.integers(1, problem.max_bits + 1, (count, len(problem.names)))
    few = configs[: max(8, count // 8)]
    print(f"\n{network}: {len(problem.names)} layers, {problem.macs.sum():.0f} MACs an image")
    contenders = our_contenders(problem, configs, few)
    note = ""
    try:
        import torch
    except ImportError:
        note = "PyTorch is not installed: its rows are left out"
        print(f"  {note}")
    else:
        note = f"PyTorch {torch.__version__}"
        contenders |= torch_contenders(problem, few)
    correct = {title: run() for title, (_, run) in contenders.items()}
    seconds = _common.timed_in_turn({title: run for title, (_, run) in contenders.items()}, repeats)
    base = correct["batched"][: len(few)]
    rows, found = [], {}
    for title, (rows_run, _) in contenders.items():
        rate = len(rows_run) / _common.median(seconds[title])
        off = int(np.abs(correct[title][: len(few)] - base).max())
        found[title] = {"evaluations_per_s": rate, "configurations": len(rows_run), "largest_gap_images": off}
    for title, one in found.items():
        times = found["batched"]["evaluations_per_s"] / one["evaluations_per_s"]
        rows.append([title, one["evaluations_per_s"], times, one["largest_gap_images"]])
    _common.table(
        f"{network}, {len(problem.selection)} images",
        ["", "configurations/s", "batched is faster by", "images told otherwise, most"],
        rows,
    )
    return {"layers": len(problem.names), "note": note, "contenders": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v2_small", "cnn_tiny"])
    parser.add_argument("--count", type=int, default=256, help="configurations of the batched run")
    parser.add_argument("--epochs", type=int, default=10, help="of training; no matter for speed")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", default="quantized_evaluation", help="name of the result file")
    args = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", os.cpu_count())  # before the first use: see evaluate_many
    _common.write(
        args.json,
        {name: measure(name, args.count, args.epochs, args.repeats) for name in args.networks},
    )


if __name__ == "__main__":
    main()
