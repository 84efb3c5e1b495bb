"""The executor on Ray, against a stand-in: Ray's calls as they are documented, in this process."""

import json
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from exporter.embed import embed
from exporter.errors import TargetUnavailableError, UsageError
from tests.unit.embed.conftest import Ask
from tests.unit.embed.test_run import contents


class RayActorError(Exception):
    """As Ray raises it for an actor that is gone."""


@dataclass
class FakeRay:
    """Runs actors at once; `deaths` says which of all requests end their actor."""

    deaths: set[int]
    calls: list[tuple[str, Any]] = field(default_factory=list)
    asked: int = 0
    exceptions: Any = field(default_factory=lambda: SimpleNamespace(RayActorError=RayActorError))

    def init(self, **given: Any) -> None:
        self.calls.append(("init", given))
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))

    def shutdown(self) -> None:
        self.calls.append(("shutdown", None))

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0, "memory": 1e9}

    def remote(self, kind: type) -> Any:
        def options(**given: Any) -> Any:
            self.calls.append(("options", given))
            return SimpleNamespace(remote=lambda: self._actor(kind()))

        return SimpleNamespace(options=options)

    def wait(self, references: list[Any], *, num_returns: int) -> tuple[list[Any], list[Any]]:
        return references[:num_returns], references[num_returns:]

    def get(self, reference: list[str]) -> Any:
        if not reference:
            raise RayActorError("The actor died\nunexpectedly before finishing this task.")
        return json.loads(reference[0])

    def kill(self, actor: Any) -> None:
        self.calls.append(("kill", None))

    def _actor(self, worker: Any) -> Any:
        def ask(request: Any) -> list[str]:
            self.asked += 1
            if self.asked in self.deaths:
                return []
            return [json.dumps(worker.ask(json.loads(json.dumps(request))))]

        return SimpleNamespace(ask=SimpleNamespace(remote=ask))


def test_ray_writes_what_one_process_writes_and_a_dead_actor_is_replaced(
    ask: Ask, in_this_process: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alone = contents(embed(ask(out=tmp_path / "alone")).out)
    monkeypatch.undo()
    ray, handler = FakeRay(deaths={2, 4}), signal.getsignal(signal.SIGTERM)
    monkeypatch.setitem(sys.modules, "ray", ray)

    out = embed(ask(on="ray", workers=2)).out

    assert contents(out) == alone
    assert signal.getsignal(signal.SIGTERM) is handler
    assert ray.calls[:2] == [
        (
            "init",
            {
                "address": "local",
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
                "log_to_driver": False,
                "logging_level": "ERROR",
            },
        ),
        ("options", {"num_cpus": 1, "num_gpus": 0.0}),
    ]
    assert [name for name, _ in ray.calls[2:]] == ["kill"] * 4 + ["shutdown"]


def test_an_error_of_an_actor_is_raised_here(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay(deaths=set()))
    monkeypatch.setattr("exporter.embed.worker.__version__", "9.9")

    with pytest.raises(UsageError, match=r"expected exporter .* on every worker, got 9.9"):
        embed(ask(on="ray"))


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
            {"on": "ray=127.0.0.1:1"}, r"nothing answers at 127.0.0.1:1 .*refused", id="nobody there"
        ),
    ],
)
def test_a_place_that_is_none_is_one_line(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay(deaths=set()))

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
