#!/usr/bin/env bash
# A DoRA adapter that peft 0.21.2 saved loads through transformers 5.24 (AutoModelForCausalLM.from_pretrained on
# the adapter's folder, or model.load_adapter) without its trained magnitudes: peft writes
# lora_magnitude_vector, the module has lora_magnitude_vector.NAME.weight, and transformers does not map one to
# the other. The magnitudes start anew from the base weights, the logits differ, and only the loading report
# says so. PeftModel.from_pretrained is right.
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
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "peft")), sep=", ")

def tiny(model_class=LlamaForCausalLM, **settings):
    torch.manual_seed(0)
    return model_class(
        LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0, **settings,
        )
    ).eval()


inputs = torch.arange(3, 12)[None]
tiny().save_pretrained("base")
differences = {}
for use_dora in (False, True):
    config = LoraConfig(
        task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], init_lora_weights=False, use_dora=use_dora
    )
    trained = get_peft_model(LlamaForCausalLM.from_pretrained("base"), config).eval()
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if "lora_magnitude_vector" in name:
                parameter.mul_(3)  # stands for training
        expected = trained(input_ids=inputs).logits
        trained.save_pretrained("adapter")
        by_peft = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained("base"), "adapter")
        by_transformers, report = AutoModelForCausalLM.from_pretrained("adapter", output_loading_info=True)
        differences[use_dora] = [
            (model.eval()(input_ids=inputs).logits - expected).abs().max().item()
            for model in (by_peft, by_transformers)
        ]
    print(f"use_dora={use_dora}: missing {sorted(report['missing_keys'])}")

print("expected: both ways of loading give the logits of the trained adapter")
for use_dora, (peft, transformers) in differences.items():
    print(f"seen: use_dora={use_dora}: off by {peft:.1e} through peft, {transformers:.1e} through transformers")
if not (differences[True][1] > 1e-3 and max(*differences[False], differences[True][0]) < 1e-5):
    raise SystemExit("changed: the loading of DoRA adapters no longer behaves as described")
PY
