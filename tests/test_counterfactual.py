"""Other results, and what follows from them."""

import random
import re

import pytest

from semcot.counterfactual import other_results
from semcot.synthetic import arithmetic_drills, arithmetic_stories

OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}
STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


def steps_of(text: str) -> list[tuple[int, str, int, int]]:
    found = [STEP.fullmatch(step).groups() for step in text.split(", ")]
    return [(int(left), operation, int(right), int(result)) for left, operation, right, result in found]


@pytest.mark.parametrize("make", [arithmetic_stories, arithmetic_drills])
def test_each_step_follows_from_the_results_shown_before_it(make):
    rng = random.Random(0)
    found = 0
    problems = list(make(1000, seed=3, steps=(2, 3)))
    for problem in problems:
        texts = other_results(problem["condensed_reasoning"], rng)
        if texts is None:
            continue
        found += 1
        own, shown, followed = map(steps_of, (problem["condensed_reasoning"], *texts))
        assert shown[-1] == own[-1] and [step[:3] for step in shown] == [step[:3] for step in own]
        assert followed[0] == own[0], "the first step has nothing to follow but the question"
        other = {step[3]: shown_step[3] for step, shown_step in zip(own[:-1], shown, strict=False)}
        used = 0
        for (left, operation, right, _), (own_left, own_operation, own_right, _), i in zip(
            followed, own, range(len(own)), strict=False
        ):
            assert operation == own_operation
            earlier = {step[3] for step in own[:i]}
            for operand, own_operand in ((left, own_left), (right, own_right)):
                used += own_operand in earlier
                assert operand == (other[own_operand] if own_operand in earlier else own_operand)
        assert used
        for left, operation, right, result in followed:
            assert OPERATIONS[operation](left, right) == result >= 1
            assert operation != "/" or left % right == 0
    assert found > 0.8 * len(problems)


def test_other_results_are_other_ones_mostly_and_repeat_with_the_seed():
    text = "15 - 12 = 3, 3 * 6 = 18, 18 + 16 = 34"
    draws = [other_results(text, random.Random(seed)) for seed in range(100)]
    assert draws == [other_results(text, random.Random(seed)) for seed in range(100)]
    assert len({followed for _, followed in draws}) > 90
    assert sum(followed.endswith("= 34") for _, followed in draws) < 10


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3 * 4 = 12",  # nothing to follow from
        "a flips: tails, b does not: tails, so no",
        "1.5 + 2 = 3.5, 3.5 + 1 = 4.5",
        "14 - 3 = 11, 11 * 4 = 44, 44 + 11 = 55",  # 11 dollars, or the first result?
        "5 + 5 = 10, 10 + 10 = 20",
        "2 * 3 = 6, 3 + 3 = 6, 6 + 1 = 7",  # which 6?
        "2 * 3 = 6, 4 * 2 = 8",  # two separate steps
    ],
)
def test_what_has_no_other_results(text):
    assert other_results(text, random.Random(0)) is None
