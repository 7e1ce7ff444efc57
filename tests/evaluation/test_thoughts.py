"""What thoughts spell, and whether they find their own reasoning."""

import numpy as np
import pytest
import torch
from conftest import prompts, tiny_semcot

from building_semcot import decoder_layers
from semcot.data.step_ends import token_supervision_targets
from semcot.evaluation.alignment import (
    LAYER,
    cosines,
    likelihoods,
    mean_states,
    reasoning_of,
    retrieval,
    think_all,
)
from semcot.evaluation.reading import spelling_shares, spells, with_spelling
from semcot.evaluation.thoughts import study_thoughts


@pytest.mark.parametrize(
    ("text", "gold", "spelt"),
    [
        (" - 9 = 2 8 = 10", "10", True),
        (" - 9 = 2 8 = 10", "2", False),
        (" 1 = 1,234", "1234", True),
        ("8 = 21 / 7 3", "3", True),
        (" - 2 = 7 = strugg", "7", False),  # the last step has none
        (": heads affili so yes", "yes", True),
        (": heads affili so yes", "no", False),
    ],
)
def test_the_last_result_is_what_thoughts_spell(text, gold, spelt):
    assert spells(text, gold) is spelt


def problems_spelt_by(tokenizer, texts):
    """Problems whose condensed reasonings have three tokens each, and their ids."""
    ids = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    assert {len(row) for row in ids} == {3}
    answers = [text[-1] for text in texts]
    problems = [
        {"question": f"Question {i}?", "reasoning": "Long.", "condensed_reasoning": text, "answer": answer}
        for i, (text, answer) in enumerate(zip(texts, answers, strict=True))
    ]
    return problems, torch.tensor(ids)


@pytest.fixture
def spelling():
    """A model whose thoughts are its reasonings' embeddings, twelve times as long, in the order of its problems."""
    model, tokenizer = tiny_semcot()
    problems, ids = problems_spelt_by(tokenizer, ["(=7", ")=8", "/=9", "*=5", "+=4"])
    own = model.get_input_embeddings()(ids) * 12

    def think(input_ids, attention_mask=None):
        questions = tokenizer.batch_decode(input_ids)
        return torch.stack([own[int(question.partition("Question ")[2][0])] for question in questions])

    model.generator_states, model.project = think, lambda thoughts: thoughts
    return model, tokenizer, problems


def test_thoughts_are_read(spelling):
    model, tokenizer, problems = spelling
    rows = [
        {"question": problem["question"], "gold": problem["answer"], "correct": i < 2}
        for i, problem in enumerate(problems)
    ]
    rows[1]["gold"] = "3"
    read = with_spelling(model, tokenizer, rows, batch_size=2)
    assert ["".join(row["thoughts"]) for row in read] == [problem["condensed_reasoning"] for problem in problems]
    assert [row["spells_result"] for row in read] == [True, False, True, True, True]
    assert spelling_shares(read) == {
        "all": {"n": 5, "spelt": 4, "share": 0.8},
        "right": {"n": 2, "spelt": 1, "share": 0.5},
        "wrong": {"n": 3, "spelt": 3, "share": 1.0},
    }
    assert spelling_shares(read[:2])["wrong"]["share"] is None


@pytest.mark.parametrize("way", ["tokens", "states"])
def test_thoughts_that_are_their_reasonings_find_them(spelling, way):
    model, tokenizer, problems = spelling

    def found(problems):
        thoughts, spelt = think_all(model, tokenizer, [problem["question"] for problem in problems], batch_size=2)
        texts = list(map(reasoning_of, problems))
        if way == "tokens":
            return retrieval(likelihoods(model, tokenizer, spelt, texts), texts)
        return retrieval(cosines(mean_states(model, tokenizer, thoughts, texts, batch_size=2)), texts)

    row = found(problems)
    assert [row[f"{name}{rank}"] for name in WAYS for rank in ("", "_mean_rank")] == [1.0] * 4 and row["pool"] == 5
    if way == "states":
        assert row["likeness"] == pytest.approx(1.0, abs=1e-4)
    row = found([{**problem, "question": f"Question {(i + 1) % 5}?"} for i, problem in enumerate(problems)])
    assert all(row[name] == 0.0 and row[f"{name}_mean_rank"] > 1 for name in WAYS)


def test_likelihoods_are_those_of_the_ends_of_as_many_steps_as_the_thoughts_spell():
    model, tokenizer = tiny_semcot()
    table, texts = model.get_input_embeddings().weight.detach(), ["1+2=3, 3+4=7", "9-4=5, 5*1=5"]
    for steps in (1, 2):
        targets = torch.tensor([token_supervision_targets(text, tokenizer, 6, steps) for text in texts])
        assert (targets != -100).all()
        thoughts = table[targets] * 30 / table[targets].norm(dim=-1, keepdim=True)
        read = (thoughts @ table.T).log_softmax(-1)
        found = likelihoods(model, tokenizer, read, texts)
        for i in range(2):
            for j in range(2):
                expected = sum(read[i, k, token] for k, token in enumerate(targets[j])) / 6
                torch.testing.assert_close(found[i, j], expected)


def test_a_reasoning_without_a_condensed_form_is_told_by_its_steps():
    problem = {"question": "Tom had 34 pens, lost 3 and bought 48. How many has he?", "answer": "79"}
    told = problem | {"reasoning": "First 34 - 3 = 31. Then 31 + 48 = 79.", "condensed_reasoning": ""}
    assert reasoning_of(told) == "34 - 3 = 31, 31 + 48 = 79"
    assert reasoning_of(told | {"condensed_reasoning": "31 + 48 = 79"}) == "31 + 48 = 79"
    assert reasoning_of(told | {"reasoning": "Heads, so yes.", "answer": "yes"}) == "Heads, so yes."


WAYS = ("thoughts_to_reasonings", "reasonings_to_thoughts")


def test_ranks_by_hand():
    likeness = torch.tensor([[0.9, 0.1, 0.3], [0.8, 0.5, 0.6], [0.2, 0.7, 0.4]])
    found = retrieval(likeness, ["a", "b", "c"])
    # Thoughts: the own one is first, third (0.8 and 0.6 before it), second. Reasonings: first, second, second.
    assert found == {
        "pool": 3,
        "likeness": pytest.approx(0.6),
        "thoughts_to_reasonings": pytest.approx(1 / 3),
        "thoughts_to_reasonings_mean_rank": pytest.approx(2.0),
        "reasonings_to_thoughts": pytest.approx(1 / 3),
        "reasonings_to_thoughts_mean_rank": pytest.approx(5 / 3),
    }
    same = retrieval(likeness, ["a", "a", "c"])
    assert same["thoughts_to_reasonings_mean_rank"] == pytest.approx((1 + 2 + 2) / 3), "the same text is no rival"


def test_what_cannot_be_told_apart_is_not_found():
    """Reasonings that are too long for the thoughts are all equally unlikely."""
    model, tokenizer = tiny_semcot()
    found = retrieval(likelihoods(model, tokenizer, torch.randn(3, 4, 330).log_softmax(-1), [""] * 3), ["a", "b", "c"])
    assert [found[f"{name}{rank}"] for name in WAYS for rank in ("", "_mean_rank")] == [0.0, 3.0] * 2


@pytest.mark.parametrize("family", ["llama", "gpt2", "mpt", "gemma3_text"])
def test_states_are_those_of_the_whole_base(family):
    """Which is not run further than to the layers that are looked at."""
    model, tokenizer = tiny_semcot(family)
    problems, _ = problems_spelt_by(tokenizer, ["(=7", ")=8", "/=9"])
    problems[1]["condensed_reasoning"] += "a longer one"
    own = model.think(**prompts(tokenizer, [problem["question"] for problem in problems])).detach()
    base, ran = model.language_model.base_model, []
    whole = base(inputs_embeds=own, output_hidden_states=True).hidden_states
    decoder_layers(base)[-1].register_forward_hook(lambda *_: ran.append(True))
    texts = list(map(reasoning_of, problems))
    states = mean_states(model, tokenizer, own, texts, batch_size=2)
    expected = whole[LAYER].mean(1)
    torch.testing.assert_close(states.thoughts, expected - expected.mean(0), atol=1e-5, rtol=1e-4)
    assert not ran and states.reasonings.shape == states.thoughts.shape
    together = mean_states(model, tokenizer, own, texts, batch_size=3)
    torch.testing.assert_close(states.reasonings, together.reasonings, atol=1e-4, rtol=1e-4)


def test_what_is_drawn(spelling):
    model, tokenizer, problems = spelling
    predictions = [{"question": p["question"], "gold": p["answer"], "correct": True} for p in problems]
    found = study_thoughts(model, tokenizer, problems, predictions, batch_size=2)
    assert found.likelihood.shape == (5, 5) and (found.likelihood.argmax(1) == np.arange(5)).all()
    assert [row["by"] for row in found.alignment] == ["tokens", "states"]
    assert found.plane.shape == (2, 5, 2) and np.allclose(found.plane[0], found.plane[1], atol=1e-3)
    without = [{**problem, "reasoning": "", "condensed_reasoning": ""} for problem in problems]
    assert study_thoughts(model, tokenizer, without, predictions).alignment == []


def test_one_problem_is_a_point(spelling):
    """As with `--limit 1`: less its mean, no state is left of it, whose length nothing could be divided by."""
    model, tokenizer, (problem, *_) = spelling
    found = study_thoughts(model, tokenizer, [problem], [{**problem, "gold": problem["answer"], "correct": True}])
    assert found.plane.shape == (2, 1, 2) and not found.plane.any()
    assert found.likelihood.shape == (1, 1) and [row["pool"] for row in found.alignment] == [1, 1]
