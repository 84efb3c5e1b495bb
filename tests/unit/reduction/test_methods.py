"""What every method has to hold, and how methods are found."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import UsageError
from exporter.reduction import Site, method, method_names, methods
from exporter.reduction.match import Match
from exporter.reduction.merge import merge_by_lookup
from tests.unit.reduction.match_cases import MatchCase, random_cases, site, tied_cases

METHODS = st.sampled_from(["tome", "pitome"])
FILES = tuple(sorted(path.stem for path in Path(methods.__path__[0]).glob("[a-z]*.py")))
CASES = st.one_of(tied_cases(), random_cases())


def matched(name: str, keys_BHND: torch.Tensor, at: Site) -> Match:
    chosen = method(name)
    return chosen.decide(keys_BHND, at=at, **chosen.chosen({}))


@given(name=METHODS, case=CASES)
def test_every_token_is_kept_or_merges_and_the_prefix_stays_in_front(name: str, case: MatchCase) -> None:
    kept, sources, targets, dropped, absent = matched(name, case.keys_BHND, case.site())

    tokens = len(case.metric_NC)
    assert kept.shape == (1, tokens - case.r)
    assert sources.shape == targets.shape == (1, case.r)
    assert {kept.dtype, sources.dtype, targets.dtype} == {torch.int64}
    assert sorted(kept[0].tolist() + sources[0].tolist()) == list(range(tokens))
    assert kept[0, : case.prefix].tolist() == list(range(case.prefix))
    assert targets.min() >= case.prefix
    assert targets.max() < tokens - case.r
    assert (dropped, absent) == (0, None)


@given(name=METHODS, case=CASES, seed=st.integers(0, 1000))
def test_sizes_and_weighted_tokens_add_up_to_what_entered(name: str, case: MatchCase, seed: int) -> None:
    tokens = len(case.metric_NC)
    generator = torch.Generator().manual_seed(seed)
    tokens_BNC = torch.randn(1, tokens, 3, generator=generator)
    sizes_BN1 = torch.randint(1, 6, (1, tokens, 1), generator=generator).float()

    match = matched(name, case.keys_BHND, case.site())
    merged, merged_sizes = merge_by_lookup(tokens_BNC, sizes_BN1, match)

    assert merged.shape == (1, tokens - case.r, 3)
    assert merged_sizes.sum() == sizes_BN1.sum()
    torch.testing.assert_close(
        (merged * merged_sizes).sum(1), (tokens_BNC * sizes_BN1).sum(1), atol=1e-4, rtol=1e-5
    )
    torch.testing.assert_close(merged[:, : case.prefix], tokens_BNC[:, : case.prefix], atol=1e-6, rtol=1e-6)


@given(name=METHODS, seed=st.integers(0, 1000), order=st.permutations(range(4)))
def test_images_of_a_batch_do_not_see_each_other(name: str, seed: int, order: list[int]) -> None:
    keys = torch.randn(4, 2, 17, 5, generator=torch.Generator().manual_seed(seed))

    together = matched(name, keys, site(4, 1))
    permuted = matched(name, keys[order], site(4, 1))

    for part, permuted_part in zip(together[:3], permuted[:3], strict=True):
        assert torch.equal(part[order], permuted_part)


def test_methods_are_the_files_of_the_folder() -> None:
    assert method_names() == FILES
    assert {"tome", "pitome"} <= {*FILES}


def test_unknown_method_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(
        UsageError, match=rf'^method: expected one of {", ".join(FILES)}, got tomee\. Did you mean "tome"\?$'
    ):
        method("tomee")


@pytest.mark.parametrize("name", ["", "..tome", "__init__", "os"])
def test_odd_name_is_an_unknown_method_and_imports_nothing(name: str) -> None:
    with pytest.raises(UsageError, match=r"^method: expected one of .*tome.*, got "):
        method(name)


@pytest.mark.parametrize(
    ("name", "option", "words"),
    [
        pytest.param(
            "pitome", "margins", r'one of: margin, .*\. Did you mean "margin"\?$', id="nearest name"
        ),
        pytest.param("grid", "margin", r"one of: none\.$", id="a method without options"),
    ],
)
def test_unknown_option_is_refused(name: str, option: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"^method {name}: unknown option {option}, expected {words}"):
        method(name).chosen({option: 0.5})


NEW_METHOD = '''
"""Merge the last tokens into the first one behind the prefix."""

import torch

from exporter.reduction.match import Match
from exporter.reduction.method import Method


def decide(tokens_BNC, *, at):
    batch, count, _ = tokens_BNC.shape
    kept, source = torch.arange(count).expand(batch, -1).split([count - at.r, at.r], dim=1)
    return Match(kept, source, torch.full_like(source, at.prefix))


def regret(tokens_BNC, *, match, at):
    return tokens_BNC.new_zeros(len(tokens_BNC))


METHOD = Method(
    name="tail", reference="a test", does="merges the tail", licence="none", decide=decide, regret=regret,
    reads=("tokens",),
)
'''


@pytest.fixture
def folder_with_a_new_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "tail.py").write_text(NEW_METHOD)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    yield
    sys.modules.pop(f"{methods.__name__}.tail", None)
    vars(methods).pop("tail", None)


@pytest.mark.usefixtures("folder_with_a_new_method")
def test_new_file_is_a_new_method_and_needs_no_registration() -> None:
    assert method_names() == tuple(sorted((*FILES, "tail")))
    assert matched("tail", torch.zeros(1, 4, 2), site(1, 1)).source_BR.tolist() == [[3]]
