"""A whole evaluation: problems and a checkpoint in, answers, figures and a report out."""

import os
import shlex
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from checkpoint_semcot import BASE_MODEL_VARIABLE
from semcot.data import AUGMENTED, HUB_DATASETS, fingerprint, load_problems
from semcot.evaluation.loading import load_model, weights_sha256
from semcot.evaluation.measure import check_questions, describe_machine, evaluate_method, with_speedups
from semcot.evaluation.methods import COMPARED, METHODS
from semcot.evaluation.report import prepare_output_dir, write_report
from semcot.machine import without_cudnn_attention


@dataclass
class EvalOptions:
    """Options of an evaluation and of `eval_semcot.py`: checkpoint, problems, methods, where the results go."""

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


def evaluate(options: EvalOptions) -> dict[str, Any]:
    """
    Has a checkpoint answer problems by each method, and writes results.json, predictions.jsonl and report.md.

    Returns:
        The record that results.json holds: `run` (the command), `eval` (each method's figures, see `evaluate_method`)
        and `meta` (the checkpoint with the hash of its weights, machine, dtype, versions).

    Raises:
        ValueError: problems, checkpoint and options do not go together; it says where.
        OSError: the results cannot be written, or the checkpoint cannot be loaded.
    """
    output_dir = prepare_output_dir(options.output_dir)
    without_cudnn_attention()
    problems = load_problems(options.data, options.split, num_samples=options.limit, seed=options.seed)
    model, tokenizer = load_model(options.model, options.device, options.dtype, options.base_model)
    methods = [METHODS[name](model, tokenizer) for name in dict.fromkeys(options.methods)]
    lengths = {
        method: options.cot_max_new_tokens if method.explicit_reasoning else options.max_new_tokens
        for method in methods
    }
    for method, max_new_tokens in lengths.items():
        check_questions(method, problems["question"], max_new_tokens, options.data)

    data = {"dataset": options.data, "split": options.split, "seed": options.seed}
    data["data_sha256"] = fingerprint(problems)
    is_adapter = model.config.checkpoint_kind == "adapter"
    meta = {"model": options.model, "model_sha256": weights_sha256(options.model), **describe_machine(model)}
    record = {"run": {"command": command_of(options, is_adapter)}, "eval": [], "meta": meta}
    predictions = []
    for method, max_new_tokens in lengths.items():
        figures, answers = evaluate_method(
            method,
            problems,
            batch_size=options.batch_size,
            max_new_tokens=max_new_tokens,
            latency_samples=options.latency_samples,
        )
        predictions += answers
        # After every method, so that a run that is cut short leaves what it found.
        record["eval"] = with_speedups([*record["eval"], {**data, **figures}])
        write_report(output_dir, record, predictions)
    return record


def command_of(options: EvalOptions, is_adapter: bool) -> str:
    """The command that gives the same results again, with the environment variables that have a say in them."""
    words = ["python", "eval_semcot.py"]
    for option in fields(options):
        default = option.default if option.default_factory is MISSING else option.default_factory()
        if (value := getattr(options, option.name)) != default:
            words += [f"--{option.name}", *map(str, value if isinstance(value, list) else [value])]
    heeded = {
        BASE_MODEL_VARIABLE: is_adapter and options.base_model is None,
        "SEMCOT_DATA_DIR": options.data.removeprefix(AUGMENTED) in HUB_DATASETS,
    }
    variables = [
        f"{name}={shlex.quote(os.environ[name])} " for name, used in heeded.items() if used and os.environ.get(name)
    ]
    return "".join(variables) + shlex.join(words)
