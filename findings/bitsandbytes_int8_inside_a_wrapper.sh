#!/usr/bin/env bash
# An 8-bit causal LM (bitsandbytes 0.50.2, transformers 5.24) held by another PreTrainedModel is saved without
# complaint: int8 codes and their scales go to model.safetensors, but the wrapper's config.json gets no
# quantization_config. Loading copies the codes, up to 127, into float weights; the scales are reported as
# unexpected, nothing is raised, and the logits are noise. Saving the inner model by itself works. Matters to
# every wrapper that takes a quantised base.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 transformers==5.24.0 accelerate==1.15.0 bitsandbytes==0.50.2
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
cd "$work"
"$work/venv/bin/python" - <<'PY'
import json
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, PreTrainedConfig, PreTrainedModel

names = ("torch", "transformers", "accelerate", "bitsandbytes", "safetensors")
print(*(f"{name} {version(name)}" for name in names), sep=", ")

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

    def __init__(self, config, language_model=None):
        super().__init__(config)
        self.language_model = tiny() if language_model is None else language_model
        self.post_init()

    def forward(self, input_ids):
        return self.language_model(input_ids=input_ids)


inputs = torch.arange(3, 12)[None]
tiny().save_pretrained("base")
quantised = LlamaForCausalLM.from_pretrained(
    "base", quantization_config=BitsAndBytesConfig(load_in_8bit=True), device_map="cpu"
)
wrapper = Wrapper(WrapperConfig(), quantised)
wrapper.save_pretrained("wrapper")
quantised.save_pretrained("inner")
loaded, report = Wrapper.from_pretrained("wrapper", output_loading_info=True)
inner = LlamaForCausalLM.from_pretrained("inner", device_map="cpu")
with torch.no_grad():
    expected = wrapper(inputs).logits
    outer_difference = (loaded.eval()(inputs).logits - expected).abs().max().item()
    inner_difference = (inner.eval()(input_ids=inputs).logits - expected).abs().max().item()
largest = loaded.language_model.model.layers[0].mlp.up_proj.weight.abs().max().item()
has_quantization = "quantization_config" in json.loads(Path("wrapper/config.json").read_text())
dtypes = sorted({str(tensor.dtype) for tensor in load_file("wrapper/model.safetensors").values()})

print("expected: save_pretrained refuses, or from_pretrained gives the saved model's logits")
print(f"seen: dtypes in model.safetensors {dtypes}, quantization_config in config.json: {has_quantization}")
print(f"seen: missing {len(report['missing_keys'])}, unexpected {len(report['unexpected_keys'])} tensors, "
      f"largest weight of up_proj after loading {largest:.1f}")
print(f"seen: logits off by {outer_difference:.1e} (of {expected.abs().max().item():.1e} at most); "
      f"the inner model saved alone: {inner_difference:.1e}")
if not (largest == 127 and outer_difference > 0.1 and inner_difference < 1e-5 and not has_quantization):
    raise SystemExit("changed: saving a quantised model inside a wrapper no longer behaves as described")
PY
