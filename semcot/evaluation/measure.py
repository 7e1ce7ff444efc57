"""Measures how good and how fast a method answers: accuracy, tokens, latency, throughput, memory."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from scipy.stats import binomtest
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from semcot.answers import answer_kind, normalize_answer, parse_answer
from semcot.evaluation.methods import Method, Output, SemCoT
from semcot.machine import device_name, peak_memory, versions
from semcot.tokenization import THOUGHT_TOKEN

_METRICS = Path(__file__).parent / "metrics"
_WARM_UP_TOKENS = 4


def check_questions(method: Method, questions: Sequence[str], max_new_tokens: int, source: str) -> None:
    """Raises `ValueError`, with its number in `source`, for a question that the method cannot ask the model."""
    config = method.model.config
    limit, generator_limit = (
        getattr(part, "max_position_embeddings", None) for part in (config.text_config, config.generator_config)
    )
    prompts = method.tokenizer(method.prompts(questions), add_special_tokens=False).input_ids
    for number, (question, prompt) in enumerate(zip(questions, prompts, strict=True), 1):
        if THOUGHT_TOKEN in question:
            raise ValueError(f"{source}, problem {number}: the question holds {THOUGHT_TOKEN}, which marks a place.")
        if limit and len(prompt) + max_new_tokens > limit:
            raise ValueError(
                f"{source}, problem {number}: its prompt for {method.name} has {len(prompt)} tokens, its answer up to "
                f"{max_new_tokens}, and the base reads {limit} in all. Leave it out, or ask for shorter answers."
            )
        if generator_limit and isinstance(method, SemCoT) and len(prompt) > generator_limit:
            raise ValueError(
                f"{source}, problem {number}: its prompt for {method.name} has {len(prompt)} tokens, and the generator "
                f"reads {generator_limit}. Leave it out."
            )


def evaluate_method(
    method: Method,
    problems: Dataset | Sequence[dict[str, str]],
    *,
    batch_size: int = 16,
    max_new_tokens: int | None = None,
    latency_samples: int = 10,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """
    Runs a method over problems, in batches for its answers and throughput and singly for its latency.

    Both are measured after a warm-up, synchronised with the device, with tokenisation and generator included.

    Args:
        method: see `semcot.evaluation.methods`.
        problems: with `question` and `answer`, such as `semcot.data.load_problems` returns.
        batch_size: questions in a batch.
        max_new_tokens: of one answer; the method's own by default.
        latency_samples: how many of the first questions to time at batch size 1; 0 leaves latency out.

    Returns:
        The figures, shares between 0 and 1, latencies in seconds, memory in MiB (on CUDA the method's peak, elsewhere
        the process's so far); and for each problem a record with method, question, gold, output, parsed, correct and
        new_tokens.

    Raises:
        ValueError: a gold answer is neither a number, nor yes or no, nor a letter from A to E.
    """
    questions = [problem["question"] for problem in problems]
    golds = [problem["answer"] for problem in problems]
    for gold in golds:
        answer_kind(gold)
    device = method.model.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    starts = range(0, len(questions), batch_size)
    method.answer(questions[-batch_size:], _WARM_UP_TOKENS)  # the last: before the first one stands the last one
    outputs, started = [], _now(device)
    for start in tqdm(starts, desc=f"{method.name}: answers", unit="batch"):
        outputs += method.answer(questions[start : start + batch_size], max_new_tokens)
    elapsed = _now(device) - started
    latencies = measure_latencies(method, questions[:latency_samples], max_new_tokens)

    shares, predictions = _judge(method, questions, golds, outputs)
    p50, p95 = np.percentile(latencies, [50, 95]).tolist() if latencies else (None, None)
    figures = {
        "method": method.name,
        "n": len(predictions),
        **shares,
        "new_tokens_mean": float(np.mean([output.num_tokens for output in outputs])),
        "max_new_tokens": max_new_tokens or method.max_new_tokens,
        "latency_p50_s": p50,
        "latency_p95_s": p95,
        "latency_n": len(latencies),
        "samples_per_s": len(outputs) / elapsed,
        "batch_size": batch_size,
        "peak_memory_mb": peak_memory(device) / 2**20,
    }
    return figures, predictions


def _judge(
    method: Method, questions: Sequence[str], golds: Sequence[str], outputs: Sequence[Output]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Accuracies, as the metrics of this room give them, and a record for each problem."""
    import evaluate  # slow to import, and needed here alone

    strict, lenient = (
        evaluate.load(str(_METRICS / name), keep_in_memory=True) for name in ("strict_accuracy", "lenient_accuracy")
    )
    texts, explicit = [output.text for output in outputs], method.explicit_reasoning
    scores = strict.compute(predictions=texts, references=golds, explicit_reasoning=explicit)
    scores |= lenient.compute(predictions=texts, references=golds)
    predictions = []
    for question, gold, output in zip(questions, golds, outputs, strict=True):
        parsed = parse_answer(output.text, answer_kind(gold), explicit)
        prediction = {"method": method.name, "question": question, "gold": gold, "output": output.text}
        prediction |= {"parsed": parsed, "correct": parsed == normalize_answer(gold), "new_tokens": output.num_tokens}
        predictions.append(prediction)
    num_correct = sum(prediction["correct"] for prediction in predictions)
    return scores | {"accuracy_ci95": wilson_interval(num_correct, len(golds))}, predictions


def wilson_interval(num_correct: int, num: int) -> list[float]:
    """The 95 % Wilson interval of a share: its lower and its upper end."""
    interval = binomtest(num_correct, num).proportion_ci(0.95, method="wilson")
    return [float(interval.low), float(interval.high)]


def measure_latencies(method: Method, questions: Sequence[str], max_new_tokens: int | None = None) -> list[float]:
    """Seconds from question to answer text at batch size 1, one for each question, after a warm-up."""
    if questions:
        method.answer(questions[:1], _WARM_UP_TOKENS)
    seconds = []
    for question in tqdm(questions, desc=f"{method.name}: latency", unit="question"):
        started = _now(method.model.device)
        method.answer([question], max_new_tokens)
        seconds.append(_now(method.model.device) - started)
    return seconds


def with_speedups(summaries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The summaries with `speedup_vs_cot`: how many times faster (median latency) than cot, `None` if not known."""
    reference = next((summary["latency_p50_s"] for summary in summaries if summary["method"] == "cot"), None)
    return [
        {**summary, "speedup_vs_cot": reference / summary["latency_p50_s"] if reference else None}
        for summary in summaries
    ]


def describe_machine(model: PreTrainedModel) -> dict[str, Any]:
    """Device, dtype, threads and versions: what figures depend on besides checkpoint and data."""
    return {
        "device": device_name(model.device),
        "dtype": str(model.language_model.dtype).removeprefix("torch."),
        "cpu_threads": torch.get_num_threads(),
        "versions": versions("torch", "transformers", "tokenizers", "datasets", "evaluate"),
    }


def _now(device: torch.device) -> float:
    """Seconds, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
