from fractions import Fraction

import pytest

from semcot.data.equations import Equation, parse_chain, parse_expression, parse_steps, solve, work_out, worked_problem


def test_an_equation_is_parsed_solved_and_written():
    equation = Equation.parse("a - b")
    assert equation == ("a", "-", "b")
    assert equation.solve({"a": 64, "b": 36}) == 28 and equation.write({"a": 64, "b": 36}) == "64 - 36 = 28"
    told = Equation.parse("12 + 3 = 15")
    assert told == ("12", "+", "3") and told.write() == "12 + 3 = 15"
    assert Equation("p", "*", "4").write({"p": 3}) == "3 * 4 = 12"


@pytest.mark.parametrize(
    ("left", "right", "quotient"), [(12, 4, 3), (4, 12, Fraction(1, 3)), (Fraction(1, 3), Fraction(1, 6), 2)]
)
def test_a_quotient_is_exact(left, right, quotient):
    assert Equation("a", "/", "b").solve({"a": left, "b": right}) == quotient


@pytest.mark.parametrize("text", ["a", "a - b - c", "a % b", "a-b", "", "12 + 3 = 14", "12 / 5 = 2", "5 / 0 = 0"])
def test_what_is_no_equation_or_not_true(text):
    with pytest.raises(ValueError, match="is no equation|is not true"):
        Equation.parse(text)


def test_steps_go_on_from_results():
    steps = parse_steps("a - b, p * k")
    assert solve(steps, {"a": 9, "b": 4, "k": 3}) == {"a": 9, "b": 4, "k": 3, "p": 5, "q": 15}
    assert parse_chain("b * k - a") == parse_steps("b * k, p - a")
    with pytest.raises(ZeroDivisionError):
        solve(parse_steps("a - b, a / p"), {"a": 9, "b": 9})


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("( ( 64.0 - 36.0 ) / 4.0 )", ["64 - 36 = 28", "28 / 4 = 7"]),
        ("(4 * (64 - 36))", ["64 - 36 = 28", "4 * 28 = 112"]),
        ("( 64.0 - 36.0 ) / ( 4.0 + 24.0 )", ["64 - 36 = 28", "4 + 24 = 28", "28 / 28 = 1"]),
        ("100-50-30-15", ["100 - 50 = 50", "50 - 30 = 20", "20 - 15 = 5"]),
        ("12/60*50", ["12 / 60 = 0.2", "0.2 * 50 = 10"]),
        ("0.1+0.2", ["0.1 + 0.2 = 0.3"]),
        ("1/3*6", ["1 / 3 = 1/3", "1/3 * 6 = 2"]),
    ],
)
def test_an_expression_is_worked_out_exactly(text, steps):
    assert work_out(text) == steps


@pytest.mark.parametrize(
    "text",
    ["(64.0)", "( 64.0 36.0 )", "(a - 5)", "(1 - 1 - 1 + 1 - 1 + 1 - 1 + 1)", "(64 ** 4)", "(-64 + 4)", "", "True + 1"],
)
def test_what_is_no_expression_of_numbers(text):
    with pytest.raises(ValueError, match="expression|operations"):
        parse_expression(text)


def test_a_worked_problem():
    steps = parse_steps("a - b, p * k")
    values = solve(steps, {"a": 9, "b": 4, "k": 3})
    assert worked_problem("How many?", steps, values) == {
        "question": "How many?",
        "reasoning": "9 - 4 = 5. 5 * 3 = 15. The answer is 15.",
        "condensed_reasoning": "9 - 4 = 5, 5 * 3 = 15",
        "answer": "15",
    }
    assert worked_problem("How many?", steps, values, "So it is")["reasoning"] == "So it is. The answer is 15."
