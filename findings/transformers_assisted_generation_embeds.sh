#!/usr/bin/env bash
# Greedy generate() of transformers 5.24 writes other tokens once an assistant model or prompt lookup drafts, if
# the prompt is given as input_ids and inputs_embeds, though drafting must not change a greedy answer and the
# embeddings here are those of the ids. The first forward gets the embeddings without the drafted tokens, and the
# logits of the prompt's last positions are taken for those of the draft. From inputs_embeds alone an assistant
# model ends in a RuntimeError about reshaping zero elements; from input_ids alone all agree. The documentation of
# assisted decoding says nothing of embeddings. Matters to whoever speeds up a model with soft prompts.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
cd "$work"
"$work/venv/bin/python" - <<'PY'
from importlib.metadata import version

import torch
from transformers import LlamaConfig, LlamaForCausalLM

print(*(f"{name} {version(name)}" for name in ("torch", "transformers")), sep=", ")

def tiny(seed):
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.2,
        )
    ).eval()


model, new_tokens = tiny(0), 8
ids = torch.randint(3, 64, (1, 6)).repeat(1, 2)  # repeats, so that prompt lookup finds something to draft
embeds = model.get_input_embeddings()(ids)
prompts = {
    "input_ids": {"input_ids": ids},
    "both": {"input_ids": ids, "inputs_embeds": embeds},
    "inputs_embeds": {"inputs_embeds": embeds},
}
ways = {
    "greedy": {},
    "assistant": {"assistant_model": tiny(1)},
    "the model as its own assistant": {"assistant_model": model},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
}
seen = {}
for way, arguments in ways.items():
    for prompt, inputs in prompts.items():
        try:
            tokens = model.generate(
                **inputs, **arguments, max_new_tokens=new_tokens, do_sample=False, eos_token_id=None
            )
            seen[way, prompt] = tokens[0, -new_tokens:].tolist()
        except RuntimeError as error:
            seen[way, prompt] = f"RuntimeError: {error}"

print("expected: the same tokens in every line")
for (way, prompt), outcome in seen.items():
    print(f"seen: {way}, {prompt}: {outcome}")
greedy, *drafted = ways
expected = seen[greedy, "input_ids"]
if not (
    seen[greedy, "both"] == seen[greedy, "inputs_embeds"] == expected
    and all(seen[way, "input_ids"] == expected for way in drafted)
    and all(seen[way, "both"] != expected for way in drafted)
    and all("RuntimeError" in seen[way, "inputs_embeds"] for way in drafted[:2])
):
    raise SystemExit("changed: assisted generation from embeddings no longer behaves as described")
PY
