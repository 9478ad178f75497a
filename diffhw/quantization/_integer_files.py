"""Integer networks on disk: arrays in .npz or .safetensors, scales and steps in JSON beside them."""

import json
import os
import struct
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from diffhw.quantization._graph import Op
from diffhw.quantization._integer_network import IntegerNetwork
from diffhw.quantization._integer_ops import IntegerLayer, Requantize

__all__ = ["load", "save"]

_FORMAT = "diffhw integer network 1"
_ARRAYS = ("kernel", "bias", "multiplier", "shift")
_TYPES = {"I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64}


def _write_safetensors(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """The format: length of the header (u64), header in JSON, then the arrays' bytes."""
    header, offset = {}, 0
    names = {np.dtype(t): name for name, t in _TYPES.items()}
    for name, array in arrays.items():
        end = offset + array.nbytes
        header[name] = {
            "dtype": names[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    data = path.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    arrays = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            first, end = entry["data_offsets"]
            flat = np.frombuffer(data[start + first : start + end], _TYPES[entry["dtype"]])
            arrays[name] = flat.reshape(entry["shape"])
    return arrays


def _paths(path) -> tuple[Path, Path]:
    path = Path(path)
    if path.suffix == ".json":
        found = [path.with_suffix(s) for s in (".npz", ".safetensors") if path.with_suffix(s).exists()]
        return (found[0] if found else path.with_suffix(".npz")), path
    if path.suffix not in (".npz", ".safetensors"):
        raise ValueError(f"an integer network is saved as .npz or .safetensors, got {str(path)!r}")
    return path, path.with_suffix(".json")


def save(network: IntegerNetwork, path) -> tuple[str, str]:
    """See `IntegerNetwork.save`. Each file appears whole or not at all."""
    arrays_at, scales_at = _paths(path)
    arrays, layers = {}, {}
    for name, layer in network.layers.items():
        for field in _ARRAYS:
            arrays[f"{name}:{field}"] = getattr(layer, field)
        layers[name] = {
            field: value for field, value in vars(layer).items() if field not in (*_ARRAYS, "inputs")
        } | {"inputs": asdict(layer.inputs)}
    text = {
        "format": _FORMAT,
        "fraction": network.fraction,
        "result": network.result,
        "ops": [asdict(op) for op in network.ops],
        "layers": layers,
    }
    part = arrays_at.with_name(arrays_at.name + ".part")
    if arrays_at.suffix == ".npz":
        with open(part, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
    else:
        _write_safetensors(part, arrays)
    os.replace(part, arrays_at)
    part = scales_at.with_name(scales_at.name + ".part")
    part.write_text(json.dumps(text, indent=1))
    os.replace(part, scales_at)
    return str(arrays_at), str(scales_at)


def load(path) -> IntegerNetwork:
    """See `IntegerNetwork.load`."""
    arrays_at, scales_at = _paths(path)
    for file in (arrays_at, scales_at):
        if not file.exists():
            raise ValueError(f"no integer network at {str(arrays_at)!r}: {file.name} is missing")
    try:
        text = json.loads(scales_at.read_text())
        if text["format"] != _FORMAT:
            raise ValueError(f"{scales_at}: format must be {_FORMAT!r}, got {text['format']!r}")
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{scales_at} does not describe an integer network: {error}") from error
    try:
        if arrays_at.suffix == ".npz":
            with open(arrays_at, "rb") as file, np.load(file, allow_pickle=False) as found:
                arrays = dict(found)
        else:
            arrays = _read_safetensors(arrays_at)
    except (OSError, ValueError, KeyError, EOFError, struct.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{arrays_at} is not a readable {arrays_at.suffix} file: {error}") from error
    try:
        layers = {name: _layer(name, entry, arrays) for name, entry in text["layers"].items()}
        ops = tuple(
            Op(op["name"], op["kind"], tuple(op["inputs"]), op["layer"], op["settings"]) for op in text["ops"]
        )
        return IntegerNetwork(ops, layers, text["result"], int(text["fraction"]))
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{scales_at} and {arrays_at.name} do not belong together: {error} is missing"
        ) from error


def _layer(name, entry, arrays) -> IntegerLayer:
    entry = dict(entry)
    inputs = Requantize(**entry.pop("inputs"))
    tuples = {field: tuple(entry.pop(field)) for field in ("strides", "dilation", "weight_step")}
    padding = entry.pop("padding")
    padding = padding if isinstance(padding, str) else tuple(tuple(pair) for pair in padding)
    found = {field: arrays[f"{name}:{field}"] for field in _ARRAYS}
    return IntegerLayer(**found, inputs=inputs, padding=padding, **tuples, **entry)
