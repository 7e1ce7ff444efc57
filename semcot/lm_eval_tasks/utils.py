"""What the tasks share: the project's problems, and its own judgement of what is written."""

import math

from datasets import Dataset
from transformers import PreTrainedConfig

from semcot.answers import normalize_answer
from semcot.data import load_problems
from semcot.evaluation.judging import judge
from semcot.evaluation.methods import Output


def load(
    data: str, pretrained: str | None = None, revision: str = "main", subfolder: str = "", **_
) -> dict[str, Dataset]:
    """
    The eval split of a named data set, as `test`. The harness hands it `--model_args` too, of which `pretrained`,
    `revision` and `subfolder` name the checkpoint.

    Raises:
        ValueError: it is not, or cannot be told to be, a SemCoT checkpoint, so that a base alone would be judged.
    """
    if pretrained is None:
        raise ValueError(
            "These tasks judge SemCoT checkpoints, and it cannot be told whether this is one: give --model hf or "
            "semcot, and pretrained=CHECKPOINT in --model_args (in Python, "
            "TaskManager(metadata={'pretrained': CHECKPOINT}))."
        )
    kind = PreTrainedConfig.get_config_dict(pretrained, revision=revision, subfolder=subfolder)[0].get("model_type")
    if kind != "semcot":
        raise ValueError(
            f"{pretrained} is a {kind} model, not a SemCoT checkpoint: a base alone would be judged. For that there "
            "is eval_semcot.py --methods direct."
        )
    return {"test": load_problems(data, "eval")}


def judge_answer(problem: dict[str, str], results: list[str]) -> dict[str, float]:
    """The metrics of one written answer."""
    judged = judge(Output(results[0], 0), problem["answer"])
    return {
        "strict_accuracy": float(judged["correct"]),
        "flexible_accuracy": float(judged["correct_flexible"]),
        "lenient_accuracy": float(judged["correct_lenient"]),
        "unparsed_rate": float(judged["parsed"] is None),
    }


def judge_choice(problem: dict[str, str], results: list[tuple[float, bool]]) -> dict[str, float]:
    """
    Whether the letter of the largest log-likelihood is right.

    Raises:
        ValueError: all are the same but for rounding, as where the answer cue was scored in place of the letters.
    """
    scores = [score for score, _ in results]
    if math.isclose(min(scores), max(scores), rel_tol=1e-4):
        raise ValueError(
            "All letters have the same log-likelihood: without --apply_chat_template the harness's model hf scores the "
            "answer cue in their place. Give --apply_chat_template, or python -m semcot.lm_eval_tasks --model semcot."
        )
    return {"strict_accuracy": float("ABCDE"[scores.index(max(scores))] == normalize_answer(problem["answer"]))}
