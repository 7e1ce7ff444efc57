import random
import re

import pytest
from checks import check_worked

from semcot.data.variations import VARIATIONS, arithmetic_variations, tell_variation


@pytest.fixture(scope="module")
def problems():
    rng = random.Random(0)
    return [(variation, tell_variation(variation, rng)) for variation in VARIATIONS for _ in range(10)]


def test_each_variation_is_told_and_solved(problems):
    assert len(VARIATIONS) > 300
    for variation, problem in problems:
        steps = check_worked(problem)
        assert len(steps) == len(variation.equations)
        assert all(sign != "/" or result != "1" for _, sign, _, result in steps)
        assert not re.search(r"[][{}|]|  | [.?,]|\.\.", problem["question"]), problem["question"]
        assert re.match(r"[A-Z\d]", problem["question"]) and problem["question"].count("?") == 1


@pytest.mark.parametrize(
    ("scene", "holds"),
    [
        ("{he} [drinks|uses|needs] {k} bottles", lambda a, b, k, m: a % k == 0 and b % m == 0),
        ("{b} were picked yesterday and {c} were picked today", lambda a, b, c: a > b + c),
        ("{k} {things} [in|into] each {box} that {he} used", lambda a, b, k, *c: a % k == 0 and a // k < b),
        ("{c} {crops} were [picked|sold|eaten]", lambda a, b, c, d=0: a + b > c + d),
    ],
)
def test_what_is_told_can_be_true(scene, holds):
    """Conditions hold for what a story tells, whether its question needs it or not."""
    rng = random.Random(1)
    variations = [variation for variation in VARIATIONS if any(scene in fact for fact, _ in variation.facts)]
    assert len(variations) >= 4
    for variation in variations * 20:
        question = tell_variation(variation, rng)["question"]
        assert holds(*map(int, re.findall(r"\d+", question))), question


def test_numbers_that_do_not_matter_are_told_and_one_scene_asks_for_several_things(problems):
    idle = sum(
        len(re.findall(r"\d+", problem["question"])) > len(variation.equations) + 1 for variation, problem in problems
    )
    assert idle > 0.5 * len(problems)
    counts = {}
    for variation, problem in problems:
        counts.setdefault((variation.facts, variation.question), set()).add(
            len(re.findall(r"\d+", problem["question"]))
        )
    assert sum(len(told) > 1 for told in counts.values()) > 100, "some facts are told now and then"
    scenes = {}
    for variation in VARIATIONS:
        scenes.setdefault(variation.facts, set()).add(variation.equations)
    assert all(len(asked) >= 2 for asked in scenes.values())


def test_steps():
    counts = {p["condensed_reasoning"].count("=") for p in arithmetic_variations(200, seed=2, steps=(2, 3))}
    assert counts == {2, 3}
    with pytest.raises(ValueError, match="1 <= first <= second <= 3"):
        list(arithmetic_variations(1, steps=(0, 1)))
