"""
How fast stage 2 trains: the batch-1 baseline (one problem at a time, the whole sequence in the graph, logits
everywhere, the reasoning embedded whenever it is read) and this project's trainer at several batch sizes, in one
process, from the same weights, on the same problems, with the same loss.

    python -m benchmarks.train_throughput [--device cuda --dtype bfloat16] [--output results/train_throughput.json]

Before a batch size is timed, its losses on the same problems are compared with the baseline's, in float32; where one
differs by more than 1e-4, that is an error. A CPU that is shared changes its speed within minutes: there the baseline
is timed again after each batch size, and a ratio of speeds is that to the mean of the times before and after. Beside
the speeds stand the operations that a problem costs and the share of the chip's matrix peak that they run at: of what a
large matrix product in the same dtype reaches there and then.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedTokenizerBase, TrainingArguments
from transformers.utils import logging

from building_semcot import cast_weights
from modeling_semcot import SemCoTForCausalLM
from semcot.data import load_problems
from semcot.distillation import (
    DistillationCollator,
    DistillationTrainer,
    Student,
    shared_prefix_length,
    tokenize_problems,
)
from semcot.encoder import build_reasoning_encoder, encode_texts, encode_thoughts
from semcot.files import write_json
from semcot.machine import device_name, peak_memory, versions, without_cudnn_attention
from semcot.training.build import build_model
from semcot.training.options import TrainOptions
from semcot.training.run import PAD_TO_MULTIPLE_OF

LEARNING_RATE = 3e-4
LARGEST_DIFFERENCE = 1e-4
COMPARED, WARM_UP, BASELINE_AGAIN = 32, 4, 12
"""Problems whose losses are compared; batches before the clock runs; problems of a further baseline."""


@dataclass
class Bench:
    """What both ways to train share."""

    model: SemCoTForCausalLM
    tokenizer: PreTrainedTokenizerBase
    encoder: SentenceTransformer | None
    rows: Dataset
    options: argparse.Namespace
    folder: str

    def __post_init__(self) -> None:
        self.device = torch.device(self.options.device)
        self.autocast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.options.dtype == "bfloat16")
        longest = max(self.rows["length"]) + PAD_TO_MULTIPLE_OF
        self.shared_prefix = shared_prefix_length(self.model, list(self.rows["prompt_ids"]), longest)
        self._start = {name: weight.detach().clone() for name, weight in self.model.named_parameters()}

    def reset(self) -> None:
        """To the weights that both begin with."""
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                if weight.requires_grad:
                    weight.copy_(self._start[name])

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def baseline_losses(self, row: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """The answer's mean cross-entropy and the thoughts' distance from the reasoning, without any shortcut."""
        prompt, answer = row["prompt_ids"], row["answer_ids"]
        input_ids = torch.tensor([prompt + answer], device=self.device)
        labels = torch.tensor([[-100] * len(prompt) + answer], device=self.device)
        outputs = self.model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), labels=labels)
        if self.encoder is None:
            return outputs.loss, torch.zeros(())
        meaning, wanted = (
            encode_thoughts(self.encoder, outputs.thoughts),
            encode_texts(self.encoder, [row["reasoning"]]),
        )
        return outputs.loss, (1 - torch.nn.functional.cosine_similarity(meaning, wanted.to(meaning))).mean()

    def baseline(self, rows: list[dict]) -> float:
        """Trains on the rows one by one; returns problems per second."""
        self.reset()
        optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=LEARNING_RATE)
        self.model.train()
        started = self.now()
        for row in rows:
            with self.autocast:
                answer_loss, alignment_loss = self.baseline_losses(row)
            ((1 - self.options.alpha) * answer_loss + self.options.alpha * alignment_loss).backward()
            optimizer.step()
            optimizer.zero_grad()
        return len(rows) / (self.now() - started)

    def trainer(self, batch_size: int, rows: Dataset) -> DistillationTrainer:
        """Set to train in batches, from the weights that both begin with."""
        self.reset()
        arguments = TrainingArguments(
            output_dir=self.folder,
            per_device_train_batch_size=batch_size,
            learning_rate=LEARNING_RATE,
            max_steps=len(rows) // batch_size,
            bf16=self.options.dtype == "bfloat16",
            use_cpu=self.device.type == "cpu",
            torch_compile=self.options.torch_compile,
            remove_unused_columns=False,
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            report_to="none",
        )
        multiple = PAD_TO_MULTIPLE_OF if self.device.type == "cuda" else 1
        alpha = self.options.alpha
        return DistillationTrainer(
            Student(self.model, self.shared_prefix).train(),
            arguments,
            train_dataset=rows,
            data_collator=DistillationCollator(self.tokenizer.pad_token_id, self.shared_prefix, multiple),
            losses={"answer": 1 - alpha} | ({"alignment": alpha} if alpha else {}),
            reasoning_encoder=self.encoder,
        )

    def compare(self, batch_size: int, rows: list[dict]) -> float:
        """The largest difference between the losses of the first rows in batches and one by one, in float32."""
        rows = rows[: len(rows) // batch_size * batch_size]
        dtype = self.model.language_model.dtype
        cast_weights(self.model.language_model, torch.float32)
        trainer = self.trainer(batch_size, self.rows)
        if self.encoder is not None:
            for row, meaning in zip(rows, encode_texts(self.encoder, [row["reasoning"] for row in rows]), strict=True):
                row["reasoning_embedding"] = meaning.float().cpu()
        for start in range(0, len(rows), batch_size):
            loss_of(trainer, rows[start : start + batch_size])
        found = {name: torch.stack(terms).sum(0).tolist() for name, terms in trainer._terms[""].items()}
        with torch.no_grad():
            losses = torch.tensor([self.baseline_losses(row) for row in rows])
        cast_weights(self.model.language_model, dtype)
        num_tokens = torch.tensor([len(row["answer_ids"]) for row in rows])
        expected = {"answer_loss": float((losses[:, 0] * num_tokens).sum() / num_tokens.sum())}
        if self.encoder is not None:
            expected["alignment_loss"] = float(losses[:, 1].mean())
        return max(abs(found[name][0] / found[name][1] - loss) for name, loss in expected.items())

    def operations(self, compute_loss: Callable[[], torch.Tensor]) -> int:
        """Operations of the matrix products in one forward and backward pass."""
        # Attention by plain products: of the fused kinds the counter does not know all.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            with self.autocast:
                loss = compute_loss()
            loss.backward()
        self.model.zero_grad()
        return counter.get_total_flops()

    def matrix_peak(self) -> float:
        """Operations per second of a large matrix product."""
        size = 8192 if self.device.type == "cuda" else 2048
        matrix = torch.randn(size, size, device=self.device, dtype=getattr(torch, self.options.dtype))
        for _ in range(3):
            matrix @ matrix
        started = self.now()
        for _ in range(20):
            matrix @ matrix
        return 20 * 2 * size**3 / (self.now() - started)


def loss_of(trainer: DistillationTrainer, batch: list[dict]) -> torch.Tensor:
    return trainer.compute_loss(trainer.model, trainer._prepare_inputs(trainer.data_collator(batch)))


def measure(bench: Bench, figures: dict) -> None:
    """Fills in the figures: the baseline, then each batch size beside it."""
    options, rows = bench.options, bench.rows
    by_length = sorted(rows, key=lambda row: row["length"])
    some = list(rows.select(range(options.baseline_samples)))
    bench.baseline(some[:2])  # warm-up
    rates, peaks = [bench.baseline(some)], [bench.matrix_peak()]

    def record(name: str, rate: float, operations: float) -> None:
        figures["samples_per_s"][name] = rate
        figures["ratio"][name] = rate * mean(1 / each for each in rates[-2:])
        figures["gflop_per_sample"][name] = operations / 1e9
        figures["share_of_matrix_peak"][name] = operations * rate / mean(peaks[-2:])
        print(f"{name}: {rate:.2f} problems/s, {figures['ratio'][name]:.2f}×", flush=True)
        if options.output:
            write_json(options.output, figures)

    middle = by_length[len(by_length) // 2]
    record("baseline", rates[0], bench.operations(lambda: sum(bench.baseline_losses(middle))))
    for size in options.batch_sizes:
        name = f"batch {size}"
        worst = bench.compare(size, rows.select(range(min(len(rows), max(COMPARED, size)))).to_list())
        figures["largest_difference_of_losses"][name] = worst
        if worst > LARGEST_DIFFERENCE:
            raise RuntimeError(f"In {name} a loss differs by {worst} from the baseline's.")
        trainer, batch = bench.trainer(size, rows), by_length[(len(rows) - size) // 2 :][:size]
        operations = bench.operations(lambda t=trainer, b=batch: loss_of(t, b)) / size
        bench.trainer(size, rows.select(range(min(len(rows), WARM_UP * size)))).train()
        steps = min(len(rows) // size, options.steps or len(rows))
        trainer = bench.trainer(size, rows.select(range(steps * size)))
        seconds = trainer.train().metrics["train_runtime"]  # without the trainer's start; synchronised at its end
        if bench.device.type == "cpu":  # a GPU keeps its speed
            rates.append(bench.baseline(some[:BASELINE_AGAIN]))
            peaks.append(bench.matrix_peak())
        record(name, steps * size / seconds, operations)
    figures["baseline_samples_per_s"] = rates


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base_model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--generator_layers", type=int, default=10)
    parser.add_argument("--num_thoughts", type=int, default=5)
    parser.add_argument("--alpha", type=float, default=0.5, help="weight of the alignment; 0 for none")
    parser.add_argument("--data", default="synthetic_arithmetic")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 4, 8, 16, 32])
    parser.add_argument("--baseline_samples", type=int, default=48)
    parser.add_argument("--samples", type=int, default=256, help="of each of our runs, rounded to whole batches")
    parser.add_argument("--steps", type=int, help="of each of our runs at most")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="bfloat16 on a GPU, else float32")
    parser.add_argument("--torch_compile", action="store_true", help="compile what is trained in batches")
    parser.add_argument("--attn_implementation", help="by default that which training takes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.samples < max(*options.batch_sizes, options.baseline_samples):
        parser.error(f"--samples {options.samples} are fewer than a batch or than the --baseline_samples")
    options.dtype = options.dtype or ("float32" if options.device == "cpu" else "bfloat16")
    return options


def main() -> None:
    options = parse_arguments()
    logging.set_verbosity_error()
    without_cudnn_attention()  # as in training
    problems = load_problems(options.data, "train", num_samples=options.samples, seed=options.seed)
    recipe = TrainOptions(
        output_dir="",
        base_model=options.base_model,
        generator=options.generator_layers,
        num_thoughts=options.num_thoughts,
        dtype=options.dtype if options.device == "cuda" else "float32",
        attn_implementation=options.attn_implementation,
        trainer={"bf16": options.dtype == "bfloat16"},
    )
    model, tokenizer = build_model(recipe)
    model.to(options.device)
    encoder, rows = None, tokenize_problems(problems, tokenizer, options.num_thoughts)
    if options.alpha > 0:
        encoder = build_reasoning_encoder(model.language_model, tokenizer).requires_grad_(False).eval()
        embeddings = encode_texts(encoder, list(problems["reasoning"])).float().cpu().numpy()
        rows = rows.add_column("reasoning_embedding", list(embeddings))
    figures = {
        "command": " ".join(["python", "-m", "benchmarks.train_throughput", *sys.argv[1:]]),
        "device": device_name(torch.device(options.device)),
        "threads": torch.get_num_threads(),
        "dtype": options.dtype,
        "attention": model.language_model.config._attn_implementation,
        "seed": options.seed,
        "versions": versions("torch", "transformers"),
        "alpha": options.alpha,
        "mean_tokens": mean(rows["length"]),
    }
    names = "largest_difference_of_losses", "samples_per_s", "ratio", "gflop_per_sample", "share_of_matrix_peak"
    figures |= {name: {} for name in names}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(model, tokenizer, encoder, rows, options, folder)
        figures["shared_prefix"] = bench.shared_prefix
        measure(bench, figures)
    figures["peak_memory_gb"] = round(peak_memory(torch.device(options.device)) / 1e9, 2)
    print(json.dumps(figures, indent=2))
    if options.output:
        write_json(options.output, figures)


if __name__ == "__main__":
    main()
