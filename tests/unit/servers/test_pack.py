"""What is packed for Triton: the configuration, the files, and what no server could run."""

import errno
import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from exporter.bundle import Bundle
from exporter.bundle.manifest import ArtifactRecord
from exporter.errors import UsageError
from exporter.servers.pack import PackRequest, pack
from exporter.servers.triton.backend import choose_backend
from exporter.servers.triton.config import TritonModel, config_text
from exporter.signature import TensorSpec
from tests.unit.servers.conftest import BATCH, PackIt


@pytest.fixture(scope="session")
def triton_config() -> ModuleType:
    """Triton's own protobuf of a model's configuration; the package around it needs gRPC, which is not installed."""
    client = importlib.util.find_spec("tritonclient")
    assert client is not None and client.submodule_search_locations is not None
    file = Path(client.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(module: ModuleType, text: str) -> dict[str, Any]:
    from google.protobuf import json_format, text_format

    message = text_format.Parse(text, module.ModelConfig())
    found: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return found


def changed(bundle: Bundle, *, batch: int | str = BATCH, **artifact: Any) -> Bundle:
    """The bundle as if its batch and its ONNX engine were others."""
    manifest = bundle.manifest
    inputs, outputs = (
        tuple(replace(spec, shape=(batch, *spec.shape[1:])) for spec in specs)
        for specs in (manifest.inputs, manifest.outputs)
    )
    onnx = replace(manifest.artifacts["onnx"], **artifact)
    trt = ArtifactRecord(
        file="model.engine",
        precision="fp16",
        options={"version_compatible": True}
        | ({"min_batch": 1, "opt_batch": 4, "max_batch": 16} if isinstance(batch, str) else {}),
    )
    artifacts = {**manifest.artifacts, "onnx": onnx, "trt": trt}
    return replace(bundle, manifest=replace(manifest, inputs=inputs, outputs=outputs, artifacts=artifacts))


def model_of(bundle: Bundle, target: str, **options: Any) -> TritonModel:
    given: dict[str, Any] = {
        "accept": "tensor",
        "backend": choose_backend(bundle, target, options.get("accept", "tensor")),
        "instances": 2,
        "labels": None,
        "max_batch": BATCH,
        "on_gpu": False,
    }
    given |= options
    return TritonModel(bundle=bundle, target=target, name='a "b"', queue=5, delay_ms=2.5, **given)


@pytest.mark.parametrize(
    ("target", "batch", "options", "expected"),
    [
        pytest.param(
            "onnx",
            BATCH,
            {},
            {"backend": "python", "input": [{"data_type": "TYPE_FP32", "dims": ["3", "32", "32"]}]},
            id="static",
        ),
        pytest.param(
            "openvino",
            BATCH,
            {"accept": "jpeg"},
            {"backend": "python", "input": [{"data_type": "TYPE_STRING", "dims": ["1"]}]},
            id="jpeg",
        ),
        pytest.param("onnx", "batch", {}, {"backend": "onnxruntime"}, id="free batch"),
        pytest.param(
            "trt",
            "batch",
            {"on_gpu": True},
            {"backend": "tensorrt", "instance_group": [{"count": 2, "kind": "KIND_GPU"}]},
            id="tensorrt",
        ),
    ],
)
def test_configuration_is_one_in_tritons_own_protobuf(
    bundle: Bundle,
    triton_config: ModuleType,
    target: str,
    batch: int | str,
    options: Mapping[str, Any],
    expected: Mapping[str, Any],
) -> None:
    found = parsed(triton_config, config_text(model_of(changed(bundle, batch=batch), target, **options)))

    (tensor,) = found["input"]
    assert tensor.pop("name") == bundle.manifest.inputs[0].name
    assert {key: found[key] for key in expected} == expected
    assert (found["name"], found["max_batch_size"]) == ('a "b"', BATCH)
    batching = found["dynamic_batching"]
    assert batching["max_queue_delay_microseconds"] == "2500"
    assert batching["default_queue_policy"] == {"max_queue_size": 5}  # REJECT is the protobuf's zero
    assert ("preferred_batch_size" in batching) == isinstance(batch, int)
    (warmup,) = found["model_warmup"]
    assert warmup["inputs"].keys() == {"images"}
    assert json.loads(found["parameters"]["preprocess"]["string_value"]) == bundle.manifest.preprocess


def test_misspelt_field_is_no_configuration(bundle: Bundle, triton_config: ModuleType) -> None:
    text = config_text(model_of(bundle, "onnx")).replace("max_queue_size", "max_queue_length")

    with pytest.raises(Exception, match="max_queue_length"):
        parsed(triton_config, text)


def test_engine_with_host_code_comes_with_what_lets_triton_load_it(
    packed: PackIt, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = sys.modules[PackRequest.__module__]
    monkeypatch.setattr(room, "load_bundle", lambda path: changed(bundle, batch="batch"))
    monkeypatch.setattr(room, "write_model", lambda model, repository: repository / model.name)

    assert packed(target="trt").server_options == ("--backend-config=tensorrt,version-compatible=true",)
    assert packed(target="onnx").server_options == ()


def test_engine_labels_and_warm_up_are_those_of_the_bundle(
    packed: PackIt, bundle: Bundle, tmp_path: Path
) -> None:
    names = [f"class {number}" for number in range(int(bundle.manifest.outputs[0].shape[1]))]
    labels = tmp_path / "names.txt"
    labels.write_text("\n".join(names), encoding="utf-8")

    folder = packed(labels=labels, target="openvino").folder

    assert (folder / "labels.txt").read_text().splitlines() == names
    assert 'label_filename: "labels.txt"' in (folder / "config.pbtxt").read_text()
    row = bundle.sample()["images"][0]
    assert np.array_equal(np.fromfile(folder / "warmup" / "images", np.float32), row.ravel())
    for name in ("openvino/model.xml", "openvino/model.bin"):
        assert (folder / "1" / name).read_bytes() == (bundle.path / name).read_bytes()


def test_only_a_model_that_was_packed_is_replaced(packed: PackIt, tmp_path: Path) -> None:
    models = tmp_path / "models"
    (models / "other" / "1").mkdir(parents=True)
    (models / "other" / "config.pbtxt").write_text("name: 'other'", encoding="utf-8")
    packed(queue=7)

    packed(queue=9)

    assert "max_queue_size: 9" in (models / "vit" / "config.pbtxt").read_text()
    assert sorted(path.name for path in models.iterdir()) == ["other", "vit"]
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
    with pytest.raises(UsageError, match="expected nothing there, or a model that pack wrote"):
        packed(name="other")
    assert (models / "other" / "config.pbtxt").read_text() == "name: 'other'"


def test_failed_move_leaves_the_model_that_was_there(
    packed: PackIt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(queue=7)
    rename = Path.rename

    def across_file_systems(path: Path, to: Path) -> Path:
        if path.name == "new":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", across_file_systems)
    with pytest.raises(UsageError, match="another file system is mounted here"):
        packed(queue=9)

    assert "max_queue_size: 7" in (tmp_path / "models" / "vit" / "config.pbtxt").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


@pytest.mark.parametrize(
    ("target", "options", "change", "complaint"),
    [
        pytest.param("trt", {}, {}, "takes engines with a free batch", id="static engine of TensorRT"),
        pytest.param("onnx", {}, {"precision": "bf16"}, "no bfloat16 on a CPU", id="bfloat16"),
        pytest.param(
            "onnx", {}, {"options": {"provider": "tensorrt"}}, "expected onnx.provider", id="provider"
        ),
    ],
)
def test_engine_that_triton_cannot_run_is_refused(
    bundle: Bundle, target: str, options: Mapping[str, Any], change: Mapping[str, Any], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        choose_backend(changed(bundle, **change), target, "tensor")


def test_images_that_torch_resizes_are_not_decoded_by_a_server(bundle: Bundle) -> None:
    by_torch = {**(bundle.manifest.preprocess or {}), "kernel": "torch"}
    manifest = replace(bundle.manifest, preprocess=by_torch)

    with pytest.raises(UsageError, match="resized by torchvision"):
        choose_backend(replace(bundle, manifest=manifest), "onnx", "jpeg")
    with pytest.raises(UsageError, match="takes photos, got one that takes images"):
        choose_backend(replace(bundle, manifest=replace(manifest, preprocess=None)), "onnx", "jpeg")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        pytest.param({"name": "a/b"}, "name: expected letters", id="name"),
        pytest.param({"max_batch": 4}, "--max-batch: expected 8", id="batch"),
        pytest.param({"target": "aoti"}, 'no target "aoti"', id="target"),
        pytest.param({"labels": __file__}, "expected a class in every line", id="labels"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_written(
    packed: PackIt, tmp_path: Path, options: Mapping[str, Any], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        packed(**options)
    assert list(tmp_path.iterdir()) == []


def test_commands_need_neither_what_makes_engines_nor_pack_the_client(bundle: Bundle, tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'onnx', 'click', 'rich', 'gevent']))\n"
        "from exporter.servers import PackRequest, ProbeRequest, pack, probe\n"
        "given, out = sys.argv[1:]\n"
        "print(pack(PackRequest(bundle=given, out=out, accept='jpeg')).needs)\n"
        "for missing in True, False:\n"
        "    if not missing: del sys.modules['gevent']\n"
        "    try: probe(ProbeRequest(url='http://127.0.0.1:1', bundle=given))\n"
        "    except Exception as error: print(type(error).__name__, error)"
    )
    command = [sys.executable, "-c", script, str(bundle.path), str(tmp_path / "models")]

    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    needs, without_client, with_client = done.stdout.splitlines()
    assert needs == "('numpy', 'onnxruntime', 'pillow')"
    assert without_client.startswith("TargetUnavailableError probe: ")
    assert without_client.endswith('install it with: pip install "exporter[triton]"')
    assert with_client.startswith("TargetUnavailableError http://127.0.0.1:1: cannot be reached")


def test_bundle_is_no_repository(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="got a bundle"):
        pack(PackRequest(bundle=bundle.path, out=bundle.path))


def test_type_that_the_protocol_has_not_is_refused(bundle: Bundle) -> None:
    spec = TensorSpec(name="images", dtype="bfloat16", shape=(BATCH, 3, 32, 32))
    odd = replace(bundle, manifest=replace(bundle.manifest, inputs=(spec,)))

    with pytest.raises(UsageError, match="images: expected bool, float16"):
        config_text(model_of(odd, "onnx"))
