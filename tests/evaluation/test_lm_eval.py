"""The language model evaluation harness, on the default checkpoint."""

import itertools
import json

import pytest
from conftest import ROOT
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM

from semcot.evaluation import METHODS, load_model

NAMES = ("rushawn", "yerania", "maybelle", "shalonda")


def coin_flips() -> list[dict]:
    """All sixteen ways in which four people flip a coin or do not; half of the coins are heads up then."""
    problems = []
    for flips in itertools.product((True, False), repeat=4):
        told = " ".join(
            f"{name} {'flips' if f else 'does not flip'} the coin." for name, f in zip(NAMES, flips, strict=True)
        )
        question = f"A coin is heads up. {told} Is the coin still heads up?"
        problems.append({"question": question, "answer": "no" if sum(flips) % 2 else "yes"})
    return problems


@pytest.fixture(scope="module")
def harness():
    return HFLM(str(ROOT), trust_remote_code=True, device="cpu", dtype="float32", batch_size=8)


@pytest.fixture(scope="module")
def right():
    """The share of the coin flips that the checkpoint answers right, without the harness."""
    problems = coin_flips()
    outputs = METHODS["semcot"](*load_model(str(ROOT), device="cpu")).answer([each["question"] for each in problems], 4)
    return sum(out.text.strip() == each["answer"] for out, each in zip(outputs, problems, strict=True)) / len(problems)


@pytest.fixture
def results(harness, tmp_path):
    """What the harness finds of the coin flips, as a task of the kind that is asked for."""
    (tmp_path / "coins.jsonl").write_text("\n".join(map(json.dumps, coin_flips())))
    common = {
        "task": "coins",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "coins.jsonl")}, "cache_dir": str(tmp_path)},
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "target_delimiter": "",
    }
    kinds = {
        "multiple_choice": {"doc_to_choice": [" yes", " no"], "doc_to_target": "{{' ' + answer}}", "metric": "acc"},
        "generate_until": {
            "doc_to_target": "{{' ' + answer}}",
            "generation_kwargs": {"until": ["\n", "."], "max_gen_toks": 2},
            "metric": "exact_match",
        },
    }

    def results(kind: str, apply_chat_template: bool) -> tuple[float, list]:
        config = common | kinds[kind] | {"output_type": kind}
        metric = config.pop("metric")
        task = ConfigurableTask(config=config | {"metric_list": [{"metric": metric}]})
        found = evaluate(lm=harness, task_dict={"coins": task}, apply_chat_template=apply_chat_template)
        return found["results"]["coins"][f"{metric},none"], [row["filtered_resps"] for row in found["samples"]["coins"]]

    return results


@pytest.mark.slow
def test_choices_are_told_apart_with_the_chat_template_alone(results, right):
    accuracy, scores = results("multiple_choice", apply_chat_template=True)
    assert accuracy == right > 0.5
    accuracy, scores = results("multiple_choice", apply_chat_template=False)
    assert accuracy == 0.5 and all(yes == no for yes, no in scores), "what README says of the harness"


@pytest.mark.slow
@pytest.mark.parametrize("apply_chat_template", [True, False])
def test_answers_are_written_either_way(results, right, apply_chat_template):
    assert results("generate_until", apply_chat_template)[0] == right > 0.5
