"""ONNX graphs as networks. Needs the extra ``onnx``; weights are never loaded, only their shapes."""

import re
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path

from diffhw.workloads import _onnx_shapes
from diffhw.workloads._layer import Layer, Network, NetworkInfo, Operator, layer_numbers, share_note

__all__ = ["from_onnx"]

# Operator -> positions of (activation, second operand).
_CONVS = {"Conv": (0, 1), "ConvInteger": (0, 1), "QLinearConv": (0, 3), "ConvTranspose": (0, 1)}
_PRODUCTS = {"MatMul": (0, 1), "MatMulInteger": (0, 1), "QLinearMatMul": (0, 3), "Gemm": (0, 1)}
_REFUSED = {
    *("LSTM", "GRU", "RNN", "Einsum", "DeformConv", "Attention", "DFT", "STFT", "Det", "LinearAttention"),
}
_BODIES = {"If", "Loop", "Scan"}
_DOMAINS = ("", "ai.onnx")
_FREE = {"Constant", "Identity", "Shape", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout"}


@dataclass(frozen=True)
class _Value:
    """activation: computed from the inputs. label: of the parameter it is made of. made_by: layer indices."""

    activation: bool
    label: str = ""
    made_by: frozenset = frozenset()


def _import():
    try:
        import onnx
        import onnx.inliner
    except ImportError as error:
        raise ValueError("reading .onnx files needs the extra: pip install 'diffhw[onnx]'") from error
    return onnx


def _attributes(onnx, node) -> dict:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _all_nodes(graph):
    """(node, whether it stands in the body of an If, Loop or Scan)."""
    for node in graph.node:
        yield node, False
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                for inner, _ in _all_nodes(body):
                    yield inner, True


def _refuse(graph, where: str) -> None:
    bad, total = Counter(), 0
    for node, in_body in _all_nodes(graph):
        total += 1
        if node.domain not in _DOMAINS:
            bad[f"{node.domain}.{node.op_type}"] += 1
        elif node.op_type in _REFUSED:
            bad[node.op_type] += 1
        elif in_body and (node.op_type in _CONVS or node.op_type in _PRODUCTS):
            bad[f"{node.op_type} inside {'/'.join(sorted(_BODIES))}"] += 1
    if bad:
        count = sum(bad.values())
        listed = ", ".join(f"{name} x{n}" for name, n in bad.most_common())
        raise ValueError(
            f"{where}: {count} of {total} nodes ({100 * count / total:.1f} %) are operators that multiply "
            f"(or may: unknown domain) and are not read: {listed}; "
            f"read are {', '.join((*_CONVS, *_PRODUCTS))}"
        )


def _pad(attributes: dict, size: int, taps: int, axis: int, axes: int) -> tuple[int, int, int, int]:
    """(stride, dilation, low pad, outputs) along one spatial axis."""
    stride = (attributes.get("strides") or [1] * axes)[axis]
    dilation = (attributes.get("dilations") or [1] * axes)[axis]
    reach = dilation * (taps - 1) + 1
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    if auto.startswith("SAME"):
        outputs = -(-size // stride)
        total = max((outputs - 1) * stride + reach - size, 0)
        return stride, dilation, total // 2 if auto == "SAME_UPPER" else -(-total // 2), outputs
    pads = attributes.get("pads") if auto == "NOTSET" else None
    low, high = (pads[axis], pads[axis + axes]) if pads else (0, 0)
    return stride, dilation, low, (size + low + high - reach) // stride + 1


def _conv(attributes: dict, x: tuple, w: tuple, transposed: bool) -> dict:
    """Layer fields of a convolution of x (n, channels, ...) with w; a transposed one as its product."""
    n, channels, *sizes = x
    taps, g = list(w[2:]), attributes.get("group", 1)
    if transposed:
        k, c = w[1] * prod(taps), channels // g
        h, width = (*sizes, 1)[:2] if len(sizes) < 3 else (prod(sizes[:-1]), sizes[-1])
        return dict(n=n, g=g, k=k, c=c, p=h, q=width)
    axes = [
        (size, t, *_pad(attributes, size, t, i, len(sizes))) for i, (size, t) in enumerate(zip(sizes, taps))
    ]
    axes += [(1, 1, 1, 1, 0, 1)] * (2 - len(axes))
    c = w[1]
    for _, t, _, _, _, outputs in axes[:-2]:  # leading axes of a 3-D convolution
        n, c = n * outputs, c * t
    (h, r, sh, dh, top, p), (width, s, sw, dw, left, q) = axes[-2:]
    fields = dict(n=n, g=g, k=w[0] // g, c=c, p=p, q=q, r=r, s=s, h=h, w=width, pad_top=top, pad_left=left)
    return fields | dict(stride_h=sh, stride_w=sw, dilation_h=dh, dilation_w=dw)


def _product(a: tuple, b: tuple, swap: bool) -> dict:
    """Layer fields of a @ b with numpy's broadcasting; swap: a is the weight."""
    a = (1, *a) if len(a) == 1 else a
    b = (*b, 1) if len(b) == 1 else b
    (m, c), k = a[-2:], b[-1]
    batch_a, batch_b = prod(a[:-2]), prod(b[:-2])
    if swap:
        return dict(p=batch_b * k, q=1, c=c, k=m) if batch_a == 1 else dict(g=batch_a, p=k, q=1, c=c, k=m)
    if batch_b == 1:
        return dict(p=batch_a * m, q=1, c=c, k=k)
    lead = max(len(a), len(b)) - 2
    pairs = zip((1,) * (lead - len(a) + 2) + a[:-2], (1,) * (lead - len(b) + 2) + b[:-2])
    return dict(g=prod(max(i, j) for i, j in pairs), p=m, q=1, c=c, k=k)


class _Reader:
    def __init__(self, onnx, model, where: str):
        self.onnx, self.graph, self.where = onnx, model.graph, where
        self.shapes, _ = _onnx_shapes.infer(onnx, model)
        stored = {tensor.name for tensor in self.graph.initializer}
        self.values = {name: _Value(False, name) for name in stored}
        self.values |= {v.name: _Value(True) for v in self.graph.input if v.name not in stored}
        self.layers: list[dict] = []
        self.names: list[str] = []
        self.edges: set[tuple[int, int]] = set()
        self.operators: list[Operator] = []
        self.unknown = 0
        self.notes: list[str] = []

    def shape(self, node, position: int) -> tuple[int, ...]:
        name = node.input[position]
        if name not in self.shapes:
            raise ValueError(
                f"{self.where}: node {node.name or node.output[0]} ({node.op_type}) needs the shape of "
                f"{name!r}, which shape inference does not find; fix the free dimensions when exporting"
            )
        return self.shapes[name]

    def read(self) -> None:
        for node in self.graph.node:
            inputs = [self.values.get(name, _Value(True)) for name in node.input if name]
            if node.op_type in _CONVS or node.op_type in _PRODUCTS:
                out = self.layer(node)
            else:
                made_by = frozenset().union(*(value.made_by for value in inputs))
                label = next((value.label for value in inputs if value.label), "")
                # Without inputs it is a constant or a random number: no parameter path, no activation.
                out = _Value(any(value.activation for value in inputs), label, made_by)
                self.operator(node, out)
            self.values |= {name: out for name in node.output if name}

    def layer(self, node) -> _Value:
        first, second = (_CONVS | _PRODUCTS)[node.op_type]
        x, w = (
            self.values.get(node.input[first], _Value(True)),
            self.values.get(node.input[second], _Value(True)),
        )
        a, b = self.shape(node, first), self.shape(node, second)
        attributes = _attributes(self.onnx, node)
        swap = False
        if node.op_type in _CONVS:
            numbers = _conv(attributes, a, b, node.op_type == "ConvTranspose")
            if node.op_type == "ConvTranspose":
                self.note("transposed convolutions are written as the products they are: k = channels x taps")
            if len(a) > 4:
                self.note(
                    "convolutions over three axes have the leading axis folded: outputs into n, taps into c"
                )
        else:
            a = a[::-1] if attributes.get("transA") else a
            b = b[::-1] if attributes.get("transB") else b
            swap = w.activation and not x.activation
            numbers = _product(a, b, swap)
        weight = x if swap else w
        index = len(self.layers)
        self.layers.append(layer_numbers(**numbers, weight_is_activation=int(weight.activation)))
        self.names.append(self.name(node, weight))
        self.edges |= {(source, index) for source in x.made_by | w.made_by}
        return _Value(True, "", frozenset({index}))

    def name(self, node, weight: _Value) -> str:
        for ending in (".weight", ".kernel"):
            if weight.label.endswith(ending):
                return weight.label.removesuffix(ending)
        scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "")
        modules = [
            one for one in re.findall(r"'([^']*)'", scopes)[:-1] if one
        ]  # the last one is the operation
        if modules:  # torch's own record of the module it came from
            return modules[-1]
        parts = [part for part in node.name.split("/") if part]
        if len(parts) > 1 and parts[-1].startswith(node.op_type):
            tail = parts[-1].removeprefix(node.op_type)
            parts = [*parts[:-2], parts[-2] + tail]
        return ".".join(parts) or f"{node.op_type}{len(self.layers)}"

    def operator(self, node, out: _Value) -> None:
        if node.op_type in _FREE or not out.activation:
            return
        shapes = [self.shapes.get(name) for name in node.output[:1]]
        self.unknown += None in shapes
        elements = sum(prod(shape) for shape in shapes if shape is not None)
        self.operators.append(Operator(node.name or node.output[0], node.op_type, elements))

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def parameters(self) -> int:
        """Elements of the stored floating or 8-bit tensors that are used, running statistics left out."""
        types = self.onnx.TensorProto
        statistics = {
            name
            for node in self.graph.node
            if node.op_type == "BatchNormalization"
            for name in node.input[3:5]
        }
        used = {name for node in self.graph.node for name in node.input} - statistics
        kinds = {types.FLOAT, types.FLOAT16, types.BFLOAT16, types.DOUBLE, types.INT8, types.UINT8}
        return sum(
            prod(t.dims)
            for t in self.graph.initializer
            if t.name in used and t.data_type in kinds and prod(t.dims) > 1
        )


def _unique(names: list[str]) -> tuple[str, ...]:
    seen: Counter = Counter()
    out = []
    for name in names:
        seen[name] += 1
        out.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(out)


def from_onnx(path, batch: int = 1, *, dims: dict[str, int] | None = None) -> Network:
    """Network of an ONNX file. Needs ``pip install 'diffhw[onnx]'``.

    path: the file; external or stripped weight data is neither needed nor read.
    batch: put into a free first dimension of the inputs. A fixed first dimension is kept for batch 1.
    dims: sizes of other free dimensions by name, as ``{"sequence": 128}``.

    Read as layers: Conv, ConvInteger, QLinearConv, ConvTranspose, MatMul, MatMulInteger, QLinearMatMul and
    Gemm; a product whose two operands are computed has ``weight_is_activation = 1``. Other operators that
    multiply (LSTM, Einsum, DeformConv, operators of unknown domains, products inside If, Loop, Scan) are
    refused; everything else is listed in ``info.operators``.

    Raises ValueError: missing extra, not an ONNX file, refused operators with their share of the nodes,
    free dimensions without a size, a shape that cannot be inferred.
    """
    onnx = _import()
    path = Path(path)
    where = str(path)
    if not path.is_file():
        raise ValueError(f"{where}: no such file")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        raise ValueError(f"{where}: not an ONNX file ({type(error).__name__})") from error
    if not model.graph.node:
        raise ValueError(f"{where}: an ONNX file without any node")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _refuse(model.graph, where)
    batch, notes = _onnx_shapes.set_inputs(model.graph, batch, dims or {}, where)
    reader = _Reader(onnx, model, where)
    reader.read()
    if not reader.layers:
        raise ValueError(f"{where}: no convolution or matrix product among {len(model.graph.node)} nodes")
    sizes = reader.layers
    in_layers = sum(
        z["g"] * z["k"] * z["c"] * z["r"] * z["s"] for z in sizes if not z["weight_is_activation"]
    )
    produced = sum(z["n"] * z["g"] * z["k"] * z["p"] * z["q"] for z in sizes)
    parameters = reader.parameters()
    notes += [
        *reader.notes,
        share_note(reader.operators, produced),
    ]
    if reader.unknown:
        notes.append(f"the size of {reader.unknown} of them is unknown and counted as 0")
    if parameters < in_layers:
        notes.append(
            "some weights are used by several layers: other_params is negative so that params is right"
        )
    return Network.create(
        [Layer(**numbers) for numbers in sizes],
        other_params=parameters - in_layers,
        info=NetworkInfo(
            name=path.stem,
            names=_unique(reader.names),
            edges=tuple(sorted(reader.edges)),
            operators=tuple(reader.operators),
            source=f"ONNX file {path.name}, batch {batch}",
            notes=tuple(notes),
        ),
    )
