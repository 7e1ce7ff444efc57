"""
Which of a recipe's sources a checkpoint answers: the share right of each, among predictions on the recipe's validation
split. `SEMCOT_DATA_DIR=data python benchmarks/accuracy_by_source.py configs/RECIPE.yaml RESULTS [RESULTS ...]`
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from semcot.data import load_problems
from semcot.training.options import parse_options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("results", nargs="+", type=Path, help="folders that eval_semcot.py wrote")
    arguments = parser.parse_args()
    options = parse_options([arguments.recipe, "--output_dir", "unused"])
    source_of: dict[str, str] = {}
    for name, num_samples in options.sources:
        for question in load_problems(name, "train", num_samples=num_samples, seed=options.seed)["question"]:
            source_of.setdefault(question, name)
    right: dict[str, list[list[bool]]] = defaultdict(lambda: [[] for _ in arguments.results])
    for column, folder in enumerate(arguments.results):
        for line in (folder / "predictions.jsonl").open(encoding="utf-8"):
            prediction = json.loads(line)
            if prediction["method"] == "semcot":
                right[source_of[prediction["question"]]][column].append(prediction["correct"])
    for name, columns in right.items():
        shares = (f"{sum(column) / len(column):6.1%}" if column else "     –" for column in columns)
        print(f"{name:24}", *(f"{share} of {len(column)}" for share, column in zip(shares, columns, strict=True)))


if __name__ == "__main__":
    main()
