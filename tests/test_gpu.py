"""The same paths on CUDA in bfloat16; skipped where there is no such device."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, TEXTS
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_forward_and_generate_in_bfloat16(adapter):
    tokenizer = AutoTokenizer.from_pretrained(adapter, trust_remote_code=True)
    options = {"trust_remote_code": True, "dtype": torch.bfloat16, "device_map": "cuda"}
    model = AutoModelForCausalLM.from_pretrained(adapter, **options)
    assert {p.device.type for p in model.parameters()} == {"cuda"}
    batch = tokenizer(list(TEXTS), return_tensors="pt", padding=True).to("cuda")
    output = model(**batch)
    assert output.logits.dtype == torch.bfloat16 and output.thoughts.is_cuda
    assert model.generate(**batch, max_new_tokens=4).shape[0] == 3
    reference = AutoModelForCausalLM.from_pretrained(adapter, trust_remote_code=True)(**batch.to("cpu")).logits
    similarity = torch.nn.functional.cosine_similarity(output.logits.float().cpu(), reference, dim=-1)
    assert similarity[batch.attention_mask == 1].min() > 0.98


def test_pipeline_on_the_gpu(adapter):
    answer = pipeline("text-generation", model=str(adapter), trust_remote_code=True, device="cuda", max_new_tokens=4)
    assert answer(TEXTS[0], return_full_text=False)[0]["generated_text"]


def test_training_step(adapter):
    tokenizer = AutoTokenizer.from_pretrained(adapter, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(adapter, trust_remote_code=True).to("cuda").train()
    batch = tokenizer(list(TEXTS), return_tensors="pt", padding=True).to("cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = model(**batch, logits_to_keep=1).logits.float().square().mean()
    loss.backward()
    assert model.projection.weight.grad.isfinite().all() and model.language_model.lm_head.weight.grad is None


def test_real_size():
    command = [sys.executable, "benchmarks/real_size.py", "--device", "cuda"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout)
    assert figures["sequences_shape"] == [2, 56] and figures["peak_gpu_gb"] < 5
