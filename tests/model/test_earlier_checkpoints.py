"""Checkpoints in the form of earlier versions, which called the refiner thought_layers and had more settings."""

import json

import pytest
import torch
from conftest import TEXTS, tiny_semcot
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from modeling_semcot import SemCoTForCausalLM


def in_the_earlier_form(folder, **dropped):
    """Rewrites a saved checkpoint as earlier versions wrote it."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config["thought_layers"] = config.pop("refiner_layers")
    file.write_text(json.dumps(config | {"thought_passes": 1, "base_model_revision": None} | dropped))
    weights = {
        name.replace("refiner.", "thought_layers."): w for name, w in load_file(folder / "model.safetensors").items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return weights


def trained(**options):
    """A model whose refiner changes the thoughts, as a trained one does."""
    model, tokenizer = tiny_semcot(refiner_layers=1, **options)
    torch.nn.init.normal_(model.refiner.norm.weight)
    return model, tokenizer(list(TEXTS), return_tensors="pt", padding=True)


@pytest.mark.parametrize("kind", ["adapter", "full"])
@pytest.mark.parametrize("auto", [True, False])
def test_an_earlier_checkpoint_thinks_and_answers_the_same(kind, auto, tmp_path):
    model, batch = trained(base_model_name_or_path="someone/tiny-llama", thought_offset=-1)
    model.save_pretrained(tmp_path, checkpoint_kind=kind)
    assert any(name.startswith("thought_layers.") for name in in_the_earlier_form(tmp_path))

    options = {"base_model": model.language_model} if kind == "adapter" else {}
    if auto:
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=True, **options)
    else:
        loaded = SemCoTForCausalLM.from_pretrained(tmp_path, **options)
    assert loaded.config.refiner_layers == 1 and loaded.config.thought_offset == -1
    torch.testing.assert_close(loaded.think(**batch), model.think(**batch), rtol=0, atol=0)
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)

    loaded.save_pretrained(tmp_path / "again", checkpoint_kind=kind)
    saved = load_file(tmp_path / "again" / "model.safetensors")
    assert any(name.startswith("refiner.") for name in saved) and not any("thought_layers" in name for name in saved)
    assert (
        not {"thought_layers", "thought_passes"} & json.loads((tmp_path / "again" / "config.json").read_text()).keys()
    )


@pytest.mark.parametrize("dropped", [{"thought_passes": 3}, {"base_model_revision": "v1"}])
def test_a_setting_that_was_dropped_is_named(dropped, tmp_path):
    model, _ = trained()
    model.save_pretrained(tmp_path)
    in_the_earlier_form(tmp_path, **dropped)
    with pytest.raises(ValueError, match=f"{next(iter(dropped))} is .*, a setting that was dropped"):
        SemCoTForCausalLM.from_pretrained(tmp_path)
