"""Pause tokens: how many stand where, and that nothing is learnt at their places."""

import pytest
import torch
from methods_checks import PROBLEMS, tiny_method


def test_so_many_pauses_stand_behind_the_prompt():
    method = tiny_method("pause", num_pauses=7)
    plain = tiny_method("direct_finetuned")
    questions = [problem["question"] for problem in PROBLEMS]
    for paused, prompt in zip(method.prompt_ids(questions), plain.prompt_ids(questions), strict=True):
        assert paused == prompt + [method.thought_id] * 7
    assert tiny_method("pause").prompts(["Why?"])[0].endswith("Answer:" + "<thought>" * 10)


def test_the_loss_is_that_of_the_answer_after_the_pauses_alone():
    method = tiny_method("pause", num_pauses=3)
    losses = []
    with torch.no_grad():
        for problem in PROBLEMS:
            (prompt,), (answer,) = method.prompt_ids([problem["question"]]), method.target_ids([problem["answer"]])
            embed = method.base.get_input_embeddings()
            read = torch.cat(
                [embed(torch.tensor(prompt[:-3])), method.pause.expand(3, -1), embed(torch.tensor(answer))]
            )
            scores = method.base(inputs_embeds=read[None]).logits[0].log_softmax(-1)
            losses += [-scores[len(prompt) - 1 + i, token] for i, token in enumerate(answer)]
        assert torch.allclose(method.loss(PROBLEMS, 0), torch.stack(losses).mean(), atol=1e-5)


def test_base_and_pause_are_trained_and_the_vocabulary_stays():
    method = tiny_method("pause").train()
    method.loss(PROBLEMS, 0).backward()
    assert method.pause.grad.abs().sum() > 0 and method.pause.shape == (32,)
    assert all(weight.grad is not None for weight in method.base.parameters())
    assert method.base.get_input_embeddings().num_embeddings == 330
    assert method.own_weights().keys() == {"pause", *(f"base.{name}" for name, _ in method.base.named_parameters())}


def test_the_answer_hangs_on_the_pause():
    method = tiny_method("pause")
    before = method.answer(["How many songs?"], 8)
    with torch.no_grad():
        method.pause.add_(10.0)
    assert method.answer(["How many songs?"], 8) != before


def test_none_is_no_pause():
    with pytest.raises(ValueError, match="num_pauses must be at least 1, got 0"):
        tiny_method("pause", num_pauses=0)
