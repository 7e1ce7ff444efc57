"""What a training run can be told, as flags or in a YAML file: one field, one flag."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from transformers import HfArgumentParser


class Phase(NamedTuple):
    """The options that say how long and how fast a phase of stage 2 trains."""

    epochs: str
    learning_rate: str


PHASES = {
    "warmup": Phase("warmup_epochs", "warmup_learning_rate"),
    "lens": Phase("lens_epochs", "lens_learning_rate"),
    "exchange": Phase("exchange_epochs", "exchange_learning_rate"),
    "generator": Phase("epochs", "learning_rate"),
}


@dataclass
class TrainOptions:
    """Options of `train_semcot.py`. A YAML file given first is read first; flags override it."""

    output_dir: str = field(metadata={"help": "Where the checkpoint, the encoder and the run's records go."})

    # The models
    base_model: str = field(
        default="HuggingFaceTB/SmolLM2-135M-Instruct", metadata={"help": "Frozen base: a Hub id or a folder."}
    )
    generator: str | None = field(
        default=None,
        metadata={"help": "Small causal LM with the base's token ids, or a SemCoT checkpoint to train on from."},
    )
    generator_layers: int | None = field(
        default=None, metadata={"help": "Instead of `generator`: copy this many first layers of the base."}
    )
    num_thoughts: int = field(default=5, metadata={"help": "K, the number of implicit tokens."})
    thought_offset: int = field(
        default=0, metadata={"help": "0 reads the generator at the placeholders, -1 one to the left (released code)."}
    )
    thought_passes: int | None = field(
        default=None,
        metadata={
            "help": "Passes of the generator over the placeholders; in later ones it reads its thoughts. By default "
            "those of the checkpoint that is trained on, else 1."
        },
    )
    thought_layers: int | None = field(
        default=None,
        metadata={
            "help": "Layers that go over the thoughts alone, so that a later one can use an earlier one's result. By "
            "default those of the checkpoint that is trained on, else none."
        },
    )
    dtype: str | None = field(
        default=None, metadata={"help": "Dtype of the base; float32 on CPU and bfloat16 on GPU by default."}
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={
            "help": "sdpa, eager, flash_attention_2, …; by default sdpa, but on a CPU under autocast eager, where it "
            "is faster at the lengths of word problems."
        },
    )

    frozen_layers: int = field(
        default=0,
        metadata={
            "help": "This many first layers of the generator, and the embeddings they read, stay as they are; cheaper "
            "where a checkpoint is trained on."
        },
    )

    # The data
    dataset: list[str] = field(
        default_factory=lambda: ["synthetic_coin_flip", "synthetic_arithmetic"],
        metadata={"help": "Names or files of one or more data sets to train on."},
    )
    train_file: list[str] | None = field(default=None, metadata={"help": "Files to train on instead of `dataset`."})
    num_samples: list[int] | None = field(
        default=None, metadata={"help": "How many problems to draw from each of the data sets, in their order."}
    )
    evaluation_file: list[str] | None = field(
        default=None, metadata={"help": "Files whose questions must not be trained on."}
    )
    validation_fraction: float = field(default=0.02, metadata={"help": "Share of the train split kept for validation."})
    validation_dataset: list[str] | None = field(
        default=None, metadata={"help": "Those of the data sets that validation problems come from; by default all."}
    )

    # Stage 1: the reasoning encoder
    encoder_embedding_dim: int = field(default=768, metadata={"help": "Width of a reasoning's embedding."})
    encoder_start_layer: int | None = field(default=None, metadata={"help": "First copied layer; half the depth."})
    encoder_end_layer: int | None = field(default=None, metadata={"help": "End of the copied layers, exclusive."})
    encoder_renumbered: int = field(
        default=0, metadata={"help": "Further copies of each pair, with other numbers, the same in both of its texts."}
    )
    encoder_batch_size: int = field(
        default=32, metadata={"help": "Pairs in a batch, per device, each a negative to others."}
    )
    encoder_temperature: float = field(default=0.05, metadata={"help": "Temperature of the contrastive loss."})
    encoder_dense_learning_rate: float = field(default=1e-3, metadata={"help": "First phase: dense layer only."})
    encoder_dense_epochs: float = field(default=1.0, metadata={"help": "First phase: passes over the pairs."})
    encoder_learning_rate: float = field(default=1e-5, metadata={"help": "Second phase: dense and copied layers."})
    encoder_epochs: float = field(default=1.0, metadata={"help": "Second phase: passes over the pairs."})

    # Stage 2: the generator
    alpha: float = field(default=0.5, metadata={"help": "Weight of the semantic loss; 0 trains without stage 1."})
    explanation_weight: float = field(
        default=0.0, metadata={"help": "Weight of the loss for writing the condensed reasoning from the thoughts."}
    )
    lens_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of the loss for spelling the condensed reasoning's end with the thoughts."},
    )
    lens_steps: int = field(
        default=1,
        metadata={"help": "The thoughts spell the ends of this many last steps; the very last one has half of them."},
    )
    lens_learning_rate: float = field(
        default=5e-4, metadata={"help": "Extra phase on that loss alone: whole generator."}
    )
    lens_epochs: float = field(default=0.0, metadata={"help": "Extra phase on that loss alone, before the last one."})
    exchange_learning_rate: float = field(
        default=1e-3, metadata={"help": "Extra phase: the thought layers alone, on steps of other problems."}
    )
    exchange_epochs: float = field(default=0.0, metadata={"help": "Extra phase of the thought layers: passes."})
    exchange_batch_size: int = field(
        default=256, metadata={"help": "Extra phase of the thought layers: problems in a batch, per device."}
    )
    exchange_share: float = field(
        default=0.8, metadata={"help": "Extra phase of the thought layers: share of problems with exchanged steps."}
    )
    warmup_learning_rate: float = field(default=1e-3, metadata={"help": "First phase: projection, thought embedding."})
    warmup_epochs: float = field(default=0.1, metadata={"help": "First phase: passes over the train split."})
    learning_rate: float = field(default=3e-4, metadata={"help": "Last phase: the whole generator."})
    epochs: float = field(default=1.0, metadata={"help": "Last phase: passes over the train split."})
    batch_size: int = field(default=16, metadata={"help": "Problems in a batch, per device."})
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "Batches in an optimizer step of stage 2."})
    lr_scheduler_type: str = field(
        default="cosine", metadata={"help": "Schedule of the learning rates of stage 2; stage 1's are linear."}
    )
    optim: str = field(
        default="adamw_torch_fused",
        metadata={"help": "Optimizer of both stages, by the Trainer's names; adafactor or adamw_bnb_8bit save memory."},
    )
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay, in stage 2."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Gradient clipping, in stage 2."})
    bf16: bool | None = field(
        default=None,
        metadata={"help": "Compute in bfloat16 under autocast. By default on a GPU, and on a CPU made for it."},
    )
    torch_compile: bool = field(
        default=False,
        metadata={
            "help": "Compile the generator and, unless questions are prefilled, the base; takes a while at first. A "
            "resumed run then repeats but for rounding."
        },
    )
    prefill_question: bool | None = field(
        default=None,
        metadata={
            "help": "Read questions in a pass of their own, without a gradient: less arithmetic, more passes. By "
            "default on a CPU; on a GPU where base and batch are large, and without torch_compile."
        },
    )
    gradient_checkpointing: bool = field(default=False, metadata={"help": "Trade compute for memory (generator)."})
    cache_questions: bool = field(
        default=False,
        metadata={
            "help": "Run the base over each question once and keep what it made of it on disk (46 kB a token with "
            "SmolLM2-135M in float32); for several passes over the same problems on a CPU."
        },
    )
    shard_base: bool = field(
        default=False, metadata={"help": "In stage 2, spread the frozen base over all processes (FSDP2)."}
    )

    # The run
    max_steps: int = field(default=-1, metadata={"help": "At most this many steps in each phase; for a quick look."})
    seed: int = field(default=0, metadata={"help": "Seed of data, initial weights and order."})
    logging_steps: int = field(default=20, metadata={"help": "Steps between logged losses."})
    eval_steps: int = field(default=200, metadata={"help": "Steps between validations, in stage 2."})
    save_steps: int = field(default=200, metadata={"help": "Steps between training checkpoints, for resuming."})
    report_to: list[str] = field(
        default_factory=lambda: ["none"], metadata={"help": "One or more of tensorboard, trackio, wandb, …"}
    )
    resume_from_checkpoint: bool = field(default=False, metadata={"help": "Go on with the run in `output_dir`."})
    overwrite_output_dir: bool = field(default=False, metadata={"help": "Start afresh in a non-empty `output_dir`."})
    push_to_hub: bool = field(default=False, metadata={"help": "Upload the finished checkpoint."})
    hub_model_id: str | None = field(default=None, metadata={"help": "Repository to upload to; folder name if none."})

    def __post_init__(self) -> None:
        if (self.generator is None) == (self.generator_layers is None):
            raise ValueError("Give either generator (a small LM's name) or generator_layers (a number), and not both.")
        counted = ("batch_size", "gradient_accumulation_steps", "encoder_batch_size", "exchange_batch_size")
        for name in (*counted, "logging_steps", "eval_steps", "save_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.encoder_temperature <= 0:
            raise ValueError(f"encoder_temperature must be above 0, got {self.encoder_temperature}.")
        if self.frozen_layers < 0:
            raise ValueError(f"frozen_layers must not be negative, got {self.frozen_layers}.")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must lie between 0 and 1, got {self.alpha}.")
        if max(getattr(self, phase.epochs) for phase in PHASES.values()) <= 0:
            names = ", ".join(phase.epochs for phase in PHASES.values())
            raise ValueError(f"{names} are all 0: nothing would be trained.")
        if self.alpha > 0 and max(self.encoder_dense_epochs, self.encoder_epochs) <= 0:
            raise ValueError("The reasoning encoder gets no epochs; give it some, or train without it: alpha 0.")
        if not 1 <= self.lens_steps <= 1 + self.num_thoughts // 2:
            limit = 1 + self.num_thoughts // 2
            raise ValueError(f"lens_steps must lie between 1 and {limit} for this num_thoughts, got {self.lens_steps}.")
        if self.exchange_epochs > 0 and self.lens_steps < 2:
            raise ValueError("exchange_epochs needs thoughts that spell several steps: give lens_steps 2 or 3.")
        if not 0 <= self.exchange_share <= 1:
            raise ValueError(f"exchange_share must lie between 0 and 1, got {self.exchange_share}.")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must lie between 0 and 1, got {self.validation_fraction}.")
        sources = self.train_file or self.dataset
        if unknown := set(self.validation_dataset or []) - set(sources):
            raise ValueError(f"validation_dataset names {sorted(unknown)}, which are not among {sources}.")
        if self.num_samples is not None and len(self.num_samples) != len(sources):
            raise ValueError(f"num_samples has {len(self.num_samples)} numbers for {len(sources)} data sets.")

    @property
    def autocast(self) -> bool:
        """Whether to train under bfloat16 autocast. A CPU without native support is many times slower with it."""
        if self.bf16 is not None:
            return self.bf16
        cpu = getattr(torch.cpu, "get_capabilities", dict)()
        return torch.cuda.is_available() or bool(cpu.get("avx512_bf16") or cpu.get("amx_bf16"))

    @property
    def attention(self) -> str | None:
        """The implementation of attention to load the models with, `None` for transformers' own choice."""
        on_cpu_under_autocast = self.autocast and not torch.cuda.is_available()
        return self.attn_implementation or ("eager" if on_cpu_under_autocast else None)

    @property
    def sources(self) -> list[tuple[str, int | None]]:
        """Each data set's name or file with the number of problems to draw, `None` for all."""
        names = self.train_file or self.dataset
        return list(zip(names, self.num_samples or [None] * len(names), strict=True))


DISPLACED = {
    "generator": ("generator_layers",),
    "generator_layers": ("generator",),
    "dataset": ("train_file",),
    "train_file": ("dataset", "num_samples", "validation_dataset"),
}
"""What else of a recipe a flag takes the place of."""


def parse_options(arguments: list[str] | None = None) -> TrainOptions:
    """
    Reads `[FILE.yaml] [--flag value …]`; flags override the file, also in what they displace. Unknown names in either
    are refused.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0].endswith((".yaml", ".yml")):
        path = Path(arguments.pop(0))
        if not path.is_file():
            raise FileNotFoundError(f"There is no recipe at {path}; see configs/.")
        recipe = yaml.safe_load(path.read_text()) or {}
        if not isinstance(recipe, dict):
            raise ValueError(f"{path} must map option names to values.")
        for flag in [part.removeprefix("--").partition("=")[0] for part in arguments if part.startswith("--")]:
            for name in DISPLACED.get(flag.replace("-", "_"), ()):
                recipe.pop(name, None)
        arguments = [part for name, value in recipe.items() for part in _as_flag(name, value)] + arguments
    return HfArgumentParser(TrainOptions, prog="train_semcot.py", allow_abbrev=False).parse_args_into_dataclasses(
        arguments
    )[0]


def _as_flag(name: str, value: object) -> list[str]:
    if value is None:
        return []
    return [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
