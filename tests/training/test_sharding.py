"""Training under the engines of configs/accelerate/, with two processes on CPUs; everything around is in the helper."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import ROOT, tiny_base_tokenizer, tiny_language_model, tiny_options
from runs import as_flags
from safetensors.torch import load_file

from semcot.sharding import _base_is_not_missing, engine, plain_data_parallelism
from semcot.training import train
from semcot.training.options import PHASES, TrainOptions

HELPER = ROOT / "tests" / "engine_on_cpu.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}
TERMS = {"loss", "answer_loss", "alignment_loss", "lens_loss", "accuracy", "lens_accuracy", "grad_norm"}
FSDP2 = {"USE_FSDP": "true", "FSDP_VERSION": "2"}
deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs deepspeed, which has no wheels")


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> TrainOptions:
    folder = tmp_path_factory.mktemp("sharding")
    base = tiny_language_model(max_position_embeddings=1024, tie_word_embeddings=True)
    base.save_pretrained(folder / "tiny-llama")
    tiny_base_tokenizer().save_pretrained(folder / "tiny-llama")
    options = tiny_options(folder / "tiny-llama", folder / "ddp")
    return replace(options, dataset=["synthetic_arithmetic"], num_samples=[60], batch_size=4, encoder_batch_size=4)


@pytest.fixture(scope="module")
def expected(options) -> TrainOptions:
    """A run by data parallelism, which the others are compared with."""
    launch("ddp.yaml", options)
    return options


@pytest.fixture(scope="module")
def expected_in_bfloat16(options) -> TrainOptions:
    folder = Path(options.output_dir).parent / "ddp-bfloat16"
    options = replace(options, output_dir=str(folder), dtype="bfloat16", bf16=True)
    launch("ddp.yaml", options)
    return options


def launch(config: str, options: TrainOptions) -> str:
    """Trains in two processes as a shipped configuration says; returns what was printed."""
    folder = Path(options.output_dir).parent
    settings = yaml.safe_load((ROOT / "configs" / "accelerate" / config).read_text())
    if "deepspeed_config" in settings:
        file = ROOT / settings["deepspeed_config"]["deepspeed_config_file"]
        changed = json.loads(file.read_text())
        changed["torch_autocast"]["enabled"] = options.autocast
        changed["zero_optimization"]["reduce_bucket_size"] = 20000  # less than one step's gradients, as in real models
        (folder / file.name).write_text(json.dumps(changed))
        settings["deepspeed_config"]["deepspeed_config_file"] = str(folder / file.name)
    (folder / config).write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(folder / config)]
    command += ["--num_processes", "2", "--main_process_port", "0", str(HELPER), str(ROOT / "train_semcot.py")]
    result = subprocess.run([*command, *as_flags(options)], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def losses(options: TrainOptions) -> dict[str, list[dict]]:
    files = {phase: Path(options.output_dir) / "phases" / phase / "losses.json" for phase in PHASES}
    return {phase: json.loads(file.read_text()) for phase, file in files.items() if file.exists()}


def check_losses(options: TrainOptions, expected: TrainOptions, terms: set[str], tolerance: float) -> int:
    """Compares every logged loss of two runs; returns how many there were."""
    compared, found = 0, losses(options)
    for phase, history in losses(expected).items():
        for entry, other in zip(history, found[phase], strict=True):
            for term in terms & entry.keys():
                assert other[term] == pytest.approx(entry[term], abs=tolerance), f"{phase}, {entry['step']}: {term}"
                compared += 1
    return compared


@pytest.mark.slow
@pytest.mark.parametrize("config", ["fsdp.yaml", pytest.param("zero2.yaml", marks=deepspeed)])
def test_an_engine_trains_as_data_parallelism_does_and_resumes(config, expected, tmp_path):
    options = replace(expected, output_dir=str(tmp_path / "run"))
    output = launch(config, options)
    if config == "fsdp.yaml":
        assert {float(share) for share in re.findall(r"holds ([\d.]+)% of the model", output)} == {50.0}
    assert check_losses(options, expected, TERMS, tolerance=1.01e-4) > 50
    weights = load_file(tmp_path / "run" / "model.safetensors")
    for name, weight in load_file(Path(expected.output_dir) / "model.safetensors").items():
        torch.testing.assert_close(weights[name], weight, atol=1e-3, rtol=1e-3)
    checkpoint = tmp_path / "run" / "phases" / "generator" / "checkpoint-4"
    assert sum(file.stat().st_size for file in checkpoint.rglob("*")) < 8 * sum(w.nbytes for w in weights.values())

    # Killed in the generator's phase, and between its last step and its end.
    for lost in (("checkpoint-5", "finished", "losses.json"), ("finished", "losses.json")):
        folder = tmp_path / f"without-{len(lost)}"
        shutil.copytree(tmp_path / "run", folder)
        for name in (folder / "model.safetensors", *(folder / "phases" / "generator" / part for part in lost)):
            shutil.rmtree(name) if name.is_dir() else name.unlink()
        launch(config, replace(options, output_dir=str(folder), resume_from_checkpoint=True))
        again = load_file(folder / "model.safetensors")
        assert all(torch.equal(again[name], weight) for name, weight in weights.items())


@pytest.mark.slow
@pytest.mark.parametrize("config", ["fsdp.yaml", pytest.param("zero2.yaml", marks=deepspeed)])
def test_in_bfloat16_weights_and_gradients_stay_in_float32(config, expected_in_bfloat16, tmp_path):
    options = replace(expected_in_bfloat16, output_dir=str(tmp_path / "run"))
    launch(config, options)
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert any(not torch.equal(weight, weight.bfloat16().float()) for weight in weights.values())
    assert check_losses(options, expected_in_bfloat16, {"loss", "answer_loss", "lens_loss"}, tolerance=0.02)
    # Gradients that are rounded on their way between processes move the norm by 1e-4, and so the next losses.
    lens, wanted = (
        [entry for entry in losses(run)["lens"] if "grad_norm" in entry] for run in (options, expected_in_bfloat16)
    )
    assert lens[0]["grad_norm"] == pytest.approx(wanted[0]["grad_norm"], rel=3e-5)
    assert [entry["loss"] for entry in lens] == pytest.approx([entry["loss"] for entry in wanted], rel=3e-5)


@pytest.mark.parametrize(
    "environment, changed, message",
    [
        ({"USE_FSDP": "true"}, {}, "FSDP needs fsdp_version 2"),
        ({**FSDP2, "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, {}, "no fsdp_cpu_ram_efficient_loading"),
        ({**FSDP2, "FSDP_ACTIVATION_CHECKPOINTING": "true"}, {}, "no fsdp_activation_checkpointing"),
        (FSDP2, {"thought_passes": 2}, "thought_passes above 1 need"),
        (FSDP2, {"exchange_epochs": 1.0, "lens_steps": 2}, "exchange_epochs"),
        (FSDP2, {"optim": "adafactor"}, "adafactor reads whole weights"),
        ({"USE_DEEPSPEED": "true"}, {"shard_base": True}, "shard_base is for .*, not for DeepSpeed"),
        ({"MIXED_PRECISION": "bf16"}, {}, "mixed_precision bf16: set it to 'no'"),
        pytest.param(
            {"USE_DEEPSPEED": "true", "DEEPSPEED_ZERO_STAGE": "3"}, {}, "ZeRO-3 is not supported", marks=deepspeed
        ),
        pytest.param(
            {"USE_DEEPSPEED": "true", "DEEPSPEED_CONFIG_FILE": "configs/accelerate/zero2.json"},
            {"bf16": False},
            "torch_autocast is True.*--bf16 True",
            marks=deepspeed,
        ),
    ],
)
def test_what_an_engine_cannot_do_is_refused_at_the_start(
    environment, changed, message, options, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    for name, value in environment.items():
        monkeypatch.setenv(name if name.startswith("FSDP_") else f"ACCELERATE_{name}", value)
    with pytest.raises(ValueError, match=message):
        train(replace(options, output_dir=str(tmp_path / "run"), **changed))
    assert not (tmp_path / "run").exists()


def test_an_engine_is_left_out_for_a_while_only(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(KeyError), plain_data_parallelism():
        assert engine() is None
        raise KeyError
    assert engine() == "FSDP"


def test_a_checkpoint_of_training_may_lack_the_base_and_nothing_else():
    keys = SimpleNamespace(missing_keys=["language_model.lm_head.weight", "projection.bias"])
    _base_is_not_missing(None, keys)
    assert keys.missing_keys == ["projection.bias"]
