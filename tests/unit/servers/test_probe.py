"""`probe` against a stand-in that speaks the protocol in JSON only; Triton itself has a file of its own."""

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.bundle import Bundle
from exporter.errors import BundleError, ExportError, ParityError, TargetUnavailableError, UsageError
from exporter.servers import ProbeRequest, probe
from exporter.servers.probe import Probed

Answer = tuple[int, object]
Change = Callable[[str, Answer], Answer]
"""From a path and the right answer to the one that is given."""


class Compressed(bytes):
    """What is said to be compressed, and is not."""


def right_answer(bundle: Bundle, path: str, body: bytes) -> Answer:
    """What a server says that serves the bundle, by the protocol's specification."""
    sample = bundle.sample()
    if path == "/v2":
        return 200, {"name": "stand-in", "version": "1", "extensions": []}
    if path.endswith("/ready"):
        return 200, {}
    if path.endswith("/infer"):
        (given,) = json.loads(body)["inputs"]
        first = np.array(given["data"], dtype=np.float32).reshape(given["shape"])
        (start,) = (row for row, known in enumerate(sample["images"]) if np.array_equal(known, first[0]))
        logits = sample["logits"][start : start + len(first)]
        output = {
            "name": "logits",
            "datatype": "FP32",
            "shape": list(logits.shape),
            "data": logits.ravel().tolist(),
        }
        return 200, {"model_name": "vit", "outputs": [output]}
    if path == "/v2/models/vit":
        tensors = {"inputs": bundle.manifest.inputs, "outputs": bundle.manifest.outputs}
        said = {
            what: [{"name": each.name, "datatype": "FP32", "shape": [-1, *each.shape[1:]]} for each in specs]
            for what, specs in tensors.items()
        }
        return 200, {"name": "vit", "platform": "python", **said}
    return 404, {"error": "unknown"}


@contextmanager
def standing_in(bundle: Bundle, change: Change) -> Iterator[str]:
    """The address of a server on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, document = change(self.path, right_answer(bundle, self.path, body))
            content = document if isinstance(document, bytes) else json.dumps(document).encode()
            with suppress(ConnectionError):  # the client may have left
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                if isinstance(content, Compressed):
                    self.send_header("Content-Encoding", "deflate")
                self.end_headers()
                self.wfile.write(content)

        do_GET = do_POST = answer

        def log_message(self, format: str, *given: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def probed(bundle: Bundle, change: Change = lambda path, answer: answer, timeout_s: float = 20) -> Probed:
    with standing_in(bundle, change) as url:
        return probe(
            ProbeRequest(url=url, bundle=bundle.path, model="vit", target="onnx", timeout_s=timeout_s)
        )


def at(end: str, new: Answer | Callable[[Any], Any]) -> Change:
    """Another answer where a path ends like this."""

    def change(path: str, answer: Answer) -> Answer:
        if not path.endswith(end):
            return answer
        return (answer[0], new(answer[1])) if callable(new) else new

    return change


MALFORMED: dict[str, object] = {
    "junk": b"<html>",
    "compressed": Compressed(b"{}"),
    "nested": b"[" * 100_000,
    "no outputs": {"outputs": None},
    "other output": {"outputs": []},
    "texts": {"outputs": [{"name": "logits", "datatype": "BYTES", "shape": [1], "data": ["a"]}]},
    "no parameters": {"outputs": [{"name": "logits", "datatype": "FP32", "shape": [1], "parameters": None}]},
    "shape": {"outputs": [{"name": "logits", "datatype": "FP32", "shape": [7], "data": [1.0]}]},
    "too large": {"outputs": [{"name": "logits", "datatype": "INT64", "shape": [1], "data": [2**70]}]},
}


def drifted(document: Any) -> Any:
    (output,) = document["outputs"]
    return {"outputs": [{**output, "data": [value + 0.01 for value in output["data"]]}]}


def not_finite(document: Any) -> Any:
    (output,) = document["outputs"]
    return {"outputs": [{**output, "data": [float("nan") for _ in output["data"]]}]}


def takes(name: str, datatype: str, *shape: int) -> Callable[[Any], Any]:
    tensor = {"name": name, "datatype": datatype, "shape": list(shape)}
    return lambda document: {**document, "inputs": [tensor]}


def hang(document: Any) -> Any:
    time.sleep(0.8)
    return document


def test_answers_of_the_bundle_are_the_same(bundle: Bundle) -> None:
    found = probed(bundle)

    assert not found.failures
    assert (found.server, found.platform, found.same_engine) == ("stand-in 1", "python", None)
    assert found.max_abs_error == {"logits": pytest.approx(0, abs=1e-6)}
    assert [each.rows for each in found.latency] == [1, 8]
    assert all(each.median_ms > 0 for each in found.latency)


@pytest.mark.parametrize(
    ("wrong", "complaint", "error"),
    [
        pytest.param(drifted, "max_abs_error 0.01", pytest.approx(0.01, abs=1e-3), id="drifted"),
        pytest.param(not_finite, "not-a-numbers", None, id="not finite"),
    ],
)
def test_other_answers_are_a_failure(
    bundle: Bundle, wrong: Callable[[Any], Any], complaint: str, error: object
) -> None:
    found = probed(bundle, at("/infer", wrong))

    (failure,) = found.failures.values()
    assert isinstance(failure, ParityError) and complaint in str(failure)
    assert found.max_abs_error == {"logits": error}


@pytest.mark.parametrize(
    ("change", "kind", "complaint"),
    [
        pytest.param(at("/v2/health/ready", (503, {})), TargetUnavailableError, "is not ready", id="server"),
        pytest.param(at("/vit/ready", (400, {})), TargetUnavailableError, "expected a model vit", id="model"),
        pytest.param(
            at("/infer", (500, {"error": "Stub process is not healthy."})),
            TargetUnavailableError,
            "answers 500: Stub process is not healthy.; it says that it is ready, and is not",
            id="failing",
        ),
        pytest.param(
            at("/infer", (503, {"error": "exceeds maximum queue size"})),
            TargetUnavailableError,
            "its queue is full",
            id="busy",
        ),
        pytest.param(
            at("/infer", (400, {"error": "unexpected shape"})), ParityError, "unexpected shape", id="refused"
        ),
        *(
            pytest.param(at("/infer", (200, body)), TargetUnavailableError, "got something else", id=name)
            for name, body in MALFORMED.items()
        ),
        pytest.param(
            at("/v2", (200, b"<html>")), TargetUnavailableError, "an answer of the Open", id="no protocol"
        ),
        pytest.param(
            at("/models/vit", takes("x", "FP32", -1, 3)),
            ParityError,
            "expected inputs images FP32 3x32x32, got x FP32 3; it serves another bundle",
            id="other model",
        ),
        pytest.param(
            at("/models/vit", takes("images", "BYTES", -1, 1)),
            TargetUnavailableError,
            "binary_tensor_data",
            id="files in JSON",
        ),
    ],
)
def test_server_that_does_not_serve_ends_the_probe(
    bundle: Bundle, change: Change, kind: type[ExportError], complaint: str
) -> None:
    with pytest.raises(kind) as raised:
        probed(bundle, change)
    assert complaint in str(raised.value)


def test_nothing_is_waited_for_longer_than_the_timeout(
    bundle: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()

    with pytest.raises(TargetUnavailableError, match=r"no answer within 0.2 s"):
        probed(bundle, at("/infer", hang), timeout_s=0.2)
    assert time.monotonic() - started < 5
    with pytest.raises(TargetUnavailableError, match="cannot be reached"):
        probe(ProbeRequest(url="http://127.0.0.1:1", bundle=bundle.path))
    with pytest.raises(TargetUnavailableError, match="cannot be reached"):
        probe(ProbeRequest(url="http://a..b", bundle=bundle.path))
    assert capfd.readouterr().err == ""


def test_server_of_something_else_than_http_is_not_reached(bundle: Bundle) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 mail\r\n")

        threading.Thread(target=answer, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

        with pytest.raises(TargetUnavailableError, match="cannot be reached"):
            probe(ProbeRequest(url=url, bundle=bundle.path))


def test_interrupt_while_a_server_is_waited_for_prints_nothing(
    bundle: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            probed(bundle, at("/v2/health/ready", hang))
    finally:
        signal.signal(signal.SIGALRM, before)

    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://a", "http://", "http://a:b"])
def test_address_that_is_none_is_refused(bundle: Bundle, url: str) -> None:
    with pytest.raises(UsageError, match="expected http://HOST:PORT"):
        probe(ProbeRequest(url=url, bundle=bundle.path))


def test_damaged_bundle_is_found_before_the_server_is_asked(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        probe(ProbeRequest(url="http://127.0.0.1:1", bundle=tmp_path))
