"""
Models too large for one device: the frozen base spread over all processes (`--shard_base`), or what accelerate's FSDP
or DeepSpeed spreads (configs/accelerate/).

What is spread is whole only while it computes. Whoever reads a weight in between asks [`whole`] for it, in all
processes at once.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import DeepSpeedPlugin, FullyShardedDataParallelPlugin, PartialState
from accelerate.utils import save_fsdp_optimizer
from safetensors.torch import load_file
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer

from modeling_semcot import SemCoTForCausalLM

if TYPE_CHECKING:
    from semcot.training.options import TrainOptions

ENGINES = {"FSDP": "ACCELERATE_USE_FSDP", "DeepSpeed": "ACCELERATE_USE_DEEPSPEED"}
"""The variable by which `accelerate launch` asks for each."""
BASE = "language_model."


def engine() -> str | None:
    """Which of `ENGINES` this process was launched with; none is plain data parallelism."""
    return next((name for name, flag in ENGINES.items() if os.environ.get(flag, "false").lower() == "true"), None)


def check_engine(options: "TrainOptions", num_processes: int) -> None:
    """Raises `ValueError` for what cannot be trained in the way that this process was launched."""
    if options.shard_base and engine():
        raise ValueError(f"--shard_base is for torchrun and configs/accelerate/ddp.yaml, not for {engine()}.")
    if options.shard_base and num_processes == 1:
        raise ValueError("--shard_base spreads the base over several processes, but this is one: use torchrun.")
    if (precision := os.environ.get("ACCELERATE_MIXED_PRECISION", "no")) != "no":
        raise ValueError(f"accelerate was given mixed_precision {precision}: set it to 'no', --bf16 decides here.")
    if engine() and options.optim == "adafactor":
        raise ValueError(f"adafactor reads whole weights, {engine()} spreads them: use configs/accelerate/ddp.yaml.")
    if engine() == "FSDP":
        plugin = FullyShardedDataParallelPlugin()
        if plugin.fsdp_version != 2 or plugin.cpu_ram_efficient_loading or plugin.activation_checkpointing:
            raise ValueError(
                "FSDP needs fsdp_version 2, no fsdp_cpu_ram_efficient_loading (stage 1 has the base in each process) "
                "and no fsdp_activation_checkpointing (give --gradient_checkpointing True for the generator's), as in "
                "configs/accelerate/fsdp.yaml."
            )
        if options.exchange_epochs > 0 or (options.thought_passes or 1) > 1:
            raise ValueError(
                "exchange_epochs and thought_passes above 1 need the generator whole in every process: use "
                "configs/accelerate/ddp.yaml or zero2.yaml."
            )
    if engine() == "DeepSpeed":
        plugin = DeepSpeedPlugin()
        asked = plugin.deepspeed_config
        if plugin.zero_stage == 3:
            raise ValueError("DeepSpeed's ZeRO-3 is not supported: use ZeRO-2, or FSDP, which spreads the weights too.")
        if any(asked.get(name, {}).get("enabled") for name in ("bf16", "fp16")):
            raise ValueError(
                "DeepSpeed's bf16 and fp16 round the weights that are trained: use its torch_autocast instead, as in "
                "configs/accelerate/zero2.json."
            )
        if (autocast := asked.get("torch_autocast", {}).get("enabled", False)) != options.autocast:
            raise ValueError(
                f"DeepSpeed's torch_autocast is {autocast}, bfloat16 autocast of this run {options.autocast}: change "
                f"DeepSpeed's file, or give --bf16 {autocast}."
            )


@contextmanager
def plain_data_parallelism() -> Iterator[None]:
    """Leaves the engine out for a while, as for stage 1: the reasoning encoder is saved by a library of its own."""
    hidden = {name: os.environ.pop(name) for name in ENGINES.values() if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def shard_base(model: SemCoTForCausalLM) -> None:
    """
    Spreads the layers of the frozen base over all processes (FSDP2); each is gathered for as long as it computes.

    Everything else stays whole in every process and is trained by data parallelism as usual, so that saving, resuming
    and the reasoning encoder know nothing of it. An adapter checkpoint holds no weight of the base.
    """
    base, decoder = model.language_model, model.language_model.base_model
    layers = [module for module in decoder.modules() if type(module).__name__ in base._no_split_modules]
    for layer in layers:
        fully_shard(layer)
    sharded = {parameter for layer in layers for parameter in layer.parameters()}
    fully_shard(decoder, ignored_params=set(decoder.parameters()) - sharded)
    frozen = [name for name, _ in model.named_parameters() if name.startswith(BASE)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, frozen)
    PartialState().print(f"Each process holds {share_held(base):.1%} of the base.")


def share_held(module: nn.Module) -> float:
    """The share of a module's weights that lies in this process between two passes."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()
    total = sum(weight.numel() for weight in module.parameters())
    held = sum((w.to_local() if isinstance(w, DTensor) else w).numel() for w in module.parameters())
    return held / total


def whole(weight: torch.Tensor) -> torch.Tensor:
    """A weight in one piece, gathered where it is spread; a call that all processes make."""
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def own_weights(model: SemCoTForCausalLM) -> dict[str, torch.Tensor]:
    """The model's weights without the base's, each in one piece; a call that all processes make."""
    weights = {name: weight for name, weight in model.state_dict().items() if not name.startswith(BASE)}
    return {name: whole(weight).cpu() if isinstance(weight, DTensor) else weight for name, weight in weights.items()}


class GradientsInBuckets:
    """A trainer whose gradients lie, in data parallelism, where they are averaged, and not there and once more."""

    def _wrap_model(self, *args, **kwargs) -> nn.Module:
        model = super()._wrap_model(*args, **kwargs)
        if self.accelerator.ddp_handler is not None:
            self.accelerator.ddp_handler.gradient_as_bucket_view = True
        return model


class ShardedTrainer(GradientsInBuckets, Trainer):
    """
    [`transformers.Trainer`] whose checkpoints, under FSDP and DeepSpeed too, hold the model's own weights in one
    `model.safetensors` and nothing of the frozen base.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.model.generator_is_sharded = self.is_fsdp_enabled
        if self.is_fsdp_enabled:
            # Autocast alone: accelerate would round gradients, and all that passes between layers, to bfloat16.
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy()
        if isinstance(self.model, FSDPModule):  # spread in an earlier phase, whose layers are no longer of their class
            self.accelerator.state.fsdp_plugin.auto_wrap_policy = None

    def train(self, *args, **kwargs):
        hook = self.model.register_load_state_dict_post_hook(_base_is_not_missing)
        try:
            output = super().train(*args, **kwargs)
        finally:
            hook.remove()
        if self.is_fsdp_enabled:
            PartialState().print(f"Each process holds {share_held(self.model):.1%} of the model.")
        return output

    def release(self) -> None:
        """Takes what DeepSpeed hung on the weights off again: the engine of a later phase would find it there."""
        if self.is_deepspeed_enabled:
            self.model_wrapped.destroy()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        weights = own_weights(self.model)
        if self.args.should_save:
            self._save(output_dir, state_dict=weights)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_fsdp_enabled:
            plugin = self.accelerator.state.fsdp_plugin
            save_fsdp_optimizer(plugin, self.accelerator, self.optimizer, self.model, output_dir)
        elif self.is_deepspeed_enabled:
            self.model_wrapped.save_checkpoint(output_dir, exclude_frozen_parameters=True)
        else:
            return super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if not self.is_fsdp_enabled:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        weights = load_file(Path(resume_from_checkpoint) / "model.safetensors")
        set_model_state_dict(self.model, weights, options=StateDictOptions(full_state_dict=True, strict=False))


def _base_is_not_missing(model: nn.Module, keys: torch.nn.modules.module._IncompatibleKeys) -> None:
    """No checkpoint of training holds the base."""
    keys.missing_keys[:] = [name for name in keys.missing_keys if not name.startswith(BASE)]
