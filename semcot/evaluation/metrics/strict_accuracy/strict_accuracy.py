"""Strict accuracy, the headline figure: the one answer that an output gives must equal the gold answer."""

import datasets
import evaluate

# A link to semcot/answers.py: evaluate copies a metric out of its package, with such siblings only.
from .answers import answer_kind, normalize_answer, parse_answer

_DESCRIPTION = """
The share of outputs whose answer equals the gold answer: the first number (word yes or no, letter A to E) after the
answer cue, or the result of an equation that stands there. Thousands separators, a dollar sign, trailing periods and a
trailing .0 make no difference.
"""
_INPUTS = """
Args:
    predictions (list of str): what the model wrote after the prompt.
    references (list of str): gold answers; each says by its form what kind of answer is looked for.
    explicit_reasoning (bool): the predictions are written chains of thought, with the answer after their last cue
        or, without one, at their end. By default the prompt ended with the cue.
Returns:
    accuracy (float): between 0 and 1.
    unparsed_rate (float): the share of outputs in which no answer was found; they count as wrong.
"""


class StrictAccuracy(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(
        self, predictions: list[str], references: list[str], explicit_reasoning: bool = False
    ) -> dict[str, float]:
        parsed = [
            parse_answer(text, answer_kind(gold), explicit_reasoning)
            for text, gold in zip(predictions, references, strict=True)
        ]
        correct = [answer == normalize_answer(gold) for answer, gold in zip(parsed, references, strict=True)]
        return {"accuracy": sum(correct) / len(correct), "unparsed_rate": parsed.count(None) / len(parsed)}
