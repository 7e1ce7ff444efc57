"""What holds of every worked problem, told independently of the code that makes them."""

import re

KEYS = {"question", "reasoning", "condensed_reasoning", "answer"}
EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


def check_worked(problem: dict[str, str], most: int = 999) -> list[tuple[str, str, str, str]]:
    """
    The equations (left, operation, right, result) of a problem, once it is seen that they are true, stand alike in both
    reasonings, lead to the answer and take their numbers from the question.
    """
    assert problem.keys() == KEYS
    steps = EQUATION.findall(problem["condensed_reasoning"])
    assert problem["condensed_reasoning"] == ", ".join(f"{a} {sign} {b} = {c}" for a, sign, b, c in steps)
    assert EQUATION.findall(problem["reasoning"]) == steps
    assert problem["reasoning"].endswith(f". The answer is {problem['answer']}.")
    assert steps[-1][-1] == problem["answer"]
    results: list[str] = []
    for left, sign, right, result in steps:
        a, b, c = int(left), int(right), int(result)
        assert {"+": a + b == c, "-": a - b == c, "*": a * b == c, "/": b and b * c == a}[sign], problem
        assert 1 <= c <= most, problem
        for number in (left, right):
            assert number in results or re.search(rf"(?<![\d.,]){number}\b", problem["question"]), problem
        results.append(result)
    return steps
