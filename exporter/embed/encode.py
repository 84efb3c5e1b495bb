"""From rows to vectors: the bundle's own decoding and preprocessing, and one of its engines. No torch.

Shapes: n rows, B images of a call, C numbers of a vector.
"""

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from socket import gethostname

import numpy as np
from PIL import Image

from exporter.bundle import Bundle, load_bundle
from exporter.embed.parquet import Vectors
from exporter.embed.plan import Plan
from exporter.embed.row import Row, stamp_of
from exporter.errors import BundleError, TargetUnavailableError, UsageError, nearest, quoted
from exporter.images import open_image, open_part, pixels_or_reason
from exporter.ladder import Cascade, images_at_once
from exporter.models import Preprocess, normalize
from exporter.signature import Array, TensorSpec

_IMAGES_AT_ONCE = 32
"""At least, where the engine's batch is smaller or free: a call of the engine's runner costs little beside them."""

NOT_FINITE = "the engine gave numbers that are not finite"


class Encoder:
    """A bundle's engine, or those of its ladder, loaded, and how an image becomes its input."""

    def __init__(self, bundle: Bundle, plan: Plan, *, threads: int) -> None:
        """Load it.

        Args:
            bundle: with an image tower.
            plan: whose engine, and which of its outputs: one vector per image.
            threads: of an engine on the CPU.

        Raises:
            TargetUnavailableError: an engine does not run here.
            BundleError: one is damaged.
        """
        self._preprocess = preprocess_of(bundle)
        self._plan = plan
        self._manifest = bundle.manifest
        cascade, record = Cascade.of(bundle), bundle.ladder()
        self._rungs = None if record is None else [each.name for each in record.rungs]
        self._cascade = cascade or Cascade(runners=(bundle.runner(plan.target),), threshold=-np.inf)
        for runner in self._cascade.runners:
            if runner.device == "cpu" and runner.threads is not None:
                runner.threads = threads
            runner.spinning = False  # images are decoded between its calls
            runner.load()
        self._images = images_of_a_call(bundle)

    def __call__(self, rows: Sequence[Row]) -> Vectors:
        """The vectors of images, and why there is none.

        Raises:
            UsageError: the file of a row was there when the run was planned, and is not here.
        """
        found = self.nothing(len(rows), None)
        taken, pixels_BCHW = list[int](), np.empty(0)
        for place, row in enumerate(rows):
            pixels = pixels_or_reason(opener(row), self._preprocess)
            if isinstance(pixels, str):
                _check_seen(row)
                found.reasons[place] = pixels
            else:
                if not taken:
                    pixels_BCHW = np.empty((self._images, *pixels.shape), dtype=np.uint8)
                pixels_BCHW[len(taken)] = pixels
                taken.append(place)
            if taken and (len(taken) == self._images or place == len(rows) - 1):
                self._run(pixels_BCHW[: len(taken)], taken, found)
                taken = []
        return found

    def nothing(self, count: int, why: str | None) -> Vectors:
        """Rows without vectors, and the reason of all of them."""
        return Vectors(
            name=self._plan.output,
            values_nC=np.zeros((count, self._plan.length), dtype=self._plan.dtype),
            reasons=[why] * count,
            rungs=None if self._rungs is None else [None] * count,
        )

    def _run(self, pixels_BCHW: Array, places: Sequence[int], found: Vectors) -> None:
        """Put the vectors of some images into their places."""
        routed = self._cascade.routed(self._as_input(pixels_BCHW))
        with np.errstate(over="ignore"):
            rounded_BC = routed.outputs[self._plan.output].astype(self._plan.dtype)
        finite_B = np.isfinite(rounded_BC).all(axis=1)
        for row, place in enumerate(places):
            if not finite_B[row]:
                found.reasons[place] = NOT_FINITE
                continue
            found.values_nC[place] = rounded_BC[row]
            if found.rungs is not None and self._rungs is not None:
                found.rungs[place] = self._rungs[routed.rung_n[row]]

    def _as_input(self, pixels_BCHW: Array) -> Array:
        given = pixels_BCHW if self._manifest.input == "uint8" else normalize(pixels_BCHW, self._preprocess)
        return np.ascontiguousarray(given.transpose(0, 2, 3, 1)) if self._manifest.layout == "nhwc" else given


def images_of_a_call(bundle: Bundle) -> int:
    """Images that go through the engine, or through the ladder, at once: whole batches."""
    batch = bundle.signature.batch
    images = _IMAGES_AT_ONCE if isinstance(batch, str) else batch * -(-_IMAGES_AT_ONCE // batch)
    return images if bundle.ladder() is None else max(images, images_at_once(batch))


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


def _check_seen(row: Row) -> None:
    if row.stamp is not None and stamp_of(row.file) is None:
        raise UsageError(
            f"data: {quoted(row.file)}: was there when the run was planned, is not on {gethostname()} now; workers "
            "need the data at the same path"
        )


def opener(row: Row) -> "partial[Image.Image]":
    """What opens the image of a row."""
    path = Path(row.file)
    return partial(open_image, path) if row.part is None else partial(open_part, path, *row.part)
