"""What is made of the published model: small enough for its post, and seeing as before."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from agent.errors import Corrupt
from agent.model_weights import WEIGHTS_MIN, with_small_weights
from tests.fakes.models import half_precision

SEED = 20261122


def test_large_layers_keep_a_byte_a_weight_and_answer_as_before() -> None:
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    before = half_precision(rng, channels=(8, 512, 4), kernel=5)  # 102,400 weights and 51,200
    after = with_small_weights(before)

    kinds = {name: kind for name, (kind, _) in _weights(after).items()}
    assert kinds == {"large": schema.TensorType.INT8, "small": schema.TensorType.FLOAT16}
    assert len(before) - len(after) > 0.9 * WEIGHTS_MIN  # of two bytes a weight one is left

    picture = rng.uniform(-1, 1, (1, 16, 16, 8)).astype(np.float32)
    exact, found = _answer(before, picture), _answer(after, picture)
    spread = float(np.std(exact))
    assert 0 < np.abs(found - exact).max() < 0.05 * spread  # it differs, for it is another sum, and by little


def test_a_channel_of_nothing_is_a_channel_of_nothing() -> None:
    rng = np.random.default_rng(SEED)
    picture = rng.uniform(-1, 1, (1, 16, 16, 8)).astype(np.float32)
    empty = half_precision(rng, channels=(8, 512, 4), kernel=5, scale=0.0)
    assert np.array_equal(_answer(with_small_weights(empty), picture), _answer(empty, picture))


def test_a_layer_that_gives_the_models_answers_stays_exact() -> None:
    rng = np.random.default_rng(SEED)
    model = half_precision(rng, channels=(8, 512, 4), kernel=5, names=("BoxPredictor_0/ClassPredictor", "small"))
    kinds = {kind for kind, _ in _weights(with_small_weights(model)).values()}
    assert kinds == {schema.TensorType.FLOAT16}


def test_the_same_model_gives_the_same_bytes() -> None:
    model = half_precision(np.random.default_rng(SEED), channels=(8, 512, 4), kernel=5)
    assert with_small_weights(model) == with_small_weights(model)


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "offset"])
def test_what_is_no_model_is_refused_in_one_line(damage: str) -> None:
    rng = np.random.default_rng(SEED)
    model = half_precision(rng, channels=(8, 512, 4), kernel=5)
    broken = {
        "empty": b"",
        "cut": model[: len(model) // 2],
        "noise": rng.bytes(4096),
        "offset": struct.pack("<I", 1 << 30) + model[4:],
    }[damage]
    with pytest.raises(Corrupt, match="not a model whose weights are in half precision") as caught:
        with_small_weights(broken)
    assert "\n" not in str(caught.value)


def _weights(model: bytes) -> dict[str, tuple[int, int]]:
    """Each layer's type and bytes of weights as they lie in the file, by the layer's name."""
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(model), 0))
    graph = tree.subgraphs[0]
    from_half = {op.outputs[0]: op.inputs[0] for op in graph.operators if len(op.inputs) == 1}
    found = {}
    for op in graph.operators:
        if len(op.inputs) == 3:
            tensor = graph.tensors[from_half.get(op.inputs[1], op.inputs[1])]
            found[graph.tensors[op.outputs[0]].name.decode()] = (tensor.type, len(tree.buffers[tensor.buffer].data))
    return found


def _answer(model: bytes, picture: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture)
    interpreter.invoke()
    return np.array(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
