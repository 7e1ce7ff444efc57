import json
import random
import re

import pytest
from checks import EQUATION, check_worked

from semcot.data import augment, find_template, find_templates, in_eval, load_problems, with_other_numbers
from semcot.data.language import WORDS

TRIVIA = {
    "question": "There are 64 students trying out. If 36 of them didn't get picked and the rest were put into 4 "
    "groups, how many students would be in each group?",
    "reasoning": "We subtract: 64 - 36 = 28. Then we divide: \\frac{28}{4} = 7.",
    "condensed_reasoning": "28 picked, divided into 4 groups: 7 each.",
    "answer": "7",
}
CLIPS = {
    "question": "Paula had 32 clips and Karl has 9 boxes. Paula lost 12 clips. How many clips does Paula have?",
    "reasoning": "The question is in type of Subtraction and we solve it by calculating ( 32.0 - 12.0 )",
    "condensed_reasoning": "",
    "answer": "20",
}


def problem(question, reasoning, answer, condensed=""):
    return {"question": question, "reasoning": reasoning, "condensed_reasoning": condensed, "answer": answer}


class TestFindTemplate:
    def test_the_results_in_the_reasoning_tell_how_it_was_solved(self):
        assert find_template(TRIVIA).equations == (("n0", "-", "n1"), ("p", "/", "n2"))

    def test_a_solution_in_brackets_is_read_and_needs_not_all_numbers(self):
        assert find_template(CLIPS).equations == (("n0", "-", "n2"),)
        own = {**CLIPS, "reasoning": "( 32.0 - 12.0 ) = 20"}  # as in SVAMP's own records
        assert find_template(own) == find_template(CLIPS)

    @pytest.mark.parametrize(
        "case",
        [
            problem("26 cakes, sold 20, made 20. How many?", "26 - 20 = 6, 6 + 20 = 26, of 46", "26", "26 + 20 = 46"),
            problem("He had 2 and found 2. How many?", "2 and 2 make 4", "4"),  # 2 + 2 or 2 * 2
            problem("He had 5 and lost 2. How many?", "We know it", "4"),
            problem("He had 5 and lost 2. How many?", "( 5.0 - 2.0 )", "4"),
            problem("He had 5, lost 2 and 5. How many?", "( 5.0 - 2.0 )", "3"),  # which 5?
            problem("He had 5. How many are left?", "( 5.0 - 2.0 )", "3"),  # 2 is not told
            problem("He had 5 and lost 2. How many?", "( 5.0 2.0 )", "3"),
            problem("He had 5 and lost 2. How many?", "(he lost 2", "3.5"),
            problem("He had 5000 and lost 2. How many?", "5000 - 2 = 4998", "4998"),
            problem("What colour is the sky?", "It is blue.", "blue"),
            problem("What is 7?", "It is 7.", "7"),
            problem("He had 5 and found 2. How many?", "He has 5 + 2 of them.", "7"),  # 7 is not told
            problem("He had 9 and lost 4. How many?", "4 - 9 is not what he has. It is 5.", "5"),
            # Other ways to the answer than the one that happens to give it too.
            problem("7 boxes and 3 boxes, 8 in each.", "7 * 8 = 56, 3 * 8 = 24, 56 + 24 = 80", "80"),
            problem("8 sandwiches, two slices each, packs of 4. How many packs?", "8 * 2 = 16, 16 / 4 = 4", "4"),
            problem("He won $67, paid 21 % and $11. What is left?", "67 - 21 = 46, 46 - 11 = 35", "35"),
            problem("He had 5 and found twice 2. How many?", "5 + 2 = 7, 7 + 2 = 9", "7"),
            problem("He had 5 and found half of 4. How many?", "5 + 4 = 9, 9 - 2 = 7", "9"),
            problem("He had 9 and she 3 times as many.", "9 + 3 = 12", "12"),
            problem("He had 9 on average and found 6.", "9 + 6 = 15", "15"),
            problem("He had 9 and found 3/4.", "9 + 3 = 12, 12 + 4 = 16", "16"),
            problem("4 pages in 29 minutes. How many hours for 44?", "44 / 4 = 11, 29 - 11 = 18", "18"),
        ],
    )
    def test_what_is_ambiguous_or_not_understood_gives_none(self, case):
        assert find_template(case) is None

    def test_formulas_in_a_written_reasoning_do_not_hide_its_results(self):
        reasoning = "We subtract \\(64 - 36\\), which is 28 (two digits). Then \\(28 / 4 = 7\\)."
        assert find_template({**TRIVIA, "reasoning": reasoning}).equations == (("n0", "-", "n1"), ("p", "/", "n2"))

    def test_of_one_template_what_most_of_its_problems_mean(self):
        told = "{} bought {} boxes and gave {} to a friend. Each box has {} pieces. How many pieces has {} now?"
        numbers = [(7, 2, 6), (9, 5, 3), (14, 8, 4)]
        right = [
            problem(
                told.format("Zed", a, b, c, "Zed"),
                f"{a} - {b} = {a - b}, {a - b} * {c} = {(a - b) * c}",
                str((a - b) * c),
            )
            for a, b, c in numbers
        ]
        other = problem(told.format("Amy", 12, 6, 11, "Amy"), "6 * 11 = 66, 66 - 12 = 54", "54")
        assert find_template(other).equations[0] == ("n1", "*", "n2")
        found = [template for split in ("train", "eval") for template in find_templates([*right, other], split)]
        assert [template.equations for template in found] == [(("n0", "-", "n1"), ("p", "*", "n2"))] * 3

    def test_two_ways_to_the_same_thing_are_not_ambiguous(self):
        reasoning = "9 - 3 = 6, 6 - 2 = 4, 3 + 2 = 5"
        found = find_template(problem("9 birds, 3 left, then 2 left. How many?", reasoning, "4"))
        assert found.equations == (("n0", "-", "n1"), ("p", "-", "n2"))

    def test_digits_within_words_and_decimals_are_no_numbers(self):
        found = find_template(problem("8 songs on an mp3 player, 2.5 hours, 3 more.", "8 + 3 = 11", "11"))
        assert found.equations == (("n0", "+", "n1"),)


def with_endings(row, count=40):
    """The same story with different endings, so that both splits have some."""
    return [{**row, "question": f"{row['question']} ({'x' * i})"} for i in range(1, count + 1)]


@pytest.fixture(scope="module")
def variants():
    problems = with_endings(TRIVIA) + with_endings(CLIPS)
    return {split: list(augment(problems, 400, 5, split)) for split in ("train", "eval")}


class TestAugment:
    def test_equations_are_true_and_lead_to_the_answer(self, variants):
        for row in variants["train"] + variants["eval"]:
            check_worked(row)

    def test_the_numbers_of_the_equations_are_those_of_the_question(self, variants):
        for row in variants["train"]:
            numbers, steps = re.findall(r"\d+", row["question"]), EQUATION.findall(row["condensed_reasoning"])
            if "students" in row["question"]:
                (a, _, b, p), (q, _, c, _) = steps
                assert [a, b, c] == numbers and p == q
            else:
                assert [steps[0][0], steps[0][2]] == [numbers[0], numbers[2]]

    def test_numbers_and_names_vary(self, variants):
        clips = [row["question"] for row in variants["train"] if "clips" in row["question"]]
        heroes = [re.match(r"\w+", question)[0] for question in clips]
        assert set(heroes) <= set(WORDS.women), "as the pronouns stay"
        assert len(set(heroes)) > 10 and len({re.search(r"\d+", question)[0] for question in clips}) > 10
        assert all(question.count(hero) == 3 for question, hero in zip(clips, heroes, strict=True))

    def test_the_variants_of_one_problem_are_all_in_its_split(self, variants):
        belongs = {row["question"].rpartition("?")[2]: in_eval(row["question"]) for row in with_endings(TRIVIA)}
        assert set(belongs.values()) == {True, False}
        for split, rows in variants.items():
            drawn = {row["question"].rpartition("?")[2] for row in rows if "students" in row["question"]}
            assert drawn == {ending for ending, in_evaluation in belongs.items() if in_evaluation == (split == "eval")}

    def test_problems_of_one_template_are_all_in_one_split(self):
        """However many tell it, with other numbers, names and pronouns."""
        heroes = (("Haley", "she"), ("Robin", "he"), ("Zed", "he"), ("Amy", "she"))
        told = [
            problem(
                f"{hero} had {a} eggs. If {they} ate {b}, how many has {hero}? ({'x' * i})",
                f"{a} - {b} = {a - b}",
                str(a - b),
            )
            for hero, they in heroes
            for a, b in ((9, 4), (31, 12), (50, 7))
            for i in range(1, 21)
        ]
        endings = {
            split: {row["question"].partition("?")[2] for row in augment(told, 60, 3, split)}
            for split in ("train", "eval")
        }
        assert endings["train"] and endings["eval"] and not endings["train"] & endings["eval"]

    def test_results_keep_their_magnitude(self):
        boxes = with_endings(problem("9 boxes of 8 pens. How many pens?", "9 * 8 = 72", "72"))
        assert max(int(row["answer"]) for row in augment(boxes, 60)) <= 1.5 * 72

    def test_what_is_often_no_name_or_no_quantity_stays(self):
        told = problem("In April she had 9 eggs and found 1. How many?", "9 + 1 = 10", "10")
        drawn = [row["question"] for row in augment(with_endings(told), 100)]
        assert all(re.match(r"In April she had \d+ eggs and found 1\.", question) for question in drawn)

    def test_two_people_stay_two(self):
        told = problem("Paula had 9 eggs, Haley 4 eggs. How many more eggs had Paula than Haley?", "9 - 4 = 5", "5")
        for row in augment(with_endings(told), 200):
            assert len(set(re.findall(r"[A-Z]\w+", row["question"]))) == 3, "with How"

    def test_same_seed_same_variants(self):
        problems = with_endings(TRIVIA)
        assert list(augment(problems, 20, 1)) == list(augment(problems, 20, 1))
        assert list(augment(problems, 20, 1)) != list(augment(problems, 20, 2))

    def test_problems_that_are_not_understood(self):
        with pytest.raises(ValueError, match="no problem of the train split is understood"):
            list(augment([problem("Why?", "So.", "yes")], 10))


def test_from_a_file_by_its_name(tmp_path):
    file = tmp_path / "own.json"
    file.write_text(json.dumps(with_endings(TRIVIA)))
    drawn = load_problems(f"augmented:{file}", "train", num_samples=50, seed=3).to_list()
    assert len(drawn) == 50 and len(load_problems(f"augmented:{file}")) == 1000
    assert drawn == load_problems(f"augmented:{file}", "train", num_samples=50, seed=3).to_list()
    assert drawn != load_problems(f"augmented:{file}", "eval", num_samples=50, seed=3).to_list()
    assert drawn != load_problems(f"augmented:{file}", "train", num_samples=50, seed=4).to_list()
    with pytest.raises(FileNotFoundError):
        load_problems("augmented:none.json")


def test_both_splits_are_drawn_from_the_real_train_split(tmp_path, monkeypatch):
    (tmp_path / "svamp").mkdir()
    (tmp_path / "svamp" / "train.json").write_text(json.dumps(with_endings(TRIVIA)))
    monkeypatch.setenv("SEMCOT_DATA_DIR", str(tmp_path))
    assert len(load_problems("augmented:svamp", "eval", num_samples=20)) == 20


@pytest.mark.parametrize("others", ["", "٣ ४", "٣٤, ٥.٦, 7.٨"])
def test_all_numbers_of_one_digit_can_be_drawn_anew(others):
    """Those of other scripts stay as they are."""
    (text,) = with_other_numbers([f"2 3 4 5 6 7 8 9 {others}"], random.Random(0))
    numbers, rest = text[:15].split(" "), text[16:]
    assert sorted(numbers) == list("23456789") and numbers != sorted(numbers) and rest == others


def test_other_numbers_are_the_same_in_both_texts():
    texts = ["1. Take \\(64 - 36 = 28\\).\n2. Then 28 / 4 = 7, not 7.5 or 007.", "28 picked, 4 groups: 7 of 64."]
    seen = set()
    for seed in range(50):
        full, condensed = with_other_numbers(texts, random.Random(seed))
        assert [re.sub(r"\d", "0", text) for text in (full, condensed)] == [re.sub(r"\d", "0", text) for text in texts]
        one, a, b, c, two, again, d, e = re.findall(r"\d+", full.split(", not 7.5 or 007.")[0])
        assert one == "1" and again == c and re.findall(r"\d+", condensed) == [c, d, e, a]
        assert len({a, b, c}) == len({two, d, e}) == 3 and not {"0", "1"} & {two, d, e}
        seen.add(condensed)
    assert len(seen) > 45
