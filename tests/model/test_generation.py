"""Generation in all its modes."""

import pytest
import torch
from conftest import QUESTIONS, TEXTS, prompts, tiny_language_model, tiny_semcot
from transformers import GenerationConfig, TextStreamer
from transformers.cache_utils import DynamicCache

from building_semcot import decoder_layers
from modeling_semcot import SemCoTForCausalLM


def generate(model, batch, **options):
    options = {"max_new_tokens": 5, "do_sample": False, **options}
    return model.generate(**batch, **options)


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


def test_greedy_equals_repeated_forward(family):
    model, tokenizer = tiny_semcot(family)
    batch = prompts(tokenizer, QUESTIONS[:1])
    ids = batch.input_ids
    for _ in range(5):
        ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    found = generate(model, batch, eos_token_id=-1)
    assert found.tolist() == ids.tolist()
    assert (found == model.config.thought_token_id).sum() == 3, "the caller's placeholders are put back"


@pytest.mark.parametrize("options", [{"cache_implementation": "static"}, {"prompt_lookup_num_tokens": 2}], ids=str)
def test_other_ways_to_the_same_tokens(family, options):
    model, tokenizer = tiny_semcot(family)
    batch = prompts(tokenizer, QUESTIONS[:1] if "prompt_lookup_num_tokens" in options else QUESTIONS[:3])
    if "cache_implementation" in options:
        options = {**options, "disable_compile": True}
    expected = generate(model, batch)
    assert generate(model, batch, **options).tolist() == expected.tolist()


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=str)
@pytest.mark.parametrize("said_in", ["call", "config", "model"])
def test_without_a_cache_every_step_reads_the_whole_text(family, options, said_in):
    model, tokenizer = tiny_semcot(family)
    batch, lengths = prompts(tokenizer), []
    expected = generate(model, batch, **options, eos_token_id=None)
    length = batch.input_ids.shape[1]
    decoder_layers(model.language_model)[0].register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    options = options | {"return_dict_in_generate": True, "eos_token_id": None}
    if said_in == "call":
        options["use_cache"] = False
    elif said_in == "config":
        everything = {"max_new_tokens": 5, "do_sample": False, "use_cache": False}
        options = {"generation_config": GenerationConfig(**everything, **options), "max_new_tokens": None}
        del options["max_new_tokens"]
    else:
        model.generation_config.use_cache = False
    found = model.generate(**batch, **options) if said_in == "config" else generate(model, batch, **options)
    assert found.sequences.tolist() == expected.tolist() and found.past_key_values is None
    assert lengths == list(range(length, length + 5))


def test_assisted_generation(family):
    model, tokenizer = tiny_semcot(family)
    assistant = tiny_language_model(family, seed=5)
    batch = prompts(tokenizer, QUESTIONS[:1])
    calls = []
    assistant.register_forward_pre_hook(lambda *_: calls.append(1))
    expected = generate(model, batch, eos_token_id=None)
    assert not calls
    assert generate(model, batch, eos_token_id=None, assistant_model=assistant).tolist() == expected.tolist()
    assert calls


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
    batch, seen = prompts(tokenizer), []

    def look(ids, scores):
        seen.append(ids)
        return scores

    generate(model, batch, repetition_penalty=1.3, no_repeat_ngram_size=2, logits_processor=[look])
    for row, prompt in zip(seen[0].tolist(), batch.input_ids.tolist(), strict=True):
        assert set(row) == set(prompt) - {model.config.thought_token_id}, "nor one that the prompt does not have"


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


def test_a_chat_that_its_template_renders_otherwise_than_the_cache_holds_it(semcot):
    """transformers' documented loop: in the second rendering, the first turn has no thoughts any more."""
    model, tokenizer = semcot
    cache, chat = DynamicCache(config=model.config.text_config), []

    def turn(question, **options):
        chat.append({"role": "user", "content": question})
        batch = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        ids = generate(model, batch, **options)
        chat.append({"role": "assistant", "content": tokenizer.decode(ids[0, batch.input_ids.shape[1] :])})
        return ids

    first = turn(QUESTIONS[0], past_key_values=cache)
    with pytest.raises(ValueError, match="The cache holds thoughts in columns .* leave the cache out"):
        turn(QUESTIONS[1], past_key_values=cache)
    chat.pop()
    turn(QUESTIONS[1])
    following = torch.cat([first, tokenizer([QUESTIONS[1]], return_tensors="pt").input_ids], dim=1)
    generate(model, {"input_ids": following}, past_key_values=cache)
    with pytest.raises(ValueError, match="The cache holds thoughts in columns"):
        generate(model, {"input_ids": following.roll(1)}, past_key_values=cache)


@pytest.mark.parametrize("made_by", ["generate", "forward"])
def test_every_cache_knows_its_thoughts(semcot, made_by):
    model, tokenizer = semcot
    first = prompts(tokenizer, QUESTIONS[:1])
    if made_by == "generate":
        cache = generate(model, first, max_new_tokens=1, return_dict_in_generate=True).past_key_values
    else:
        cache = model(**first, use_cache=True).past_key_values
    assert cache.get_seq_length() == (length := first.input_ids.shape[1])
    with pytest.raises(ValueError, match=f"holds {length} tokens already, and the prompt has {length}: "):
        generate(model, first, past_key_values=cache)
    with pytest.raises(ValueError, match="The cache holds thoughts in columns"):
        generate(model, prompts(tokenizer, [TEXTS[1]]), past_key_values=cache)

    second = torch.cat([first.input_ids, tokenizer([QUESTIONS[4]], return_tensors="pt").input_ids], dim=1)
    model(second[:, length:], past_key_values=cache, thoughts=model.think(second))
    held = (second == model.config.thought_token_id)[0].nonzero().flatten().tolist()
    assert len(held) == 6 and cache.thought_columns == held


def test_a_prefix_may_be_in_the_cache(semcot):
    model, tokenizer = semcot
    batch = prompts(tokenizer, QUESTIONS[:1])
    cache = DynamicCache(config=model.config.text_config)
    model.language_model(input_ids=batch.input_ids[:, :4], past_key_values=cache)
    assert generate(model, batch, past_key_values=cache).tolist() == generate(model, batch).tolist()


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


def test_wrong_number_of_placeholders(semcot):
    model, tokenizer = semcot
    none = tokenizer([QUESTIONS[0]], add_special_tokens=False, return_tensors="pt")
    twice = tokenizer([QUESTIONS[0] + "<thought>"], return_tensors="pt")
    for batch, count in ((none, 0), (twice, 4)):
        for call in (model, lambda **batch: generate(model, batch)):
            with pytest.raises(ValueError, match=f"Row 0 holds {count} <thought> .* exactly 3"):
                call(**batch)


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


def test_thoughts_beside_embeddings_are_refused(semcot):
    model, tokenizer = semcot
    batch = prompts(tokenizer)
    embeds, thoughts = model.embed_prompt(**batch), model.think(**batch)
    assert generate(model, {"inputs_embeds": embeds, "attention_mask": batch.attention_mask}).tolist() == (
        generate(model, batch)[:, batch.input_ids.shape[1] :].tolist()
    )
    with pytest.raises(ValueError, match="in place already"):
        model.generate(inputs_embeds=embeds, thoughts=thoughts)


@pytest.mark.parametrize(
    "setting",
    [
        {"prefill_chunk_size": 4},
        {"prefill_chunk_size": 0},
        {"guidance_scale": 1.5},
        {"token_healing": True},
        {"assistant_early_exit": 2},
    ],
    ids=str,
)
def test_settings_that_cannot_go_through_the_thoughts_are_refused(semcot, setting):
    model, tokenizer = semcot
    batch = prompts(tokenizer, QUESTIONS[:1])
    ((name, value),) = setting.items()
    for options in (setting, {"generation_config": GenerationConfig(**setting)}):
        with pytest.raises(ValueError, match=f"{name} cannot be used with implicit tokens: "):
            model.generate(**batch, **options)
    setattr(model.generation_config, name, value)
    with pytest.raises(ValueError, match=f"{name} cannot be used with implicit tokens: "):
        model.generate(**batch)


def test_settings_that_change_nothing_are_taken(semcot):
    model, tokenizer = semcot
    batch = prompts(tokenizer)
    harmless = {"guidance_scale": 1.0, "token_healing": False, "prefill_chunk_size": None}
    assert generate(model, batch, **harmless).tolist() == generate(model, batch).tolist()


def test_continuous_batching_is_refused(semcot):
    model, tokenizer = semcot
    batch = prompts(tokenizer, QUESTIONS[:1])
    for call in (
        lambda: model.generate_batch(batch.input_ids.tolist()),
        lambda: model.continuous_batching_context_manager(),
        lambda: generate(model, batch, cache_implementation="paged"),
    ):
        with pytest.raises(ValueError, match="Continuous batching .* Call generate with a padded batch"):
            call()
    with pytest.raises(AttributeError, match="Continuous batching .* Call generate with a padded batch"):
        model.init_continuous_batching()
    assert not hasattr(model, "init_continuous_batching"), "which makes `transformers serve` answer one by one"
    with pytest.raises(AttributeError, match="no attribute 'something_else'"):
        _ = model.something_else
