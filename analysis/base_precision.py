"""
How well a checkpoint answers where its base's weights are not quite those that it was trained on: rounded, or noisy.

    SEMCOT_DATA_DIR=data python -m analysis.base_precision --output results/base_precision.json

All of the base's matrices are changed, the token embeddings among them, and all is computed in float32. A relative
change is |W' - W| / |W|, in the Frobenius norm.
"""

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from semcot.data import fingerprint, load_problems
from semcot.distillation.base_noise import noisy, rounded
from semcot.evaluation import METHODS, describe_machine, evaluate_method, load_model, weights_sha256
from semcot.files import write_json

Change = Callable[[torch.FloatTensor], torch.FloatTensor]


def changes(noises: list[float], seed: int) -> dict[str, Change]:
    """The changes by name; noise is Gaussian, of a size relative to the matrix."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "as is": lambda weight: weight,
        "bfloat16": lambda weight: weight.bfloat16().float(),
        "int8, a scale for each row": lambda weight: rounded(weight, 8),
        "6 bit, in groups of 32": lambda weight: rounded(weight, 6, 32),
        "4 bit, in groups of 32": lambda weight: rounded(weight, 4, 32),
        **{f"noise of {size:.0%}": lambda weight, size=size: noisy(weight, size, generator) for size in noises},
    }


@torch.no_grad()
def change_base(base: torch.nn.Module, original: dict[str, torch.FloatTensor], change: Change) -> dict[str, float]:
    """Puts the changed matrices into the base; returns each one's relative change."""
    sizes = {}
    for name, weight in original.items():
        changed = change(weight)
        base.get_parameter(name).copy_(changed)
        sizes[name] = ((changed - weight).norm() / weight.norm()).item()
    return sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=".", help="a SemCoT checkpoint")
    parser.add_argument("--base_model", help="folder or Hub id of its base, if it is not to be looked for")
    parser.add_argument("--data", default="multiarith", help="its eval split")
    parser.add_argument("--limit", type=int, help="the first so many problems")
    parser.add_argument("--noise", type=float, nargs="*", default=[0.05, 0.09], help="relative sizes of added noise")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    problems = load_problems(options.data, "eval", num_samples=options.limit)
    model, tokenizer = load_model(options.model, dtype="float32", base_model=options.base_model)
    base = model.language_model
    original = {name: weight.detach().cpu().clone() for name, weight in base.named_parameters() if weight.dim() == 2}
    record = {
        "run": {"command": shlex.join(["python", "-m", "analysis.base_precision", *sys.argv[1:]])},
        "eval": [],
        "meta": {"model": options.model, "model_sha256": weights_sha256(options.model), **describe_machine(model)},
    }
    data = {"dataset": options.data, "split": "eval", "data_sha256": fingerprint(problems), "seed": options.seed}
    for name, change in changes(options.noise, options.seed).items():
        sizes = sorted(change_base(base, original, change).values())
        figures, _ = evaluate_method(
            METHODS["semcot"](model, tokenizer), problems, batch_size=options.batch_size, latency_samples=0
        )
        row = {"base": name, "relative_change": {"median": sizes[len(sizes) // 2], "max": sizes[-1]}, **data}
        row |= {key: figures[key] for key in ("method", "n", "accuracy", "accuracy_ci95", "max_new_tokens")}
        record["eval"].append(row)
        low, high = row["accuracy_ci95"]
        print(
            f"{name:28} {row['relative_change']['median']:6.1%} {row['accuracy']:6.1%} [{low:.1%}, {high:.1%}]",
            flush=True,
        )
        write_json(options.output, record)


if __name__ == "__main__":
    main()
