"""
How long an answer takes on one machine, by every way to it: ratios first, then what each phase takes, and the floor.

    python -m benchmarks.latency [--batch_sizes 1 4 16] [--questions 48] [--slow 3] [--output results/latency.json]

| way | what it is |
|---|---|
| fast | `generate` as it is |
| plain | without its shortcuts, see generation_semcot.py |
| released_style | as research code does it: no cache, prompt and answer read anew for each token |
| direct | the base answers without thoughts |
| cot | the base writes its reasoning, up to 256 tokens |
| openvino, openvino_bfloat16 | with `--openvino`: `generate` as it is, run by OpenVINO, in each dtype |

and those of `--methods`, such as `cot_condensed_finetuned=FOLDER`. All answer the same batches in turn, in one process;
a ratio is the median over the batches of a way's time over that of `plain`. The slow ones, `released_style` and those
that write a reasoning, answer the first `--slow` batches alone. The *floor* of a phase is what the machine must take
for it: the operations of its matrix products at the rate of a large one, or its weights, read once, at the rate at
which memory is read, whichever is longer. Without a set of problems at hand (`--data multiarith`), own
stories are asked.
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

from modeling_semcot import CACHE, position_ids_of
from semcot.data import load_problems
from semcot.evaluation import describe_machine, load_model
from semcot.evaluation.methods import METHODS, Method, SemCoT, open_method
from semcot.files import write_json
from semcot.machine import peak_memory
from semcot.tokenization import render_prompt, tokenize_prompts

MAX_NEW_TOKENS = 16


class Plain(SemCoT):
    """Without the shortcuts of `generate`."""

    name = "plain"

    def generate(self, **inputs) -> torch.LongTensor:
        return self.model.generate(**inputs, shortcuts=False)


class ReleasedStyle(SemCoT):
    """A loop in the manner of research code: the thoughts once, then all that there is, read anew for each token."""

    name = "released_style"

    def generate(
        self, input_ids: torch.LongTensor, attention_mask: torch.LongTensor, max_new_tokens: int, **options
    ) -> torch.LongTensor:
        model, embed = self.model, self.model.get_input_embeddings()
        embeds, sequences = model.embed_prompt(input_ids, attention_mask), input_ids
        done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        for _ in range(max_new_tokens):
            position_ids = position_ids_of(attention_mask)
            logits = self.base(
                inputs_embeds=embeds, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
            ).logits
            token = logits[:, -1].argmax(-1).masked_fill(done, options["pad_token_id"])
            sequences = torch.cat([sequences, token[:, None]], dim=1)
            done |= torch.isin(token, torch.tensor(options["eos_token_id"], device=token.device))
            if done.all():
                break
            embeds = torch.cat([embeds, embed(token)[:, None]], dim=1)
            attention_mask = torch.nn.functional.pad(attention_mask, (0, 1), value=1)
        return sequences


class Bench:
    def __init__(self, options: argparse.Namespace) -> None:
        self.model, self.tokenizer = load_model(options.model, options.device, options.dtype)
        self.device = self.model.device
        problems = load_problems(options.data, "eval", num_samples=options.questions, seed=options.seed)
        self.questions = [problem["question"] for problem in problems]
        self.prompts = [render_prompt(self.tokenizer, question) for question in self.questions]
        names = {"fast": SemCoT, "plain": Plain, "released_style": ReleasedStyle}
        self.ways: dict[str, Method] = {name: way(self.model, self.tokenizer) for name, way in names.items()}
        self.ways |= {name: METHODS[name](self.model, self.tokenizer) for name in ("direct", "cot")}
        for name in options.methods:
            method = open_method(name, self.model, self.tokenizer)
            self.ways[method.name] = method
        if options.openvino:
            from semcot.serving.openvino import with_openvino

            for name, dtype in (("openvino", "float32"), ("openvino_bfloat16", "bfloat16")):
                self.ways[name] = SemCoT(with_openvino(load_model(options.model, "cpu", dtype)[0]), self.tokenizer)
        self.slow = options.slow
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

    def compare(self, size: int) -> list[dict]:
        """
        Of each way its ratio to `plain`, seconds to a batch, answers per second, tokens to an answer, and how many
        answers differ from those of `plain`. The first two batches warm up, and have the prefix found; of a slow way,
        none does.
        """
        seconds, texts, tokens = ({name: [] for name in self.ways} for _ in range(3))
        starts = range(0, len(self.questions) - size + 1, size)
        for number, start in enumerate(starts):
            ways = list(self.ways) if number % 2 else list(reversed(self.ways))  # none always comes first
            for name in ways:
                way = self.ways[name]
                is_slow = way.explicit_reasoning or name == "released_style"
                if is_slow and not 2 <= number < 2 + self.slow:
                    continue
                started = self.now()
                answers = way.answer(
                    self.questions[start : start + size], None if way.explicit_reasoning else MAX_NEW_TOKENS
                )
                taken = self.now() - started
                if number >= 2:
                    seconds[name].append(taken)
                    texts[name] += [answer.text for answer in answers]
                    tokens[name] += [answer.num_tokens for answer in answers]
        return [
            {
                "batch_size": size,
                "way": name,
                "ratio": statistics.median(a / b for a, b in zip(taken, seconds["plain"], strict=False)),
                "s": statistics.median(taken),
                "samples_per_s": size / statistics.mean(taken),
                "tokens": statistics.mean(tokens[name]),
                "batches": len(taken),
                "other_answers": sum(a != b for a, b in zip(texts[name], texts["plain"], strict=False)),
            }
            for name, taken in seconds.items()
            if taken
        ]

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

        thinker = base.base_model if model.config.adapter_rank else model.generator
        calls = {
            "think": (lambda: model.think(**batch), thinker, tokens),
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
    parser.add_argument("--methods", nargs="*", default=[], help="Trained ones to time, too: NAME=FOLDER.")
    parser.add_argument("--openvino", action="store_true", help="Time OpenVINO, too.")
    parser.add_argument("--slow", type=int, default=3, help="Batches that the slow ways answer; 0 leaves them out.")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.questions < 3 * max(options.batch_sizes):
        parser.error(f"--questions {options.questions} are no three batches of {max(options.batch_sizes)}")
    logging.set_verbosity_error()
    bench, rows, phases = Bench(options), [], []
    for size in options.batch_sizes:
        rows += (found := bench.compare(size))
        print(f"batch {size}")
        for row in found:
            print(
                f"    {row['way']:16}{row['ratio']:8.2f} × plain{row['s']:9.3f} s{row['samples_per_s']:9.2f} answers/s"
                f"{row['tokens']:8.1f} tokens, {row['other_answers']} other answers"
            )
        steps = next(row["tokens"] for row in found if row["way"] == "plain") - 1
        phases.append({"batch_size": size, **bench.phases(size, steps)})
        for name, phase in phases[-1].items():
            if name != "batch_size":
                floor = ""
                if "floor_s" in phase:
                    floor = f", {phase['times_the_floor']:.1f} × its floor, {phase['share_of_the_gap']:.0%} of the gap"
                print(f"    {name:16}{phase['s'] * 1000:8.1f} ms{floor}")
    record = {
        "run": {"command": " ".join(["python", "-m", "benchmarks.latency", *sys.argv[1:]])},
        "eval": rows,
        "phases": phases,
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
