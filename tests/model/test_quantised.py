"""Bases that bitsandbytes and torchao quantise, on a CPU: loading, saving, cutting a generator, training."""

import json

import pytest
import torch
from conftest import TEXTS, tiny_base_tokenizer, tiny_language_model
from torchao.quantization import Int8WeightOnlyConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TorchAoConfig

from building_semcot import first_layers
from modeling_semcot import SemCoTForCausalLM
from semcot.tokenization import build_tokenizer

CONFIGS = {
    "bitsandbytes-8bit": lambda: BitsAndBytesConfig(load_in_8bit=True),
    "bitsandbytes-4bit": lambda: BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "torchao-int8": lambda: TorchAoConfig(Int8WeightOnlyConfig()),
}
# The largest error of a weight, in units of the largest weight.
ERRORS = {"bitsandbytes-8bit": 0.01, "bitsandbytes-4bit": 0.2, "torchao-int8": 0.01}


@pytest.fixture(params=CONFIGS)
def method(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """An adapter and its unquantised base, in blocks as wide as 4-bit kernels need; returns its folder and prompts."""
    folder = tmp_path_factory.mktemp("quantised")
    base = tiny_language_model(hidden_size=64, intermediate_size=128)
    base.save_pretrained(folder / "models" / "base")
    tokenizer, prompt_template = build_tokenizer(tiny_base_tokenizer(), 3)
    model = SemCoTForCausalLM.from_components(
        base, 2, num_thoughts=3, tokenizer=tokenizer, prompt_template=prompt_template,
        base_model_name_or_path="someone/base", checkpoint_kind="adapter",
    )  # fmt: skip
    model.save_pretrained(folder / "adapter")
    return folder / "adapter", tokenizer(list(TEXTS), return_tensors="pt", padding=True)


@torch.no_grad()
def logits_of(model, batch):
    return model(**batch).logits


def test_the_base_alone_is_quantised_and_an_adapter_does_not_remember_it(checkpoint, method, tmp_path):
    folder, batch = checkpoint
    plain = SemCoTForCausalLM.from_pretrained(folder)
    model = SemCoTForCausalLM.from_pretrained(folder, quantization_config=CONFIGS[method]())
    assert model.language_model.config.quantization_config is not None
    assert not torch.equal(logits_of(model, batch), logits_of(plain, batch))
    for name, weight in plain.generator.named_parameters():
        assert torch.equal(model.generator.get_parameter(name), weight), name
    assert model.generate(**batch, max_new_tokens=2).shape[1] == batch.input_ids.shape[1] + 2

    model.save_pretrained(tmp_path / "models" / "again")
    assert "quantization_config" not in (tmp_path / "models" / "again" / "config.json").read_text()
    (tmp_path / "models" / "base").symlink_to(folder.parent / "models" / "base")
    again = SemCoTForCausalLM.from_pretrained(tmp_path / "models" / "again")
    assert torch.equal(logits_of(again, batch), logits_of(plain, batch))
    again = SemCoTForCausalLM.from_pretrained(tmp_path / "models" / "again", quantization_config=CONFIGS[method]())
    assert torch.equal(logits_of(again, batch), logits_of(model, batch))


@torch.no_grad()
def test_updates_go_over_quantised_layers(checkpoint, method):
    folder, batch = checkpoint
    base = AutoModelForCausalLM.from_pretrained(
        folder.parent / "models" / "base", quantization_config=CONFIGS[method]()
    )
    options = {"adapter_rank": 2, "thoughts_per_pass": 2, "thought_confidence": 0.0}
    model = SemCoTForCausalLM.from_components(base, None, num_thoughts=3, thought_token_id=330, **options)
    before = model.generator_states(**batch)
    for name, weight in model.generator.named_parameters():
        if name.endswith(".up"):
            weight.normal_(std=0.2)
    states, told = model.generator_states(**batch), model.read_thoughts(**batch).token_ids[..., 0]
    assert not torch.allclose(before, states, atol=0.1)
    told = told.masked_fill(~states.any(-1), -100)
    found = model.states_in_blocks(**batch, told=told)[0]
    assert torch.cosine_similarity(found.flatten(), states.flatten(), dim=0) > (0.99 if "8bit" in method else 0.9999)


def test_an_earlier_file_that_remembers_it_quantises_nothing(checkpoint, method, tmp_path):
    folder, batch = checkpoint
    plain = SemCoTForCausalLM.from_pretrained(folder)
    plain.save_pretrained(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "config.json").read_text())
    for part in ("text_config", "generator_config"):
        config[part]["quantization_config"] = CONFIGS[method]().to_dict()
    (tmp_path / "adapter" / "config.json").write_text(json.dumps(config))
    base = folder.parent / "models" / "base"
    loaded = SemCoTForCausalLM.from_pretrained(tmp_path / "adapter", base_model=base)
    assert torch.equal(logits_of(loaded, batch), logits_of(plain, batch))
    loaded.save_pretrained(tmp_path / "again")
    assert "quantization_config" not in (tmp_path / "again" / "config.json").read_text()

    config["checkpoint_kind"] = "full"
    (tmp_path / "adapter" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="A full checkpoint cannot be quantised; save it as an adapter"):
        SemCoTForCausalLM.from_pretrained(tmp_path / "adapter")


def test_a_base_that_was_saved_quantised(checkpoint, method, tmp_path):
    folder, batch = checkpoint
    config = CONFIGS[method]()
    base = AutoModelForCausalLM.from_pretrained(folder.parent / "models" / "base", quantization_config=config)
    base.save_pretrained(tmp_path / "base")
    model = SemCoTForCausalLM.from_pretrained(folder, base_model=tmp_path / "base")
    expected = SemCoTForCausalLM.from_pretrained(folder, base_model=base)
    assert torch.equal(logits_of(model, batch), logits_of(expected, batch))
    model.save_pretrained(tmp_path / "adapter")
    again = SemCoTForCausalLM.from_pretrained(tmp_path / "adapter", base_model=tmp_path / "base")
    assert torch.equal(logits_of(again, batch), logits_of(expected, batch))


def test_a_full_checkpoint_of_it_is_refused(checkpoint, method, tmp_path):
    model = SemCoTForCausalLM.from_pretrained(checkpoint[0], quantization_config=CONFIGS[method]())
    with pytest.raises(ValueError, match=rf"quantised \({method.split('-')[0]}\).*save with checkpoint_kind='adapter'"):
        model.save_pretrained(tmp_path / "full", checkpoint_kind="full")
    assert not (tmp_path / "full").exists()


def test_saving_leaves_it_as_it_is(checkpoint, method, tmp_path):
    folder, batch = checkpoint
    model = SemCoTForCausalLM.from_pretrained(folder, quantization_config=CONFIGS[method]())
    before = logits_of(model, batch)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits_of(model, batch), before)


def test_a_generator_is_cut_from_numbers_and_not_from_codes(checkpoint, method, tmp_path):
    folder, batch = checkpoint
    base = AutoModelForCausalLM.from_pretrained(folder.parent / "models" / "base")
    expected = first_layers(base, 2).state_dict()
    quantised = AutoModelForCausalLM.from_pretrained(
        folder.parent / "models" / "base", quantization_config=CONFIGS[method]()
    )
    found = first_layers(quantised, 2).state_dict()
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert (found[name] - weight).abs().max() <= ERRORS[method] * weight.abs().max(), name
    linear = "layers.0.mlp.up_proj.weight"
    assert not torch.equal(found[linear], expected[linear])
    name = {"base_model_name_or_path": "someone/base", "checkpoint_kind": "adapter"}
    model = SemCoTForCausalLM.from_components(quantised, 2, num_thoughts=3, thought_token_id=330, **name)
    assert not hasattr(model.generator.config, "quantization_config")
    model.save_pretrained(tmp_path)
    again = SemCoTForCausalLM.from_pretrained(tmp_path, base_model=quantised)
    assert torch.equal(logits_of(again, batch), logits_of(model, batch))

    untouched = {"base_model": folder.parent / "models" / "base", "quantization_config": CONFIGS[method]()}
    gradients = []
    for one in (model, SemCoTForCausalLM.from_pretrained(tmp_path, **untouched)):
        one(**batch).logits.square().mean().backward()
        gradients.append(one.projection.weight.grad)
    torch.testing.assert_close(*gradients, msg="cutting a generator has changed the base's layers")


def test_training_over_it(checkpoint, method):
    folder, batch = checkpoint
    labels = batch.input_ids.masked_fill(torch.arange(batch.input_ids.shape[1]) < batch.input_ids.shape[1] - 2, -100)
    directions = []
    for config in (None, CONFIGS[method]()):
        model = SemCoTForCausalLM.from_pretrained(folder, quantization_config=config).train()
        logits_of(model, batch)  # an evaluation before it
        model(**batch, labels=labels).loss.backward()
        trained = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
        assert not any(name.startswith("language_model.") for name in trained)
        assert all(gradient is not None and gradient.isfinite().all() for gradient in trained.values())
        directions.append(torch.cat([gradient.flatten() for gradient in trained.values()]))
    assert torch.cosine_similarity(*directions, dim=0) > (0.5 if "4bit" in method else 0.95)


def test_a_quantised_generator_is_refused(checkpoint, method):
    base = checkpoint[0].parent / "models" / "base"
    generator = AutoModelForCausalLM.from_pretrained(base, quantization_config=CONFIGS[method]())
    with pytest.raises(ValueError, match="The generator is trained, so it cannot be quantised"):
        SemCoTForCausalLM.from_components(AutoModelForCausalLM.from_pretrained(base), generator)


def test_a_generator_is_cut_from_a_quantised_gpt2(tmp_path):
    tiny_language_model("gpt2", hidden_size=64).save_pretrained(tmp_path)
    expected = first_layers(AutoModelForCausalLM.from_pretrained(tmp_path), 2).state_dict()
    config = CONFIGS["bitsandbytes-8bit"]()
    found = first_layers(AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=config), 2).state_dict()
    for name, weight in expected.items():
        assert (found[name] - weight).abs().max() <= 0.01 * weight.abs().max(), name
    assert not torch.equal(found["h.0.mlp.c_fc.weight"], expected["h.0.mlp.c_fc.weight"])
