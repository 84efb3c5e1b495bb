"""From rows to vectors: the bundle's own decoding and preprocessing, and one of its engines. No torch.

Shapes: n rows, B images of a call, C numbers of a vector.
"""

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from exporter.bundle import Bundle, load_bundle
from exporter.embed.plan import Dtype
from exporter.embed.row import Row
from exporter.errors import BundleError, TargetUnavailableError, UsageError, nearest
from exporter.images import open_image, open_part, pixels_or_reason
from exporter.models import Preprocess, normalize
from exporter.signature import Array, TensorSpec

_IMAGES_AT_ONCE = 32
"""At least, where the engine's batch is smaller or free: a call of the engine's runner costs little beside them."""

NOT_FINITE = "the engine gave numbers that are not finite"


class Encoder:
    """A bundle's engine, loaded, and how an image becomes its input."""

    def __init__(self, bundle: Bundle, target: str, output: str, *, threads: int) -> None:
        """Load it.

        Args:
            bundle: with an image tower.
            target: whose engine.
            output: whose vectors are taken, one per image.
            threads: of an engine on the CPU.

        Raises:
            TargetUnavailableError: the engine does not run here.
            BundleError: it is damaged.
        """
        self._preprocess = preprocess_of(bundle)
        self._output = output
        self._manifest = bundle.manifest
        self._runner = bundle.runner(target)
        if self._runner.device == "cpu" and self._runner.threads is not None:
            self._runner.threads = threads
        self._runner.spinning = False  # images are decoded between its calls
        self._runner.load()
        batch = bundle.signature.batch
        self._images = _IMAGES_AT_ONCE if isinstance(batch, str) else batch * -(-_IMAGES_AT_ONCE // batch)

    def __call__(self, rows: Sequence[Row], length: int, dtype: Dtype) -> tuple[Array, list[str | None]]:
        """Vectors (n, C), zeros where there is none, and why there is none, by row.

        Args:
            rows: of the images.
            length: C.
            dtype: of the vectors.
        """
        vectors_nC = np.zeros((len(rows), length), dtype=dtype)
        reasons: list[str | None] = [None] * len(rows)
        taken, pixels_BCHW = list[int](), np.empty(0)
        for place, row in enumerate(rows):
            pixels = pixels_or_reason(opener(row), self._preprocess)
            if isinstance(pixels, str):
                reasons[place] = pixels
            else:
                if not taken:
                    pixels_BCHW = np.empty((self._images, *pixels.shape), dtype=np.uint8)
                pixels_BCHW[len(taken)] = pixels
                taken.append(place)
            if taken and (len(taken) == self._images or place == len(rows) - 1):
                self._run(pixels_BCHW[: len(taken)], taken, vectors_nC, reasons)
                taken = []
        return vectors_nC, reasons

    def _run(
        self, pixels_BCHW: Array, places: Sequence[int], vectors_nC: Array, reasons: list[str | None]
    ) -> None:
        """Put the vectors of some images into their places."""
        found_BC = self._runner(self._as_input(pixels_BCHW))[self._output]
        with np.errstate(over="ignore"):
            rounded_BC = found_BC.astype(vectors_nC.dtype)
        finite_B = np.isfinite(rounded_BC).all(axis=1)
        for place, vector_C, is_finite in zip(places, rounded_BC, finite_B, strict=True):
            if is_finite:
                vectors_nC[place] = vector_C
            else:
                reasons[place] = NOT_FINITE

    def _as_input(self, pixels_BCHW: Array) -> Array:
        given = pixels_BCHW if self._manifest.input == "uint8" else normalize(pixels_BCHW, self._preprocess)
        return np.ascontiguousarray(given.transpose(0, 2, 3, 1)) if self._manifest.layout == "nhwc" else given


def preprocess_of(bundle: Bundle) -> Preprocess:
    """How an image becomes the input of a bundle's engines.

    Raises:
        UsageError: they take no images.
        TargetUnavailableError: they take images that PyTorch resized, and it is not here.
    """
    preprocess = bundle.preprocess()
    if preprocess is None:
        raise UsageError(
            f"{bundle.path}: expected a bundle that takes images, got one that takes "
            f"{bundle.manifest.inputs[0].name}"
        )
    if preprocess.kernel == "torch" and find_spec("torchvision") is None:
        raise TargetUnavailableError(
            f"{bundle.path}: this model's images are resized by torchvision, which is not installed; "
            "pip install torchvision"
        )
    return preprocess


def output_of(bundle: Bundle, asked: str | None) -> TensorSpec:
    """The output that was asked for, or the first one: a vector per image.

    Raises:
        UsageError: there is no such output, or it is no vector per image.
    """
    outputs = {spec.name: spec for spec in bundle.manifest.outputs}
    name = asked or next(iter(outputs))
    if name not in outputs:
        raise UsageError(f"output: expected one of {', '.join(outputs)}, got {name}.{nearest(name, outputs)}")
    if len(outputs[name].shape) != 2:
        shape = "x".join(map(str, outputs[name].shape[1:]))
        raise UsageError(f"output: expected one vector per image, got {name} with {shape} numbers per image")
    return outputs[name]


def opened(path: Path, digest: str) -> Bundle:
    """A bundle, checked, that has to be the one that was planned with.

    Raises:
        BundleError: it is another one, damaged, or not there.
    """
    bundle = load_bundle(path)
    if bundle.manifest.digest != digest:
        raise BundleError(
            f"{path}: expected the bundle with digest {digest[:12]}, got {bundle.manifest.digest[:12]}: it was "
            "replaced; repeat the command with another --out"
        )
    return bundle


def opener(row: Row) -> "partial[Image.Image]":
    """What opens the image of a row."""
    path = Path(row.file)
    return partial(open_image, path) if row.part is None else partial(open_part, path, *row.part)
