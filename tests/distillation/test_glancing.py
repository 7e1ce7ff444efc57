"""Glancing: what the generator is shown, what it is then asked, and that all of it fades."""

import pytest
import torch
from conftest import tiny_semcot
from test_student import PROBLEMS
from test_trainer import loss_of, trainer_of

from semcot.distillation import IGNORED, DistillationCollator, Student, tokenize_problems
from semcot.distillation.glancing import UNAIDED, glances_at, glancing_left

PREFIX = 3


def test_a_share_of_the_tokens_is_glanced_at_which_differs_from_row_to_row():
    labels = torch.randint(9, (400, 100), generator=torch.manual_seed(0))
    labels[:, :20] = IGNORED
    seen = glances_at(labels, 0.8, torch.manual_seed(1)) != IGNORED
    assert not seen[:, :20].any()
    shares = seen[:, 20:].float().mean(1)
    assert abs(shares.mean() - 0.4) < 0.03 and shares.min() < 0.05 and 0.75 < shares.max() < 0.95
    kept = glances_at(labels, 0.8, torch.manual_seed(1))
    assert torch.equal(kept[seen], labels[seen])
    assert (glances_at(labels, 0.0) == IGNORED).all()


def test_glancing_fades_to_nothing_before_the_stage_ends():
    assert glancing_left(0) == 1
    assert glancing_left((1 - UNAIDED) / 2) == pytest.approx(0.5)
    assert glancing_left(1 - UNAIDED) == pytest.approx(0) and glancing_left(1) == 0


@pytest.mark.parametrize("prefix", [PREFIX, 0])
@pytest.mark.parametrize("generator", [2, None])
def test_the_generator_reads_the_tokens_in_the_places_of_their_thoughts(prefix, generator):
    model, tokenizer = tiny_semcot("llama", generator, refiner_layers=1)
    torch.nn.init.normal_(model.refiner.norm.weight)
    rows = tokenize_problems(PROBLEMS, tokenizer, model.config.num_thoughts)
    batch = DistillationCollator(tokenizer.pad_token_id, prefix)(list(rows))
    inputs = batch["input_ids"], batch["attention_mask"]
    glances = torch.full_like(batch["thought_labels"], IGNORED)
    student = Student(model, prefix)
    plain = student(*inputs).thoughts
    torch.testing.assert_close(student(*inputs, glances=glances).thoughts, plain, atol=1e-5, rtol=1e-5)

    glances[0, 1] = 65
    found = student(*inputs, glances=glances).thoughts
    torch.testing.assert_close(found[1:], plain[1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[0, :1], plain[0, :1], atol=1e-5, rtol=1e-5)  # the generator looks back only
    assert (found[0, 1:] - plain[0, 1:]).abs().amax(-1).min() > 1e-3

    ids = torch.tensor([rows[0]["prompt_ids"]])
    places = (ids[0] == model.config.thought_token_id).nonzero().flatten()
    ids[0, places[1]] = 65
    states = model.generator(inputs_embeds=model.embed_for_generator(ids)).last_hidden_state[:, places]
    torch.testing.assert_close(found[0], model.project(states)[0], atol=1e-5, rtol=1e-5)


def test_what_is_glanced_at_is_not_asked_and_validation_is_unaided(tmp_path):
    model, tokenizer = tiny_semcot()
    rows = tokenize_problems(PROBLEMS, tokenizer, model.config.num_thoughts)
    collate = DistillationCollator(tokenizer.pad_token_id, PREFIX)
    batch, losses = collate(list(rows)), {"token_supervision": 1}
    plain = trainer_of(model, rows, collate, tmp_path, losses=losses)
    trainer = trainer_of(model, rows, collate, tmp_path, losses=losses, glancing=1.0)
    trainer.state.max_steps, trainer.state.global_step = 100, 0
    assert torch.equal(loss_of(trainer, batch, train=False), loss_of(plain, batch, train=False))
    glances = glances_at(batch["thought_labels"], 1.0, torch.Generator().manual_seed(trainer.args.seed))
    asked = dict(batch, thought_labels=batch["thought_labels"].masked_fill(glances != IGNORED, IGNORED))
    assert 0 < (glances != IGNORED).sum() < (batch["thought_labels"] != IGNORED).sum()
    helped = Student(model, PREFIX).train()(
        batch["input_ids"][:, :-1], batch["attention_mask"][:, :-1], glances=glances
    )
    scores = (helped.thoughts @ model.get_input_embeddings().weight.T).transpose(1, 2)
    by_place = torch.nn.functional.cross_entropy(scores, asked["thought_labels"], reduction="none")
    counts = (asked["thought_labels"] != IGNORED).sum(1).clamp(min=1)
    torch.testing.assert_close(loss_of(trainer, batch), (by_place.sum(1) / counts).mean())
    trainer.state.global_step = 60  # of a hundred
    assert torch.equal(loss_of(trainer, batch), loss_of(plain, batch))
