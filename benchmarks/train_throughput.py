"""
How fast stage 2 trains: a plain loop (one problem at a time, the whole sequence in the graph, logits everywhere) and
this project's trainer at several batch sizes, in one process, from the same weights, on the same problems.

    python benchmarks/train_throughput.py [--device cuda --dtype bfloat16] [--output results/train_throughput.json]

First the loss of both on the same problems is compared; nothing is timed if they differ. Beside the speeds stand the
operations that a problem costs, and the share of the chip's matrix peak that they run at: of what a large matrix
product in the same dtype reaches there and then. A ratio of speeds is the product of the two.

Each batch size is timed twice: as in a first pass over the problems, and as in every further one with
`--cache_questions`, where the base does not read the questions again.
"""

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainingArguments
from transformers.utils import logging

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from modeling_semcot import SemCoTForCausalLM  # noqa: E402
from semcot.data import load_problems  # noqa: E402
from semcot.distillation import DistillationCollator, DistillationTrainer, tokenize_problems  # noqa: E402
from semcot.machine import device_name  # noqa: E402
from semcot.options import TrainOptions  # noqa: E402
from semcot.question_cache import QuestionCache  # noqa: E402
from semcot.training import build_model, header_length  # noqa: E402

LEARNING_RATE = 3e-4
LARGEST_DIFFERENCE = 1e-4


def plain_loss(model: SemCoTForCausalLM, row: dict, device: torch.device) -> torch.Tensor:
    """The mean cross-entropy of one answer, without any shortcut."""
    prompt, answer = row["prompt_ids"], row["answer_ids"]
    input_ids = torch.tensor([prompt + answer], device=device)
    labels = torch.tensor([[-100] * len(prompt) + answer], device=device)
    return model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), labels=labels).loss


def plain_loop(model: SemCoTForCausalLM, rows: list[dict], device: torch.device, autocast: torch.autocast) -> float:
    """Trains on the rows one by one; returns problems per second."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE)
    model.train()
    started = now(device)
    for row in rows:
        with autocast:
            loss = plain_loss(model, row, device)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return len(rows) / (now(device) - started)


def make_trainer(model: SemCoTForCausalLM, rows, collator, batch_size: int, options: argparse.Namespace, folder: str):
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=batch_size,
        learning_rate=LEARNING_RATE,
        max_steps=len(rows) // batch_size,
        bf16=options.dtype == "bfloat16",
        use_cpu=options.device == "cpu",
        remove_unused_columns=False,
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        report_to="none",
    )
    return DistillationTrainer(model, arguments, train_dataset=rows, data_collator=collator, alpha=0.0)


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product."""
    size = 8192 if device.type == "cuda" else 2048
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    for _ in range(3):
        matrix @ matrix
    started = now(device)
    for _ in range(20):
        matrix @ matrix
    return 20 * 2 * size**3 / (now(device) - started)


def operations(compute_loss: Callable[[], torch.Tensor], autocast: torch.autocast) -> int:
    """Operations of the matrix products in one forward and backward pass."""
    with FlopCounterMode(display=False) as counter:
        with autocast:
            loss = compute_loss()
        loss.backward()
    return counter.get_total_flops()


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base_model", default=TrainOptions.base_model)
    parser.add_argument("--generator_layers", type=int, default=10)
    parser.add_argument("--num_thoughts", type=int, default=5)
    parser.add_argument("--data", default="synthetic_arithmetic")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 4, 8, 16, 32])
    parser.add_argument("--plain_samples", type=int, default=48)
    parser.add_argument("--samples", type=int, default=256, help="of each of our runs, rounded to whole batches")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="bfloat16 on a GPU, else float32")
    parser.add_argument("--attn_implementation", help="by default that which training takes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    options.dtype = options.dtype or ("float32" if options.device == "cpu" else "bfloat16")
    logging.set_verbosity_error()
    device = torch.device(options.device)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.dtype == "bfloat16")

    problems = load_problems(options.data, "train", num_samples=options.samples, seed=options.seed)
    recipe = TrainOptions(
        output_dir="",
        base_model=options.base_model,
        generator_layers=options.generator_layers,
        num_thoughts=options.num_thoughts,
        dtype=options.dtype if device.type == "cuda" else "float32",
        bf16=options.dtype == "bfloat16",
        attn_implementation=options.attn_implementation,
    )
    model, tokenizer = build_model(recipe)
    model.to(device)
    rows = tokenize_problems(problems, tokenizer, options.num_thoughts)
    length = header_length(model, tokenizer)
    collator = DistillationCollator(tokenizer.pad_token_id, length)
    trained = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}

    figures = {
        "command": " ".join(["python", *sys.argv]),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "dtype": options.dtype,
        "attention": model.language_model.config._attn_implementation,
        "seed": options.seed,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "mean_tokens": sum(rows["length"]) / len(rows),
        "losses": {},
        "samples_per_s": {},
        "ratio": {},
        "gflop_per_sample": {},
        "share_of_matrix_peak": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        # The same loss on the same problems, whichever way it is computed: a mean over all answer tokens.
        first = rows.select(range(max(options.batch_sizes)))
        model.train()
        with torch.no_grad(), autocast:
            counts = torch.tensor([len(row["answer_ids"]) for row in first], dtype=torch.float)
            losses = torch.tensor([plain_loss(model, row, device).item() for row in first])
        figures["losses"]["plain"] = ((losses * counts).sum() / counts.sum()).item()
        started = now(device)
        question_cache = QuestionCache(
            model, rows, length, Path(folder) / "questions.bin", autocast=options.dtype == "bfloat16"
        )
        figures["cached_questions_per_s"] = len(rows) / (now(device) - started)
        collators = {"": collator, ", questions cached": replace(collator, question_cache=question_cache)}
        runs = [(f"batch {size}{name}", size, collators[name]) for name in collators for size in options.batch_sizes]
        for name, batch_size, collate in runs:
            trainer = make_trainer(model, rows, collate, batch_size, options, folder)
            total = 0.0
            for start in range(0, len(first), batch_size):
                batch = trainer._prepare_inputs(collate([first[i] for i in range(start, start + batch_size)]))
                with autocast:
                    total += trainer.compute_loss(model, batch).item() * counts[start : start + batch_size].sum().item()
            loss = figures["losses"][name] = total / counts.sum().item()
            allowed = LARGEST_DIFFERENCE if options.dtype == "float32" else 0.02
            if abs(loss - figures["losses"]["plain"]) > allowed:
                raise RuntimeError(f"In {name} the loss is another: {figures['losses']}")

        peak = matrix_peak(device, getattr(torch, options.dtype))

        def record(name: str, rate: float, operations_per_sample: float) -> None:
            figures["samples_per_s"][name] = rate
            figures["ratio"][name] = rate / figures["samples_per_s"]["plain"]
            figures["gflop_per_sample"][name] = operations_per_sample / 1e9
            figures["share_of_matrix_peak"][name] = operations_per_sample * rate / peak

        by_length = sorted(rows, key=lambda row: row["length"])
        plain_rows = list(rows.select(range(options.plain_samples)))
        plain_loop(model, plain_rows[:2], device, autocast)  # warm-up
        rate = plain_loop(model, plain_rows, device, autocast)
        middle = by_length[len(by_length) // 2]
        record("plain", rate, operations(lambda: plain_loss(model, middle, device), autocast))
        for name, batch_size, collate in runs:
            with torch.no_grad():
                for key, weight in trained.items():
                    model.get_parameter(key).copy_(weight)
            some = rows.select(range(2 * batch_size))
            make_trainer(model, some, collate, batch_size, options, folder).train()  # warm-up
            whole = rows.select(range(len(rows) // batch_size * batch_size))
            trainer = make_trainer(model, whole, collate, batch_size, options, folder)
            started = now(device)
            trainer.train()
            rate = len(whole) / (now(device) - started)
            middle = by_length[(len(by_length) - batch_size) // 2 :][:batch_size]
            batch = trainer._prepare_inputs(collate(middle))
            counted = operations(lambda t=trainer, b=batch: t.compute_loss(model, b), autocast)
            record(name, rate, counted / batch_size)
            print(f"{name}: {rate:.2f} problems/s, {figures['ratio'][name]:.2f}×", flush=True)
    if device.type == "cuda":
        figures["peak_gpu_gb"] = torch.cuda.max_memory_allocated() / 1e9
    figures["peak_rss_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    figures["cpu_count"] = os.cpu_count()
    text = json.dumps(figures, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
