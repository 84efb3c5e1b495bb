"""The certificate: bounds against scipy's own test, walks against a plain second definition, and what it promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from exporter.ladder import certify, certify_by_size, needed_images, rung_of, upper_bound
from exporter.signature import Array


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=40, deadline=None)
def test_upper_bound_is_the_exact_one_of_scipys_binomial_test(counts: tuple[int, int]) -> None:
    test = binomtest(*counts, alternative="less")

    assert upper_bound(*counts) == pytest.approx(test.proportion_ci(0.95, "exact").high, abs=1e-12)


@pytest.mark.parametrize(
    ("agreement", "images"), [(0.5, 5), (0.9, 29), (0.98, 149), (0.99, 299), (0.995, 598), (0.999, 2995)]
)
def test_fewest_images_are_those_of_which_fewer_prove_nothing(agreement: float, images: int) -> None:
    assert needed_images(agreement) == images
    assert agreement**images <= 0.05 < agreement ** (images - 1)  # that many agree by chance


Answers = tuple[Array, Array]


@st.composite
def answers(draw: st.DrawFn) -> Answers:
    """Values with many ties for up to three engines but the last, and whether each of four differs."""
    engines, images = draw(st.integers(2, 4)), draw(st.integers(1, 40))
    grid = st.sampled_from([-np.inf, 0.0, 0.25, 0.5, 1.0])
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = [[draw(grid) for _ in range(images)] for _ in range(engines - 1)]
    return np.array(values), rng.random((engines, images)) < draw(st.sampled_from([0.0, 0.05, 0.4]))


@given(answers(), st.sampled_from([0.5, 0.8, 0.9]))
@settings(max_examples=150, deadline=None)
def test_walk_ends_at_the_last_threshold_before_the_first_that_fails(
    found: Answers, agreement: float
) -> None:
    values, differs = found
    images = differs.shape[1]
    thresholds, plain = [np.inf, *sorted({*values[np.isfinite(values)]}, reverse=True)], None
    for number, threshold in enumerate(thresholds):
        wrong = 0
        for image in range(images):
            keeps = [place for place in range(len(values)) if values[place, image] >= threshold]
            wrong += bool(differs[keeps[0] if keeps else -1, image])
        if upper_bound(wrong, images) > 1 - agreement:
            break
        plain = (np.mean(thresholds[number : number + 2]), wrong)

    certified = certify(values, differs, agreement)

    assert (certified and (certified.threshold, certified.disagreements)) == plain
    if certified is not None:
        chosen = rung_of(values, certified.threshold)
        assert differs[chosen, np.arange(images)].sum() == certified.disagreements
        assert certified.bound == upper_bound(certified.disagreements, images)


@given(answers(), st.sampled_from([0.5, 0.8, 0.9]))
@settings(max_examples=100, deadline=None)
def test_walk_by_size_moves_the_smallest_first_and_all_to_one_engine_before_any_goes_on(
    found: Answers, agreement: float
) -> None:
    values, differs = found
    engines, images = differs.shape
    sizes = np.where(np.isfinite(values[0]), values[0], 9.0)
    states = [np.full(images, engines - 1)]
    for place in reversed(range(engines - 1)):
        states += [np.where(sizes <= limit, place, place + 1) for limit in sorted(set(sizes))]
    plain = None
    for state in states:
        if upper_bound(int(differs[state, np.arange(images)].sum()), images) > 1 - agreement:
            break
        plain = state

    np.testing.assert_equal(certify_by_size(sizes, differs, agreement), plain)


def test_risk_of_what_is_certified_is_above_the_limit_in_at_most_5_of_100_draws() -> None:
    rng = np.random.default_rng(0)
    broken = 0
    for _ in range(400):  # the chance that the cheap engine differs falls from 0.4 to 0 with its value
        values = rng.random((1, 300))
        differs = np.concatenate((rng.random((1, 300)) < 0.4 * (1 - values), np.zeros((1, 300), bool)))
        certified = certify(values, differs, 0.95)
        assert certified is not None
        risk = (
            0.2 * (1 - min(certified.threshold, 1)) ** 2
        )  # its expectation over all values from the threshold on
        broken += risk > 0.05

    assert broken <= 28  # a rate of 5 % gives 29 or more in 400 in 3 of 100 cases
