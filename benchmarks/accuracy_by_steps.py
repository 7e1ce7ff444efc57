"""
Where an evaluation on synthetic arithmetic went wrong: accuracy by number of steps and by the operations in them.
`python benchmarks/accuracy_by_steps.py results/synthetic_arithmetic`
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from semcot.data import load_problems

folder = Path(sys.argv[1])
run = json.loads((folder / "results.json").read_text())[0]
problems = load_problems(run["dataset"], "eval", num_samples=run["n"], seed=run["seed"])
equations = dict(zip(problems["question"], problems["condensed_reasoning"], strict=True))
right = defaultdict(list)
for line in (folder / "predictions.jsonl").read_text().splitlines():
    prediction = json.loads(line)
    if prediction["method"] == "semcot":
        operations = [equation.split()[1] for equation in equations[prediction["question"]].split(", ")]
        right[f"{len(operations)} steps"].append(prediction["correct"])
        right[" then ".join(operations)].append(prediction["correct"])
for name, outcomes in sorted(right.items(), key=lambda item: (not item[0][0].isdigit(), -len(item[1]))):
    print(f"{name:24} {sum(outcomes) / len(outcomes):6.1%} of {len(outcomes)}")
