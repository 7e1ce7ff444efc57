# Copyright 2026 The SemCoT Implementation Authors. Licensed under the Apache License, Version 2.0.
"""What a SemCoT checkpoint remembers (He et al., NeurIPS 2025, arXiv 2510.24940)."""

import copy

from transformers import AutoConfig, PreTrainedConfig

CHECKPOINT_KINDS = ("adapter", "full")
PLAIN_PROMPT_TEMPLATE = "Question: {question}{thoughts}\nAnswer:"
_DROPPED = {"thought_passes": 1, "base_model_revision": None, "refiner_layers": 0, "thought_layers": 0}
"""Settings of earlier versions, each with the value that changes nothing."""


class SemCoTConfig(PreTrainedConfig):
    r"""
    Configuration of [`SemCoTForCausalLM`]. `SemCoTConfig()` describes Sheared-LLaMA-1.3B (24 layers, hidden 2048)
    with a Llama generator of the 160M class (12 layers, hidden 768).

    Args:
        text_config (`PreTrainedConfig` or `dict`, *optional*):
            The frozen base language model.
        generator_config (`PreTrainedConfig` or `dict`, *optional*):
            The small causal LM that turns a question into implicit tokens. It must share the base's token ids.
        num_thoughts (`int`, *optional*, defaults to 5):
            K, the number of implicit tokens.
        thought_token_id (`int`, *optional*):
            Id of the `<thought>` placeholder. It may lie outside the base's vocabulary: it is never embedded.
            Defaults to the base's vocabulary size, the first free id.
        thought_offset (`int`, *optional*, defaults to 0):
            Which generator state becomes a thought: 0 reads the state at the placeholder itself, -1 the state one to
            its left, as the paper's released code does.
        adapter_rank (`int`, *optional*, defaults to 0):
            Rank of the low-rank updates (LoRA) of the base's own layers, which then are the generator:
            `generator_config` is the base's, and the updates are all that is stored of it. 0 for a generator with
            layers of its own.
        thoughts_per_pass (`int`, *optional*):
            With `adapter_rank`: so many thoughts, at the most, are formed at once, each pass reading what those before
            spell, until one spells the end of sequence. All K in one pass by default.
        thought_confidence (`float`, *optional*, defaults to 0.0):
            Of a pass's thoughts those are kept that come before the first, but for the very first, whose token is less
            probable than this. 0 keeps all; above 1, one thought a pass.
        share_embeddings (`bool`, *optional*, defaults to `False`):
            The generator reads the base's token embeddings and stores none (a generator cut from the base's layers).
        checkpoint_kind (`str`, *optional*, defaults to `"full"`):
            `"full"` holds the base's weights too; `"adapter"` holds all but them and names the base.
        base_model_name_or_path (`str`, *optional*):
            The base on the Hub, or its folder. Required by adapter checkpoints.
        local_base_model (`str`, *optional*):
            The folder in which this machine found the base when the checkpoint was saved; tried before the Hub and
            never uploaded.
        encoder_start_layer, encoder_end_layer (`int`, *optional*):
            Layers of the base that the reasoning encoder copies, start inclusive, end exclusive. 16 and 20 of 32 in
            the paper; the defaults scale with the depth.
        prompt_template (`str`, *optional*):
            The whole prompt of one question, with `{question}` and `{thoughts}`; what follows `{thoughts}` is the
            answer cue.
        draft_marks (`dict[int, list[int]]`, *optional*):
            The tokens behind which thoughts spell the answer, as "=", and with each what an answer begins with when it
            is written, and not when it is spelt, as a blank. `generate` drafts answers by them, and is the faster for
            it; the answers are the same.
    """

    model_type = "semcot"
    keys_to_ignore_at_inference = ["past_key_values", "cache", "thoughts"]
    sub_configs = {"text_config": AutoConfig, "generator_config": AutoConfig}

    def __init__(
        self,
        text_config: PreTrainedConfig | dict | None = None,
        generator_config: PreTrainedConfig | dict | None = None,
        num_thoughts: int = 5,
        thought_token_id: int | None = None,
        thought_offset: int = 0,
        adapter_rank: int = 0,
        thoughts_per_pass: int | None = None,
        thought_confidence: float = 0.0,
        share_embeddings: bool = False,
        checkpoint_kind: str = "full",
        base_model_name_or_path: str | None = None,
        local_base_model: str | None = None,
        encoder_start_layer: int | None = None,
        encoder_end_layer: int | None = None,
        prompt_template: str = PLAIN_PROMPT_TEMPLATE,
        draft_marks: dict[int, list[int]] | None = None,
        **kwargs,
    ):
        self.text_config = _sub_config(text_config, _SHEARED_LLAMA_1_3B)
        if adapter_rank and generator_config is None:
            generator_config = copy.deepcopy(self.text_config)
        self.generator_config = _sub_config(generator_config, _LLAMA_160M)

        self.num_thoughts = num_thoughts
        self.thought_token_id = self.text_config.vocab_size if thought_token_id is None else thought_token_id
        self.thought_offset = thought_offset
        for name, default in _DROPPED.items():
            if (value := kwargs.pop(name, default)) != default:
                raise ValueError(f"{name} is {value!r}, a setting that was dropped (docs/experiments.md): take it out.")
        self.adapter_rank = adapter_rank
        self.thoughts_per_pass, self.thought_confidence = thoughts_per_pass, thought_confidence
        whole = ("num_thoughts", "thought_token_id", "thought_offset", "adapter_rank")
        for name in whole if thoughts_per_pass is None else (*whole, "thoughts_per_pass"):
            if type(value := getattr(self, name)) is not int:  # as in a config.json that was edited by hand
                raise ValueError(f"{name} must be a whole number, got {value!r}.")
        if num_thoughts < 1:
            raise ValueError(f"num_thoughts must be at least 1, got {num_thoughts}.")
        if thought_offset not in (0, -1):
            raise ValueError(f"thought_offset must be 0 or -1, got {thought_offset}.")
        if checkpoint_kind not in CHECKPOINT_KINDS:
            raise ValueError(f"checkpoint_kind must be one of {CHECKPOINT_KINDS}, got {checkpoint_kind!r}.")
        if any(str(prompt_template).count(part) != 1 for part in ("{question}", "{thoughts}")):
            raise ValueError(f"prompt_template must hold {{question}} and {{thoughts}} once each: {prompt_template!r}.")

        if thoughts_per_pass is not None and not 1 <= thoughts_per_pass <= num_thoughts:
            raise ValueError(f"thoughts_per_pass must lie between 1 and {num_thoughts}, got {thoughts_per_pass}.")
        if type(thought_confidence) not in (int, float):
            raise ValueError(f"thought_confidence must be a number, got {thought_confidence!r}.")
        if not adapter_rank and thoughts_per_pass not in (None, num_thoughts):
            raise ValueError("Thoughts are formed in several passes by a generator with adapter_rank alone.")
        for name in ("thought_token_id", "adapter_rank"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"{name} must not be negative, got {value}.")
        self.share_embeddings = share_embeddings or bool(adapter_rank)
        self.checkpoint_kind = checkpoint_kind
        self.base_model_name_or_path = base_model_name_or_path
        self.local_base_model = local_base_model
        self.set_encoder_layers(encoder_start_layer, encoder_end_layer)
        self.prompt_template = prompt_template
        # In JSON keys are strings.
        self.draft_marks = {int(token): list(written) for token, written in (draft_marks or {}).items()}

        # Without this, wrapping a live config would reset its attention implementation to the default.
        kwargs.setdefault(
            "attn_implementation",
            {
                name: config._attn_implementation
                for name, config in (("text_config", self.text_config), ("generator_config", self.generator_config))
                if config._attn_implementation is not None
            }
            or None,
        )
        kwargs.setdefault("tie_word_embeddings", self.text_config.tie_word_embeddings)
        super().__init__(**kwargs)

    def set_encoder_layers(self, encoder_start_layer: int | None = None, encoder_end_layer: int | None = None) -> None:
        """Sets them, by default in the middle. Raises `ValueError` when they do not lie within the base."""
        depth = self.text_config.num_hidden_layers
        start = depth // 2 if encoder_start_layer is None else encoder_start_layer
        end = min(depth, start + max(1, depth // 8)) if encoder_end_layer is None else encoder_end_layer
        if not (type(start) is type(end) is int and 0 <= start < end <= depth):
            raise ValueError(f"The encoder's layers must satisfy 0 <= start < end <= {depth}, got {start} and {end}.")
        self.encoder_start_layer, self.encoder_end_layer = start, end

    def to_dict(self) -> dict:
        """As every config's, but for where the two models were loaded from, and how: what says nothing elsewhere."""
        content = super().to_dict()
        for part in ("text_config", "generator_config"):
            for field in ("_name_or_path", "quantization_config"):
                content[part].pop(field, None)
        return content

    @property
    def answer_cue(self) -> str:
        """The text between the implicit tokens and the answer, such as `"Answer:"`."""
        return self.prompt_template.split("{thoughts}")[1]


_SHEARED_LLAMA_1_3B = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 5504,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
_LLAMA_160M = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}


def _sub_config(config: PreTrainedConfig | dict | None, default: dict) -> PreTrainedConfig:
    if isinstance(config, PreTrainedConfig):
        return config
    options = dict(default if config is None else config)
    if "model_type" not in options:
        raise ValueError(f"A model's config needs its model_type, such as 'llama'; got {', '.join(options)} only.")
    return AutoConfig.for_model(options.pop("model_type"), **options)
