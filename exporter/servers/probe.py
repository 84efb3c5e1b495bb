"""`probe`: whether a server answers what a bundle answers. Readiness says less: a model may be ready, and fail.

In: a server and a bundle. Out: how far its answers to the bundle's sample are from the bundle's, and how long it takes.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from exporter.bundle import Bundle, load_bundle
from exporter.errors import BundleError, ParityError, TargetUnavailableError, UsageError, quoted
from exporter.records import LENIENT, parse_json, record_from
from exporter.servers.open_inference import DATATYPES, Server, takes_bytes
from exporter.servers.sample import sample_files
from exporter.signature import Array, TensorSpec
from exporter.targets.sample_check import shortfalls

PARITY_FILE = "parity.json"
TIMED_REQUESTS = 10

_REMEDY = "export the bundle again"


@dataclass(frozen=True, kw_only=True)
class ProbeRequest:
    """What is asked, and what is expected.

    Attributes:
        url: of the server, `http://HOST:PORT`.
        bundle: its folder.
        model: name on the server; None for the bundle's.
        target: whose tolerances and sample count; None for the one that the server names, the only one, or `onnx`.
        timeout_s: for every answer.
    """

    url: str
    bundle: str | Path
    model: str | None = None
    target: str | None = None
    timeout_s: float = 30.0


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How long requests of some rows took, one after the other over one connection; the median, in milliseconds."""

    rows: int
    requests: int
    median_ms: float


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What a server answered.

    Attributes:
        url: of the server.
        server: what it says of itself: name and version.
        model: name there.
        platform: what it says that runs the model.
        bundle: name of the bundle.
        same_engine: whether the server says that it runs this very engine; None where it says nothing.
        max_abs_error: the largest difference from what is expected, by output; None where there is none to tell.
        latency: of one row, and of as many as the engine takes at once.
        failures: what is wrong, by output; none where the answers are the bundle's.
    """

    url: str
    server: str
    model: str
    platform: str
    bundle: str
    same_engine: bool | None
    max_abs_error: Mapping[str, float | None]
    latency: tuple[Latency, ...]
    failures: Mapping[str, ParityError]


@dataclass(frozen=True, kw_only=True)
class _Tolerances:
    """What an output may differ by, as the bundle was verified."""

    __pydantic_config__ = LENIENT

    max_abs_error: float
    mean_abs_error: float
    cosine: float


@dataclass(frozen=True, kw_only=True)
class _Verified:
    """What `parity.json` says of a target."""

    __pydantic_config__ = LENIENT

    tolerances: _Tolerances


def probe(asked: ProbeRequest) -> Probed:
    """Send a bundle's sample to a server, and compare.

    Raises:
        TargetUnavailableError: the server or the model cannot be reached, is not ready, or fails; or the client of the
            extra `triton` is not installed.
        ParityError: the model has other inputs or outputs than the bundle, or refuses its sample.
        BundleError: the bundle is damaged.
        UsageError: the address is none, or the bundle has no such target.
    """
    bundle = load_bundle(asked.bundle)
    name = asked.model or bundle.manifest.name
    if asked.target is not None:
        bundle.target_of(asked.target)
    server = Server(url=asked.url, timeout_s=asked.timeout_s)
    with closing(server):
        about = server.metadata()
        model = server.model_metadata(name)
        served = server.served(name)
        known = served.target if served.target in bundle.manifest.artifacts else None
        target = bundle.target_of(asked.target or known)
        tolerances, sample = _tolerances(bundle, target), bundle.sample(target)
        inputs = _inputs(bundle, target, model, sample)
        binary = takes_bytes(about)
        if not binary and any(array.dtype in (np.object_, np.float16) for array in inputs.values()):
            raise TargetUnavailableError(
                f"{asked.url}: expected a server with the extension binary_tensor_data, which files and float16 need"
            )
        outputs = bundle.signature.output_names

        def ask(rows: slice) -> dict[str, Array]:
            given = {key: array[rows] for key, array in inputs.items()}
            return server.infer(name, given, outputs, binary=binary)

        rows = len(sample[outputs[0]])
        most = min(each for each in (rows, bundle.signature.batch, served.max_batch) if isinstance(each, int))
        found = _all_rows(ask, rows, most)
        latency = tuple(_timed(ask, count) for count in sorted({1, most}))
    engine = bundle.manifest.artifacts[target].sha256
    return Probed(
        url=asked.url,
        server=f"{about.get('name', 'unnamed')} {about.get('version', '')}".strip(),
        model=name,
        platform=str(model.get("platform", "")),
        bundle=bundle.manifest.name,
        same_engine=None if served.engine is None else served.engine == engine,
        max_abs_error={key: _largest_error(found[key], sample[key]) for key in outputs},
        latency=latency,
        failures=_failures(asked.url, name, found, sample, tolerances),
    )


def _tolerances(bundle: Bundle, target: str) -> Mapping[str, float]:
    file = bundle.path / PARITY_FILE
    if PARITY_FILE not in bundle.manifest.files:
        raise BundleError(f"{bundle.path}: this bundle has no {PARITY_FILE}")
    tree = parse_json(file.read_bytes(), str(file), "JSON", _REMEDY)
    if not isinstance(tree, dict) or target not in tree:
        raise UsageError(
            f"{bundle.path}: target {target} was not verified when it was built; give another --target"
        )
    return vars(record_from(_Verified, tree[target], str(file), _REMEDY).tolerances)


def _inputs(
    bundle: Bundle, target: str, model: Mapping[str, Any], sample: Mapping[str, Array]
) -> Mapping[str, Array]:
    """The sample as the model takes it: as the engine's inputs, or as image files."""
    manifest = bundle.manifest
    takes = _described(model.get("inputs"))
    takes_files = manifest.preprocess is not None and takes == {manifest.inputs[0].name: ("BYTES", (1,))}
    if not takes_files:
        _check_same("inputs", manifest.inputs, takes, model)
    _check_same("outputs", manifest.outputs, _described(model.get("outputs")), model)
    if takes_files:
        return {manifest.inputs[0].name: sample_files(bundle, target)}
    return bundle.signature.inputs_of(sample)


def _check_same(
    what: str,
    specs: Sequence[TensorSpec],
    there: Mapping[str, tuple[str, tuple[int, ...]]],
    model: Mapping[str, Any],
) -> None:
    expected = {
        spec.name: (DATATYPES.get(spec.dtype, spec.dtype), tuple(map(int, spec.shape[1:]))) for spec in specs
    }
    if expected != there:
        raise ParityError(
            f"model {model.get('name')}: expected {what} {_listed(expected)}, got {_listed(there)}; it serves another "
            "bundle"
        )


def _described(tensors: object) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of a row by name, as the protocol's metadata has them."""
    try:
        return {each["name"]: (each["datatype"], tuple(each["shape"][1:])) for each in tensors}  # type: ignore[attr-defined]
    except (TypeError, KeyError):
        return {}


def _listed(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    shown = [f"{quoted(name)} {kind} {'x'.join(map(str, row))}" for name, (kind, row) in tensors.items()]
    return ", ".join(shown) or "none"


def _all_rows(ask: Callable[[slice], dict[str, Array]], rows: int, most: int) -> dict[str, Array]:
    """Answers to all rows: to the first one alone, which a static engine pads, and to the others, `most` at a time."""
    answers = [ask(slice(0, 1)), *(ask(slice(start, start + most)) for start in range(1, rows, most))]
    return {key: np.concatenate([answer[key] for answer in answers]) for key in answers[0]}


def _timed(ask: Callable[[slice], object], rows: int) -> Latency:
    times_ms = []
    for _ in range(TIMED_REQUESTS):
        started = time.perf_counter()
        ask(slice(0, rows))
        times_ms.append(1000 * (time.perf_counter() - started))
    return Latency(rows=rows, requests=TIMED_REQUESTS, median_ms=median(times_ms))


def _largest_error(found: Array, expected: Array) -> float | None:
    if found.shape != expected.shape or not np.isfinite(found).all():
        return None
    return float(np.abs(found.astype(np.float64) - expected).max())


def _failures(
    url: str,
    model: str,
    found: Mapping[str, Array],
    expected: Mapping[str, Array],
    tolerances: Mapping[str, float],
) -> dict[str, ParityError]:
    wrong = {key: shortfalls(array, expected[key], tolerances) for key, array in found.items()}
    return {
        key: ParityError(f"{url}: model {model}: {key} is not the bundle's: {'; '.join(each)}")
        for key, each in wrong.items()
        if each
    }
