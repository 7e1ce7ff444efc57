#!/usr/bin/env bash
# Prefix tuning (peft 0.21.2) has no effect in generate() of transformers 5.24 with its KV cache on: the logits
# are those of the untouched base model, while forward uses the prefix. transformers hands the KV cache on as
# cache=, peft looks for past_key_values=, and of two the old name is ignored (a FutureWarning). For the same
# reason prompt tuning inserts its virtual tokens again before every new token. Whoever evaluates such adapters
# by generation, or wraps prepare_inputs_for_generation, is concerned.
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
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
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


prompt = torch.arange(3, 12)[None]
base = tiny()
differences = {}
for name, config in {
    "LoRA": LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], init_lora_weights=False),
    "prefix tuning": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "prompt tuning": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
}.items():
    model = get_peft_model(tiny(), config).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "prompt_encoder" in parameter_name:
                parameter.copy_(torch.randn_like(parameter))
        generated = model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=4, do_sample=False,
            eos_token_id=None, output_logits=True, return_dict_in_generate=True,
        )
        for step, logits in enumerate(generated.logits):
            tokens = generated.sequences[:, : prompt.shape[1] + step]
            forward = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits[:, -1]
            differences[name, step] = (
                (logits - forward).abs().max().item(),
                (logits - base(input_ids=tokens).logits[:, -1]).abs().max().item(),
            )

print("expected: generate's logits are those of the adapter's own forward at every step")
for (name, step), (from_forward, from_base) in differences.items():
    print(f"seen: {name}, new token {step}: {from_forward:.1e} from forward, {from_base:.1e} from the base model")
lora_right = all(differences["LoRA", step][0] < 1e-5 for step in range(4))
prefix_ignored = all(differences["prefix tuning", step][1] < 1e-5 < differences["prefix tuning", step][0]
                     for step in range(4))
prompt_wrong = all((differences["prompt tuning", step][0] > 1e-3) == (step > 0) for step in range(4))
if not (lora_right and prefix_ignored and prompt_wrong):
    raise SystemExit("changed: prompt learning in generate no longer behaves as described")
PY
