#!/usr/bin/env bash
# On a CPU with AVX512-BF16, a 4-bit layer of bitsandbytes 0.50.2 repacks its weight for inference at the first
# forward in eval mode whose input needs no gradient, and stays so, in train mode as well. From then on
#  - no gradient passes the layer: the packed kernel has no backward, of which torch warns once. In a whole model
#    the residual stream goes on, so training after an evaluation runs with wrong gradients and raises nothing;
#  - state_dict() unpacks the weight but not its scales, which stay transposed: without double quantisation,
#    transformers' default, the model answers otherwise than before, and so does the checkpoint just saved.
# Matters to QLoRA on a CPU and to whoever tries a quantised model before saving it. Needs such a CPU, on Linux;
# elsewhere it says so and exits 0.
set -euo pipefail
if ! grep -qs avx512_bf16 /proc/cpuinfo; then
    echo "nothing shown: this needs Linux on a CPU with AVX512-BF16, and /proc/cpuinfo does not list avx512_bf16"
    exit 0
fi
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
from bitsandbytes.functional import has_avx512bf16
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

names = ("torch", "transformers", "accelerate", "bitsandbytes")
print(*(f"{name} {version(name)}" for name in names), sep=", ")
print("bitsandbytes sees AVX512-BF16:", has_avx512bf16())

torch.manual_seed(0)
LlamaForCausalLM(
    LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.2,
    )
).save_pretrained("base")
inputs = torch.arange(3, 12)[None]


def load(folder, **arguments):
    return LlamaForCausalLM.from_pretrained(folder, device_map="cpu", **arguments)


def input_gradient(module, values):
    """Gradient of the module's summed squares with respect to its input, None where none arrives."""
    values = values.clone().requires_grad_()
    output = module(values)
    output.square().sum().backward()
    return values.grad


def logits_of(model):
    with torch.no_grad():
        return model(inputs).logits


gradients, through_layer, kept = {}, {}, {}
for evaluated in (False, True):
    model = load("base", quantization_config=BitsAndBytesConfig(load_in_4bit=True)).train()
    embeds = model.get_input_embeddings()(inputs).detach()
    before = logits_of(model)
    if evaluated:
        before = logits_of(model.eval())
        model.train()
    gradients[evaluated] = input_gradient(lambda values, model=model: model(inputs_embeds=values).logits, embeds)
    through_layer[evaluated] = input_gradient(model.model.layers[0].mlp.up_proj, embeds)
    model.save_pretrained("saved")
    kept[evaluated] = [(logits_of(other) - before).abs().max().item() for other in (model, load("saved").train())]

print("expected: an evaluation changes neither the gradients nor what is saved")
for evaluated, gradient in gradients.items():
    arrives = "none" if through_layer[evaluated] is None else f"of norm {through_layer[evaluated].norm().item():.3g}"
    print(f"seen: {'after' if evaluated else 'without'} an evaluation: gradient through one layer {arrives}, "
          f"through the model of norm {gradient.norm().item():.3g}")
    print(f"      logits after save_pretrained off by {kept[evaluated][0]:.1e}, of the saved checkpoint by "
          f"{kept[evaluated][1]:.1e} (of {before.abs().max().item():.1e} at most)")
error = ((gradients[True] - gradients[False]).norm() / gradients[False].norm()).item()
print(f"seen: relative error of the model's gradient after an evaluation {error:.2f}")
if not (
    through_layer[False] is not None and through_layer[True] is None and error > 0.1
    and max(kept[False]) < 1e-5 and min(kept[True]) > 0.5
):
    raise SystemExit("changed: a 4-bit layer after an inference pass no longer behaves as described")
PY
