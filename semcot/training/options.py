"""A recipe: what a training run is told, in a YAML file, as flags, or in Python."""

import argparse
import re
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import yaml
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from semcot.evaluation.methods import TRAINED

ENCODER = "reasoning_encoder"
ENCODER_DENSE = "reasoning_encoder.dense"
"""The parts of the reasoning encoder that a stage can train: all of it, or its dense layer alone."""
BASE_ITSELF = re.compile(r"lora:([1-9]\d*)")
"""The generator that is the base with low-rank updates, of this rank."""
TOLD_IN_ORDER = (
    "the thoughts of a generator lora:RANK are told a whole reasoning, in its order: give supervised_steps 0"
)
TRAINER = {
    "optim": "adamw_torch_fused",
    "lr_scheduler_type": "cosine",
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "logging_steps": 20,
    "eval_steps": 200,
    "save_steps": 200,
    "save_total_limit": 2,
    "report_to": "none",
}
"""`trainer` where a recipe does not say otherwise."""
FREE = ("trainer", "settings")
"""Fields whose entries others name: transformers, and each method."""
REACHING = tuple(f"--{name}." for name in ("stages", *FREE))


def _as_list(value: Any) -> Any:
    return value if value is None or isinstance(value, list) else [value]


def _as_data(value: Any) -> Any:
    """`["gsm8k", "svamp=100"]` as `{"gsm8k": None, "svamp": "100"}`."""
    if value is None or isinstance(value, dict):
        return value
    pairs = (str(part).partition("=") for part in _as_list(value))
    return {name: count or None for name, _, count in pairs}


def _as_generator(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdigit() else value


Texts = Annotated[list[str], BeforeValidator(_as_list)]
DataSets = Annotated[dict[str, Annotated[int, Field(ge=1)] | None], BeforeValidator(_as_data)]
Loss = Literal["answer", "alignment", "token_supervision"]
Positive = Annotated[int, Field(ge=1)]
STRICT = ConfigDict(extra="forbid", coerce_numbers_to_str=True)


@dataclass(config=STRICT)
class Stage:
    """An entry of `stages`: parts to train, losses, problems and budget."""

    train: Texts
    """`reasoning_encoder`, or its `reasoning_encoder.dense` alone; else parts of the model, by the names of its
    weights: `projection`, `thought_embedding`, `generator`, or less, such as `generator.layers.8`."""
    name: str = ""
    """Of its folder, in logs and in flags; by default what it trains."""
    losses: dict[Loss, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Weights of the losses (`semcot.distillation.losses`); the reasoning encoder has one of its own."""
    dataset: DataSets | None = None
    """Other problems than the recipe's, in the same form."""
    base_noise: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The base is another one in each step, by at most so much of each matrix (`semcot.distillation.base_noise`)."""
    epochs: Annotated[float, Field(ge=0)] = 1.0
    """Passes over the problems; 0 leaves the stage out."""
    max_steps: int = -1
    """At most this many steps; -1 for as many as the epochs have."""
    batch_size: Positive = 16
    """Problems in a batch, per device."""
    learning_rate: Annotated[float, Field(ge=0)] = 3e-4

    def __post_init__(self) -> None:
        self.name = self.name or "-".join(self.train)
        # A loss without weight is not computed; of the answer's the figures are wanted.
        self.losses = {loss: weight for loss, weight in self.losses.items() if weight > 0 or loss == "answer"}

    @property
    def trains_encoder(self) -> bool:
        return self.train[0] in (ENCODER, ENCODER_DENSE)


def _papers_method() -> list[Stage]:
    """The reasoning encoder, the warm-up and the generator as in SemCoT, sections 4.2 and 4.3."""
    both = {"answer": 0.5, "alignment": 0.5}
    started = ["projection", "thought_embedding"]
    return [
        Stage(name="encoder_dense", train=[ENCODER_DENSE], batch_size=32, learning_rate=1e-3),
        Stage(name="encoder", train=[ENCODER], batch_size=32, learning_rate=1e-5),
        Stage(name="warm_up", train=started, losses=both, epochs=0.1, learning_rate=1e-3),
        Stage(name="generator", train=[*started, "generator"], losses=both),
    ]


@dataclass(config=STRICT, kw_only=True)
class RunOptions:
    """What every run of `train_semcot.py` is told, whatever it trains."""

    output_dir: str = Field(description="Where what was trained and the run's records go.")
    base_model: str = Field(default="HuggingFaceTB/SmolLM2-135M-Instruct", description="Base: a Hub id or a folder.")
    dtype: str | None = Field(
        default=None, description="Dtype of the base; float32 on a CPU and bfloat16 on a GPU by default."
    )
    attn_implementation: str | None = Field(
        default=None,
        description="sdpa, eager, flash_attention_2, …; by default sdpa, but on a CPU under autocast eager, where it "
        "is faster at the lengths of word problems.",
    )
    dataset: DataSets = Field(
        default_factory=lambda: {"synthetic_coin_flip": None, "synthetic_arithmetic": None},
        description="Data sets and files to train on, each with how many of its problems: NAME or NAME=NUMBER.",
    )
    evaluation_file: Texts | None = Field(default=None, description="Files whose questions must not be trained on.")
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.02, description="Share of the problems that is kept for validation."
    )
    validation_by_template: bool = Field(
        default=True,
        description="Problems that differ in numbers and names alone are all in train or all in validation, which then "
        "tells how other people's wordings are answered; False parts problem by problem.",
    )
    max_steps: int = Field(
        default=-1, description="At most so many steps in each stage, on no more problems than they need."
    )
    trainer: dict[str, Any] = Field(
        default_factory=dict,
        description="Further options of transformers' TrainingArguments: --trainer.OPTION VALUE.",
    )
    seed: int = Field(default=0, description="Of data, initial weights and order.")
    resume_from_checkpoint: bool = Field(default=False, description="Go on with the run in `output_dir`.")
    overwrite_output_dir: bool = Field(default=False, description="Start afresh in a non-empty `output_dir`.")

    def __post_init__(self) -> None:
        self.trainer = TRAINER | self.trainer

    @property
    def autocast(self) -> bool:
        """bfloat16 autocast, by default where it is fast: a CPU without native support is many times slower with it."""
        if (said := self.trainer.get("bf16")) is not None:
            return said
        cpu = getattr(torch.cpu, "get_capabilities", dict)()
        return torch.cuda.is_available() or bool(cpu.get("avx512_bf16") or cpu.get("amx_bf16"))

    @property
    def attention(self) -> str | None:
        """The implementation of attention to load the models with, `None` for transformers' own choice."""
        on_cpu_under_autocast = self.autocast and not torch.cuda.is_available()
        return self.attn_implementation or ("eager" if on_cpu_under_autocast else None)


@dataclass(config=STRICT, kw_only=True)
class MethodOptions(RunOptions):
    """A recipe of `train_semcot.py --method`, for a method to compare SemCoT with."""

    method: str = Field(description=f"What to train: {', '.join(TRAINED)}.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the method (see its docstring): --settings.OPTION VALUE."
    )
    epochs: Annotated[float, Field(gt=0)] = Field(default=1.0, description="Passes over the problems.")
    batch_size: Positive = Field(default=16, description="Problems in a batch, per device.")
    learning_rate: Annotated[float, Field(ge=0)] = Field(default=1e-4, description="The highest of the schedule.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in TRAINED:
            raise ValueError(f"there is no method {self.method!r} to train; there are {', '.join(TRAINED)}")

    @property
    def stages(self) -> list[Stage]:
        """The one stage of the run."""
        told = {"epochs": self.epochs, "batch_size": self.batch_size, "learning_rate": self.learning_rate}
        return [Stage(train=[self.method], **told)]


@dataclass(config=STRICT, kw_only=True)
class TrainOptions(RunOptions):
    """A recipe of `train_semcot.py`; each field but `stages` and `trainer` is a flag of its own."""

    generator: Annotated[int | str, BeforeValidator(_as_generator)] = Field(
        description="A number: so many first layers of the base, copied. A name or folder: a small causal LM with the "
        "base's token ids, or a SemCoT checkpoint to train on from. lora:RANK: the base itself, with updates of its "
        "layers (LoRA) that the thoughts alone go through."
    )
    num_thoughts: Positive = Field(default=5, description="K, the number of implicit tokens.")
    thought_offset: Annotated[int, Field(ge=-1, le=0)] = Field(
        default=0, description="0 reads the generator at the placeholders, -1 one to the left (the paper's code)."
    )
    encoder_layers: Annotated[list[int], BeforeValidator(_as_list), Field(min_length=2, max_length=2)] | None = Field(
        default=None,
        description="Start and end (exclusive) of the base's layers that the reasoning encoder copies; by default an "
        "eighth of them from the middle.",
    )
    supervised_steps: int = Field(
        default=1,
        description="Token supervision: the thoughts spell the ends of so many last steps; the very last one has half "
        "of them. 0: the whole reasoning, from the first thought on, as generator lora:RANK needs it.",
    )

    stages: list[Stage] = Field(
        default_factory=_papers_method,
        description="What is trained, one after the other; --stages.NAME.OPTION VALUE changes one of them.",
    )
    alpha: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        description="Weight of the alignment with the reasoning, against the answer's 1 - alpha, in all stages that "
        "have it; 0 trains without the reasoning encoder.",
    )
    push_to_hub: bool = Field(default=False, description="Upload the finished checkpoint.")
    hub_model_id: str | None = Field(default=None, description="Repository to upload to; folder name if none.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha is not None:
            both = {"answer": 1 - self.alpha, "alignment": self.alpha}
            self.stages = [
                replace(stage, losses=stage.losses | both) if "alignment" in stage.losses else stage
                for stage in self.stages
                if self.alpha or not stage.trains_encoder
            ]
        self.stages = [stage for stage in self.stages if stage.epochs > 0]
        if not self.stages:
            raise ValueError("no stage is left: nothing would be trained")
        if len({stage.name for stage in self.stages}) < len(self.stages):
            raise ValueError(f"stages need names of their own, got {[stage.name for stage in self.stages]}")
        if self.adapter_rank and self.supervised_steps:
            raise ValueError(TOLD_IN_ORDER)
        if self.supervised_steps and not 1 <= self.supervised_steps <= (most := 1 + self.num_thoughts // 2):
            raise ValueError(f"supervised_steps must lie between 1 and {most} for this num_thoughts")
        for number, stage in enumerate(self.stages):
            self._check_stage(stage, self.stages[:number])

    def _check_stage(self, stage: Stage, earlier: list[Stage]) -> None:
        if stage.trains_encoder:
            if not all(other.trains_encoder for other in earlier):
                raise ValueError(f"stage {stage.name} trains the reasoning encoder: put it before all others")
            if len(stage.train) > 1 or stage.losses or stage.dataset:
                raise ValueError(
                    f"stage {stage.name} trains the reasoning encoder, with a loss of its own, on the recipe's "
                    f"problems: give it {ENCODER} or {ENCODER_DENSE} alone to train, no losses and no dataset"
                )
            return
        if not any(stage.losses.values()):
            raise ValueError(f"stage {stage.name} has no loss of any weight")
        if self.adapter_rank and "projection" in stage.train and not {"answer", "alignment"} & stage.losses.keys():
            raise ValueError(
                f"stage {stage.name} trains the projection, which has no part in what the thoughts of a generator "
                "lora:RANK spell: leave it out of a stage without answers or alignment"
            )
        if "alignment" in stage.losses and not (earlier and earlier[0].trains_encoder):
            raise ValueError(
                f"stage {stage.name} aligns thoughts with reasonings: put a stage that trains {ENCODER} before it, "
                "or train without (alpha 0)"
            )

    @property
    def adapter_rank(self) -> int:
        """Of a generator lora:RANK; 0 for another."""
        found = BASE_ITSELF.fullmatch(str(self.generator))
        return int(found[1]) if found else 0

    @property
    def aligns(self) -> bool:
        """True where a stage needs the reasoning encoder."""
        return any("alignment" in stage.losses for stage in self.stages)


def parse_options(arguments: list[str] | None = None) -> TrainOptions | MethodOptions:
    """
    Reads `[RECIPE.yaml] [--option value …]`. Flags override the file; `--stages.NAME.option`, `--trainer.option` and
    `--settings.option` reach into it. Unknown names in either are refused. A recipe with a `method` is that of a method
    to compare.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    recipe: dict[str, Any] = {}
    if arguments and arguments[0].endswith((".yaml", ".yml")):
        path = Path(arguments.pop(0))
        if not path.is_file():
            raise FileNotFoundError(f"There is no recipe at {path}; see configs/.")
        recipe = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if not isinstance(recipe, dict):
            raise ValueError(f"{path} must map option names to values.")
    named = any(argument.partition("=")[0] == "--method" for argument in arguments)
    kind = MethodOptions if named or "method" in recipe else TrainOptions
    given = vars(_parser(arguments, kind).parse_args(arguments))
    if "train_file" in given:
        given["dataset"] = given.pop("train_file")
    for name, texts in given.items():
        _put(recipe, name, texts)
    try:
        return kind(**recipe)
    except ValidationError as error:
        wrong = [
            (".".join(map(str, part["loc"])), part["msg"].removeprefix("Value error, ")) for part in error.errors()
        ]
        said = "; ".join(": ".join(filter(None, part)) for part in wrong)
        raise ValueError(f"The recipe cannot be trained. {said}.") from None


def _parser(arguments: list[str], kind: type[RunOptions]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train_semcot.py",
        usage="train_semcot.py [RECIPE.yaml] [--OPTION VALUE ...]",
        description="Trains a SemCoT checkpoint; recipes are in configs/. With --method NAME, a method to compare it "
        f"with: {', '.join(TRAINED)}; --method NAME --help tells the options of these.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for option in fields(kind):
        said = option.default
        text = said.description + ("" if said.default_factory or said.is_required() else f" Default: {said.default}.")
        if option.name not in ("stages", *FREE):
            parser.add_argument(f"--{option.name}", nargs="*", metavar="VALUE", help=text)
        else:
            parser.epilog = f"{parser.epilog or ''} {text}"
    parser.add_argument("--train_file", nargs="+", metavar="FILE", help="Files to train on, as --dataset takes them.")
    for flag in {part.partition("=")[0] for part in arguments if part.startswith(REACHING)}:
        parser.add_argument(flag, nargs="*", dest=flag[2:], help=argparse.SUPPRESS)
    return parser


def _put(recipe: dict[str, Any], name: str, texts: list[str]) -> None:
    """Puts what a flag says into the recipe, where its dotted name says."""
    value = True if not texts else texts[0] if len(texts) == 1 else texts
    *parents, last = name.split(".", 2) if name.startswith("stages.") else name.split(".", 1)
    free = len(parents) == 1 and parents[0] in FREE
    if free and isinstance(value, str):
        value = yaml.safe_load(value)
        try:
            value = float(value) if isinstance(value, str) else value  # YAML takes 1e-4 for a text
        except ValueError:
            pass
    place = recipe
    if free:
        place = recipe.setdefault(parents[0], {})
    elif parents:
        stages = recipe.setdefault("stages", [asdict(stage) for stage in _papers_method()])
        found = [stage for stage in stages if isinstance(stage, dict) and stage.get("name") == parents[1]]
        if not found:
            raise ValueError(f"--{name}: no stage is named {parents[1]}; there are {[s.get('name') for s in stages]}.")
        (place,) = found
        if last.startswith("losses."):
            place, last = place.setdefault("losses", {}), last.removeprefix("losses.")
    place[last] = value


def flat(options: dict[str, Any]) -> dict[str, Any]:
    """Options as of `dataclasses.asdict`, each under its dotted name, stages by their names."""
    found = {name: value for name, value in options.items() if name not in ("stages", *FREE)}
    for stage in options.get("stages", []):
        found |= {f"stages.{stage['name']}.{name}": value for name, value in stage.items() if name != "name"}
    return found | {f"{part}.{name}": value for part in FREE for name, value in options.get(part, {}).items()}
