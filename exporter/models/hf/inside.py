"""The image tower inside a bigger checkpoint: which of its sub-modules takes pixels, and how that one alone is read.

In: the class of a checkpoint and its configuration, on the meta device; out: the path of the sub-module, and a class
from which transformers reads the weights of that sub-module and no others.
"""

import copy
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

from exporter.errors import ModelUnavailableError, first_few, quoted
from exporter.models.hf.module import Read, attention_of
from exporter.models.hf.patches import not_patches

_PIXELS = "pixel_values"
_READING = ("vision_feature_layer", "vision_feature_layers", "vision_feature_select_strategy")

_SKIPPED = {"default": 1, "full": 0}


def tower_inside(whole: Any, refusal: str, expected: str) -> str:
    """The path of the one sub-module that takes images and makes equal tokens of them, one per patch.

    Args:
        whole: The model of a checkpoint, on the meta device.
        refusal: Begins the message: the checkpoint and its class.
        expected: What the message expects.

    Raises:
        ModelUnavailableError: There is none, or more than one; the message lists the sub-modules that take images.
    """
    takers = _takers(whole)
    towers = [path for path in takers if not_patches(takers[path].config) is None]
    outermost = [path for path in towers if not any(path.startswith(f"{other}.") for other in towers)]
    if len(outermost) == 1:
        return outermost[0]
    if outermost:
        raise ModelUnavailableError(
            f"{refusal}, of which {len(outermost)} sub-modules take images: {first_few(outermost)}; save the one that "
            "is wanted by itself with its save_pretrained, and give that folder"
        )
    if not takers:
        raise ModelUnavailableError(f"{refusal}, of which no sub-module takes images: {expected}")
    found = [f"{path} ({type(part).__name__}, {not_patches(part.config)})" for path, part in takers.items()]
    raise ModelUnavailableError(
        f"{refusal}, and none of its sub-modules that take images makes equal tokens, one per patch: "
        f"{quoted('; '.join(found))}; {expected}"
    )


def _takers(whole: Any) -> dict[str, Any]:
    """The sub-modules that are models of transformers and take pixels before anything else, by path."""
    from transformers import PreTrainedModel

    return {
        path: part
        for path, part in whole.named_modules()
        if path
        and isinstance(part, PreTrainedModel)
        and next(iter(signature(part.forward).parameters)) == _PIXELS
    }


def read_layers(config: Any, refusal: str) -> Read | None:
    """What a language model reads of its image tower, where the configuration of the whole says so (LLaVA's keys).

    Args:
        config: Of the checkpoint.
        refusal: Begins the message: the checkpoint and its class.

    Returns:
        The hidden states by `vision_feature_layer`, 0 being what enters the first block, without the class token where
        `vision_feature_select_strategy` drops it; None where there are no such keys.

    Raises:
        ModelUnavailableError: One of the keys is missing.
    """
    layer, several, strategy = (getattr(config, key, None) for key in _READING)
    if layer is None and several is None:
        return None
    if layer is None or strategy is None:
        raise ModelUnavailableError(
            f"{refusal}, whose configuration says which layers of its image tower are read, and not whether the class "
            "token is among what is read (vision_feature_select_strategy): save the tower by itself with its "
            "save_pretrained, and give that folder"
        )
    layers = tuple(layer) if isinstance(layer, (list, tuple)) else (layer,)
    return Read(layers=layers, skipped=_SKIPPED[strategy])


def alone_in(whole_class: Any, path: str, build: Any) -> Any:
    """A class of the checkpoint's own name, of whose parts only the tower is left.

    `from_pretrained` reads the tensors that a model has: of this one, those of the tower alone, under the names that
    they have in the checkpoint, which transformers may have renamed since.

    Args:
        whole_class: The class of the checkpoint.
        path: Of the tower in it, a model of transformers.
        build: The class, configuration and arguments of the tower.
    """

    def __init__(self: Any, config: Any) -> None:
        whole_class.__init__(self, config)
        own = copy.deepcopy(build.config)
        own._attn_implementation = attention_of(build.model_class)
        _leave_only(self, (path,))
        self.set_submodule(path, build.model_class(own, **build.arguments))

    return _named_alike(whole_class, {"__init__": __init__})


def parts_of(whole_class: Any, paths: Sequence[str], forward: Callable[..., Any]) -> Any:
    """A class of the checkpoint's own name, with a few of its parts, and a call that needs no others.

    Args:
        whole_class: The class of the checkpoint.
        paths: Of the parts.
        forward: Gets the model and its input.
    """

    def __init__(self: Any, config: Any) -> None:
        whole_class.__init__(self, config)
        _leave_only(self, paths)

    return _named_alike(whole_class, {"__init__": __init__, "forward": forward})


def _named_alike(whole_class: Any, methods: dict[str, Any]) -> Any:
    return type(whole_class.__name__, (whole_class,), {**methods, "__module__": whole_class.__module__})


def _leave_only(model: Any, paths: Sequence[str]) -> None:
    """Take off a model of transformers every part and parameter that is not at one of the paths, or on the way."""
    for name in (*model._parameters, *model._buffers):
        delattr(model, name)
    for name, part in list(model.named_children()):
        deeper = [path.removeprefix(f"{name}.") for path in paths if path.startswith(f"{name}.")]
        if deeper:
            _leave_only(part, deeper)
        elif name not in paths:
            delattr(model, name)
    # from_pretrained has nothing left to tie or to draw here
    model.all_tied_weights_keys = {}
    model._is_hf_initialized = True
