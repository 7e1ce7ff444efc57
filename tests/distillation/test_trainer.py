"""Stage 2's batches and loss, against a plain computation, one row at a time and without shortcuts."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import FAMILIES, TEXTS, tiny_base_tokenizer, tiny_semcot
from datasets import Dataset, concatenate_datasets
from test_tokenization import INST, sentencepiece_like
from tokenizers import normalizers, pre_tokenizers
from torch.nn import functional as F
from transformers import TrainingArguments

from modeling_semcot import decoder_layers
from semcot.distillation import DistillationCollator, DistillationTrainer, lens_targets, tokenize_problems
from semcot.encoder import build_reasoning_encoder, encode_thoughts
from semcot.tokenization import build_tokenizer, render_prompt

PROBLEMS = Dataset.from_list(
    [
        {"question": TEXTS[0], "reasoning": "a b", "condensed_reasoning": "11 - 9 = 2, 2 + 8 = 10", "answer": "10"},
        {"question": TEXTS[1], "reasoning": "c", "condensed_reasoning": "", "answer": "no"},
        {"question": "How many?", "reasoning": "d e f", "condensed_reasoning": "7", "answer": "1234"},
    ]
)
HEADER = "<|im_start|>user\n"
OF_THE_TRAINER = "explanation_labels", "lens_labels", "reasoning_embedding"


@pytest.fixture
def parts():
    model, tokenizer = tiny_semcot()
    rows = tokenize_problems(PROBLEMS, tokenizer, model.config.num_thoughts, explain=True)
    rows = rows.add_column("reasoning_embedding", torch.randn(3, 24, generator=torch.manual_seed(0)).tolist())
    header = tokenizer(HEADER, add_special_tokens=False).input_ids
    return model, tokenizer, rows, DistillationCollator(tokenizer.pad_token_id, len(header))


def test_targets(parts):
    _, tokenizer, rows, _ = parts
    for problem, row in zip(PROBLEMS, rows, strict=True):
        assert tokenizer.decode(row["prompt_ids"]) == render_prompt(tokenizer, problem["question"])
        assert tokenizer.decode(row["answer_ids"]) == f" {problem['answer']}<|im_end|>"
        condensed = problem["condensed_reasoning"]
        assert tokenizer.decode(row["explanation_ids"]) == (f" {condensed}<|im_end|>" if condensed else "")
        assert row["length"] == sum(len(row[name]) for name in ("prompt_ids", "answer_ids", "explanation_ids"))
    assert rows["lens_ids"][1] == [-100] * 3


@pytest.mark.parametrize("prepends", [False, True])
def test_targets_continue_the_prompt(prepends):
    """Also where the tokenizer puts a mark before every text, which those that go on from another have not."""
    base = sentencepiece_like(INST)
    if prepends:
        base.backend_tokenizer.normalizer = normalizers.Prepend("▁")
    tokenizer, _ = build_tokenizer(base, 3)
    for row in tokenize_problems(PROBLEMS, tokenizer, 3, explain=True):
        for target, ids in ((row["answer"], "answer_ids"), (row["condensed_reasoning"], "explanation_ids")):
            whole = tokenizer(
                f"{render_prompt(tokenizer, row['question'])} {target}", add_special_tokens=False
            ).input_ids
            expected = [*whole[len(row["prompt_ids"]) :], tokenizer.eos_token_id] if target else []
            assert row[ids] == expected and whole[: len(row["prompt_ids"])] == row["prompt_ids"]


@pytest.mark.parametrize(
    ("text", "steps", "spelt"),
    [
        ("11 - 9 = 2, 2 + 8 = 10", 1, "2 , 2 + 8 = 1 0"),
        ("11 - 9 = 2, 2 + 8 = 10", 2, "- 9 = 2 8 = 1 0"),
        ("3 * 4 = 12; 12 + 5 = 17, 17 - 9 = 8", 2, "5 = 1 7 - 9 = 8"),
        ("3 * 4 = 12; 12 + 5 = 17, 17 - 9 = 8", 3, "1 2 1 7 - 9 = 8"),
        ("1 + 1 = 2, 2 + 1 = 3, 3 + 1 = 4, 4 + 1 = 5", 4, ". 2 3 4 + 1 = 5"),
        ("11 - 9 = 2, 2 + 8 = 10", 3, "- 9 = 2 8 = 1 0"),
        ("17 - 9 = 8", 2, ". . . . - 9 = 8"),
        ("17 - 9 = 8", 1, ". . 1 7 - 9 = 8"),
        ("1,234", 2, ". . . . , 2 3 4"),
        ("7", 2, ". . . . . . . 7"),
        ("", 1, ". . . . . . . ."),
        ("", 2, ". . . . . . . ."),
    ],
)
def test_lens_targets(text, steps, spelt):
    tokenizer = tiny_base_tokenizer()
    digits = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(digits)
    targets = lens_targets(text, tokenizer, 8, steps)
    assert [tokenizer.decode([token]).strip() if token != -100 else "." for token in targets] == spelt.split()


@pytest.mark.parametrize("multiple", [1, 8])
def test_layout(parts, multiple):
    model, tokenizer, rows, collate = parts
    batch = replace(collate, pad_to_multiple_of=multiple)(list(rows))
    ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
    is_thought = ids == model.config.thought_token_id
    assert is_thought.any(0).sum() == 3, "the thoughts of all rows stand in the same columns"
    assert (ids[:, : collate.header_length] == ids[0, : collate.header_length]).all()
    assert mask[:, : collate.header_length].all()
    for i, row in enumerate(rows):
        tokens = ids[i][mask[i] == 1].tolist()
        assert tokens == row["prompt_ids"] + row["answer_ids"] + row["explanation_ids"]
        assert labels[i][labels[i] != -100].tolist() == row["answer_ids"]
        assert ids[i][labels[i] != -100].tolist() == row["answer_ids"]
        explained = batch["explanation_labels"][i]
        assert explained[explained != -100].tolist() == row["explanation_ids"]
    first_label = (labels != -100).any(0).nonzero()[0].item()
    assert batch["logits_to_keep"] == ids.shape[1] - first_label + 1
    assert first_label % multiple == (ids.shape[1] - 1) % multiple == 0, "the last token is not read"
    assert first_label - max(map(len, rows["prompt_ids"])) < multiple


def trainer_of(model, rows, collate, tmp_path, **options):
    arguments = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, remove_unused_columns=False)
    return DistillationTrainer(model, arguments, train_dataset=rows, data_collator=collate, **options)


@pytest.mark.parametrize("prefill_question, multiple", [(True, 1), (False, 1), (False, 8)])
def test_loss_is_that_of_a_plain_computation(parts, tmp_path, prefill_question, multiple):
    model, tokenizer, rows, collate = parts
    model.prefill_question = prefill_question
    collate.pad_to_multiple_of = multiple
    encoder = build_reasoning_encoder(model.language_model, tokenizer, embedding_dim=24).eval()
    answers, explanations, alignments, lens = [], [], [], []
    endings = torch.tensor(sorted({token for row in rows for token in row["lens_ids"]} - {-100}))
    for row in rows:
        answer, explanation = row["answer_ids"], row["explanation_ids"]
        ids = torch.tensor([row["prompt_ids"] + answer + explanation])
        output = model(input_ids=ids)
        losses = F.cross_entropy(output.logits[0, :-1], ids[0, 1:].where(ids[0, 1:] < 330, 0), reduction="none")
        start = len(row["prompt_ids"]) - 1
        answers.append(losses[start : start + len(answer)])
        explanations.append(losses[start + len(answer) :].sum() / max(1, len(explanation)))
        meaning = encode_thoughts(encoder, output.thoughts)
        alignments.append(1 - F.cosine_similarity(meaning, torch.tensor([row["reasoning_embedding"]])))
        read = output.thoughts[0] @ model.get_input_embeddings().weight[endings].T
        spelt = [(state, token) for state, token in zip(read, row["lens_ids"], strict=True) if token != -100]
        spelling = [F.cross_entropy(state, (endings == token).nonzero()[0, 0]) for state, token in spelt]
        lens.append(sum(spelling, torch.zeros(())) / max(1, len(spelling)))
    answer, alignment = torch.cat(answers).mean(), torch.cat(alignments).mean()
    explanation, spelt = torch.stack(explanations).mean(), torch.stack(lens).mean()

    def loss(**options):
        trainer = trainer_of(model.train(), rows, collate, tmp_path, reasoning_encoder=encoder, **options)
        return trainer.compute_loss(model, collate(list(rows)))

    options = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(loss(alpha=0.0), answer, **options)
    torch.testing.assert_close(loss(alpha=1.0), alignment, **options)
    torch.testing.assert_close(loss(alpha=0.3), 0.3 * alignment + 0.7 * answer, **options)
    torch.testing.assert_close(loss(alpha=0.0, explanation_weight=0.5), answer + 0.5 * explanation, **options)
    lens = {"alpha": 0.0, "lens_tokens": endings}
    torch.testing.assert_close(loss(**lens, lens_weight=2.0), answer + 2 * spelt, **options)
    torch.testing.assert_close(loss(**lens, lens_only=True), spelt, **options)
    assert loss(alpha=0.0, lens_only=True) > spelt, "by default the whole vocabulary is told apart"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_question_prefilled_or_not_gives_the_same_gradients(family):
    model, tokenizer = tiny_semcot(family)
    rows = tokenize_problems(PROBLEMS, tokenizer, model.config.num_thoughts)
    passes, gradients = [], []
    layer = decoder_layers(model.language_model.base_model)[0]
    layer.register_forward_pre_hook(lambda _, args: passes[-1].append(args[0].shape[1]))
    for prefill in (True, False):
        model.prefill_question = prefill
        collate = DistillationCollator(tokenizer.pad_token_id, len(tokenizer(HEADER).input_ids), pad_to_multiple_of=8)
        batch = {name: part for name, part in collate(list(rows)).items() if name not in OF_THE_TRAINER}
        passes.append([])
        model.zero_grad()
        model.train()(**batch).loss.backward()
        gradients.append({name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None})
    assert len(passes[0]) == 3, "the header, the questions, and all that follows"
    assert passes[1] == [batch["input_ids"].shape[1]], "all in one pass"
    assert gradients[0].keys() == gradients[1].keys() and gradients[0]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-4, rtol=1e-4)


def test_the_thoughts_of_every_pass_are_read_through_the_lens(parts, tmp_path):
    model, _, rows, collate = parts
    trainer = trainer_of(model, rows, collate, tmp_path, alpha=0.0, lens_only=True)
    losses = []
    for passes in (1, 2, 3):
        model.config.thought_passes = passes
        losses.append(trainer.compute_loss(model, collate(list(rows))))
    # Each further pass adds a term of its own, and leaves those before it as they are.
    first, second, third = losses[0], 2 * losses[1] - losses[0], 3 * losses[2] - 2 * losses[1]
    output = model(**{k: v for k, v in collate(list(rows)).items() if k in ("input_ids", "attention_mask")})
    table = model.get_input_embeddings().weight
    labels = torch.tensor([row["lens_ids"] for row in rows])
    for thoughts, loss in zip([*output.earlier_thoughts, output.thoughts], (first, second, third), strict=True):
        each = F.cross_entropy((thoughts @ table.T).transpose(1, 2), labels, ignore_index=-100, reduction="none")
        torch.testing.assert_close(loss, (each.sum(1) / (labels != -100).sum(1).clamp(min=1)).mean())
    assert len({round(loss.item(), 6) for loss in (first, second, third)}) == 3
    trainer.lens_table = table
    trainer.compute_loss(model, {**collate(list(rows)), "lens_labels": (output.thoughts @ table.T).argmax(-1)})
    assert trainer._terms["eval_"]["lens_accuracy"][-1].tolist() == [3, 3], "of the last pass"


def test_problems_without_reasoning_count_as_aligned(parts, tmp_path):
    model, tokenizer, rows, collate = parts
    encoder = build_reasoning_encoder(model.language_model, tokenizer, embedding_dim=24).eval()
    trainer = trainer_of(model.train(), rows, collate, tmp_path, reasoning_encoder=encoder, alpha=1.0)
    batch = collate(list(rows))
    whole = trainer.compute_loss(model, dict(batch))
    without_first = batch["reasoning_embedding"] * torch.tensor([[0.0], [1.0], [1.0]])
    rest = trainer.compute_loss(model, {**batch, "reasoning_embedding": without_first})
    assert trainer.compute_loss(model, {**batch, "reasoning_embedding": without_first * 0}) == 0
    first = batch["reasoning_embedding"] - without_first
    only_first = trainer.compute_loss(model, {**batch, "reasoning_embedding": first})
    torch.testing.assert_close(rest + only_first, whole)
    assert not any(term.requires_grad for term in trainer._terms[""]["alignment_loss"]), (
        "no graph is held until the log"
    )
    assert [int(count) for _, count in trainer._terms[""]["alignment_loss"]] == [3, 2, 0, 1]


def test_the_batches_of_a_step_add_up_to_its_loss(parts, tmp_path):
    model, _, rows, collate = parts
    trainer = trainer_of(model.train(), rows, collate, tmp_path, alpha=0.0, explanation_weight=0.5)
    whole, count = trainer.compute_loss(model, collate(list(rows))), torch.tensor(sum(map(len, rows["answer_ids"])))
    assert trainer.model_accepts_loss_kwargs, "is told how many tokens there are in a step"
    trainer.current_gradient_accumulation_steps = 3
    batches = [trainer.compute_loss(model, collate([row]), num_items_in_batch=count) for row in rows]
    torch.testing.assert_close(sum(batches), whole, atol=1e-4, rtol=1e-4)


def test_a_figure_is_a_mean_over_the_rows_that_have_it(parts, tmp_path):
    model, _, rows, collate = parts
    weights = {"alpha": 0.0, "explanation_weight": 0.5, "lens_weight": 0.5}
    trainer = trainer_of(model.train(), rows, collate, tmp_path, **weights)
    trainer.compute_loss(model, collate(list(rows)))
    terms = {name: term.tolist() for name, [term] in trainer._terms[""].items()}
    counts = {name: count for name, (_, count) in terms.items() if name != "answer_loss"}
    assert counts == {"accuracy": 3, "explanation_loss": 2, "lens_loss": 2, "lens_accuracy": 2}
    assert terms["lens_accuracy"][0] == 0, "a row with nothing to spell is not right either"


def test_a_loss_is_computed_in_float32(parts, tmp_path):
    model, _, rows, collate = parts
    model.language_model.bfloat16()
    trainer = trainer_of(model.train(), rows, collate, tmp_path, alpha=0.0, explanation_weight=0.5)
    assert trainer.compute_loss(model, collate(list(rows))).dtype == torch.float32


def test_rows_that_fill_up_a_batch_of_several_processes_do_not_count(parts, tmp_path):
    model, _, rows, collate = parts
    trainer = trainer_of(model, rows, collate, tmp_path, alpha=0.0)
    for at_end, remainder, counted in ((True, 3, 3), (True, 0, 4), (False, 3, 4)):
        trainer.accelerator.gradient_state = SimpleNamespace(end_of_dataloader=at_end, remainder=remainder)
        assert trainer._counted(4).tolist() == [i < counted for i in range(4)]


def test_an_epoch_is_drawn_from_its_number_alone(parts, tmp_path):
    """Else a run that is resumed within its second epoch would read on in another order."""
    model, _, rows, collate = parts
    trainer = trainer_of(model, concatenate_datasets([rows] * 20), collate, tmp_path, alpha=0.0)
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


def test_accuracy_is_that_of_greedy_decoding(parts, tmp_path):
    model, _, rows, collate = parts
    trainer = trainer_of(model, rows, collate, tmp_path, alpha=0.0)
    batch = collate(list(rows))
    with torch.no_grad():
        trainer.compute_loss(model.eval(), dict(batch))
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
        trainer.compute_loss(model, dict(batch))
    assert trainer._terms["eval_"]["accuracy"][1].tolist() == [3, 3]


def test_alpha_without_an_encoder_is_refused(parts, tmp_path):
    model, _, rows, collate = parts
    with pytest.raises(ValueError, match="alpha = 0.5 needs a reasoning encoder"):
        trainer_of(model, rows, collate, tmp_path, alpha=0.5)
