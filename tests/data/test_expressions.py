import re

import pytest
from checks import check_worked

from semcot.data import arithmetic_expressions, arithmetic_stories

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
