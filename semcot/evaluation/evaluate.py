"""A whole evaluation: problems and a checkpoint in, answers, figures and a report out."""

import json
import os
import shlex
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel

from checkpoint_semcot import BASE_MODEL_VARIABLE
from semcot.data import AUGMENTED, HUB_DATASETS, fingerprint, load_problems
from semcot.evaluation.cards import check_card, update_card
from semcot.evaluation.judging import Row, over_seeds, with_comparisons
from semcot.evaluation.loading import load_model, weights_sha256
from semcot.evaluation.measure import check_questions, describe_machine, evaluate_method
from semcot.evaluation.methods import Method, SemCoT, open_method
from semcot.evaluation.methods.control import Control
from semcot.evaluation.options import EvalOptions
from semcot.evaluation.overlap import accuracy_by_overlap
from semcot.evaluation.page import write_page
from semcot.evaluation.predictions import PREDICTIONS, Predictions, check_same_evaluation
from semcot.evaluation.report import RESULTS, prepare_output_dir, write_report
from semcot.evaluation.thoughts import study_thoughts
from semcot.files import write_json
from semcot.machine import without_cudnn_attention

# What may differ where an evaluation goes on: other methods join it.
FREE = ("output_dir", "overwrite_output_dir", "methods", "compare_to", "train_data", "update_card")


def evaluate(options: EvalOptions) -> dict[str, Any]:
    """
    Has a checkpoint answer problems by each method; writes results.json, predictions.jsonl, report.md and report.html.
    Answers are written as they come, and the same call goes on where an earlier one was interrupted.

    Returns:
        The record that results.json holds: `run` (the command and its options), `eval` (the figures of each method and
        seed, see `evaluate_method` and `with_comparisons`), `means` over several seeds, and `meta` (the checkpoint with
        the hash of its weights, machine, dtype, versions).

    Raises:
        ValueError: problems, checkpoint and options do not go together, or an earlier evaluation in the folder was
            another one; it says where.
        OSError: the results cannot be written, or the checkpoint cannot be loaded.
    """
    if options.update_card:
        check_card(options.model)
    folder = prepare_output_dir(options.output_dir)
    without_cudnn_attention()
    problems = _draw(options)
    train = load_problems(options.train_data, "train") if options.train_data else None
    model, tokenizer = load_model(options.model, options.device, options.dtype, options.base_model)

    def opened(name: str) -> Method:
        """With what it loads, which is gone before the next one is opened: many large rivals fit no memory at once."""
        method = open_method(name, model, tokenizer, options.base_model)
        method.sampling = options.sampling
        return method

    methods = {name.partition("=")[0]: name for name in options.methods}
    for name in methods.values():  # all that can be wrong with one of them is found before any is asked
        method = opened(name)
        for own in problems.values():
            check_questions(method, own["question"], _length(options, method), options.data)
        del method

    data = {seed: fingerprint(own) for seed, own in problems.items()}
    record = {"run": _describe(options, model, data), "eval": [], "meta": _checkpoint(options, model)}
    if options.overwrite_output_dir:
        for name in (RESULTS, PREDICTIONS):
            (folder / name).unlink(missing_ok=True)
    done = _earlier(folder, record)
    predictions = Predictions(folder, {seed: len(own) for seed, own in problems.items()}, options.batch_size)
    write_json(folder / RESULTS, record | {"eval": list(done.values())})
    for seed, own in problems.items():
        source = {"dataset": options.data, "split": options.split, "seed": seed, "data_sha256": data[seed]}
        for method_name, name in methods.items():
            answered = predictions.of(method_name, seed)
            row = done.get((method_name, seed)) if len(answered) == len(own) else None
            if row is None:
                method = opened(name)
                # Times hardly depend on the seed, and say nothing new of a control.
                is_timed = seed == options.seeds[0] and not isinstance(method, Control)
                figures, _ = evaluate_method(
                    method,
                    own,
                    batch_size=options.batch_size,
                    max_new_tokens=_length(options, method),
                    latency_samples=options.latency_samples if is_timed else 0,
                    batch_sizes=options.batch_sizes if is_timed else (),
                    seed=seed,
                    answered=answered,
                    keep=predictions.append,
                )
                del method
                row = source | figures
            record["eval"] = with_comparisons([*record["eval"], row], predictions.all(), options.compare_to)
            if len(problems) > 1:
                record["means"] = over_seeds(record["eval"])
            # After every method, so that a run that is cut short leaves what it found.
            write_report(folder, record)
    if train is not None:
        asked = [row for name in methods for seed in problems for row in predictions.of(name, seed)]
        parts = accuracy_by_overlap(asked, list(train["question"]))
        record["overlap"] = {"train_data": options.train_data, "train_problems": len(train), "parts": parts}
    first, thoughts = options.seeds[0], None
    if asked := predictions.of(SemCoT.name, first):
        thoughts = study_thoughts(model, tokenizer, problems[first].to_list(), asked, options.batch_size)
        record |= {"reading": thoughts.reading, "alignment": thoughts.alignment}
    write_report(folder, record)
    shown = [row for name in methods for row in predictions.of(name, first)]
    write_page(folder, record, shown, thoughts)
    if options.update_card:
        print("Updated: " + ", ".join(map(str, update_card(options.model, record))))
    return record


def _draw(options: EvalOptions) -> dict[int, Dataset]:
    """The problems of each seed."""
    drawn = {
        seed: load_problems(options.data, options.split, num_samples=options.limit, seed=seed) for seed in options.seeds
    }
    if len(drawn) > 1 and len(set(map(fingerprint, drawn.values()))) == 1 and options.temperature is None:
        raise ValueError(
            f"{options.data} is the same for the seeds {options.seeds}, and so are greedy answers to it: give one, or "
            "a temperature to sample with."
        )
    return drawn


def _length(options: EvalOptions, method: Method) -> int:
    return options.cot_max_new_tokens if method.explicit_reasoning else options.max_new_tokens


def _describe(options: EvalOptions, model: PreTrainedModel, data: dict[int, str]) -> Row:
    """The command, and what must be the same where it goes on: options, environment, problems."""
    kept = {name: value for name, value in asdict(options).items() if name not in FREE}
    environment = _environment(options, model.config.checkpoint_kind == "adapter")
    sources = (name.partition("=")[::2] for name in options.methods)
    return {
        "command": command_of(options, environment),
        "options": kept,
        "environment": environment,
        "data_sha256": list(data.values()),
        "trained_sha256": {name: weights_sha256(source) or source for name, source in sources if source},
    }


def _checkpoint(options: EvalOptions, model: PreTrainedModel) -> Row:
    return {"model": options.model, "model_sha256": weights_sha256(options.model), **describe_machine(model)}


def _earlier(folder: Path, record: Row) -> dict[tuple[str, int], Row]:
    """The rows, by method and seed, of an evaluation that goes on in this folder; raises as `check_same_evaluation`."""
    files = [folder / RESULTS, folder / PREDICTIONS]
    if not any(file.exists() for file in files):
        return {}
    earlier = json.loads(files[0].read_text("utf-8")) if files[0].exists() else {}
    if "options" not in earlier.get("run", {}):
        raise ValueError(
            f"{folder} holds an evaluation that does not say how it was started, and so cannot go on. Give another "
            "--output_dir, or --overwrite_output_dir True to start afresh."
        )
    before, now = (found["run"] for found in (earlier, record))
    trained = before["trained_sha256"], now["trained_sha256"]
    shared = trained[0].keys() & trained[1].keys()
    states = (
        {**run["options"], **run["environment"], "data_sha256": run["data_sha256"], **found["meta"]}
        | {f"weights of {name}": run["trained_sha256"][name] for name in shared}
        for run, found in ((before, earlier), (now, record))
    )
    check_same_evaluation(folder, *states)
    now["trained_sha256"] = trained[0] | trained[1]
    return {(row["method"], row["seed"]): row for row in earlier["eval"]}


def _environment(options: EvalOptions, is_adapter: bool) -> dict[str, str]:
    """The environment variables that have a say in the results."""
    heeded = {
        BASE_MODEL_VARIABLE: is_adapter and options.base_model is None,
        "SEMCOT_DATA_DIR": options.data.removeprefix(AUGMENTED) in HUB_DATASETS,
    }
    return {name: os.environ[name] for name, used in heeded.items() if used and os.environ.get(name)}


def command_of(options: EvalOptions, environment: dict[str, str]) -> str:
    """The command that gives the same results again."""
    words = ["python", "eval_semcot.py"]
    for option in fields(options):
        default = option.default if option.default_factory is MISSING else option.default_factory()
        if (value := getattr(options, option.name)) != default:
            words += [f"--{option.name}", *map(str, value if isinstance(value, list) else [value])]
    variables = [f"{name}={shlex.quote(value)} " for name, value in environment.items()]
    return "".join(variables) + shlex.join(words)
