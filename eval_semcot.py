"""
Says how good and how fast a checkpoint answers, beside the same base without thoughts and with an explicit chain of
thought: `python eval_semcot.py --model . --data multiarith --output_dir results/multiarith`.
"""

import os
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

from transformers import HfArgumentParser

from modeling_semcot import BASE_MODEL_VARIABLE
from semcot.data import HUB_DATASETS, RENUMBERED, fingerprint, load_problems
from semcot.evaluation import check_questions, describe_machine, evaluate_method, load_model, with_speedups
from semcot.evaluation.methods import COMPARED, METHODS
from semcot.evaluation.report import format_table, prepare_output_dir, write_report
from semcot.machine import without_cudnn_attention


@dataclass
class EvalOptions:
    """Options of `eval_semcot.py`."""

    model: str = field(metadata={"help": "The checkpoint: a folder or a Hub id."})
    data: str = field(metadata={"help": "Problems: a data set's name or a file, as for training."})
    output_dir: str = field(metadata={"help": "Where results.json, predictions.jsonl and report.md go."})
    methods: list[str] = field(
        default_factory=lambda: [method.name for method in COMPARED],
        metadata={"choices": list(METHODS), "help": "What to compare."},
    )
    split: str = field(default="eval", metadata={"choices": ["eval", "train"], "help": "Split of a named data set."})
    limit: int | None = field(
        default=None, metadata={"help": "The first so many problems; of a synthetic data set, so many fresh ones."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the draw from a synthetic data set."})
    batch_size: int = field(default=16, metadata={"help": "Questions in a batch; latency is measured singly."})
    max_new_tokens: int = field(default=16, metadata={"help": "Of an answer."})
    cot_max_new_tokens: int = field(default=256, metadata={"help": "Of an explicit chain of thought and its answer."})
    latency_samples: int = field(default=10, metadata={"help": "Questions to time at batch size 1; 0 for none."})
    device: str | None = field(default=None, metadata={"help": "cpu, cuda, cuda:1, …; cuda where there is one."})
    dtype: str | None = field(default=None, metadata={"help": "float32, bfloat16, …; bfloat16 on CUDA, else float32."})
    base_model: str | None = field(default=None, metadata={"help": "Folder or Hub id of an adapter's base."})

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_new_tokens", "cot_max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.latency_samples < 0:
            raise ValueError(f"latency_samples must be at least 0, got {self.latency_samples}.")


def main() -> None:
    options = HfArgumentParser(EvalOptions, allow_abbrev=False).parse_args_into_dataclasses()[0]
    output_dir = prepare_output_dir(options.output_dir)
    without_cudnn_attention()
    problems = load_problems(options.data, options.split, num_samples=options.limit, seed=options.seed)
    model, tokenizer = load_model(options.model, options.device, options.dtype, options.base_model)
    context = {
        "dataset": options.data,
        "split": options.split,
        "data_sha256": fingerprint(problems),
        "model": options.model,
        "seed": options.seed,
        **describe_machine(model),
    }
    command = shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])
    heeded = {
        "SEMCOT_DATA_DIR": options.data.removeprefix(RENUMBERED) in HUB_DATASETS,
        BASE_MODEL_VARIABLE: model.config.checkpoint_kind == "adapter" and options.base_model is None,
    }
    for name, is_heeded in heeded.items():
        if is_heeded and (value := os.environ.get(name)):
            command = f"{name}={shlex.quote(value)} {command}"

    methods = [METHODS[name](model, tokenizer) for name in dict.fromkeys(options.methods)]
    lengths = {
        method: options.cot_max_new_tokens if method.explicit_reasoning else options.max_new_tokens
        for method in methods
    }
    for method, max_new_tokens in lengths.items():
        check_questions(method, problems["question"], max_new_tokens, options.data)
    summaries, predictions = [], []
    for method, max_new_tokens in lengths.items():
        summary, answers = evaluate_method(
            method,
            problems,
            batch_size=options.batch_size,
            max_new_tokens=max_new_tokens,
            latency_samples=options.latency_samples,
        )
        summaries.append({**summary, **context})
        predictions += answers
        # After every method, so that a run that is cut short leaves what it found.
        results = with_speedups(summaries)
        write_report(output_dir, results, predictions, command)
    print(f"\n{format_table(results)}\n\nWritten to {output_dir}.")


if __name__ == "__main__":
    main()
