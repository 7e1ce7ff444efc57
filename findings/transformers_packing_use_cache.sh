#!/usr/bin/env bash
# Two sequences packed into one row, their position_ids restarting at 0, do not see each other in transformers
# 5.24 only if the forward is called with use_cache=False. With the cache on, as the model's config has it, the
# second sequence silently attends to the first. Trainer turns use_cache off in the outermost config only, so a
# model that wraps a causal LM trains on mixed sequences with DataCollatorWithFlattening, without an error or a
# warning.
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
from transformers import (
    DataCollatorWithFlattening,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "accelerate")), sep=", ")

def tiny(model_class=LlamaForCausalLM, **settings):
    torch.manual_seed(0)
    return model_class(
        LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0, **settings,
        )
    ).eval()


class WrapperConfig(PreTrainedConfig):
    model_type = "wrapper"


class Wrapper(PreTrainedModel):
    """Passes everything on to the causal LM that it holds."""

    config_class = WrapperConfig

    def __init__(self, config):
        super().__init__(config)
        self.language_model = tiny()
        self.post_init()

    def forward(self, input_ids=None, position_ids=None, labels=None):
        outputs = self.language_model(input_ids=input_ids, position_ids=position_ids, labels=labels)
        self.logits = outputs.logits.detach()
        return outputs


first, second = list(range(3, 8)), list(range(20, 26))
batch = DataCollatorWithFlattening()([{"input_ids": first}, {"input_ids": second}])
print("position_ids of the packed row:", batch["position_ids"].tolist())

model = tiny()
with torch.no_grad():
    alone = model(input_ids=torch.tensor([second])).logits
    row = {name: batch[name] for name in ("input_ids", "position_ids")}
    packed = {"default": model(**row).logits, "use_cache=False": model(**row, use_cache=False).logits}
shift = {setting: (logits[:, len(first):] - alone).abs().max().item() for setting, logits in packed.items()}

wrapper = Wrapper(WrapperConfig())
Trainer(
    model=wrapper,
    args=TrainingArguments(
        "out", max_steps=1, learning_rate=0.0, per_device_train_batch_size=2, train_sampling_strategy="sequential",
        report_to=[], save_strategy="no", use_cpu=True,
    ),
    train_dataset=[{"input_ids": first}, {"input_ids": second}],
    data_collator=DataCollatorWithFlattening(),
).train()
shift["wrapped, in Trainer"] = (wrapper.logits[:, len(first):] - alone).abs().max().item()

print("expected: the second sequence's logits are the same packed as alone, under every setting")
for setting, difference in shift.items():
    print(f"seen: {setting}: largest difference of the logits {difference:.1e}")
if not (shift["default"] > 1e-2 and shift["wrapped, in Trainer"] > 1e-2 and shift["use_cache=False"] < 1e-5):
    raise SystemExit("changed: packing and use_cache no longer behave as described")
PY
