import random
import re
from collections import Counter

import pytest
from checks import check_worked

from semcot.data import arithmetic_shapes, arithmetic_stories
from semcot.data import stories as module
from semcot.data.language import WORDS, draw_words, plural, read_words
from semcot.data.stories import STORIES, read_stories


@pytest.fixture(scope="module")
def stories():
    return list(arithmetic_stories(3000, seed=7))


def test_equations_are_true_take_what_is_told_and_lead_to_the_answer(stories):
    for story in stories:
        check_worked(story, most=500)


def test_numbers_are_positive_and_of_the_size_of_the_real_ones(stories):
    numbers = [list(map(int, re.findall(r"\d+", story["condensed_reasoning"]))) for story in stories]
    assert min(map(min, numbers)) >= 1 and max(map(max, numbers)) <= 500
    answers = [int(story["answer"]) for story in stories]
    assert sum(answer < 100 for answer in answers) > 0.9 * len(answers)
    assert sum(answer > 150 for answer in answers) < 0.05 * len(answers)


@pytest.mark.parametrize("steps", [(1, 1), (2, 2), (3, 3), (1, 2), (1, 3)])
def test_steps(steps):
    counts = {s["condensed_reasoning"].count("=") for s in arithmetic_stories(200, seed=2, steps=steps)}
    assert counts == set(range(steps[0], steps[1] + 1))


@pytest.mark.parametrize("steps", [(0, 1), (2, 4), (3, 2)])
def test_impossible_steps(steps):
    with pytest.raises(ValueError, match="1 <= first <= second <= 3"):
        list(arithmetic_stories(1, steps=steps))


def test_no_template_covers_more_than_three_percent(stories):
    words = {*WORDS.women, *WORDS.men, *WORDS.relatives, *(time for pair in WORDS.times for time in pair)}
    for kind in WORDS.kinds.values():
        words |= {*kind.gain, *kind.lose, *(adjective for pair in kind.pairs for adjective in pair.split())}
        words |= {form for noun in (*kind.things, *kind.containers) for form in (noun, plural(noun))}
    for story in STORIES:
        choices = [word for words in story.words.values() for word in words]
        words |= {form for word in choices for form in (word, plural(word))}
    longest_first = sorted(map(re.escape, words), key=len, reverse=True)
    masked = re.compile(rf"\b(?:{'|'.join(longest_first)}|s?he|his|her|him|\d+)\b", re.IGNORECASE)
    templates = Counter(re.sub(r"(_ ?)+", "_ ", masked.sub("_", story["question"])) for story in stories)
    assert templates.most_common(1)[0][1] <= 0.03 * len(stories)
    assert len(templates) > 1000


def test_people_are_different_ones_and_the_pronouns_the_hero_s():
    rng = random.Random(0)
    for words in (draw_words((), {}, rng) for _ in range(1000)):
        assert len({words["n"], words["o"], words["o2"]}) == 3
        assert (words["he"], words["him"], words["his"]) == (
            ("she", "her", "her") if words["n"] in WORDS.women else ("he", "him", "his")
        )


def test_there_are_many_families_and_words():
    assert len(STORIES) >= 100
    assert len({noun for kind in WORDS.kinds.values() for noun in kind.things}) >= 60
    assert len({*WORDS.women, *WORDS.men}) == len(WORDS.women) + len(WORDS.men) >= 200


def test_text_is_clean(stories):
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
def test_plural(noun, many):
    assert plural(noun) == many


class TestShapes:
    def test_each_shape_comes_equally_often(self, monkeypatch):
        told: list[module.Story] = []
        tell = module.tell_story
        monkeypatch.setattr(module, "tell_story", lambda story, *rest: told.append(story) or tell(story, *rest))
        list(arithmetic_shapes(3000, seed=7))
        counts = Counter(story.equations for story in told)
        assert counts.keys() == {story.equations for story in STORIES}
        # Of 46 shapes, each about 65 times, give or take 8, and by each of its families.
        assert 35 < min(counts.values()) and max(counts.values()) < 110
        assert {story.question for story in told} == {story.question for story in STORIES}

    def test_numbers_are_larger_and_equations_true(self, stories):
        problems = list(arithmetic_shapes(3000, seed=7))
        for problem in problems:
            check_worked(problem, most=500)
        large, before = (sum(int(problem["answer"]) > 100 for problem in part) for part in (problems, stories))
        assert large > 3 * before > 0

    def test_steps(self):
        assert all(problem["condensed_reasoning"].count(",") == 2 for problem in arithmetic_shapes(50, steps=(3, 3)))
        with pytest.raises(ValueError, match="1 <= first <= second <= 3"):
            list(arithmetic_shapes(1, steps=(0, 1)))


STORY = """# a comment
: toy; item: ticket|kite
. {n} had {a} {items}
. {he} lost {b} and sold the others for {k} dollars each
= a - b, p * k ? how many dollars did {he} get
> that left {p}
> so it was {q}
"""
SCENE = """# a comment
: toy; item: ticket|kite
. {n} had {a} {items}
~ {he} has {c} {things}
! a - b - c
= a - b, p * k ? how many {items} at {k} dollars, less {b}
= a + b ? how many with {b} more
"""


class TestFiles:
    """What a person writes into stories.txt or variations.txt is understood, or told where it is wrong."""

    def read(self, folder, text):
        (folder / "own.txt").write_text(text)
        return read_stories(folder / "own.txt", reasoned=">" in text)

    def test_blocks(self, tmp_path):
        first, second = self.read(
            tmp_path, f"{STORY}\n\n: ; place: zoo\n. {{n}} saw {{a}}\n= a + a ? how many\n> {{p}}"
        )
        assert first.kinds == ("toy",) and first.words == {"item": ("ticket", "kite")}
        assert [always for _, always in first.facts] == [True, True] and first.facts[0][0] == "{n} had {a} {items}"
        assert first.equations == (("a", "-", "b"), ("p", "*", "k"))
        assert first.question == "how many dollars did {he} get"
        assert first.reasoning == ("that left {p}", "so it was {q}")
        assert second.kinds == () and second.words == {"place": ("zoo",)}

    def test_a_scene_with_two_questions(self, tmp_path):
        first, second = self.read(tmp_path, SCENE)
        assert first.facts == second.facts == (("{n} had {a} {items}", True), ("{he} has {c} {things}", False))
        assert first.conditions == second.conditions == ((("a", "-", "b"), ("p", "-", "c")),)
        assert [len(story.equations) for story in (first, second)] == [2, 1]

    @pytest.mark.parametrize(
        ("block", "right", "wrong", "line", "message"),
        [
            (STORY, ": toy;", ". toy;", 2, "a block begins with ':'"),
            (STORY, ". {he}", ": {he}", 4, "a block begins with ':'"),
            (STORY, ". {he} lost", "{he} lost", 4, "a line begins with one of : . ~ ! = >"),
            (STORY, "> that", "* that", 6, "a line begins with one of : . ~ ! = >"),
            (STORY, "= a - b, p * k ?", ">", 5, "> stands after =, all others before"),
            (SCENE, "= a + b", ". {o} left\n= a + b", 7, "> stands after =, all others before"),
            (STORY, ": toy;", ": toys;", 5, "words.yaml has no kind toys"),
            (STORY, "item: ticket", "item ticket", 2, "'item ticket|kite' is no word with its choices"),
            (STORY, "item: ticket", "thing: ticket", 5, "thing has its meaning already"),
            (STORY, "{n} had", "{n had", 5, "field name"),
            (STORY, "{n} had", "[{n}|he had", 5, "a bracket is open in"),
            (STORY, "{n} had", "{hero} had", 5, "nothing fills the slot hero"),
            (STORY, "{a} {items}", "{q} {items}", 5, "nothing fills the slot q"),
            (STORY, "that left {p}", "that left {r}", 5, "nothing fills the slot r"),
            (STORY, "{a} {items}", "some {items}", 5, "a in the equations is neither told nor an earlier result"),
            (STORY, "p * k", "q * k", 5, "q in the equations is neither told"),
            (STORY, "p * k", "b * k", 5, "no equation goes on from p"),
            (STORY, "p * k ?", "p * k:", 5, "'p * k: how many dollars did {he} get' is no equation"),
            (STORY, "? how many dollars did {he} get", "", 5, "a block needs a fact"),
            (STORY, "a - b, p * k", "a - b - c", 5, "'a - b - c' is no equation; two operands"),
            (SCENE, "! a - b - c", "! a less b", 5, "'a less b' is no equation"),
            (SCENE, "! a - b - c", "! a - b - z", 6, "z in a condition is no number"),
            (STORY, "> so it was {q}\n", "", 5, "there must be 2 lines of reasoning"),
            (STORY, "so it was {q}", "so it was so", 5, "'so it was so' does not tell the equation {q}"),
            (STORY, "had {a}", "had {c} and {a}", 5, "numbers that no equation takes"),
            (STORY, ". {he}", "~ {he}", 5, "belongs into variations.txt"),
        ],
    )
    def test_what_is_wrong_is_told_with_its_line(self, tmp_path, block, right, wrong, line, message):
        assert block.count(right) == 1
        with pytest.raises(ValueError, match=f"own.txt, line {line}: .*{re.escape(message)}"):
            self.read(tmp_path, block.replace(right, wrong))

    def test_a_block_without_a_question(self, tmp_path):
        with pytest.raises(ValueError, match="own.txt, line 2: the block asks no question"):
            self.read(tmp_path, f": toy\n. {{n}} had {{a}} {{things}}\n\n{STORY}")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("kinds: [}", "own.yaml is not as its comments say: .*line 2"),
            ("kinds: {toy: {things: [car]}}", "is not as its comments say: .*missing.* 'women'"),
            ("- toy", "is not as its comments say"),
        ],
    )
    def test_words_that_are_wrong(self, tmp_path, text, message):
        (tmp_path / "own.yaml").write_text(f"# mine\n{text}\n")
        with pytest.raises(ValueError, match=message.replace(".*", "(?s:.*)")):
            read_words(tmp_path / "own.yaml")
