import re
from fractions import Fraction

import pytest
from checks import KEYS, check_worked

from semcot.data import arithmetic_expressions, arithmetic_stories, arithmetic_sums

OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}


@pytest.fixture(scope="module")
def expressions():
    return list(arithmetic_expressions(2000, seed=7))


def test_equations_are_true_and_lead_to_the_answer(expressions):
    for problem in expressions:
        check_worked(problem)


def test_the_question_asks_for_the_answer(expressions):
    """Worked out from its words alone, innermost parentheses first, one step after the other."""
    symbols = {"plus": "+", "and": "+", "minus": "-", "less": "-", "without": "-"}
    symbols |= {"times": "*", "groups of": "*", "divided by": "/", "shared among": "/"}
    for problem in expressions:
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


def test_hard_families_come_more_often(expressions):
    def share(problems):
        signs = [set(re.findall("[-+*/]", problem["condensed_reasoning"])) for problem in problems]
        return sum(sign <= {"+", "-"} for sign in signs) / len(problems)

    assert share(expressions) > share(list(arithmetic_stories(1000, seed=7)))


def test_impossible_steps():
    with pytest.raises(ValueError, match="1 <= first <= second <= 3"):
        list(arithmetic_expressions(1, steps=(0, 1)))


def test_sums_are_true_and_as_the_question_has_them():
    digits, decimals = set(), set()
    for problem in arithmetic_sums(1000, seed=7):
        assert problem.keys() == KEYS
        text = re.sub(r"^(What|How much) is |( =)? ?\?$", "", problem["question"])
        *steps, last = problem["condensed_reasoning"].split(", ")
        told = list(map(Fraction, re.findall(r"\d+(?:\.\d+)?", text)))
        result = told[0]
        for step, other in zip((*steps, last), told[1:], strict=True):
            left, sign, right, equals, after = step.split(" ")
            assert (Fraction(left), Fraction(right), equals) == (result, other, "="), problem
            result += other if sign == "+" else -other
            assert result == Fraction(after) > 0, problem
        assert problem["answer"] == last.rpartition(" ")[2]
        assert problem["reasoning"].endswith(f". The answer is {problem['answer']}.")
        digits |= {len(number.replace(".", "")) for number in re.findall(r"[\d.]+", text)}
        decimals |= {len(number.partition(".")[2]) for number in re.findall(r"[\d.]+", text)}
    assert digits >= {1, 2, 3, 4, 5} and decimals == {0, 1, 2, 3}


def test_steps_of_sums():
    steps = {problem["condensed_reasoning"].count("=") for problem in arithmetic_sums(200, seed=1, steps=(2, 3))}
    assert steps == {2, 3}
    with pytest.raises(ValueError, match="1 <= first <= second <= 3"):
        list(arithmetic_sums(1, steps=(0, 1)))
