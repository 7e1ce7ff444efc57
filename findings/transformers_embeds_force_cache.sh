#!/usr/bin/env bash
# generate(inputs_embeds=..., use_cache=False) of transformers 5.24 sets use_cache back to True: the result holds
# a cache, and every step after the first sees a single token. A comment in the source calls the cache needed;
# neither the documentation of use_cache nor a warning says so. With input_ids the argument is obeyed. Matters to
# whoever checks a cache against decoding without one, since from embeddings the two runs are the same.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
cd "$work"
"$work/venv/bin/python" - <<'PY'
import warnings
from importlib.metadata import version

import torch
from transformers import LlamaConfig, LlamaForCausalLM

print(*(f"{name} {version(name)}" for name in ("torch", "transformers")), sep=", ")

torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )
).eval()
ids = torch.randint(3, 64, (1, 12))
embeds = model.get_input_embeddings()(ids)
lengths = []
model.model.layers[0].register_forward_pre_hook(lambda layer, inputs: lengths.append(inputs[0].shape[1]))

print("expected: use_cache=False decodes without a cache, or is refused")
seen = {}
for name, inputs in {
    "input_ids": {"input_ids": ids},
    "inputs_embeds": {"inputs_embeds": embeds},
    "both": {"input_ids": ids, "inputs_embeds": embeds},
}.items():
    lengths.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = model.generate(
            **inputs, use_cache=False, max_new_tokens=3, do_sample=False, eos_token_id=None,
            return_dict_in_generate=True,
        )
    seen[name] = type(result.cache).__name__, list(lengths)
    print(f"seen: {name}: cache {seen[name][0]}, tokens seen a step {seen[name][1]}, {len(caught)} warnings")
without, with_cache = ("NoneType", [12, 13, 14]), ("DynamicCache", [12, 1, 1])
if not (list(seen.values()) == [without, with_cache, with_cache]):
    raise SystemExit("changed: use_cache=False with embeddings no longer behaves as described")
PY
