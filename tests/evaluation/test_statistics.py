"""Intervals and tests against figures worked out by hand."""

import pytest

from semcot.evaluation.statistics import mcnemar, mean_with_interval, wilson_interval


def test_wilson_interval():
    assert wilson_interval(9, 10) == pytest.approx([0.5958, 0.9821], abs=1e-4)  # Wilson's formula at z = 1.96
    assert wilson_interval(0, 10)[0] == 0.0


def test_mean_over_seeds():
    # Student's 4.303 at two degrees of freedom, times 0.1 / sqrt(3).
    assert mean_with_interval([0.5, 0.7, 0.6]) == pytest.approx((0.6, 0.2484), abs=1e-4)
    assert mean_with_interval([0.5]) == (0.5, None)


def test_mcnemar():
    both, neither = [(True, True)] * 40, [(False, False)] * 7
    first, second = zip(*both, *neither, *[(True, False)] * 6, *[(False, True)], strict=True)
    # Two-sided: 2 * (1 + 7) of the 2 ** 7 ways in which seven questions could fall.
    assert mcnemar(first, second) == (6, 1, pytest.approx(16 / 128))
    assert mcnemar(first, first) == (0, 0, 1.0)
    with pytest.raises(ValueError):
        mcnemar([True], [])
