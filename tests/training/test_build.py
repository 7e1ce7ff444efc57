"""The model that a run trains: from a base, a generator or another checkpoint."""

import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import ROOT, tiny_base_tokenizer, tiny_language_model, tiny_semcot
from safetensors.torch import load_file
from torch import nn
from training_runs import ENVIRONMENT, as_flags
from transformers import AutoModelForCausalLM, AutoTokenizer

from configuration_semcot import SemCoTConfig
from modeling_semcot import SemCoTForCausalLM
from semcot.training.build import build_model, train_only
from semcot.training.run import prepare


@pytest.mark.skipif(torch.cuda.is_available(), reason="about training on a CPU")
@pytest.mark.parametrize(
    "bf16, given, taken",
    [(True, None, "eager"), (False, None, "sdpa"), (True, "sdpa", "sdpa"), (False, "eager", "eager")],
)
def test_attention_is_the_one_that_is_fast_there_unless_told_otherwise(options, finished, tmp_path, bf16, given, taken):
    options = replace(options, trainer={"bf16": bf16}, attn_implementation=given)
    for goes_on in ({"generator": str(finished[1])}, {}):
        model, _ = build_model(replace(options, **goes_on))
        parts = (model.language_model, model.generator)
        assert {part.config._attn_implementation for part in parts} == {taken}
    model.save_pretrained(tmp_path / "saved")
    assert "attn" not in (tmp_path / "saved/config.json").read_text(), "a checkpoint does not remember it"


def test_what_is_asked_for_is_built(options):
    own = {"generator": 3, "num_thoughts": 6, "thought_offset": -1, "encoder_layers": [1, 2]}
    model, tokenizer = build_model(replace(options, **own, dtype="bfloat16"))
    config = model.config
    assert (config.generator_config.num_hidden_layers, config.thought_offset) == (3, -1)
    assert (config.encoder_start_layer, config.encoder_end_layer) == (1, 2)
    assert config.num_thoughts == tokenizer("How many?").input_ids.count(config.thought_token_id) == 6
    own = {weight.dtype for name, weight in model.named_parameters() if not name.startswith("language_model.")}
    assert own == {torch.float32} and model.language_model.dtype == torch.bfloat16


def test_a_named_generator(options, tmp_path):
    small = tmp_path / "small"
    tiny_language_model(hidden_size=16, max_position_embeddings=1024).save_pretrained(small)
    tiny_base_tokenizer().save_pretrained(small)
    model, _ = build_model(replace(options, generator=str(small)))
    assert model.projection.weight.shape == (32, 16) and not model.config.share_embeddings
    tiny_language_model(hidden_size=16, max_position_embeddings=64).save_pretrained(small)
    with pytest.raises(ValueError, match="the models read at most 64"):
        prepare(replace(options, generator=str(small)))


def test_a_generator_with_other_token_ids(options, tmp_path):
    other = tmp_path / "other"
    tiny_language_model(hidden_size=16, vocab_size=340, max_position_embeddings=1024).save_pretrained(other)
    tokenizer = tiny_base_tokenizer()
    tokenizer.add_tokens(["extra"])
    assert len(tokenizer.get_vocab()) < 340
    tokenizer.save_pretrained(other)
    base = AutoTokenizer.from_pretrained(options.base_model)
    base.add_tokens(["another", "extra"])
    base.save_pretrained(tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(options.base_model).save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match="other token ids than the base"):
        build_model(replace(options, base_model=str(tmp_path / "base"), generator=str(other)))


def test_training_goes_on_from_a_checkpoint(options, finished):
    options = replace(options, generator=str(finished[1]))
    model, _ = build_model(options)
    saved = load_file(finished[1] / "model.safetensors")
    assert all(torch.equal(model.state_dict()[name], saved[name]) for name in saved)
    for name, own, other in (("num_thoughts", 5, 4), ("thought_offset", 0, -1)):
        with pytest.raises(ValueError, match=f"has {name} {own}; give --{name} {own}"):
            build_model(replace(options, **{name: other}))


def test_trained_on_with_other_layers_for_the_encoder(options, finished):
    own = replace(options, generator=str(finished[1]))
    for given, layers in ((None, (2, 3)), ([3, 4], (3, 4)), ([0, 2], (0, 2))):
        config = build_model(replace(own, encoder_layers=given))[0].config
        assert (config.encoder_start_layer, config.encoder_end_layer) == layers
    with pytest.raises(ValueError, match="0 <= start < end <= 4, got 4 and 5"):
        build_model(replace(own, encoder_layers=[4, 5]))


def test_training_goes_on_from_a_full_checkpoint_with_the_base_that_is_given(options, finished, tmp_path):
    model = SemCoTForCausalLM.from_pretrained(finished[1])
    nn.init.zeros_(model.language_model.lm_head.weight)
    model.save_pretrained(tmp_path / "full", checkpoint_kind="full")
    goes_on, _ = build_model(replace(options, generator=str(tmp_path / "full")))
    assert torch.equal(goes_on.projection.weight, model.projection.weight)
    assert goes_on.language_model.lm_head.weight.any() and goes_on.config.checkpoint_kind == "adapter"


def test_a_base_beside_the_code_is_found_from_elsewhere(options, base, tmp_path, monkeypatch):
    shutil.copytree(base, tmp_path / "clone" / "models" / "tiny-llama")
    monkeypatch.setattr("semcot.training.build.CLONE", tmp_path / "clone")
    monkeypatch.chdir(tmp_path)
    assert build_model(replace(options, base_model="someone/tiny-llama"))


def test_trained_on_with_a_base_that_has_got_more_tokens(options, finished, base, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<new>", "<newer>"])
    more = tmp_path / "more"
    shutil.copytree(base, more)
    tokenizer.save_pretrained(more)
    model, tokenizer = build_model(replace(options, base_model=str(more), generator=str(finished[1])))
    assert model(**tokenizer(["How many?"], return_tensors="pt")).thoughts.shape == (1, 5, 32)


def test_trained_on_with_another_base_that_base_is_remembered(options, finished, base, tmp_path):
    """The other base lies in the Hub's cache and has no folder, the first one's is there still."""
    snapshot = tmp_path / "hub" / "models--someone--other" / "snapshots" / ("0" * 40)
    shutil.copytree(base, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    assert SemCoTConfig.from_pretrained(finished[1]).local_base_model == str(base)
    options = replace(options, base_model="someone/other", generator=str(finished[1]))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from semcot.training.options import parse_options; from semcot.training.build import build_model\n"
        "config = build_model(parse_options(sys.argv[2:]))[0].config\n"
        "print(config.base_model_name_or_path, config.local_base_model)"
    )
    environment = {**ENVIRONMENT, "HF_HUB_CACHE": str(tmp_path / "hub")}
    command = [sys.executable, "-c", code, str(ROOT), *as_flags(options, tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.stdout.split() == ["someone/other", "None"], result.stderr


@pytest.mark.parametrize("family, stack, embeddings", [("llama", "layers", "embed_tokens"), ("gpt2", "h", "wte")])
def test_any_part_of_the_generator_can_be_trained_alone(family, stack, embeddings):
    base, generator = tiny_language_model(), tiny_language_model(family)
    model = SemCoTForCausalLM.from_components(base, generator, tokenizer=tiny_base_tokenizer())
    train_only(model, ["projection", f"generator.{stack}.3"])
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"projection", "generator"}
    assert {name[: len(f"generator.{stack}.3.")] for name in trained if name[0] == "g"} == {f"generator.{stack}.3."}
    assert f"generator.{embeddings}.weight" not in trained


def test_what_a_model_has_not_cannot_be_trained():
    model, _ = tiny_semcot()
    for part in ("projecton", "generator.layers.7", "language_model.lm_head"):
        with pytest.raises(ValueError, match=f"trains '{part}'.* it has generator, projection, thought_embedding"):
            train_only(model, [part])
