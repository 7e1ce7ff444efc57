#!/usr/bin/env bash
# label_smoothing_factor of transformers 5.24's Trainer shifts the labels only if the model's class bears one of
# the library's own causal LM names. A subclass of LlamaForCausalLM under another name, or any wrapper, is
# trained to repeat the current token rather than to predict the next, without a warning; what loss_type the
# model has is not looked at. Without smoothing the model's own loss is used, and is right. Matters to every
# custom causal LM.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 transformers==5.24.0 accelerate==1.15.0
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
cd "$work"
"$work/venv/bin/python" - <<'PY'
from importlib.metadata import version

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "accelerate")), sep=", ")

def tiny(model_class=LlamaForCausalLM, **settings):
    torch.manual_seed(0)
    return model_class(
        LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0, **settings,
        )
    ).eval()


class RenamedForCausalLM(LlamaForCausalLM):
    """The same model under another name."""


sequences = [torch.arange(3, 9) + start for start in range(8)]
data = [{"input_ids": sequence, "labels": sequence} for sequence in sequences]
inputs = torch.stack(sequences)
learned = {}
for model_class in (LlamaForCausalLM, RenamedForCausalLM):
    for smoothing in (0.0, 0.1):
        model = tiny(model_class)
        arguments = TrainingArguments(
            "out", max_steps=60, learning_rate=1e-2, label_smoothing_factor=smoothing, report_to=[], use_cpu=True,
            save_strategy="no", logging_strategy="no",
        )
        Trainer(model=model, args=arguments, train_dataset=data).train()
        with torch.no_grad():
            predicted = model.eval()(input_ids=inputs).logits[:, :-1].argmax(-1)
        next_token = (predicted == inputs[:, 1:]).float().mean().item()
        same_token = (predicted == inputs[:, :-1]).float().mean().item()
        learned[model_class.__name__, smoothing] = next_token > 0.8, same_token > 0.8
        print(f"seen: {model_class.__name__}, label_smoothing_factor={smoothing}: predicts the next token in "
              f"{next_token:.0%}, the current one in {same_token:.0%} of the places")

print("expected: next tokens in all four")
right, repeats = (True, False), (False, True)
if list(learned.values()) != [right, right, right, repeats]:
    raise SystemExit("changed: label smoothing with a custom class no longer behaves as described")
PY
