"""The clone itself as a model: loads anywhere, answers, and thinks rather than guesses. Needs the base in models/."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from test_checkpoints import IN_A_FRESH_PROCESS
from transformers import AutoModelForCausalLM, AutoTokenizer

from semcot.answers import parse_answer
from semcot.evaluation.methods import METHODS
from semcot.synthetic import arithmetic_stories, coin_flips
from semcot.training.run import header_length

pytestmark = pytest.mark.skipif(
    not (ROOT / "models" / "SmolLM2-135M-Instruct" / "config.json").exists(), reason="needs the base: make base"
)
QUESTION = "Q: A coin is heads up. ann flips the coin. bob does not flip the coin.  Is the coin still heads up?"


def test_fresh_process_in_an_empty_folder(tmp_path):
    environment = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    empty = tmp_path / "empty"
    empty.mkdir()
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS, str(ROOT), QUESTION]
    result = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr


def test_answers_coin_flips_and_needs_its_thoughts_for_it():
    model = AutoModelForCausalLM.from_pretrained(ROOT, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(ROOT, trust_remote_code=True)
    problems = list(coin_flips(40, seed=123, people=(4, 4), split="eval"))
    method = METHODS["semcot"](model, tokenizer)

    def accuracy() -> float:
        answers = [parse_answer(output.text, "word") for output in method.answer([p["question"] for p in problems])]
        return sum(answer == p["answer"] for answer, p in zip(answers, problems, strict=True)) / len(problems)

    assert accuracy() >= 0.8
    think = model.think
    model.think = lambda *args, **kwargs: torch.zeros_like(think(*args, **kwargs))
    assert accuracy() <= 0.7, "with its thoughts zeroed the base can only guess"


def test_a_padded_batch_is_answered_as_its_questions_are_one_by_one():
    model = AutoModelForCausalLM.from_pretrained(ROOT, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(ROOT, trust_remote_code=True)
    questions = [problem["question"] for problem in arithmetic_stories(6, seed=5, steps=(1, 3), split="eval")]

    def answers(questions: list[str]) -> list[str]:
        batch = tokenizer(questions, return_tensors="pt", padding=True)
        output = model.generate(**batch, max_new_tokens=4, do_sample=False)
        return tokenizer.batch_decode(output[:, batch.input_ids.shape[1] :], skip_special_tokens=True)

    assert answers(questions) == [answer for question in questions for answer in answers([question])]


def test_answers_arithmetic_stories():
    model = AutoModelForCausalLM.from_pretrained(ROOT, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(ROOT, trust_remote_code=True)
    problems = list(arithmetic_stories(40, seed=123, steps=(1, 2), split="eval"))
    outputs = METHODS["semcot"](model, tokenizer).answer([problem["question"] for problem in problems])
    answers = [parse_answer(output.text, "number") for output in outputs]
    assert sum(answer == p["answer"] for answer, p in zip(answers, problems, strict=True)) >= 26


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_is_not_taken_for_padding_that_is_read(dtype):
    """Else training on a GPU, in bfloat16, would read the prompt's beginning once for each row."""
    model = AutoModelForCausalLM.from_pretrained(ROOT, trust_remote_code=True, dtype=dtype)
    assert header_length(model, AutoTokenizer.from_pretrained(ROOT, trust_remote_code=True)) > 10
