#!/usr/bin/env bash
# modules_to_save of peft 0.21.2 ignores, without a word, a name that matches no module: a misspelt one, or a
# bare nn.Parameter of the model, such as a learned embedding that a wrapper adds to a causal LM. The parameter
# stays frozen and is not in the saved adapter; training runs and never touches it. target_modules raises for
# the same mistake.
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
from safetensors.torch import load_file
from torch import nn
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


class WithEmbedding(LlamaForCausalLM):
    """A causal LM with a learned vector added to its inputs."""

    def __init__(self, config):
        super().__init__(config)
        self.offset = nn.Parameter(torch.zeros(config.hidden_size))

    def forward(self, input_ids, **kwargs):
        return super().forward(inputs_embeds=self.get_input_embeddings()(input_ids) + self.offset, **kwargs)


found = {}
print("expected: the named part is trained and saved, or an error says that no module has the name")
for name in ("lm_head", "offset", "no_such_module"):
    model = get_peft_model(tiny(WithEmbedding), LoraConfig(target_modules=["q_proj"], modules_to_save=[name]))
    model.save_pretrained(name)
    trained = [n for n, parameter in model.named_parameters() if parameter.requires_grad and "lora_" not in n]
    saved = [n for n in load_file(f"{name}/adapter_model.safetensors") if "lora_" not in n]
    found[name] = bool(trained), bool(saved)
    print(f"seen: modules_to_save=[{name!r}]: trained besides LoRA {trained}, saved besides LoRA {saved}")
try:
    get_peft_model(tiny(WithEmbedding), LoraConfig(target_modules=["no_such_module"]))
    target_raises = False
except ValueError as error:
    target_raises = True
    print(f"target_modules=['no_such_module']: ValueError: {str(error)[:60]}...")
ignored = (False, False)
if not (found == {"lm_head": (True, True), "offset": ignored, "no_such_module": ignored} and target_raises):
    raise SystemExit("changed: modules_to_save no longer behaves as described")
PY
