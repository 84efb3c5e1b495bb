"""A server of the Open Inference Protocol (version 2), asked over HTTP by `tritonclient`, an extra.

In: the client's answers and exceptions. Out: arrays, and errors of one line. Tensors travel as bytes where the server
has the extension `binary_tensor_data`, as Triton does, and as JSON elsewhere.
"""

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np

from exporter.errors import ParityError, TargetUnavailableError, UsageError, first_few, quoted, reason
from exporter.signature import Array

DATATYPES = {
    "bool": "BOOL",
    "float16": "FP16",
    "float32": "FP32",
    "int32": "INT32",
    "int64": "INT64",
    "object": "BYTES",
    "uint8": "UINT8",
}
"""The protocol's names of types, by numpy's."""

ENGINE = "engine_sha256"
"""The parameter of a model's configuration that says which engine of a bundle it is."""

Answer = TypeVar("Answer")

_BINARY = "binary_tensor_data"
_OK, _TOO_BUSY, _FAULT = 200, 503, 500
_MALFORMED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What reading an answer raises that is not what the protocol says: the client hands on what its parsers raise."""


class _Unexpected(Exception):
    """An answer with another status than 200, or not in the protocol's form.

    Attributes:
        status: of the answer.
        said: what the server says is wrong, or what is wrong with its answer.
    """

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status, self.said = status, said


@dataclass(frozen=True, kw_only=True)
class Served:
    """What a server's configuration says of a model; None for what it does not say.

    Attributes:
        target: of the bundle that it was packed of.
        engine: sha256 of the engine's main file in the bundle.
        max_batch: rows of a request at most.
    """

    target: str | None = None
    engine: str | None = None
    max_batch: int | None = None


@dataclass(kw_only=True)
class Server:
    """A server, asked over one connection that is kept open.

    Attributes:
        url: `http://HOST:PORT`, or https, with a path in front of the protocol's if it has one.
        timeout_s: for every answer.
    """

    url: str
    timeout_s: float
    _library: Any = field(init=False, repr=False)
    _client: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Read the address; nothing is connected yet.

        Raises:
            UsageError: it is none.
            TargetUnavailableError: the client is not installed.
        """
        address, is_encrypted = _address(self.url)
        self._library = load_library()
        self._client = self._library.InferenceServerClient(
            address, ssl=is_encrypted, connection_timeout=self.timeout_s, network_timeout=self.timeout_s
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def metadata(self) -> Mapping[str, Any]:
        """Name, version and extensions of the server.

        Raises:
            TargetUnavailableError: nothing answers, it is not ready, or something else answers.
        """
        try:
            is_ready = self._ask(self._is_ready)
        except _Unexpected as error:  # of the address: what the server says is not read
            raise self._unreachable(error.said) from error
        if not is_ready:
            raise TargetUnavailableError(f"{self.url}: is not ready; see the server's log")
        return self._document("/v2", self._client.get_server_metadata)

    def model_metadata(self, model: str) -> Mapping[str, Any]:
        """Name, versions, platform, inputs and outputs of a model that says that it is ready.

        Raises:
            TargetUnavailableError: it is not there, or not ready.
        """
        if not self._ask(lambda: self._client.is_model_ready(model)):
            there = first_few(self._models()) or "it does not say what"
            raise TargetUnavailableError(
                f"{self.url}: expected a model {model} that is ready, got none; it has: {there}; give --model, or "
                "see in its log why a model does not load"
            )
        return self._document(f"/v2/models/{model}", lambda: self._client.get_model_metadata(model))

    def served(self, model: str) -> Served:
        """What the configuration of a model says, by an extension of Triton's; nothing where the server has it not."""

        def read() -> Served:
            config = self._client.get_model_config(model)
            given = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
            return Served(
                target=given.get("target"),
                engine=given.get(ENGINE),
                max_batch=int(config.get("max_batch_size", 0)) or None,
            )

        try:
            return self._ask(read)
        except _Unexpected:
            return Served()

    def infer(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], *, binary: bool
    ) -> dict[str, Array]:
        """The outputs of a model, by name.

        Args:
            model: its name.
            inputs: (n, ...) by name; bytes are an array of objects.
            outputs: names.
            binary: whether tensors travel as bytes.

        Raises:
            ParityError: the model does not take these inputs.
            TargetUnavailableError: it is too busy, fails, or answers something else.
        """
        tensors = [
            self._library.InferInput(name, array.shape, DATATYPES[str(array.dtype)]).set_data_from_numpy(
                array, binary_data=binary
            )
            for name, array in inputs.items()
        ]
        wanted = [self._library.InferRequestedOutput(name, binary_data=binary) for name in outputs]
        headers = {"Content-Type": "application/octet-stream" if binary else "application/json"}
        try:
            return self._ask(
                lambda: _arrays(self._client.infer(model, tensors, outputs=wanted, headers=headers), outputs)
            )
        except _Unexpected as error:
            raise self._failure(model, outputs, error) from None

    def _is_ready(self) -> bool:
        """Whether the server is ready. A host that is no name is found first: the client prints a traceback of it."""
        (urlsplit(self.url).hostname or "").encode("idna")
        is_ready: bool = self._client.is_server_ready()
        return is_ready

    def _models(self) -> list[str]:
        """Names of the models, by an extension of Triton's; none where the server has it not."""
        try:
            return self._ask(
                lambda: [str(each["name"]) for each in self._client.get_model_repository_index()]
            )
        except _Unexpected:
            return []

    def _failure(
        self, model: str, outputs: Sequence[str], error: _Unexpected
    ) -> ParityError | TargetUnavailableError:
        if error.status == _OK:
            return TargetUnavailableError(
                f"{self.url}: model {model}: expected {', '.join(outputs)} in the Open Inference Protocol, got "
                f"something else ({error.said})"
            )
        what = f"{self.url}: model {model} answers {error.status}: {error.said}"
        if error.status == _TOO_BUSY:
            return TargetUnavailableError(f"{what}; its queue is full: probe it again later")
        if error.status >= _FAULT:
            return TargetUnavailableError(
                f"{what}; it says that it is ready, and is not: restart the server, and see its log"
            )
        return ParityError(f"{what}; it does not take this bundle's sample: pack the bundle again")

    def _document(self, path: str, question: Callable[[], object]) -> Mapping[str, Any]:
        try:
            tree, status = self._ask(question), _OK
        except _Unexpected as error:
            tree, status = None, error.status
        if not isinstance(tree, dict):
            raise TargetUnavailableError(
                f"{self.url}{path}: expected an answer of the Open Inference Protocol, got status {status}"
            )
        return tree

    def _ask(self, question: Callable[[], Answer]) -> Answer:
        """What the client answers.

        Raises:
            _Unexpected: the server does not answer as the protocol says.
            TargetUnavailableError: the server cannot be reached.
        """
        try:
            return question()
        except self._library.InferenceServerException as error:
            said = str(error.debug_details() or error.message())  # the details are an answer that is no JSON
            raise _Unexpected(int(error.status() or _OK), quoted(" ".join(said.split()), 200)) from error
        except _MALFORMED as error:
            raise _Unexpected(_OK, reason(error)) from error
        except TimeoutError as error:
            raise self._unreachable(f"no answer within {self.timeout_s:g} s") from error
        except (OSError, HTTPException) as error:
            raise self._unreachable(reason(error)) from error

    def _unreachable(self, why: str) -> TargetUnavailableError:
        return TargetUnavailableError(
            f"{self.url}: cannot be reached ({why}); check the address, and that the server runs"
        )


def load_library() -> Any:
    """The module `tritonclient.http`.

    Raises:
        TargetUnavailableError: it, or what it needs for HTTP, is not installed.
    """
    try:
        import gevent
        import tritonclient.http
    except (ImportError, RuntimeError) as error:  # RuntimeError: without what its own extra `http` installs
        raise TargetUnavailableError(
            f'probe: {error}; install it with: pip install "exporter[triton]"'
        ) from error
    hub = gevent.get_hub()  # what the client waits in
    hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)  # of errors it prints the traceback
    return tritonclient.http


def takes_bytes(metadata: Mapping[str, Any]) -> bool:
    """Whether a server takes tensors as bytes, by what it says of itself."""
    extensions = metadata.get("extensions")
    return isinstance(extensions, list) and _BINARY in extensions


def _address(url: str) -> tuple[str, bool]:
    """Host, port and path as the client wants them, and whether it is https.

    Raises:
        UsageError: it is no address.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError("no address of a server")
    except ValueError:
        raise UsageError(f"expected http://HOST:PORT, got {quoted(url)}") from None
    return parts.netloc.rpartition("@")[2] + parts.path, parts.scheme == "https"


def _arrays(result: Any, outputs: Sequence[str]) -> dict[str, Array]:
    """The outputs of an answer, by name."""
    found = {name: result.as_numpy(name) for name in outputs}
    for name, array in found.items():
        if array is None or array.dtype == np.object_:
            raise ValueError(f"{name}: {'not there' if array is None else 'texts'}")
    return found
