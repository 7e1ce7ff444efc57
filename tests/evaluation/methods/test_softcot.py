"""SoftCoT: the projection alone is trained, from an assistant that reads the question alone."""

import pytest
import torch
from conftest import QUESTIONS, tiny_base_tokenizer, tiny_language_model
from methods_checks import PROBLEMS, fit, tiny_method

from semcot.evaluation.methods.cot import INSTRUCTION


@pytest.fixture
def assistant(tmp_path) -> str:
    """A narrower model with a tokenizer of its own, without a chat format."""
    tiny_language_model(hidden_size=16, num_hidden_layers=2, seed=1).save_pretrained(tmp_path / "assistant")
    tiny_base_tokenizer(chat=False).save_pretrained(tmp_path / "assistant")
    return str(tmp_path / "assistant")


def test_only_the_projection_gets_gradients_and_changes(assistant):
    method = tiny_method("softcot", assistant=assistant, num_thoughts=4)
    before = {name: weight.detach().clone() for name, weight in method.named_parameters()}
    method.train().loss(PROBLEMS, 0).backward()
    graded = {name for name, weight in method.named_parameters() if weight.grad is not None}
    assert graded == method.own_weights().keys() == {"projection.weight", "projection.bias"}
    assert not method.base.training and not method.assistant.training and method.projection.training
    fit(method, steps=3)
    changed = {name for name, weight in method.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == graded
    assert method.projection.weight.shape == (32, 16)


def test_thoughts_are_the_projected_last_states_of_the_assistant_behind_the_question(assistant):
    method = tiny_method("softcot", assistant=assistant, num_thoughts=4)
    seen = []
    method.assistant.base_model.register_forward_hook(lambda *told: seen.append(told[-1].last_hidden_state))
    with torch.no_grad():
        thoughts = method.think(QUESTIONS)
        assert thoughts.shape == (len(QUESTIONS), 4, 32)
        for question, own in zip(QUESTIONS, thoughts, strict=True):
            alone = method.think([question])[0]
            assert torch.allclose(own, alone, atol=1e-5)
            assert torch.allclose(alone, method.projection(seen[-1][0, -4:]), atol=1e-6)
    assert (thoughts[0] - thoughts[-1]).abs().max() > 1e-3, "they are the question's own"


def test_they_stand_before_the_reasoning_in_the_bases_prompt():
    method = tiny_method("softcot", num_thoughts=3)
    (prompt,) = method.prompts(["How many?"])
    assert prompt == f"<|im_start|>user\nHow many?{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n" + "<thought>" * 3
    seen = []
    method.base.register_forward_pre_hook(lambda *told: seen.append(told[-1].get("inputs_embeds")), with_kwargs=True)
    method.answer(["How many?"], 4)
    read, thoughts = next(given for given in seen if given is not None), method.think(["How many?"])
    assert torch.equal(read[0, -3:], thoughts[0])


def test_none_is_no_thought():
    with pytest.raises(ValueError, match="num_thoughts must be at least 1, got 0"):
        tiny_method("softcot", num_thoughts=0)
