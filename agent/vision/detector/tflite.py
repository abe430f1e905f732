"""A TensorFlow Lite model on the CPU, with `ai-edge-litert` or its ancestor `tflite-runtime`."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.errors import ConfigError, Transient
from agent.types import Bgr, Box, Detection
from agent.vision.detector.decode import Decoder, decoder_for, ssd_sides
from agent.vision.detector.labels import read_names
from agent.vision.opencv import cv2

_SIDE_PX = range(64, 1281)
_PAD = 114  # the gray with which YOLOX was trained to fill a letterbox


class TfliteDetector:
    """One SSD or YOLOX model (see `decode`), by default on one thread: with two the old runtime spins."""

    def __init__(self, *, model: Path, labels: Path, threads: int = 1, delegate: Path | None = None) -> None:
        """`labels` is the label map made for `model`, one class name a line. Nothing is read before `open`.

        `delegate` is the library of an accelerator, loaded through the interpreter's own `load_delegate`; the model
        must then be one compiled for it, if it asks for that (Coral does).
        """
        self.name = f"tflite: {model.name}" + (f" on {delegate.name}" if delegate is not None else "")
        self._delegate = delegate
        self.input_px = 300  # until `open` knows better
        self.sides_px: tuple[int, ...] = (300,)
        self.about = ""  # input and family in words, once it is open
        self._model, self._labels, self._threads = model, labels, threads
        self._interpreter: Any = None
        self._decoder: Decoder | None = None  # of the largest square
        self._decoders: dict[int, Decoder] = {}  # side -> of that square
        self._side_px = 0  # of the interpreter, as it is now
        self._input: dict[str, Any] = {}
        self._outputs: list[dict[str, Any]] = []

    def open(self) -> None:
        """Loads the model. Raises ConfigError when it can never work here."""
        make, load = _runtime()
        try:
            with self._model.open("rb") as file:
                head = file.read(8)
        except FileNotFoundError:
            raise ConfigError(
                f"{self._model}: no such model; `wardpost model fetch` gets the default, "
                "or set vision.detector.model to a .tflite file"
            ) from None
        except OSError as error:
            raise ConfigError(f"{self._model}: the model cannot be read: {error}") from None
        if head[4:8] != b"TFL3":
            raise ConfigError(f"{self._model}: not a TensorFlow Lite model (no TFL3 mark); get the file again")
        names = read_names(self._labels)
        delegates = None if self._delegate is None else [_delegate(load, self._delegate)]
        interpreter = self._interpret(make, delegates)
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        shape = tuple(int(n) for n in inputs[0]["shape"])
        if len(inputs) != 1 or len(shape) != 4 or shape[0] != 1 or shape[3] != 3 or shape[1] != shape[2]:
            raise ConfigError(
                f"{self._model}: its input has the shape {shape}; one square colour picture (1, N, N, 3) is needed"
            )
        if shape[1] not in _SIDE_PX or inputs[0]["dtype"] not in (np.float32, np.uint8, np.int8):
            raise ConfigError(
                f"{self._model}: its input is {shape} of {np.dtype(inputs[0]['dtype'])}; no detector looks so"
            )
        shapes = [tuple(int(n) for n in output["shape"]) for output in outputs]
        self._decoder = decoder_for(shapes, shape[1], names, str(self._model))
        self._interpreter, self._input, self._outputs = interpreter, inputs[0], outputs
        self.input_px = self._side_px = shape[1]
        self._decoder = self._decoder.settled(self._outputs_of(np.full((shape[1], shape[1], 3), _PAD, np.uint8)))
        self._decoders = {} if self._delegate is not None else self._smaller(self._decoder)
        self.sides_px = (*sorted(self._decoders), self.input_px)
        if self._interpreter is None:
            self._interpreter = self._interpret(make, delegates)
        kind = np.dtype(inputs[0]["dtype"])
        self.about = f"{shape[1]}x{shape[2]} {kind}, {self._decoder.family}"

    def _interpret(self, make: Callable[..., Any], delegates: list[Any] | None) -> Any:
        """An interpreter with the model in it. Raises ConfigError."""
        try:
            interpreter = make(model_path=str(self._model), num_threads=self._threads, experimental_delegates=delegates)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"{self._model}: the interpreter refuses it ({_line(error)}); damaged, or made for a newer runtime"
            ) from None
        return interpreter

    def _smaller(self, decoder: Decoder) -> dict[int, Decoder]:
        """Decoders of the smaller squares; none for a model that has a number of boxes written into it."""
        found: dict[int, Decoder] = {}
        for side in ssd_sides(self.input_px)[:-1]:
            smaller = decoder.smaller(side) if side in _SIDE_PX else None
            if smaller is not None:
                found[side] = smaller
        if found:
            try:
                self._resize(min(found))
                found[min(found)].decode(self._outputs_of(np.full((min(found), min(found), 3), _PAD, np.uint8)), 0.5)
                self._resize(self.input_px)
            except (Transient, IndexError, RuntimeError, ValueError):
                self._interpreter, self._side_px = None, self.input_px  # what was tried has left it unable to work
                return {}
        return found

    def _resize(self, side_px: int) -> None:
        """Gives the interpreter another square: some milliseconds, and no memory; the weights stay as they are."""
        if side_px != self._side_px:
            self._interpreter.resize_tensor_input(self._input["index"], [1, side_px, side_px, 3])
            self._interpreter.allocate_tensors()
            self._side_px = side_px

    def detect(self, picture: Bgr, score_min: float, side_px: int = 0) -> list[Detection]:
        """See `Detector.detect`."""
        if self._decoder is None:
            raise Transient(f"{self.name}: not open")
        if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            raise Transient(f"{self.name}: a picture of shape {picture.shape} has no pixels to look at")
        decoder = self._decoders.get(side_px, self._decoder)
        side_px = side_px if decoder is not self._decoder else self.input_px
        square, shown = self._square(picture, decoder, side_px)
        try:
            self._resize(side_px)
        except (RuntimeError, ValueError) as error:
            raise Transient(f"{self.name}: a square of {side_px} px failed: {_line(error)}") from None
        found = decoder.decode(self._outputs_of(square), score_min)
        if shown == (1.0, 1.0):
            return found
        wide, high = shown
        spread = [
            Detection(d.label, d.score, Box(d.box.x / wide, d.box.y / high, d.box.w / wide, d.box.h / high).clipped())
            for d in found
        ]
        return [d for d in spread if d.box.area > 0]

    def _outputs_of(self, square: Bgr) -> list[NDArray[np.float32]]:
        """One inference: what the model says of a picture of its own size. Raises Transient."""
        if self._decoder is None:
            raise Transient(f"{self.name}: not open")
        try:
            self._interpreter.set_tensor(self._input["index"], self._quantised(square, self._decoder))
            self._interpreter.invoke()
            return [_floats(self._interpreter.get_tensor(out["index"]), out["quantization"]) for out in self._outputs]
        except (RuntimeError, ValueError) as error:
            raise Transient(f"{self.name}: inference failed: {_line(error)}") from None

    def _square(self, picture: Bgr, decoder: Decoder, side: int) -> tuple[Bgr, tuple[float, float]]:
        """The picture in a square and the share of the square, wide and high, that it fills."""
        height, width = picture.shape[:2]
        if not decoder.letterbox:
            return _resized(picture, side, side), (1.0, 1.0)
        scale = side / max(height, width)
        w, h = max(round(width * scale), 1), max(round(height * scale), 1)
        square = np.full((side, side, 3), _PAD, np.uint8)
        square[:h, :w] = _resized(picture, w, h)
        return square, (w / side, h / side)

    def _quantised(self, square: Bgr, decoder: Decoder) -> NDArray[Any]:
        """The model's input tensor: channels, range and quantisation as it was trained with."""
        pixels: NDArray[Any] = cv2.cvtColor(square, cv2.COLOR_BGR2RGB) if decoder.rgb else square
        kind = np.dtype(self._input["dtype"])
        scale, zero = self._input["quantization"]
        if kind == np.uint8 and (not scale or (decoder.unit and abs(scale - 1 / 128) < 1e-3 and abs(zero - 128) <= 1)):
            return pixels[None]  # the quantisation undoes the scaling to -1..1: pixels as they are
        values = pixels.astype(np.float32)
        if decoder.unit:
            values = values * np.float32(1 / 127.5) - np.float32(1)
        if kind != np.float32:
            limits = np.iinfo(kind)
            values = np.clip(np.round(values / (scale or 1) + zero), limits.min, limits.max)
        return values.astype(kind, copy=False)[None]


def _resized(picture: Bgr, width: int, height: int) -> Bgr:
    """Averages pixels when shrinking to half or less: plain interpolation would skip thin people."""
    if picture.shape[1] == width and picture.shape[0] == height:
        return picture
    shrink = picture.shape[1] >= 2 * width and picture.shape[0] >= 2 * height
    resized: Bgr = cv2.resize(  # type: ignore[assignment]
        picture, (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    )
    return resized


def _floats(tensor: NDArray[Any], quantization: tuple[float, int]) -> NDArray[np.float32]:
    """A tensor as real numbers."""
    scale, zero = quantization
    if tensor.dtype in (np.uint8, np.int8, np.int16) and scale:
        return (tensor.astype(np.float32) - zero) * np.float32(scale)
    return tensor.astype(np.float32, copy=False)


def _delegate(load: Callable[[str], Any], library: Path) -> Any:
    """The accelerator behind `library`. Raises ConfigError when there is no such file, or no such device."""
    where = "vision.detector.delegate"
    by_path = library.is_absolute() or len(library.parts) > 1
    if by_path and not library.is_file():
        raise ConfigError(
            f"{where}: {library}: no such library; install the accelerator's, or leave it empty for the CPU"
        )
    try:
        if not hasattr(ctypes.CDLL(str(library)), "tflite_plugin_create_delegate"):
            raise ValueError("it has no tflite_plugin_create_delegate")  # noqa: TRY301  (one answer for all of them)
        return load(str(library))
    except (OSError, ValueError, RuntimeError, AttributeError) as error:
        why = _line(error) or "its library gives no reason"
        raise ConfigError(
            f"{where}: {library}: cannot be used ({why}); is the accelerator plugged in, and this its TFLite delegate?"
        ) from None


def _runtime() -> tuple[Callable[..., Any], Callable[[str], Any]]:
    """Interpreter and loader of delegates of whichever runtime is installed, the living one first."""
    with contextlib.suppress(ImportError):
        from ai_edge_litert.interpreter import Interpreter, load_delegate

        return Interpreter, load_delegate
    with contextlib.suppress(ImportError):
        from tflite_runtime.interpreter import Interpreter as OldInterpreter
        from tflite_runtime.interpreter import load_delegate as old_load_delegate

        return OldInterpreter, old_load_delegate
    raise ConfigError(
        "no TensorFlow Lite runtime is installed: `pip install ai-edge-litert` (or tflite-runtime on Python 3.11), "
        'or set vision.detector.driver = "none" to live by motion alone'
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
