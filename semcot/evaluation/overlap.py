"""How much of a test set stands in the data that was trained on, word for word or nearly, and accuracy on each part."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from semcot.data import masked, normalise_question
from semcot.evaluation.judging import Row
from semcot.evaluation.statistics import wilson_interval

PARTS = {
    "verbatim": "stands in train, whatever its case and white space",
    "twin": "differs from one in train in numbers, names and pronouns alone",
    "near": "has half of its 4-grams, numbers, names and pronouns masked, in one of train",
    "new": "none of these",
}
_WORDS = 4


def overlaps(questions: Sequence[str], train: Sequence[str]) -> list[str]:
    """For each question the first of `PARTS` that holds of it and the questions of `train`."""
    verbatim, twins = set(map(normalise_question, train)), {}
    for question in train:
        twins.setdefault(masked(question), len(twins))
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for text, number in twins.items():
        for gram in _grams(text):
            holders[gram].append(number)

    def part(question: str) -> str:
        if normalise_question(question) in verbatim:
            return "verbatim"
        if (text := masked(question)) in twins:
            return "twin"
        grams = _grams(text)
        shared = Counter(number for gram in grams for number in holders.get(gram, ()))
        return "near" if 2 * max(shared.values(), default=0) >= len(grams) else "new"

    return list(map(part, questions))


def accuracy_by_overlap(predictions: Sequence[Row], train: Sequence[str]) -> list[Row]:
    """For each method and part its questions, with n, strict accuracy and the 95 % Wilson interval."""
    questions = list(dict.fromkeys(row["question"] for row in predictions))
    part_of = dict(zip(questions, overlaps(questions, train), strict=True))
    outcomes: dict[tuple[str, str], list[bool]] = {
        (method, part): [] for method in dict.fromkeys(row["method"] for row in predictions) for part in PARTS
    }
    for row in predictions:
        outcomes[row["method"], part_of[row["question"]]].append(row["correct"])
    return [
        {"method": method, "part": part, "n": len(right), "accuracy": sum(right) / len(right)}
        | {"accuracy_ci95": wilson_interval(sum(right), len(right))}
        for (method, part), right in outcomes.items()
        if right
    ]


def _grams(text: str) -> set[tuple[str, ...]]:
    """The runs of four words and signs of a masked text, its names all alike; a shorter text is one run."""
    words = re.findall(r"\w+|[^\w\s]", re.sub(r"\bN\d+\b", "N", text).lower())
    return {tuple(words[i : i + _WORDS]) for i in range(max(1, len(words) - _WORDS + 1))}
