"""
Where a checkpoint's mistakes come from: which steps the thoughts of each problem spell right, read through the base's
embeddings, and which answers the base then gives. For checkpoints trained with `lens_steps` 3.
`python benchmarks/mistakes.py CHECKPOINT PROBLEMS.jsonl --output results/NAME/mistakes.txt`
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import torch
from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))
from modeling_semcot import SemCoTForCausalLM
from semcot.distillation import IGNORED, lens_targets, split_steps, step_places
from semcot.files import write_text
from semcot.tokenization import render_prompt

STEPS = 3


@torch.no_grad()
def read_thoughts(
    model: SemCoTForCausalLM, tokenizer, problems: list[dict[str, str]], batch_size: int = 16
) -> list[dict[str, str | bool]]:
    """
    Of each problem what its thoughts `spelt` (K tokens), whether they spelt the steps `before` the last and the `last`
    one right, and the base's `answer`.
    """
    size = model.config.num_thoughts
    targets = torch.tensor([lens_targets(p["condensed_reasoning"], tokenizer, size, STEPS) for p in problems])
    tokens = torch.tensor(sorted(set(targets.flatten().tolist()) - {IGNORED}))
    table = model.get_input_embeddings().weight[tokens]
    found = []
    for start in range(0, len(problems), batch_size):
        rows = slice(start, start + batch_size)
        texts = [render_prompt(tokenizer, p["question"]) for p in problems[rows]]
        batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
        thoughts = model.think(**batch)
        spelt = tokens[(thoughts @ table.T).argmax(-1)]
        right = (spelt == targets[rows]) | (targets[rows] == IGNORED)
        written = model.generate(**batch, thoughts=thoughts, max_new_tokens=16, do_sample=False)
        answers = tokenizer.batch_decode(written[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
        for problem, row, ids, answer in zip(problems[rows], right, spelt, answers, strict=True):
            several = len(split_steps(problem["condensed_reasoning"])) > 1
            last = step_places(2, size)[-1] if several else slice(size)
            found.append(
                {
                    "spelt": tokenizer.decode(ids),
                    "before": bool(row[: last.start].all()) if several else True,
                    "last": bool(row[last].all()),
                    "answer": answer.strip(),
                }
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("problems", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    model = SemCoTForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model, trust_remote_code=True)
    problems = [json.loads(line) for line in arguments.problems.read_text().splitlines()]
    problems.sort(key=lambda problem: len(problem["question"]))
    found = read_thoughts(model, tokenizer, problems)
    counts: Counter[str] = Counter()
    mistakes = []
    for problem, thoughts in zip(problems, found, strict=True):
        spelling = "all steps" if thoughts["before"] and thoughts["last"] else "not the last step"
        spelling = "the last step alone" if thoughts["last"] and not thoughts["before"] else spelling
        right = thoughts["answer"] == problem["answer"]
        counts[f"spells right {spelling}, answer {'right' if right else 'wrong'}"] += 1
        if not right:
            words = problem["condensed_reasoning"], thoughts["spelt"], problem["answer"], thoughts["answer"]
            mistakes.append(" | ".join(words))
    lines = [f"n = {len(problems)}, float32, greedy"]
    lines += [f"{count:5} {name}" for name, count in sorted(counts.items())]
    lines += ["", "condensed reasoning | thoughts read through the lens | answer | answered", *sorted(mistakes)]
    write_text(arguments.output, "\n".join(lines) + "\n")
    print("\n".join(lines[: len(counts) + 1]))


if __name__ == "__main__":
    main()
