from itertools import islice

import pytest
from checks import KEYS

from semcot.data import (
    arithmetic_expressions,
    arithmetic_shapes,
    arithmetic_stories,
    arithmetic_sums,
    arithmetic_variations,
    coin_flips,
    in_eval,
)
from semcot.data.drawing import draw


@pytest.mark.parametrize(
    "draw",
    [
        arithmetic_stories,
        arithmetic_shapes,
        arithmetic_variations,
        arithmetic_expressions,
        arithmetic_sums,
        coin_flips,
    ],
)
class TestAllSources:
    def test_same_seed_same_problems(self, draw):
        assert list(draw(200, seed=3)) == list(draw(200, seed=3))
        assert list(draw(200, seed=3)) != list(draw(200, seed=4))

    def test_a_longer_draw_begins_like_a_shorter_one(self, draw):
        assert list(islice(draw(500, seed=3), 50)) == list(draw(50, seed=3))

    def test_all_four_columns_are_filled_and_no_question_comes_twice(self, draw):
        problems = list(draw(2000, seed=1))
        assert len({problem["question"] for problem in problems}) == len(problems) == 2000
        assert all(problem.keys() == KEYS and all(map(str.strip, problem.values())) for problem in problems)

    def test_train_and_eval_share_no_question_whatever_the_seeds(self, draw):
        train = {problem["question"] for seed in range(4) for problem in draw(1500, seed)}
        evaluation = {problem["question"] for seed in range(4) for problem in draw(300, seed, split="eval")}
        assert len(evaluation) > 1000 and not train & evaluation

    def test_unknown_split(self, draw):
        with pytest.raises(ValueError, match="'test'.*train, eval"):
            list(draw(1, split="test"))


def test_a_question_is_in_the_split_that_it_has_always_been_in():
    """Else what an earlier checkpoint was trained on would be evaluated on."""
    assert [i for i in range(60) if in_eval(f"Question {i}")] == [0, 5, 17, 21, 32, 45, 52, 55]


def test_only_misses_in_a_row_end_a_draw():
    numbers = iter(n for i in range(3) for n in (*[0] * 50_000, i + 1))
    assert len(list(draw(lambda: {"question": str(next(numbers))}, 4))) == 4
