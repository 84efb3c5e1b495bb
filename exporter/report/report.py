"""Public functions of the report package: from a bundle or a sweep to its report, as HTML and Markdown."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from exporter.arrays import ArrayForm, read_archive
from exporter.bundle import SAMPLE_FILE, Bundle
from exporter.errors import BundleError
from exporter.records import BENCH_FILE, VALIDATION_FILE, BenchRecord, ValidationRecord, read_file
from exporter.report.bundle_content import Evidence, bundle_content
from exporter.report.content import Picture, ReportContent
from exporter.report.html import render_html
from exporter.report.markdown import render_markdown
from exporter.report.merged_regions import first_groups, slideshow_pictures
from exporter.report.sweep_content import sweep_content
from exporter.report.visible import visible
from exporter.sweep import SWEEP_FILE, read_record

HTML_FILE = "report.html"
MARKDOWN_FILE = "report.md"
MERGES_FILE = "merges.npz"
_REMEDY = "make the file again"


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report, twice: a page, and a text for pull requests. The same input gives the same texts."""

    html: str
    markdown: str


def report_bundle(
    bundle: Bundle,
    *,
    image: Image.Image | None = None,
    groups_LBT: npt.NDArray[Any] | None = None,
) -> Report:
    """Everything that is known about a bundle.

    Args:
        bundle: opened; `validation.json`, `bench.json` and `merges.npz` are read if they are of the bundle.
        image: the picture that `groups_LBT` belongs to; the first image of the bundle's sample if not given.
        groups_LBT: integers, after each block the number of the token that each original token is part of; those of
            `merges.npz` if not given.

    Raises:
        BundleError: a file beside the engines is not what its command writes.
    """
    pictures = _pictures(bundle, image, groups_LBT)
    return _rendered(bundle_content(evidence(bundle, pictures)))


def evidence(bundle: Bundle, pictures: tuple[Picture, ...] = ()) -> Evidence:
    """What lies in a bundle's folder, read and checked.

    Raises:
        BundleError: a file beside the engines is not what its command writes.
    """
    files, blocks = bundle.manifest.files, len(bundle.manifest.schedule.merged)
    validation, benchmark = None, None
    if VALIDATION_FILE in files:
        validation = read_file(ValidationRecord, bundle.path / VALIDATION_FILE, _REMEDY)
    if BENCH_FILE in files:
        benchmark = read_file(BenchRecord, bundle.path / BENCH_FILE, _REMEDY)
    _check_blocks(VALIDATION_FILE, [row.block for row in validation.blocks] if validation else (), blocks)
    for times in benchmark.blocks.values() if benchmark else ():
        _check_blocks(BENCH_FILE, [row.block for row in times], blocks)
    return Evidence(
        manifest=bundle.manifest,
        validation=validation,
        benchmark=benchmark,
        pictures=pictures,
        ladder=bundle.ladder(),
    )


def report_sweep(path: str | Path) -> Report:
    """Everything that a sweep found.

    Args:
        path: the sweep's folder, or its `sweep.json`.

    Raises:
        BundleError: there is no `sweep.json`, or it is not what `sweep` writes.
    """
    path = Path(path)
    return _rendered(sweep_content(read_record(path.parent if path.name == SWEEP_FILE else path)))


def _check_blocks(file: str, found: Iterable[int], blocks: int) -> None:
    if odd := [block for block in found if not 0 <= block < blocks]:
        raise BundleError(f"{file}: blocks: expected blocks 0 to {blocks - 1}, got {odd[0]}; {_REMEDY}")


def _rendered(content: ReportContent) -> Report:
    return Report(html=render_html(content), markdown=render_markdown(content))


def _pictures(
    bundle: Bundle, image: Image.Image | None, groups_LBT: npt.NDArray[Any] | None
) -> tuple[Picture, ...]:
    manifest = bundle.manifest
    if manifest.tower != "image" or manifest.schedule.is_dense:
        return ()
    if groups_LBT is None:
        if MERGES_FILE not in manifest.files:
            return ()
        groups_LBT = _read_groups_file(bundle)
    tokens, prefix = manifest.schedule.tokens[0], manifest.tokens_protected
    groups_LT = first_groups(groups_LBT, tokens)
    image_HWC = _image_pixels(bundle) if image is None else _cropped(bundle, image)
    return slideshow_pictures(
        visible(image_HWC), groups_LT, prefix=prefix, tokens=tokens, stated=manifest.patch_grid
    )


def _read_groups_file(bundle: Bundle) -> npt.NDArray[Any]:
    schedule = bundle.manifest.schedule
    form = ArrayForm(dtype="integers", shape=(len(schedule.merged), "images", schedule.tokens[0]))
    return read_archive(bundle.path / MERGES_FILE, {"groups_LBT": form}, _REMEDY)["groups_LBT"]


def _cropped(bundle: Bundle, image: Image.Image) -> npt.NDArray[np.uint8]:
    """A picture as the model sees it, (H, W, C) bytes."""
    from exporter.models import crop_image

    preprocess = bundle.preprocess()
    if preprocess is None:
        raise BundleError(f"{bundle.path}: this bundle does not say how an image becomes its input")
    return np.ascontiguousarray(crop_image(image, preprocess).transpose(1, 2, 0))


def _image_pixels(bundle: Bundle) -> npt.NDArray[np.uint8]:
    """The first image of the sample, (H, W, C) bytes, with its normalisation undone."""
    manifest = bundle.manifest
    name = manifest.inputs[0].name
    images = bundle.sample()[name]
    image = images[0] if images.ndim == 4 else images
    image_HWC = image.transpose(1, 2, 0) if image.ndim == 3 and manifest.layout == "nchw" else image
    if image_HWC.ndim != 3 or not image_HWC.size:
        raise BundleError(f"{bundle.path / SAMPLE_FILE}: {name}: expected images, got {images.shape}")
    if image_HWC.dtype == np.uint8:
        return np.ascontiguousarray(image_HWC)
    preprocess = bundle.preprocess()
    if preprocess is None:  # a saved program does not say: the range of its values is all there is
        low, high = float(image_HWC.min()), float(image_HWC.max())
        return _bytes((image_HWC - low) / ((high - low) or 1.0))
    return _bytes(image_HWC.astype(np.float64) * np.array(preprocess.std) + np.array(preprocess.mean))


def _bytes(values_HWC: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    pixels: npt.NDArray[np.uint8] = np.rint(np.clip(np.nan_to_num(values_HWC), 0, 1) * 255).astype(np.uint8)
    return pixels
