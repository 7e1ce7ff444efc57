"""
Where a checkpoint's mistakes come from: which steps the thoughts of each problem spell right, read through the base's
embeddings, and which answers the base then gives. For checkpoints trained with `supervised_steps` 3.
`python -m analysis.mistakes CHECKPOINT PROBLEMS.jsonl --output results/NAME/mistakes.txt`
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import torch
from transformers import AutoTokenizer

from analysis.thoughts import answer_with, prompts_of, spelt_by
from modeling_semcot import SemCoTForCausalLM
from semcot.answers import answer_kind, normalize_answer, parse_answer
from semcot.distillation import split_steps, step_places
from semcot.files import write_text


@torch.no_grad()
def read_thoughts(
    model: SemCoTForCausalLM, tokenizer, problems: list[dict[str, str]], batch_size: int = 16
) -> list[dict[str, str | bool]]:
    """
    Of each problem what its thoughts `spelt` (K tokens), whether they spelt the steps `before` the last and the `last`
    one right, and the base's `answer`.
    """
    size = model.config.num_thoughts
    batches = [problems[start : start + batch_size] for start in range(0, len(problems), batch_size)]
    thoughts = torch.cat([model.think(**prompts_of(tokenizer, batch)) for batch in batches])
    spelt, right = spelt_by(model, tokenizer, problems, thoughts)
    answers = answer_with(model, tokenizer, problems, thoughts, batch_size)
    found = []
    for problem, ids, row, answer in zip(problems, spelt, right, answers, strict=True):
        several = len(split_steps(problem["condensed_reasoning"])) > 1
        last = step_places(2, size)[-1] if several else slice(size)
        before = not several or bool(row[: last.start].all())
        spelling = tokenizer.decode(ids)
        found.append({"spelt": spelling, "before": before, "last": bool(row[last].all()), "answer": answer.strip()})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("problems", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    model = SemCoTForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model, trust_remote_code=True)
    problems = [json.loads(line) for line in arguments.problems.open(encoding="utf-8")]
    problems.sort(key=lambda problem: len(problem["question"]))
    found = read_thoughts(model, tokenizer, problems)
    counts: Counter[str] = Counter()
    mistakes = []
    for problem, thoughts in zip(problems, found, strict=True):
        spelling = "all steps" if thoughts["before"] and thoughts["last"] else "not the last step"
        spelling = "the last step alone" if thoughts["last"] and not thoughts["before"] else spelling
        gold = problem["answer"]
        right = parse_answer(thoughts["answer"], answer_kind(gold)) == normalize_answer(gold)
        counts[f"spells right {spelling}, answer {'right' if right else 'wrong'}"] += 1
        if not right:
            words = problem["condensed_reasoning"], thoughts["spelt"], gold, thoughts["answer"]
            mistakes.append(" | ".join(words))
    lines = [f"n = {len(problems)}, float32, greedy"]
    lines += [f"{count:5} {name}" for name, count in sorted(counts.items())]
    lines += ["", "condensed reasoning | what the thoughts spell | answer | answered", *sorted(mistakes)]
    write_text(arguments.output, "\n".join(lines) + "\n")
    print("\n".join(lines[: len(counts) + 1]))


if __name__ == "__main__":
    main()
