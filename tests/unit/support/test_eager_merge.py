"""The eager references hold what must be true of any right token merging, on the libraries' own models."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from tests.support.eager_merge import NearTieError, run_eager_merged, trace_eager_merged
from tests.support.families import BLOCKS, FAMILY_PARAMS, PATCH_SIZE, PATCHES, SCHEDULES, Family, family
from tests.support.matching import Method, cosine, match_tome

METHODS = ("tome", "pitome")
DENSE = (0,) * BLOCKS


def exact(family: Family) -> tuple[nn.Module, Tensor]:
    """Return model and images in float64, where nothing but a wrong formula makes a difference."""
    return family.model().double(), family.images().double()


def dense_output(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = model(images)
    return output


def twin_patches(family: Family) -> tuple[nn.Module, Tensor]:
    """Return model and images in which patches 2i and 2i + 1 are alike: same pixels, same position."""
    model, images = exact(family)
    pairs = images.reshape(*images.shape[:3], -1, 2, PATCH_SIZE)
    pairs[:, :, :, :, 1] = pairs[:, :, :, :, 0]
    for name, parameter in model.named_parameters():
        if "pos" in name:
            patch_rows = parameter.reshape(-1, parameter.shape[-1])[-PATCHES:]
            patch_rows[1::2] = patch_rows[0::2]
    return model, pairs.flatten(3)


@pytest.mark.parametrize("family", FAMILY_PARAMS)
def test_merging_nothing_changes_nothing(family: Family) -> None:
    model, images = exact(family)
    dense = dense_output(model, images)

    merged = run_eager_merged(model, images, DENSE, "tome")

    torch.testing.assert_close(merged, dense, rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILY_PARAMS)
def test_merging_twin_tokens_changes_nothing(family: Family, method: Method) -> None:
    model, images = twin_patches(family)
    dense = dense_output(model, images)

    run = trace_eager_merged(model, images, (12, 0, 0, 0), method)

    assert run.tokens[-1] == family.tokens - 12
    torch.testing.assert_close(run.output, dense, rtol=0, atol=1e-10)


@pytest.mark.parametrize("family", [pytest.param(family("timm_siglip"), id="attention pooling")])
def test_without_proportional_attention_twin_tokens_count_once(family: Family) -> None:
    model, images = twin_patches(family)
    dense = dense_output(model, images)

    run = trace_eager_merged(model, images, (12, 0, 0, 0), "tome", proportional=False)

    assert (run.output - dense).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("merged", "tokens"),
    [
        pytest.param((4, 4, 4, 4), [37, 33, 29, 25, 21], id="constant"),
        pytest.param((10, 6, 3, 0), [37, 27, 21, 18, 18], id="decreasing"),
        pytest.param((0, 5, 0, 7), [37, 37, 32, 32, 25], id="with zeros"),
        pytest.param((40, 40, 40, 40), [37, 19, 10, 6, 4], id="capped"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_sizes_sum_to_the_tokens_that_came_in(
    method: Method, merged: Sequence[int], tokens: list[int]
) -> None:
    model, images = exact(family("timm_vit"))

    run = trace_eager_merged(model, images, merged, method)

    assert run.tokens == tokens
    assert run.sizes_BN.sum(dim=1).tolist() == [37, 37]
    assert run.sizes_BN[:, 0].tolist() == [1, 1]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILY_PARAMS)
def test_merging_different_tokens_shows_in_the_output(family: Family, method: Method) -> None:
    model, images = exact(family)
    dense = dense_output(model, images)

    merged = run_eager_merged(model, images, (8, 8, 0, 0), method)

    assert (merged - dense).abs().max() > 1e-2


@pytest.mark.parametrize("family", FAMILY_PARAMS)
def test_prefix_tokens_stay_alone_and_in_front(family: Family) -> None:
    model, images = exact(family)

    run = trace_eager_merged(model, images, (8, 8, 8, 8), "pitome")

    prefix = [[token] for token in range(family.prefix)]
    assert all(m.groups[: family.prefix] == prefix for block in run.matchings for m in block)
    assert run.tokens[0] == family.tokens


@pytest.mark.parametrize("family", FAMILY_PARAMS)
def test_model_is_itself_again_afterwards(family: Family) -> None:
    model, images = exact(family)
    dense = dense_output(model, images)

    run_eager_merged(model, images, (4, 4, 4, 4), "tome")

    assert torch.equal(dense_output(model, images), dense)


def test_model_is_itself_again_after_a_failure() -> None:
    model, images = exact(family("timm_vit"))
    dense = dense_output(model, images)

    with pytest.raises(RuntimeError):
        run_eager_merged(model, images[:, :1], (4, 4, 4, 4), "tome")

    assert torch.equal(dense_output(model, images), dense)


def test_metric_is_the_mean_over_heads_of_the_keys_that_attention_uses() -> None:
    model, images = exact(family("timm_qk_norm"))
    keys: list[Tensor] = []
    handle = model.get_submodule("blocks.0.attn.k_norm").register_forward_hook(
        lambda _module, _inputs, output: keys.append(output)
    )
    dense_output(model, images)
    handle.remove()

    run = trace_eager_merged(model, images, (6, 0, 0, 0), "tome")

    metric_BNC = keys[0].mean(dim=1)
    expected = [match_tome(cosine(metric_NC), r=6, prefix=1) for metric_NC in metric_BNC]
    assert [m.groups for m in run.matchings[0]] == [m.groups for m in expected]


def test_images_do_not_see_each_other() -> None:
    model, images = exact(family("timm_vit"))

    together = run_eager_merged(model, images, (4, 4, 4, 4), "tome")
    second = run_eager_merged(model, images[1:], (4, 4, 4, 4), "tome")

    torch.testing.assert_close(together[1:], second, rtol=0, atol=1e-10)


def test_near_tie_is_refused() -> None:
    model, images = twin_patches(family("timm_vit"))

    with pytest.raises(NearTieError):
        run_eager_merged(model, images, (12, 0, 0, 0), "tome")


@pytest.mark.parametrize("merged", [pytest.param(merged, id=name) for name, merged in SCHEDULES.items()])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILY_PARAMS)
def test_no_decision_of_the_parity_cases_is_within_rounding(
    family: Family, method: Method, merged: Sequence[int]
) -> None:
    run = trace_eager_merged(family.model(), family.images(), merged, method)

    assert run.margin > 2e-5


def test_wrong_number_of_counts_is_refused() -> None:
    model, images = exact(family("timm_vit"))

    with pytest.raises(ValueError, match="3 merge counts for 4 blocks"):
        run_eager_merged(model, images, (1, 1, 1), "tome")


def test_unknown_model_is_refused() -> None:
    with pytest.raises(TypeError, match="no image tower"):
        run_eager_merged(nn.Linear(2, 2).eval(), torch.zeros(1, 2), (), "tome")
