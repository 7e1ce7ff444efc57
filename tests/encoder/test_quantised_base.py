"""The reasoning encoder of a base that bitsandbytes or torchao quantises trains plain copies of its layers."""

import pytest
import torch
from conftest import tiny_base_tokenizer, tiny_language_model
from torchao.quantization import Int8WeightOnlyConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TorchAoConfig

from semcot.encoder.reasoning_module import ReasoningModule


@pytest.mark.parametrize(
    ("config", "error"),
    [
        (lambda: BitsAndBytesConfig(load_in_8bit=True), 0.01),
        (lambda: BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"), 0.2),
        (lambda: TorchAoConfig(Int8WeightOnlyConfig()), 0.01),
    ],
    ids=["bitsandbytes-8bit", "bitsandbytes-4bit", "torchao-int8"],
)
def test_layers_of_a_quantised_base_are_trained(config, error, tmp_path):
    tiny_language_model(hidden_size=64, intermediate_size=128).save_pretrained(tmp_path)
    encoders = [
        ReasoningModule(AutoModelForCausalLM.from_pretrained(tmp_path, **given), tiny_base_tokenizer(), 1, 3)
        for given in ({}, {"quantization_config": config()})
    ]
    plain, quantised = (dict(encoder.upper.named_parameters()) for encoder in encoders)
    assert plain.keys() == quantised.keys() and {weight.dtype for weight in quantised.values()} == {torch.float32}
    for name, weight in plain.items():
        assert (quantised[name] - weight).abs().max() <= error * weight.abs().max(), name
    assert not torch.equal(plain["layers.0.mlp.up_proj.weight"], quantised["layers.0.mlp.up_proj.weight"])
    encoder = encoders[1]
    encoder(encoder.preprocess(["How many?", "Two"]))["token_embeddings"].square().mean().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in quantised.values())
