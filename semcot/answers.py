"""
Reads the answer out of a model's output: a number, the word yes or no, or one of the letters A to E.

Two ways of judging are built on it: strict, which credits one answer at the place where it must stand, and lenient,
which credits the gold answer wherever it occurs (what the released research code does; see `contains_answer`).
"""

import math
import re
from decimal import Decimal

# ±5, √4, <5, 3/4, 5 1/2, 5½, 3:30, 2^3, 4² and 3.14.15 are one number each, equal to no other; 5 million is 5000000.
_NUMBER = r"""
    (?:(?:[±√≤≥]|(?<!<)<(?![^<>\n]*>))[ ]?)?  # not the brackets of "<5>" and "<<2+3=5>>"
    (?:                                 # a sign, no minus between operands
        (?:\A[ ]*|(?<=[=:(])[ ]*|(?<=\b(?:is|be|of|to)[ ])|(?<=\b(?:was|get)[ ])|(?<=\bequals[ ]))
        (?:[-−–][ ]?|[Mm]inus[ ])
        |(?:\b[Nn]egative|(?<=\*)[Mm]inus)[ ]
        |(?<![^\W_])(?<!\))[-−–]
    )?
    [$€£]?
    (?<![^\W_])                         # not the 3 of "mp3"
    (?:(?:\d{1,3}(?:[,'’_\u00a0\u202f]\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\.)\.\d+)
    (?:
        [eE][-+]?\d+|[/:√]\d+|[ ]\d+/\d+|[ ]?[¼-¾⅐-⅞]|(?:\.\d+)+|[⁰¹²³⁴-⁹]+|(?:\^|\*\*)[({]?-?\d+
        |[kK]\b|(?:[ -]*(?i:hundred|thousand|(?:m|b|tr)illion)\b)+
    )?
    | [¼-¾⅐-⅞]
"""
_PLAIN_NUMBER = re.compile(r"(-?(?:\d+(?:\.\d+)?|\.\d+)(?:e[-+]?\d{1,3})?)([ a-z-]*)", re.IGNORECASE)
_SCALES = {
    "k": 10**3,
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
# Not the "no" of "no change", nor the article "A", but the answers in "no the coin is not" and "A is right".
_NO_NOUN = (
    r"(?![^\S\n]+(?!(?:it|the|is|are|was|were|would|not|as|and|or|but|because|since|so|after|we|they|this|that"
    r"|(?:way|correct)(?![^\S\n]+[a-z]))\b)[a-z])"
)
_PATTERNS = {
    "number": re.compile(_NUMBER, re.VERBOSE | re.ASCII),
    "word": re.compile(rf"\b(?:(?i:yes)|(?i:no)\b(?:(?= still\b)|{_NO_NOUN}))\b"),
    "letter": re.compile(
        rf"(?<!\b[A-Za-z]\.)(?:\bA\b(?!['’]){_NO_NOUN}|\b[B-E]\b|(?<=[(*])[a-e](?=[)*])"
        r"|\A\s*[a-e](?=[.,):]|\s*\Z|[ ](?:is|was|would)\b))(?![+#]|\.[a-z]\b|\.[A-Z]\.)"  # no "e.g.", "D.C.", "C++"
    ),
}
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_SLASH = re.compile(r"(?<=\d) *[/⁄] *(?=\d)")
_CUE = re.compile(r"answer is:?|answer\**\s*:\**|####|(\\boxed\{)", re.IGNORECASE)
_LIST_NUMBER = re.compile(r"\A\s*\n\s*\d+[.)]\s+")
_CONCLUSION_END = re.compile(r"\n|[.;]\s|\(|\bbecause\b|\bsince\b")
_EQUALS = re.compile(r"(?<![<>!=])==?(?![=>])")
_NEXT_QUESTION = re.compile(r"\n\W*Question\b")


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
            is", "Answer:", "####", "\\boxed{") counts, or the one after the last "=" of that sentence, since an
            equation ends with its result. A further question that the model made up after its answer is not read.
            Where none follows a cue, the last one in the text counts, which is generous.
    """
    if kind == "number":  # "2 / 3" is not 2
        text = _SLASH.sub("/", _LATEX_FRACTION.sub(r"\1/\2", text))
    if not explicit_reasoning:
        return next(iter(find_answers(text, kind)), None)
    if (question := _NEXT_QUESTION.search(text)) and _CUE.search(text[: question.start()]):
        text = text[: question.start()]
    cues, after_cue = list(_CUE.finditer(text)), []
    if cues:
        in_box, conclusion = cues[-1][1], text[cues[-1].end() :]
        conclusion = _LIST_NUMBER.sub("", conclusion).strip()
        sentence = conclusion.partition("}")[0] if in_box else _CONCLUSION_END.split(conclusion, maxsplit=1)[0]
        result = _EQUALS.split(sentence)[-1].strip()
        after_cue = find_answers(result, kind) or find_answers(conclusion, kind)
    return after_cue[0] if after_cue else next(reversed(find_answers(text, kind)), None)


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
    return gold.strip().strip("()% ").rstrip(".()% ")


def _normalize_number(token: str) -> str:
    token = re.sub(r"[,'’_\u00a0\u202f$€£]", "", token.strip())
    token = re.sub(r"\A(?:[−–-]|minus|negative) ?", "-", token, flags=re.IGNORECASE)
    plain = _PLAIN_NUMBER.fullmatch(token)
    if not plain:
        return token
    scale = math.prod(_SCALES[name] for name in re.findall("[a-z]+", plain[2].lower()))
    return format((Decimal(plain[1]) * scale).normalize() + 0, "f")
