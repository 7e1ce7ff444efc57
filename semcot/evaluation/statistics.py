"""Intervals and tests: of a share, of a mean over seeds, between two methods on the same questions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest
from scipy.stats import t as student


def wilson_interval(num_right: int, num: int) -> list[float]:
    """The 95 % Wilson interval of a share: its lower and its upper end."""
    interval = binomtest(num_right, num).proportion_ci(0.95, method="wilson")
    return [float(interval.low), float(interval.high)]


class Mean(NamedTuple):
    """A mean and the half width of its 95 % interval (Student's t), `None` of a single value."""

    mean: float
    half_width: float | None


def mean_with_interval(values: Sequence[float]) -> Mean:
    """Of values that are independent of each other, such as accuracies of runs with different seeds."""
    n = len(values)
    half = float(student.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5) if n > 1 else None
    return Mean(float(np.mean(values)), half)


class McNemar(NamedTuple):
    """How many questions the first method alone, and the second alone, has right; the exact test's two-sided p."""

    first_alone: int
    second_alone: int
    p: float


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """McNemar's exact test of two methods' outcomes on the same questions: could they differ so much by chance?"""
    pairs = list(zip(first, second, strict=True))
    alone = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    return McNemar(*alone, float(binomtest(alone[0], sum(alone)).pvalue) if sum(alone) else 1.0)
