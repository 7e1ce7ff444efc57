"""
Answers questions on the terminal three ways, side by side: `python -m semcot.demo [QUESTION …]`.

The same frozen base answers at once (direct), after writing its reasoning out (cot), and after the implicit tokens of
the checkpoint (semcot), of each of which is shown the nearest word and its probability. Without a question, fresh
synthetic problems are drawn, none of them from training.
"""

from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from transformers import HfArgumentParser
from transformers.utils import logging

from semcot.data import arithmetic_stories, coin_flips
from semcot.evaluation import load_model
from semcot.serving.comparison import Comparison

CLONE = Path(__file__).parents[1]


@dataclass
class DemoOptions:
    """Options of `python -m semcot.demo`; questions of your own stand before them."""

    model: str = field(default=str(CLONE), metadata={"help": "The checkpoint; the clone's own by default."})
    seed: int = field(default=7, metadata={"help": "Which synthetic problems are drawn."})
    stories: int = field(default=2, metadata={"help": "Number of arithmetic stories."})
    flips: int = field(default=1, metadata={"help": "Number of coin flip problems."})


def main() -> None:
    options, own = HfArgumentParser(DemoOptions, prog="semcot.demo").parse_args_into_dataclasses(
        return_remaining_strings=True
    )
    if unknown := [part for part in own if part.startswith("-") and " " not in part]:
        raise SystemExit(f"semcot.demo: unknown option {unknown[0]}; see --help")
    problems = [{"question": question, "answer": ""} for question in own] or list(
        chain(
            arithmetic_stories(options.stories, seed=options.seed, steps=(1, 2), split="eval"),
            coin_flips(options.flips, seed=options.seed, people=(4, 4), split="eval"),
        )
    )
    if not problems:
        raise SystemExit("semcot.demo: nothing to answer; give a question, or more than 0 --stories or --flips")
    logging.disable_progress_bar()
    model, tokenizer = load_model(options.model)
    print(f"{options.model} on {model.device}: {model.config.num_thoughts} implicit tokens for ", end="")
    print(f"{model.config.base_model_name_or_path or 'its own base'}, frozen.\n")
    comparison = Comparison(model, tokenizer)
    for question in own:
        try:
            comparison.check(question)
        except ValueError as error:
            raise SystemExit(f"semcot.demo: {error}") from None
    for problem in problems:
        question, gold = problem["question"], problem["answer"]
        print(question.strip() + (f"   [{gold}]" if gold else ""))
        for name in comparison.NAMES:
            answer = comparison.answer(name, question)
            written = " ".join(answer.text.split())
            # Of drawn problems the ends; a question of your own is answered at full length.
            shown = written if gold == "" or len(written) <= 60 else f"{written[:28]} … {written[-28:]}"
            verdict = f"{comparison.verdict(name, answer.text, gold):6} " if gold else ""
            print(f"  {name:7}{answer.num_tokens:4} tokens {answer.milliseconds:7.0f} ms  {verdict}{shown}")
        thoughts = comparison.read_thoughts(question)
        print("  its thoughts say:", "  ".join(f"{word.strip()} {score:.2f}" for word, score in thoughts))
        print(flush=True)


if __name__ == "__main__":
    main()
