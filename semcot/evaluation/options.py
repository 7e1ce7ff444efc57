"""The options of an evaluation."""

from dataclasses import dataclass, field
from typing import Any

from semcot.evaluation.methods import COMPARED, METHODS, TRAINED, method_named
from semcot.evaluation.methods.control import Control

CONTROLS = [name for name, method in METHODS.items() if issubclass(method, Control)]


@dataclass
class EvalOptions:
    """Options of an evaluation and of `eval_semcot.py`: checkpoint, problems, methods, where the results go."""

    model: str = field(metadata={"help": "The checkpoint: a folder or a Hub id."})
    data: str = field(metadata={"help": "Problems: a data set's name or a file, as for training."})
    output_dir: str = field(metadata={"help": "Where results.json, predictions.jsonl and the report go."})
    methods: list[str] = field(
        default_factory=lambda: [*(method.name for method in COMPARED), *CONTROLS],
        metadata={
            "help": f"What to compare: {', '.join(METHODS)} (by default all these); cot_few_shot=DATA, examples of "
            f"a train split; and NAME=FOLDER, trained by train_semcot.py --method: {', '.join(TRAINED)}."
        },
    )
    split: str = field(default="eval", metadata={"choices": ["eval", "train"], "help": "Split of a named data set."})
    limit: int | None = field(
        default=None, metadata={"help": "The first so many problems; of a synthetic data set, so many fresh ones."}
    )
    seeds: list[int] = field(
        default_factory=lambda: [0],
        metadata={
            "aliases": ["--seed"],
            "help": "Seeds of the draw from a synthetic data set and of sampling; a row for each, and their mean.",
        },
    )
    batch_size: int = field(default=16, metadata={"help": "Questions in a batch; latency is measured singly."})
    max_new_tokens: int = field(default=16, metadata={"help": "Of an answer."})
    cot_max_new_tokens: int = field(default=256, metadata={"help": "Of an explicit chain of thought and its answer."})
    temperature: float | None = field(
        default=None,
        metadata={
            "help": "Sample the answers, instead of taking the likeliest token. The paper's released code reports 0.1, "
            "0.3, 0.5, 0.7 and 0.9 each, with top_p 0.9, one answer of up to 30 tokens to a question, three runs."
        },
    )
    top_p: float = field(default=0.9, metadata={"help": "Of sampling: from the likeliest tokens with this share."})
    latency_samples: int = field(default=10, metadata={"help": "Questions to time at batch size 1; 0 for none."})
    batch_sizes: list[int] = field(default_factory=list, metadata={"help": "Measure samples/s at each, too: 1 4 16."})
    compare_to: str = field(default="semcot", metadata={"help": "Method that McNemar's test compares the others to."})
    train_data: str | None = field(
        default=None,
        metadata={"help": "What was trained on, a name or a file: how much of the problems stands in its train split."},
    )
    device: str | None = field(default=None, metadata={"help": "cpu, cuda, cuda:1, …; cuda where there is one."})
    dtype: str | None = field(default=None, metadata={"help": "float32, bfloat16, …; bfloat16 on CUDA, else float32."})
    base_model: str | None = field(default=None, metadata={"help": "Folder or Hub id of an adapter's base."})
    update_card: bool = field(
        default=False,
        metadata={"help": "Write the figure of semcot into the card of the checkpoint, a folder, as the Hub shows it."},
    )
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Start afresh where an evaluation is, instead of going on with it."}
    )

    def __post_init__(self) -> None:
        at_least = {"limit": 1, "batch_size": 1, "max_new_tokens": 1, "cot_max_new_tokens": 1, "latency_samples": 0}
        for name, least in at_least.items():
            if (value := getattr(self, name)) is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}.")
        if min(self.batch_sizes, default=1) < 1:
            raise ValueError(f"batch_sizes must be at least 1, got {self.batch_sizes}.")
        if self.temperature is not None and self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}; without one answers are greedy.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be one or more, each another, got {self.seeds}.")
        names = [name.partition("=")[0] for name in dict.fromkeys(self.methods)]
        for name in names:
            method_named(name)
        if len(set(names)) < len(names):
            raise ValueError(f"methods must be different ones, got {self.methods}: evaluate the others by themselves.")
        if self.update_card and "semcot" not in names:
            raise ValueError(f"update_card writes the figure of semcot, which is none of the methods: {self.methods}.")
        if self.compare_to != "semcot" and self.compare_to not in names:
            raise ValueError(f"compare_to is {self.compare_to}, which is none of the methods: {self.methods}.")

    @property
    def sampling(self) -> dict[str, Any]:
        """How `generate` chooses tokens. top_k is what transformers took by itself when the paper was written."""
        if self.temperature is None:
            return {"do_sample": False}
        return {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 50}
