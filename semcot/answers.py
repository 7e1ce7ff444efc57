"""
The answer that an output gives: a number, the word yes or no, or one of the letters A to E.

Three ways of judging are built on it: strict, which credits one answer at the place where it must stand; flexible,
which credits the last one in the text; and lenient, which credits the gold answer wherever it occurs (what the
released research code does; see `contains_answer`).
"""

import re
from decimal import Decimal

_NUMBER = r"""
    (?:(?<![\w)])[-−–])? \$?                    # a sign, not the minus between operands
    (?<![^\W_])                                 # not the 3 of "mp3"
    (?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\.)\.\d+)
    (?:[/:^]\d+)*                               # 3/4, 3:30 and 2^3 are one number each
"""
_PATTERNS = {
    "number": re.compile(_NUMBER, re.VERBOSE),
    "word": re.compile(r"\b(?:yes|no)\b", re.IGNORECASE),
    # Not the article of "A good guess", but the answer in "A is right".
    "letter": re.compile(r"\b[B-E]\b|\bA\b(?!\s+(?!is\b|because\b)[a-z])"),
}
_CUE = re.compile(r"answer is:?|answer\**\s*:\**|####|\\boxed\{", re.IGNORECASE)
# The bracket of a remark, not that of "(12 + 8) * 2 = 40", which stands first or behind an operator.
_REMARK = r"(?:(?<=\*\*)|(?<=[^\s(\\=+*/×÷−-])(?<! x))\s+\("
_CLAUSE_END = re.compile(rf"\n|[.;]\s|{_REMARK}|\}}|\bbecause\b|\bsince\b")


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


def find_answers(text: str, kind: str) -> list[str]:
    """All answers of this kind in the order of the text, normalised: "$1,234.0" is "1234", "Yes" is "yes"."""
    found = _PATTERNS[kind].findall(text)
    return [_normalize_number(token) for token in found] if kind == "number" else [_cased(token) for token in found]


def normalize_answer(gold: str) -> str:
    """A gold answer in the form in which `find_answers` returns it. Raises `ValueError` as `answer_kind` does."""
    return find_answers(_bare(gold), answer_kind(gold))[0]


def parse_answer(text: str, kind: str, explicit_reasoning: bool = False) -> str | None:
    """
    The one answer that an output gives, normalised, or `None`: the first one after the answer cue, or, where an
    equation stands there, its result ("12 + 8 = 20" says 20). The same for every method.

    Args:
        text: what the model wrote after a prompt that ended with the answer cue.
        kind: "number", "word" or "letter", see `answer_kind`.
        explicit_reasoning: the text is a written chain of thought, whose last cue ("the answer is", "Answer:", "####",
            "\\boxed{") it is that counts. Where no answer follows one, the last in the text does, which is generous.
    """
    conclusion = _CUE.split(text)[-1] if explicit_reasoning else text
    conclusion = conclusion.strip()
    result = _CLAUSE_END.split(conclusion, maxsplit=1)[0].rpartition("=")[2]
    answers = find_answers(result, kind) or find_answers(conclusion, kind)
    if explicit_reasoning and not (answers and _CUE.search(text)):
        answers = find_answers(text, kind)[-1:]
    return answers[0] if answers else None


def last_answer(text: str, kind: str) -> str | None:
    """The flexible reading, lm-evaluation-harness's name for it: the last answer in a text, normalised, or `None`."""
    answers = find_answers(text, kind)
    return answers[-1] if answers else None


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
    """A gold answer without brackets, full stop, currency or percent sign around it; a letter as a capital."""
    bare = gold.strip().strip("()%$€£ ").rstrip(".()% ")
    return bare.upper() if len(bare) == 1 else bare


def _cased(token: str) -> str:
    return token if len(token) == 1 else token.lower()


def _normalize_number(token: str) -> str:
    token = token.replace(",", "").replace("$", "").replace("−", "-").replace("–", "-")
    return token if re.search("[/:^]", token) else format(Decimal(token).normalize() + 0, "f")
