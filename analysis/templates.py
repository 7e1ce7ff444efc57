"""
The templates of a real data set: how many problems "augmented:" understands, in how many templates; and how much of the
eval split stands in the train split. `SEMCOT_DATA_DIR=data python -m analysis.templates multiarith`
"""

import argparse
from collections import Counter

from semcot.data import SPLITS, find_templates, load_problems, masked
from semcot.evaluation.overlap import PARTS, overlaps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", help="a real data set's name or a file, as after augmented:")
    parser.add_argument("--eval", help="a file to compare with it; by default a named data set's eval split")
    arguments = parser.parse_args()
    problems = load_problems(arguments.dataset, "train")
    for split in SPLITS:
        found = [template.question for template in find_templates(problems, split)]
        print(f"{split}: {len(found)} of {len(problems)} problems, in {len(set(map(masked, found)))} templates")
    evaluated = load_problems(arguments.eval or arguments.dataset, "eval")
    parts = Counter(overlaps(list(evaluated["question"]), list(problems["question"])))
    for part, meaning in PARTS.items():
        print(f"{part}: {parts[part]} of {len(evaluated)} evaluated ({meaning})")


if __name__ == "__main__":
    main()
