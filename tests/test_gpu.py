"""The same paths on CUDA in bfloat16; skipped where there is no such device."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TEXTS, tiny_base_tokenizer, tiny_language_model, tiny_options
from safetensors.torch import load_file
from training_runs import answers_alone, assert_same_weights, check_losses, histories, run
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from semcot.training.options import TrainOptions

TERMS = {"loss", "answer_loss", "alignment_loss"}
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
    found, wanted = (logits[batch.attention_mask == 1] for logits in (output.logits.float().cpu(), reference))
    assert found.isfinite().all()
    # Of random weights this wide apart, rounding may turn a few positions about, and no more.
    assert torch.nn.functional.cosine_similarity(found, wanted, dim=-1).quantile(0.05) > 0.99


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


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> TrainOptions:
    """A run of all stages, in bfloat16 as is the default on a GPU, which others are compared with."""
    folder = tmp_path_factory.mktemp("gpu")
    tiny_language_model(max_position_embeddings=1024).save_pretrained(folder / "tiny-llama")
    tiny_base_tokenizer().save_pretrained(folder / "tiny-llama")
    options = tiny_options(folder / "tiny-llama", folder / "run")
    options = replace(options, trainer={**options.trainer, "bf16": None})
    run(options)
    return options


def test_the_same_seed_gives_the_same_weights(trained, tmp_path):
    run(replace(trained, output_dir=str(tmp_path / "again")))
    assert_same_weights(tmp_path / "again", Path(trained.output_dir))
    weights = load_file(Path(trained.output_dir) / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    record = json.loads((Path(trained.output_dir) / "training.json").read_text())
    assert 0 < min(record["peak_memory_gb"].values()) and record["device"] == torch.cuda.get_device_name()


def test_data_parallelism_by_accelerate(trained, tmp_path):
    """With one process, which NCCL takes like any other number."""
    options = replace(trained, output_dir=str(tmp_path / "run"))
    config = str(ROOT / "configs" / "accelerate" / "ddp.yaml")
    launcher = ["-m", "accelerate.commands.launch", "--config_file", config, "--num_processes", "1"]
    assert check_losses(run(options, *launcher, "--main_process_port", "0"), histories(trained), TERMS, 0.02)


@pytest.mark.slow
def test_compiled_the_losses_are_the_same(trained, tmp_path):
    expected = answers_alone(replace(trained, output_dir=str(tmp_path / "expected")))
    compiled = {**trained.trainer, "torch_compile": True}
    compiled = replace(expected, output_dir=str(tmp_path / "run"), trainer=compiled)
    assert check_losses(run(compiled), run(expected), {"answer_loss", "loss"}, 0.02)
