"""Tiny random models that are written in a second and behave like the real ones."""

import os
from pathlib import Path

import huggingface_hub
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, set_seed
from transformers.models.auto.configuration_auto import AutoConfig

from modeling_semcot import SemCoTForCausalLM
from semcot.tokenization import build_tokenizer

ROOT = Path(__file__).resolve().parents[1]
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}  # of the processes that tests start
huggingface_hub.constants.HF_HUB_OFFLINE = True
torch.set_num_threads(1)

FAMILIES = ("llama", "mistral", "qwen2", "gpt2")
# What others do that these do not: embeddings and norms that are scaled, by Granite inside the stack; windows; MPT's
# positions, which count columns; states that every token changes.
_HEADS = {"head_dim": 8, "query_pre_attn_scalar": 8}
OTHERS = {
    "gemma2": _HEADS,
    "gemma3_text": _HEADS | {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "granite": {"embedding_multiplier": 12.0, "residual_multiplier": 0.5},
    "phi": {},
    "mpt": {"d_model": 32, "n_layers": 4, "n_heads": 4, "max_seq_len": 512, "expansion_ratio": 2},
    "qwen3_5_text": {
        "head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
    },
}
TEXTS = (
    "Paige had 11 songs on her player. If she deleted 9 old songs and added 8 new ones, how many songs does she have?",
    "A coin is heads up. rushawn flips the coin. yerania does not flip the coin. Is the coin still heads up?",
    "The answer is 1234567890. yes no Question: Answer: Think step by step, then give the final answer.",
)
QUESTIONS = [text[: 20 + 9 * i] for i, text in enumerate(TEXTS * 3)]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tiny_base_tokenizer(chat: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level BPE of about 300 tokens, trained on three sentences; with or without a chat format."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHAT_TEMPLATE if chat else None
    return fast


def tiny_language_model(family: str = "llama", vocab_size: int = 330, seed: int = 0, **options):
    """A random causal LM: 4 layers of width 32."""
    set_seed(seed)
    sizes = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
        # Wide enough that greedy choices are clear: two tokens are never equally likely but for rounding.
        "initializer_range": 0.2,
    }
    if family == "gpt2":
        sizes |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    else:
        sizes |= {"intermediate_size": 64, "num_key_value_heads": 2}
    config = AutoConfig.for_model(family, **(sizes | OTHERS.get(family, {}) | options))
    return AutoModelForCausalLM.from_config(config).eval()


def tiny_semcot(family: str = "llama", generator=2, chat: bool = True, num_thoughts: int = 3, **options):
    """
    A tiny SemCoT model and its tokenizer; the generator is so many of the base's first layers, the model that is given,
    the base itself ("base"), or, for `None`, a narrower one.
    """
    tokenizer, prompt_template = build_tokenizer(tiny_base_tokenizer(chat), num_thoughts)
    base = tiny_language_model(family)
    if generator == "base":
        generator = None
    elif generator is None:
        generator = tiny_language_model(family, hidden_size=16, num_hidden_layers=2, seed=1)
    model = SemCoTForCausalLM.from_components(
        base,
        generator,
        num_thoughts=num_thoughts,
        tokenizer=tokenizer,
        prompt_template=prompt_template,
        **options,
    )
    return model, tokenizer


def tiny_options(base: Path, folder: Path):
    """A recipe with every kind of stage, for a tiny base."""
    from semcot.training.options import Stage, TrainOptions

    started = ["projection", "thought_embedding"]
    all_losses = {"answer": 0.5, "alignment": 0.5, "token_supervision": 0.5}
    return TrainOptions(
        output_dir=str(folder),
        base_model=str(base),
        generator=2,
        dataset={"synthetic_coin_flip": 40, "synthetic_arithmetic": 60},
        validation_fraction=0.1,
        validation_by_template=False,
        stages=[
            Stage(name="dense", train=["reasoning_encoder.dense"], learning_rate=1e-3, batch_size=8),
            Stage(name="all", train=["reasoning_encoder"], learning_rate=1e-5, batch_size=8),
            Stage(name="warm_up", train=started, losses=all_losses, epochs=0.5, learning_rate=1e-3, batch_size=8),
            Stage(name="thoughts", train=[*started, "generator"], losses={"token_supervision": 1.0}, batch_size=8),
            Stage(name="generator", train=[*started, "generator"], losses=all_losses, batch_size=8),
        ],
        max_steps=5,
        trainer={"eval_steps": 5, "save_steps": 2, "logging_steps": 1, "bf16": False},
    )


def prompts(tokenizer, questions=tuple(QUESTIONS[:3]), **kwargs):
    """A batch of padded prompts, of different lengths."""
    return tokenizer(list(questions), return_tensors="pt", padding=True, **kwargs)


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def killed_at_renames(monkeypatch):
    """The process ends where a file that was written aside would get its name."""

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)


@pytest.fixture
def semcot():
    return tiny_semcot()


def write_adapter(folder: Path, **options) -> Path:
    """Writes an adapter checkpoint with its base in `models/` beside it; returns its folder."""
    told = {"base_model_name_or_path": "someone/tiny-llama", "checkpoint_kind": "adapter"}
    model, tokenizer = tiny_semcot(**told, **options)
    model.language_model.save_pretrained(folder / "models" / "tiny-llama")
    tokenizer.save_pretrained(folder / "models" / "tiny-llama")
    model.save_pretrained(folder / "checkpoint")
    tokenizer.save_pretrained(folder / "checkpoint")
    return folder / "checkpoint"


@pytest.fixture
def adapter(tmp_path):
    return write_adapter(tmp_path)


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny_language_model(max_position_embeddings=1024).save_pretrained(folder)
    tiny_base_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def options(base, tmp_path):
    return tiny_options(base, tmp_path / "run")


@pytest.fixture(scope="session")
def finished(base, tmp_path_factory) -> tuple:
    """One run to the end, shared by the tests that look at what it left."""
    from semcot.training import train

    options = tiny_options(base, tmp_path_factory.mktemp("finished") / "run")
    train(options)
    return options, Path(options.output_dir)
