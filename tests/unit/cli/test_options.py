"""Command-line options as recipe keys."""

import pytest

from exporter.cli import main
from exporter.cli.options import overrides, recipe_options
from exporter.errors import UsageError
from exporter.pipeline import BenchOptions
from tests.unit.cli.conftest import given


def parsed(*words: str) -> dict[str, object]:
    """What `overrides` makes of the words of a command line."""
    return overrides(given(recipe_options, *words))


@pytest.mark.parametrize(
    ("words", "values"),
    [
        pytest.param([], {}, id="nothing"),
        pytest.param(["--r", "0"], {"schedule.r": 0}, id="zero is something"),
        pytest.param(["--r-per-layer", "1, 2,3"], {"schedule.r_per_layer": [1, 2, 3]}, id="list"),
        pytest.param(["--keep-per-layer", "9,8"], {"schedule.keep_per_layer": [9, 8]}, id="counts"),
        pytest.param(
            ["--keep-per-layer", "0.9,1.0"], {"schedule.keep_per_layer": [0.9, 1.0]}, id="fractions"
        ),
        pytest.param(["--target", "onnx,trt"], {"targets": ["onnx", "trt"]}, id="comma list"),
        pytest.param(["--target", "onnx", "--target", "trt"], {"targets": ["onnx", "trt"]}, id="repeated"),
        pytest.param(["--dynamic-batch"], {"dynamic_batch": True}, id="flag"),
        pytest.param(["--static-batch"], {"dynamic_batch": False}, id="flag off"),
        pytest.param(["--no-proportional-attention"], {"proportional_attention": False}, id="switched off"),
        pytest.param(
            ["--method-option", "margin=0.5"], {"method_options": {"margin": 0.5}}, id="method option"
        ),
        pytest.param(["--disable-pass", "a,b"], {"disable_passes": ["a", "b"]}, id="passes"),
        pytest.param(["--max-drop", "0"], {"validate.accuracy.max_drop": 0.0}, id="no drop"),
        pytest.param(["--schedule", "decreasing"], {"schedule.kind": "decreasing"}, id="kind"),
    ],
)
def test_words_become_recipe_values(words: list[str], values: dict[str, object]) -> None:
    assert parsed(*words) == values


@pytest.mark.parametrize(
    "words",
    [
        ["--r-per-layer", "1,,2"],
        ["--r-per-layer", "1.5"],
        ["--keep-per-layer", "0.9;0.8"],
        ["--method-option", "margin"],
    ],
)
def test_what_cannot_be_read_names_its_option(words: list[str]) -> None:
    with pytest.raises(UsageError, match=words[0]):
        parsed(*words)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        pytest.param("224", 224, id="a side"),
        pytest.param("96x160", [96, 160], id="height and width"),
        pytest.param("96X160", [96, 160], id="a capital"),
        pytest.param(" 96 x 160 ", [96, 160], id="with spaces"),
        pytest.param("160x160", [160, 160], id="twice the same"),
    ],
)
def test_an_image_size_is_a_side_or_height_and_width(text: str, size: object) -> None:
    assert parsed("--image-size", text) == {"image_size": size}


@pytest.mark.parametrize("text", ["96x", "x96", "96x160x3", "96,160", "96*160", "", "1e3", "x" * 500])
def test_what_is_no_image_size_is_said_in_one_short_line(text: str) -> None:
    with pytest.raises(
        UsageError, match="--image-size: expected a side, or HEIGHTxWIDTH such as 96x160"
    ) as raised:
        parsed("--image-size", text)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("words", [["--launches", "3"], ["--launches=3"], ["--processes", "3"]])
def test_the_old_name_of_an_option_works_with_a_notice(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []

    def bench(bundles: object, options: BenchOptions, values: object, **rest: object) -> None:
        asked.append(options.launches)
        raise UsageError("stop here")

    monkeypatch.setattr("exporter.pipeline.bench", bench)

    assert main(["bench", "bundle", *words]) == 2
    assert asked == [3]
    assert capsys.readouterr().err.count("--launches is now called --processes") == ("launches" in words[0])
