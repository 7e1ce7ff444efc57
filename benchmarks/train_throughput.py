"""
How fast stage 2 trains: a plain loop (one problem at a time, the whole sequence in the graph, logits everywhere, the
reasoning embedded whenever it is read) and this project's trainer at several batch sizes, in one process, from the same
weights, on the same problems, with the same loss.

    python benchmarks/train_throughput.py [--device cuda --dtype bfloat16] [--output results/train_throughput.json]

The loss of each way on the same problems is compared with the plain loop's before it is timed; if one differs, that is
an error. Beside the speeds stand the
operations that a problem costs, and the share of the chip's matrix peak that they run at: of what a large matrix
product in the same dtype reaches there and then. A ratio of speeds is the product of the two.

Each batch size is timed in several ways: as training goes here by default; with `--cache_questions`, where the base
does not read the questions again; on a GPU also with `--question_apart`; where asked for, with `--torch_compile`. What
is computed once for each problem, before all passes over them, is timed by itself; `ratio_over_passes` has all of it.
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
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainingArguments
from transformers.utils import logging

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from modeling_semcot import SemCoTForCausalLM  # noqa: E402
from semcot.data import load_problems  # noqa: E402
from semcot.distillation import DistillationCollator, DistillationTrainer, tokenize_problems  # noqa: E402
from semcot.machine import device_name, without_cudnn_attention  # noqa: E402
from semcot.options import TrainOptions  # noqa: E402
from semcot.question_cache import QuestionCache  # noqa: E402
from semcot.reasoning_encoder import build_reasoning_encoder, encode_texts, encode_thoughts  # noqa: E402
from semcot.training import (  # noqa: E402
    LENGTH_MULTIPLE,
    build_model,
    compile_layers,
    header_length,
    reads_questions_apart,
)

LEARNING_RATE = 3e-4
LARGEST_DIFFERENCE = 1e-4
PASSES = (1, 3, 5, 10)
COMPARED, WARM_UP = 32, 4
"""Problems whose losses are compared, or one batch; batches before the clock runs."""


def plain_losses(
    model: SemCoTForCausalLM, encoder: SentenceTransformer | None, row: dict, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The mean cross-entropy of one answer and how far the thoughts are from meaning the reasoning, without any shortcut.
    """
    prompt, answer = row["prompt_ids"], row["answer_ids"]
    input_ids = torch.tensor([prompt + answer], device=device)
    labels = torch.tensor([[-100] * len(prompt) + answer], device=device)
    outputs = model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), labels=labels)
    if encoder is None:
        return outputs.loss, torch.zeros(())
    meaning, wanted = encode_thoughts(encoder, outputs.thoughts), encode_texts(encoder, [row["reasoning"]])
    return outputs.loss, (1 - torch.nn.functional.cosine_similarity(meaning, wanted.to(meaning))).mean()


def plain_loop(
    model: SemCoTForCausalLM,
    encoder: SentenceTransformer | None,
    alpha: float,
    rows: list[dict],
    device: torch.device,
    autocast: torch.autocast,
) -> float:
    """Trains on the rows one by one; returns problems per second."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE)
    model.train()
    started = now(device)
    for row in rows:
        with autocast:
            answer_loss, alignment_loss = plain_losses(model, encoder, row, device)
        ((1 - alpha) * answer_loss + alpha * alignment_loss).backward()
        optimizer.step()
        optimizer.zero_grad()
    return len(rows) / (now(device) - started)


def make_trainer(
    model: SemCoTForCausalLM,
    encoder: SentenceTransformer | None,
    rows: Dataset,
    collator: DistillationCollator,
    batch_size: int,
    options: argparse.Namespace,
    folder: str,
) -> DistillationTrainer:
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
    return DistillationTrainer(
        model,
        arguments,
        train_dataset=rows,
        data_collator=collator,
        reasoning_encoder=encoder,
        alpha=options.alpha,
    )


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
    # Attention by plain products: of the fused kinds the counter does not know all.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
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
    parser.add_argument("--alpha", type=float, default=0.5, help="weight of the semantic loss; 0 for none")
    parser.add_argument("--data", default="synthetic_arithmetic")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 4, 8, 16, 32])
    parser.add_argument("--plain_samples", type=int, default=48)
    parser.add_argument("--samples", type=int, default=256, help="of each of our runs, rounded to whole batches")
    parser.add_argument("--steps", type=int, help="of each of our runs at most")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="bfloat16 on a GPU, else float32")
    parser.add_argument("--torch_compile", action="store_true", help="time compiled layers as well, last")
    parser.add_argument("--attn_implementation", help="by default that which training takes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    options.dtype = options.dtype or ("float32" if options.device == "cpu" else "bfloat16")
    logging.set_verbosity_error()
    without_cudnn_attention()  # as in training
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
    encoder, embeddings, once = None, None, {}
    if options.alpha > 0:
        encoder = build_reasoning_encoder(model.language_model, tokenizer).requires_grad_(False).eval()
        started = now(device)
        with autocast:
            embeddings = encode_texts(encoder, list(problems["reasoning"])).float().cpu()
        once["reasonings embedded"] = (now(device) - started) / len(problems)
    rows = tokenize_problems(problems, tokenizer, options.num_thoughts)
    if embeddings is not None:
        rows = rows.add_column("reasoning_embedding", list(embeddings.numpy()))
    length = header_length(model, tokenizer)
    multiple = LENGTH_MULTIPLE if device.type == "cuda" else 1
    collator = DistillationCollator(tokenizer.pad_token_id, length, multiple=multiple)
    trained = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}

    figures = {
        "command": " ".join(["python", *sys.argv]),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "dtype": options.dtype,
        "attention": model.language_model.config._attn_implementation,
        "seed": options.seed,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "alpha": options.alpha,
        "mean_tokens": sum(rows["length"]) / len(rows),
        "losses": {},
        "samples_per_s": {},
        "ratio": {},
        "ratio_over_passes": {},
        "gflop_per_sample": {},
        "share_of_matrix_peak": {},
    }
    first = rows.select(range(max(options.batch_sizes)))
    by_length = sorted(rows, key=lambda row: row["length"])
    peak = matrix_peak(device, getattr(torch, options.dtype))

    def record(name: str, rate: float, operations_per_sample: float) -> None:
        figures["samples_per_s"][name] = rate
        figures["ratio"][name] = rate / figures["samples_per_s"]["plain"]
        figures["gflop_per_sample"][name] = operations_per_sample / 1e9
        figures["share_of_matrix_peak"][name] = operations_per_sample * rate / peak
        print(f"{name}: {rate:.2f} problems/s, {figures['ratio'][name]:.2f}×", flush=True)

    model.train()
    with torch.no_grad(), autocast:
        num_tokens = torch.tensor([len(row["answer_ids"]) for row in first], dtype=torch.float)
        losses = torch.tensor([plain_losses(model, encoder, row, device) for row in first])

    def plain_means(count: int) -> dict[str, float]:
        """Over the answer tokens and over the rows of the first problems."""
        answer_loss = losses[:count, 0] @ num_tokens[:count] / num_tokens[:count].sum()
        means = {"answer_loss": answer_loss.item(), "alignment_loss": losses[:count, 1].mean().item()}
        return means if encoder is not None else {"answer_loss": means["answer_loss"]}

    figures["losses"]["plain"] = plain_means(len(first))
    plain_rows = list(rows.select(range(options.plain_samples)))
    plain_loop(model, encoder, options.alpha, plain_rows[:2], device, autocast)  # warm-up
    rate = plain_loop(model, encoder, options.alpha, plain_rows, device, autocast)
    middle = by_length[len(by_length) // 2]
    record("plain", rate, operations(lambda: sum(plain_losses(model, encoder, middle, device)), autocast))

    with tempfile.TemporaryDirectory() as folder:
        started = now(device)
        question_cache = QuestionCache(
            model, rows, length, Path(folder) / "questions.bin", autocast=options.dtype == "bfloat16"
        )
        once["questions kept"] = (now(device) - started) / len(rows)
        default = replace(recipe, torch_compile=False)
        ways = {
            "": default,
            ", questions cached": replace(default, cache_questions=True),
            ", question apart": replace(default, question_apart=True),
            ", compiled": replace(default, torch_compile=True),
        }
        if device.type == "cpu":
            del ways[", question apart"]  # the default there
        if not options.torch_compile:
            del ways[", compiled"]
        for way, chosen in ways.items():
            collate = replace(collator, question_cache=question_cache if chosen.cache_questions else None)
            counts = {}
            for batch_size in options.batch_sizes:
                model.question_apart = reads_questions_apart(replace(chosen, batch_size=batch_size), model)
                trainer = make_trainer(model, encoder, rows, collate, batch_size, options, folder)
                middle = by_length[(len(by_length) - batch_size) // 2 :][:batch_size]
                batch = trainer._prepare_inputs(collate(middle))
                counts[batch_size] = operations(lambda t=trainer, b=batch: t.compute_loss(model, b), autocast)
            if chosen.torch_compile:
                compile_layers(chosen, model, encoder)
            for batch_size in options.batch_sizes:
                name = f"batch {batch_size}{way}"
                model.question_apart = reads_questions_apart(replace(chosen, batch_size=batch_size), model)
                with torch.no_grad():
                    for key, weight in trained.items():
                        model.get_parameter(key).copy_(weight)
                trainer = make_trainer(model, encoder, rows, collate, batch_size, options, folder)
                compared = max(COMPARED, batch_size) // batch_size * batch_size
                compared = min(compared, len(first) // batch_size * batch_size)
                for start in range(0, compared, batch_size):
                    batch = trainer._prepare_inputs(collate([first[i] for i in range(start, start + batch_size)]))
                    with autocast:
                        trainer.compute_loss(model, batch)
                logs = {"loss": 0.0}
                trainer.log(logs)
                figures["losses"][name] = {}
                allowed = LARGEST_DIFFERENCE if options.dtype == "float32" else 0.02
                for term, loss in plain_means(compared).items():
                    figures["losses"][name][term] = logs[term]
                    if abs(logs[term] - loss) > allowed:
                        raise RuntimeError(f"In {name} the {term} is {logs[term]}, in the plain loop {loss}.")

                some = rows.select(range(min(len(rows), WARM_UP * batch_size)))
                make_trainer(model, encoder, some, collate, batch_size, options, folder).train()
                steps = min(len(rows) // batch_size, options.steps or len(rows))
                whole = rows.select(range(steps * batch_size))
                trainer = make_trainer(model, encoder, whole, collate, batch_size, options, folder)
                started = now(device)
                trainer.train()
                record(name, len(whole) / (now(device) - started), counts[batch_size] / batch_size)
    figures["seconds_once_per_problem"] = once
    plain = 1 / figures["samples_per_s"]["plain"]
    for size in options.batch_sizes:
        each, kept = (1 / figures["samples_per_s"][f"batch {size}{way}"] for way in ("", ", questions cached"))
        embedded = once.get("reasonings embedded", 0.0)
        figures["ratio_over_passes"][f"batch {size}"] = {
            passes: passes * plain / (embedded + min(passes * each, once["questions kept"] + passes * kept))
            for passes in PASSES
        }
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
