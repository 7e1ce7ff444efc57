"""
What the thoughts spell after each pass of the generator: the share of problems whose steps are right there, read
through the base's embeddings. For checkpoints trained with `lens_steps` 3, on three-step stories worded as in training.
`python benchmarks/spelling_by_pass.py CHECKPOINT --output results/thought_passes/NAME.json`
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.thoughts import STEPS, prompts_of, read_through_lens
from modeling_semcot import SemCoTForCausalLM
from semcot.data import load_problems
from semcot.distillation import step_places
from semcot.evaluation import describe_machine
from semcot.files import write_json


@torch.no_grad()
def spelling_by_pass(
    model: SemCoTForCausalLM, tokenizer, problems: list[dict[str, str]], batch_size: int = 16
) -> list[dict[str, float | None | list[float]]]:
    """
    After each of `model.config.thought_passes` passes: the share of problems with each step right, with all of them,
    and with the last among those whose earlier ones are right (None where there are none); then, of the problems that
    end with a product and a sum or difference, the share with each place right.
    """
    batches = []
    for start in range(0, len(problems), batch_size):
        batch = prompts_of(tokenizer, problems[start : start + batch_size])
        batches.append(torch.stack(model.think_in_passes(**batch)))
    _, right = read_through_lens(model, tokenizer, problems, torch.cat(batches, dim=1))
    operations = [[step.split()[1] for step in p["condensed_reasoning"].split(", ")] for p in problems]
    after_product = [found[-2] == "*" and found[-1] in "+-" for found in operations]
    shares = []
    for spelt in right:
        steps = [spelt[:, places].all(1) for places in step_places(STEPS, model.config.num_thoughts)]
        earlier = torch.stack(steps[:-1]).all(0)
        groups = {f"step {i}": step for i, step in enumerate(steps, 1)}
        groups |= {"all": earlier & steps[-1], "last, where those before are right": steps[-1][earlier]}
        shares.append({name: round(g.float().mean().item(), 4) if len(g) else None for name, g in groups.items()})
        if any(after_product):
            by_place = spelt[torch.tensor(after_product)].float().mean(0).tolist()
            shares[-1][f"by place, of {sum(after_product)} with a product before the last step"] = [
                round(share, 4) for share in by_place
            ]
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1000, help="of the draw, one that no run was trained with")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    model = SemCoTForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model, trust_remote_code=True)
    model.config.thought_passes = arguments.passes
    problems = load_problems(f"synthetic_arithmetic:{STEPS}", num_samples=arguments.limit, seed=arguments.seed)
    record = {"command": shlex.join(["python", *sys.argv]), "n": len(problems), "seed": arguments.seed}
    record |= describe_machine(model)
    record["passes"] = spelling_by_pass(model, tokenizer, problems.to_list())
    write_json(arguments.output, record)
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
