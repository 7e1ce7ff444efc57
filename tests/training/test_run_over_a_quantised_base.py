"""A whole run, both stages, over a base that was saved quantised."""

import pytest
import torch
from conftest import tiny_base_tokenizer, tiny_language_model, tiny_options
from torchao.quantization import Int8WeightOnlyConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TorchAoConfig

from modeling_semcot import SemCoTForCausalLM
from semcot.training import train


@pytest.mark.parametrize(
    "config",
    [
        lambda: BitsAndBytesConfig(load_in_8bit=True),
        lambda: BitsAndBytesConfig(load_in_4bit=True),
        lambda: TorchAoConfig(Int8WeightOnlyConfig()),
    ],
    ids=["bitsandbytes-8bit", "bitsandbytes-4bit", "torchao-int8"],
)
def test_training_over_a_quantised_base(config, tmp_path, monkeypatch):
    tiny_language_model(max_position_embeddings=1024, hidden_size=64, intermediate_size=128).save_pretrained(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=config())
    base.save_pretrained(tmp_path / "base")
    tiny_base_tokenizer().save_pretrained(tmp_path / "base")
    starts = []
    from_components = SemCoTForCausalLM.from_components

    def started(*args, **kwargs):
        starts.append(from_components(*args, **kwargs))
        starts.append({name: weight.clone() for name, weight in starts[0].generator.named_parameters()})
        return starts[0]

    monkeypatch.setattr(SemCoTForCausalLM, "from_components", started)
    train(tiny_options(tmp_path / "base", tmp_path / "run"))
    model = SemCoTForCausalLM.from_pretrained(tmp_path / "run")
    layer, start = model.language_model.model.layers[0].mlp.up_proj, starts[1]
    assert type(layer) is not torch.nn.Linear or hasattr(layer.weight, "__tensor_flatten__")
    assert all(weight.abs().max() < 10 for weight in start.values()), "codes instead of weights"
    trained = dict(model.generator.named_parameters())
    assert trained.keys() == start.keys() and not any(torch.equal(trained[name], start[name]) for name in start)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run", trust_remote_code=True)
    batch = tokenizer("How many?", return_tensors="pt")
    assert model.generate(**batch, max_new_tokens=2).shape[1] == batch.input_ids.shape[1] + 2
