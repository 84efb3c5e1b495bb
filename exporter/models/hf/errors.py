"""What transformers raises on a user's input, as one line with the advice that fits its cause.

Used around every call of this source into transformers. What is foreseen is refused by name
before (`checkpoint`, `rules`); here is the rest, since the library raises almost anything on a damaged file.
"""

import contextlib
import pickle
from collections.abc import Iterator

from safetensors import SafetensorError

from exporter.errors import (
    ExportError,
    InternalError,
    ModelUnavailableError,
    causes,
    is_of_the_machine,
    quoted,
    reason,
)
from exporter.models.fetch import fetching
from exporter.models.hf.place import Place


@contextlib.contextmanager
def reading(what: str, place: Place, *, advice: str) -> Iterator[None]:
    """Call transformers; whatever it raises becomes one line.

    Args:
        what: What is read, as the message names it.
        place: The checkpoint.
        advice: What the message advises where the cause says nothing better.

    Raises:
        ModelUnavailableError: The call failed.
    """
    with fetching(f"{what} of {place.spelling}", via=place.via), explained(what, place, advice=advice):
        yield


@contextlib.contextmanager
def explained(what: str, place: Place, *, advice: str) -> Iterator[None]:
    """As `reading`, of a call that fetches nothing."""
    try:
        yield
    except (ExportError, InternalError):
        raise
    except Exception as error:
        for cause in causes(error):
            if is_of_the_machine(cause):
                raise cause from None
        known = _known(error, place)
        if known is None and place.folder is None and isinstance(error, OSError):
            raise  # the network: `fetching` says so
        if known is not None:
            raise ModelUnavailableError(f"{place.spelling} {known}") from error
        raise ModelUnavailableError(
            f"cannot read {what} of {place.spelling} ({reason(error)}); {advice}"
        ) from error


def _known(error: BaseException, place: Place) -> str | None:
    """What to say about causes that have a name, looked for along the chain of causes."""
    from huggingface_hub import errors

    for cause in causes(error):
        match cause:
            case errors.GatedRepoError():
                return (
                    f"is gated: accept its terms at https://huggingface.co/{place.where} and log in with "
                    "`hf auth login`"
                )
            case errors.RepositoryNotFoundError():
                return (
                    "does not exist on the hub, or is private: expected hf:OWNER/NAME or hf:FOLDER; "
                    "log in with `hf auth login` if it is yours"
                )
            case errors.RevisionNotFoundError():
                return f'has no revision "{quoted(place.revision)}": expected a branch, a tag or a commit'
            case errors.HFValidationError():
                return "is no name of a repository: expected hf:OWNER/NAME or hf:FOLDER"
            case ImportError():
                return f"needs a library that is not installed ({reason(cause)}): install it"
            case pickle.UnpicklingError():
                return (
                    f"holds Python objects beside the weights, which run code when loaded ({reason(cause)}); where "
                    "you trust it, load it and save it again with safetensors"
                )
            case SafetensorError():
                return f"has a damaged weights file ({reason(cause)}); fetch it again"
            case RecursionError():
                return "has a file that is nested too deeply; fetch it again"
    return None
