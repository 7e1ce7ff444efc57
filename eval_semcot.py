"""
Says how good and how fast a checkpoint answers, beside the same base without thoughts and with an explicit chain of
thought: `python eval_semcot.py --model . --data multiarith --output_dir runs/multiarith`. `--methods NAME=FOLDER` has a
method beside it that `train_semcot.py --method NAME` trained.
"""

from transformers import HfArgumentParser

from semcot.evaluation import EvalOptions, format_tables
from semcot.evaluation.evaluate import evaluate


def main() -> None:
    options = HfArgumentParser(EvalOptions, allow_abbrev=False).parse_args_into_dataclasses()[0]
    record = evaluate(options)
    print(f"\n{format_tables(record)}\n\nWritten to {options.output_dir}.")


if __name__ == "__main__":
    main()
