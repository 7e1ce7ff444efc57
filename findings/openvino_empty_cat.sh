#!/usr/bin/env bash
# OpenVINO's converter (2026.4) refuses a traced `torch.cat` of an empty one-dimensional tensor and one of four
# dimensions, which PyTorch takes as the second alone, as it has since its beginnings. transformers' DynamicCache begins
# each layer with such a tensor: a decoder whose cache is filled by the cache's own `update` cannot be converted, with
# "Axis -2 out of the tensor rank range", while one that gets keys and values as they are, with a length of 0, can.
# Matters to whoever exports a decoder with its cache.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    openvino==2026.4.1 'torch>=2.13,<2.14' transformers==5.24.0
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore TRANSFORMERS_VERBOSITY=error
cd "$work"
cat >empty.py <<'PY'
import logging
from importlib.metadata import version

import openvino
import torch
from transformers import DynamicCache, LlamaConfig, LlamaModel

logging.disable(logging.WARNING)
print(*(f"{name} {version(name)}" for name in ("openvino", "torch", "transformers")), sep=", ")
config = LlamaConfig(
    vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=2,
)
model = LlamaModel(config).eval()


class Cat(torch.nn.Module):
    def forward(self, keys):
        return torch.cat([torch.tensor([]), keys], dim=-2)


class Decoder(torch.nn.Module):
    """States of tokens behind keys and values, put into the cache by `update` or as they are."""

    def __init__(self, by_update):
        super().__init__()
        self.model, self.by_update = model, by_update

    def forward(self, embeds, mask, keys, values):
        cache = DynamicCache(config=config)
        if self.by_update:
            cache.update(keys, values, 0)
        else:
            layer = cache.layers[0]
            layer.keys, layer.values, layer.is_initialized = keys, values, True
            layer.dtype, layer.device = keys.dtype, keys.device
        return self.model(inputs_embeds=embeds, attention_mask=mask, cache=cache, use_cache=True).last_hidden_state


def converted(module, *inputs):
    with torch.no_grad():
        expected = module(*inputs)
        try:
            graph = openvino.convert_model(module, example_input=inputs)
        except Exception as error:
            return f"refused: {'Axis -2 out of the tensor rank range' in str(error)}"
    run = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = torch.from_numpy(run([part.numpy() for part in inputs])[0])
    return f"equal: {torch.allclose(found, expected, atol=1e-4)}"


states = torch.randn(1, 2, 3, 8)
inputs = torch.randn(1, 2, 16), torch.zeros(1, 1, 2, 5), states, torch.randn(1, 2, 3, 8)
seen = {
    "cat of an empty tensor": converted(Cat().eval(), states),
    "cache filled by update": converted(Decoder(True).eval(), *inputs),
    "cache given as it is": converted(Decoder(False).eval(), *inputs),
}
print("expected: each converted, its results equal to torch's")
print("seen:", seen)
wanted = {
    "cat of an empty tensor": "refused: True",
    "cache filled by update": "refused: True",
    "cache given as it is": "equal: True",
}
raise SystemExit(0 if seen == wanted else "the behaviour has changed")
PY
"$work/venv/bin/python" empty.py
