"""The statistics on simulated samples whose truth is known."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from exporter.benchmark.statistics import (
    RawSamples,
    efficiency,
    ratio,
    summarize,
)
from exporter.records import Ratio

LAUNCHES, ROUNDS, CALLS = 5, 5, 20


class Machine:
    """Simulated contenders: log-normal effects of the process, of the round, and of each call."""

    def __init__(self, seed: int, *, process: float = 0.03, calls: float = 0.05, bursts: float = 0.0) -> None:
        self._random = np.random.default_rng(seed)
        self._process, self._calls, self._bursts = process, calls, bursts
        self._drift = self._random.normal(0, 0.1, (LAUNCHES, ROUNDS, 1))  # of the machine: shared by all

    def race(self, true_ms: float) -> RawSamples:
        shape = (LAUNCHES, ROUNDS, CALLS)
        logs = np.log(true_ms) + self._drift
        logs = logs + self._random.normal(0, self._process, (LAUNCHES, 1, 1))
        logs = logs + self._random.normal(0, 0.02, (LAUNCHES, ROUNDS, 1))
        logs = logs + self._random.normal(0, self._calls, shape)
        struck = self._random.random((LAUNCHES, ROUNDS, 1)) < self._bursts
        samples: list[list[list[float]]] = np.exp(
            logs + struck * self._random.exponential(0.4, (LAUNCHES, ROUNDS, 1))
        ).tolist()
        return samples


def repeated(samples_LR: npt.ArrayLike) -> RawSamples:
    """Rounds of a single call each."""
    nested: list[list[list[float]]] = np.asarray(samples_LR, dtype=float)[:, :, None].tolist()
    return nested


RACES = 200

# Of 200 races of true coverage 0.95, 95 % - 3 standard deviations of a binomial are 90.4 %. The interval is known to
# be conservative where rounds dominate, so only the lower end is a failure, and width has a test of its own.
LEAST_COVERAGE = 0.95 - 3 * (0.95 * 0.05 / RACES) ** 0.5


@pytest.mark.parametrize(
    ("process", "bursts"),
    [
        pytest.param(0.0, 0.0, id="no process effect"),
        pytest.param(0.03, 0.0, id="processes differ by 3 percent"),
        pytest.param(0.1, 0.0, id="processes differ by 10 percent"),
        pytest.param(0.03, 0.15, id="bursts of load in every seventh round"),
    ],
)
def test_identical_contenders_are_not_told_apart(process: float, bursts: float) -> None:
    held = 0
    for seed in range(RACES):
        machine = Machine(seed, process=process, bursts=bursts)
        low, high = ratio(machine.race(10.0), machine.race(10.0)).interval
        held += low <= 1 <= high

    assert held / RACES >= LEAST_COVERAGE


def test_interval_is_not_wider_than_the_spread_warrants() -> None:
    """Log ratios of two contenders with 3 % of process and 2 % of round effect each.

    Their launch means have a standard deviation of sqrt(2) sqrt(0.03^2 + 0.02^2 / 5); Student's interval over five
    has an expected half-width of t_4(0.975) 0.94 / sqrt(5) of it. Half as much again is allowed for the union.
    """
    deviation = (2 * (0.03**2 + 0.02**2 / 5 + 0.05**2 / 100)) ** 0.5
    student = 2 * stats.t.ppf(0.975, 4) * 0.94 * deviation / 5**0.5

    machines = [Machine(seed) for seed in range(100)]
    widths = [ratio(each.race(10.0), each.race(10.0)).relative_width for each in machines]

    assert np.mean(widths) < 1.5 * student


def test_known_ratio_is_recovered() -> None:
    found = [ratio(machine.race(10.0), machine.race(15.0)) for machine in map(Machine, range(100))]

    held = sum(each.interval[0] <= 1.5 <= each.interval[1] for each in found)
    assert held >= 100 * (0.95 - 3 * (0.95 * 0.05 / 100) ** 0.5)
    # the mean of 100 medians with a standard error of about 0.03 each is within 0.02, more than six of its own
    assert np.mean([each.value for each in found]) == pytest.approx(1.5, abs=0.02)


def test_drift_of_the_machine_cancels() -> None:
    """Rounds that are up to ten times slower for both at once."""
    drift_LR = np.random.default_rng(0).uniform(1, 10, (LAUNCHES, ROUNDS))

    found = ratio(repeated(2 * drift_LR), repeated(3 * drift_LR))

    assert found.value == pytest.approx(1.5)
    assert found.interval == pytest.approx((1.5, 1.5))


def test_a_stall_in_a_few_rounds_does_not_move_the_ratio() -> None:
    slow_LR = np.full((LAUNCHES, ROUNDS), 20.0)
    stalled_LR = np.full((LAUNCHES, ROUNDS), 10.0)
    stalled_LR[0, 0] = stalled_LR[3, 2] = 1000.0

    assert ratio(repeated(stalled_LR), repeated(slow_LR)).value == pytest.approx(2.0)


def sliced(work_ms: float, round_ms: float, slice_ms: float = 4.0) -> list[float]:
    """Calls on a core that two processes share in equal slices: work for a slice, wait for a slice, and so on."""
    calls: list[float] = []
    done_ms = 0.0
    while sum(calls) < round_ms:
        waits = np.floor((done_ms + work_ms) / slice_ms) - np.floor(done_ms / slice_ms)
        calls.append(work_ms + slice_ms * float(waits))
        done_ms += work_ms
    return calls


def test_shared_core_does_not_flatter_the_shorter_call() -> None:
    """Both get half of the core, so twice the work takes twice as long; median calls would say otherwise."""
    short, long = sliced(1.5, 500.0), sliced(3.0, 500.0)
    assert np.median(long) / np.median(short) > 4

    found = ratio([[short] * 3] * 3, [[long] * 3] * 3)

    assert found.value == pytest.approx(2.0, rel=0.01)  # a slice of 4 ms in rounds of 500 ms


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.2, 5.0))
def test_swapping_the_contenders_inverts_the_ratio(seed: int, slower: float) -> None:
    machine = Machine(seed)
    one, other = machine.race(10.0), machine.race(10.0 * slower)

    there, back = ratio(one, other), ratio(other, one)

    assert there.value == pytest.approx(1 / back.value)
    assert there.interval == pytest.approx((1 / back.interval[1], 1 / back.interval[0]), rel=1e-6)


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_value_lies_in_its_interval(seed: int) -> None:
    machine = Machine(seed, process=0.2, bursts=0.3)
    found = ratio(machine.race(10.0), machine.race(12.0))

    assert found.interval[0] <= found.value <= found.interval[1]


def test_interval_of_two_launches_is_at_least_students() -> None:
    """Launches at log ratios -0.1 and 0.1: their mean is 0, its standard error 0.1, and t_1(0.975) 12.706."""
    baseline_LR = [[np.exp(-0.1)] * 5, [np.exp(0.1)] * 5]

    found = ratio(repeated(np.ones((2, 5))), repeated(baseline_LR))

    assert np.log(found.interval) == pytest.approx([-1.2706, 1.2706], abs=1e-4)


def test_same_samples_give_the_same_interval() -> None:
    samples, baseline = Machine(1).race(10.0), Machine(2).race(12.0)

    assert ratio(samples, baseline) == ratio(samples, baseline)


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_quantiles_are_those_of_scipy(count: int) -> None:
    samples_ms = np.random.default_rng(count).lognormal(2, 0.5, count)

    found = summarize(repeated(samples_ms[None, :]), batch=1)

    expected = stats.mstats.mquantiles(samples_ms, [0.5, 0.9, 0.99], alphap=1, betap=1)
    assert [found.median_ms, found.p90_ms, found.p99_ms] == pytest.approx(expected.tolist())
    assert found.iqr_ms == pytest.approx(stats.iqr(samples_ms))


def test_figures_of_a_contender_by_hand() -> None:
    """Rounds of 2 and 4 ms, 4 and 4 ms, 5 and 3 ms per call: means 3, 4 and 4; batch 8."""
    found = summarize([[[2.0, 4.0], [4.0, 4.0], [5.0, 3.0]]], batch=8)

    assert found.median_ms == 4.0
    assert found.mean_ms == pytest.approx(22 / 6)
    assert found.images_per_s == 2000.0  # 8 images in 4 ms


def test_merge_efficiency_is_speedup_over_arithmetic() -> None:
    """1.5 times as fast with half the multiplications: three quarters of what was promised."""
    found = efficiency(Ratio(value=1.5, interval=(1.2, 1.8)), 2.0)

    assert found.value == 0.75
    assert found.interval == pytest.approx((0.6, 0.9))


def test_relative_width_by_hand() -> None:
    assert Ratio(value=2.0, interval=(1.5, 2.5)).relative_width == 0.5
