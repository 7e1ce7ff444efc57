"""
How fast stage 2 trains: a plain loop (one problem at a time, the whole sequence in the graph, logits everywhere, the
reasoning embedded whenever it is read) and this project's trainer at several batch sizes, in one process, from the same
weights, on the same problems, with the same loss.

    python benchmarks/train_throughput.py [--device cuda --dtype bfloat16] [--output results/train_throughput.json]

Before a way is timed, its losses on the same problems are compared with the plain loop's, in float32; where one differs
by more than 1e-4, that is an error. A CPU that is shared changes its speed within minutes, by a quarter at times: there
the plain loop and the matrix product are timed again after each way, and a ratio of speeds is that to the plain loop's
mean time before and after. Beside the speeds stand the operations that a problem costs, and the share of the chip's
matrix peak that they run at: of what a large matrix product in the same dtype reaches there and then.

Each batch size is timed in several ways: as training goes here by default; with `--cache_questions`, where the base
does not read the questions again; on a GPU also with `--prefill_question`; where asked for, with `--torch_compile`.
What is computed once for each problem, before all passes over them, is timed by itself; `ratio_over_passes` has all.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainingArguments
from transformers.utils import logging

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from modeling_semcot import SemCoTForCausalLM, cast_weights  # noqa: E402
from semcot.data import load_problems  # noqa: E402
from semcot.distillation import DistillationCollator, DistillationTrainer, tokenize_problems  # noqa: E402
from semcot.distillation.question_cache import QuestionCache  # noqa: E402
from semcot.encoder import build_reasoning_encoder, encode_texts, encode_thoughts  # noqa: E402
from semcot.files import write_json  # noqa: E402
from semcot.machine import device_name, versions, without_cudnn_attention  # noqa: E402
from semcot.training.options import TrainOptions  # noqa: E402
from semcot.training.run import (  # noqa: E402
    PAD_TO_MULTIPLE_OF,
    build_model,
    compile_layers,
    header_length,
    prefills_question,
)

LEARNING_RATE = 3e-4
LARGEST_DIFFERENCE = 1e-4
PASSES = (1, 3, 5, 10)
COMPARED, WARM_UP, PLAIN_AGAIN = 32, 4, 12
"""Problems whose losses are compared, or one batch; batches before the clock runs; problems of a further plain loop."""


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


def ratios_over_passes(each: float, cached: float, embedded: float, kept: float) -> dict[int, float]:
    """
    How much faster than the plain loop a run of so many passes is, in the quicker of two ways. `each` and `cached` are
    what a problem takes in a pass of either, `embedded` what both pay for it once, `kept` what the second pays besides,
    all in times of a problem of the plain loop.
    """
    return {passes: passes / (embedded + min(passes * each, kept + passes * cached)) for passes in PASSES}


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
    if options.samples < max(*options.batch_sizes, options.plain_samples):
        parser.error(f"--samples {options.samples} are fewer than a batch or than the --plain_samples")
    options.dtype = options.dtype or ("float32" if options.device == "cpu" else "bfloat16")
    logging.set_verbosity_error()
    without_cudnn_attention()  # as in training
    device = torch.device(options.device)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.dtype == "bfloat16")

    base_dtype = options.dtype if device.type == "cuda" else "float32"
    problems = load_problems(options.data, "train", num_samples=options.samples, seed=options.seed)
    recipe = TrainOptions(
        output_dir="",
        base_model=options.base_model,
        generator_layers=options.generator_layers,
        num_thoughts=options.num_thoughts,
        dtype=base_dtype,
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
    by_length = sorted(rows, key=lambda row: row["length"])
    compared = rows.select(range(min(len(rows), max(COMPARED, *options.batch_sizes)))).to_list()
    length = header_length(model, tokenizer, rows)
    multiple = PAD_TO_MULTIPLE_OF if device.type == "cuda" else 1
    collator = DistillationCollator(tokenizer.pad_token_id, length, pad_to_multiple_of=multiple)
    ways = {"": recipe, ", questions cached": replace(recipe, cache_questions=True)}
    if device.type == "cuda":
        ways[", question prefilled"] = replace(recipe, prefill_question=True)
    if options.torch_compile:
        ways[", compiled"] = replace(recipe, torch_compile=True)
    trained = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
    figures = {
        "command": " ".join(["python", *sys.argv]),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "dtype": options.dtype,
        "attention": model.language_model.config._attn_implementation,
        "seed": options.seed,
        "versions": versions("torch", "transformers"),
        "alpha": options.alpha,
        "mean_tokens": sum(rows["length"]) / len(rows),
        "largest_difference_of_losses": {},
        "samples_per_s": {},
        "plain_samples_per_s": [],
        "ratio": {},
        "ratio_over_passes": {},
        "gflop_per_sample": {},
        "share_of_matrix_peak": {},
        "peak_gpu_gb": {},
        "failed": {},
    }

    def reset() -> None:
        """To the weights that all begin with."""
        vars(model).pop("forward", None)  # the autocast that an earlier trainer left around the class's own
        with torch.no_grad():
            for name, weight in trained.items():
                model.get_parameter(name).copy_(weight)

    peaks: list[float] = []

    def trainer_of(way: TrainOptions, batch_size: int, cache: QuestionCache, some: Dataset) -> DistillationTrainer:
        """Set to train in this way, from the weights that all begin with."""
        reset()
        model.prefill_question = prefills_question(replace(way, batch_size=batch_size), model)
        collate = replace(collator, question_cache=cache if way.cache_questions else None)
        return make_trainer(model.train(), encoder, some, collate, batch_size, options, folder)

    def loss_of(trainer: DistillationTrainer, batch: list[dict]) -> torch.Tensor:
        return trainer.compute_loss(model, trainer._prepare_inputs(trainer.data_collator(batch)))

    def plain_means() -> list[dict[str, float]]:
        """The plain loop's losses of the first rows, for each number of rows up to all that are compared."""
        num_tokens = torch.tensor([len(row["answer_ids"]) for row in compared])
        with torch.no_grad():
            losses = torch.tensor([plain_losses(model, encoder, row, device) for row in compared])
        counts = torch.stack([num_tokens, torch.ones_like(num_tokens)], 1)
        terms = ["answer_loss", "alignment_loss"] if encoder is not None else ["answer_loss"]
        means = (losses * counts).cumsum(0) / counts.cumsum(0)
        return [dict(zip(terms, mean, strict=False)) for mean in means.tolist()]

    def compare(name: str, trainer: DistillationTrainer) -> None:
        """The losses of the first rows with those of the plain loop."""
        size = trainer.args.per_device_train_batch_size
        count = min(max(COMPARED, size), len(compared)) // size * size
        for start in range(0, count, size):
            loss_of(trainer, compared[start : start + size])
        sums = {term: torch.stack(trainer._terms[""][term]).sum(0).tolist() for term in plain[count - 1]}
        losses = {term: total / number for term, (total, number) in sums.items()}
        worst = max(abs(losses[term] - loss) for term, loss in plain[count - 1].items())
        figures["largest_difference_of_losses"][name] = worst
        if worst > LARGEST_DIFFERENCE:
            raise RuntimeError(f"In {name} the losses are {losses}, in the plain loop {plain[count - 1]}.")

    def save() -> None:
        if options.output:
            write_json(options.output, figures)

    def restart_peak_memory() -> None:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def record(name: str, rate: float, operations_per_sample: float) -> None:
        """Beside the last two of the plain loop's speeds, before and after it."""
        before, after = figures["plain_samples_per_s"][-2:]
        figures["samples_per_s"][name] = rate
        figures["ratio"][name] = rate * (1 / before + 1 / after) / 2
        figures["gflop_per_sample"][name] = operations_per_sample / 1e9
        figures["share_of_matrix_peak"][name] = operations_per_sample * rate / mean(peaks[-2:])
        if device.type == "cuda":
            figures["peak_gpu_gb"][name] = torch.cuda.max_memory_allocated() / 1e9
        save()
        print(f"{name}: {rate:.2f} problems/s, {figures['ratio'][name]:.2f}×", flush=True)

    def time_plain_loop(again: bool = False) -> float:
        """Its speed and the matrix product's, beside the others; on a GPU, which keeps its own, once for all."""
        if again and device.type != "cpu":
            return figures["plain_samples_per_s"][-1]
        reset()
        some = plain_rows[:PLAIN_AGAIN] if again else plain_rows
        peaks.append(matrix_peak(device, getattr(torch, options.dtype)))
        restart_peak_memory()
        rate = plain_loop(model, encoder, options.alpha, some, device, autocast)
        figures["plain_samples_per_s"].append(rate)
        return rate

    def time_way(way: str, chosen: TrainOptions, cache: QuestionCache) -> None:
        """Compares the losses of each batch size and times it."""
        counts = {}
        for size in options.batch_sizes:
            trainer = trainer_of(chosen, size, cache, rows)
            batch = by_length[(len(by_length) - size) // 2 :][:size]
            counts[size] = operations(lambda t=trainer, b=batch: loss_of(t, b), autocast)
        if chosen.torch_compile:
            compile_layers(chosen, model, encoder)
        cast_weights(model.language_model, torch.float32)
        for size in options.batch_sizes:
            compare(f"batch {size}{way}", trainer_of(chosen, size, compared_cache, rows))
        cast_weights(model.language_model, getattr(torch, base_dtype))
        for size in options.batch_sizes:
            some = rows.select(range(min(len(rows), WARM_UP * size)))
            trainer_of(chosen, size, cache, some).train()
            steps = min(len(rows) // size, options.steps or len(rows))
            trainer = trainer_of(chosen, size, cache, rows.select(range(steps * size)))
            restart_peak_memory()
            seconds = trainer.train().metrics["train_runtime"]  # without the trainer's start; synchronised at its end
            if not chosen.torch_compile:  # its layers stay compiled, in the plain loop too
                time_plain_loop(again=True)
            record(f"batch {size}{way}", steps * size / seconds, counts[size] / size)

    with tempfile.TemporaryDirectory() as folder:
        # Losses are compared in float32, where all ways are the same but for rounding.
        cast_weights(model.language_model, torch.float32)
        if encoder is not None:
            meanings = encode_texts(encoder, [row["reasoning"] for row in compared])
            for row, meaning in zip(compared, meanings, strict=True):
                row["reasoning_embedding"] = meaning.float().cpu()
        plain = plain_means()
        compared_cache = QuestionCache(model, rows.select(range(len(compared))), length, Path(folder) / "compared.bin")
        cast_weights(model.language_model, getattr(torch, base_dtype))

        plain_rows = list(rows.select(range(options.plain_samples)))
        plain_loop(model, encoder, options.alpha, plain_rows[:2], device, autocast)  # warm-up
        rate = time_plain_loop()
        figures["plain_samples_per_s"].append(rate)
        middle = by_length[len(by_length) // 2]
        record("plain", rate, operations(lambda: sum(plain_losses(model, encoder, middle, device)), autocast))

        started = now(device)
        cache = QuestionCache(model, rows, length, Path(folder) / "questions.bin", options.dtype == "bfloat16")
        once["questions kept"] = (now(device) - started) / len(rows)
        for way, chosen in ways.items():
            try:
                time_way(way, chosen, cache)
            except Exception as error:  # the other ways are timed all the same
                traceback.print_exc()
                figures["failed"][way] = repr(error)
                cast_weights(model.language_model, getattr(torch, base_dtype))
    figures["seconds_once_per_problem"] = once
    plain_rate = figures["samples_per_s"]["plain"]
    both = {f"batch {size}{way}" for size in options.batch_sizes for way in ("", ", questions cached")}
    for size in options.batch_sizes if both <= figures["samples_per_s"].keys() else []:
        each, cached = (1 / figures["ratio"][f"batch {size}{way}"] for way in ("", ", questions cached"))
        embedded, kept = (once.get(name, 0.0) * plain_rate for name in ("reasonings embedded", "questions kept"))
        figures["ratio_over_passes"][f"batch {size}"] = ratios_over_passes(each, cached, embedded, kept)
    figures["peak_rss_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    figures["cpu_count"] = os.cpu_count()
    print(json.dumps(figures, indent=2))
    save()
    sys.exit(bool(figures["failed"]))


if __name__ == "__main__":
    main()
