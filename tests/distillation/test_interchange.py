"""Steps of other problems, and the refiner that learns from them to read the thoughts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import tiny_base_tokenizer, tiny_semcot

from building_semcot import decoder_layers
from semcot.data import Equation, load_problems
from semcot.distillation import IGNORED, step_places, token_supervision_targets, tokenize_problems
from semcot.distillation.interchange import InterchangeCollator, LastStep, last_step, spelt_right, states_of, with_index

K = 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12 / 4 = 3, 3 * 12 = 36, 36 + 31 = 67", LastStep((3, 36), Equation("r1", "+", "31"))),
        ("7 * 2 = 14, 13 * 5 = 65, 14 + 65 = 79", LastStep((14, 65), Equation("r0", "+", "r1"))),
        ("8 + 2 = 10, 50 - 10 = 40", LastStep((10,), Equation("50", "-", "r0"))),
        ("8 + 2 = 10, 50 / 10 = 5", None),
        ("8 + 3 = 10, 50 - 10 = 40", None),  # not true
        ("8 + 2 = 10", None),
        ("8 + 2 = 10, 5 * 2 = 10, 10 + 3 = 13", None),  # which ten?
        ("8 + 2 = 10, 10 + 10 = 20", None),
        ("8 + 2 = 10, 4 + 3 = 7", None),
        ("1 + 1 = 2, 2 + 1 = 3, 3 + 1 = 4, 4 + 1 = 5", None),
        ("rushawn flips, heads", None),
        ("", None),
    ],
)
def test_how_the_last_step_goes_on(text, expected):
    assert last_step(text, supervised_steps=3) == expected


def test_a_last_step_is_redone_with_other_results():
    plus, minus = (last_step(f"3 * 4 = 12, {step}", 3) for step in ("12 + 31 = 43", "20 - 12 = 8"))
    assert plus.redone((18,)) == "18 + 31 = 49"
    assert minus.redone((18,)) == "20 - 18 = 2" and minus.redone((20,)) is None


def test_places_are_those_of_the_token_supervision_targets():
    tokenizer = tiny_base_tokenizer()
    steps = ["11 + 22 = 33", "44 + 55 = 99", "66 + 11 = 77"]
    for thoughts in (5, 8):
        for number in (2, 3):
            if number - 1 > thoughts // 2:
                continue
            *before, last = step_places(number, thoughts)
            whole = token_supervision_targets(", ".join(steps[:number]), tokenizer, thoughts, 3)
            for j, where in enumerate(before):
                other = token_supervision_targets(
                    ", ".join([*steps[:j], "0", *steps[j + 1 : number]]), tokenizer, thoughts, 3
                )
                changed = [i for i in range(thoughts) if whole[i] != other[i]]
                assert changed and set(changed) <= set(range(thoughts)[where])
            assert last.stop == thoughts and last.start == thoughts // 2


@pytest.fixture
def prepared(tmp_path):
    """A tiny model, forty stories of one to three steps, and their states."""
    model, tokenizer = tiny_semcot(num_thoughts=K, refiner_layers=1)
    problems = tokenize_problems(
        load_problems("synthetic_arithmetic", num_samples=40, seed=3), tokenizer, K, supervised_steps=3
    )
    for layer in decoder_layers(model.generator):
        layer.self_attn.attention_dropout = 0.5  # which has no part in them
    states = states_of(model.train(), tokenizer, problems, tmp_path / "states.npy", batch_size=7)
    return model, tokenizer, problems, states


def collator_of(prepared, **given) -> InterchangeCollator:
    _, tokenizer, problems, states = prepared
    spelt = np.ones((40, K), dtype=bool)
    fixed = {"states": states, "problems": problems, "spelt": spelt, "tokenizer": tokenizer, "supervised_steps": 3}
    drawn = {"share": 0.8, "seed": 5, "epoch": lambda: 0}
    return InterchangeCollator(tokenizer.pad_token_id, **{**fixed, **drawn, **given})


def test_states_are_those_of_each_problem_alone(prepared, tmp_path):
    model, tokenizer, problems, states = prepared
    for i in range(0, 40, 9):
        alone = model.generator_states(torch.tensor([problems[i]["prompt_ids"]]))
        torch.testing.assert_close(torch.tensor(states[i]).float(), alone[0], atol=5e-3, rtol=5e-3)
    assert [file.name for file in tmp_path.iterdir()] == ["states.npy"]
    changed = tmp_path.stat().st_mtime_ns
    states_of(model, tokenizer, problems, tmp_path / "states.npy")
    assert tmp_path.stat().st_mtime_ns == changed, "a file that is there is used as it is"
    rounded = states_of(model, tokenizer, problems, tmp_path / "bf16.npy", bf16=True, batch_size=7)
    assert 0 < np.abs(rounded - states).max() < 0.2


def test_right_places_are_found(prepared):
    model, _, problems, states = prepared
    tokens = torch.tensor(sorted({token for ids in problems["thought_labels"] for token in ids} - {IGNORED}))
    right = spelt_right(model, states, list(problems["thought_labels"]), tokens)
    thoughts = model.project(torch.tensor(states).float())
    scores = thoughts @ model.get_input_embeddings().weight[tokens].T
    for i, wanted in enumerate(problems["thought_labels"]):
        for place, token in enumerate(wanted):
            expected = token == IGNORED or tokens[scores[i, place].argmax()] == token
            assert right[i, place] == expected
    many = spelt_right(model, np.tile(states, (26, 1, 1)), list(problems["thought_labels"]) * 26, tokens)
    assert (many == np.tile(right, (26, 1))).all(), "more than fit into one batch"


def test_steps_of_other_problems_come_with_the_last_one_redone(prepared):
    _, tokenizer, problems, states = prepared
    epoch = 0
    share = 0.8
    collator = collator_of(prepared, share=share, epoch=lambda: epoch)
    rows = list(with_index(problems))
    texts, labels = problems["condensed_reasoning"], list(problems["thought_labels"])
    first = collator(rows)
    same = collator(rows)
    assert torch.equal(first["generator_states"], same["generator_states"]), "the same pass draws the same"
    exchanged = 0
    for i, (new, target) in enumerate(zip(first["generator_states"], first["thought_labels"].tolist(), strict=True)):
        if torch.equal(new, torch.tensor(states[i]).float()):
            assert target == labels[i]
            continue
        exchanged += 1
        # Each place of the states says which problem it is from.
        origins = [[d for d in range(40) if torch.equal(new[p], torch.tensor(states[d, p]).float())] for p in range(K)]
        (own,) = origins[-1]
        step = last_step(texts[own], 3)
        *earlier, last = step_places(len(step.results) + 1, K)
        assert all(origins[place] == [own] for place in range(K)[last]), "the last step's states are its own"
        results = []
        for j, where in enumerate(earlier):
            (other,) = origins[where.start]
            assert all(origins[place] == [other] for place in range(K)[where])
            assert target[where] == labels[other][where]
            results.append(last_step(texts[other], 3).results[j])
        redone = step.redone(tuple(results))
        assert target[last] == token_supervision_targets(f"{'0, ' * len(earlier)}{redone}", tokenizer, K, 3)[last]
    assert 0.5 * share < exchanged / 40 < 1
    assert torch.equal(replace(collator, share=0.0)(rows)["generator_states"], torch.tensor(states).float())
    unknown = replace(collator)
    unknown._tokens = {IGNORED}
    assert torch.equal(unknown(rows)["generator_states"], torch.tensor(states).float()), (
        "no label that the loss does not know"
    )
    other_seed = replace(collator, seed=6)(rows)["generator_states"]
    assert not torch.equal(first["generator_states"], other_seed), "another seed draws others"
    epoch = 1
    assert not torch.equal(first["generator_states"], collator(rows)["generator_states"]), "the next pass draws anew"
    collator = replace(collator, problems=problems.select(range(30)))
    assert torch.equal(collator(rows)["generator_states"][30:], torch.tensor(states[30:]).float()), "for validation"


def test_steps_that_are_spelt_wrongly_or_cut_are_lent_to_nobody(prepared):
    _, tokenizer, problems, states = prepared
    whole = np.ones((40, K), dtype=bool)
    collator = collator_of(prepared, spelt=whole)
    lenders = {number: [list(step) for step in steps] for number, steps in collator._donors.items()}
    lender = lenders[3][0][0]
    first, second, _ = step_places(3, K)
    whole[lender, first] = False
    wrong = collator_of(prepared, spelt=whole)
    assert wrong._donors[3][0] == lenders[3][0][1:], "not its first step"
    assert wrong._donors[3][1] == lenders[3][1], "its second all the same"
    whole[:, second] = False
    nobody = collator_of(prepared, spelt=whole, share=1.0)
    assert not nobody._donors[3][1] and len(nobody(list(with_index(problems)))["generator_states"]) == 40
    texts = list(problems["condensed_reasoning"])
    texts[lender] = "400 + 12 = 412, 412 - 12 = 400, 400 / 4 = 100"
    longer = problems.remove_columns("condensed_reasoning").add_column("condensed_reasoning", texts)
    cut = collator_of(prepared, problems=longer)
    assert lender not in cut._donors[3][0] and lender not in cut._donors[3][1], "three digits in two places"


def test_states_are_whole_or_not_there(prepared, tmp_path, killed_at_renames):
    model, tokenizer, problems, _ = prepared
    with pytest.raises(KeyboardInterrupt):
        states_of(model, tokenizer, problems, tmp_path / "others.npy")
    assert not (tmp_path / "others.npy").exists()
