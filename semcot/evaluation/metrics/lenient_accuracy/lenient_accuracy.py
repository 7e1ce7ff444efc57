"""Lenient accuracy, the metric of the released research code, for comparison with its figures only."""

import datasets
import evaluate

# A link to semcot/answers.py: evaluate copies a metric out of its package, with such siblings only.
from .answers import contains_answer

_DESCRIPTION = """
The share of outputs that contain the gold answer anywhere. It overstates: the constant output "yes no" scores 1.0 on
coin flips, and English sentences score on questions with lettered choices. Report it beside strict accuracy only.
"""
_INPUTS = """
Args:
    predictions (list of str): what the model wrote after the prompt.
    references (list of str): gold answers; each says by its form what kind of answer is looked for.
Returns:
    accuracy_lenient (float): between 0 and 1.
"""


class LenientAccuracy(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        credited = [contains_answer(text, gold) for text, gold in zip(predictions, references, strict=True)]
        return {"accuracy_lenient": sum(credited) / len(credited)}
