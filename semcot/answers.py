"""
Reads the answer out of a model's output: a number, the word yes or no, or one of the letters A to E.

Two ways of judging are built on it: strict, which credits one answer at the place where it must stand, and lenient,
which credits the gold answer wherever it occurs (what the released research code does; see `contains_answer`).
"""

import re
from collections.abc import Iterable
from decimal import Decimal

_NUMBER = r"""
    (?:\A[ ]*[-−][ ]?|(?<![^\W_])(?<!\))[-−])?  # a sign, and no minus between operands
    [$€£]?
    (?<![^\W_])                         # not the 3 of "mp3"
    (?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\.)\.\d+)
    (?:[eE][-+]?\d+|[/:]\d+|[ ]\d+/\d+)?  # 3/4, 5 1/2 and 3:30 are one number each, equal to no other
"""
# Not the "no" of "no change", nor the article "A", but the answers in "no the coin is not" and "A is right".
_NO_NOUN = r"(?![^\S\n]+(?!(?:it|the|is|are|not|as|and|or|but|because|since|so)\b)[a-z])"
_PATTERNS = {
    "number": re.compile(_NUMBER, re.VERBOSE | re.ASCII),
    "word": re.compile(rf"\b(?:[Yy]es|YES|(?:[Nn]o|NO)\b{_NO_NOUN})\b"),
    "letter": re.compile(rf"\bA\b(?!['’]){_NO_NOUN}|\b[B-E]\b|(?<=\()[a-e](?=\))|\A\s*[a-e](?=[.):]|\s*\Z)"),
}
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_CUE = re.compile(r"answer is|answer\**\s*:|####|\\boxed\{", re.IGNORECASE)


def answer_kind(gold: str) -> str:
    """
    The kind of a gold answer: "number", "word" (yes or no) or "letter" (A to E).

    Raises:
        ValueError: it is none of these, so that no output could be judged.
    """
    for kind, pattern in _PATTERNS.items():
        if pattern.fullmatch(_bare(gold)):
            return kind
    raise ValueError(f"The gold answer {gold!r} is neither a number, nor yes or no, nor a letter from A to E.")


def check_answers(golds: Iterable[str], source: str) -> None:
    """Raises `ValueError`, with the place, for the first gold answer in `source` that no output could be judged by."""
    for number, gold in enumerate(golds, 1):
        try:
            answer_kind(gold)
        except ValueError as error:
            raise ValueError(f"{source}, problem {number}: {error}") from error


def find_answers(text: str, kind: str) -> list[str]:
    """All answers of this kind in the order of the text, normalised: "$1,234.0" is "1234", "Yes" is "yes"."""
    if kind == "number":
        text = _LATEX_FRACTION.sub(r"\1/\2", text)
    normalize = {"number": _normalize_number, "word": str.lower, "letter": lambda token: token.strip().upper()}[kind]
    return [normalize(token) for token in _PATTERNS[kind].findall(text)]


def normalize_answer(gold: str) -> str:
    """A gold answer in the form in which `find_answers` returns it. Raises `ValueError` as `answer_kind` does."""
    return find_answers(_bare(gold), answer_kind(gold))[0]


def parse_answer(text: str, kind: str, explicit_reasoning: bool = False) -> str | None:
    """
    The one answer that an output gives, normalised, or `None`.

    Args:
        text: what the model wrote after a prompt that ended with the answer cue: its first answer counts.
        kind: "number", "word" or "letter", see `answer_kind`.
        explicit_reasoning: the text is a written chain of thought. The first answer after its last cue ("the answer
            is", "Answer:", "####", "\\boxed{") counts, or the one after that line's last "=", since an equation ends
            with its result. Where none follows a cue, the last one in the text counts, which is generous.
    """
    answers = find_answers(text, kind)
    if not explicit_reasoning:
        return answers[0] if answers else None
    cues = list(_CUE.finditer(text))
    after_cue = []
    if cues:
        conclusion = text[cues[-1].end() :].strip()
        equation = conclusion.partition("\n")[0].rpartition("=")[2]
        after_cue = find_answers(equation, kind) or find_answers(conclusion, kind)
    return after_cue[0] if after_cue else answers[-1] if answers else None


def contains_answer(text: str, gold: str) -> bool:
    """
    The lenient judgement: any of the output's numbers equals the gold one; the gold word, or the letter in either
    case, occurs anywhere, even inside another word. So "yes no" answers every coin flip, and nearly any English
    sentence every question with choices.
    """
    kind = answer_kind(gold)
    if kind == "number":
        return normalize_answer(gold) in find_answers(text, kind)
    return normalize_answer(gold).lower() in text.lower()


def _bare(gold: str) -> str:
    """A gold answer without brackets, full stop or percent sign around it."""
    return gold.strip().strip("().% ")


def _normalize_number(token: str) -> str:
    token = re.sub(r"[,$€£]", "", token.strip()).replace("−", "-").replace("- ", "-")
    return token if re.search("[/:]", token) else format(Decimal(token).normalize() + 0, "f")
