"""Answers judged, one by one and in sum, the same way for every method."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from semcot.answers import answer_kind, contains_answer, last_answer, normalize_answer, parse_answer
from semcot.evaluation.methods import Output
from semcot.evaluation.statistics import mcnemar, mean_with_interval, wilson_interval

Row = dict[str, Any]


def judge(output: Output, gold: str, explicit_reasoning: bool = False) -> Row:
    """
    What is kept of an answer: output, parsed, correct (strict), correct_flexible, correct_lenient, new_tokens, cut_off.

    Raises:
        ValueError: the gold answer is neither a number, nor yes or no, nor a letter from A to E.
    """
    kind, wanted = answer_kind(gold), normalize_answer(gold)
    parsed = parse_answer(output.text, kind, explicit_reasoning)
    return {
        "output": output.text,
        "parsed": parsed,
        "correct": parsed == wanted,
        "correct_flexible": last_answer(output.text, kind) == wanted,
        "correct_lenient": contains_answer(output.text, gold),
        "new_tokens": output.num_tokens,
        "cut_off": output.cut_off,
    }


def summarise(predictions: Sequence[Row]) -> Row:
    """The shares and the mean length of judged answers, and the 95 % Wilson interval of strict accuracy."""

    def share(of: Iterable[bool]) -> float:
        return sum(of) / len(predictions)

    return {
        "n": len(predictions),
        "accuracy": share(row["correct"] for row in predictions),
        "accuracy_ci95": wilson_interval(sum(row["correct"] for row in predictions), len(predictions)),
        "accuracy_flexible": share(row["correct_flexible"] for row in predictions),
        "accuracy_lenient": share(row["correct_lenient"] for row in predictions),
        "unparsed_rate": share(row["parsed"] is None for row in predictions),
        "cut_off_rate": share(row["cut_off"] for row in predictions),
        "new_tokens_mean": float(np.mean([row["new_tokens"] for row in predictions])),
    }


def with_comparisons(rows: Sequence[Row], predictions: Sequence[Row], against: str) -> list[Row]:
    """
    The rows with `speedup_vs_cot`, how many times faster than cot (median latency at batch size 1), and `mcnemar`, the
    exact test of strict outcomes against the method named by `against` on the same questions; `None` if not known.
    """
    outcomes: dict[tuple[str, int], list[bool]] = {}
    for prediction in predictions:
        outcomes.setdefault((prediction["method"], prediction["seed"]), []).append(prediction["correct"])
    cot = next((row["latency_p50_s"] for row in rows if row["method"] == "cot" and row["latency_p50_s"]), None)
    compared = []
    for row in rows:
        own, other = (outcomes.get((method, row["seed"])) for method in (row["method"], against))
        is_known = own and other and row["method"] != against and len(own) == len(other)
        test = {"against": against, **mcnemar(own, other)._asdict()} if is_known else None
        speedup = cot / row["latency_p50_s"] if cot and row["latency_p50_s"] else None
        compared.append({**row, "speedup_vs_cot": speedup, "mcnemar": test})
    return compared


def over_seeds(rows: Sequence[Row]) -> list[Row]:
    """Each method's mean accuracies over its seeds; of the strict one the 95 % interval (Student's t) too."""
    means = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        kinds = ("accuracy", "accuracy_flexible", "accuracy_lenient")
        found = {kind: mean_with_interval([row[kind] for row in own]) for kind in kinds}
        mean, half = found["accuracy"]
        interval = None if half is None else [max(0.0, mean - half), min(1.0, mean + half)]
        shares = {kind: value.mean for kind, value in found.items()}
        means.append({"method": method, "seeds": len(own), **shares, "accuracy_ci95": interval})
    return means
