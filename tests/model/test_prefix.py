"""Keys and values of what all prompts begin with, kept from call to call: the same answers, and never old ones."""

import pytest
import torch
from conftest import OTHERS, TEXTS, prompts, tiny_semcot
from peft import LoraConfig, get_peft_model
from torchao.quantization import Int8WeightOnlyConfig, quantize_

import prefix_semcot
from building_semcot import decoder_layers

NUMBERS = (3, 12, 345, 6, 78, 9012)
QUESTIONS = [f"Paige had 11 songs on her player. Then {number} more." for number in NUMBERS]


def answer(model, batch, **options):
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, **options}
    return model.generate(**batch, **options)


def asked(model, tokenizer):
    """A model that keeps a prefix, and the batches that it was asked."""
    batches = [prompts(tokenizer, QUESTIONS[:1]), prompts(tokenizer, QUESTIONS[1:2]), prompts(tokenizer, QUESTIONS)]
    for batch in batches:
        answer(model, batch)
    assert (batches[-1].attention_mask == 0).any()
    return batches


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}], ids=str)
def test_the_answers_are_the_same(family, options):
    model, tokenizer = tiny_semcot(family)
    batches = asked(model, tokenizer)
    for batch in batches:
        torch.manual_seed(0)
        expected = answer(model, batch, shortcuts=False, **options)
        torch.manual_seed(0)
        assert answer(model, batch, **options).tolist() == expected.tolist()


@pytest.mark.parametrize("thought_offset", [0, -1])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_the_prefix_is_not_read_again(family, thought_offset, monkeypatch):
    model, tokenizer = tiny_semcot(family, thought_offset=thought_offset)
    batches, lengths = asked(model, tokenizer), []
    shared = len(model._prefix.ids)
    assert shared > prefix_semcot.SHORTEST
    for kind in (type(model.generator), type(model.language_model)):

        def forward(self, _forward=kind.forward, **inputs):
            lengths.append(inputs["inputs_embeds"].shape[1] if "inputs_embeds" in inputs else 1)
            return _forward(self, **inputs)

        monkeypatch.setattr(kind, "forward", forward)
    for batch in (batches[0], batches[2]):
        answer(model, batch)  # other code than before: it is read once more
        lengths.clear()
        expected = answer(model, batch, shortcuts=False)
        plain, _ = list(lengths), lengths.clear()
        assert answer(model, batch).tolist() == expected.tolist()
        assert lengths[:3] == [plain[0] - shared, plain[1] - shared, plain[2] - shared]
        assert lengths[3:] == plain[3:]


def change(name, model):
    layer, weight = decoder_layers(model.language_model)[1], next(model.generator.parameters())
    own = decoder_layers(model.generator)[0]
    if name == "one value":
        own.self_attn.v_proj.weight.data[0, 0] += 0.5
    elif name == "two values":
        layer.mlp.up_proj.weight.data[3, 5] += 0.25
        layer.mlp.up_proj.weight.data[9, 5] -= 0.25
    elif name == "load_state_dict":
        model.load_state_dict({key: value * 1.01 for key, value in model.state_dict().items()})
    elif name == "dtype":
        model.to(torch.bfloat16)
    elif name == "optimizer":
        weight.grad = torch.ones_like(weight)
        torch.optim.SGD([weight], lr=0.1).step()
    elif name == "another weight":
        own.mlp.down_proj.weight = torch.nn.Parameter(own.mlp.down_proj.weight * 2)
    elif name == "setting":
        layer.self_attn.scaling *= 2
    elif name == "embeddings":
        model.get_input_embeddings().weight.data[model._prefix.ids[2], 1] += 1
    elif name == "hook":
        layer.register_forward_hook(lambda module, args, output: output * 1.5)
    elif name == "layers":
        layers = decoder_layers(model.generator)
        layers[0], layers[1] = layers[1], layers[0]
    elif name == "lora":
        config = LoraConfig(target_modules=r"generator\..*\.(q_proj|v_proj)", init_lora_weights=False)
        get_peft_model(model, config)
    elif name == "merged lora":
        config = LoraConfig(target_modules=r"generator\..*\.(q_proj|v_proj)", init_lora_weights=False)
        get_peft_model(model, config).merge_and_unload()
    elif name == "training":
        model.train()


@pytest.mark.parametrize(
    "name",
    "one value,two values,load_state_dict,dtype,optimizer,another weight,setting,embeddings,hook,layers,lora,"
    "merged lora,training".split(","),
)
def test_a_prefix_follows_every_change(semcot, name):
    model, tokenizer = semcot
    *_, batch = asked(model, tokenizer)
    before = model._prefix
    change(name, model)
    expected = answer(model, batch, shortcuts=False)
    found = answer(model, batch)
    assert found.tolist() == expected.tolist() or name == "dtype"  # but for rounding
    kept = model._prefix
    if name in ("hook", "lora", "training"):
        assert kept is None or kept is before and name == "training"
        return
    stacks = (model.generator, model.language_model.base_model)
    with torch.no_grad():
        embeds = model.embed_for_generator(kept.ids[None]), model.get_input_embeddings()(kept.ids[None])
        for stack, embed, states in zip(stacks, embeds, kept[1:3], strict=True):
            for found, fresh in zip(states, prefix_semcot._read(stack, embed), strict=True):
                assert all(torch.equal(*pair) for pair in zip(found, fresh, strict=True))
    old, new = ([part for states in prefix[1:3] for layer in states for part in layer] for prefix in (before, kept))
    assert any(not torch.equal(a.float(), b.float()) for a, b in zip(old, new, strict=True)), "it was a change"


@pytest.mark.parametrize("family", OTHERS)
def test_where_it_may_not_be_kept(family):
    model, tokenizer = tiny_semcot(family)
    *_, batch = asked(model, tokenizer)
    padded = prompts(tokenizer, [QUESTIONS[0], QUESTIONS[0] + TEXTS[1], QUESTIONS[1] + TEXTS[2]])
    for prompt in (batch, padded):
        assert answer(model, prompt).tolist() == answer(model, prompt, shortcuts=False).tolist()
    assert (model._prefix is not None and bool(model._prefix.base)) == (family in ("granite", "phi", "mpt"))


def test_torchaos_weights_are_looked_into(semcot):
    model, tokenizer = semcot
    quantize_(model.language_model, Int8WeightOnlyConfig())
    *_, batch = asked(model, tokenizer)
    before = model._prefix
    assert before.base
    answer(model, batch)
    assert model._prefix is before
    weight = decoder_layers(model.language_model)[0].self_attn.v_proj.weight
    for part in (weight.qdata, weight.scale):
        part[0] += 1
        assert answer(model, batch).tolist() == answer(model, batch, shortcuts=False).tolist()
        assert not torch.equal(model._prefix.base[0][1], before.base[0][1])
        before = model._prefix


def test_other_prompts(semcot):
    model, tokenizer = semcot
    asked(model, tokenizer)
    others = ["Is the coin still heads up? rushawn flips it.", "Is the coin still heads up? yerania flips it."]
    for texts in (
        others[:1],
        others[1:],
        QUESTIONS[:1],
        others,
        QUESTIONS[2:],
        ["", "a"],
        QUESTIONS[2:3] * 2,
        others[:1],
    ):
        batch = prompts(tokenizer, texts)
        assert answer(model, batch).tolist() == answer(model, batch, shortcuts=False).tolist()


def test_a_token_that_is_hidden_is_not_read(semcot):
    model, tokenizer = semcot
    *_, batch = asked(model, tokenizer)
    for row, column in enumerate(batch.attention_mask.argmax(1).tolist()):
        batch.attention_mask[row, column + 3] = 0
    assert answer(model, batch).tolist() == answer(model, batch, shortcuts=False).tolist()


def test_a_cache_that_is_returned_holds_the_callers_columns(semcot):
    model, tokenizer = semcot
    *_, batch = asked(model, tokenizer)
    caches = [
        answer(model, batch, return_dict_in_generate=True, shortcuts=shortcuts).past_key_values
        for shortcuts in (True, False)
    ]
    for found, expected in zip(*(cache.layers for cache in caches), strict=True):
        torch.testing.assert_close(found.keys, expected.keys)
