"""
How long `generate` takes with its shortcuts and without, on one machine: ratios, what each phase takes, and the floor.

    python -m benchmarks.latency [--batch_sizes 1 4 16] [--questions 48] [--output results/latency.json]

Both ways answer the same batches in alternation, in one process; a ratio is the median over the batches. The *floor* of
a phase is what the machine must take for it: the operations of its matrix products at the rate of a large one, or its
weights, read once, at the rate at which memory is read, whichever is longer. Without a set of problems at hand
(`--data multiarith`), own stories are asked.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers.cache_utils import DynamicCache
from transformers.utils import logging

from modeling_semcot import CACHE
from semcot.data import load_problems
from semcot.evaluation import describe_machine, load_model
from semcot.files import write_json
from semcot.machine import peak_memory
from semcot.tokenization import render_prompt, tokenize_prompts

MAX_NEW_TOKENS = 16


class Bench:
    def __init__(self, options: argparse.Namespace) -> None:
        self.model, self.tokenizer = load_model(options.model, options.device, options.dtype)
        self.device = self.model.device
        problems = load_problems(options.data, "eval", num_samples=options.questions, seed=options.seed)
        self.prompts = [render_prompt(self.tokenizer, problem["question"]) for problem in problems]
        self.bandwidth, self.operations = self.rates()

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def median(self, call: Callable[[], object], times: int = 9) -> float:
        """Seconds that a call takes, after one that is not counted."""
        call()
        moments = [self.now()] + [(call(), self.now())[1] for _ in range(times)]
        return statistics.median(end - start for start, end in itertools.pairwise(moments))

    def rates(self) -> tuple[float, float]:
        """Bytes per second that a sum reads, and operations per second of a large matrix product."""
        dtype = self.model.language_model.dtype
        numbers = torch.ones(2**28 // dtype.itemsize, device=self.device, dtype=dtype)
        matrix = torch.randn(2048, 2048, device=self.device).to(dtype)
        return 2**28 / self.median(numbers.sum), 2 * 2048**3 / self.median(lambda: matrix @ matrix)

    def batches(self, size: int):
        for start in range(0, len(self.prompts) - size + 1, size):
            yield tokenize_prompts(self.tokenizer, self.prompts[start : start + size]).to(self.device)

    def compare(self, size: int) -> dict:
        """Seconds of both ways, their ratio, and in how many rows the answers differ."""
        seconds, differ, steps = {True: [], False: []}, 0, []
        for number, batch in enumerate(self.batches(size)):
            found = {}
            for shortcuts in (True, False) if number % 2 else (False, True):  # neither is always the first
                started = self.now()
                found[shortcuts] = self.model.generate(
                    **batch, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, shortcuts=shortcuts
                )
                seconds[shortcuts].append(self.now() - started)
            fast, plain = found.values()
            steps.append(found[False].shape[1] - batch.input_ids.shape[1] - 1)
            differ += size if fast.shape != plain.shape else int((fast != plain).any(1).sum())
        # The first ones warm up, and have the prefix found.
        fast, plain = (seconds[way][2:] for way in (True, False))
        return {
            "batch_size": size,
            "ratio": statistics.median(a / b for a, b in zip(fast, plain, strict=True)),
            "fast_s": statistics.median(fast),
            "plain_s": statistics.median(plain),
            "fast_samples_per_s": size / statistics.mean(fast),
            "plain_samples_per_s": size / statistics.mean(plain),
            "batches": len(fast),
            "rows_with_other_answers": differ,
            "steps": statistics.mean(steps),
        }

    @torch.no_grad()
    def phases(self, size: int, steps: float) -> dict:
        """
        Seconds of each part of the plain way, with so many steps of decoding, its floor, and how much of what an answer
        takes beyond the floor is the part's; seconds of what the shortcuts add, which have none.
        """
        model, base = self.model, self.model.language_model
        batch = next(self.batches(size))
        embeds, tokens = model.embed_prompt(**batch), batch.input_ids.numel()
        thoughts, cache = model.think(**batch), DynamicCache(config=base.config)
        base(inputs_embeds=embeds, attention_mask=batch.attention_mask, **{CACHE: cache})
        mask = torch.nn.functional.pad(batch.attention_mask, (0, 1), value=1)

        def step() -> None:
            base(input_ids=batch.input_ids[:, :1], attention_mask=mask, **{CACHE: cache})
            for layer in cache.layers:
                layer.keys, layer.values = layer.keys[:, :, :-1], layer.values[:, :, :-1]

        def prefill() -> None:
            base(inputs_embeds=embeds, attention_mask=batch.attention_mask, logits_to_keep=1, use_cache=True)

        calls = {
            "think": (lambda: model.think(**batch), model.generator, tokens),
            "prefill": (prefill, base.base_model, tokens),
            "step": (step, base, size),
            "draft": (lambda: model.draft_answers(thoughts), None, 0),
            "prefix": (lambda: model.shared_prefix(batch.input_ids, batch.attention_mask), None, 0),
        }
        found, gaps, tied = {}, {}, base.config.tie_word_embeddings
        for name, (call, stack, count) in calls.items():
            found[name] = {"s": self.median(call)}
            if stack is not None:
                weights = [
                    w for key, w in stack.named_parameters() if "embed_tokens" not in key or (name == "step" and tied)
                ]
                work = 2 * count * sum(weight.numel() for weight in weights) / self.operations
                floor = max(work, sum(weight.nbytes for weight in weights) / self.bandwidth)
                found[name] |= {"floor_s": floor, "times_the_floor": found[name]["s"] / floor}
                gaps[name] = (found[name]["s"] - floor) * (steps if name == "step" else 1)
        for name, gap in gaps.items():
            found[name]["share_of_the_gap"] = gap / sum(gaps.values())
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=".")
    parser.add_argument("--data", default="synthetic_arithmetic")
    parser.add_argument("--questions", type=int, default=48)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.questions < 3 * max(options.batch_sizes):
        parser.error(f"--questions {options.questions} are no three batches of {max(options.batch_sizes)}")
    logging.set_verbosity_error()
    bench, rows = Bench(options), []
    for size in options.batch_sizes:
        row = bench.compare(size)
        row["phases"] = bench.phases(size, row["steps"])
        rows.append(row)
        print(
            f"batch {size}: {row['ratio']:.2f} times the plain way's time ({row['fast_s']:.3f} s, {row['plain_s']:.3f} "
            f"s), {row['fast_samples_per_s'] / row['plain_samples_per_s']:.2f} times its answers per second; "
            f"{row['rows_with_other_answers']} other answers"
        )
        for name, phase in row["phases"].items():
            floor = ""
            if "floor_s" in phase:
                floor = f", {phase['times_the_floor']:.1f} × its floor, {phase['share_of_the_gap']:.0%} of the gap"
            print(f"    {name:8}{phase['s'] * 1000:8.1f} ms{floor}")
    record = {
        "run": {"command": " ".join(["python", "-m", "benchmarks.latency", *sys.argv[1:]])},
        "eval": rows,
        "meta": describe_machine(bench.model)
        | {"gigabytes_per_s": bench.bandwidth / 1e9, "gflop_per_s": bench.operations / 1e9}
        | {"data": options.data, "seed": options.seed, "peak_memory_mb": peak_memory(bench.device) / 2**20},
    }
    if options.output:
        write_json(options.output, record)
    else:
        print(json.dumps(record["meta"], indent=2))


if __name__ == "__main__":
    main()
