"""Download through a library's own client and into its own cache; without a network, fail in seconds.

The sources wrap every pretrained load in `fetching`.
"""

import contextlib
from collections.abc import Iterator
from typing import Literal

from safetensors import SafetensorError

from exporter.errors import ModelUnavailableError, is_of_the_machine, reason
from exporter.models.quiet import quiet

CONNECT_TIMEOUT_S = 5.0

Via = Literal["hub", "url", "disk"]

SAVE_WEIGHTS = "save the checkpoint again, with safetensors"
GIVE_WEIGHTS = "connect and try again, or give --weights FILE or random"


@contextlib.contextmanager
def fetching(what: str, *, via: Via = "hub", way_out: str | None = None) -> Iterator[None]:
    """Run a library's download: quietly, and with its failure as one line.

    Args:
        what: What is fetched, as the message names it.
        via: Where it comes from. The hub's host is tried once first, because its client retries a missing
            network for most of a minute; if it does not answer, only the cache is used.
        way_out: What the message advises; by default what helps against missing weights.

    Raises:
        ModelUnavailableError: It cannot be read, or there is no network and nothing in the cache.
    """
    try:
        with quiet(), _cache_only_without_network() if via == "hub" else contextlib.nullcontext():
            yield
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        if is_of_the_machine(error):
            raise
        if via == "disk":
            raise ModelUnavailableError(
                f"cannot read {what} ({reason(error)}); {way_out or SAVE_WEIGHTS}"
            ) from error
        raise ModelUnavailableError(
            f"cannot fetch {what}: no network, nothing in the cache, or no such file there "
            f"({reason(error)}); {way_out or GIVE_WEIGHTS}"
        ) from error


@contextlib.contextmanager
def _cache_only_without_network() -> Iterator[None]:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _hub_answers()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _hub_answers() -> bool:
    """Whether the hub's host answers at all, through the hub client's own session (and its proxies)."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=CONNECT_TIMEOUT_S)
    except Exception:
        return False
    return True
