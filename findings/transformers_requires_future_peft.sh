#!/usr/bin/env bash
# transformers 5.24.0 asks for peft >= 0.22.0 in add_adapter, set_adapter, disable_adapters and the like, while
# 0.21.2 is the newest peft that pip finds as this is written: pip installs the two without a word (peft is no
# requirement of transformers), and every such call, also through sentence-transformers, ends in a ValueError
# that names a version nobody can install. from_pretrained and load_adapter do not check, and peft's own
# get_peft_model works.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 transformers==5.24.0 peft==0.21.2
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
cd "$work"
"$work/venv/bin/python" - <<'PY'
from importlib.metadata import version

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "peft")), sep=", ")

def tiny(model_class=LlamaForCausalLM, **settings):
    torch.manual_seed(0)
    return model_class(
        LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0, **settings,
        )
    ).eval()


config = LoraConfig(target_modules=["q_proj"])
tiny().save_pretrained("base")
get_peft_model(LlamaForCausalLM.from_pretrained("base"), config).save_pretrained("adapter")

model = LlamaForCausalLM.from_pretrained("base")
model.load_adapter("adapter")
print("load_adapter: works")

print("expected: add_adapter and disable_adapters work with the peft that load_adapter works with")
outcomes = []
for name, call in {
    "add_adapter": lambda: tiny().add_adapter(config),
    "disable_adapters": model.disable_adapters,
    "active_adapters": model.active_adapters,
}.items():
    try:
        call()
        outcomes.append("works")
    except ValueError as error:
        outcomes.append(f"ValueError: {error}")
    print(f"seen: {name}: {outcomes[-1]}")
if not all("0.22.0" in outcome for outcome in outcomes):
    raise SystemExit("changed: the check of peft's version no longer behaves as described")
PY
