"""What thoughts spell: the tokens nearest to each, and whether they spell the final result."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from modeling_semcot import SemCoTForCausalLM
from semcot.answers import answer_kind, last_answer, normalize_answer
from semcot.evaluation.judging import Row
from semcot.tokenization import render_prompt, tokenize_prompts


def read(
    model: SemCoTForCausalLM, tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], batch_size: int = 16
) -> list[list[int]]:
    """The ids of the tokens nearest to the K thoughts of each question, by `model.read_thoughts`."""
    ids = []
    for start in range(0, len(questions), batch_size):
        prompts = [render_prompt(tokenizer, question) for question in questions[start : start + batch_size]]
        nearest = model.read_thoughts(**tokenize_prompts(tokenizer, prompts).to(model.device))
        ids += nearest.token_ids[:, :, 0].tolist()
    return ids


def spells(text: str, gold: str) -> bool:
    """Whether the gold answer is the last one in what thoughts spell, behind the last "=" where there is one."""
    return last_answer(text.rpartition("=")[2], answer_kind(gold)) == normalize_answer(gold)


def with_spelling(
    model: SemCoTForCausalLM, tokenizer: PreTrainedTokenizerBase, predictions: Sequence[Row], batch_size: int = 16
) -> list[Row]:
    """SemCoT's predictions with what their thoughts spell: `thoughts` (K tokens) and `spells_result`."""
    spelt = read(model, tokenizer, [row["question"] for row in predictions], batch_size)
    return [
        {**row, "thoughts": [tokenizer.decode([token]) for token in ids]}
        | {"spells_result": spells(tokenizer.decode(ids, skip_special_tokens=True), row["gold"])}
        for row, ids in zip(predictions, spelt, strict=True)
    ]


def spelling_shares(rows: Sequence[Row]) -> Row:
    """Of how many problems the thoughts spell the final result: of all, of those answered right, and of the others."""
    outcomes = {
        "all": [row["spells_result"] for row in rows],
        "right": [row["spells_result"] for row in rows if row["correct"]],
        "wrong": [row["spells_result"] for row in rows if not row["correct"]],
    }
    return {
        name: {"n": len(spelt), "spelt": sum(spelt), "share": sum(spelt) / len(spelt) if spelt else None}
        for name, spelt in outcomes.items()
    }
