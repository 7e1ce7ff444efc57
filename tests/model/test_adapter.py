"""A generator that is the base with low-rank updates, which thinks in blocks."""

import copy

import pytest
import torch
from conftest import QUESTIONS, TEXTS, prompts, tiny_semcot
from safetensors import safe_open
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicCache

from adapter_semcot import Updated
from generation_semcot import _is_plain
from modeling_semcot import CACHE

K, PER_PASS, END = 5, 2, 2


def tiny_adapter(family: str = "llama", per_pass: int | None = PER_PASS, sure: int = 4, **options):
    """A tiny model with updates that say something, a head so many times as sure of it, and its tokenizer."""
    options = {"num_thoughts": K, "adapter_rank": 3, "thoughts_per_pass": per_pass} | options
    model, tokenizer = tiny_semcot(family, generator="base", **options)
    if sure > 1:
        model.get_output_embeddings().weight.data *= sure  # so that some thoughts are surer than others
    torch.manual_seed(1)
    for name, weight in model.generator.named_parameters():
        if name.endswith(".up"):
            weight.data.normal_(std=0.2)
    return model, tokenizer


def merged(model):
    """The base's stack with the updates in its weights."""
    stack = copy.deepcopy(model.language_model.base_model)
    for name, update in model.generator.named_modules():
        if hasattr(update, "down"):
            layer, added = stack.get_submodule(name), (update.up @ update.down).detach()
            layer.weight.data += added if isinstance(layer, torch.nn.Linear) else added.T
    return stack


def by_hand(model, question: torch.LongTensor) -> tuple[torch.FloatTensor, int]:
    """The states of one question's thoughts and the passes, all behind the question read anew for each block."""
    base, stack = model.language_model.base_model, merged(model)
    embeds, states, spelt, passes = model.get_input_embeddings()(question[None]), [], [], 0
    while len(spelt) < K and END not in spelt:
        length, passes = min(model.config.thoughts_per_pass, K - len(spelt)), passes + 1
        cache = base(inputs_embeds=embeds[:, :-1], use_cache=True)[CACHE]
        before = model.get_input_embeddings()(torch.tensor([spelt], dtype=torch.long)).view(1, -1, 32)
        block = model.thought_embedding.expand(1, length - 1, -1)
        out = stack(inputs_embeds=torch.cat([embeds[:, -1:], before, block], 1), use_cache=True, **{CACHE: cache})
        for place, state in enumerate(out.last_hidden_state[:, -length:].unbind(1)):
            likely = torch.softmax(model.get_output_embeddings()(state), -1).max(-1)
            if END in spelt or place and likely.values < model.config.thought_confidence:
                break
            states.append(state)
            spelt.append(int(likely.indices))
    return torch.stack(states + [torch.zeros_like(state)] * (K - len(states)), 1), passes


@torch.no_grad()
@pytest.mark.parametrize("confidence", [0.0, 0.5, 1.1])
def test_states_are_those_of_the_merged_weights_behind_the_bases_question(family, confidence):
    model, tokenizer = tiny_adapter(family, per_pass=3, thought_confidence=confidence)
    batch, passes = prompts(tokenizer), []
    states = model.generator_states(**batch)
    for row, ids in enumerate(batch.input_ids):
        question = ids[batch.attention_mask[row].bool()]
        question = question[: (question == model.config.thought_token_id).long().argmax()]
        expected, needed = by_hand(model, question)
        torch.testing.assert_close(states[row : row + 1], expected, atol=2e-4, rtol=1e-3)
        passes.append(needed)
    assert confidence != 0.5 or family != "llama" or len(set(passes)) > 1, "rows keep other numbers of thoughts"


@torch.no_grad()
@pytest.mark.parametrize("per_pass", [1, 2, 3, K, None])
def test_told_what_they_spell_blocks_are_the_same_in_one_pass(per_pass):
    model, tokenizer = tiny_adapter(per_pass=per_pass)
    batch = prompts(tokenizer, QUESTIONS)
    states, _ = model.states_in_blocks(**batch)
    spelt, _ = model._spell(states)
    spelt[states.abs().sum(-1) == 0] = -100
    told, one_by_one = model.states_in_blocks(**batch, told=spelt)
    torch.testing.assert_close(told, states, atol=1e-4, rtol=1e-3)
    starts = torch.arange(0, K, per_pass or K)
    torch.testing.assert_close(one_by_one[:, starts], told[:, starts], atol=1e-4, rtol=1e-3)
    if per_pass != 1:
        assert (one_by_one - told).abs().max() > 0.1, "inside a block a thought does not know those before it"
    for first_block in range(1, (per_pass or K) + 1):
        other, same = model.states_in_blocks(**batch, told=spelt, first_block=first_block)
        torch.testing.assert_close(same, one_by_one, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(other[:, 0], told[:, 0], atol=1e-4, rtol=1e-3)
        if first_block < K:
            torch.testing.assert_close(other[:, first_block], one_by_one[:, first_block], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(other, told, atol=1e-4, rtol=1e-3)
    model.config.thoughts_per_pass = 1
    torch.testing.assert_close(model.states_in_blocks(**batch, told=spelt)[0], one_by_one, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_thoughts_are_the_embeddings_of_what_they_spell(family):
    """So that the base reads a thought that is sure as the token; the projection starts at zero."""
    model, tokenizer = tiny_adapter(family, thought_confidence=0.5)
    states = model.generator_states(**prompts(tokenizer))
    scores = model.get_output_embeddings()(states)
    likeliest = scores.topk(8, dim=-1)
    expected = likeliest.values.softmax(-1).unsqueeze(-1) * model.get_input_embeddings()(likeliest.indices)
    expected = expected.sum(-2).where(states.any(-1, keepdim=True), 0.0)
    torch.testing.assert_close(model.project(states), expected)
    sure = model.get_output_embeddings().weight[[9, 8]][None] * 1000
    torch.testing.assert_close(model.project(sure), model.get_input_embeddings()(torch.tensor([[9, 8]])))
    some = torch.tensor([3, 300])
    torch.testing.assert_close(model.spelt_scores(states, some), scores[..., some])
    model.projection.bias.fill_(0.5)
    torch.testing.assert_close(model.project(states), expected + 0.5)


@torch.no_grad()
def test_nothing_is_thought_behind_the_end_of_the_reasoning(monkeypatch):
    model, tokenizer = tiny_adapter()
    batch, passes = prompts(tokenizer), []
    onto = model.generator.onto

    def counted(base):
        stack = onto(base)
        forward = stack.forward
        stack.forward = lambda **kwargs: (passes.append(tuple(kwargs["inputs_embeds"].shape[:2])), forward(**kwargs))[1]
        return stack

    monkeypatch.setattr(model.generator, "onto", counted)
    sure = torch.ones(3, 4)
    monkeypatch.setattr(
        model, "_spell", lambda thoughts: (torch.full(thoughts.shape[:2], 7), sure[:, : thoughts.shape[1]])
    )
    assert (model.generator_states(**batch).abs().sum(-1) > 0).all() and passes == [(3, 2), (3, 3), (3, 2)]

    def end_at(*ends):
        said = torch.full((3, 4), 7)
        said[range(3), ends] = END
        first, second = said.split(2, dim=1)
        blocks = iter((first, second[(first != END).all(1)]))
        return lambda thoughts: (next(blocks), sure[: len(thoughts), :2])

    passes.clear()
    monkeypatch.setattr(model, "_spell", end_at(0, 2, 1))
    thoughts = model.think(**batch)
    assert passes == [(3, 2), (1, 3)], "rows that have ended are read no more"
    for row, length in enumerate((1, 3, 2)):
        assert (thoughts[row, length:] == model.projection.bias).all()
        assert (thoughts[row, :length] != model.projection.bias).any(-1).all()


@torch.no_grad()
def test_nothing_is_read_behind_the_end_of_the_reasoning():
    model, tokenizer = tiny_adapter()
    states = model.get_output_embeddings().weight[torch.tensor([[9, 8, 7, 6, 5], [9, END, 7, 6, 5]])] * 50
    model.generator_states = lambda *args: states
    read = model.read_thoughts(**prompts(tokenizer, QUESTIONS[:2]), top_k=2)
    assert read.token_ids[..., 0].tolist() == [[9, 8, 7, 6, 5], [9, END, END, END, END]]


@torch.no_grad()
@pytest.mark.parametrize("confidence", [0.0, 0.5])
def test_rows_are_thought_about_as_if_alone(confidence):
    model, tokenizer = tiny_adapter(thought_confidence=confidence)
    batch = prompts(tokenizer)
    expected = [model.think(**prompts(tokenizer, [question]))[0] for question in QUESTIONS[:3]]
    tokenizer.padding_side = "right"
    right = prompts(tokenizer)
    cut = [(ids == model.config.thought_token_id).long().argmax().item() for ids in right.input_ids]
    assert len(set(cut)) == 3, "the thoughts stand in other columns"
    for found in (model.think(**batch), model.think(**right)):
        torch.testing.assert_close(found, torch.stack(expected), atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_the_base_stays_as_it_is():
    model, tokenizer = tiny_adapter()
    batch = prompts(tokenizer)
    ids = batch.input_ids.where(batch.input_ids < 330, 0)
    before = model.language_model(input_ids=ids).logits
    weights = {name: weight.clone() for name, weight in model.language_model.state_dict().items()}
    model.generate(**batch, max_new_tokens=2, do_sample=False)
    assert torch.equal(model.language_model(input_ids=ids).logits, before)
    assert all(torch.equal(weights[name], weight) for name, weight in model.language_model.state_dict().items())
    assert not any(isinstance(part, Updated) for part in model.language_model.modules())


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 3])
def test_shortcuts_change_no_answer(rows):
    model, tokenizer = tiny_adapter()
    for start in (0, 3, 6):  # the second call finds the prefix of the first
        batch = prompts(tokenizer, [f"{TEXTS[0][:30]} {text}" for text in QUESTIONS[start : start + rows]])
        told = {"max_new_tokens": 4, "do_sample": False}
        assert torch.equal(model.generate(**batch, **told), model.generate(**batch, **told, shortcuts=False))
    assert model._prefix is not None and model._prefix.generator, "a prefix was shared"


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
def test_a_question_is_read_once_for_thoughts_and_answer(family, padded):
    """But where the base's cache does not keep all of it, as with a sliding window."""
    model, tokenizer = tiny_adapter(family)
    model.config.draft_marks = {}  # the base would read drafted answers too
    batch = prompts(tokenizer, QUESTIONS[: 3 if padded else 1])
    read, forward, base = [], model.language_model.base_model.forward, model.language_model.base_model
    base.forward = lambda *args, **told: (read.append(told["inputs_embeds"].shape[1]), forward(*args, **told))[1]
    told = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": False}
    answers = model.generate(**batch, **told)
    question = int((batch.input_ids[0] == model.config.thought_token_id).long().argmax())
    prefill = max(read[1:])
    kept = _is_plain(DynamicCache(config=base.config))
    assert prefill == batch.input_ids.shape[1] - (question - 1 if kept else 0)
    assert torch.equal(answers, model.generate(**batch, **told, shortcuts=False))
    drawn = {"max_new_tokens": 3, "do_sample": True, "num_return_sequences": 2}
    torch.manual_seed(0)
    answers = model.generate(**batch, **drawn)
    torch.manual_seed(0)
    assert torch.equal(answers, model.generate(**batch, **drawn, shortcuts=False)), "each row's copies have its own"


@torch.no_grad()
def test_the_updates_merged_into_a_copy(family):
    model, _ = tiny_adapter(family)
    base = model.language_model.base_model
    for (name, weight), expected in zip(
        model.generator.merged(base).state_dict().items(), merged(model).state_dict().values(), strict=True
    ):
        torch.testing.assert_close(weight, expected, msg=name)


def test_gradients_reach_the_updates_alone():
    model, tokenizer = tiny_adapter()
    told = torch.tensor([[9, 8, END, -100, -100], [9, 8, 7, 6, END], [END, -100, -100, -100, -100]])
    for states in model.states_in_blocks(**prompts(tokenizer), told=told):
        model.zero_grad()
        model.project(states).square().sum().backward(retain_graph=True)
        assert all(weight.grad is not None for weight in model.generator.parameters())
        assert model.projection.weight.grad.abs().sum() > 0
        assert all(weight.grad is None for weight in model.language_model.parameters())


@torch.no_grad()
def test_a_checkpoint_holds_the_updates_alone(tmp_path):
    model, tokenizer = tiny_adapter(sure=1, checkpoint_kind="adapter", base_model_name_or_path="someone/tiny-llama")
    model.language_model.save_pretrained(tmp_path / "models" / "tiny-llama")
    model.save_pretrained(tmp_path / "checkpoint")
    with safe_open(tmp_path / "checkpoint" / "model.safetensors", "pt") as weights:
        names = set(weights.keys())
    assert names == {name for name in model.state_dict() if not name.startswith("language_model.")}
    assert {name.rsplit(".", 1)[-1] for name in names if name.startswith("generator.")} == {"down", "up"}
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint", trust_remote_code=True)
    batch = prompts(tokenizer)
    assert torch.equal(loaded.think(**batch), model.think(**batch))
    assert loaded.config.thoughts_per_pass == PER_PASS
    half = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint", trust_remote_code=True, dtype=torch.bfloat16)
    assert half.think(**batch).dtype == half.generator.dtype == torch.bfloat16


def test_what_does_not_go_together_is_said():
    for options, said in (
        ({"adapter_rank": 0}, "needs adapter_rank"),
        ({"thoughts_per_pass": K + 1}, "between 1 and 5"),
    ):
        with pytest.raises(ValueError, match=said):
            tiny_adapter(**options)
    with pytest.raises(ValueError, match="adapter_rank alone"):
        tiny_semcot(thoughts_per_pass=1)
    model, tokenizer = tiny_adapter()
    with pytest.raises(ValueError, match="has no token"):
        model.states_in_blocks(**prompts(tokenizer), told=torch.full((3, K), -100))
