"""Packed models in Triton itself: what it answers, refuses and survives. One server serves most tests."""

import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.bundle import Bundle
from exporter.errors import TargetUnavailableError
from exporter.servers import PackRequest, ProbeRequest, pack, probe
from exporter.signature import Array
from tests.support.triton_server import DEADLINE_S, Running, Triton, end, installed_triton
from tests.unit.servers.conftest import BATCH

QUEUE = 3
REQUESTS = 12


def classes_of(bundle: Bundle) -> int:
    return int(bundle.manifest.outputs[0].shape[1])


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Triton:
    return installed_triton(tmp_path_factory.mktemp("triton"))


@pytest.fixture(scope="module")
def server(triton: Triton, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("serving")
    (folder / "names").write_text(
        "".join(f"name of {row}\n" for row in range(classes_of(bundle))), encoding="utf-8"
    )
    tensors = PackRequest(bundle=bundle.path, out=folder / "models", name="tensors", queue=QUEUE)
    pack(replace(tensors, labels=folder / "names"))
    pack(replace(tensors, name="images", accept="jpeg", target="openvino", delay_ms=0))
    with triton.running(folder / "models", folder / "log") as running:
        yield running


@dataclass(frozen=True, kw_only=True)
class Client:
    """Asks one model for its logits, in JSON."""

    server: Running
    model: str = "tensors"

    def __call__(self, images: Array, datatype: str = "FP32") -> tuple[int, Any]:
        tensor = {
            "name": "images",
            "datatype": datatype,
            "shape": images.shape,
            "data": images.ravel().tolist(),
        }
        status, document = self.server.ask(f"/v2/models/{self.model}/infer", {"inputs": [tensor]})
        if status != 200:
            return status, document["error"]
        (output,) = document["outputs"]
        return status, np.array(output["data"]).reshape(output["shape"])


def stopped(
    server: Running, ask: Client, images: Array, during: signal.Signals | None = None
) -> list[tuple[int, Any]]:
    """Answers to requests that all arrive while the model's process stands still; it goes on after they are there.

    Args:
        server: that serves it.
        ask: for full batches, so that none waits for more.
        images: of every request.
        during: a signal to the server before the process goes on.
    """
    stub = server.stub(ask.model)
    count = REQUESTS if during is None else QUEUE
    with ThreadPoolExecutor(count) as pool:
        stub.suspend()
        try:
            asked = [pool.submit(ask, images) for _ in range(count)]
            deadline = time.monotonic() + DEADLINE_S
            settled = count - QUEUE - 2 if during is None else 0
            while sum(each.done() for each in asked) < settled and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(0.3)
            if during is not None:
                server.process.send_signal(during)
                time.sleep(0.3)
        finally:
            stub.resume()
        return [each.result(DEADLINE_S) for each in asked]


@pytest.mark.parametrize("model", ["tensors", "images"])
def test_probe_finds_the_bundle_s_answers(server: Running, bundle: Bundle, model: str) -> None:
    target = "onnx" if model == "tensors" else "openvino"

    found = probe(ProbeRequest(url=server.url, bundle=bundle.path, model=model, target=target))

    assert not found.failures
    assert found.same_engine
    assert found.server.startswith("triton 2.")


@pytest.mark.parametrize("rows", [1, 3, BATCH])
def test_every_size_of_batch_is_answered(server: Running, bundle: Bundle, rows: int) -> None:
    sample = bundle.sample()

    status, logits = Client(server=server)(sample["images"][:rows])

    assert status == 200, logits
    np.testing.assert_allclose(logits, sample["logits"][:rows], atol=1e-4)


def test_requests_that_come_together_get_their_own_rows(server: Running, bundle: Bundle) -> None:
    sample = bundle.sample()
    rows = [slice(0, 2), slice(3, 4), slice(5, 8)]

    with ThreadPoolExecutor(len(rows)) as pool:
        found = list(pool.map(Client(server=server), [sample["images"][row] for row in rows]))

    for row, (status, logits) in zip(rows, found, strict=True):
        assert status == 200, logits
        np.testing.assert_allclose(logits, sample["logits"][row], atol=1e-4)


def test_classes_have_the_names_that_were_given(server: Running, bundle: Bundle) -> None:
    sample = bundle.sample()
    images = sample["images"][:1]
    tensor = {"name": "images", "datatype": "FP32", "shape": images.shape, "data": images.ravel().tolist()}
    wanted = {"name": "logits", "parameters": {"classification": 1}}

    status, document = server.ask("/v2/models/tensors/infer", {"inputs": [tensor], "outputs": [wanted]})

    assert status == 200, document
    (output,) = document["outputs"]
    best = int(sample["logits"][0].argmax())
    assert output["data"][0].split(":")[1:] == [str(best), f"name of {best}"]


def test_what_does_not_fit_is_the_client_s_error(server: Running, bundle: Bundle) -> None:
    images, ask = bundle.sample()["images"], Client(server=server)

    for wrong, datatype in (
        (images[:, :, 1:], "FP32"),
        (np.concatenate([images, images]), "FP32"),
        (images, "FP64"),
    ):
        status, message = ask(wrong, datatype)
        assert status == 400, message
    status, message = Client(server=server, model="images")(np.array([["no image"]]), "BYTES")
    assert (status, message) == (400, "image 0: expected a JPEG or PNG file, got neither")


def test_requests_beyond_the_queue_are_refused_at_once_and_the_others_answered(
    server: Running, bundle: Bundle
) -> None:
    sample = bundle.sample()

    found = stopped(server, Client(server=server), sample["images"])

    answered = [logits for status, logits in found if status == 200]
    refused = [message for status, message in found if status == 503]
    assert len(answered) + len(refused) == REQUESTS
    assert QUEUE <= len(answered) <= QUEUE + 2  # one runs, and one may have left the queue
    assert all("maximum queue size" in message for message in refused)
    for logits in answered:
        np.testing.assert_allclose(logits, sample["logits"], atol=1e-4)


def test_server_that_is_ended_answers_what_it_accepted(server: Running, bundle: Bundle) -> None:
    sample = bundle.sample()

    found = stopped(server, Client(server=server), sample["images"], signal.SIGTERM)

    assert [status for status, _ in found] == [200] * QUEUE
    assert server.process.wait(DEADLINE_S) == 0


def test_ready_model_whose_process_was_killed_is_found_by_the_probe(
    triton: Triton, bundle: Bundle, tmp_path: Path
) -> None:
    pack(PackRequest(bundle=bundle.path, out=tmp_path / "models", name="vit"))

    with triton.running(tmp_path / "models", tmp_path / "log") as server:
        server.stub("vit").kill()

        found = [server.status(path) for path in ("/v2/health/ready", "/v2/models/vit/ready")]
        with pytest.raises(
            TargetUnavailableError, match="answers 500: .*it says that it is ready, and is not"
        ):
            probe(ProbeRequest(url=server.url, bundle=bundle.path, model="vit"))
        server.process.kill()  # it would wait for the process that is gone
    assert found == [200, 200]


def test_damaged_engine_stops_the_start(triton: Triton, bundle: Bundle, tmp_path: Path) -> None:
    folder = pack(PackRequest(bundle=bundle.path, out=tmp_path / "models", name="damaged")).folder
    engine = folder / "1" / "model.onnx"
    engine.write_bytes(engine.read_bytes()[:-1])
    log = tmp_path / "log"

    process, port = triton.start(tmp_path / "models", log)

    try:
        assert process.wait(DEADLINE_S) not in (0, None)
    except subprocess.TimeoutExpired:
        pytest.fail(log.read_text()[-2000:])
    finally:
        end(process, port)
    assert "model.onnx: expected sha256" in log.read_text()
