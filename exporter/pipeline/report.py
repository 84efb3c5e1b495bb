"""The `report` command: a page and a text about a bundle or a sweep, written into its folder."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from exporter.bundle import MANIFEST_FILE, Bundle, amend, check_amendable, load_bundle
from exporter.errors import UsageError
from exporter.images import open_image
from exporter.models import Preprocess, crop_image, in_bytes
from exporter.pipeline.contenders import as_input
from exporter.pipeline.observe import Observer, silent
from exporter.pipeline.origin import plan_bundle, rewritten
from exporter.recipe import override
from exporter.records import write_whole
from exporter.reduction import method
from exporter.report import HTML_FILE, MARKDOWN_FILE, Report, report_bundle, report_sweep
from exporter.sweep.record import SWEEP_FILE
from exporter.targets import Array
from exporter.validation import groups_of, run_eager


def report(
    path: str | Path,
    values: Mapping[str, object] | None = None,
    *,
    image: str | None = None,
    observe: Observer = silent,
) -> tuple[Path, Path]:
    """Write `report.html` and `report.md` into a bundle or a sweep folder.

    Args:
        path: of the bundle or the sweep.
        values: for `image`: recipe keys to replace, such as `model.name` for where the model lies now.
        image: show what is merged in this image; None takes the bundle's sample.
        observe: receives the progress of every stage.

    Returns:
        The page and the text.

    Raises:
        UsageError: the folder cannot be written, the image cannot be read, or a model is named that nothing needs.
        ModelUnavailableError: `image` is given, and the model is not where it was.
        WeightsError: it has other weights now.
        BundleError: it is neither bundle nor sweep, or damaged.
    """
    folder = Path(path)
    if values and image is None:
        raise UsageError("report: a model is loaded for --image only; give --image as well, or leave it out")
    if (folder / SWEEP_FILE).is_file() and not (folder / MANIFEST_FILE).exists():
        if image is not None:
            raise UsageError(f"--image: expected a bundle, got the sweep {folder}; report one of its bundles")
        with observe("report"):
            _write(folder, report_sweep(folder))
    else:
        _report_bundle(folder, image, values or {}, observe)
    return folder / HTML_FILE, folder / MARKDOWN_FILE


def _report_bundle(folder: Path, image: str | None, values: Mapping[str, object], observe: Observer) -> None:
    with observe("verify files") as note:
        bundle = load_bundle(folder)
        note("; ".join(bundle.notes))
    check_amendable(bundle)
    picture = _open(image) if image is not None else None
    groups_LBT = _groups(bundle, picture, values, observe) if picture is not None else None
    with observe("report"):
        made = report_bundle(bundle, image=picture, groups_LBT=groups_LBT)
        amend(bundle, {HTML_FILE: made.html.encode(), MARKDOWN_FILE: made.markdown.encode()})


def _open(path: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about damage that it can read past
            return in_bytes(open_image(Path(path)))
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise UsageError(f"--image: expected an image, got {path}: {error}") from None


def _groups(
    bundle: Bundle, picture: Image.Image, values: Mapping[str, object], observe: Observer
) -> npt.NDArray[np.int32]:
    """What the eager program merges in a picture: (L, B, T), as in `merges.npz` for the sample."""
    planned = plan_bundle(bundle, override(bundle.recipe(), values), observe, values)
    decides = method(planned.recipe.method).decides
    if planned.model.preprocess is None or planned.schedule.is_dense or not decides:
        why = (
            ""
            if planned.model.preprocess is not None
            else f": {planned.model.name} {planned.model.why_no_photos}"
        )
        raise UsageError(
            f"--image: expected a bundle that merges tokens of photos, got {bundle.manifest.name}{why}"
        )
    program = rewritten(bundle, planned, observe)
    pixels_BCHW = _cropped(picture, planned.model.preprocess)[None]
    images = np.repeat(
        as_input(planned.recipe, pixels_BCHW, planned.model.preprocess), planned.recipe.batch, axis=0
    )
    reference = run_eager(program, {"image": {"images": images}})["image"]
    return groups_of(program, reference.records, planned.schedule.tokens[0]).numpy()


def _cropped(picture: Image.Image, preprocess: Preprocess) -> Array:
    try:
        return crop_image(picture, preprocess)
    except (ValueError, Image.DecompressionBombError) as error:
        raise UsageError(
            f"--image: expected an image that the model takes, got {picture.mode}: {error}"
        ) from None


def _write(folder: Path, made: Report) -> None:
    for name, text in ((HTML_FILE, made.html), (MARKDOWN_FILE, made.markdown)):
        try:
            write_whole(folder / name, text.encode())
        except OSError as error:
            raise UsageError(f"{folder / name}: cannot be written: {error.strerror}") from None
