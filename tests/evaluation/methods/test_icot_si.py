"""iCoT-SI: which tokens are removed at which step, from where, and when the optimizer forgets."""

import json
import math
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import tiny_options
from methods_checks import PROBLEMS, tiny_method
from safetensors.torch import load_file
from transformers import TrainerCallback

from semcot.evaluation.methods.icot_si import ICoTSI
from semcot.training import MethodOptions, train_method
from semcot.training.method import MethodTrainer


def read_by_the_base(method, problems, stage):
    """The token ids of each row that the base reads for a loss."""
    seen = []
    hook = method.base.register_forward_pre_hook(lambda *told: seen.append(told[-1]), with_kwargs=True)
    method.loss(problems, stage)
    hook.remove()
    (given,) = seen
    return [ids[mask.bool()].tolist() for ids, mask in zip(given["input_ids"], given["attention_mask"], strict=True)]


def test_so_many_tokens_are_removed_at_each_moment():
    method = tiny_method("icot_si", num_tokens=10, removal=0.5)
    assert [method.stage(i / 100) for i in (0, 4, 5, 9, 10, 49, 50, 99)] == [0, 0, 1, 1, 2, 9, 10, 10]
    of_steps = [method.stage(step / 40) for step in range(40)]
    assert of_steps == [*(step // 2 for step in range(20)), *[10] * 20]


@pytest.mark.parametrize("chat", [True, False])
def test_they_are_removed_from_the_left_and_then_all(chat):
    method = tiny_method("icot_si", chat=chat, num_tokens=5, smoothing=math.inf)
    parts = method.around([problem["question"] for problem in PROBLEMS])
    for stage in range(6):
        for problem, (before, cue), row in zip(PROBLEMS, parts, read_by_the_base(method, PROBLEMS, stage), strict=True):
            reasoning = method.target_ids([f"{problem['condensed_reasoning']}\n"], end=False)[0]
            kept = reasoning[stage:] if stage < 5 else []
            (answer,) = method.target_ids([problem["answer"]])
            assert row == before + kept + cue + answer
    # In the end it is trained on what it is asked.
    asked = method.prompt_ids([problem["question"] for problem in PROBLEMS])
    assert all(row[: len(ids)] == ids for row, ids in zip(read_by_the_base(method, PROBLEMS, 5), asked, strict=True))


def test_smoothing_removes_a_few_more_than_scheduled():
    method = tiny_method("icot_si", num_tokens=10, smoothing=0.7)
    random.seed(0)
    removed = method.removed(20000, 3)
    for more in range(4):
        share = sum(number == 3 + more for number in removed) / len(removed)
        assert share == pytest.approx((1 - math.exp(-0.7)) * math.exp(-0.7 * more), abs=0.015)
    assert min(removed) == 3
    assert method.removed(3, 10) == [None] * 3
    assert tiny_method("icot_si", smoothing=math.inf).removed(50, 3) == [3] * 50


def test_the_reasoning_is_part_of_what_is_predicted():
    method = tiny_method("icot_si", smoothing=math.inf)
    other = [{**problem, "condensed_reasoning": "1 + 1 = 2"} for problem in PROBLEMS]
    with torch.no_grad():
        assert method.loss(PROBLEMS, 0) != method.loss(other, 0)
        assert method.loss(PROBLEMS, 8) == method.loss(other, 8), "all of it is removed"


@pytest.mark.parametrize("settings", [{"num_tokens": 0}, {"removal": 1.0}, {"smoothing": 0}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValueError, match="num_tokens must be at least 1, removal between 0 and 1, smoothing above 0"):
        tiny_method("icot_si", **settings)


@pytest.fixture
def recipe(base, tmp_path) -> MethodOptions:
    return MethodOptions(
        method="icot_si",
        settings={"num_tokens": 3, "removal": 0.6},
        base_model=str(base),
        output_dir=str(tmp_path / "run"),
        dataset={"synthetic_arithmetic": 23},
        validation_fraction=0.1,
        batch_size=4,
        learning_rate=1e-3,
        epochs=2.0,
        trainer=tiny_options(base, tmp_path).trainer | {"save_steps": 1, "save_total_limit": None},
    )


def test_the_optimizer_forgets_at_each_removal_and_not_after_the_last(recipe, monkeypatch):
    ages, learnt = [], []
    loss = ICoTSI.loss

    def noted(self, problems, stage):
        if self.training:
            learnt.append(stage)
        return loss(self, problems, stage)

    monkeypatch.setattr(ICoTSI, "loss", noted)

    class Watching(TrainerCallback):
        def on_train_begin(self, args, state, control, optimizer=None, **_):
            optimizer.optimizer.register_step_post_hook(
                lambda stepped, *_: ages.append(int(next(iter(stepped.state.values()))["step"]))
            )

    made = MethodTrainer.__init__
    monkeypatch.setattr(
        MethodTrainer, "__init__", lambda self, *args, **told: made(self, *args, callbacks=[Watching()], **told)
    )
    method = train_method(recipe)
    stages = [method.stage(step / 10) for step in range(10)]
    assert stages == learnt == [0, 0, 1, 1, 2, 2, 3, 3, 3, 3]
    assert ages == [1, 2, 1, 2, 1, 2, 1, 2, 3, 4]
    logged = json.loads((Path(recipe.output_dir) / "stages" / "icot_si" / "losses.json").read_text())
    assert [entry["stage"] for entry in logged if "loss" in entry] == stages


def test_a_run_cut_short_before_a_removal_goes_on_to_the_same_weights(recipe, tmp_path):
    train_method(recipe)
    whole, cut = Path(recipe.output_dir), tmp_path / "cut"
    shutil.copytree(whole, cut)
    for folder in ["finished", *(f"checkpoint-{step}" for step in range(5, 11))]:
        shutil.rmtree(cut / "stages" / "icot_si" / folder)
    train_method(replace(recipe, output_dir=str(cut), resume_from_checkpoint=True))
    found, expected = (load_file(folder / "model.safetensors") for folder in (cut, whole))
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
