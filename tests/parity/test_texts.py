"""Text encoders through the compiler: without merging they are the checkpoint, with it each text is merged alone."""

from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx

from exporter.anatomy import examine
from exporter.capture import Program, capture
from exporter.graph import copy_graph, run_passes
from exporter.models import LoadedModel, ModelRequest, load
from exporter.reduction import method
from exporter.rewrite import RewriteOptions
from exporter.rewrite.capture_again import CaptureAgain
from exporter.rewrite.context import PassContext
from exporter.rewrite.pipeline import configured_passes
from exporter.schedule import Schedule, ScheduleRequest, plan
from tests.support.eager_texts import last_tokens, unit_mean
from tests.support.text_encoders import LENGTH, ids_and_mask, save_encoder

BERT_FORM = {"bipartite": "none", "energy": "gaussian", "deal": "halves"}
LENGTHS = [LENGTH, 9, 4, 3, 2]


def loaded(folder: Path, *, protect_end: bool = False) -> LoadedModel:
    return load(ModelRequest(model=f"hf:{folder}", length=LENGTH, protect_end=protect_end))


def captured(model: LoadedModel) -> Program:
    examples = (torch.ones(2, LENGTH, dtype=torch.int64) for _ in model.inputs)
    return capture(model.module, *examples, protected=model.protected)


def with_types(model: LoadedModel, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return tuple(given[name] for name in model.inputs)


def masked_mean(output: Any, mask: Tensor) -> Tensor:
    rows = [
        tokens[: int(row.sum())].mean(dim=0)
        for tokens, row in zip(output.last_hidden_state, mask, strict=True)
    ]
    return torch.nn.functional.normalize(torch.stack(rows), dim=1)


@pytest.mark.parametrize(
    ("class_name", "config", "expected"),
    [
        pytest.param("BertModel", {"pooling": "mean"}, masked_mean, id="bert-mean"),
        pytest.param(
            "DistilBertForSequenceClassification",
            {},
            lambda output, _: output.logits,
            id="distilbert-classifier",
        ),
        pytest.param(
            "RobertaModel",
            {"pad_token_id": 0},
            lambda output, _: output.last_hidden_state[:, 0],
            id="roberta",
        ),
        pytest.param(
            "MPNetModel", {"pad_token_id": 0, "pooling": "mean"}, masked_mean, id="mpnet-bias-of-positions"
        ),
    ],
)
def test_captured_encoder_is_the_checkpoint(
    tmp_path: Path, class_name: str, config: dict[str, Any], expected: Any
) -> None:
    import transformers

    model = loaded(save_encoder(tmp_path, class_name, **config))
    ids, mask = ids_and_mask(LENGTHS)

    (actual,) = captured(model).graph_module(*with_types(model, ids, mask))

    original = getattr(transformers, class_name).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            actual, expected(original(input_ids=ids, attention_mask=mask), mask), rtol=0, atol=1e-6
        )


def merging(program: Program, schedule: Schedule, options: RewriteOptions) -> fx.GraphModule:
    """The graph that merges, without the second capture, which takes most of a rewrite's time."""
    context = PassContext(schedule=schedule, options=options)
    graph_module = copy_graph(program.graph_module)
    run_passes(
        graph_module, takewhile(lambda each: not isinstance(each, CaptureAgain), configured_passes(context))
    )
    return graph_module


@pytest.fixture(scope="module")
def sentence_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("bert"), "BertModel", pooling="mean")


@pytest.fixture(scope="module", params=[False, True], ids=["", "protected-end"])
def encoder(sentence_encoder: Path, request: pytest.FixtureRequest) -> tuple[LoadedModel, Program]:
    model = loaded(sentence_encoder, protect_end=request.param)
    return model, captured(model)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("tome", {}, id="tome"),
        pytest.param("pitome", {"bipartite": "none"}, id="pitome"),
        pytest.param("pitome", {"bipartite": "all"}, id="pitome-bipartite"),
        pytest.param("pitome", BERT_FORM, id="pitome-of-bert"),
        pytest.param("random", {}, id="random"),
        pytest.param("grid", {}, id="grid"),
        pytest.param("evit", {"fused": False}, id="evit"),
        pytest.param("evit", {"fused": True}, id="evit-fused"),
        pytest.param("diffrate", {}, id="diffrate"),
        pytest.param("ppt", {"threshold": 0.005}, id="ppt"),
    ],
)
def test_padded_texts_are_reduced_as_each_of_them_alone(
    encoder: tuple[LoadedModel, Program], name: str, options: dict[str, Any]
) -> None:
    (model, program), chosen = encoder, method(name)
    anatomy = examine(program.graph_module)
    schedule = plan(ScheduleRequest(r=3), chosen.limited(anatomy.geometry, options))
    ids, mask = ids_and_mask(LENGTHS)

    options_of_all = RewriteOptions(
        method=chosen.with_options(options), method_options=options, proportional=chosen.proportional
    )
    actual, *records = merging(program, schedule, options_of_all)(*with_types(model, ids, mask))

    assert [record.shape[1] for record in records] == [LENGTH + 3, LENGTH, LENGTH - 3]
    module: Any = model.module
    how: Any = {"method": name, "r": 3, "protect_end": model.protected == 2, **options}
    for row, length in enumerate(LENGTHS):
        tokens, sizes = last_tokens(module.model, ids[row, :length], **how)
        torch.testing.assert_close(actual[row].double(), unit_mean(tokens, sizes), rtol=0, atol=1e-5)


def test_ranges_of_a_program_in_fp8_are_taken_from_texts(encoder: tuple[LoadedModel, Program]) -> None:
    (model, program), chosen = encoder, method("tome")
    schedule = plan(ScheduleRequest(r=3), chosen.limited(examine(program.graph_module).geometry, {}))
    inputs = with_types(model, *ids_and_mask(LENGTHS))
    exact = RewriteOptions(method=chosen)

    actual, *_ = merging(program, schedule, replace(exact, precision="fp8", calibration=inputs))(*inputs)

    expected, *_ = merging(program, schedule, exact)(*inputs)
    cosines = torch.nn.functional.cosine_similarity(actual.float(), expected)
    assert 0.98 < cosines.min() < 1 - 1e-6
