"""The clone itself as a model: loads anywhere, answers as well as is published, and thinks rather than guesses."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from semcot.answers import answer_kind, normalize_answer, parse_answer
from semcot.data import arithmetic_stories, coin_flips
from semcot.evaluation import METHODS, load_model

RIGHT = 0.85
"""Share of the problems below that it must answer; it answers 45 of 48."""
IN_A_FRESH_PROCESS = """
import sys
from transformers import pipeline
answer = pipeline("text-generation", model=sys.argv[1], trust_remote_code=True)
print(answer(sys.argv[2], return_full_text=False, max_new_tokens=4)[0]["generated_text"])
"""


@pytest.fixture(scope="module")
def checkpoint():
    """With the base that `make base` fetches."""
    return load_model(str(ROOT), device="cpu")


@pytest.fixture(scope="module")
def problems():
    stories = arithmetic_stories(40, seed=123, steps=(1, 3), split="eval")
    return [*stories, *coin_flips(8, seed=123, people=(4, 4), split="eval")]


def accuracy(checkpoint, problems, method="semcot") -> float:
    outputs = METHODS[method](*checkpoint).answer([problem["question"] for problem in problems], max_new_tokens=6)
    right = [
        parse_answer(output.text, answer_kind(problem["answer"])) == normalize_answer(problem["answer"])
        for output, problem in zip(outputs, problems, strict=True)
    ]
    return sum(right) / len(right)


def test_it_answers_as_published(checkpoint, problems):
    assert accuracy(checkpoint, problems) >= RIGHT


def test_its_thoughts_spell_the_reasoning(checkpoint):
    model, tokenizer = checkpoint
    question = "Paige had 11 songs on her mp3 player. If she deleted 9 old songs from it and then added 8 new songs, "
    batch = tokenizer([question + "how many songs does she have on her mp3 player?"], return_tensors="pt")
    read = model.read_thoughts(**batch)
    tokens = read.token_ids[0, :, 0].tolist()
    length = tokens.index(model.end_of_reasoning)
    assert " ".join(tokenizer.decode([token]).strip() for token in tokens[:length]) == "1 1 - 9 = 2 + 8 = 1 0"
    assert set(tokens[length:]) == {model.end_of_reasoning} and read.scores[0, :length].min() > 0.5


def test_without_its_own_thoughts_it_does_not(checkpoint, problems):
    assert accuracy(checkpoint, problems[28:], "semcot_shuffled") <= 0.5, "of coin flips it guesses half"


def test_a_checkpoint_with_spoilt_weights_would_be_noticed(checkpoint, problems):
    model, _ = checkpoint
    noise = torch.Generator().manual_seed(0)
    spoilt = {
        name: weight.detach().clone()
        for name, weight in model.named_parameters()
        if not name.startswith("language_model.") and weight.dim() == 2
    }
    try:
        for name, weight in spoilt.items():
            added = 3 * weight.std() * torch.randn(weight.shape, generator=noise)
            model.get_parameter(name).data = weight + added
        assert accuracy(checkpoint, problems[20:]) < RIGHT
    finally:
        for name, weight in spoilt.items():
            model.get_parameter(name).data = weight


def test_a_padded_batch_is_answered_as_its_questions_are_one_by_one(checkpoint, problems):
    method = METHODS["semcot"](*checkpoint)
    questions = [problem["question"] for problem in problems[:3] + problems[-1:]]
    assert method.answer(questions, 4) == [method.answer([question], 4)[0] for question in questions]


@pytest.mark.slow
def test_fresh_process_in_an_empty_folder(checkpoint, problems, tmp_path):
    environment = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    empty = tmp_path / "empty"
    empty.mkdir()
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS, str(ROOT), problems[0]["question"]]
    finished = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == [problems[0]["answer"]]
