"""OpenVINO as the engine: the same answers by every way through `generate`, and what it cannot run is refused."""

import pytest
import torch
from conftest import prompts, tiny_semcot
from torch import nn
from torchao.quantization import Int8WeightOnlyConfig, quantize_
from transformers.cache_utils import DynamicCache

from modeling_semcot import CACHE, SemCoTForCausalLM

pytest.importorskip("openvino")
from semcot.serving.openvino import with_openvino  # noqa: E402

OPTIONS = [{}, {"shortcuts": False}, {"num_beams": 3}, {"use_cache": False}]
QUESTIONS = [f"Paige had 11 songs on her player. Then {number} more." for number in (3, 12, 345, 6, 78, 9012)]


class Counted(nn.Linear):
    """What OpenVINO has no operation for."""

    def __init__(self) -> None:
        super().__init__(32, 32)

    def forward(self, states):
        return super().forward(states) + torch.histc(states, bins=32)


def answers(model, tokenizer, **options) -> list[list[int]]:
    """To one question, another, and six that are padded."""
    parts = (QUESTIONS[:1], QUESTIONS[1:2], QUESTIONS[:6])
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None} | options
    return [model.generate(**prompts(tokenizer, part), **options).tolist() for part in parts]


@pytest.mark.parametrize("family", ["llama", "qwen2", "granite"])
def test_the_answers_are_those_of_torch(family):
    model, tokenizer = tiny_semcot(family, generator=2 if family != "llama" else None)
    expected = [answers(model, tokenizer, **options) for options in OPTIONS]
    batch = prompts(tokenizer, QUESTIONS[:3])
    with torch.no_grad():
        states = model(**batch)
    assert with_openvino(model, threads=1) is model
    assert [answers(model, tokenizer, **options) for options in OPTIONS] == expected
    with torch.no_grad():
        found = model(**batch)
    torch.testing.assert_close(found.thoughts, states.thoughts, atol=1e-4, rtol=1e-4)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(found.logits[real], states.logits[real], atol=1e-3, rtol=1e-3)
    keys, others = (each[CACHE].layers[1].keys.transpose(1, 2)[real] for each in (found, states))
    torch.testing.assert_close(keys, others, atol=1e-4, rtol=1e-4)


def test_the_base_as_its_own_generator():
    model, tokenizer = tiny_semcot(generator="base", adapter_rank=3, num_thoughts=5, thoughts_per_pass=2)
    torch.manual_seed(1)
    for weight in model.generator.parameters():
        weight.data.normal_(std=0.2)
    expected, batch = answers(model, tokenizer), prompts(tokenizer, QUESTIONS[:3])
    with torch.no_grad():
        thoughts = model.think(**batch)
    with_openvino(model, threads=1)
    for update in model.generator.parameters():
        update.data.zero_()  # the engine has its own
    assert answers(model, tokenizer) == expected
    torch.testing.assert_close(model.think(**batch), thoughts, atol=1e-4, rtol=1e-4)


def test_torch_runs_no_layer_any_more_and_the_prefix_is_read_once(monkeypatch):
    model, tokenizer = tiny_semcot()
    expected = answers(model, tokenizer)
    with_openvino(model, threads=1)
    for stack in (model.generator, model.language_model.model):
        for layer in stack.layers:
            monkeypatch.setattr(layer, "forward", None)
    assert answers(model, tokenizer) == expected
    assert model._prefix.base
    lengths, run = [], model.language_model.model.forward.run
    monkeypatch.setattr(
        model.language_model.model.forward, "run", lambda x, *rest: (lengths.append(x.shape[1]), run(x, *rest))[1]
    )
    batch = prompts(tokenizer, QUESTIONS[:1])
    model.generate(**batch, max_new_tokens=1)
    assert lengths[0] <= batch.input_ids.shape[1] - len(model._prefix.ids) + 8  # and a draft
    lengths.clear()
    model.generate(**batch, max_new_tokens=1, shortcuts=False)
    assert lengths == [batch.input_ids.shape[1]]


def test_bfloat16_is_near():
    model, tokenizer = tiny_semcot()
    batch = prompts(tokenizer, QUESTIONS[:3])
    with torch.no_grad():
        expected = model(**batch).thoughts
        found = with_openvino(model.to(torch.bfloat16), threads=2)(**batch)
    assert found.thoughts.dtype == found.logits.dtype == torch.bfloat16
    assert torch.cosine_similarity(found.thoughts.float(), expected, dim=-1).min() > 0.99


def test_bfloat16_on_one_thread_of_a_cpu_with_amx_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    model, _ = tiny_semcot()
    with pytest.raises(ValueError, match="bfloat16 for a single thread on a CPU with AMX: give it 2 threads"):
        with_openvino(model.to(torch.bfloat16), threads=1)
    assert not with_openvino(model.float(), threads=1).training


def test_it_is_saved_as_it_was_loaded(tmp_path):
    model, _ = tiny_semcot()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with_openvino(model, threads=1).save_pretrained(tmp_path, checkpoint_kind="full")
    loaded = SemCoTForCausalLM.from_pretrained(tmp_path).state_dict()
    assert loaded.keys() == before.keys()
    assert all(torch.equal(loaded[name], weight) for name, weight in before.items())


def test_layers_and_head_are_copies():
    model, tokenizer = tiny_semcot()
    with_openvino(model, threads=1)
    embeds = torch.randn(2, 7, 32)
    stacks = model.generator, model.language_model.model
    before = [stack(inputs_embeds=embeds).last_hidden_state for stack in stacks]
    for part in (*stacks[0].layers, *stacks[1].layers):
        for weight in part.parameters():
            weight.data.mul_(3)
    for stack, states in zip(stacks, before, strict=True):
        assert torch.equal(stack(inputs_embeds=embeds).last_hidden_state, states)
    other = with_openvino(model, threads=1).generator(inputs_embeds=embeds).last_hidden_state
    assert not torch.allclose(other, before[0]), "called again, it copies them again"


def test_what_it_cannot_run_is_refused_and_left_as_it_was():
    half, quantised, mixed, head, dynamic, experts = (tiny_semcot()[0] for _ in range(6))
    half.to(torch.float16)
    quantize_(quantised.language_model.base_model, Int8WeightOnlyConfig())
    mixed.generator.layers[1].mlp.to(torch.bfloat16)
    head.language_model.lm_head.to(torch.float16)
    dynamic.generator.config.rope_parameters["rope_type"] = "dynamic"
    experts.language_model.model.layers[3].mlp = Counted()
    for model, reason in (
        (half, "generator is in torch.float16"),
        (quantised, "quantised by no other library; the base"),
        (mixed, "generator is in torch.bfloat16, torch.float32"),
        (head, "head is in torch.float16"),
        (dynamic, "rotated by a token's own place"),
        (experts, "OpenVINO cannot run the base, a LlamaModel"),
        *((tiny_semcot(family)[0], "keep all keys and values") for family in ("gemma2", "gpt2", "mpt")),
    ):
        with pytest.raises(ValueError, match=reason):
            with_openvino(model, threads=1)
        assert not any("forward" in vars(part) for part in model.modules()), reason
        assert any(weight.requires_grad for weight in model.parameters()), reason


def test_what_it_does_not_do_is_refused():
    model, tokenizer = tiny_semcot()
    with_openvino(model, threads=1)
    assert not any(weight.requires_grad for weight in model.parameters())
    batch = prompts(tokenizer, QUESTIONS)
    with pytest.raises(ValueError, match="output_hidden_states"):
        model(**batch, output_hidden_states=True)
    with pytest.raises(ValueError, match="leave the StaticCache out"):
        answers(model, tokenizer, cache_implementation="static")
    model.requires_grad_(True)
    with pytest.raises(ValueError, match="no gradient"):
        model.think(**batch)


def test_it_goes_on_from_a_cache_of_torch_in_bfloat16():
    model, tokenizer = tiny_semcot()
    model.to(torch.bfloat16)
    first, second = (prompts(tokenizer, [question]).input_ids for question in QUESTIONS[:2])
    cache = DynamicCache(config=model.language_model.config)
    told = model.generate(first, past_key_values=cache, max_new_tokens=6, eos_token_id=None)
    told = torch.cat([told, second], dim=1)
    output = with_openvino(model, threads=2).generate(told, past_key_values=cache, max_new_tokens=6, eos_token_id=None)
    assert output.shape[1] == told.shape[1] + 6
