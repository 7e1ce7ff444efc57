"""What every method that is trained has to do, on a tiny random base. What is one's own stands in a file of its own."""

import json

import pytest
import torch
from conftest import QUESTIONS, tiny_base_tokenizer, tiny_language_model
from methods_checks import PROBLEMS, fit, tiny_method
from safetensors.torch import load_file

from building_semcot import cast_weights
from semcot.data import load_problems
from semcot.evaluation.measure import check_questions, evaluate_method
from semcot.evaluation.methods import TRAINED, TrainedMethod, open_method


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("name", TRAINED)
def test_answers_of_a_batch_are_those_of_each_question(name, family):
    """GPT-2 tells positions apart that Llama does not: a padded question must not begin later."""
    method = tiny_method(name, family)
    singly = [method.answer([question], 12)[0] for question in QUESTIONS]
    assert method.answer(QUESTIONS, 12) == singly and len({output.text for output in singly}) > 1


@pytest.mark.parametrize("name", TRAINED)
def test_it_fits_a_few_problems_and_then_answers_them(name):
    method = tiny_method(name)
    assert fit(method) < 0.02
    figures, _ = evaluate_method(method, PROBLEMS, max_new_tokens=48, latency_samples=0)
    assert figures["accuracy"] == 1.0


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_saved_is_what_is_trained_and_answers_alike_when_loaded(name, tmp_path):
    tiny_language_model(max_position_embeddings=1024).save_pretrained(tmp_path / "models" / "tiny")
    tiny_base_tokenizer().save_pretrained(tmp_path / "models" / "tiny")
    method = TRAINED[name].build("someone/tiny", str(tmp_path / "models" / "tiny"), tiny_method(name).settings)
    frozen = {key: weight for key, weight in method.named_parameters() if not weight.requires_grad}
    before = {key: weight.clone() for key, weight in frozen.items()}
    start = {key: weight.detach().clone() for key, weight in method.own_weights().items()}
    fit(method, steps=3)
    assert all(torch.equal(weight, before[key]) for key, weight in frozen.items())
    assert any(not torch.equal(weight, start[key]) for key, weight in method.own_weights().items())
    method.save(tmp_path / "run")
    assert load_file(tmp_path / "run" / "model.safetensors").keys() == start.keys()
    described = json.loads((tmp_path / "run" / "method.json").read_text())
    assert described["method"] == name and described["settings"] == method.settings

    loaded = TRAINED[name].load(tmp_path / "run")
    assert not any(weight.requires_grad for weight in loaded.parameters()) and not loaded.training
    method.eval()
    assert loaded.answer(QUESTIONS, 8) == method.answer(QUESTIONS, 8)
    other = next(other for other in TRAINED if other != name)
    with pytest.raises(ValueError, match=f"holds the method {name}: give {name}="):
        TRAINED[other].load(tmp_path / "run")


@pytest.mark.parametrize("name", TRAINED)
def test_neither_gold_answer_nor_gold_reasoning_is_seen_when_it_answers(name):
    """The questions alone go in; and a loss that did not depend on what is to be learnt would be a mistake."""
    method = tiny_method(name)
    stage = method.stage(0.99)
    torch.manual_seed(0)
    loss = method.loss(PROBLEMS, stage)
    torch.manual_seed(0)
    assert method.loss([{**problem, "answer": "77"} for problem in PROBLEMS], stage) != loss
    check_questions(method, QUESTIONS, 16, "own.jsonl")
    with pytest.raises(ValueError, match="problem 2: the question holds <thought>"):
        check_questions(method, ["How many?", "What is <thought>?"], 16, "own.jsonl")


@pytest.mark.parametrize("name", TRAINED)
def test_a_question_that_is_too_long_is_named(name):
    with pytest.raises(ValueError, match=rf"problem 2: its prompt for {name} has \d+ tokens"):
        check_questions(tiny_method(name), [QUESTIONS[0], "long " * 900], 16, "own.jsonl")


@pytest.mark.parametrize("name", TRAINED)
def test_it_is_trained_under_autocast_and_answers_in_bfloat16(name):
    """As on a GPU: what is trained in float32, the frozen rest in bfloat16, if it is frozen."""
    method = tiny_method(name)
    stage, own = method.stage(0.5), method.own_weights()
    with torch.no_grad():
        expected = method.loss(PROBLEMS, stage)
    for key, weight in method.named_parameters():
        weight.data = weight.data.to(torch.float32 if key in own else torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method.loss(PROBLEMS, stage)
    loss.backward()
    assert loss.dtype == torch.float32 and torch.allclose(loss, expected, rtol=0.1)
    assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in own.values())
    cast_weights(method, torch.bfloat16)
    assert len(method.answer(QUESTIONS, 4)) == len(QUESTIONS)


def test_settings_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match="direct_finetuned has no setting width: it has none"):
        tiny_method("direct_finetuned", width=3)


def test_a_folder_is_needed_and_must_hold_a_method(semcot, tmp_path):
    with pytest.raises(ValueError, match="give cot_finetuned=FOLDER"):
        open_method("cot_finetuned", *semcot)
    with pytest.raises(FileNotFoundError, match="holds no trained method"):
        open_method(f"cot_finetuned={tmp_path}", *semcot)
    with pytest.raises(ValueError, match="direct has nothing to load"):
        open_method(f"direct={tmp_path}", *semcot)


@pytest.mark.parametrize("column", ["reasoning", "condensed_reasoning"])
def test_a_chain_of_thought_is_learnt_from_the_end_of_the_question_on(column):
    method = tiny_method({"reasoning": "cot_finetuned", "condensed_reasoning": "cot_condensed_finetuned"}[column])
    seen = []
    method.base.register_forward_pre_hook(lambda *told: seen.append(told[-1]), with_kwargs=True)
    problems = load_problems("synthetic_coin_flip", num_samples=2).to_list()
    method.loss(problems, 0)
    (given,) = seen
    for problem, ids, mask in zip(problems, given["input_ids"], given["attention_mask"], strict=True):
        text = method.tokenizer.decode(ids[mask.bool()])
        assert text.endswith(f"assistant\n {problem[column]}\nAnswer: {problem['answer']}<|im_end|>")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_mean_is_over_target_tokens_alone(family):
    method = tiny_method("direct_finetuned", family)
    rows = [([5, 6, 7, 8], [9]), ([5, 6], [7, 8])]
    with torch.no_grad():
        losses = []
        for context, target in rows:
            logits = method.base(input_ids=torch.tensor([[*context, *target]])).logits[0]
            chosen = logits.log_softmax(-1)[len(context) - 1 : -1]
            losses += [-chosen[i, token] for i, token in enumerate(target)]
        found = method.cross_entropy(*zip(*rows, strict=True))
    assert torch.allclose(found, torch.stack(losses).mean(), atol=1e-5)


def test_there_is_a_method_for_every_name():
    assert all(issubclass(method, TrainedMethod) and method.name == name for name, method in TRAINED.items())
