"""
Answers questions on the terminal three ways, side by side: `python -m semcot.demo [QUESTION …]`.

The same frozen base answers at once (direct), after writing its reasoning out (cot), and after the implicit tokens of
the checkpoint (semcot), of which is shown what they spell. Without a question, fresh synthetic problems are drawn, none
of them from training.
"""

import time
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from transformers import HfArgumentParser
from transformers.utils import logging

from semcot.answers import answer_kind, normalize_answer, parse_answer
from semcot.data import arithmetic_stories, coin_flips
from semcot.evaluation import load_model
from semcot.evaluation.methods import METHODS
from semcot.tokenization import render_prompt, tokenize_prompts

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
    methods = [METHODS[name](model, tokenizer) for name in ("direct", "cot", "semcot")]
    for method in methods:
        method.answer([problems[0]["question"]], max_new_tokens=2)  # the first call is not typical

    for problem in problems:
        gold = problem["answer"]
        print(problem["question"].strip() + (f"   [{gold}]" if gold else ""))
        for method in methods:
            started = time.perf_counter()
            output = method.answer([problem["question"]])[0]
            milliseconds = (time.perf_counter() - started) * 1000
            written = " ".join(output.text.split())
            verdict = ""
            if gold:
                parsed = parse_answer(output.text, answer_kind(gold), method.explicit_reasoning)
                verdict = "right" if parsed == normalize_answer(gold) else "wrong"
            shown = written if len(written) <= 60 else f"{written[:28]} … {written[-28:]}"
            print(f"  {method.name:7}{output.num_tokens:4} tokens {milliseconds:7.0f} ms  {verdict:6} {shown}")
        prompt = tokenize_prompts(tokenizer, [render_prompt(tokenizer, problem["question"])]).to(model.device)
        token_ids = model.read_thoughts(**prompt).token_ids[0, :, 0].tolist()
        print("  its thoughts spell:", *(tokenizer.decode([token]).strip() for token in token_ids))
        print(flush=True)


if __name__ == "__main__":
    main()
