#!/usr/bin/env bash
# AutoModelForCausalLM.from_pretrained(folder, quantization_config=None) of transformers 5.24 erases the
# quantisation of a checkpoint that was saved quantised: None, which is the argument's default, goes through
# AutoConfig into the config and overwrites quantization_config there. A bitsandbytes 8-bit checkpoint then loads
# with its int8 codes, up to 127, as float weights; the scales are reported as unexpected, nothing is raised. A
# 4-bit checkpoint ends in an error about shapes. LlamaForCausalLM with the same argument loads both as saved.
# Matters to whoever passes an optional quantization_config on.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 transformers==5.24.0 accelerate==1.15.0 bitsandbytes==0.50.2
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
cd "$work"
"$work/venv/bin/python" - <<'PY'
from importlib.metadata import version

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

names = ("torch", "transformers", "accelerate", "bitsandbytes")
print(*(f"{name} {version(name)}" for name in names), sep=", ")

torch.manual_seed(0)
LlamaForCausalLM(
    LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )
).save_pretrained("base")
inputs = torch.arange(3, 12)[None]
seen = {}
for bits in ("load_in_8bit", "load_in_4bit"):
    quantised = AutoModelForCausalLM.from_pretrained(
        "base", quantization_config=BitsAndBytesConfig(**{bits: True}), device_map="cpu"
    )
    quantised.save_pretrained(bits)
    with torch.no_grad():
        expected = quantised(inputs).logits
    for model_class in (AutoModelForCausalLM, LlamaForCausalLM):
        for arguments in ({}, {"quantization_config": None}):
            case = bits, model_class.__name__, bool(arguments)
            try:
                loaded, report = model_class.from_pretrained(
                    bits, device_map="cpu", output_loading_info=True, **arguments
                )
            except RuntimeError as error:
                seen[case] = "RuntimeError", str(error)
                continue
            with torch.no_grad():
                difference = (loaded(inputs).logits - expected).abs().max().item()
            layer = loaded.model.layers[0].mlp.up_proj
            seen[case] = (
                type(layer).__name__, str(layer.weight.dtype), layer.weight.abs().max().item(),
                f"{len(report['unexpected_keys'])} unexpected", f"logits off by {difference:.1e}",
            )
    print(f"largest logit, {bits}: {expected.abs().max().item():.1e}")

print("expected: quantization_config=None, the default, changes nothing")
for (bits, name, passed), outcome in seen.items():
    print(f"seen: {bits}, {name}{', quantization_config=None' if passed else ''}:", *outcome)
same = [seen["load_in_8bit", "LlamaForCausalLM", passed] for passed in (False, True)]
same.append(seen["load_in_8bit", "AutoModelForCausalLM", False])
if not (
    seen["load_in_8bit", "AutoModelForCausalLM", True][:3] == ("Linear", "torch.float32", 127)
    and seen["load_in_4bit", "AutoModelForCausalLM", True][0] == "RuntimeError"
    and all(outcome[0] == "Linear8bitLt" for outcome in same)
    and seen["load_in_4bit", "LlamaForCausalLM", True][0] == "Linear4bit"
):
    raise SystemExit("changed: quantization_config=None no longer behaves as described")
PY
