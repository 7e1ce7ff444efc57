"""What of a test set was trained on, and accuracy on each part."""

import pytest

from semcot.evaluation.overlap import PARTS, accuracy_by_overlap, overlaps

TRAIN = [
    "Paige had 11 songs on her mp3 player. If she deleted 9 old songs from it, how many songs does she have?",
    "A baker makes 12 cakes a day. How many cakes does he make in 3 days?",
]


@pytest.mark.parametrize(
    ("question", "part"),
    [
        ("paige had 11 songs on her mp3 player.  If she deleted 9 old songs from it, how many songs does she have?", 0),
        ("Robin had 50 songs on his mp3 player. If he deleted 20 old songs from it, how many songs does he have?", 1),
        ("A baker makes 8 cakes a day. How many cakes does he make in 3 days, and how many pies?", 2),
        ("A baker rests. How many songs does she have? He deleted 3 days.", 3),  # half of it, but not of one problem
        ("Why?", 3),
    ],
)
def test_parts(question, part):
    assert overlaps([question], TRAIN) == [list(PARTS)[part]]
    assert overlaps([question], []) == ["new"]


def test_near_is_half_of_the_4_grams_in_one_problem():
    train = ["a b c d e f g"]
    assert overlaps(["a b c d e x", "a b c d x y"], train) == ["near", "new"], "2 and 1 of 3"
    assert overlaps(["a b c d e x", "a b c d e x y"], ["a b c d e"]) == ["near", "near"], "2 of 3, 2 of 4"
    assert overlaps(["a b c"], ["a b c d"]) == ["new"]


def test_accuracy_on_each_part():
    questions = [TRAIN[0], TRAIN[0].replace("11", "12"), "Why?", "Who?"]
    predictions = [
        {"method": method, "question": question, "correct": correct}
        for method, outcomes in (("semcot", (True, False, True, False)), ("direct", (False,) * 4))
        for question, correct in zip(questions, outcomes, strict=True)
    ]
    rows = accuracy_by_overlap(predictions, TRAIN)
    assert [(row["method"], row["part"], row["n"], row["accuracy"]) for row in rows] == [
        ("semcot", "verbatim", 1, 1.0),
        ("semcot", "twin", 1, 0.0),
        ("semcot", "new", 2, 0.5),
        ("direct", "verbatim", 1, 0.0),
        ("direct", "twin", 1, 0.0),
        ("direct", "new", 2, 0.0),
    ]
