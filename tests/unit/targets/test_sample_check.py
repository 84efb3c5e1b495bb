"""How a script on another machine judges an engine: as the parity check does here."""

from typing import Any

import numpy as np
import pytest

from exporter.targets.sample_check import shortfalls
from exporter.validation import TOLERANCES, Tolerances, compare

ROWS = np.array([[3.0, -4.0, 12.0], [0.5, 0.25, -2.0]])


@pytest.mark.parametrize(
    ("got", "passes"),
    [
        pytest.param(ROWS, True, id="equal"),
        pytest.param(ROWS + 1e-3, True, id="within, since it may grow with the magnitude"),
        pytest.param(ROWS + np.array([[0.0, 0.0, 2e-3], [0.0, 0.0, 0.0]]), False, id="one number"),
        pytest.param(ROWS + 5e-4, True, id="on average within"),
        pytest.param(-ROWS, False, id="everything"),
        pytest.param(ROWS * [[1.0], [0.0]], False, id="a row of zeros"),
    ],
)
def test_script_judges_as_the_parity_does(got: Any, passes: bool) -> None:
    allowed = Tolerances(max_abs_error=1e-4, mean_abs_error=1e-4, cosine=0.9999, tie=0.0)

    found = shortfalls(got, ROWS, vars(allowed))

    assert found == compare(got, ROWS).shortfalls(allowed)
    assert (found == []) == passes


@pytest.mark.parametrize("got", [np.full((2, 3), np.nan), ROWS[:1], ROWS.T])
def test_what_cannot_be_compared_never_passes(got: Any) -> None:
    loose = dict.fromkeys(vars(TOLERANCES["fp32"]), 1e30) | {"cosine": -1.0}

    assert len(shortfalls(got, ROWS, loose)) == 1
