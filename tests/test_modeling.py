"""The model: forward, thoughts, gradients, and generation in all its modes."""

import pytest
import torch
from conftest import FAMILIES, OTHERS, TEXTS, tiny_language_model, tiny_semcot
from transformers import GenerationConfig, TextStreamer
from transformers.cache_utils import DynamicCache, StaticCache

from building_semcot import cast_weights, decoder_layers
from modeling_semcot import CACHE, SemCoTForCausalLM

QUESTIONS = [text[: 20 + 9 * i] for i, text in enumerate(TEXTS * 3)]


def prompts(tokenizer, questions=QUESTIONS[:3], **kwargs):
    return tokenizer(list(questions), return_tensors="pt", padding=True, **kwargs)


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.mark.parametrize("generator", [2, None], ids=["first_layers", "named"])
def test_forward_outputs(family, generator):
    model, tokenizer = tiny_semcot(family, generator)
    batch = prompts(tokenizer)
    labels = batch.input_ids.clone()
    labels[(batch.attention_mask == 0) | (labels == model.config.thought_token_id)] = -100
    output = model(**batch, labels=labels, use_cache=True)
    rows, length = batch.input_ids.shape
    assert output.logits.shape == (rows, length, 330)
    assert output.thoughts.shape == (rows, 3, 32)
    assert output.past_key_values.get_seq_length() == length
    assert len(model(**batch, output_hidden_states=True).hidden_states) == 5
    expected = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(output.loss, expected)
    model.language_model.set_attn_implementation("eager")
    assert len(model(**batch, output_attentions=True).attentions) == 4


def test_tuple_output_and_the_trainers_token_count(semcot):
    model, tokenizer = semcot
    batch = prompts(tokenizer, QUESTIONS[:1])
    labels = batch.input_ids.where(batch.input_ids != model.config.thought_token_id, -100)
    output = model(**batch, labels=labels)
    as_tuple = model(**batch, labels=labels, return_dict=False)
    assert torch.equal(as_tuple[0], output.loss) and torch.equal(as_tuple[1], output.logits)
    count = (labels[:, 1:] != -100).sum()
    halved = model(**batch, labels=labels, num_items_in_batch=2 * count).loss
    torch.testing.assert_close(halved, output.loss / 2)


def test_thoughts_replace_the_placeholders(semcot):
    model, tokenizer = semcot
    batch = prompts(tokenizer)
    embeds = model.get_input_embeddings()(batch.input_ids.where(batch.input_ids < 330, 0))
    thoughts = model.think(**batch)
    for row in range(3):
        embeds[row, batch.input_ids[row] == model.config.thought_token_id] = thoughts[row]
    positions = (batch.attention_mask.cumsum(-1) - 1).clamp(min=0)
    expected = model.language_model(
        inputs_embeds=embeds, attention_mask=batch.attention_mask, position_ids=positions
    ).logits
    torch.testing.assert_close(model(**batch).logits, expected)
    zeroed = model(**batch, thoughts=torch.zeros_like(thoughts)).logits
    assert not torch.allclose(zeroed, expected)


def test_thought_offset_reads_the_state_to_the_left():
    model, tokenizer = tiny_semcot()
    batch = prompts(tokenizer, QUESTIONS[:1])
    wanted = batch.input_ids[0] == model.config.thought_token_id
    columns = wanted.nonzero().flatten()
    embeds = torch.where(
        wanted[None, :, None],
        model.thought_embedding,
        model.get_input_embeddings()(batch.input_ids.where(batch.input_ids < 330, 0)),
    )
    states = model.generator(inputs_embeds=embeds).last_hidden_state
    torch.testing.assert_close(model.think(**batch), model.projection(states[:, columns]))
    model.config.thought_offset = -1
    torch.testing.assert_close(model.think(**batch), model.projection(states[:, columns - 1]))


def test_the_generator_reads_no_further_than_the_last_placeholder(semcot):
    model, tokenizer = semcot
    batch, lengths = prompts(tokenizer), []
    layer = decoder_layers(model.generator)[0]
    layer.register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    with torch.no_grad():
        model.think(**batch)
    assert lengths == [(batch.input_ids == model.config.thought_token_id).nonzero()[:, 1].max() + 1]


@pytest.mark.parametrize("multiple", [1, 64], ids=["whole", "padded"])
def test_equal_prompts_share_no_more_than_the_state_that_is_read(multiple):
    model, tokenizer = tiny_semcot(thought_offset=-1)
    batch = prompts(tokenizer, ["How many?"] * 2, pad_to_multiple_of=multiple)
    with torch.no_grad():
        expected = model.think(**batch)
    torch.testing.assert_close(model.think(**batch), expected, atol=1e-5, rtol=1e-5)
    found = model(**batch, logits_to_keep=2).logits
    torch.testing.assert_close(found, model(**batch).logits[:, -2:], atol=1e-4, rtol=1e-4)


def test_as_many_logits_as_are_asked_for(semcot):
    model, tokenizer = semcot
    batch = prompts(tokenizer)
    whole = model(**batch).logits
    for kept in (2, whole.shape[1] - 1, whole.shape[1], whole.shape[1] + 1):
        found = model(**batch, logits_to_keep=kept).logits
        torch.testing.assert_close(found[:, -2:], whole[:, -2:], atol=1e-4, rtol=1e-4)
        assert found.shape[1] == min(kept, whole.shape[1])
    assert model(**batch, logits_to_keep=2, use_cache=True).past_key_values.get_seq_length() == whole.shape[1]
    with torch.no_grad():
        assert model(**batch, logits_to_keep=2).past_key_values.get_seq_length() == whole.shape[1]


@pytest.mark.parametrize("family", ["llama", "qwen3_5_text"])
def test_the_gradient_is_that_of_each_prompt(family):
    model, tokenizer = tiny_semcot(generator=tiny_language_model(family, seed=1))
    model.generator.requires_grad_(True)
    batch = prompts(tokenizer, padding_side="right")
    gradients = []
    for rows in ([batch], [prompts(tokenizer, [question]) for question in QUESTIONS[:3]]):
        torch.cat([model.think(**row) for row in rows]).square().sum().backward()
        weights = [*decoder_layers(model.generator).parameters(), model.thought_embedding]
        gradients.append([parameter.grad.clone() for parameter in weights])
        model.zero_grad()
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("family", (*FAMILIES, "gemma2"))
def test_a_refiner_changes_nothing_at_first_and_then_reads_the_thoughts_alone(family, tmp_path):
    model, tokenizer = tiny_semcot(family)
    batch = prompts(tokenizer)
    plain = model.think(**batch)
    model.add_refiner(2)
    torch.testing.assert_close(model.think(**batch), plain)
    torch.testing.assert_close(tiny_semcot(family, refiner_layers=2)[0].think(**batch), plain)

    norm = list(model.refiner.children())[-1] if family == "gpt2" else model.refiner.norm
    torch.nn.init.ones_(norm.weight)
    changed = model.think(**batch)
    states = (plain - model.projection.bias) @ torch.linalg.inv(model.projection.weight).T
    added = model.refiner(inputs_embeds=states).last_hidden_state
    torch.testing.assert_close(changed, model.projection(states + added), atol=1e-4, rtol=1e-3)
    assert (changed - plain).abs().max() > 0.01
    added.sum().backward()
    assert all(parameter.grad is not None for parameter in decoder_layers(model.refiner).parameters())

    model.save_pretrained(tmp_path)
    torch.testing.assert_close(SemCoTForCausalLM.from_pretrained(tmp_path).think(**batch), changed)


def test_a_refiner_is_a_copy_of_the_generators_last_layers():
    model, _ = tiny_semcot("qwen2")
    model.config.generator_config.layer_types = ["full_attention", "sliding_attention"]
    model.config.generator_config.sliding_window = 64
    model.bfloat16().add_refiner(1)
    assert model.refiner.config.layer_types == ["sliding_attention"] and not model.refiner.training
    (layer,) = decoder_layers(model.refiner)
    for name, weight in decoder_layers(model.generator)[-1].state_dict().items():
        torch.testing.assert_close(layer.state_dict()[name], weight, atol=0, rtol=0)


def test_a_refiner_that_cannot_be_is_refused():
    model, _ = tiny_semcot(refiner_layers=1)
    with pytest.raises(ValueError, match="has a refiner of 1 layers already"):
        model.add_refiner(2)
    with pytest.raises(ValueError, match="at most the generator's 2"):
        tiny_semcot(refiner_layers=3)
    with pytest.raises(ValueError, match="OlmoModel cannot have a refiner"):
        tiny_semcot("olmo", refiner_layers=1)


@pytest.mark.parametrize("family", (*FAMILIES, *OTHERS))
def test_padding_on_either_side_changes_nothing(family):
    model, tokenizer = tiny_semcot(family)
    alone = [model(**prompts(tokenizer, [question])).logits[0] for question in QUESTIONS[:3]]
    for side in ("left", "right"):
        batch = prompts(tokenizer, padding_side=side)
        together = model(**batch).logits
        for row, logits in enumerate(alone):
            torch.testing.assert_close(together[row][batch.attention_mask[row] == 1], logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "family, name",
    [*((family, "cache") for family in (*FAMILIES, *OTHERS)), *((family, "past_key_values") for family in FAMILIES)],
)
def test_cache_changes_nothing(family, name):
    model, tokenizer = tiny_semcot(family)
    batch = prompts(tokenizer)
    answer = tokenizer([" 42"] * 3, add_special_tokens=False, return_tensors="pt").input_ids
    ids = torch.cat([batch.input_ids, answer], dim=1)
    mask = torch.cat([batch.attention_mask, torch.ones_like(answer)], dim=1)
    whole = model(input_ids=ids, attention_mask=mask).logits[:, -answer.shape[1] :]
    cache = model(**batch, use_cache=True).past_key_values
    step = model(input_ids=answer, attention_mask=mask, **{name: cache})
    assert step.thoughts is None
    torch.testing.assert_close(step.logits, whole, atol=1e-4, rtol=1e-4)


def test_a_prompt_that_begins_in_the_cache_is_refused(semcot):
    """The generator would read its end alone."""
    model, tokenizer = semcot
    batch = prompts(tokenizer, QUESTIONS[:1])
    beginning, rest = batch.input_ids[:, :4], batch.input_ids[:, 4:]
    cache = DynamicCache(config=model.config.text_config)
    model.language_model(input_ids=beginning, **{CACHE: cache})
    with pytest.raises(ValueError, match="4 of its tokens are in the cache already.*model.think"):
        model(input_ids=rest, past_key_values=cache)
    found = model(input_ids=rest, past_key_values=cache, thoughts=model.think(batch.input_ids))
    torch.testing.assert_close(found.logits, model(**batch).logits[:, 4:], atol=1e-4, rtol=1e-4)


def test_a_batch_of_64_generates_what_each_prompt_does_alone(family):
    model, tokenizer = tiny_semcot(family)
    questions = [f"{TEXTS[i % 3][: 1 + i]} {i * 37}" for i in range(64)]
    batch = prompts(tokenizer, questions)
    together = model.generate(**batch, max_new_tokens=6, do_sample=False)[:, batch.input_ids.shape[1] :]
    for row, question in enumerate(questions):
        single = prompts(tokenizer, [question])
        alone = model.generate(**single, max_new_tokens=6, do_sample=False)[0, single.input_ids.shape[1] :]
        assert together[row][: len(alone)].tolist() == alone.tolist(), question


def test_no_answer_is_written_after_padding(semcot):
    model, tokenizer = semcot
    with pytest.raises(ValueError, match="pad on the left"):
        model.generate(**prompts(tokenizer, padding_side="right"), max_new_tokens=2)


def test_padding_is_told_by_the_models_own_config_where_a_call_says_nothing(semcot):
    model, tokenizer = semcot
    batch = prompts(tokenizer)
    model.generation_config.pad_token_id = 0
    config = GenerationConfig(max_new_tokens=4, eos_token_id=torch.tensor([2, 5]))
    told = model.generate(**batch, generation_config=config)
    assert model.generate(batch.input_ids, generation_config=config).tolist() == told.tolist()
    model.generation_config.pad_token_id, config.pad_token_id = 7, 0
    assert model.generate(batch.input_ids, generation_config=config).tolist() == told.tolist(), "else the call's"


def test_padding_is_told_without_a_mask_where_it_can_be(semcot, caplog):
    model, tokenizer = semcot
    batch = prompts(tokenizer)
    assert (batch.attention_mask == 0).any()
    assert generate(model, {"input_ids": batch.input_ids}).tolist() == generate(model, batch).tolist()
    assert not caplog.records
    generate(model, {"input_ids": batch.input_ids}, pad_token_id=tokenizer.eos_token_id)
    assert "it cannot be told whether they are padded, as the padding token also ends a text" in caplog.text
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    everything = torch.ones_like(batch.attention_mask)
    expected = generate(model, {"input_ids": batch.input_ids, "attention_mask": everything}, eos_token_id=ends)
    assert generate(model, {"input_ids": batch.input_ids}, eos_token_id=ends).tolist() == expected.tolist()


def test_lora_on_the_base_has_the_gradient_of_the_whole_prompt(semcot):
    from peft import LoraConfig, get_peft_model

    model, tokenizer = semcot
    lora = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    batch = prompts(tokenizer)
    labels = batch.input_ids.clone()
    labels[:, :-2] = -100
    gradients = []
    for options in ({}, {"logits_to_keep": 3}):
        lora.zero_grad()
        lora(**batch, labels=labels, **options).loss.backward()
        gradients.append(
            {
                name: p.grad.clone()
                for name, p in lora.named_parameters()
                if "language_model" in name and p.requires_grad
            }
        )
    assert gradients[0]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-3, msg=name)


def test_base_is_frozen_and_in_eval_mode(semcot):
    model, _ = semcot
    model.train()
    assert model.generator.training and not model.language_model.training
    assert not any(p.requires_grad for p in model.language_model.parameters())
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"generator", "projection", "thought_embedding"}
    frozen = tiny_language_model(seed=1).requires_grad_(False)
    model = SemCoTForCausalLM.from_components(tiny_language_model(), frozen)
    assert all(p.requires_grad for p in model.generator.parameters())


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


def test_gradient_checkpointing(family):
    model, tokenizer = tiny_semcot(family)
    model.train()
    batch = prompts(tokenizer)

    def gradient():
        model.zero_grad()
        model(**batch).logits.square().mean().backward()
        return model.thought_embedding.grad.clone()

    expected = gradient()
    model.gradient_checkpointing_enable()
    assert model.generator.gradient_checkpointing
    torch.testing.assert_close(gradient(), expected)


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
    wide = {"refiner_layers": 1, "tokenizer": tokenizer, "num_thoughts": 3}
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    model, tokenizer = tiny_semcot()
    batch = prompts(tokenizer)
    expected = model(**batch).logits
    model.to(dtype)
    output = model(**batch)
    assert output.logits.dtype == output.thoughts.dtype == dtype
    real = batch.attention_mask == 1
    assert torch.nn.functional.cosine_similarity(output.logits.float(), expected, dim=-1)[real].min() > 0.98
    model.generate(**batch, max_new_tokens=2)


# ---------------------------------------------------------------------------------------------------- generation


def generate(model, batch, **options):
    options = {"max_new_tokens": 5, "do_sample": False, **options}
    return model.generate(**batch, **options)


def test_greedy_equals_repeated_forward(family):
    model, tokenizer = tiny_semcot(family)
    batch = prompts(tokenizer, QUESTIONS[:1])
    ids = batch.input_ids
    for _ in range(5):
        ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    found = generate(model, batch, eos_token_id=-1)
    assert found.tolist() == ids.tolist()
    assert (found == model.config.thought_token_id).sum() == 3, "the caller's placeholders are put back"


@pytest.mark.parametrize(
    "options", [{"use_cache": False}, {"cache_implementation": "static"}, {"prompt_lookup_num_tokens": 2}], ids=str
)
def test_other_ways_to_the_same_tokens(family, options):
    model, tokenizer = tiny_semcot(family)
    batch = prompts(tokenizer, QUESTIONS[:1] if "prompt_lookup_num_tokens" in options else QUESTIONS[:3])
    if "cache_implementation" in options:
        options = {**options, "disable_compile": True}
    expected = generate(model, batch)
    assert generate(model, batch, **options).tolist() == expected.tolist()


def test_assisted_generation(family):
    model, tokenizer = tiny_semcot(family)
    assistant = tiny_language_model(family, seed=5)
    batch = prompts(tokenizer, QUESTIONS[:1])
    assert generate(model, batch, assistant_model=assistant).tolist() == generate(model, batch).tolist()


def test_beams_and_sampling_call_the_generator_once(semcot, monkeypatch):
    model, tokenizer = semcot
    calls = []
    think = model.think
    monkeypatch.setattr(model, "think", lambda *a, **k: calls.append(1) or think(*a, **k))
    batch = prompts(tokenizer)
    beams = generate(
        model, batch, num_beams=4, num_return_sequences=2, return_dict_in_generate=True, output_scores=True
    )
    assert beams.sequences.shape[0] == 6 and len(calls) == 1
    assert torch.equal(beams.sequences[::2, : batch.input_ids.shape[1]], batch.input_ids)
    single = generate(model, prompts(tokenizer, QUESTIONS[2:3]), num_beams=4)
    width = single.shape[1] - len(tokenizer(QUESTIONS[2]).input_ids)
    best = beams.sequences[4, batch.input_ids.shape[1] :][:width]
    assert best.tolist() == single[0, -width:].tolist()
    torch.manual_seed(0)
    sampled = generate(model, batch, do_sample=True, temperature=5.0, num_return_sequences=8)
    assert sampled.shape[0] == 24 and len({tuple(row.tolist()) for row in sampled[:8]}) > 1


def test_logits_processors_never_see_an_id_outside_the_vocabulary(semcot):
    model, tokenizer = semcot
    assert model.config.thought_token_id >= model.config.text_config.vocab_size
    generate(model, prompts(tokenizer), repetition_penalty=1.3, no_repeat_ngram_size=2)


def test_a_placeholder_inside_the_vocabulary_is_never_written():
    model, tokenizer = tiny_semcot()  # of 330 tokens; <thought> is the next id
    base = tiny_language_model(vocab_size=340)
    padded = SemCoTForCausalLM.from_components(base, 2, num_thoughts=3, tokenizer=tokenizer)
    thought, batch = padded.config.thought_token_id, prompts(tokenizer)
    assert thought == model.config.thought_token_id < padded.config.text_config.vocab_size
    wanted = {"sequence_bias": [[[thought], 50.0], [[7], 40.0], [[8], 30.0]]}
    for options, written in (({}, 7), ({"suppress_tokens": [7]}, 8)):
        assert (generate(padded, batch, **wanted, **options)[:, -1] == written).all()
        config = GenerationConfig(max_new_tokens=3, eos_token_id=None, **options)
        assert (padded.generate(**batch, generation_config=config, **wanted)[:, -1] == written).all()
        assert config.suppress_tokens == options.get("suppress_tokens"), "the caller's config is left as it is"
    config = GenerationConfig(max_new_tokens=3, eos_token_id=None)
    assert (padded.generate(**batch, generation_config=config, **wanted, suppress_tokens=[7])[:, -1] == 8).all()
    padded.generation_config.suppress_tokens = [7]
    assert (generate(padded, batch, **wanted)[:, -1] == 8).all()


def test_streaming_shows_the_callers_prompt(semcot, capsys):
    model, tokenizer = semcot
    batch = prompts(tokenizer, QUESTIONS[:1])
    output = generate(model, batch, streamer=TextStreamer(tokenizer))
    assert capsys.readouterr().out.strip() == tokenizer.decode(output[0]).strip()


def test_a_conversation_goes_on_from_its_cache(semcot):
    model, tokenizer = semcot
    first = prompts(tokenizer, QUESTIONS[:1])
    turn = generate(model, first, return_dict_in_generate=True, eos_token_id=-1)
    second = torch.cat([turn.sequences, tokenizer([QUESTIONS[4]], return_tensors="pt").input_ids], dim=1)
    found = model.generate(
        input_ids=second, past_key_values=turn.past_key_values, max_new_tokens=4, do_sample=False, eos_token_id=-1
    )
    thoughts = torch.cat([model.think(first.input_ids), model.think(second)], dim=1)
    embeds = model.get_input_embeddings()(second.where(second < 330, 0))
    embeds[second == model.config.thought_token_id] = thoughts[0]
    expected = model.language_model.generate(inputs_embeds=embeds, max_new_tokens=4, do_sample=False, eos_token_id=-1)
    assert found[0, second.shape[1] :].tolist() == expected[0].tolist()


def test_given_thoughts_are_used(semcot):
    model, tokenizer = semcot
    batch = prompts(tokenizer)
    thoughts = model.think(**batch)
    assert generate(model, batch, thoughts=thoughts).tolist() == generate(model, batch).tolist()
    other = model(**batch, thoughts=thoughts.flip(0)).logits[:, -1]
    assert not torch.allclose(other, model(**batch).logits[:, -1])
    for wrong in (thoughts.repeat(1, 2, 1), thoughts[:1], thoughts[..., :-1]):
        with pytest.raises(ValueError, match=r"thoughts have the shape .*, these prompts need \(3, 3, 32\)"):
            model(**batch, thoughts=wrong)
        with pytest.raises(ValueError, match="thoughts have the shape"):
            generate(model, batch, thoughts=wrong)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiles_to_one_graph(semcot):
    model, tokenizer = semcot
    batch = prompts(tokenizer)
    expected = model(**batch).logits
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**batch).logits, expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", [DynamicCache, StaticCache])
def test_compiled_a_cache_changes_nothing(semcot, kind):
    model, tokenizer = semcot
    ids = prompts(tokenizer, QUESTIONS[:1]).input_ids
    options = {"max_cache_len": 200} if kind is StaticCache else {}
    cache = kind(config=model.config.text_config, **options)
    compiled = torch.compile(model, backend="eager")
    for _ in range(3):
        length = cache.get_seq_length()
        step = compiled(input_ids=ids[:, length:], past_key_values=cache)
        expected = model(input_ids=ids)
        torch.testing.assert_close(step.logits[:, -1], expected.logits[:, -1], atol=1e-4, rtol=1e-4)
        ids = torch.cat([ids, expected.logits[:, -1:].argmax(-1)], dim=1)


# ---------------------------------------------------------------------------------------------------- wrong use


def test_wrong_number_of_placeholders(semcot):
    model, tokenizer = semcot
    none = tokenizer([QUESTIONS[0]], add_special_tokens=False, return_tensors="pt")
    twice = tokenizer([QUESTIONS[0] + "<thought>"], return_tensors="pt")
    for batch, count in ((none, 0), (twice, 4)):
        for call in (model, lambda **batch: generate(model, batch)):
            with pytest.raises(ValueError, match=f"Row 0 holds {count} <thought> .* exactly 3"):
                call(**batch)


def test_labels_on_placeholders(semcot):
    model, tokenizer = semcot
    batch = prompts(tokenizer, QUESTIONS[:1])
    with pytest.raises(ValueError, match="labels must be -100 on every <thought>"):
        model(**batch, labels=batch.input_ids)


def test_prompt_beyond_the_position_limit(semcot):
    model, tokenizer = semcot
    batch = tokenizer(["9" * 600], return_tensors="pt")
    for call in (model, lambda **batch: generate(model, batch)):
        with pytest.raises(ValueError, match="The prompt has [0-9]+ tokens, the position limit of text_config is 512"):
            call(**batch)
    ids = batch.input_ids[:, -512:]  # as many as there may be, with padding or without
    padded, mask = (torch.nn.functional.pad(part, (8, 0)) for part in (ids, torch.ones_like(ids)))
    found = model(padded, attention_mask=mask).logits[:, -1]
    torch.testing.assert_close(found, model(ids).logits[:, -1], atol=1e-4, rtol=1e-4)
    model.config.generator_config.max_position_embeddings = 511
    with pytest.raises(ValueError, match="The prompt has 512 tokens, the position limit of generator_config is 511"):
        model(ids)


@pytest.mark.parametrize("read", ["think", "generator_states", "embed_prompt"])
def test_too_few_placeholders_are_not_made_up_for(semcot, read):
    model, tokenizer = semcot
    ids = prompts(tokenizer).input_ids
    ids[1, (ids[1] == model.config.thought_token_id).nonzero()[0]] = 5
    with pytest.raises(ValueError, match="<thought> placeholders"):
        getattr(model, read)(ids)


def test_thoughts_beside_embeddings_are_refused(semcot):
    model, tokenizer = semcot
    batch = prompts(tokenizer)
    embeds, thoughts = model.embed_prompt(**batch), model.think(**batch)
    assert generate(model, {"inputs_embeds": embeds, "attention_mask": batch.attention_mask}).tolist() == (
        generate(model, batch)[:, batch.input_ids.shape[1] :].tolist()
    )
    with pytest.raises(ValueError, match="in place already"):
        model.generate(inputs_embeds=embeds, thoughts=thoughts)


def test_ids_and_embeddings_together(semcot):
    model, tokenizer = semcot
    batch = prompts(tokenizer)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model(**batch, inputs_embeds=torch.zeros(3, 4, 32))
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model()


def test_chunked_prefill_is_refused(semcot):
    model, tokenizer = semcot
    for options in ({"prefill_chunk_size": 4}, {"generation_config": GenerationConfig(prefill_chunk_size=4)}):
        with pytest.raises(ValueError, match="prefill_chunk_size"):
            generate(model, prompts(tokenizer), **options)


def test_an_unknown_token_is_no_placeholder():
    from conftest import tiny_base_tokenizer

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
    from conftest import tiny_base_tokenizer

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
