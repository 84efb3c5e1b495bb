"""The executor on Ray: one Ray for most of these tests, and what a cluster can lack."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from exporter.bundle import Bundle
from exporter.embed import EmbedRequest, embed
from exporter.embed.ray_cluster import Actor
from exporter.errors import TargetUnavailableError, UsageError
from exporter.models.shipped.digits import HELD_OUT_SCANS
from exporter.models.shipped.fashion import FASHION_PHOTOS
from tests.support.processes import still_running
from tests.unit.bundle.test_serving import ROOT
from tests.unit.embed.conftest import Ask
from tests.unit.embed.test_run import contents, rows_of

DEADLINE_S = 120

HEAD = """
import sys
import ray

ray.init("local", num_cpus=2, include_dashboard=False, logging_level="ERROR", _temp_dir=sys.argv[1])
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""

DRIVER = """
import os, sys
from exporter.embed import EmbedRequest, embed
from exporter.processes.interrupts import interrupt_on_signals

interrupt_on_signals()
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
bundle, data, out = sys.argv[1:]
embed(EmbedRequest(bundle=bundle, data=data, out=out, target="onnx", shard=16, on="ray", max_errors="100%"))
"""

BY_NAME = """
import os, signal, time
import exporter.images
import exporter.images.opening as opening

open_image = opening.open_image

def changed(path):
    if path.name == "deadly.png":
        os.kill(os.getpid(), signal.SIGKILL)
    if path.name.startswith("scan"):
        time.sleep(0.01)
    return open_image(path)

exporter.images.open_image = opening.open_image = changed
"""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Ray of two CPUs on this machine."""

    address: str
    pid: int

    def actors(self) -> list[psutil.Process]:
        """Its processes that embed."""
        return [each for each in psutil.Process(self.pid).children(recursive=True) if _is_actor(each)]


def _is_actor(process: psutil.Process) -> bool:
    return process.cmdline()[:1] != [] and process.cmdline()[0].startswith("ray::Actor")


def _listens_at(process: psutil.Process) -> list[str]:
    connections = process.net_connections("tcp")
    return [each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of processes in which a file's name says what becomes of its reader; Ray listens to this machine alone."""
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(BY_NAME, encoding="utf-8")
    paths = os.pathsep.join((str(site), str(ROOT)))
    return {
        **os.environ,
        "PYTHONPATH": paths,
        "HOME": str(site),
        "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


@pytest.fixture(scope="module")
def cluster(environment: dict[str, str]) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # its sockets need a short path
        command = (sys.executable, "-c", HEAD, folder)
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, env=environment, cwd=folder, text=True, stdin=pipe, stdout=pipe
        ) as head:
            assert head.stdin is not None and head.stdout is not None
            yield Cluster(address=f"ray={head.stdout.readline().strip()}", pid=head.pid)
            head.stdin.close()


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """No test of Ray hangs."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done within {DEADLINE_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(DEADLINE_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 of the shipped scans, 40 of the shipped photos, and between them a file that is no image."""
    folder = tmp_path_factory.mktemp("shipped")
    kinds = {"photo": np.load(FASHION_PHOTOS)["images"], "scan": np.load(HELD_OUT_SCANS)["scans"]}
    for kind, images in kinds.items():
        for number, image in enumerate(images[:40]):
            Image.fromarray(image * (1 if kind == "photo" else 15)).save(folder / f"{kind}-{number:02}.png")
    (folder / "q.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def on_ray(ask: Ask, shipped: Path, cluster: Cluster) -> Ask:
    """A request for the shipped images on Ray, in six shards."""

    def request(**changed: Any) -> Any:
        given = {"data": str(shipped), "shard": 16, "workers": None, "on": cluster.address}
        return ask(**{**given, **changed})

    return request


@pytest.fixture(scope="module")
def alone(bundle: Bundle, shipped: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files that one process of this machine writes."""
    request = EmbedRequest(
        bundle=bundle.path,
        data=str(shipped),
        out=tmp_path_factory.mktemp("alone") / "out",
        target="onnx",
        shard=16,
        workers=1,
        max_errors="100%",
    )
    out = embed(request).out
    names = [row["path"] for row in rows_of(out)]
    assert names == sorted(path.name for path in shipped.iterdir())
    assert [row["error"] for row in rows_of(out) if row["logits"] is None] == [
        "not an image of a known format"
    ]
    return contents(out)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_ray_writes_what_one_process_writes(on_ray: Ask, alone: dict[str, bytes], workers: int) -> None:
    handler = signal.getsignal(signal.SIGTERM)

    assert contents(embed(on_ray(workers=workers)).out) == alone

    assert signal.getsignal(signal.SIGTERM) is handler


def test_an_actor_that_is_killed_is_replaced(on_ray: Ask, alone: dict[str, bytes], cluster: Cluster) -> None:
    killed = list[int]()

    def kill_one(done: int, total: int) -> None:
        if done and not killed:
            killed.append(cluster.actors()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    assert contents(embed(on_ray(), kill_one).out) == alone
    assert killed


def test_a_shard_that_ends_three_actors_becomes_errors(on_ray: Ask, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("a.png", "deadly.png", "e.png"):
        Image.new("RGB", (32, 32)).save(tmp_path / "data" / name)

    embedded = embed(on_ray(data=str(tmp_path / "data"), shard=1, workers=1))

    why = "not embedded: 3 processes ended while they embedded shard 1"
    assert [row["error"] for row in rows_of(embedded.out)] == [None, why, None]
    assert embedded.done.given_up == (1,)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_stopped_leaves_no_process_of_ray_and_goes_on(
    on_ray: Ask, alone: dict[str, bytes], environment: dict[str, str], end: signal.Signals
) -> None:
    request = on_ray()
    out = Path(request.out)
    own = {name: value for name, value in environment.items() if not name.startswith("RAY_")}
    command = (sys.executable, "-c", DRIVER, str(request.bundle), request.data, str(out))
    with subprocess.Popen(command, env=own, stderr=subprocess.DEVNULL) as driver:
        while not list(out.glob("shard-000002.parquet")):
            time.sleep(0.01)
        children = psutil.Process(driver.pid).children(recursive=True)
        assert sum(_is_actor(each) for each in children) == 1
        assert {address.removeprefix("::ffff:") for each in children for address in _listens_at(each)} == {
            "127.0.0.1"
        }
        ends_late = [each for each in children if end == signal.SIGKILL and "Agent" in each.name()]
        driver.send_signal(end)

    assert not still_running(each.pid for each in children if each not in ends_late)
    assert not Path(own["HOME"], ".ray").exists()
    assert 0 < embed(request).found < 6
    assert contents(out) == alone


def test_a_bundle_that_is_not_on_the_workers_disks_is_sent_to_them(
    on_ray: Ask, bundle: Bundle, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle.path)

    assert contents(embed(on_ray(bundle="/proc/self/cwd")).out) == alone


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"data": "/proc/self/cwd/data"}, "data: .*a.png: was there when .* planned", id="data"),
        pytest.param({"out": "/proc/self/cwd/out"}, "out: expected the plan.json of this run", id="out"),
        pytest.param({"gpus_per_worker": 0.5}, "a core and 0.5 GPUs, got at most 2 cores and 0", id="GPUs"),
    ],
)
def test_what_a_cluster_lacks_is_one_line(
    on_ray: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    (tmp_path / "data").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "data" / "a.png")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UsageError, match=words):
        embed(on_ray(**change))


def test_another_version_on_the_cluster_is_one_line(on_ray: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.embed.run.__version__", "9.9")

    with pytest.raises(UsageError, match=r"expected exporter 9.9 on every worker, got [\d.]+"):
        embed(on_ray())


def test_workers_that_cannot_import_the_exporter_are_one_line(
    on_ray: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = ModuleType("absent")
    absent.Actor = type("Actor", (Actor,), {"__module__": "absent"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "absent", absent)
    monkeypatch.setattr("exporter.embed.ray_cluster.Actor", absent.Actor)

    with pytest.raises(UsageError, match=r"the machines of Ray need exporter .* No module named 'absent'"):
        embed(on_ray())


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["silent", "HTTP"])
def test_an_address_where_something_else_listens_is_one_line(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr("exporter.embed.ray_cluster._PATIENCE_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            connection.sendall(answer)
            connection.recv(100)
            threading.Event().wait(1)
            connection.close()

        threading.Thread(target=serve, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"

        with pytest.raises(UsageError, match=f"Ray does not answer at {address} within 0.3 s"):
            embed(ask(on=f"ray={address}"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"on": "spark"}, "on: expected local, ray or ray=HOST:PORT, got spark", id="another"),
        pytest.param({"on": "ray="}, "on: expected local, ray or ray=HOST:PORT", id="no address"),
        pytest.param(
            {"gpus_per_worker": 0.5}, "gpus-per-worker: expected --on ray", id="GPUs of this machine"
        ),
        pytest.param({"on": "ray=here"}, "on: expected ray=HOST:PORT, got ray=here", id="no port"),
        pytest.param(
            {"on": "ray=127.0.0.1:1"}, r"does not answer at 127.0.0.1:1 .*refused", id="nobody there"
        ),
    ],
)
def test_a_place_that_is_none_is_one_line(ask: Ask, change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        embed(ask(**change))


def test_without_ray_the_line_says_how_to_install_it(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(TargetUnavailableError, match=r'pip install "exporter\[ray\]"'):
        embed(ask(on="ray"))


def test_without_pyarrow_the_line_says_how_to_install_it(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(TargetUnavailableError, match=r'pip install "exporter\[embed\]"'):
        embed(ask())
