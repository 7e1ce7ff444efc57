import json
import random
import re

import pytest
from checks import EQUATION, check_worked

from semcot.data import augment, find_template, find_templates, in_eval, load_problems, masked, with_other_numbers
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
            problem("He had 2 and found 2. How many?", "2 and 2 make 4", "4"),  # 2 + 2 or 2 * 2
            problem("He had 5 and lost 2. How many?", "We know it", "4"),
            problem("He had 5 and lost 2. How many?", "( 5.0 - 2.0 )", "4"),
            problem("He had 5. How many are left?", "( 5.0 - 2.0 )", "3"),  # 2 is not told
            problem("He had 5 and lost 2. How many?", "( 5.0 2.0 )", "3"),
            problem("He had 5 and lost 2. How many?", "(he lost 2", "3.5"),
            problem("He had 50000 and lost 2. How many?", "50000 - 2 = 49998", "49998"),
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


def told(question, condensed):
    """A problem whose condensed reasoning tells its solution, as GSM8K's annotations do."""
    return problem(question, "", condensed.rpartition("= ")[2], condensed)


HIKE = told(
    "Paula walks four miles an hour for 3 hours and half as far after that. How far is it in an 8% tax zone?",
    "4 * 3 = 12, 12 / 2 = 6, 12 + 6 = 18",
)


class TestToldSolutions:
    @pytest.mark.parametrize(
        ("case", "equations"),
        [
            (HIKE, "n0 * n1, p / 2, p + q"),
            (told("Paula ate 20% of 50 nuts. How many?", "20 / 100 = 0.2, 0.2 * 50 = 10"), "20 / 100, p * n1"),
            (told("Three dozen eggs at $0.50 each?", "3 * 12 = 36, 36 * 0.5 = 18"), "n0 * 12, p * 0.5"),
            (told("5 pens at $2.50, and 3 at $2.00?", "5 * 2.5 = 12.5, 3 * 2 = 6, 5 + 3 = 8"), None),  # unused
            # 16 is a number and a result: were it the number, the other would lead to nothing.
            (told("2 of 16 slices, 2 of 8?", "2 * 16 = 32, 2 * 8 = 16, 32 + 16 = 48"), "n0 * n1, n0 * n3, p + q"),
            (told("4 and 2, or 8?", "4 * 2 = 8, 4 + 8 = 12, 12 - 8 = 4"), None),  # which 8 is the result?
            (told("She had 9 nuts and ate 2 of the 6 pairs.", "9 - 2 = 7"), None),  # 6 follows from something
            (told("9 nuts for all three of them?", "9 / 3 = 3"), None),
            (told("What percentage are 16 of 20 + 20 nuts?", "20 + 20 = 40"), None),  # 16 / 40 is not told
            (told("What percentage are 16 of 20 nuts?", "16 / 20 = 0.8, 100 * 0.8 = 80"), "n0 / n1, 100 * p"),
            (told("Her mother is 4 times her age. She is 9.", "4 * 9 = 36"), None),
            (told("He paid 9 nuts with a $20 bill.", "20 - 9 = 11"), "20 - n0"),
            (told("He runs 6 times a week, and now 1 more.", "6 + 1 = 7"), None),  # a week has no 9 days
            (told("On average 9 nuts for three people?", "9 * 3 = 27"), None),
            (told("He and three others share 20 nuts.", "20 / 4 = 5"), None),  # 4 is not told
            (told("A third of 3 boxes of 20 nuts?", "3 / 3 = 1, 1 * 20 = 20"), None),  # which 3?
            (told("5 of 11 nuts an hour?", "11 * 5 = 55, 55 + 1 = 56, 56 - 11 = 45, 45 / 3 = 15"), None),
            (told("In 1999, 14 nuts at 5 pm; he ate 6.", "14 - 6 = 8"), "n1 - n3"),
            (told("3 nuts are shared by 8, as 3 / 8.", "3 / 8 = 0.375, 0.375 * 8 = 3"), None),  # too long to spell
            (told("7 nuts at 2/3 of a dollar, and 20?", "20 - 7 = 13, 13 * 2 = 26"), "n3 - n0, p * 2"),
        ],
    )
    def test_each_number_is_told_implied_or_a_result(self, case, equations):
        found = find_template(case)
        assert (found and ", ".join(map(" ".join, found.equations))) == equations

    def test_a_part_of_a_longer_number_is_none(self):
        rows = with_endings(told("Of twenty-five nuts, 5 and 3 are bad.", "5 + 3 = 8"))
        assert all(row["question"].startswith("Of twenty-five nuts") for row in augment(rows, 20))

    def test_equal_numbers_stay_equal(self):
        rows = with_endings(told("He had 26 nuts, ate 20 and found 20.", "26 - 20 = 6, 6 + 20 = 26"))
        assert all(len(set(re.findall(r"\d+", row["question"]))) == 2 for row in augment(rows, 50))

    def test_variants_keep_what_is_implied_and_the_order_of_size(self):
        for row in augment(with_endings(HIKE), 60):
            found = re.match(
                r"\w+ walks (\w+) miles an hour for (\w+) hours and half as far after that\. How far is it in an "
                r"8% tax zone\?",
                row["question"],
            )
            words = ["two", "three", "four", "five", "six", "seven", "eight", "nine"]
            speed, hours = words.index(found[1]) + 2, int(found[2])
            half = speed * hours // 2
            assert speed > hours and speed * hours == 2 * half
            assert row["condensed_reasoning"] == (
                f"{speed} * {hours} = {2 * half}, {2 * half} / 2 = {half}, {2 * half} + {half} = {3 * half}"
            )

    def test_what_was_whole_stays_whole_and_what_was_not_stays_short(self):
        rows = with_endings(
            told("6 nuts for 12 cents a gram: 50 grams?", "6 * 12 = 72, 72 / 50 = 1.44, 1.44 * 50 = 72")
        )
        for row in augment(rows, 50):
            (product, share, back) = [step.partition(" = ")[2] for step in row["condensed_reasoning"].split(", ")]
            assert product.isdecimal() and product == back and len(share.partition(".")[2]) <= 2

    def test_one_that_can_only_be_told_with_its_own_numbers_is_left_out(self):
        assert find_template(told("2 nuts less 1?", "2 - 1 = 1")).equations == (("n0", "-", "1"),)
        assert find_template(told("2 halves of 3 thirds?", "2 / 2 = 1, 1 * 3 = 3")) is None  # both stay
        assert find_template(told("50 is 20% of 250.", "250 * 0.2 = 50, 50 - 50 = 0")) is None

    def test_the_article_of_a_number(self):
        rows = with_endings(told("A 9-mile walk and an 11-mile walk?", "9 + 11 = 20"))
        articles = {article for row in augment(rows, 100) for article in re.findall(r"\b(an? \d+)-", row["question"])}
        assert {article.split()[1] for article in articles if article.startswith("an ")} <= {"8", "11", "18"}
        assert not {"a 8", "a 11", "a 18"} & articles and "an 11" in articles

    def test_masked_alike_whatever_the_numbers(self):
        assert masked("Paula has an 8-mile walk, two pens.") == masked("Zed has a 9-mile walk, eleven pens.")
        assert masked("He had $5.70 of $1,200.") == masked("She had $30 of $8.")


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
