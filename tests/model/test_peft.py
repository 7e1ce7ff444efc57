"""PEFT on a SemCoT model: LoRA on the generator works, nothing that it made of the base is lost without a word."""

import shutil

import peft
import pytest
import torch
from conftest import TEXTS, tiny_semcot
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from modeling_semcot import SemCoTForCausalLM

ON_GENERATOR = r"generator\..*\.(q_proj|v_proj)"


@pytest.fixture
def batch(adapter):
    tokenizer = AutoTokenizer.from_pretrained(adapter, trust_remote_code=True)
    return tokenizer(list(TEXTS), return_tensors="pt", padding=True)


@pytest.fixture
def integration(monkeypatch):
    """transformers' integration of PEFT, whose lower bound may be a PEFT that is not released yet."""
    monkeypatch.setattr("transformers.integrations.peft.MIN_PEFT_VERSION", peft.__version__)


@torch.no_grad()
def logits_of(model, batch):
    return model.eval()(**batch).logits


def lora(target_modules=ON_GENERATOR, **options) -> LoraConfig:
    """LoRA that changes something before it is trained."""
    return LoraConfig(r=4, target_modules=target_modules, init_lora_weights=False, **options)


def test_lora_merged_into_the_generator_is_saved(adapter, batch, tmp_path):
    model = SemCoTForCausalLM.from_pretrained(adapter)
    before = logits_of(model, batch)
    model = get_peft_model(model, lora(modules_to_save=["projection"])).merge_and_unload()
    after = logits_of(model, batch)
    assert not torch.allclose(before, after)
    model.save_pretrained(adapter)
    assert torch.equal(logits_of(SemCoTForCausalLM.from_pretrained(adapter), batch), after)


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_lora_merged_into_the_base_is_never_lost(adapter, batch, tmp_path, kind):
    model = SemCoTForCausalLM.from_pretrained(adapter)
    if kind == "full":  # the same of a checkpoint that holds its base
        model.save_pretrained(tmp_path / "before", checkpoint_kind="full")
        model = SemCoTForCausalLM.from_pretrained(tmp_path / "before")
    model = get_peft_model(model, lora("all-linear")).merge_and_unload()
    after = logits_of(model, batch)
    with pytest.raises(ValueError, match=r"base was changed .*language_model.*: save with checkpoint_kind='full'"):
        model.save_pretrained(tmp_path / "lost", checkpoint_kind="adapter")
    assert not (tmp_path / "lost").exists()

    model.save_pretrained(tmp_path / "full", checkpoint_kind="full")
    again = SemCoTForCausalLM.from_pretrained(tmp_path / "full")
    assert torch.equal(logits_of(again, batch), after)
    with pytest.raises(ValueError, match="it must name it"):  # the base that it holds has no name
        again.save_pretrained(tmp_path / "lost", checkpoint_kind="adapter")

    model.language_model.save_pretrained(tmp_path / "base")
    model.config.base_model_name_or_path = str(tmp_path / "base")
    model.config.local_base_model = str(tmp_path / "models" / "tiny-llama")
    model.save_pretrained(tmp_path / "adapter", checkpoint_kind="adapter")
    assert torch.equal(logits_of(SemCoTForCausalLM.from_pretrained(tmp_path / "adapter"), batch), after)


def test_a_base_whose_vocabulary_was_resized_is_saved_in_full_alone(adapter, batch, tmp_path):
    model = SemCoTForCausalLM.from_pretrained(adapter)
    model.resize_token_embeddings(400)
    with pytest.raises(ValueError, match=r"base was changed .*resize_token_embeddings.* checkpoint_kind='full'"):
        model.save_pretrained(tmp_path / "lost")
    model.save_pretrained(tmp_path / "full", checkpoint_kind="full")
    again = SemCoTForCausalLM.from_pretrained(tmp_path / "full")
    assert torch.equal(logits_of(again, batch), logits_of(model, batch))


@pytest.mark.parametrize("dtypes", [[torch.bfloat16], [torch.float16], [torch.bfloat16, torch.float32]])
def test_another_dtype_is_no_other_base(adapter, tmp_path, dtypes):
    model = SemCoTForCausalLM.from_pretrained(adapter)
    for dtype in dtypes:
        model.to(dtype)
    model.save_pretrained(tmp_path / "same")
    with torch.no_grad():
        model.language_model.get_input_embeddings().weight[7] *= 1.1
    with pytest.raises(ValueError, match=r"base was changed .*language_model.model.embed_tokens.weight"):
        model.save_pretrained(tmp_path / "other")


def test_layers_of_peft_are_not_saved_as_weights_of_the_model(adapter, tmp_path):
    model = get_peft_model(SemCoTForCausalLM.from_pretrained(adapter), lora())
    for kind in ("adapter", "full"):
        with pytest.raises(ValueError, match=r"PeftModel's own save_pretrained, or merge them"):
            model.get_base_model().save_pretrained(tmp_path / "lost", checkpoint_kind=kind)


@pytest.mark.parametrize("vocabulary", ["exact", "padded"])
@pytest.mark.parametrize("name", ["PromptTuningConfig", "PrefixTuningConfig", "PromptEncoderConfig"])
def test_prompt_learning_is_refused_at_once(vocabulary, name):
    model, _ = tiny_semcot(**({"thought_token_id": 329} if vocabulary == "padded" else {}))
    config = getattr(peft, name)(task_type="CAUSAL_LM", num_virtual_tokens=4)
    with pytest.raises(ValueError, match="pass the generator by.*LoRA on the generator"):
        get_peft_model(model, config)


def test_an_adapter_of_transformers_own_integration(adapter, batch, integration, tmp_path):
    weights = (adapter / "model.safetensors").read_bytes()
    model = SemCoTForCausalLM.from_pretrained(adapter)
    model.add_adapter(lora())
    after = logits_of(model, batch)
    model.save_pretrained(adapter)
    assert (adapter / "model.safetensors").read_bytes() == weights and (adapter / "config.json").exists()
    assert set(load_file(adapter / "adapter_model.safetensors")) and (adapter / "adapter_config.json").exists()
    for load in (SemCoTForCausalLM.from_pretrained, AutoModelForCausalLM.from_pretrained):
        again = load(adapter, **({} if load.__self__ is SemCoTForCausalLM else {"trust_remote_code": True}))
        assert torch.equal(logits_of(again, batch), after)

    model.save_pretrained(tmp_path / "lora")
    assert not {"README.md", "config.json", "model.safetensors"} & {file.name for file in (tmp_path / "lora").iterdir()}
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "lora", trust_remote_code=True)
    assert torch.equal(logits_of(again, batch), after)


def test_an_adapter_of_the_base_too_is_saved_whole_and_loaded_by_peft(adapter, batch, integration, tmp_path):
    plain = shutil.copytree(adapter, tmp_path / "plain")
    model = SemCoTForCausalLM.from_pretrained(adapter)
    model.add_adapter(lora("all-linear"))
    after = logits_of(model, batch)
    model.save_pretrained(adapter)
    with pytest.raises(ValueError, match=r"weights for the base too.*PeftModel.from_pretrained"):
        SemCoTForCausalLM.from_pretrained(adapter)
    again = PeftModel.from_pretrained(SemCoTForCausalLM.from_pretrained(plain), adapter)
    assert torch.equal(logits_of(again, batch), after)
