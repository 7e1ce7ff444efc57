"""Reading answers out of outputs, and the two metrics built on it."""

import subprocess
import sys

import evaluate
import pytest
from conftest import ROOT

from semcot.answers import answer_kind, contains_answer, find_answers, last_answer, normalize_answer, parse_answer

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
        ("50%", ["50"]),
        ("5th of 12kg", ["5", "12"]),
        ("-3, −3, –3 and (-3)", ["-3"] * 4),
        ("11-9", ["11", "9"]),
        ("(2+2)-3 = 1", ["2", "2", "3", "1"]),
        ("3/4", ["3/4"]),
        ("3:30, not 3: 30", ["3:30", "3", "30"]),
        ("2^3", ["2^3"]),
        ("her mp3 player holds 7", ["7"]),
        ("no number here", []),
    ],
)
def test_numbers(text, numbers):
    assert find_answers(text, "number") == numbers


@pytest.mark.parametrize(
    ("text", "kind", "answer"),
    [
        (" 42\n\nQuestion: 7", "number", "42"),
        (" 12 + 8 = 20", "number", "20"),
        (" 3 * 7 = 21\n\nThe answer is 2", "number", "21"),
        (" 16\nThe answer is 6.", "number", "16"),
        (" 46\n\nMarie worked 15 + 31 = 46 hours", "number", "46"),
        (" 4 * 31 = 123.\n\nSara", "number", "123"),
        (" (12 + 8) * 2 = 40", "number", "40"),
        (" 12 + (4 * 2) = 20", "number", "20"),
        (" 3 x (4 + 1) = 15 (not 7)", "number", "15"),
        (" \\(12 + 8 = 20\\)", "number", "20"),
        (" 20 (12 + 7 = 19)", "number", "20"),
        ("**20** (12 + 7 = 19)", "number", "20"),
        (" 20 apples (12 + 7 = 19)", "number", "20"),
        ("3/4", "number", "3/4"),
        (" nothing", "number", None),
        ("", "number", None),
        (" Yes.", "word", "yes"),
        (" NO", "word", "no"),
        ("**no**, since yes", "word", "no"),
        ("I know nothing of noon", "word", None),
        (" A good guess would be C", "letter", "C"),
        ("A is right, not B", "letter", "A"),
        ("A. bank", "letter", "A"),
        (" (B) ignore", "letter", "B"),
        ("F, because", "letter", None),
        ("bad", "letter", None),
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
        ("The answer is 10.\nCheck: 2 + 9 = 11", "number", "10"),
        ("The answer is x =\n10", "number", "10"),
        ("So \\[\\boxed{1,010}\\] and 5", "number", "1010"),
        ("The final answer is: $\\boxed{10}$ (not 5)", "number", "10"),
        ("The final answer is: \\boxed{2 + 8 = 10}. Check: 2+4=6", "number", "10"),
        ("First 11 - 9 = 2, then 2 + 8 = 10", "number", "10"),
        ("We seek the answer: 2 + 8 = 10. Now the answer is clear", "number", "10"),
        ("The answer is 5 (2 + 4 = 6).", "number", "5"),
        ("Answer: x = 12 because 12 = 3*4", "number", "12"),
        ("The answer is 5; 2 + 4 = 6", "number", "5"),
        ("no cue", "number", None),
        ("It is not heads: no. Or yes? The answer is no, not yes.", "word", "no"),
        ("Is it yes? It is no", "word", "no"),
        ("A or B. Answer: (D), not E", "letter", "D"),
        ("The answer is A because banks lend", "letter", "A"),
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
        (".5", "number", "0.5"),
        ("(.25).", "number", "0.25"),
        ("(B)", "letter", "B"),
        ("b", "letter", "B"),
        ("A)", "letter", "A"),
        ("E", "letter", "E"),
    ],
)
def test_gold_answers(gold, kind, normalized):
    assert answer_kind(gold) == kind
    assert normalize_answer(gold) == normalized


@pytest.mark.parametrize("gold", ["left", "", "F", "10 songs", "1 2", "2 million"])
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
    predictions, golds = ["So 8 + 2: 10", "no idea", " 1,000."], ["10", "3", "1000"]
    assert strict.compute(predictions=predictions, references=golds) == {"accuracy": 1 / 3, "unparsed_rate": 1 / 3}
    explicit = strict.compute(predictions=predictions, references=golds, explicit_reasoning=True)
    assert explicit == {"accuracy": 2 / 3, "unparsed_rate": 1 / 3}
    strict.add_batch(predictions=["1", "2"], references=["1", "3"])
    assert strict.compute()["accuracy"] == 0.5


@pytest.mark.slow
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


def test_the_flexible_reading_is_the_last_answer():
    assert last_answer("She had 3, so 3 + 4 = 7, not 1,200.", "number") == "1200"
    assert last_answer("Yes. No, wait: YES", "word") == "yes"
    assert last_answer("none", "number") is None
    flexible = evaluate.load(str(METRICS / "flexible_accuracy"), keep_in_memory=True)
    golds = ["7", "7", "no", "C"]
    outputs = [" 7", " 7 apples and 2 pears", "yes, no", "B or C"]
    assert flexible.compute(predictions=outputs, references=golds) == {"accuracy_flexible": 0.75}
