"""The forward pass: thoughts, logits, gradients, caches, compiled graphs, and wrong use."""

import copy

import pytest
import torch
from conftest import FAMILIES, OTHERS, QUESTIONS, prompts, tiny_language_model, tiny_semcot
from transformers.cache_utils import DynamicCache, StaticCache
from transformers.integrations.executorch import register_dynamic_cache_export_support

from building_semcot import decoder_layers
from modeling_semcot import CACHE, SemCoTForCausalLM


@pytest.fixture
def nothing_compiled():
    """Models that other tests compiled count towards the number of recompilations."""
    torch.compiler.reset()


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


def test_thoughts_are_read_as_the_tokens_that_they_are_nearest_to(semcot):
    model, tokenizer = semcot
    batch = prompts(tokenizer)
    table = model.get_input_embeddings().weight
    spelt = torch.tensor([[5, 6, 7], [300, 6, 5], [9, 9, 200]])
    model.project = lambda states: states
    model.generator_states = lambda *_: 30 * table[spelt] / table[spelt].norm(dim=-1, keepdim=True)
    read = model.read_thoughts(**batch, top_k=2)
    assert torch.equal(read.token_ids[..., 0], spelt) and read.token_ids.shape == read.scores.shape == (3, 3, 2)
    expected = (model.generator_states() @ table.T).softmax(-1)
    torch.testing.assert_close(read.scores[..., 0], expected.take_along_dim(spelt.unsqueeze(-1), -1)[..., 0])
    assert (read.scores[..., 0] > read.scores[..., 1]).all() and not read.scores.requires_grad


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


def test_as_many_logits_as_are_asked_for(semcot):
    model, tokenizer = semcot
    batch = prompts(tokenizer)
    whole = model(**batch).logits
    for kept in (2, whole.shape[1] - 1, whole.shape[1], whole.shape[1] + 1):
        found = model(**batch, logits_to_keep=kept).logits
        torch.testing.assert_close(found, whole[:, -kept:], atol=1e-4, rtol=1e-4)
    for indices in (torch.tensor([3]), torch.tensor([1, 9, 4, -1])):
        found = model(**batch, logits_to_keep=indices).logits
        torch.testing.assert_close(found, whole[:, indices], atol=1e-4, rtol=1e-4)


def test_the_loss_is_that_of_the_logits_that_are_kept(semcot):
    model, tokenizer = semcot
    batch = prompts(tokenizer)
    labels = batch.input_ids.clone()
    labels[:, : (labels == model.config.thought_token_id).nonzero()[:, 1].max() + 1] = -100
    answer = int((labels[0] != -100).sum())
    expected = model(**batch, labels=labels).loss
    length = labels.shape[1]
    for kept in (answer + 1, torch.arange(length - answer - 1, length), torch.arange(length).flip(0)):
        torch.testing.assert_close(model(**batch, labels=labels, logits_to_keep=kept).loss, expected)


def test_labels_that_were_shifted_before(semcot):
    """As sequence parallelism gives them, whose parts of a text end where the next one's first label stands."""
    model, tokenizer = semcot
    batch = prompts(tokenizer)
    labels = batch.input_ids.masked_fill(batch.input_ids == model.config.thought_token_id, -100)
    shifted = torch.nn.functional.pad(labels, (0, 1), value=7)[:, 1:]
    output = model(**batch, labels=labels, shift_labels=shifted)
    expected = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), shifted.flatten())
    torch.testing.assert_close(output.loss, expected)
    last = model(**batch, labels=labels, shift_labels=shifted, logits_to_keep=1).loss
    torch.testing.assert_close(last, torch.nn.functional.cross_entropy(output.logits[:, -1], shifted[:, -1]))


@pytest.mark.parametrize("family", (*FAMILIES, *OTHERS))
def test_a_gradient_changes_nothing(family):
    model, tokenizer = tiny_semcot(family)
    batch = prompts(tokenizer)
    length = batch.input_ids.shape[1]
    if family != "mpt":  # whose positions are columns
        batch["position_ids"] = torch.arange(length).expand(3, -1) + 5
    wanted = {"logits_to_keep": 2, "output_hidden_states": True}
    with torch.no_grad():
        expected = model(**batch, **wanted)
    found = model(**batch, **wanted)
    assert found.logits.requires_grad
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-4, rtol=1e-4)
    for one, other in zip(found.hidden_states, expected.hidden_states, strict=True):
        assert one.shape[:2] == (3, length)
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    if family != "mpt":  # which has no cache unless it is told to
        assert found.past_key_values.get_seq_length() == length
    if family in FAMILIES:
        assert not torch.allclose(model(**batch).logits, model(**{**batch, "position_ids": None}).logits)


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


@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiles_to_one_graph(semcot):
    model, tokenizer = semcot
    batch = prompts(tokenizer)
    expected = model(**batch).logits
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**batch).logits, expected)


@pytest.mark.usefixtures("nothing_compiled")
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


@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_a_wrong_prompt_is_refused_too(semcot):
    model, tokenizer = semcot
    ids = prompts(tokenizer, QUESTIONS[:1]).input_ids
    none = ids.masked_fill(ids == model.config.thought_token_id, 5)
    with pytest.raises(RuntimeError, match="Each row needs exactly 3 <thought> placeholders"):
        torch.compile(model, backend="eager")(none)
    with pytest.raises(RuntimeError, match="A row holds fewer than 3 <thought> placeholders"):
        torch.compile(model.think, backend="eager")(none)
    model.config.thought_offset = -1
    first = torch.tensor([[model.config.thought_token_id] * 3 + [5, 6]])
    with pytest.raises(RuntimeError, match="A row begins with a <thought> placeholder"):
        torch.compile(model, backend="eager")(first)


def test_a_mask_of_more_than_padding_is_refused(semcot):
    model, tokenizer = semcot
    ids = prompts(tokenizer, QUESTIONS[:1]).input_ids
    mask = torch.ones(1, 1, ids.shape[1], ids.shape[1]).tril()
    for call in (model, model.think, model.generate):
        with pytest.raises(ValueError, match=r"attention_mask must be \(batch, length\), 0 on padding"):
            call(ids, attention_mask=mask)


def test_labels_on_placeholders(semcot):
    model, tokenizer = semcot
    batch = prompts(tokenizer, QUESTIONS[:1])
    with pytest.raises(ValueError, match="labels must be -100 on every <thought>"):
        model(**batch, labels=batch.input_ids)


@pytest.mark.parametrize("read", ["think", "generator_states", "embed_prompt"])
def test_too_few_placeholders_are_not_made_up_for(semcot, read):
    model, tokenizer = semcot
    ids = prompts(tokenizer).input_ids
    ids[1, (ids[1] == model.config.thought_token_id).nonzero()[0]] = 5
    with pytest.raises(ValueError, match="<thought> placeholders"):
        getattr(model, read)(ids)


def test_ids_and_embeddings_together(semcot):
    model, tokenizer = semcot
    batch = prompts(tokenizer)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model(**batch, inputs_embeds=torch.zeros(3, 4, 32))
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model()


@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", [DynamicCache, StaticCache])
def test_a_step_of_several_tokens_is_one_graph(semcot, kind):
    model, tokenizer = semcot
    ids = prompts(tokenizer, QUESTIONS[:1]).input_ids
    step = torch.tensor([[5, 6, 7]])
    expected = model(input_ids=torch.cat([ids, step], dim=1)).logits[:, -3:]
    cache = kind(config=model.config.text_config, **({"max_cache_len": 200} if kind is StaticCache else {}))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        compiled(input_ids=ids, past_key_values=cache)
        before = copy.deepcopy(cache)
        found = compiled(input_ids=step, past_key_values=cache)
        torch.testing.assert_close(found.logits, expected, atol=1e-4, rtol=1e-4)
        with pytest.raises(RuntimeError, match="Compiled, a prompt needs thoughts= or an empty cache"):
            compiled(input_ids=ids, past_key_values=before)


def test_a_step_of_several_tokens_is_exported(semcot):
    register_dynamic_cache_export_support()
    model, tokenizer = semcot
    ids, step = prompts(tokenizer, QUESTIONS[:1]).input_ids, torch.tensor([[5, 6, 7]])
    cache = DynamicCache(config=model.config.text_config)
    with torch.no_grad():
        model(input_ids=ids, past_key_values=cache)
        inputs = {"input_ids": step, "past_key_values": cache, "use_cache": True}
        program = torch.export.export(model, (), copy.deepcopy(inputs), strict=False)
        found = program.module()(**inputs).logits
    expected = model(input_ids=torch.cat([ids, step], dim=1)).logits[:, -3:]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [DynamicCache, StaticCache])
def test_a_prompt_without_placeholders_is_refused_with_an_empty_cache(semcot, kind):
    model, tokenizer = semcot
    batch = prompts(tokenizer, QUESTIONS[:1], add_special_tokens=False)
    cache = kind(config=model.config.text_config, **({"max_cache_len": 200} if kind is StaticCache else {}))
    with pytest.raises(ValueError, match="Row 0 holds 0 <thought> placeholders"):
        model(**batch, past_key_values=cache)


@pytest.mark.parametrize("padding", [0, 2])
def test_a_placeholder_with_nothing_to_its_left(semcot, padding):
    model, _ = semcot
    ids = torch.tensor([[0] * padding + [model.config.thought_token_id] * 3 + [5, 6]])
    mask = torch.tensor([[0] * padding + [1] * 5])
    assert model.think(ids, mask).isfinite().all()
    model.config.thought_offset = -1
    with pytest.raises(ValueError, match="begins with a <thought> placeholder"):
        model.think(ids, mask)
    ids[:, padding + 3 :] = model.config.thought_token_id
    ids[:, padding : padding + 2] = 5
    assert model.think(ids, mask).isfinite().all()
