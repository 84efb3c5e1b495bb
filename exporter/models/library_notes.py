"""What a source's library warned about while a model was loaded, as notes.

`load` opens a `Listener`, `quiet` gives it every warning and log record of a block, and what is about
the model reaches the manifest and the summary. A library's warning is often the only guard: open_clip, for example,
says no more than that when the weights were trained with another activation than the model is built with.

A Python warning about code that will change (DeprecationWarning, FutureWarning and the like) is about the
caller, not about the model, and is dropped by its category. So is what a client for downloads says about its
retries and caches. What is printed is not a warning.
"""

import logging
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

LONGEST_NOTE = 200
"""Characters of a library's message that a note keeps."""

SPEAKERS = ("open_clip", "timm", "torchvision", "transformers", "torch")
"""Libraries whose log records are heard: they build or load models. Others fetch files, or are not the model's."""

HARMLESS: tuple[tuple[str, str, str], ...] = (
    (
        "open_clip",
        "No pretrained weights loaded for model",
        "weights are drawn or read from a file afterwards",
    ),
    ("open_clip", "Multiple checkpoints found in", "the source itself says which file of a folder is read"),
    ("open_clip", "Local config loaded, but no CLIP weights found in", "the source itself looks for them"),
    ("open_clip", "QuickGELU mismatch between", "the activation is the tag's, and a note says so"),
    ("open_clip", "Failed to download weights for tag", "the error that follows says so"),
    ("open_clip", ".* exists, but the SHA256 checksum does not match", "the file is fetched again"),
    ("transformers", r"\w+ LOAD REPORT from:", "every key of it is judged by `report_wrong_keys`"),
    (
        "transformers",
        r"`\w+` is going to be deprecated",
        "about a class of its code, as a DeprecationWarning",
    ),
    (
        "transformers",
        r"Model config: [be]os_token_id must be .*between 0 and 31999\), got 4940[67]",
        "the defaults of every SigLIP configuration, whose text tower does not look for them",
    ),
)
"""Library, start of its message as a pattern, and why it does not concern the user of the model."""

_FETCHERS = (
    "huggingface_hub",
    "hf_xet",
    "httpcore",
    "httpx",
    "urllib3",
    "requests",
    "filelock",
    "fsspec",
    "urllib",
)

_ABOUT_CODE = (
    DeprecationWarning,
    PendingDeprecationWarning,
    FutureWarning,
    ImportWarning,
    ResourceWarning,
    SyntaxWarning,
    BytesWarning,
    EncodingWarning,
)

# What is changed of a logger for a while.
_CHANGED = ("handlers", "propagate", "disabled", "level")

# The engine of PyTorch warns once per process, with a path of the machine that built it.
_FROM_CPP = "(Triggered internally at"

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{4,}\b")
_ABSOLUTE_PATH = re.compile(r"""(?<![\w.:/~-])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\'"`,;:()\[\]<>]+)+[/\\]?""")


class Listener(logging.Handler):
    """Hears warnings and log records, and keeps those that are about the model, each once, in their order."""

    def __init__(self, source: str) -> None:
        super().__init__(logging.WARNING)
        self._source = source
        self._notes: dict[str, None] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """One line each."""
        return tuple(self._notes)

    def emit(self, record: logging.LogRecord) -> None:
        """Hear a log record."""
        library = _package(record.pathname) if record.name == "root" else record.name.partition(".")[0]
        if library in SPEAKERS:
            self._hear(library, record.getMessage())

    def hear_warning(self, warning: warnings.WarningMessage) -> None:
        """Hear a Python warning."""
        library = _package(warning.filename) or self._source
        if library not in _FETCHERS and not issubclass(warning.category, _ABOUT_CODE):
            self._hear(library, str(warning.message))

    def _hear(self, library: str, message: str) -> None:
        message = " ".join(_COLOUR.sub("", message).split())
        harmless = any(library == name and re.match(start, message) for name, start, _ in HARMLESS)
        if message and not harmless and _FROM_CPP not in message:
            self._notes[f"{library} warns: {_shortened(_without_machine(message))}"] = None


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def listener() -> Listener | None:
    """The current listener; None outside `listening`."""
    return _listener.get()


@contextmanager
def listening(source: str) -> Iterator[Listener]:
    """Give what `quiet` silences within a block to a new listener.

    Args:
        source: the library that is asked, for warnings that are attributed to no library's file.
    """
    _forget_what_was_said_once()
    heard = Listener(source)
    token = _listener.set(heard)
    try:
        yield heard
    finally:
        _listener.reset(token)


@contextmanager
def logging_to(heard: Listener) -> Iterator[None]:
    """Send the records of all loggers to a listener and nowhere else, for the duration of a block."""
    root = logging.getLogger()
    loggers = [root, *_configured_loggers(root.manager)]
    before = [{key: vars(each)[key] for key in _CHANGED} for each in loggers]
    disabled = root.manager.disable
    for each in loggers:
        each.handlers, each.propagate, each.disabled = [], True, False
        each.setLevel(logging.NOTSET)
    root.handlers = [heard]
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(disabled)
        for each, state in zip(loggers, before, strict=True):
            vars(each).update(state)
            each.setLevel(state["level"])


def _configured_loggers(manager: logging.Manager) -> list[logging.Logger]:
    return [
        each
        for each in manager.loggerDict.values()
        if isinstance(each, logging.Logger)
        and (each.handlers or each.disabled or not each.propagate or each.level != logging.NOTSET)
    ]


def _forget_what_was_said_once() -> None:
    """Transformers says some things once per process; the second model that it is true of needs it too."""
    once: Any = getattr(logging.Logger, "warning_once", None)
    if hasattr(once, "cache_clear"):
        once.cache_clear()


def _package(file: str) -> str:
    """The library that a source file belongs to; empty for the standard library and for our own files."""
    parts = Path(file).parts
    for place in ("site-packages", "dist-packages"):
        if place in parts[:-1]:
            return parts[parts.index(place) + 1].removesuffix(".py")
    return ""


def _without_machine(message: str) -> str:
    for folder in (Path.cwd(), Path(tempfile.gettempdir()), Path.home()):
        if folder != Path(folder.anchor):
            message = message.replace(f"{folder}/", "")
    message = _ADDRESS.sub("0x...", message)
    return _ABSOLUTE_PATH.sub(lambda found: re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], message)


def _shortened(message: str) -> str:
    return message if len(message) <= LONGEST_NOTE else f"{message[: LONGEST_NOTE - 3]}..."
