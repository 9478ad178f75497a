"""Shapes of an ONNX graph: onnx's own inference, alternated with folding of small shape arithmetic."""

from math import prod

import numpy as np

__all__ = ["infer", "kept", "set_inputs"]

_SMALL = 4096
_ROUNDS = 64
# Shape arithmetic worth evaluating; everything else stays in the graph.
_FOLDABLE = {
    *(
        "Gather",
        "Concat",
        "Unsqueeze",
        "Squeeze",
        "Slice",
        "Cast",
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Mod",
        "Floor",
    ),
    *("Ceil", "Sqrt", "Range", "ConstantOfShape", "Equal", "Where", "Reshape", "Transpose", "Identity"),
    *(
        "ReduceProd",
        "Min",
        "Max",
        "Less",
        "Greater",
        "Not",
        "And",
        "Or",
        "Neg",
        "Expand",
        "Constant",
        "Split",
    ),
}


def kept(tensor) -> bool:
    """Whether a tensor still has its data (stripped and external ones do not), or is empty by shape."""
    typed = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    return bool(tensor.raw_data) or any(len(data) for data in typed) or prod(tensor.dims) == 0


def strip(graph) -> None:
    """Drop the data of large tensors: only their shapes matter here, and inference copies the model."""
    for tensor in graph.initializer:
        if prod(tensor.dims) > _SMALL or tensor.data_location == 1:
            for name in (
                "raw_data",
                "float_data",
                "int32_data",
                "int64_data",
                "double_data",
                "external_data",
            ):
                tensor.ClearField(name)
            tensor.data_location = 0


def set_inputs(graph, batch: int, dims: dict, where: str) -> tuple[int, list[str]]:
    """Put sizes into the symbolic dimensions: axis 0 is the batch, others come from ``dims`` by name.

    Returns (the batch the graph now has, notes).
    """
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    known, fixed, notes, free = dict(dims), [], [], False
    for value in inputs:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.WhichOneof("value") == "dim_value" and dim.dim_value > 0:
                if axis == 0:
                    fixed.append(dim.dim_value)
                continue
            name = dim.dim_param
            if name in known:
                size = known[name]
            elif axis == 0:
                size, free = batch, True
                if name:
                    known[name] = batch
            else:
                asked = name or f"{value.name}[{axis}]"
                raise ValueError(
                    f"{where}: input {value.name} has a free dimension {asked!r} at axis {axis}: "
                    f"pass dims={{{asked!r}: size}}"
                    + ("" if name else " is not possible for an unnamed one, export it fixed")
                )
            dim.dim_value = int(size)
    if not free and fixed and batch != fixed[0]:
        if batch != 1:
            raise ValueError(
                f"{where}: input {inputs[0].name} has a fixed first dimension of {fixed[0]}, so "
                f"batch={batch} is not possible; export it with a free batch dimension"
            )
        batch = fixed[0]
        notes.append(f"the file's own first dimension of {batch} was kept")
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    return batch, notes


def _shape(value) -> tuple[int, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    dims = [dim.dim_value if dim.WhichOneof("value") == "dim_value" else -1 for dim in tensor.shape.dim]
    return None if -1 in dims else tuple(dims)


def _evaluate(onnx, node, constants: dict, opsets) -> list | None:
    """The node's outputs from constant inputs, or None where it cannot be evaluated."""
    from onnx.reference import ReferenceEvaluator

    names = [name for name in dict.fromkeys(node.input) if name]
    untyped = lambda name: onnx.helper.make_empty_tensor_value_info(name)
    graph = onnx.helper.make_graph(
        [node], "one", [untyped(n) for n in names], [untyped(n) for n in node.output if n]
    )
    try:
        model = onnx.helper.make_model(graph, opset_imports=opsets)
        return list(ReferenceEvaluator(model).run(None, {name: constants[name] for name in names}))
    except Exception:  # whatever it is, the node simply stays in the graph
        return None


def _fold(onnx, model, shapes: dict, constants: dict) -> bool:
    """Replace nodes of known, small value by initializers; True if any was."""
    graph, left, changed = model.graph, [], False
    for node in graph.node:
        results = None
        if node.op_type == "Shape" and shapes.get(node.input[0]) is not None:
            start = next((a.i for a in node.attribute if a.name == "start"), 0)
            end = next((a.i for a in node.attribute if a.name == "end"), None)
            results = [np.asarray(shapes[node.input[0]][start:end], np.int64)]
        elif node.op_type in _FOLDABLE and all(name in constants for name in node.input if name):
            sizes = [prod(shapes[name]) for name in node.output if shapes.get(name) is not None]
            if len(sizes) == len(node.output) and max(sizes, default=0) <= _SMALL:
                results = _evaluate(onnx, node, constants, model.opset_import)
        if results is None:
            left.append(node)
            continue
        changed = True
        for name, value in zip(node.output, results):
            constants[name] = np.asarray(value)
            graph.initializer.append(onnx.numpy_helper.from_array(constants[name], name))
    if changed:
        del graph.node[:]
        graph.node.extend(left)
    return changed


def infer(onnx, model) -> tuple[dict, dict]:
    """(shapes by tensor name, None-free where known; small constants by name); folds ``model`` in place."""
    strip(model.graph)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer if kept(t)}
    shapes: dict[str, tuple[int, ...]] = {}
    for _ in range(_ROUNDS):
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            shape = _shape(value)
            if shape is not None:
                shapes[value.name] = shape
        if not _fold(onnx, model, shapes, constants):
            break
    return shapes, constants
