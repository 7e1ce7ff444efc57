import random
import re
from fractions import Fraction

import pytest
from checks import KEYS

from semcot.data import arithmetic_school, load_problems, masked
from semcot.data.drawing import in_eval
from semcot.data.school import SCENES, tell_lesson

EQUATION = re.compile(r"([\d.]+) ([-+*/]) ([\d.]+) = ([\d.]+)")


@pytest.fixture(scope="module")
def lessons():
    rng = random.Random(0)
    return [(scene, tell_lesson(scene, rng)) for scene in SCENES for _ in range(10)]


def test_each_scene_is_told_and_solved(lessons):
    assert len({scene.facts for scene in SCENES}) >= 120
    for scene, problem in lessons:
        assert problem.keys() == KEYS
        steps = EQUATION.findall(problem["condensed_reasoning"])
        assert problem["condensed_reasoning"] == ", ".join(f"{a} {sign} {b} = {c}" for a, sign, b, c in steps)
        assert len(steps) == len(scene.equations) and steps[-1][-1] == problem["answer"]
        known = set(map(Fraction, re.findall(r"\d+(?:\.\d+)?", problem["question"])))
        for left, sign, right, result in steps:
            a, b, c = map(Fraction, (left, right, result))
            assert c == {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[sign] and 0 < c <= 99999, problem
            assert {a, b} <= known, problem
            known.add(c)


def test_text_is_clean(lessons):
    for _, problem in lessons:
        question = problem["question"]
        assert not re.search(
            r"[][{}|]|  |\.\.|\b[Aa] [aeio]|\b[Aa]n (?!hour)[^aeio]|\b(\w+) \1\b|\bfoots|/", question
        ), question
        assert re.match(r"[A-Z\d]", question) and question.endswith("?") and question.count("?") == 1
        told = [number for number in re.findall(r"(?<![$\d.])(?<!\$ )\d[\d.]*\b", question) if "." in number]
        assert not any(number.endswith("0") for number in told), question
        assert all(
            re.fullmatch(r"\d+\.\d\d", price) for price in re.findall(r"\$ ?([\d.]*\d)", question) if "." in price
        )


def test_what_is_told_can_be_true():
    """Also what a question does not ask for: no more were eaten than there were."""
    rng = random.Random(1)
    scenes = [scene for scene in SCENES if any("just {c} {things} found a buyer" in fact for fact, _ in scene.facts)]
    assert {"a + b", "a - c"} == {" ".join(scene.equations[0]) for scene in scenes}
    for scene in scenes * 40:
        cooked, _, sold = map(int, re.findall(r"(?<!= )\b\d+\b(?! years|\.)", tell_lesson(scene, rng)["question"])[:3])
        assert cooked > sold


def test_many_voices():
    drawn = [problem["question"] for problem in arithmetic_school(5000, seed=3)]
    assert len(set(map(masked, drawn))) > 3000
    for voice in (
        r"\.\d",
        r"\b0\.\d",
        r"\d\.\d{3}",
        r"\$\d+\.\d0",
        r"\d{4}",
        r"\d{5}",
        r"\bwill\b",
        r" \?$",
        r"^How ",
        r"^.{,40}$",
        r"^.{300,}$",
        r"\$",
        r"\bsome\b",
        r"\bif\b",
    ):
        assert 20 < sum(bool(re.search(voice, question)) for question in drawn) < 2500, voice


def test_splits_share_no_scene():
    facts = {
        split: {s.facts for s in SCENES if in_eval(s.facts[0][0]) == (split == "eval")} for split in ("train", "eval")
    }
    assert len(facts["eval"]) > 5
    drawn = {split: load_problems("synthetic_school", split, num_samples=2000, seed=1) for split in ("train", "eval")}
    templates = {split: set(map(masked, problems["question"])) for split, problems in drawn.items()}
    assert not templates["train"] & templates["eval"]
    with pytest.raises(ValueError, match="split is 'test'"):
        list(arithmetic_school(1, split="test"))


def test_steps_and_seeds():
    assert {p["condensed_reasoning"].count("=") for p in arithmetic_school(200, seed=2, steps=(2, 3))} == {2, 3}
    assert list(arithmetic_school(20, 1)) == list(arithmetic_school(20, 1)) != list(arithmetic_school(20, 2))
    with pytest.raises(ValueError, match="1 <= first <= second <= 3"):
        list(arithmetic_school(1, steps=(0, 1)))
