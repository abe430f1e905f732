"""A TensorFlow Lite model whose large convolutions keep their weights in 8 bits: less memory, the same finds. Pure.

XNNPACK unpacks weights of half precision to 32 bits and keeps those. Weights of 8 bits stay as they are, with a scale
for each output channel; the layer's input is quantised as it comes, sums are 32-bit and the output is float again. That
is dynamic range quantisation as TensorFlow Lite's converter does it (its 8-bit quantisation specification: symmetric,
-127 to 127, per axis 0 of a convolution's filter). Layers that see much of the picture at once hold most weights and do
little of the work, so only those are changed: the many cheap layers before them stay exact.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.errors import ConfigError, Corrupt

WEIGHTS_MIN = 100_000  # of a layer: 11 of the default model's 55 convolutions hold 3.6 of its 4.9 million weights
_EXACT = b"BoxPredictor"  # in the names of the layers whose answers are the model's: nothing evens out their errors


def with_small_weights(model: bytes) -> bytes:
    """The model, written anew. The same bytes for the same model and the same release of `flatbuffers`.

    Takes a second. Raises ConfigError where the interpreter's own description of its format is not installed, and
    Corrupt for a file that is no such model.
    """
    try:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed, with which the default model is made smaller") from None
    try:
        tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(model), 0))
        graph = tree.subgraphs[0]
        wideners = {op.outputs[0]: op for op in graph.operators if _code(tree, op) == schema.BuiltinOperator.DEQUANTIZE}
        needless = []
        for op in graph.operators:
            if _code(tree, op) == schema.BuiltinOperator.CONV_2D and _is_large(graph, op, wideners):
                needless += [_quantise(schema, tree, op, wideners[op.inputs[1]]), _widen(tree, op, wideners)]
    except (struct.error, LookupError, AttributeError, TypeError, ValueError) as error:
        raise Corrupt(f"not a model whose weights are in half precision ({type(error).__name__}: {error})") from None
    graph.operators = [op for op in graph.operators if not any(op is other for other in needless)]
    builder = flatbuffers.Builder(len(model))
    builder.Finish(tree.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _code(tree: Any, op: Any) -> int:
    """Which operator; files older than its second field have it in the first."""
    kind = tree.operatorCodes[op.opcodeIndex]
    return int(max(kind.builtinCode, kind.deprecatedBuiltinCode))


def _is_large(graph: Any, op: Any, wideners: dict[int, Any]) -> bool:
    weights, name = graph.tensors[op.inputs[1]], graph.tensors[op.outputs[0]].name
    return op.inputs[1] in wideners and int(np.prod(weights.shape)) >= WEIGHTS_MIN and _EXACT not in name


def _quantise(schema: Any, tree: Any, op: Any, widener: Any) -> Any:
    """Puts 8-bit weights into the layer. Returns the operator that widened the old ones."""
    graph = tree.subgraphs[0]
    weights = graph.tensors[op.inputs[1]]
    wide = _taken(tree, weights, graph.tensors[widener.inputs[0]]).reshape(weights.shape[0], -1)
    scales = np.abs(wide).max(axis=1) / np.float32(127)
    scales[scales == 0] = 1  # a channel of nothing
    narrow = np.clip(np.round(wide / scales[:, None]), -127, 127).astype(np.int8)
    tree.buffers[weights.buffer].data = narrow.reshape(-1).view(np.uint8)
    weights.type = schema.TensorType.INT8
    weights.quantization = schema.QuantizationParametersT()
    weights.quantization.scale = scales.astype(np.float32)
    weights.quantization.zeroPoint = np.zeros(len(wide), np.int64)
    weights.quantization.quantizedDimension = 0
    return widener


def _widen(tree: Any, op: Any, wideners: dict[int, Any]) -> Any:
    """Makes the layer's bias a constant of 32 bits, as such layers want it. Returns the operator that widened it."""
    graph = tree.subgraphs[0]
    widener, bias = wideners[op.inputs[2]], graph.tensors[op.inputs[2]]
    values = _taken(tree, bias, graph.tensors[widener.inputs[0]])
    tree.buffers[bias.buffer].data = values.view(np.uint8)
    return widener


def _taken(tree: Any, tensor: Any, half: Any) -> NDArray[np.float32]:
    """The constant `half`, of half precision, as `tensor` shall have it from now on; `half` keeps nothing."""
    tensor.buffer, half.buffer = half.buffer, 0  # 0 is by definition the empty one
    data: NDArray[np.uint8] = np.asarray(tree.buffers[tensor.buffer].data, dtype=np.uint8)
    return data.view(np.float16).astype(np.float32)
