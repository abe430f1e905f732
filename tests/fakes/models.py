"""The default model in other forms: real models, made from its flatbuffer with the interpreter's own schema.

The same network with its scores made probabilities, with TensorFlow's post-processing built in, with 8-bit input and
outputs: so one picture must give the same persons through every path of the detector.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from agent.vision.detector.decode import ssd_anchors


class Model:
    """One model being changed. Its graph is `SubGraphT` of TensorFlow Lite's schema."""

    def __init__(self, path: Path) -> None:
        self._model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(path.read_bytes()), 0))
        self.graph = self._model.subgraphs[0]

    def write(self, path: Path) -> Path:
        builder = flatbuffers.Builder(1 << 24)
        builder.Finish(self._model.Pack(builder), file_identifier=b"TFL3")
        path.write_bytes(builder.Output())
        return path

    def output(self, last: int) -> int:
        """The tensor of the output whose last dimension is `last`."""
        found: int = next(i for i in self.graph.outputs if list(self.graph.tensors[i].shape)[-1] == last)
        return found

    def tensor(
        self,
        name: str,
        shape: list[int],
        kind: int = schema.TensorType.FLOAT32,
        data: np.ndarray[Any, Any] | None = None,
        scale: float = 0.0,
        zero: int = 0,
    ) -> int:
        one = schema.TensorT()
        one.name, one.shape, one.type, one.buffer = name.encode(), shape, kind, 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            self._model.buffers.append(buffer)
            one.buffer = len(self._model.buffers) - 1
        if scale:
            one.quantization = schema.QuantizationParametersT()
            one.quantization.scale, one.quantization.zeroPoint = [scale], [zero]
        self.graph.tensors.append(one)
        return len(self.graph.tensors) - 1

    def constant(self, index: int) -> np.ndarray[Any, np.dtype[np.int32]]:
        """What stands in a constant tensor of 32-bit integers."""
        return np.asarray(self._model.buffers[self.graph.tensors[index].buffer].data, np.uint8).view(np.int32)

    def change(self, index: int, values: np.ndarray[Any, Any]) -> None:
        """Writes a constant of the same size."""
        self._model.buffers[self.graph.tensors[index].buffer].data = values.astype(np.int32).view(np.uint8)

    def operator(self, code: int, inputs: list[int], outputs: list[int], *, first: bool = False, **custom: Any) -> None:
        kind = schema.OperatorCodeT()
        kind.builtinCode, kind.version = code, 1
        kind.deprecatedBuiltinCode = min(code, 127)
        one = schema.OperatorT()
        if custom:
            kind.customCode = custom.pop("name").encode()
            builder = flexbuffers.Builder()
            with builder.Map():
                for key, value in sorted(custom.items()):
                    (
                        builder.Float
                        if isinstance(value, float)
                        else builder.Bool
                        if isinstance(value, bool)
                        else builder.Int
                    )(key, value)
            one.customOptions = np.frombuffer(bytes(builder.Finish()), np.uint8)
        self._model.operatorCodes.append(kind)
        one.opcodeIndex = len(self._model.operatorCodes) - 1
        one.inputs, one.outputs = inputs, outputs
        self.graph.operators.insert(0 if first else len(self.graph.operators), one)


def probabilities(source: Path, target: Path) -> Path:
    """Scores 0..1 instead of logits, as TensorFlow's own exporter leaves them."""
    model = Model(source)
    _sigmoid(model)
    return model.write(target)


def _sigmoid(model: Model) -> int:
    logits = next(i for i in model.graph.outputs if list(model.graph.tensors[i].shape)[-1] != 4)
    scores = model.tensor("scores", list(model.graph.tensors[logits].shape))
    model.operator(schema.BuiltinOperator.LOGISTIC, [logits], [scores])
    model.graph.outputs = [scores if i == logits else i for i in model.graph.outputs]
    return scores


def post_processed(source: Path, target: Path) -> Path:
    """With TFLite_Detection_PostProcess: boxes, classes, scores, count."""
    model = Model(source)
    scores, boxes = _sigmoid(model), model.output(4)
    anchors = model.tensor("anchors", [1917, 4], data=ssd_anchors(300))
    outputs = [
        model.tensor(name, shape)
        for name, shape in (("boxes", [1, 20, 4]), ("classes", [1, 20]), ("best", [1, 20]), ("count", [1]))
    ]
    model.operator(
        schema.BuiltinOperator.CUSTOM,
        [boxes, scores, anchors],
        outputs,
        name="TFLite_Detection_PostProcess",
        max_detections=20,
        max_classes_per_detection=1,
        detections_per_class=20,
        use_regular_nms=True,
        nms_score_threshold=0.05,
        nms_iou_threshold=0.5,
        num_classes=list(model.graph.tensors[scores].shape)[-1] - 1,
        y_scale=10.0,
        x_scale=10.0,
        h_scale=5.0,
        w_scale=5.0,
    )
    model.graph.outputs = outputs
    return model.write(target)


def eight_bit(source: Path, target: Path, *, kind: int) -> Path:
    """Input and outputs of 8 bits (INT8 or UINT8), the network between them as it was."""
    model = Model(source)
    zero = 128 if kind == schema.TensorType.UINT8 else 0
    real = model.graph.inputs[0]
    narrow = model.tensor("input8", list(model.graph.tensors[real].shape), kind, scale=1 / 128, zero=zero)
    model.operator(schema.BuiltinOperator.DEQUANTIZE, [narrow], [real], first=True)
    model.graph.inputs = [narrow]
    outputs = []
    for index in model.graph.outputs:
        last = list(model.graph.tensors[index].shape)[-1]
        # Box codes reach some +-10, logits -12 to 4.
        scale, middle = (10 / 127, 0) if last == 4 else (16 / 255, 64)
        out = model.tensor(f"out{last}", list(model.graph.tensors[index].shape), kind, scale=scale, zero=zero + middle)
        model.operator(schema.BuiltinOperator.QUANTIZE, [index], [out])
        outputs.append(out)
    model.graph.outputs = outputs
    return model.write(target)


def counted_boxes(source: Path, target: Path, *, boxes: int) -> Path:
    """With the number of its boxes written into its last reshape, as it was published, where a -1 leaves it open."""
    model = Model(source)
    written = 0
    for op in model.graph.operators:
        if op.outputs[0] in model.graph.outputs and len(op.inputs) == 2:
            shape = model.constant(op.inputs[1])
            if -1 in shape:
                model.change(op.inputs[1], np.where(shape == -1, boxes, shape))
                written += 1
    assert written == 1, "one output is reshaped"
    return model.write(target)


def half_precision(
    rng: np.random.Generator,
    *,
    channels: tuple[int, int, int],
    kernel: int,
    scale: float = 1.0,
    names: tuple[str, str] = ("large", "small"),
) -> bytes:
    """Two convolutions of 16x16 pixels, their weights and biases in half precision and widened by an operator each.

    That is how TensorFlow's converter writes a model of half precision. `scale` of the first one's weights.
    """
    code, float_, half = schema.BuiltinOperator, schema.TensorType.FLOAT32, schema.TensorType.FLOAT16
    tree = schema.ModelT()
    tree.version, tree.operatorCodes, tree.buffers, tree.subgraphs = 3, [], [], [schema.SubGraphT()]
    graph = tree.subgraphs[0]
    graph.tensors, graph.operators = [], []
    for builtin in (code.DEQUANTIZE, code.CONV_2D):
        kind = schema.OperatorCodeT()
        kind.builtinCode = kind.deprecatedBuiltinCode = builtin
        tree.operatorCodes.append(kind)
    tree.buffers.append(schema.BufferT())

    def tensor(name: str, shape: list[int], kind: int, data: bytes = b"") -> int:
        one = schema.TensorT()
        one.name, one.shape, one.type, one.buffer = name.encode(), shape, kind, 0
        if data:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data, np.uint8)
            tree.buffers.append(buffer)
            one.buffer = len(tree.buffers) - 1
        graph.tensors.append(one)
        return len(graph.tensors) - 1

    def operator(index: int, inputs: list[int], outputs: list[int]) -> Any:
        one = schema.OperatorT()
        one.opcodeIndex, one.inputs, one.outputs = index, inputs, outputs
        graph.operators.append(one)
        return one

    def widened(name: str, values: np.ndarray[Any, Any]) -> int:
        source = tensor(f"{name} half", list(values.shape), half, values.astype(np.float16).tobytes())
        target = tensor(name, list(values.shape), float_)
        operator(0, [source], [target])
        return target

    last = tensor("picture", [1, 16, 16, channels[0]], float_)
    graph.inputs = [last]
    for name, ins, outs, factor in zip(names, channels[:2], channels[1:], (scale, 1.0), strict=True):
        weights = widened(f"{name} weights", rng.normal(0, factor, (outs, kernel, kernel, ins)))
        bias = widened(f"{name} bias", rng.normal(0, 1, (outs,)))
        target = tensor(name, [1, 16, 16, outs], float_)
        layer = operator(1, [last, weights, bias], [target])
        layer.builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
        layer.builtinOptions = schema.Conv2DOptionsT()
        layer.builtinOptions.strideW = layer.builtinOptions.strideH = 1
        last = target
    graph.outputs = [last]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(tree.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
