"""What a configuration of transformers says about its tokens: equal ones, one per patch, or what speaks against that.

Patches are of images, or of spectrograms: frames by bands (AST).
"""

from typing import Any

from exporter.errors import quoted

_SPECTROGRAM = ("max_length", "num_mel_bins", "patch_size", "frequency_stride", "time_stride")


def takes_spectrograms(config: Any) -> bool:
    """Whether a model cuts spectrograms (frames, bands) into patches, by its configuration."""
    return all(hasattr(config, key) for key in _SPECTROGRAM)


def spectrogram_grid(config: Any) -> tuple[int, int]:
    """Rows (bands) and columns (frames) of the patches of a spectrogram, which may overlap."""
    frames, bands, patch = config.max_length, config.num_mel_bins, config.patch_size
    return (bands - patch) // config.frequency_stride + 1, (frames - patch) // config.time_stride + 1


def not_patches(config: Any) -> str | None:
    """What speaks against a model of equal tokens, one per patch, in its configuration; None if nothing does."""
    if "siglip2" in str(config.model_type):
        return (
            "which takes patches of images of any size (NaFlex), not images: give a SigLIP 2 checkpoint of a fixed "
            "resolution, whose model_type is siglip; this source"
        )
    if getattr(config, "num_frames", None):
        return "which takes videos"
    if takes_spectrograms(config):
        lengths = [getattr(config, key) for key in _SPECTROGRAM]
        fine = all(type(length) is int and length > 0 for length in lengths)
        return None if fine else f"whose {', '.join(_SPECTROGRAM)} are {quoted(lengths)}"
    sizes = (getattr(config, "image_size", None), getattr(config, "patch_size", None))
    if None in sizes:
        return "whose configuration has no image_size and patch_size"
    if not all(_is_size(size) for size in sizes):
        return f"whose image_size and patch_size are {quoted(sizes)}"
    widths = [
        getattr(config, key, None) for key in ("hidden_size", "num_attention_heads", "num_hidden_layers")
    ]
    if not all(isinstance(width, int) for width in widths):
        return "whose tokens change from stage to stage"
    return None


def _is_size(size: Any) -> bool:
    sides = [size] if isinstance(size, int) else size
    return (
        isinstance(sides, (list, tuple))
        and len(sides) in (1, 2)
        and all(isinstance(side, int) and side > 0 for side in sides)
    )
