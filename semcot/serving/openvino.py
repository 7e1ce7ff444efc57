"""
OpenVINO as the engine of generator and base, for CPUs. `model.generate`, and all that goes through it, stays as it is:

    model = with_openvino(SemCoTForCausalLM.from_pretrained(PATH, dtype=torch.bfloat16))
    model.generate(...)

What it is worth is in docs/serving.md. The layers' own weights stay in memory beside OpenVINO's copies, and what is
saved is what was loaded.
"""

import copy
from collections.abc import Callable
from threading import Lock

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.modeling_outputs import BaseModelOutputWithPast

from modeling_semcot import CACHE, SemCoTForCausalLM
from prefix_semcot import ROTATIONS

try:
    import openvino
except ImportError as error:
    raise ImportError("The OpenVINO engine needs: pip install 'semcot[openvino]'") from error

PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}
"""What is multiplied, by a model's dtype; bfloat16 only where the CPU has it (AVX-512 BF16 or AMX)."""


def with_openvino(model: SemCoTForCausalLM, threads: int | None = None) -> SemCoTForCausalLM:
    """
    The same model, frozen, whose generator, base and head are run by OpenVINO; the embeddings stay with torch.

    Args:
        model: on a CPU. Of layers and head there are copies: load other weights, and call this again.
        threads: that a pass takes; as many as torch's by default.

    Raises:
        ValueError: layers or head are elsewhere, in another dtype than float32 or bfloat16 or in several, quantised or
            of a kind that OpenVINO cannot run as they are; or a single thread is to multiply bfloat16 by AMX, where
            OpenVINO (2026.4) ends the process. The model is as before.
    """
    base, adapted = model.language_model.base_model, model.config.adapter_rank > 0
    stacks = {"generator": base if adapted else model.generator, "base": base}
    head, threads = model.get_output_embeddings(), threads or torch.get_num_threads()
    parts = stacks | ({"head": head} if type(head) is nn.Linear else {})
    for name, part in parts.items():
        weights = list(part.parameters())
        if any(type(weight) is not nn.Parameter or weight.device.type != "cpu" for weight in weights):
            raise ValueError(
                f"OpenVINO takes models on a CPU, and quantised by no other library; the {name} is not so."
            )
        if len(dtypes := {weight.dtype for weight in weights}) > 1 or not dtypes <= PRECISIONS.keys():
            found = ", ".join(sorted(map(str, dtypes)))
            raise ValueError(f"OpenVINO takes layers that are in float32 or in bfloat16; the {name} is in {found}.")
    in_bfloat16 = any(weight.dtype is torch.bfloat16 for part in parts.values() for weight in part.parameters())
    if in_bfloat16 and threads == 1 and getattr(torch.cpu, "get_capabilities", dict)().get("amx_bf16"):
        raise ValueError(
            "OpenVINO does not compile bfloat16 for a single thread on a CPU with AMX: give it 2 threads, or load the "
            "model in float32."
        )
    for name, stack in stacks.items():
        rotary = getattr(stack.config, "rope_parameters", None) or {}
        if rotary.get("rope_type") not in ROTATIONS or not _keeps_all(DynamicCache(config=stack.config)):
            raise ValueError(
                f"OpenVINO runs layers that keep all keys and values, rotated by a token's own place ("
                f"{', '.join(ROTATIONS)}); the {name}'s, a {type(stack).__name__}'s, are none."
            )
    if adapted:
        parts["generator"] = model.generator.merged(base)
    engines = {}
    for name, part in parts.items():
        try:
            engines[name] = (OpenVINOStack if name in stacks else OpenVINOHead)(part, threads)
        except Exception as error:  # of the conversion, which has none of its own, or of the tracing in it
            raise ValueError(f"OpenVINO cannot run the {name}, a {type(part).__name__}: {error}") from error
    for name, part in parts.items():
        part.forward = engines[name]
    if adapted:
        engines["generator"].stack = base  # not the merged layers, which were compiled
        model.generator.engine = engines["generator"]
    return model.requires_grad_(False).eval()


class OpenVINOStack:
    """
    The forward of a decoder stack without gradients: hidden states of embeddings, behind what a cache holds.

    Args:
        stack: the layers; its config, and its look-up of token ids, stay in use.
        threads: that a pass takes.
    """

    has_own_weights = True  # by which prefix_semcot.py knows that its states follow from the embeddings alone

    def __init__(self, stack: PreTrainedModel, threads: int) -> None:
        self.stack = stack
        self.run = _compiled(_Flat, stack, _example(stack, rows=2, past=3, length=5), threads)

    def __call__(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        cache: Cache | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPast:
        """As of the stack; what else it might return is refused."""
        if asked := sorted(name for name, value in kwargs.items() if name.startswith("output_") and value):
            raise ValueError(f"OpenVINO returns the last hidden states alone: leave {asked[0]} out.")
        if torch.is_grad_enabled() and inputs_embeds is not None and inputs_embeds.requires_grad:
            raise ValueError("OpenVINO passes no gradient on: train the model before it gets this engine.")
        embeds = self.stack.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
        cache = past_key_values if cache is None else cache
        if cache is None and use_cache is not False:
            cache = DynamicCache(config=self.stack.config)
        if cache is not None and not _keeps_all(cache):
            raise ValueError(f"OpenVINO goes on from a DynamicCache: leave the {type(cache).__name__} out.")
        rows, length = embeds.shape[:2]
        held = _states(self.stack, cache, rows)
        past = held[0].shape[2]
        if position_ids is None:
            position_ids = torch.arange(past, past + length)
        mask = _additive_mask(attention_mask, rows, past, length)
        inputs = [embeds.float(), mask, position_ids.expand(rows, length), *held]
        states, *new = self.run(*inputs)
        if cache is not None:
            for layer in range(len(new) // 2):
                cache.update(new[2 * layer], new[2 * layer + 1], layer)
        return BaseModelOutputWithPast(
            last_hidden_state=states.to(embeds.dtype), **{CACHE: cache if use_cache is not False else None}
        )


class OpenVINOHead:
    """The forward of an output table: logits of states."""

    def __init__(self, head: nn.Linear, threads: int) -> None:
        self.run = _compiled(nn.Sequential, head, (torch.zeros(2, 3, head.in_features),), threads)

    def __call__(self, states: torch.FloatTensor) -> torch.FloatTensor:
        return self.run(states.float())[0].to(states.dtype)


def _compiled(
    wrap: Callable[[nn.Module], nn.Module], module: nn.Module, example: tuple[torch.Tensor, ...], threads: int
) -> Callable[..., list[torch.Tensor]]:
    """The wrapped module as a function, calculated in the module's dtype if the CPU has it, from float32 to float32."""
    dtype = next(module.parameters()).dtype
    module = copy.deepcopy(module).float()  # of float32 weights OpenVINO would share some
    vars(module).pop("forward", None)  # an earlier engine's
    with torch.no_grad():
        graph = openvino.convert_model(wrap(module.eval()), example_input=example)
    core, precision = openvino.Core(), PRECISIONS[dtype]
    # Elsewhere OpenVINO (2026.4) imitates bfloat16, and rows that are padded on the left come out as NaN.
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        precision = "f32"
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
    request = core.compile_model(graph, "CPU", settings | {"PERFORMANCE_HINT": "LATENCY"}).create_infer_request()
    lock = Lock()

    def run(*inputs: torch.Tensor) -> list[torch.Tensor]:
        with lock:
            outputs = request.infer([part.numpy(force=True) for part in inputs], share_inputs=True)
        return [torch.from_numpy(output) for output in outputs.values()]

    return run


class _Flat(nn.Module):
    """A stack as a function of tensors alone: embeddings, mask, positions, keys and values; and those of new tokens."""

    def __init__(self, stack: PreTrainedModel) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, embeds, mask, position_ids, *states):
        cache = DynamicCache(config=self.stack.config)
        for layer, keys, values in zip(cache.layers, states[::2], states[1::2], strict=True):
            layer.keys, layer.values, layer.is_initialized = keys, values, True
            layer.dtype, layer.device = keys.dtype, keys.device
        known = {"attention_mask": mask, "position_ids": position_ids, CACHE: cache}
        outputs = self.stack(inputs_embeds=embeds, use_cache=True, **known)
        past = states[0].shape[2]
        new = [part[:, :, past:] for layer in cache.layers for part in (layer.keys, layer.values)]
        return outputs.last_hidden_state, *new


def _keeps_all(cache: Cache) -> bool:
    """Whether a cache keeps keys and values of each token, as they come."""
    return isinstance(cache, DynamicCache) and all(type(layer) is DynamicLayer for layer in cache.layers)


def _example(stack: PreTrainedModel, rows: int, past: int, length: int) -> tuple[torch.Tensor, ...]:
    width = stack.config.hidden_size
    states = [part.new_zeros(rows, part.shape[1], past, part.shape[3]) for part in _states(stack, None, rows)]
    positions = torch.arange(past, past + length).expand(rows, length)
    return torch.zeros(rows, length, width), _additive_mask(None, rows, past, length), positions, *states


def _states(stack: PreTrainedModel, cache: Cache | None, rows: int) -> list[torch.Tensor]:
    """Keys and values in turn, `(rows, heads, past, head size)`, of what a cache holds."""
    config = stack.config
    if cache is None or not cache.get_seq_length():
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return [torch.zeros(rows, heads, 0, size)] * (2 * config.num_hidden_layers)
    return [part.float() for layer in cache.layers for part in (layer.keys, layer.values)]


def _additive_mask(attention_mask: torch.Tensor | None, rows: int, past: int, length: int) -> torch.FloatTensor:
    """`(rows, 1, length, past + length)`: 0 where a token may look, the lowest number elsewhere."""
    lowest = torch.finfo(torch.float32).min
    if attention_mask is not None and attention_mask.ndim == 4:
        is_additive = attention_mask.dtype != torch.bool
        return attention_mask.float() if is_additive else torch.where(attention_mask, 0.0, lowest)
    columns = torch.arange(past + length)
    seen = columns <= columns[past:, None]
    if attention_mask is not None:
        seen = seen & (attention_mask[:, None, None, :] != 0)
    return torch.where(seen, 0.0, lowest).expand(rows, 1, length, past + length)
