"""
Where an evaluation on arithmetic went wrong: accuracy by number of steps, the operations in them, the answer's size.
`python -m analysis.accuracy_by_steps runs/stories`
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

from semcot.data import HUB_DATASETS, find_template, load_problems


def operations(dataset: str, problem: dict[str, str]) -> list[str]:
    """The operation of each step; none where a real problem is not understood well enough to tell."""
    if dataset in HUB_DATASETS:
        template = find_template(problem)
        return [operation for _, operation, _ in template.equations] if template else []
    return [equation.split()[1] for equation in problem["condensed_reasoning"].split(", ")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="a folder that eval_semcot.py wrote")
    folder = parser.parse_args().results
    run = json.loads((folder / "results.json").read_text())["eval"][0]
    problems = load_problems(run["dataset"], run["split"], num_samples=run["n"], seed=run["seed"])
    steps = {problem["question"]: operations(run["dataset"], problem) for problem in problems}
    answers = {problem["question"]: problem["answer"] for problem in problems}
    right = defaultdict(list)
    for line in (folder / "predictions.jsonl").open(encoding="utf-8"):
        prediction = json.loads(line)
        if prediction["method"] == "semcot":
            found = steps[prediction["question"]]
            right[f"{len(found)} steps" if found else "not told"].append(prediction["correct"])
            if float(answers[prediction["question"]].replace(",", "")) > 100:
                right["above 100"].append(prediction["correct"])
            if found:
                right[" then ".join(found)].append(prediction["correct"])
    for name, outcomes in sorted(right.items(), key=lambda item: (item[0][0] not in "123n", -len(item[1]))):
        print(f"{name:24} {sum(outcomes) / len(outcomes):6.1%} of {len(outcomes)}")


if __name__ == "__main__":
    main()
