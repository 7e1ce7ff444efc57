"""Stage 2's loss, against a plain computation, one row at a time and without shortcuts."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.state import GradientState
from conftest import tiny_semcot
from datasets import concatenate_datasets
from safetensors.torch import load_file
from test_student import PROBLEMS
from torch.nn import functional as F
from transformers import TrainingArguments

from semcot.distillation import DistillationCollator, DistillationTrainer, Student, tokenize_problems
from semcot.distillation.trainer import LikeLengths, load_weights
from semcot.encoder import build_reasoning_encoder, encode_thoughts

PREFIX = 3  # of the tokens that all prompts begin with


@pytest.fixture(autouse=True)
def no_loader_of_another_test():
    """accelerate remembers, for all trainers of a process, a data loader that was left in the middle."""
    GradientState._reset_state()


@pytest.fixture
def parts():
    model, tokenizer = tiny_semcot()
    rows = tokenize_problems(PROBLEMS, tokenizer, model.config.num_thoughts)
    rows = rows.add_column("reasoning_embedding", torch.randn(3, 24, generator=torch.manual_seed(0)).tolist())
    return model, tokenizer, rows, DistillationCollator(tokenizer.pad_token_id, PREFIX)


def trainer_of(model, rows, collate, tmp_path, **options):
    arguments = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, remove_unused_columns=False)
    student = Student(model, collate.shared_prefix)
    options = {"losses": {"answer": 1.0}, **options}
    return DistillationTrainer(student, arguments, train_dataset=rows, data_collator=collate, **options)


def loss_of(trainer, batch, train: bool = True, **given):
    return trainer.compute_loss(trainer.model.train(train), dict(batch), **given)


@pytest.mark.parametrize("prefix, multiple", [(PREFIX, 1), (0, 1), (0, 8)])
def test_loss_is_that_of_a_plain_computation(parts, tmp_path, prefix, multiple):
    model, tokenizer, rows, _ = parts
    collate = DistillationCollator(tokenizer.pad_token_id, prefix, multiple)
    encoder = build_reasoning_encoder(model.language_model, tokenizer, embedding_dim=24).eval()
    answers, alignments, spellings = [], [], []
    endings = torch.tensor(sorted({token for row in rows for token in row["thought_labels"]} - {-100}))
    for row in rows:
        answer = row["answer_ids"]
        output = model(input_ids=torch.tensor([row["prompt_ids"] + answer]))
        predicted = output.logits[0, len(row["prompt_ids"]) - 1 : -1]
        answers.append(F.cross_entropy(predicted, torch.tensor(answer), reduction="none"))
        meaning = encode_thoughts(encoder, output.thoughts)
        alignments.append(1 - F.cosine_similarity(meaning, torch.tensor([row["reasoning_embedding"]])))
        read = output.thoughts[0] @ model.get_input_embeddings().weight[endings].T
        spelt = [(state, token) for state, token in zip(read, row["thought_labels"], strict=True) if token != -100]
        spelling = [F.cross_entropy(state, (endings == token).nonzero()[0, 0]) for state, token in spelt]
        spellings.append(sum(spelling, torch.zeros(())) / max(1, len(spelling)))
    answer, alignment = torch.cat(answers).mean(), torch.cat(alignments).mean()
    spelt = torch.stack(spellings).mean()

    def loss(losses: dict[str, float], **options):
        trainer = trainer_of(model, rows, collate, tmp_path, reasoning_encoder=encoder, losses=losses, **options)
        return loss_of(trainer, collate(list(rows)))

    tolerance = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(loss({"answer": 1}), answer, **tolerance)
    torch.testing.assert_close(loss({"alignment": 1}), alignment, **tolerance)
    torch.testing.assert_close(loss({"answer": 0.7, "alignment": 0.3}), 0.3 * alignment + 0.7 * answer, **tolerance)
    told = {"supervised_tokens": endings}
    torch.testing.assert_close(loss({"answer": 1, "token_supervision": 2}, **told), answer + 2 * spelt, **tolerance)
    torch.testing.assert_close(loss({"token_supervision": 1}, **told), spelt, **tolerance)
    assert loss({"token_supervision": 1}) > spelt, "by default the whole vocabulary is told apart"


def test_negatives_are_others_in_each_step_and_validation_sees_the_whole_vocabulary(parts, tmp_path):
    model, _, rows, collate = parts
    batch, endings = collate(list(rows)), torch.unique(torch.tensor(rows["thought_labels"]))[1:]
    told = {"losses": {"token_supervision": 1}, "supervised_tokens": endings}
    whole = loss_of(trainer_of(model, rows, collate, tmp_path, losses={"token_supervision": 1}), batch)
    few = loss_of(trainer_of(model, rows, collate, tmp_path, **told), batch)
    trainer = trainer_of(model, rows, collate, tmp_path, negatives=9, **told)
    steps = [loss_of(trainer, batch) for trainer.state.global_step in range(3)]
    assert len({loss.item() for loss in steps}) == 3 and all(few < loss < whole for loss in steps)
    trainer.state.global_step = 0
    assert torch.equal(loss_of(trainer, batch), steps[0]), "a step has the same ones whenever it is made"
    assert torch.equal(loss_of(trainer, batch, train=False), whole)


def test_a_checkpoint_holds_the_models_own_weights_and_is_read_back(parts, tmp_path):
    model, _, rows, collate = parts
    trainer = trainer_of(model, rows, collate, tmp_path)
    trainer.save_model(str(tmp_path / "saved"))
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    own = {name for name in model.state_dict() if not name.startswith("language_model.")}
    assert saved.keys() == own and [file.name for file in (tmp_path / "saved").iterdir()] == ["model.safetensors"]
    base = model.language_model.state_dict()["model.norm.weight"].clone()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    trainer._load_from_checkpoint(str(tmp_path / "saved"))
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in saved.items())
    assert torch.equal(model.language_model.state_dict()["model.norm.weight"], base + 1), "the base is left alone"
    model.more = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="lacks more.weight, more.bias"):
        load_weights(model, tmp_path / "saved")


def test_problems_without_reasoning_count_as_aligned(parts, tmp_path):
    model, tokenizer, rows, collate = parts
    encoder = build_reasoning_encoder(model.language_model, tokenizer, embedding_dim=24).eval()
    trainer = trainer_of(model, rows, collate, tmp_path, reasoning_encoder=encoder, losses={"alignment": 1})
    batch = collate(list(rows))
    whole = loss_of(trainer, batch)
    without_first = batch["reasoning_embedding"] * torch.tensor([[0.0], [1.0], [1.0]])
    rest = loss_of(trainer, {**batch, "reasoning_embedding": without_first})
    assert loss_of(trainer, {**batch, "reasoning_embedding": without_first * 0}) == 0
    first = batch["reasoning_embedding"] - without_first
    only_first = loss_of(trainer, {**batch, "reasoning_embedding": first})
    torch.testing.assert_close(rest + only_first, whole)
    assert not any(term.requires_grad for term in trainer._terms[""]["alignment_loss"]), (
        "no graph is held until the log"
    )
    assert [int(count) for _, count in trainer._terms[""]["alignment_loss"]] == [3, 2, 0, 1]


def test_the_batches_of_a_step_add_up_to_its_loss(parts, tmp_path):
    model, _, rows, collate = parts
    trainer = trainer_of(model, rows, collate, tmp_path, losses={"answer": 1, "token_supervision": 0.5})
    whole, count = loss_of(trainer, collate(list(rows))), torch.tensor(sum(map(len, rows["answer_ids"])))
    assert trainer.model_accepts_loss_kwargs, "is told how many tokens there are in a step"
    trainer.current_gradient_accumulation_steps = 3
    batches = [loss_of(trainer, collate([row]), num_items_in_batch=count) for row in rows]
    torch.testing.assert_close(sum(batches), whole, atol=1e-5, rtol=1e-5)


def test_a_figure_is_a_mean_over_the_rows_that_have_it(parts, tmp_path):
    model, _, rows, collate = parts
    trainer = trainer_of(model, rows, collate, tmp_path, losses={"answer": 1, "token_supervision": 0.5})
    loss_of(trainer, collate(list(rows)))
    terms = {name: term.tolist() for name, [term] in trainer._terms[""].items()}
    counts = {name: count for name, (_, count) in terms.items()}
    assert counts.pop("answer_loss") == sum(map(len, rows["answer_ids"]))
    assert counts == {"accuracy": 3, "token_supervision_loss": 2, "token_supervision_accuracy": 2}
    assert terms["token_supervision_accuracy"][0] == 0, "a row with nothing to spell is not right either"


def test_a_loss_is_computed_in_float32(parts, tmp_path):
    model, _, rows, collate = parts
    model.language_model.bfloat16()
    trainer = trainer_of(model, rows, collate, tmp_path)
    assert loss_of(trainer, collate(list(rows))).dtype == torch.float32


def test_rows_that_fill_up_a_batch_of_several_processes_do_not_count(parts, tmp_path):
    model, _, rows, collate = parts
    trainer = trainer_of(model, rows, collate, tmp_path)
    for at_end, remainder, counted in ((True, 3, 3), (True, 0, 4), (False, 3, 4)):
        trainer.accelerator.gradient_state = SimpleNamespace(end_of_dataloader=at_end, remainder=remainder)
        assert trainer._counted(4).tolist() == [i < counted for i in range(4)]


def test_an_epoch_is_drawn_from_its_number_alone(parts, tmp_path):
    """Else a run that is resumed within its second epoch would read on in another order."""
    model, _, rows, collate = parts
    trainer = trainer_of(model, concatenate_datasets([rows] * 20), collate, tmp_path)
    sampler = trainer._get_train_sampler()

    def order(epoch: float) -> list[int]:
        trainer.state.epoch = epoch
        torch.rand(7)  # whatever else was drawn meanwhile
        return list(sampler)

    assert order(0) == order(0.0) != order(1.0) == order(1.4)
    assert sorted(order(1)) == list(range(60))
    trainer.args.gradient_accumulation_steps = 3
    assert trainer._get_train_sampler().batch_size == 3 * trainer.args.train_batch_size, "as a step's batches in one"
    first = order(0)
    trainer.args.seed = 1
    sampler = trainer._get_train_sampler()
    assert order(0) != first, "and from the seed"


def test_batches_have_rows_of_like_lengths_in_an_order_of_chance():
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 100, (1003, 2), generator=draw).tolist()
    order = list(sampler := LikeLengths(lengths, 8, seed=0, epoch=lambda: 0))
    assert len(sampler) == 1003 and sorted(order) == list(range(1003))
    told = [[lengths[i][0] for i in order[start : start + 8]] for start in range(0, 1000, 8)]
    assert sum(max(batch) - min(batch) for batch in told) / len(told) < 2, "rows of one length, or nearly"
    assert max(map(max, told)) == max(told[0]), "what the memory must hold comes first"
    longest = [max(batch) for batch in told]
    falls = sum(after < before for before, after in zip(longest, longest[1:], strict=False))
    assert 40 < falls < 80, "and the others in no order"
    assert list(LikeLengths([3, 1], 8, seed=0, epoch=lambda: 0)), "fewer rows than a batch"


def test_rows_that_are_told_alike_come_together(tmp_path):
    """What blocks are told is read twice, and backwards; of a question's length comes less."""
    model, tokenizer = tiny_semcot(generator=None, adapter_rank=2, thoughts_per_pass=2)
    rows = tokenize_problems(PROBLEMS, tokenizer, model.config.num_thoughts)
    labels = [[1] * count + [-100] * (4 - count) for count in (1, 3, 2)]
    rows = concatenate_datasets([rows.remove_columns("thought_labels").add_column("thought_labels", labels)] * 20)
    trainer = trainer_of(model, rows, DistillationCollator(tokenizer.pad_token_id), tmp_path)
    trainer.args.per_device_train_batch_size = 20
    order = list(trainer._get_train_sampler())
    for start in (0, 20, 40):
        assert len({i % 3 for i in order[start : start + 20]}) == 1


def test_accuracy_is_that_of_greedy_decoding(parts, tmp_path):
    model, _, rows, collate = parts
    trainer = trainer_of(model, rows, collate, tmp_path)
    batch = collate(list(rows))
    with torch.no_grad():
        loss_of(trainer, batch, train=False)
    assert trainer._terms["eval_"]["accuracy"][0].tolist() == [0, 3]
    # Make the model's own greedy answers the target: then all are right.
    for i, row in enumerate(list(rows)):
        prompt = torch.tensor([row["prompt_ids"]])
        length = len(row["answer_ids"])
        own = model.generate(input_ids=prompt, max_new_tokens=length, do_sample=False, eos_token_id=-1)[0, -length:]
        where = batch["labels"][i] != -100
        for name in ("input_ids", "labels"):
            batch[name][i][where] = own
    with torch.no_grad():
        loss_of(trainer, batch, train=False)
    assert trainer._terms["eval_"]["accuracy"][1].tolist() == [3, 3]


def test_an_alignment_without_an_encoder_is_refused(parts, tmp_path):
    model, _, rows, collate = parts
    with pytest.raises(ValueError, match="needs a reasoning encoder"):
        trainer_of(model, rows, collate, tmp_path, losses={"answer": 0.5, "alignment": 0.5})
