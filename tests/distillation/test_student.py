"""The student's shortcuts against the plain pass: the same losses, logits and gradients."""

import pytest
import torch
from conftest import FAMILIES, TEXTS, tiny_language_model, tiny_semcot
from datasets import Dataset
from torch.nn import functional as F

from building_semcot import decoder_layers
from semcot.distillation import DistillationCollator, Student, shared_prefix_length, tokenize_problems
from semcot.distillation.student import _reads_over_padding

PROBLEMS = Dataset.from_list(
    [
        {"question": TEXTS[0], "condensed_reasoning": "11 - 9 = 2, 2 + 8 = 10", "answer": "10"},
        {"question": TEXTS[1], "condensed_reasoning": "", "answer": "no"},
        {"question": "How many?", "condensed_reasoning": "7", "answer": "1234"},
    ]
)
SAME = {"atol": 1e-5, "rtol": 1e-5}


def read(model, tokenizer, shared_prefix: int, rows=None, multiple: int = 1):
    """Loss and own gradients of a batch, as the trainer reads it."""
    rows = rows or list(tokenize_problems(PROBLEMS, tokenizer, model.config.num_thoughts))
    batch = DistillationCollator(tokenizer.pad_token_id, shared_prefix, multiple)(rows)
    inputs = {name: batch[name][:, :-1] for name in ("input_ids", "attention_mask")}
    model.zero_grad()
    output = Student(model, shared_prefix).train()(**inputs, num_targets=batch["num_targets"])
    labels = batch["labels"][:, -batch["num_targets"] :]
    loss = F.cross_entropy(output.logits.transpose(1, 2), labels, ignore_index=-100) + output.thoughts.square().mean()
    loss.backward()
    return loss, {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def plain(model, tokenizer):
    """The same by the model's own forward, one row at a time, with all logits and the whole sequence in the graph."""
    answers, thoughts = [], []
    model.zero_grad()
    for row in tokenize_problems(PROBLEMS, tokenizer, model.config.num_thoughts):
        ids = torch.tensor([row["prompt_ids"] + row["answer_ids"]])
        output = model.train()(input_ids=ids)
        start = len(row["prompt_ids"]) - 1
        answers.append(F.cross_entropy(output.logits[0, start:-1], torch.tensor(row["answer_ids"]), reduction="none"))
        thoughts.append(output.thoughts.square().mean())
    loss = torch.cat(answers).mean() + torch.stack(thoughts).mean()
    loss.backward()
    return loss, {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def shared_prefix_of(model, tokenizer) -> int:
    prompts = tokenize_problems(PROBLEMS, tokenizer, model.config.num_thoughts)["prompt_ids"]
    return shared_prefix_length(model, list(prompts), longest=max(map(len, prompts)) + 20)


@pytest.mark.parametrize("offset", [0, -1])
@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_are_those_of_the_plain_pass(family, offset):
    generator = None if family == "llama" else 2
    model, tokenizer = tiny_semcot(family, generator, thought_offset=offset)
    prefix = shared_prefix_of(model, tokenizer)
    assert prefix == len(tokenizer("<|im_start|>user\n", add_special_tokens=False).input_ids)
    loss, gradients = plain(model, tokenizer)
    assert not any(name.startswith("language_model") for name in gradients)
    for shared, multiple in ((prefix, 1), (prefix, 8), (1, 1), (0, 1), (0, 8)):
        found, others = read(model, tokenizer, shared, multiple=multiple)
        torch.testing.assert_close(found, loss, **SAME)
        assert others.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(
                others[name], gradient, atol=2e-5, rtol=1e-4, msg=f"{shared}, {multiple}: {name}"
            )


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "granite", "phi", "mpt", "qwen3_5_text"])
def test_other_families_too_with_what_shortcuts_they_allow(family):
    model, tokenizer = tiny_semcot(family)
    prefix = shared_prefix_of(model, tokenizer)
    assert (prefix > 0) == (family in ("gemma2", "granite", "phi")), "no window, state or columns that padding changes"
    loss, gradients = plain(model, tokenizer)
    found, others = read(model, tokenizer, prefix)
    torch.testing.assert_close(found, loss, **SAME)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, atol=1e-4, rtol=1e-3)


def test_the_question_is_read_without_a_graph_and_the_prefix_once():
    model, tokenizer = tiny_semcot()
    prefix = shared_prefix_of(model, tokenizer)
    passes = {"base": [], "generator": []}
    for name, stack in (("base", model.language_model.base_model), ("generator", model.generator)):
        layer = decoder_layers(stack)[0]
        layer.register_forward_pre_hook(
            lambda _, args, name=name: passes[name].append((*args[0].shape[:2], torch.is_grad_enabled()))
        )
    rows = list(tokenize_problems(PROBLEMS, tokenizer, 3))
    read(model, tokenizer, prefix)
    length = max(len(row["prompt_ids"]) for row in rows)
    first = rows[0]["prompt_ids"].index(model.config.thought_token_id)
    cue = len(rows[0]["prompt_ids"]) - first - 3
    answer = max(len(row["answer_ids"]) for row in rows)
    question = length - cue - 3
    assert passes["base"] == [
        (1, prefix, False),
        (3, question - prefix, False),
        (3, 3 + cue + answer - 1, True),
    ]
    assert passes["generator"] == [(1, prefix, True), (3, question + 3 - prefix, True)]
    passes["base"].clear()
    read(model, tokenizer, prefix, rows[:1])
    assert [rows for rows, _, _ in passes["base"]] == [1, 1], "one row shares nothing"


def test_gradient_checkpointing_gives_the_same_gradients():
    model, tokenizer = tiny_semcot()
    prefix = shared_prefix_of(model, tokenizer)
    loss, gradients = read(model, tokenizer, prefix)
    model.generator.gradient_checkpointing_enable()
    calls = []
    decoder_layers(model.generator)[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    again, others = read(model, tokenizer, prefix)
    assert len(calls) == 2, "read once more for the gradient"
    torch.testing.assert_close(again, loss, **SAME)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, atol=2e-5, rtol=1e-4)


def test_without_targets_no_base_is_run():
    model, tokenizer = tiny_semcot()
    rows = list(tokenize_problems(PROBLEMS, tokenizer, 3))
    prefixes = shared_prefix_of(model, tokenizer), 0
    model.language_model.base_model.register_forward_pre_hook(lambda *_: pytest.fail("the base ran"))
    for prefix in prefixes:
        batch = DistillationCollator(tokenizer.pad_token_id, prefix)(rows)
        student = Student(model, prefix)
        output = student(batch["input_ids"], batch["attention_mask"])
        assert output.logits is None
        for own, row in zip(output.thoughts, rows, strict=True):
            torch.testing.assert_close(own, model.think(torch.tensor([row["prompt_ids"]]))[0], **SAME)


def test_what_is_shared_is_what_all_prompts_begin_with():
    model, tokenizer = tiny_semcot()
    thought = model.config.thought_token_id
    assert shared_prefix_length(model, [[5, 6, 7, 8, thought], [5, 6, 9, thought]], 20) == 2
    assert shared_prefix_length(model, [[5, 6, thought]], 20) == 1, "each question keeps a token"
    assert shared_prefix_length(model, [[5, 6, thought], [6, 5, thought]], 20) == 0


def test_padding_is_within_a_row_only_where_all_of_the_row_is_read():
    model, _ = tiny_semcot("mistral")
    for part in (model.config.text_config, model.config.generator_config):
        for window, fits in ((53, False), (54, True), (None, True)):
            part.sliding_window = window
            assert _reads_over_padding(model, 53) == fits
    for generator, reads in (("mpt", False), ("gpt2", True)):
        assert _reads_over_padding(tiny_semcot(generator=tiny_language_model(generator))[0], 40) == reads


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_blocks_are_told_in_training_and_answers_follow_untold_thoughts_in_validation(family):
    model, tokenizer = tiny_semcot(family, generator="base", adapter_rank=3, num_thoughts=5, thoughts_per_pass=2)
    torch.manual_seed(1)
    for weight in model.generator.parameters():
        weight.data.normal_(std=0.2)
    rows = [row | {"thought_labels": [7, 9, 8, 2, -100]} for row in tokenize_problems(PROBLEMS, tokenizer, 5)]
    found, shared = [], shared_prefix_of(model, tokenizer)
    assert shared > 3
    for length in (0, shared):
        batch = DistillationCollator(tokenizer.pad_token_id, length)(rows)
        inputs = {name: batch[name][:, :-1] for name in ("input_ids", "attention_mask")}
        inputs |= {"thought_labels": batch["thought_labels"], "num_targets": batch["num_targets"]}
        student = Student(model, length).train()
        torch.manual_seed(0)
        output = student(**inputs)
        model.zero_grad()
        (output.logits.square().mean() + output.thoughts.mean() + output.one_by_one.square().mean()).backward()
        gradients = [weight.grad.clone() for weight in model.generator.parameters()]
        with torch.no_grad():
            untold = student.eval()(**inputs)
        found.append([output.thoughts, output.one_by_one, output.logits, untold.thoughts, untold.logits, *gradients])
    for with_prefix, without in zip(*found, strict=True):
        torch.testing.assert_close(with_prefix, without, atol=2e-4, rtol=1e-3)
    told, _, logits, _, untold_logits = found[0][:5]
    with torch.no_grad():
        batch = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        by_model = model(**batch).logits[:, -inputs["num_targets"] :]
        by_told = model(**batch, thoughts=told).logits[:, -inputs["num_targets"] :]
    torch.testing.assert_close(untold_logits, by_model, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(logits, by_told, atol=2e-4, rtol=1e-3)
    assert (by_model - by_told).abs().max() > 0.01
