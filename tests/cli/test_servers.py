"""`pack` and `probe` as a user types them; what a packed model answers is tested with the room `servers`."""

from pathlib import Path

from tests.cli.commands import TINY, Build, run


def test_bundle_with_a_free_batch_is_packed_for_onnx_runtime_in_triton(build: Build, tmp_path: Path) -> None:
    bundle, models = build(*TINY, "--r", "2", "--dynamic-batch"), tmp_path / "models"

    outcome = run(
        "pack", bundle, "--for", "triton", "--out", models, "--name", "vit", "--max-batch", "6", "--json"
    )

    assert outcome.status == 0, outcome.err
    assert outcome.document == {
        "folder": str(models / "vit"),
        "name": "vit",
        "target": "onnx",
        "backend": "onnxruntime",
        "max_batch": 6,
        "needs": [],
        "server_options": [],
    }
    assert (models / "vit" / "1" / "model.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()
    assert [path.name for path in (models / "vit" / "1").iterdir()] == ["model.onnx"]


def test_commands_about_servers_end_with_the_status_of_what_is_wrong(build: Build, tmp_path: Path) -> None:
    bundle, models = build(*TINY, "--r", "2", "--dynamic-batch"), tmp_path / "models"

    assert run("pack", bundle, "--for", "kserve", "--out", models).status == 2
    assert run("pack", bundle, "--for", "triton", "--out", models, "--queue", "0").status == 2
    assert run("pack", tmp_path, "--for", "triton", "--out", models).status == 8
    assert run("probe", "localhost", "--bundle", bundle).status == 2
    assert run("probe", "http://127.0.0.1:1", "--bundle", bundle).status == 7
    assert run("probe", "http://127.0.0.1:1", "--bundle", tmp_path).status == 8
    assert list(tmp_path.iterdir()) == []
