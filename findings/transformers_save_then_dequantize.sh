#!/usr/bin/env bash
# save_pretrained of transformers 5.24 leaves a string in the living model's config: config.dtype is
# torch.float32 before and "float32" after. dequantize() of a bitsandbytes model, which works before, then takes
# that string for the name of a device: RuntimeError: Invalid device string. Naming the dtype by hand,
# dequantize(torch.float32), works. Matters to whoever saves a checkpoint and goes on with the same model, or
# makes tensors with model.config.dtype.
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
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "accelerate", "bitsandbytes")), sep=", ")

def tiny(model_class=LlamaForCausalLM, **settings):
    torch.manual_seed(0)
    return model_class(
        LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0, **settings,
        )
    ).eval()


tiny().save_pretrained("base")


def outcome(saved_before, *arguments):
    model = LlamaForCausalLM.from_pretrained(
        "base", quantization_config=BitsAndBytesConfig(load_in_8bit=True), device_map="cpu"
    )
    if saved_before:
        model.save_pretrained("copy")
    dtype = model.config.dtype
    try:
        layer = model.dequantize(*arguments).model.layers[0].mlp.up_proj
        return dtype, f"works, {layer.weight.dtype}"
    except RuntimeError as error:
        return dtype, f"RuntimeError: {error}"


print("expected: saving a model changes nothing in it")
results = {}
for saved_before, arguments in ((False, ()), (True, ()), (True, (torch.float32,))):
    dtype, result = results[saved_before, bool(arguments)] = outcome(saved_before, *arguments)
    print(f"seen: saved before: {saved_before}, config.dtype {dtype!r}, "
          f"dequantize({', '.join(map(str, arguments))}): {result}")
works = "works, torch.float32"
if not (results[False, False] == (torch.float32, works) and results[True, True] == ("float32", works)
        and results[True, False][0] == "float32" and "Invalid device string" in results[True, False][1]):
    raise SystemExit("changed: dequantize after save_pretrained no longer behaves as described")
PY
