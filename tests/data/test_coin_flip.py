import re
from collections import Counter

import pytest

from semcot.data import coin_flips

PERSON = re.compile(r"(\S+) (flips|does not flip) the coin\.")


@pytest.fixture(scope="module")
def flips():
    return list(coin_flips(3000, seed=7))


def test_wording(flips):
    for problem in flips:
        assert re.fullmatch(
            r"Q: A coin is heads up\. ([a-z-]+ (flips|does not flip) the coin\. )+ Is the coin still heads up\?",
            problem["question"],
        ), problem["question"]


def test_the_answer_is_the_parity_of_the_flips(flips):
    for problem in flips:
        acts = [act for _, act in PERSON.findall(problem["question"])]
        assert problem["answer"] == ("no" if acts.count("flips") % 2 else "yes")
        assert problem["condensed_reasoning"].endswith(f"so {problem['answer']}")
        assert problem["reasoning"].endswith(f"so the answer is {problem['answer']}.")


def test_the_reasoning_gives_the_side_after_each_person(flips):
    for problem in flips:
        heads, sides = True, []
        for _, act in PERSON.findall(problem["question"]):
            heads ^= act == "flips"
            sides.append("heads" if heads else "tails")
        assert re.findall(r": (heads|tails)", problem["condensed_reasoning"]) == sides
        assert re.findall(r"(?:so it is|so it stays) (heads|tails)", problem["reasoning"]) == sides


def test_people_and_answers_are_balanced(flips):
    answers = {people: Counter() for people in range(1, 7)}
    for problem in flips:
        answers[len(PERSON.findall(problem["question"]))][problem["answer"]] += 1
    for counter in answers.values():
        assert 400 < counter.total() < 600
        assert 0.4 < counter["yes"] / counter.total() < 0.6


def test_people_range():
    counts = {len(PERSON.findall(p["question"])) for p in coin_flips(300, seed=5, people=(3, 4))}
    assert counts == {3, 4}
    with pytest.raises(ValueError, match="people"):
        list(coin_flips(1, people=(0, 2)))


def test_names(flips):
    names = [name for problem in flips for name, _ in PERSON.findall(problem["question"])]
    assert len(set(names)) > 3000
    for problem in flips:
        people = [name for name, _ in PERSON.findall(problem["question"])]
        assert len(people) == len(set(people))


def test_asking_for_more_than_there_are(monkeypatch):
    monkeypatch.setattr("semcot.data.coin_flip._invented_name", lambda rng: "ann")
    with pytest.raises(ValueError, match="too many"):
        list(coin_flips(10, people=(1, 1)))
