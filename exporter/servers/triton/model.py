"""A bundle's engine in Triton's python backend. `pack` copies this file into a model repository, beside the engine.

Needs numpy and the engine's library; where images come in as files, Pillow as well. Nothing of exporter: what it uses
of it is copied along. In: requests of Triton, rows of a batch together. Out: the rows of each request.
"""

import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]
"""By name; the first axis of each is the batch."""

Engine = Callable[[Arrays], Sequence[Any]]
"""One batch in, the outputs in order."""

SETTINGS = "settings.json"
"""What `pack` says of the engine."""

IMAGE_FORMATS = ("JPEG", "PNG")


class Refused(Exception):
    """What is wrong with one request, in one line."""


class TritonPythonModel:
    """Triton makes one for every instance, and calls it with the requests of a batch.

    An error in `initialize` stops the load of the model, and with it the start of the server.
    """

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the engine, whose files must be those of the bundle."""
        folder = Path(args["model_repository"], args["model_version"])
        self._settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        _check_files(folder, self._settings["files"])
        instances = self._settings["instances"]
        threads = max(1, len(os.sched_getaffinity(0)) // instances)
        opened = {"onnx": _open_onnx, "openvino": _open_openvino}[self._settings["engine"]]
        self._engine = opened(folder, self._settings, threads, args["model_instance_device_id"])
        self._decode = None if self._settings["images"] is None else _decoder(self._settings["images"])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request; a request that is refused leaves the others of its batch alone."""
        answers: list[Any] = [None] * len(requests)
        taken: list[tuple[int, Arrays]] = []
        for place, request in enumerate(requests):
            try:
                taken.append((place, self._read(request)))
            except Refused as error:
                refusal = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
                answers[place] = pb_utils.InferenceResponse(error=refusal)
        if taken:
            rows = [len(next(iter(arrays.values()))) for _, arrays in taken]
            names = self._settings["inputs"]
            joined = {name: np.concatenate([arrays[name] for _, arrays in taken]) for name in names}
            found = [np.split(output, np.cumsum(rows)[:-1]) for output in self._run(joined, sum(rows))]
            for (place, _), *parts in zip(taken, *found, strict=True):
                tensors = map(pb_utils.Tensor, self._settings["outputs"], parts)
                answers[place] = pb_utils.InferenceResponse(output_tensors=list(tensors))
        return answers

    def _read(self, request: Any) -> Arrays:
        """The inputs of a request as the engine takes them."""
        inputs = {
            name: pb_utils.get_input_tensor_by_name(request, name).as_numpy()
            for name in self._settings["inputs"]
        }
        if self._decode is not None:
            return {name: self._decode(files.ravel()) for name, files in inputs.items()}
        for name in self._settings["masks"]:
            _check_mask(name, inputs[name])
        return inputs

    def _run(self, inputs: Arrays, rows: int) -> list[Any]:
        """Outputs of as many rows as the inputs have: a static batch is padded with its last row, and cut again."""
        missing = max(0, (self._settings["batch"] or 0) - rows)
        if missing:
            inputs = {
                name: np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
                for name, array in inputs.items()
            }
        return [output[:rows] for output in self._engine(inputs)]


def _check_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, expected in files.items():
        digest = hashlib.sha256()
        with (folder / name).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        if digest.hexdigest() != expected:
            raise ValueError(
                f"{name}: expected sha256 {expected}, got {digest.hexdigest()}; pack the bundle again"
            )


def _check_mask(name: str, mask: Any) -> None:
    if not (mask[:, 0] == 1).all() or (mask[:, 1:] > mask[:, :-1]).any():
        raise Refused(f"{name}: expected ones for the tokens of every text, and then zeros for its padding")


def _open_onnx(folder: Path, settings: Mapping[str, Any], threads: int, device: str) -> Engine:
    """A session of which every node runs on the provider."""
    import onnxruntime

    provider, on_gpu = settings["provider"], settings["provider"] != "CPUExecutionProvider"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # requests come with gaps
    chosen = dict(settings["provider_options"])
    if on_gpu:
        onnxruntime.preload_dlls()
        chosen["device_id"] = device
        if settings["batch"]:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = onnxruntime.InferenceSession(
        str(folder / settings["file"]), options, providers=[(provider, chosen)], enable_fallback=0
    )
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"expected {provider}, got {', '.join(session.get_providers())}")
    return lambda inputs: list(session.run(settings["outputs"], inputs))


def _open_openvino(folder: Path, settings: Mapping[str, Any], threads: int, device: str) -> Engine:
    """A request of a compiled model; a GPU is the one that the bundle names."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it would report the import
    import openvino

    properties = dict(settings["properties"])
    if settings["device"] == "CPU":
        properties.setdefault("INFERENCE_NUM_THREADS", threads)
    compiled = openvino.Core().compile_model(folder / settings["file"], settings["device"], properties)
    request = compiled.create_infer_request()

    def run(inputs: Arrays) -> list[Any]:
        request.infer(inputs)
        return [np.array(request.get_tensor(name).data) for name in settings["outputs"]]

    return run


def _decoder(images: Mapping[str, Any]) -> Callable[[Sequence[bytes]], Any]:
    """From image files to the engine's input (n, ...), as the bundle says."""
    from PIL import Image

    from exporter.models.preprocessing.pixels import crop_image, normalize

    listed = {
        key: tuple(value) if isinstance(value, list) else value for key, value in images["preprocess"].items()
    }
    preprocess: Any = SimpleNamespace(**listed)

    def pixels_of(place: int, data: bytes) -> Any:
        try:
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
                image.load()
                return crop_image(image, preprocess)
        except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
            text = " ".join(str(error).split())[:120]
            why = "neither" if type(error).__name__ == "UnidentifiedImageError" else text
            raise Refused(f"image {place}: expected a {' or '.join(IMAGE_FORMATS)} file, got {why}") from None

    def decode(files: Sequence[bytes]) -> Any:
        pixels_BCHW = np.stack([pixels_of(place, data) for place, data in enumerate(files)])
        given = pixels_BCHW if images["input"] == "uint8" else normalize(pixels_BCHW, preprocess)
        return np.ascontiguousarray(given.transpose(0, 2, 3, 1)) if images["layout"] == "nhwc" else given

    return decode
