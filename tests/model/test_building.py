"""Models built from a base and a generator."""

import pytest
import torch
from conftest import FAMILIES, prompts, tiny_base_tokenizer, tiny_language_model, tiny_semcot

from building_semcot import cast_weights
from modeling_semcot import SemCoTForCausalLM


@pytest.mark.parametrize("family", (*FAMILIES, "gemma2"))
def test_thoughts_start_at_the_scale_of_the_embeddings(family):
    quieter = tiny_language_model(family, hidden_size=16, initializer_range=0.02, seed=1)
    for generator in (2, None, quieter):
        model, tokenizer = tiny_semcot(family, generator)
        rms = model.think(**prompts(tokenizer)).square().mean().sqrt()
        embeddings = model.get_input_embeddings()(torch.arange(330))
        assert 0.5 < rms / embeddings.square().mean().sqrt() < 2
        own = model if model.config.share_embeddings else model.generator
        own_rms = own.get_input_embeddings()(torch.arange(330)).square().mean().sqrt()
        assert 0.5 < model.thought_embedding.square().mean().sqrt() / own_rms < 2
        weight = model.projection.weight
        assert torch.equal(weight, weight[0, 0] * torch.eye(32, weight.shape[1])) == (weight.shape[1] == 32)


def test_the_start_is_that_of_the_seed():
    base, start = tiny_language_model(), {}
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        model = SemCoTForCausalLM.from_components(base, 2, num_thoughts=3)
        assert torch.equal(start.setdefault(seed, model.thought_embedding), model.thought_embedding)
    assert not torch.equal(start[1], start[2])


def test_first_layers_are_copies_that_share_the_embeddings(family):
    model, _ = tiny_semcot(family)
    stack = model.language_model.base_model
    layers, copies = (getattr(m, "layers", None) or m.h for m in (stack, model.generator))
    assert len(copies) == 2
    for layer, copy in zip(layers, copies, strict=False):
        for (name, weight), own in zip(layer.named_parameters(), copy.parameters(), strict=True):
            assert torch.equal(weight, own) and weight.data_ptr() != own.data_ptr(), name
    assert not any("embed_tokens" in name or "wte" in name for name, _ in model.generator.named_parameters())


def test_building_leaves_the_base_as_it_is():
    base = tiny_language_model()
    base.lm_head = torch.nn.Linear(32, 330, bias=False)  # a head of one's own, which transformers has never seen
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    base.generation_config.eos_token_id = [2, 7]
    model = SemCoTForCausalLM.from_components(base, 2)
    assert model.language_model is base and model.generation_config.eos_token_id == [2, 7]
    assert all(torch.equal(weight, before[name]) for name, weight in base.state_dict().items())


@pytest.mark.parametrize("base, generator", [("bfloat16", 2), ("bfloat16", "float32"), ("float32", "bfloat16")])
def test_base_and_generator_may_have_dtypes_of_their_own(base, generator, tmp_path):
    _, tokenizer = tiny_semcot()
    if isinstance(generator, str):
        dtype, generator = getattr(torch, generator), tiny_language_model(hidden_size=16, num_hidden_layers=2, seed=1)
        cast_weights(generator, dtype)
    dtype, base = getattr(torch, base), tiny_language_model()
    cast_weights(base, dtype)
    wide = {"tokenizer": tokenizer, "num_thoughts": 3}
    model = SemCoTForCausalLM.from_components(base, generator, **wide)
    batch = prompts(tokenizer)
    output = model(**batch)
    logits = output.logits
    assert logits.dtype == output.thoughts.dtype == base.dtype and logits.isfinite().all()
    assert all(frequencies.dtype == torch.float32 for frequencies in model.buffers())
    model.save_pretrained(tmp_path / "saved", checkpoint_kind="full")
    for options in ({}, {"dtype": "auto"}):
        loaded = SemCoTForCausalLM.from_pretrained(tmp_path / "saved", **options)
        assert [p.dtype for p in loaded.parameters()] == [p.dtype for p in model.parameters()]
        assert torch.equal(loaded(**batch).logits, logits)
        assert loaded.config.text_config.dtype == base.dtype
    assert SemCoTForCausalLM.from_pretrained(tmp_path / "saved", config=model.config).language_model.dtype == base.dtype


@pytest.mark.parametrize("generator", [2, None], ids=["first_layers", "named"])
def test_a_token_more_for_both_models(generator):
    model, tokenizer = tiny_semcot(generator=generator)
    batch, new = prompts(tokenizer), 331
    before = model(**batch).logits
    model.resize_token_embeddings(new + 1)
    torch.testing.assert_close(model(**batch).logits[..., :330], before)
    batch.input_ids[:, -8] = new  # in the question
    assert model(**batch).logits.shape[-1] == new + 1


def test_an_unknown_token_is_no_placeholder():
    tokenizer = tiny_base_tokenizer()
    tokenizer.unk_token = "<|endoftext|>"
    model = SemCoTForCausalLM.from_components(tiny_language_model(), 2, tokenizer=tokenizer)
    assert model.config.thought_token_id == 330
    tokenizer.add_tokens(["<thought>"])
    known = tokenizer.convert_tokens_to_ids("<thought>")
    for options, expected in (({}, known), ({"thought_token_id": 331}, 331)):
        model = SemCoTForCausalLM.from_components(tiny_language_model(), 2, tokenizer=tokenizer, **options)
        assert model.config.thought_token_id == expected


def test_generator_with_other_token_ids():
    base = tiny_language_model()
    with pytest.raises(ValueError, match="The generator has 200 token ids, the base 330"):
        SemCoTForCausalLM.from_components(base, tiny_language_model(vocab_size=200))
    with pytest.raises(ValueError, match="from 1 to 4 layers of this base, got 9"):
        SemCoTForCausalLM.from_components(base, 9)


@pytest.mark.parametrize(
    "family, options, reason",
    [
        ("gemma4_text", {"head_dim": 8, "hidden_size_per_layer_input": 8}, "each of its layers looks up the token ids"),
        ("opt", {"word_embed_proj_dim": 16, "ffn_dim": 64}, "its token embeddings are 16 wide, its layers 32"),
        ("llama4_text", {"num_local_experts": 2}, "cannot be told from its head"),
        ("jamba", {"mamba_dt_rank": 4, "num_experts": 2}, "layers of a jamba cannot be cut"),
    ],
)
def test_models_that_cannot_be_wrapped(family, options, reason):
    other = tiny_language_model(family, **options)
    with pytest.raises(ValueError, match=reason):
        SemCoTForCausalLM.from_components(other, 2)
    if family != "jamba":
        with pytest.raises(ValueError, match=reason):
            SemCoTForCausalLM.from_components(tiny_language_model(), other)


def test_a_model_of_several_cannot_be_wrapped(semcot):
    with pytest.raises(ValueError, match="it is made of several models"):
        SemCoTForCausalLM.from_components(semcot[0], 2)


def test_tokenizers_that_differ_are_refused_and_padded_vocabularies_are_not():
    own = tiny_base_tokenizer()
    padded = tiny_language_model(vocab_size=336, hidden_size=16)
    SemCoTForCausalLM.from_components(tiny_language_model(), padded, tokenizer=own, generator_tokenizer=own)
    other = tiny_base_tokenizer()
    other.add_tokens(["extra"])
    vocabulary = other.get_vocab()
    assert vocabulary["extra"] >= 300
    wider = tiny_base_tokenizer()
    wider.add_tokens(["something", "extra"])
    with pytest.raises(ValueError, match="other token ids than the base: 1 tokens differ"):
        SemCoTForCausalLM.from_components(tiny_language_model(), padded, tokenizer=wider, generator_tokenizer=other)
    with pytest.raises(ValueError, match="0 tokens differ and 1 are missing, such as 'extra'"):
        SemCoTForCausalLM.from_components(tiny_language_model(), padded, tokenizer=other, generator_tokenizer=own)


def test_every_weight_of_its_own_is_initialised_anew():
    model, _ = tiny_semcot(generator=None)
    model.config.generator_config.initializer_range = 0.2
    model.projection.bias.data.fill_(1.0)
    model.thought_embedding.data.zero_()
    model.projection.weight.data.zero_()
    for part in model.modules():
        part._is_hf_initialized = False
    model.init_weights()
    for weight in (model.thought_embedding, model.projection.weight):
        assert 0.05 < weight.std() < 0.4
    assert not model.projection.bias.any()
