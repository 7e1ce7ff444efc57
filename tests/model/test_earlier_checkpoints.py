"""Checkpoints of earlier versions, whose config.json has settings that were dropped."""

import json

import pytest
import torch
from conftest import TEXTS, tiny_semcot
from transformers import AutoModelForCausalLM

from modeling_semcot import SemCoTForCausalLM

UNUSED = {"thought_passes": 1, "base_model_revision": None, "refiner_layers": 0, "thought_layers": 0}


@pytest.fixture
def saved(tmp_path):
    model, tokenizer = tiny_semcot(thought_offset=-1)
    model.save_pretrained(tmp_path / "saved", checkpoint_kind="full")
    return model, tokenizer(list(TEXTS), return_tensors="pt", padding=True), tmp_path / "saved"


def add_settings(folder, **settings):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.mark.parametrize("auto", [True, False])
def test_one_that_used_none_of_them_thinks_and_answers_the_same(auto, saved, tmp_path):
    model, batch, folder = saved
    add_settings(folder, **UNUSED)
    if auto:
        loaded = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    else:
        loaded = SemCoTForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(loaded.think(**batch), model.think(**batch), rtol=0, atol=0)
    loaded.save_pretrained(tmp_path / "again")
    assert not UNUSED.keys() & json.loads((tmp_path / "again" / "config.json").read_text()).keys()


@pytest.mark.parametrize(
    "used", [{"thought_passes": 3}, {"base_model_revision": "v1"}, {"refiner_layers": 3}, {"thought_layers": 1}]
)
def test_one_that_used_it_is_refused(used, saved):
    *_, folder = saved
    add_settings(folder, **used)
    with pytest.raises(ValueError, match=f"{next(iter(used))} is .*, a setting that was dropped"):
        SemCoTForCausalLM.from_pretrained(folder)
