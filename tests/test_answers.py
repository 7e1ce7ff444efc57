"""Reading answers out of outputs, and the two metrics built on it."""

import subprocess
import sys

import evaluate
import pytest
from conftest import ROOT

from semcot.answers import answer_kind, contains_answer, find_answers, normalize_answer, parse_answer

METRICS = ROOT / "semcot" / "evaluation" / "metrics"


@pytest.fixture(scope="module")
def strict():
    return evaluate.load(str(METRICS / "strict_accuracy"), keep_in_memory=True)


@pytest.fixture(scope="module")
def lenient():
    return evaluate.load(str(METRICS / "lenient_accuracy"), keep_in_memory=True)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        (" 42", ["42"]),
        ("42.", ["42"]),
        ("**42**", ["42"]),
        ("_42_", ["42"]),
        ("\\boxed{42}", ["42"]),
        ("42.0", ["42"]),
        ("42.50", ["42.5"]),
        ("007", ["7"]),
        ("100", ["100"]),
        ("0", ["0"]),
        ("-0", ["0"]),
        (".5", ["0.5"]),
        ("...5", ["5"]),
        ("1,234", ["1234"]),
        ("12,345,678.90", ["12345678.9"]),
        ("10,20", ["10", "20"]),
        ("1,2345", ["1", "2345"]),
        ("$5", ["5"]),
        ("US$5", ["5"]),
        ("-$5", ["-5"]),
        ("€1,000.00", ["1000"]),
        ("£5", ["5"]),
        ("50%", ["50"]),
        ("5th of 12kg", ["5", "12"]),
        ("-3", ["-3"]),
        ("−3", ["-3"]),
        ("(-3)", ["-3"]),
        ("11-9", ["11", "9"]),
        ("(2+2)-3 = 1", ["2", "2", "3", "1"]),
        ("3/4", ["3/4"]),
        ("\\frac{3}{4}", ["3/4"]),
        ("her mp3 player holds 7", ["7"]),
        ("no number here", []),
        (" - 5", ["-5"]),
        (" -5", ["-5"]),
        ("so - 5", ["5"]),
        ("5 1/2", ["5 1/2"]),
        ("3:30, not 3: 30", ["3:30", "3", "30"]),
        ("1e3", ["1000"]),
        (" –5 and –6, not 5–6", ["-5", "-6", "5", "6"]),
        ("so −3", ["-3"]),
        (" minus 5", ["-5"]),
        ("Negative 5", ["-5"]),
        ("5½, 5 ¼ and ¾", ["5½", "5 ¼", "¾"]),
        ("1.5 million, 2 thousand, 3 millions", ["1500000", "2000", "3"]),
        ("2 eggs, 3e", ["2", "3"]),
        (
            "12 Million, 1 billion, 2 trillion, 3 hundred thousand",
            ["12000000", "1000000000", "2000000000000", "300000"],
        ),
        ("3 dozen, 2k of 2 km, 12 miles, 5 minutes, 3 kids", ["3", "2000", "2", "12", "5", "3"]),
        ("4², 4³, √4, 2√3, ±5, <5, ≥ 5", ["4²", "4³", "√4", "2√3", "±5", "<5", "≥ 5"]),
        ("<answer>5</answer> => 5, <5>, <<2", ["5", "5", "5", "2"]),
        ("2^3, 2**3, 2^{10}, **2** 3", ["2^3", "2**3", "2^{10", "2", "3"]),
        ("3.14.15, 1.234.567", ["3.14.15", "1.234.567"]),
        ("5! 5. 5, so", ["5", "5", "5"]),
        ("1e99999999999", ["1e99999999999"]),
        ("1'000, 1’000, 1_000, 1\u00a0000, 1\u202f000", ["1000"] * 5),
        ("1'0000, 1 200", ["1", "0", "1", "200"]),
        ("it is minus 5, is - 5, = minus 5, of negative 5, **minus 5**", ["-5"] * 5),
        ("10 minus 5, (3) - 5, 3-to-5, **Total** - 5", ["10", "5", "3", "5", "3", "5", "5"]),
    ],
)
def test_numbers(text, numbers):
    assert find_answers(text, "number") == numbers


@pytest.mark.parametrize(
    ("text", "kind", "answer"),
    [
        (" 42\n\nQuestion: 7", "number", "42"),
        (" 11 - 9 = 2", "number", "11"),
        ("3/4", "number", "3/4"),
        (" 2 / 3 of it", "number", "2/3"),
        (" 2⁄3", "number", "2/3"),
        (" 7  / 2", "number", "7/2"),
        (" nothing", "number", None),
        ("", "number", None),
        (" Yes.", "word", "yes"),
        ("**no**, since yes", "word", "no"),
        ("I know nothing of noon", "word", None),
        (" no matter what, yes", "word", "yes"),
        (" there is no change, so yes", "word", "yes"),
        (" No the coin is tails up", "word", "no"),
        (" no\n\nyes", "word", "no"),
        (" NO", "word", "no"),
        (" YeS", "word", "yes"),
        (" No way", "word", "no"),
        (" no way of knowing: yes", "word", "yes"),
        (" no after that", "word", "no"),
        (" no we", "word", "no"),
        (" no still heads up", "word", "no"),
        (" no head", "word", None),
        (" A good guess would be C", "letter", "C"),
        ("A is right, not B", "letter", "A"),
        ("A. bank", "letter", "A"),
        ("A", "letter", "A"),
        (" (a) bank", "letter", "A"),
        (" b.", "letter", "B"),
        (" b, dog", "letter", "B"),
        (" **b** dog", "letter", "B"),
        (" a bank", "letter", None),
        (" (B) ignore", "letter", "B"),
        ("C.", "letter", "C"),
        ("F, because", "letter", None),
        ("bad", "letter", None),
        (" A was right", "letter", "A"),
        (" A would be", "letter", "A"),
        (" A correct", "letter", "A"),
        (" A correct choice is B", "letter", "B"),
        (" A still dog", "letter", None),
        (" c is right", "letter", "C"),
        (" e.g. bank", "letter", None),
        (" E.g. bank", "letter", None),
        (" a.m.", "letter", None),
        (" D.C.", "letter", None),
        (" C++", "letter", None),
    ],
)
def test_answer_after_the_cue_in_the_prompt(text, kind, answer):
    assert parse_answer(text, kind) == answer


@pytest.mark.parametrize(
    ("text", "kind", "answer"),
    [
        ("11 - 9 = 2. The answer is 10 songs, of 19.", "number", "10"),
        ("Answer: 3\nNo, that is wrong.\nANSWER: 4 of 5", "number", "4"),
        ("**Answer:** 6 of 7", "number", "6"),
        ("**Answer**: 6 of 7", "number", "6"),
        ("2 + 8 = 10\n#### 10 of 12", "number", "10"),
        ("The answer is 2 + 8 = 10 songs", "number", "10"),
        ("Answer:\n\n1. 5 + 3 = 8\n2. 8 - 1 = 7", "number", "8"),
        ("The answer is 10.\nCheck: 2 + 9 = 11", "number", "10"),
        ("The answer is x =\n10", "number", "10"),
        ("A coin with no head on one side and no tail", "word", None),
        ("So \\[\\boxed{1,010}\\] and 5", "number", "1010"),
        ("The final answer is: $\\boxed{10}$ (not 5)", "number", "10"),
        ("First 11 - 9 = 2, then 2 + 8 = 10", "number", "10"),
        ("We seek the answer: 2 + 8 = 10. Now the answer is clear", "number", "10"),
        ("#### 5 (2*3 = 6)", "number", "5"),
        ("The answer is 5 (2 + 4 = 6).", "number", "5"),
        ("The final answer is: \\boxed{5}. Check: 2+4=6", "number", "5"),
        ("\\boxed{2+3=\\frac{5}{1}}", "number", "5/1"),
        ("Answer: x = 12 because 12 = 3*4", "number", "12"),
        ("Answer: x = 12 since 12 = 3*4", "number", "12"),
        ("The answer is 5; 2 + 4 = 6", "number", "5"),
        ("The answer is 5 >= 3", "number", "5"),
        ("Answer: 3 * 4 == 12", "number", "12"),
        ("The answer would be minus 5.", "number", "-5"),
        ("Total = minus 5", "number", "-5"),
        ("10 minus 5", "number", "5"),
        ("The answer is: - 5", "number", "-5"),
        ("The answer is 5\n\nQuestion: 3+4?\nAnswer: 7", "number", "5"),
        ("\nQuestion: 3+4?\nAnswer: 7", "number", "7"),
        ("no cue", "number", None),
        ("It is not heads: no. Or yes? The answer is no, not yes.", "word", "no"),
        ("Is it yes? It is no", "word", "no"),
        ("A or B. Answer: (D), not E", "letter", "D"),
    ],
)
def test_answer_of_a_written_chain_of_thought(text, kind, answer):
    assert parse_answer(text, kind, explicit_reasoning=True) == answer


@pytest.mark.parametrize(
    ("gold", "kind", "normalized"),
    [
        ("10", "number", "10"),
        ("1,234", "number", "1234"),
        ("-3.50", "number", "-3.5"),
        ("$7.00", "number", "7"),
        ("3/4", "number", "3/4"),
        ("yes", "word", "yes"),
        ("No.", "word", "no"),
        ("50 %", "number", "50"),
        ("50%.", "number", "50"),
        (".5", "number", "0.5"),
        ("(.25).", "number", "0.25"),
        ("-5", "number", "-5"),
        ("2 million", "number", "2000000"),
        ("(B)", "letter", "B"),
        ("b", "letter", "B"),
        ("A)", "letter", "A"),
        ("E", "letter", "E"),
    ],
)
def test_gold_answers(gold, kind, normalized):
    assert answer_kind(gold) == kind
    assert normalize_answer(gold) == normalized


@pytest.mark.parametrize("gold", ["left", "", "F", "10 songs", "1 2"])
def test_a_gold_answer_of_no_known_kind_is_refused(gold):
    with pytest.raises(ValueError, match="neither a number"):
        answer_kind(gold)


@pytest.mark.parametrize(
    ("text", "gold", "credited"),
    [
        ("11 - 9 + 8 = 10", "9", True),
        ("1,009", "9", False),
        ("9.0", "9", True),
        ("I know", "no", True),
        ("No", "yes", False),
        ("a sentence", "A", True),
        ("fish", "A", False),
    ],
)
def test_lenient_judgement(text, gold, credited):
    assert contains_answer(text, gold) is credited


def test_a_constant_output_scores_leniently_only(strict, lenient):
    golds = ["yes", "no", "no", "yes", "no"]
    constant = ["yes no"] * 5
    assert lenient.compute(predictions=constant, references=golds) == {"accuracy_lenient": 1.0}
    assert strict.compute(predictions=constant, references=golds) == {"accuracy": 0.4, "unparsed_rate": 0.0}


def test_an_english_sentence_scores_leniently_only(strict, lenient):
    golds, sentence = list("ABCDE"), ["the cat basked outside"] * 5
    assert lenient.compute(predictions=sentence, references=golds) == {"accuracy_lenient": 1.0}
    assert strict.compute(predictions=sentence, references=golds) == {"accuracy": 0.0, "unparsed_rate": 1.0}


def test_strict_accuracy_reads_both_kinds_of_output(strict):
    predictions, golds = ["2 + 8 = 10", "no idea", " 1,000."], ["10", "3", "1000"]
    assert strict.compute(predictions=predictions, references=golds) == {"accuracy": 1 / 3, "unparsed_rate": 1 / 3}
    explicit = strict.compute(predictions=predictions, references=golds, explicit_reasoning=True)
    assert explicit == {"accuracy": 2 / 3, "unparsed_rate": 1 / 3}
    strict.add_batch(predictions=["1", "2"], references=["1", "3"])
    assert strict.compute()["accuracy"] == 0.5


def test_metrics_load_anywhere(tmp_path):
    """In a fresh process in another folder, offline and without the project on the path."""
    code = (
        "import evaluate, sys\n"
        "strict, lenient = (evaluate.load(path) for path in sys.argv[1:])\n"
        "print(strict.compute(predictions=['5 6'], references=['6']),"
        " lenient.compute(predictions=['5 6'], references=['6']))"
    )
    paths = [str(METRICS / name) for name in ("strict_accuracy", "lenient_accuracy")]
    environment = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1", "PATH": ""}
    printed = subprocess.run(
        [sys.executable, "-c", code, *paths], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "{'accuracy': 0.0, 'unparsed_rate': 0.0} {'accuracy_lenient': 1.0}" in printed
