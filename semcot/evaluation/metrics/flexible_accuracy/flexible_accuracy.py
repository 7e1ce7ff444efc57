"""Flexible accuracy: the last answer in the output, for comparison with lm-evaluation-harness's flexible-extract."""

import datasets
import evaluate

# A link to semcot/answers.py: evaluate copies a metric out of its package, with such siblings only.
from .answers import answer_kind, last_answer, normalize_answer

_DESCRIPTION = """
The share of outputs whose last number (word yes or no, letter A to E) equals the gold answer, wherever it stands.
"""
_INPUTS = """
Args:
    predictions (list of str): what the model wrote after the prompt.
    references (list of str): gold answers; each says by its form what kind of answer is looked for.
Returns:
    accuracy_flexible (float): between 0 and 1.
"""


class FlexibleAccuracy(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        right = [
            last_answer(text, answer_kind(gold)) == normalize_answer(gold)
            for text, gold in zip(predictions, references, strict=True)
        ]
        return {"accuracy_flexible": sum(right) / len(right)}
