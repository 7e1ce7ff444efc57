import random
import re
from collections import Counter
from itertools import islice

import pytest

from semcot import synthetic
from semcot.synthetic import (
    FEMALE_NAMES,
    KINDS,
    MALE_NAMES,
    RELATIVES,
    STORIES,
    TIMES,
    _drill,
    _numbers,
    arithmetic_drills,
    arithmetic_expressions,
    arithmetic_shapes,
    arithmetic_stories,
    coin_flips,
    draw,
    in_eval,
    plural,
    vocabulary,
)
from semcot.variations import arithmetic_variations

KEYS = {"question", "reasoning", "condensed_reasoning", "answer"}
OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}
EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


@pytest.fixture(scope="module")
def stories():
    return list(arithmetic_stories(3000, seed=7))


@pytest.fixture(scope="module")
def expressions():
    return list(arithmetic_expressions(3000, seed=7))


@pytest.fixture(scope="module")
def drills():
    return list(arithmetic_drills(3000, seed=7))


@pytest.fixture(scope="module")
def flips():
    return list(coin_flips(3000, seed=7))


def is_true(left, operation, right, result):
    left, right, result = int(left), int(right), int(result)
    inverse = {"+": result - right == left, "-": result + right == left, "*": left * right == result}
    return (inverse | {"/": right != 0 and result * right == left})[operation]


@pytest.mark.parametrize(
    "draw",
    [
        arithmetic_stories,
        arithmetic_shapes,
        arithmetic_variations,
        arithmetic_expressions,
        arithmetic_drills,
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


class TestArithmeticStories:
    def test_equations_are_true_and_lead_to_the_answer(self, stories):
        for story in stories:
            equations = story["condensed_reasoning"].split(", ")
            matches = [EQUATION.fullmatch(equation) for equation in equations]
            assert all(match and is_true(*match.groups()) for match in matches), story
            assert matches[-1][4] == story["answer"]

    def test_reasoning_gives_the_same_equations_in_order_and_the_answer(self, stories):
        for story in stories:
            written = [match[0] for match in EQUATION.finditer(story["reasoning"])]
            assert ", ".join(written) == story["condensed_reasoning"]
            assert story["reasoning"].endswith(f"The answer is {story['answer']}.")

    def test_every_given_number_stands_in_the_question(self, stories):
        for story in stories:
            results = []
            for left, _, right, result in EQUATION.findall(story["condensed_reasoning"]):
                given = [number for number in (left, right) if number not in results]
                assert all(re.search(rf"\b{number}\b", story["question"]) for number in given), story
                results.append(result)

    def test_numbers_are_positive_and_of_the_size_of_the_real_ones(self, stories):
        numbers = [list(map(int, re.findall(r"\d+", story["condensed_reasoning"]))) for story in stories]
        assert min(map(min, numbers)) >= 1 and max(map(max, numbers)) <= 500
        answers = [int(story["answer"]) for story in stories]
        assert sum(answer < 100 for answer in answers) > 0.9 * len(answers)
        assert sum(answer > 150 for answer in answers) < 0.05 * len(answers)

    @pytest.mark.parametrize("steps", [(1, 1), (2, 2), (3, 3), (1, 2), (1, 3)])
    def test_steps(self, steps):
        counts = {s["condensed_reasoning"].count("=") for s in arithmetic_stories(200, seed=2, steps=steps)}
        assert counts == set(range(steps[0], steps[1] + 1))

    @pytest.mark.parametrize("steps", [(0, 1), (2, 4), (3, 2)])
    def test_impossible_steps(self, steps):
        with pytest.raises(ValueError, match="1 <= first <= second <= 3"):
            list(arithmetic_stories(1, steps=steps))

    def test_no_template_covers_more_than_three_percent(self, stories):
        words = {*FEMALE_NAMES, *MALE_NAMES, *RELATIVES, *(time for pair in TIMES for time in pair)}
        for kind in KINDS.values():
            words |= {*kind.gain, *kind.lose, *(adjective for pair in kind.pairs for adjective in pair.split())}
            words |= {form for noun in (*kind.things, *kind.containers) for form in (noun, plural(noun))}
        for story in STORIES:
            words |= {form for _, choices in story.words for word in choices for form in (word, plural(word))}
        longest_first = sorted(map(re.escape, words), key=len, reverse=True)
        masked = re.compile(rf"\b(?:{'|'.join(longest_first)}|s?he|his|her|him|\d+)\b", re.IGNORECASE)
        templates = Counter(re.sub(r"(_ ?)+", "_ ", masked.sub("_", story["question"])) for story in stories)
        assert templates.most_common(1)[0][1] <= 0.03 * len(stories)
        assert len(templates) > 1000

    def test_people_are_different_ones_and_the_pronouns_the_hero_s(self):
        rng = random.Random(0)
        for words in (vocabulary((), (), rng) for _ in range(1000)):
            assert len({words["n"], words["o"], words["o2"]}) == 3
            assert (words["he"], words["him"], words["his"]) == (
                ("she", "her", "her") if words["n"] in FEMALE_NAMES else ("he", "him", "his")
            )

    def test_there_are_many_families_and_words(self):
        assert len(STORIES) >= 100
        assert len({noun for kind in KINDS.values() for noun in kind.things}) >= 60
        assert len({*FEMALE_NAMES, *MALE_NAMES}) == len(FEMALE_NAMES) + len(MALE_NAMES) >= 200

    @pytest.mark.parametrize("story", STORIES, ids=lambda story: story.question)
    def test_each_family_is_complete(self, story):
        """One sentence of reasoning for an equation, every result used, every given number told."""
        assert len(story.reasoning) == len(story.equations)
        told = " ".join(story.facts) + story.question
        for number, (result, left, _, right) in enumerate(story.equations):
            assert f"{{{result}}}" in story.reasoning[number]
            assert all(f"{{{name}}}" in told for name in (left, right) if name not in "pqr")
        operands = [name for _, left, _, right in story.equations for name in (left, right)]
        assert all(result in operands for result, *_ in story.equations[:-1])

    def test_text_is_clean(self, stories):
        for story in stories:
            for text in (story["question"], story["reasoning"]):
                assert not re.search(r"[][{}|]|  | [.,?]|[.?!] [a-z]|\b[Aa] [aeio]|\b(\w+) \1\b", text), text
                assert text[0].isupper() or text[0].isdigit()
            assert story["question"].endswith("?") and story["question"].count("?") == 1
            assert not re.search(r"= 1 [\w -]*s\b", story["reasoning"]), story["reasoning"]

    @pytest.mark.parametrize(
        "noun, many",
        [
            ("apple", "apples"),
            ("box", "boxes"),
            ("cherry", "cherries"),
            ("toy", "toys"),
            ("shelf", "shelves"),
            ("branch", "branches"),
            ("pair of shoes", "pairs of shoes"),
        ],
    )
    def test_plural(self, noun, many):
        assert plural(noun) == many


class TestArithmeticShapes:
    def test_each_shape_comes_equally_often(self, monkeypatch):
        told: list[synthetic._Story] = []
        tell = synthetic._arithmetic_story
        monkeypatch.setattr(
            synthetic, "_arithmetic_story", lambda story, *rest: told.append(story) or tell(story, *rest)
        )
        list(arithmetic_shapes(3000, seed=7))
        counts = Counter(story.equations for story in told)
        assert counts.keys() == {story.equations for story in STORIES}
        # Of 46 shapes, each about 65 times, give or take 8, and by each of its families.
        assert 35 < min(counts.values()) and max(counts.values()) < 110
        assert set(told) == set(STORIES)

    def test_numbers_are_larger_and_equations_true(self, stories):
        problems = list(arithmetic_shapes(3000, seed=7))
        for problem in problems:
            matches = [EQUATION.fullmatch(equation) for equation in problem["condensed_reasoning"].split(", ")]
            assert all(match and is_true(*match.groups()) for match in matches), problem
            assert matches[-1][4] == problem["answer"]
        large, before = (sum(int(problem["answer"]) > 100 for problem in part) for part in (problems, stories))
        assert large > 3 * before > 0

    def test_steps(self):
        assert all(problem["condensed_reasoning"].count(",") == 2 for problem in arithmetic_shapes(50, steps=(3, 3)))
        with pytest.raises(ValueError, match="1 <= first <= second <= 3"):
            list(arithmetic_shapes(1, steps=(0, 1)))


@pytest.mark.parametrize("source", ["expressions", "drills"])
class TestBareArithmetic:
    def test_equations_are_true_and_lead_to_the_answer(self, source, request):
        for problem in request.getfixturevalue(source):
            matches = [EQUATION.fullmatch(equation) for equation in problem["condensed_reasoning"].split(", ")]
            assert all(match and is_true(*match.groups()) for match in matches), problem
            assert matches[-1][4] == problem["answer"]

    def test_the_question_asks_for_the_answer(self, source, request):
        """Worked out from its words alone, innermost parentheses first, one step after the other."""
        symbols = {"plus": "+", "and": "+", "minus": "-", "less": "-", "without": "-"}
        symbols |= {"times": "*", "groups of": "*", "divided by": "/", "shared among": "/"}
        for problem in request.getfixturevalue(source):
            text = re.sub(r"^(What|How much) is |( =)? ?\?$", "", problem["question"])
            for word, symbol in symbols.items():
                text = text.replace(f" {word} ", f" {symbol} ")
            results = []
            for step in text.split(", then "):
                for name, result in zip(("that", "the first"), reversed(results), strict=False):
                    step = step.replace(name, result)
                while match := re.search(r"\((\d+ [-+*/] \d+)\)|^(\d+ [-+*/] \d+)$", step):
                    left, operation, right = (match[1] or match[2]).split()
                    step = step.replace(match[0], str(OPERATIONS[operation](int(left), int(right))))
                results.append(step)
            assert results[-1] == problem["answer"], problem


class TestArithmeticExpressions:
    def test_hard_families_come_more_often(self, expressions, stories):
        def share(problems):
            signs = [set(re.findall("[-+*/]", problem["condensed_reasoning"])) for problem in problems]
            return sum(sign <= {"+", "-"} for sign in signs) / len(problems)

        assert share(expressions) > share(stories)

    def test_impossible_steps(self):
        with pytest.raises(ValueError, match="1 <= first <= second <= 3"):
            list(arithmetic_expressions(1, steps=(0, 1)))


class TestArithmeticDrills:
    def test_shapes_that_no_story_has(self, drills, stories):
        def shapes(problems):
            return {" ".join(re.findall("[-+*/](?= )", problem["condensed_reasoning"])) for problem in problems}

        assert len(shapes(drills) - shapes(stories)) > 30
        assert shapes(stories) <= shapes(drills)

    def test_steps_and_size(self, drills):
        lengths = [len(problem["condensed_reasoning"].split(", ")) for problem in drills]
        assert lengths.count(1) < lengths.count(2) < lengths.count(3)
        assert sum(int(problem["answer"]) > 100 for problem in drills) > len(drills) / 10
        assert all(problem["condensed_reasoning"].count(",") == 1 for problem in arithmetic_drills(50, steps=(2, 2)))

    @pytest.mark.parametrize("size", [(100, 0, 0), (0, 0, 100)])
    def test_numbers_are_found_for_every_shape(self, size):
        rng = random.Random(0)
        for shape in sorted({_drill(rng.randint(1, 3), rng) for _ in range(5000)}):
            assert _numbers(shape, rng, size)

    def test_impossible_steps(self):
        with pytest.raises(ValueError, match="1 <= first <= second <= 3"):
            list(arithmetic_drills(1, steps=(2, 4)))


class TestCoinFlips:
    PERSON = re.compile(r"(\S+) (flips|does not flip) the coin\.")

    def test_wording(self, flips):
        for problem in flips:
            assert re.fullmatch(
                r"Q: A coin is heads up\. ([a-z-]+ (flips|does not flip) the coin\. )+ Is the coin still heads up\?",
                problem["question"],
            ), problem["question"]

    def test_the_answer_is_the_parity_of_the_flips(self, flips):
        for problem in flips:
            acts = [act for _, act in self.PERSON.findall(problem["question"])]
            assert problem["answer"] == ("no" if acts.count("flips") % 2 else "yes")
            assert problem["condensed_reasoning"].endswith(f"so {problem['answer']}")
            assert problem["reasoning"].endswith(f"so the answer is {problem['answer']}.")

    def test_the_reasoning_gives_the_side_after_each_person(self, flips):
        for problem in flips:
            heads, sides = True, []
            for _, act in self.PERSON.findall(problem["question"]):
                heads ^= act == "flips"
                sides.append("heads" if heads else "tails")
            assert re.findall(r": (heads|tails)", problem["condensed_reasoning"]) == sides
            assert re.findall(r"(?:so it is|so it stays) (heads|tails)", problem["reasoning"]) == sides

    def test_people_and_answers_are_balanced(self, flips):
        answers = {people: Counter() for people in range(1, 7)}
        for problem in flips:
            answers[len(self.PERSON.findall(problem["question"]))][problem["answer"]] += 1
        for counter in answers.values():
            assert 400 < counter.total() < 600
            assert 0.4 < counter["yes"] / counter.total() < 0.6

    def test_people_range(self):
        counts = {len(self.PERSON.findall(p["question"])) for p in coin_flips(300, seed=5, people=(3, 4))}
        assert counts == {3, 4}
        with pytest.raises(ValueError, match="people"):
            list(coin_flips(1, people=(0, 2)))

    def test_names(self, flips):
        names = [name for problem in flips for name, _ in self.PERSON.findall(problem["question"])]
        assert len(set(names)) > 3000
        for problem in flips:
            people = [name for name, _ in self.PERSON.findall(problem["question"])]
            assert len(people) == len(set(people))

    def test_asking_for_more_than_there_are(self, monkeypatch):
        monkeypatch.setattr("semcot.synthetic._invented_name", lambda rng: "ann")
        with pytest.raises(ValueError, match="too many"):
            list(coin_flips(10, people=(1, 1)))
