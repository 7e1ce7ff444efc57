"""What stage 2 predicts, and the layout of its batches."""

import pytest
from conftest import tiny_base_tokenizer, tiny_semcot
from test_student import PROBLEMS
from test_tokenization import INST, sentencepiece_like
from tokenizers import normalizers, pre_tokenizers

from semcot.distillation import DistillationCollator, token_supervision_targets, tokenize_problems
from semcot.tokenization import build_tokenizer, render_prompt


def tokenized():
    model, tokenizer = tiny_semcot()
    return model, tokenizer, tokenize_problems(PROBLEMS, tokenizer, model.config.num_thoughts)


def test_targets():
    _, tokenizer, rows = tokenized()
    for problem, row in zip(PROBLEMS, rows, strict=True):
        assert tokenizer.decode(row["prompt_ids"]) == render_prompt(tokenizer, problem["question"])
        assert tokenizer.decode(row["answer_ids"]) == f" {problem['answer']}<|im_end|>"
        assert row["length"] == sum(len(row[name]) for name in ("prompt_ids", "answer_ids"))
    assert rows["thought_labels"][1] == [-100] * 3


def test_where_whole_reasonings_are_spelt_those_that_do_not_fit_are_left_out(caplog):
    tokenizer, _ = build_tokenizer(tiny_base_tokenizer(), 8)
    assert list(tokenize_problems(PROBLEMS, tokenizer, 8, supervised_steps=0)["question"]) == ["How many?"]
    assert "2 of 3 problems have no condensed reasoning of at most 7 tokens" in caplog.text
    assert len(tokenize_problems(PROBLEMS, tokenizer, 30, supervised_steps=0)) == 2, "one has no reasoning"
    with pytest.raises(ValueError, match="give more num_thoughts"):
        tokenize_problems(PROBLEMS, tokenizer, 1, supervised_steps=0)


@pytest.mark.parametrize("prepends", [False, True])
def test_targets_continue_the_prompt(prepends):
    """Also where the tokenizer puts a mark before every text, which those that go on from another have not."""
    base = sentencepiece_like(INST)
    if prepends:
        base.backend_tokenizer.normalizer = normalizers.Prepend("▁")
    tokenizer, _ = build_tokenizer(base, 3)
    for row in tokenize_problems(PROBLEMS, tokenizer, 3):
        text = f"{render_prompt(tokenizer, row['question'])} {row['answer']}"
        whole = tokenizer(text, add_special_tokens=False).input_ids
        assert row["prompt_ids"] + row["answer_ids"] == [*whole, tokenizer.eos_token_id]


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
        ("17 - 9 = 8", 0, "1 7 - 9 = 8 <|im_end|> ."),
        ("9 = 9, 9 - 1 = 8", 0, "9 = 9 - 1 = 8 <|im_end|>"),
        ("9 = 9, 8 - 1 = 7", 0, ". . . . . . . ."),
        ("1, 9 + 1", 0, "1 , 9 + 1 <|im_end|> . ."),
        (" : 2, 1", 0, "2 , 1 <|im_end|> . . . ."),
        ("1, 72 +: 2, 1", 0, "1 7 + 2 , 1 <|im_end|> ."),
        ("7", 0, "7 <|im_end|> . . . . . ."),
        ("11 - 9 = 2, 2 + 8 = 10", 0, ". . . . . . . ."),
        ("", 0, ". . . . . . . ."),
        ("", 1, ". . . . . . . ."),
        ("", 2, ". . . . . . . ."),
    ],
)
def test_what_the_thoughts_spell(text, steps, spelt):
    tokenizer = tiny_base_tokenizer()
    digits = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(digits)
    targets = token_supervision_targets(text, tokenizer, 8, steps)
    assert [tokenizer.decode([token]).strip() if token != -100 else "." for token in targets] == spelt.split()


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("shared", [0, 3])
def test_layout(shared, multiple):
    model, tokenizer, rows = tokenized()
    batch = DistillationCollator(tokenizer.pad_token_id, shared, multiple)(list(rows))
    ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
    is_thought = ids == model.config.thought_token_id
    assert is_thought.any(0).sum() == 3, "the thoughts of all rows stand in the same columns"
    assert (ids[:, :shared] == ids[0, :shared]).all() and mask[:, :shared].all()
    for i, row in enumerate(rows):
        assert ids[i][mask[i] == 1].tolist() == row["prompt_ids"] + row["answer_ids"]
        assert labels[i][labels[i] != -100].tolist() == ids[i][labels[i] != -100].tolist() == row["answer_ids"]
    first_label = (labels != -100).any(0).nonzero()[0].item()
    assert batch["num_targets"] == ids.shape[1] - first_label
    assert first_label % multiple == (ids.shape[1] - 1) % multiple == 0, "the last token is not read"
    assert first_label - max(map(len, rows["prompt_ids"])) < multiple
    assert batch["thought_labels"].tolist() == list(rows["thought_labels"])
