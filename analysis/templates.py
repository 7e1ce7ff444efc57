"""
The templates of a real data set: how many problems "augmented:" understands, in how many templates; and, of an
evaluation on it, how many problems share a template with the train split, and how many are right of those whose
variants are in "train". `SEMCOT_DATA_DIR=data python -m analysis.templates multiarith runs/multiarith`
"""

import argparse
import json
from pathlib import Path

from semcot.data import SPLITS, find_templates, load_problems, masked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", help="a real data set's name or a file, as after augmented:")
    parser.add_argument("results", nargs="*", type=Path, help="folders that eval_semcot.py wrote")
    arguments = parser.parse_args()
    problems = load_problems(arguments.dataset, "train")
    known = set(map(masked, problems["question"]))
    questions = {split: [template.question for template in find_templates(problems, split)] for split in SPLITS}
    for split, found in questions.items():
        print(f"{split}: {len(found)} of {len(problems)} problems, in {len(set(map(masked, found)))} templates")
    for folder in arguments.results:
        shared = 0
        right: dict[str, list[bool]] = {"variants in train": [], "others": []}
        for prediction in map(json.loads, (folder / "predictions.jsonl").open(encoding="utf-8")):
            if prediction["method"] != "semcot":
                continue
            shared += masked(prediction["question"]) in known
            kind = "variants in train" if prediction["question"] in questions["train"] else "others"
            right[kind].append(prediction["correct"])
        print(f"with a template of the train split: {shared} of {sum(map(len, right.values()))}")
        for kind, outcomes in right.items():
            print(f"{kind}: {sum(outcomes)} right of {len(outcomes)}")


if __name__ == "__main__":
    main()
