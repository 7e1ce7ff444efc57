"""Measures how good and how fast a method answers: accuracy, tokens, latency, throughput, memory."""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from semcot.answers import answer_kind
from semcot.evaluation.judging import Row, judge, summarise
from semcot.evaluation.methods import Method, SemCoT
from semcot.machine import device_name, peak_memory, versions
from semcot.tokenization import THOUGHT_TOKEN

_WARM_UP_TOKENS = 4


def check_questions(method: Method, questions: Sequence[str], max_new_tokens: int, source: str = "") -> None:
    """Raises `ValueError`, with its number in a `source`, for a question that the method cannot ask the model."""
    generator = method.model.config.generator_config if isinstance(method, SemCoT) else None
    limit, generator_limit = (
        getattr(config, "max_position_embeddings", None) for config in (method.base.config, generator)
    )
    prompts = method.prompt_ids(questions)
    for number, (question, prompt) in enumerate(zip(questions, prompts, strict=True), 1):
        where = f"{source}, problem {number}: " if source else ""
        if THOUGHT_TOKEN in question:
            raise ValueError(f"{where}the question holds {THOUGHT_TOKEN}, which marks a place.")
        if limit and len(prompt) + max_new_tokens > limit:
            raise ValueError(
                f"{where}its prompt for {method.name} has {len(prompt)} tokens, its answer up to "
                f"{max_new_tokens}, and the base reads {limit} in all. Leave it out, or ask for shorter answers."
            )
        if generator_limit and len(prompt) > generator_limit:
            raise ValueError(
                f"{where}its prompt for {method.name} has {len(prompt)} tokens, and the generator "
                f"reads {generator_limit}. Leave it out."
            )


def evaluate_method(
    method: Method,
    problems: Dataset | Sequence[dict[str, str]],
    *,
    batch_size: int = 16,
    max_new_tokens: int | None = None,
    latency_samples: int = 10,
    batch_sizes: Sequence[int] = (),
    seed: int = 0,
    answered: Sequence[Row] = (),
    keep: Callable[[list[Row]], None] = lambda rows: None,
) -> tuple[Row, list[Row]]:
    """
    Runs a method over problems, in batches for its answers and throughput and singly for its latency.

    Both are measured after a warm-up, synchronised with the device, with tokenisation and generator included.

    Args:
        method: see `semcot.evaluation.methods`.
        problems: with `question` and `answer`, such as `semcot.data.load_problems` returns.
        batch_size: questions in a batch.
        max_new_tokens: of one answer; the method's own by default.
        latency_samples: how many of the first questions to time at batch size 1; 0 leaves latency out.
        batch_sizes: the sizes of a sweep: how many questions are answered per second in such batches.
        seed: the problems' and, where the method samples, that of its draws, which are the same for the same batch.
        answered: predictions of an earlier call for the first problems, whole batches of them, which are not asked
            again.
        keep: is given each batch's predictions as they come.

    Returns:
        The figures, shares between 0 and 1, latencies in seconds, memory in MiB (on CUDA the method's peak, elsewhere
        the process's so far); and for each problem a record with method, seed, question, gold, what `judge` finds, and
        the seconds that it took, its share of the batch's.

    Raises:
        ValueError: a gold answer is neither a number, nor yes or no, nor a letter from A to E.
    """
    questions = [problem["question"] for problem in problems]
    golds = [problem["answer"] for problem in problems]
    for gold in golds:
        answer_kind(gold)
    device = method.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    predictions = list(answered)
    starts = range(len(predictions), len(questions), batch_size)
    if starts:  # the batch before, for controls that take its thoughts: before the first question stands the last one
        method.answer(questions[max(0, starts[0] - batch_size) : starts[0]] or questions[-batch_size:], _WARM_UP_TOKENS)
    for start in tqdm(starts, desc=f"{method.name}: answers", unit="batch"):
        batch = slice(start, start + batch_size)
        torch.manual_seed(hash((seed, start)))
        started = _now(device)
        outputs = method.answer(questions[batch], max_new_tokens)
        seconds = (_now(device) - started) / len(outputs)
        rows = [
            {"method": method.name, "seed": seed, "question": question, "gold": gold}
            | judge(output, gold, method.explicit_reasoning)
            | {"seconds": seconds}
            for question, gold, output in zip(questions[batch], golds[batch], outputs, strict=True)
        ]
        keep(rows)
        predictions += rows
    latencies = measure_latencies(method, questions[:latency_samples], max_new_tokens)

    shares = summarise(predictions)
    p50, p95 = np.percentile(latencies, [50, 95]).tolist() if latencies else (None, None)
    figures = {
        "method": method.name,
        **shares,
        "max_new_tokens": max_new_tokens or method.max_new_tokens,
        "latency_p50_s": p50,
        "latency_p95_s": p95,
        "latency_n": len(latencies),
        "accuracy_per_s": shares["accuracy"] / p50 if p50 else None,
        "samples_per_s": len(predictions) / sum(row["seconds"] for row in predictions),
        "batch_size": batch_size,
        "batch_sweep": measure_throughput(method, questions, batch_sizes, max_new_tokens),
        "peak_memory_mb": peak_memory(device) / 2**20,
    }
    return figures, predictions


def measure_latencies(method: Method, questions: Sequence[str], max_new_tokens: int | None = None) -> list[float]:
    """Seconds from question to answer text at batch size 1, one for each question, after a warm-up."""
    if questions:
        method.answer(questions[:1], _WARM_UP_TOKENS)
    seconds = []
    for question in tqdm(questions, desc=f"{method.name}: latency", unit="question", disable=not questions):
        started = _now(method.device)
        method.answer([question], max_new_tokens)
        seconds.append(_now(method.device) - started)
    return seconds


def measure_throughput(
    method: Method, questions: Sequence[str], batch_sizes: Sequence[int], max_new_tokens: int | None = None
) -> list[Row]:
    """
    For each `batch_size` the `samples_per_s`, after a warm-up of that size. All sizes are given the same questions: as
    many as the largest batch has, from the first on and, where there are too few, around again.
    """
    asked = list(itertools.islice(itertools.cycle(questions), max(batch_sizes, default=0)))
    found = []
    for size in tqdm(batch_sizes, desc=f"{method.name}: batch sizes", disable=not batch_sizes):
        method.answer(asked[:size], _WARM_UP_TOKENS)
        started = _now(method.device)
        for start in range(0, len(asked), size):
            method.answer(asked[start : start + size], max_new_tokens)
        found.append({"batch_size": size, "samples_per_s": len(asked) / (_now(method.device) - started)})
    return found


def describe_machine(model: PreTrainedModel) -> dict[str, Any]:
    """Device, dtype, threads and versions: what figures depend on besides checkpoint and data."""
    return {
        "device": device_name(model.device),
        "dtype": str(model.language_model.dtype).removeprefix("torch."),
        "cpu_threads": torch.get_num_threads(),
        "versions": versions("torch", "transformers", "tokenizers", "datasets"),
    }


def _now(device: torch.device) -> float:
    """Seconds, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
