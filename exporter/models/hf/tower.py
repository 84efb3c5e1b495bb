"""One tower of a checkpoint: its class and configuration, its sizes, and a trial of it without weights.

In: what `rules` found; out: what `weights` fills.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from exporter.errors import is_of_the_machine
from exporter.models.hf.module import Build, on_meta, recording_resampling, run_on_meta, unwrap
from exporter.models.hf.patches import spectrogram_grid, takes_spectrograms
from exporter.models.loaded import OutputName
from exporter.models.request import ImageSize, as_pair

Side = Literal["image", "text"]


@dataclass(frozen=True, kw_only=True)
class HFTower:
    """One tower of a checkpoint.

    Attributes:
        architecture: What the checkpoint's configuration calls itself.
        build: What is built and asked.
        part: The sub-configuration of `build.config` that describes the tower; None is the configuration itself.
        output_name: What the output is called in the bundle.
        whole: The class and configuration of the checkpoint as it was saved: what its keys are of.
        path: Where the tower is in that class, if it is built by itself; None where its keys are those of the whole.
        notes: What was guessed.
    """

    architecture: str
    build: Build
    part: str | None
    output_name: OutputName
    whole: tuple[Any, Any]
    path: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def config(self) -> Any:
        """The configuration that describes the tower itself."""
        return getattr(self.build.config, self.part) if self.part else self.build.config

    @property
    def image_size(self) -> ImageSize:
        """Height and width of the images that its positions are made for."""
        return as_pair(self.config.image_size)

    @property
    def patch_size(self) -> ImageSize:
        """Height and width of a patch."""
        return as_pair(self.config.patch_size)

    @property
    def channels(self) -> int:
        """Channels of an image; BLIP's configuration has no key for them."""
        return channels_of(self.config)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        if takes_spectrograms(self.config):
            return spectrogram_grid(self.config)
        (height, width), (high, wide) = self.image_size, self.patch_size
        return height // high, width // wide

    def with_config(self, values: Mapping[str, Any]) -> "HFTower":
        """The same tower with other values in its configurations, wherever they have a key of that name."""
        config = copy.deepcopy(self.build.config)
        for name, value in values.items():
            for each in {
                id(part): part for part in (config, getattr(config, self.part or "", config))
            }.values():
                if hasattr(each, name):
                    setattr(each, name, value)
        return replace(self, build=replace(self.build, config=config))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a tower does with one input on the meta device.

    Attributes:
        shape: Of the output for one image, the first axis of length 1.
        resamples: Whether it calls its own method that resamples positions, which takes them for a square.
    """

    shape: tuple[int, ...]
    resamples: bool


def channels_of(config: Any) -> int:
    """Channels of an image, by a tower's configuration."""
    return int(getattr(config, "num_channels", 3))


def example_of(config: Any, side: Side, size: ImageSize | None = None) -> torch.Tensor:
    """One input of a tower, of zeros, on the meta device."""
    if side == "text":
        return torch.zeros(1, config.max_position_embeddings, dtype=torch.int64, device="meta")
    if takes_spectrograms(config):
        return torch.zeros(1, config.max_length, config.num_mel_bins, device="meta")
    height, width = size or as_pair(config.image_size)
    return torch.zeros(1, channels_of(config), height, width, device="meta")


def try_on_meta(tower: HFTower, size: ImageSize | None = None) -> Trial | None:
    """Run an image tower on an image of a size; None if it cannot be built for it, or cannot be run.

    Args:
        tower: With the configuration to try.
        size: Height and width; None is the tower's own.
    """
    build = tower.build
    try:
        module = unwrap(on_meta(build.model_class, build.config, build.arguments), build)
        with recording_resampling(module) as resamples:
            output = run_on_meta(module, example_of(tower.config, "image", size))
    except Exception as error:  # whatever a class raises on what it is not made for
        if is_of_the_machine(error):
            raise
        return None
    return Trial(shape=tuple(output.shape), resamples=bool(resamples))
