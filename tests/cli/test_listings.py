"""The commands that only tell: models, doctor, recipe-schema, help, version."""

import json

import jsonschema
import pytest
import yaml

from exporter import cli
from tests.cli.commands import ROOT, run

COMMANDS = ("export", "run", "inspect", "validate", "doctor", "models", "methods", "recipe-schema")


def test_models_lists_aliases_with_pinned_weights() -> None:
    outcome = run("models")

    assert outcome.status == 0
    for name in ("vit_digits", "vit_b16", "deit_s16", "dinov2_s14", "clip_vit_b32", "siglip_b16"):
        assert name in outcome.out
    for form in (
        "timm:local-dir:",
        "torchvision:",
        "hf:OWNER/NAME",
        "open_clip:local-dir:",
        ".pt2 --preprocess",
        "--weights",
    ):
        assert form in outcome.out


def test_models_as_json() -> None:
    listed = json.loads(run("models", "--json").out)
    by_name = {each["name"]: each for each in listed}

    assert by_name["vit_b16"]["weights"] == "augreg_in21k_ft_in1k"
    assert by_name["vit_digits"]["tokens"] == 65
    assert all(each["source"] and each["id"] and each["weights"] for each in listed)


def test_doctor_says_what_works_and_why_the_rest_does_not() -> None:
    document = run("doctor", "--json").document

    assert document.keys() == {"python", "packages", "targets", "devices"}
    assert "CPUExecutionProvider" in document["targets"]["onnx"]
    assert document["targets"].keys() == {"onnx", "trt", "trt-rtx", "torch-trt", "aoti", "openvino"}
    assert all(document["targets"].values())
    assert document["packages"].keys() >= {"torch", "timm", "onnx", "onnxruntime", "transformers"}


def test_doctor_for_people() -> None:
    outcome = run("doctor")

    assert outcome.status == 0
    assert "CPUExecutionProvider" in outcome.out
    assert "onnxruntime" in outcome.out


def test_recipe_schema_accepts_the_shipped_recipes() -> None:
    schema = run("recipe-schema").document
    validator = jsonschema.Draft202012Validator(schema)
    paths = sorted((ROOT / "recipes").rglob("*.yaml"))

    problems = [
        error.message for path in paths for error in validator.iter_errors(yaml.safe_load(path.read_text()))
    ]

    assert paths
    assert problems == []
    assert not validator.is_valid({"model": "vit_b16", "shedule": {"r": 8}})


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_names_every_command(word: str) -> None:
    outcome = run(word)

    assert outcome.status == 0
    assert all(command in outcome.out for command in COMMANDS)
    assert outcome.err == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(command: str) -> None:
    outcome = run(command, "--help")

    assert outcome.status == 0
    assert "--json" in outcome.out
    assert "Usage: python -m exporter" in outcome.out


def test_help_of_export_has_the_options_of_the_contract() -> None:
    text = run("export", "--help").out

    contract = (
        "--r --schedule --r-per-layer --keep-per-layer --method --target --weights --seed --batch --image-size "
        "--precision --data --out --force --json --quiet --debug"
    )
    assert all(f"  {option} " in text for option in contract.split())


def test_version() -> None:
    outcome = run("--version")

    assert outcome.status == 0, outcome.err
    assert outcome.out.strip()


def test_verb_may_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("vit_digit").complaint == run("export", "vit_digit").complaint
    monkeypatch.setattr("sys.argv", ["exporter", "vit_digit"])
    assert cli.main() == 3


def test_verb_with_a_typing_error_is_taken_for_a_model_and_explained() -> None:
    outcome = run("inspct", "vit_digits")

    assert outcome.status in (2, 3)
    assert len(outcome.err.splitlines()) == 1


def test_methods_say_what_they_do_and_whose_idea_they_are() -> None:
    listed = {each["name"]: each for each in json.loads(run("methods", "--json").out)}

    assert {"tome", "pitome"} <= listed.keys()
    assert all(
        each["does"] and each["reference"] and each["licence"] and each["place"] for each in listed.values()
    )
    assert listed["pitome"]["options"]["margin"]["default"] == 0.9
    assert all(option["description"] for each in listed.values() for option in each["options"].values())
    assert all(name in run("methods").out for name in listed)
