"""A client of the Open Inference Protocol (version 2) over HTTP: what a server says of itself, and inference.

Of the standard library, so that what serves can be probed from any machine that has a bundle. Tensors travel as bytes
where the server has the extension `binary_tensor_data`, as Triton does, and as JSON elsewhere.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import quote, urlsplit

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

_BINARY = "binary_tensor_data"
_HEADER = "Inference-Header-Content-Length"
_OK, _TOO_BUSY, _FAULT = 200, 503, 500
_LONGEST_ANSWER = 1 << 30
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading an answer raises that is not what the protocol says."""


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
    _connection: HTTPConnection = field(init=False, repr=False)
    _path: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Read the address; nothing is connected yet.

        Raises:
            UsageError: it is none.
        """
        try:
            parts = urlsplit(self.url)
            kind = {"http": HTTPConnection, "https": HTTPSConnection}[parts.scheme]
            if not parts.hostname:
                raise ValueError("no host")
            self._connection = kind(parts.hostname, parts.port, timeout=self.timeout_s)
        except (KeyError, ValueError):
            raise UsageError(f"expected http://HOST:PORT, got {quoted(self.url)}") from None
        self._path = parts.path.rstrip("/")

    def close(self) -> None:
        """Close the connection; the next question opens another one."""
        self._connection.close()

    def metadata(self) -> Mapping[str, Any]:
        """Name, version and extensions of the server.

        Raises:
            TargetUnavailableError: nothing answers, it is not ready, or something else answers.
        """
        if self._ask("GET", "/v2/health/ready")[0] != _OK:
            raise TargetUnavailableError(f"{self.url}: is not ready; see the server's log")
        return self._document("/v2")

    def model_metadata(self, model: str) -> Mapping[str, Any]:
        """Name, versions, platform, inputs and outputs of a model that says that it is ready.

        Raises:
            TargetUnavailableError: it is not there, or not ready.
        """
        path = f"/v2/models/{quote(model, safe='')}"
        if self._ask("GET", f"{path}/ready")[0] != _OK:
            there = first_few(self._models()) or "it does not say what"
            raise TargetUnavailableError(
                f"{self.url}: expected a model {model} that is ready, got none; it has: {there}; give --model, or "
                "see in its log why a model does not load"
            )
        return self._document(path)

    def served(self, model: str) -> "Served":
        """What the configuration of a model says, by an extension of Triton's; nothing where the server has it not."""
        status, body, _ = self._ask("GET", f"/v2/models/{quote(model, safe='')}/config")
        try:
            config = json.loads(body) if status == _OK else {}
            given = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
            return Served(
                target=given.get("target"),
                engine=given.get(ENGINE),
                max_batch=int(config.get("max_batch_size", 0)) or None,
            )
        except _MALFORMED:
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
        contents = [_serialised(array) if binary else None for array in inputs.values()]
        document: dict[str, Any] = {
            "inputs": [
                _input(name, array, content)
                for (name, array), content in zip(inputs.items(), contents, strict=True)
            ],
            "outputs": [
                {"name": name} | ({"parameters": {"binary_data": True}} if binary else {}) for name in outputs
            ],
        }
        header = json.dumps(document).encode()
        body = header + b"".join(content for content in contents if content is not None)
        headers = {"Content-Type": "application/octet-stream" if binary else "application/json"}
        if binary:
            headers[_HEADER] = str(len(header))
        path = f"/v2/models/{quote(model, safe='')}/infer"
        status, answer, length = self._ask("POST", path, body, headers)
        if status != _OK:
            raise self._failure(model, status, answer)
        try:
            found = _outputs(answer, length)
            return {name: found[name] for name in outputs}
        except _MALFORMED as error:
            raise TargetUnavailableError(
                f"{self.url}: model {model}: expected {', '.join(outputs)} in the Open Inference Protocol, got "
                f"something else ({reason(error)})"
            ) from None

    def _models(self) -> list[str]:
        """Names of the models, by an extension of Triton's; none where the server has it not."""
        status, body, _ = self._ask("POST", "/v2/repository/index", b"{}")
        try:
            return [str(each["name"]) for each in json.loads(body)] if status == _OK else []
        except _MALFORMED:
            return []

    def _failure(self, model: str, status: int, answer: bytes) -> ParityError | TargetUnavailableError:
        try:
            said = str(json.loads(answer)["error"])
        except _MALFORMED:
            said = answer.decode(errors="replace")
        what = f"{self.url}: model {model} answers {status}: {quoted(' '.join(said.split()), 200)}"
        if status == _TOO_BUSY:
            return TargetUnavailableError(f"{what}; its queue is full: probe it again later")
        if status >= _FAULT:
            return TargetUnavailableError(
                f"{what}; it says that it is ready, and is not: restart the server, and see its log"
            )
        return ParityError(f"{what}; it does not take this bundle's sample: pack the bundle again")

    def _document(self, path: str) -> Mapping[str, Any]:
        status, body, _ = self._ask("GET", path)
        try:
            tree = json.loads(body) if status == _OK else None
        except _MALFORMED:
            tree = None
        if not isinstance(tree, dict):
            raise TargetUnavailableError(
                f"{self.url}{path}: expected an answer of the Open Inference Protocol, got status {status}"
            )
        return tree

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, str | None]:
        """Status, content, and how many bytes of it are JSON where more follows."""
        try:
            self._connection.request(method, self._path + path, body, dict(headers or {}))
            answer = self._connection.getresponse()
            content = answer.read(_LONGEST_ANSWER)
            if not answer.isclosed():
                self.close()
            return answer.status, content, answer.getheader(_HEADER)
        except (OSError, HTTPException, UnicodeError) as error:
            self.close()
            waited = (
                f"no answer within {self.timeout_s:g} s" if isinstance(error, TimeoutError) else reason(error)
            )
            raise TargetUnavailableError(
                f"{self.url}: cannot be reached ({waited}); check the address, and that the server runs"
            ) from error


def takes_bytes(metadata: Mapping[str, Any]) -> bool:
    """Whether a server takes tensors as bytes, by what it says of itself."""
    extensions = metadata.get("extensions")
    return isinstance(extensions, list) and _BINARY in extensions


def _input(name: str, array: Array, content: bytes | None) -> dict[str, Any]:
    said = {"name": name, "shape": list(array.shape), "datatype": DATATYPES[str(array.dtype)]}
    if content is None:
        return {**said, "data": array.ravel().tolist()}
    return {**said, "parameters": {"binary_data_size": len(content)}}


def _serialised(array: Array) -> bytes:
    """The elements in order, little-endian; each of bytes has its length in front."""
    if array.dtype == np.object_:
        return b"".join(len(each).to_bytes(4, "little") + each for each in array.ravel())
    return np.ascontiguousarray(array).tobytes()


def _outputs(answer: bytes, length: str | None) -> dict[str, Array]:
    """Arrays by name, of JSON, or of JSON and the bytes after it."""
    end = len(answer) if length is None else int(length)
    types = {name: dtype for dtype, name in DATATYPES.items() if name != "BYTES"}
    found = {}
    for each in json.loads(answer[:end])["outputs"]:
        dtype, size = np.dtype(types[each["datatype"]]), each.get("parameters", {}).get("binary_data_size")
        if size is None:
            array = np.array(each["data"], dtype=dtype)
        else:
            array = np.frombuffer(answer[end : end + size], dtype=dtype)
            end += size
        found[each["name"]] = array.reshape(each["shape"])
    return found
