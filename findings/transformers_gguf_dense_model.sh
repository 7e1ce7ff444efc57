#!/usr/bin/env bash
# A GGUF file loaded with gguf_file= in transformers 5.24 becomes, where no kernel takes its blocks, a plain
# model: float32 weights in nn.Linear. Yet it counts as quantised: save_pretrained raises "is not serializable"
# and Trainer refuses to train it, even if the file held float32 to begin with. The same weights loaded with
# GgufConfig(dequantize=True), which the documentation calls the automatic fallback, can be saved and trained.
# Matters to whoever fine-tunes GGUF weights.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 transformers==5.24.0 accelerate==1.15.0 gguf==0.19.0
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
cd "$work"
"$work/venv/bin/python" - <<'PY'
from importlib.metadata import version

import gguf
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GgufConfig, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "gguf")), sep=", ")

def tiny(model_class=LlamaForCausalLM, **settings):
    torch.manual_seed(0)
    return model_class(
        LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0, **settings,
        )
    ).eval()


NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "model.layers": "blk",
}


def write_gguf(path, quantization):
    """A tiny Llama as a GGUF file, its matrices in `quantization`."""
    model = tiny()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(64)
    for name, tensor in model.state_dict().items():
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        kind = gguf.GGMLQuantizationType.F32 if tensor.ndim == 1 else quantization
        writer.add_tensor(name, gguf.quants.quantize(tensor.numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def attempt(call, model):
    try:
        call(model)
        return "works"
    except ValueError as error:
        return f"ValueError: {error}"


def save(model):
    model.save_pretrained("saved")


def train(model):
    data = [{"input_ids": torch.arange(3, 9), "labels": torch.arange(3, 9)}]
    arguments = TrainingArguments("out", max_steps=1, report_to=[], use_cpu=True, save_strategy="no")
    Trainer(model=model, args=arguments, train_dataset=data).train()


write_gguf("q8.gguf", gguf.GGMLQuantizationType.Q8_0)
write_gguf("f32.gguf", gguf.GGMLQuantizationType.F32)
print("expected: the fallback gives what dequantize=True gives, a model that can be saved and trained")
outcomes = []
for file in ("q8.gguf", "f32.gguf"):
    for arguments in ({}, {"quantization_config": GgufConfig(dequantize=True)}):
        model = AutoModelForCausalLM.from_pretrained(".", gguf_file=file, **arguments)
        layer = model.model.layers[0].mlp.up_proj
        dense = type(layer) is nn.Linear and layer.weight.dtype == torch.float32
        saved, trained = attempt(save, model), attempt(train, model)
        outcomes.append((dense, saved == "works", trained == "works"))
        print(f"seen: {file}, {'dequantize=True' if arguments else 'default'}: {type(layer).__name__} in "
              f"{layer.weight.dtype}; save_pretrained: {saved[:70]}; Trainer: {trained[:70]}")
if outcomes != [(True, False, False), (True, True, True)] * 2:
    raise SystemExit("changed: a dense model from GGUF no longer behaves as described")
PY
