"""The scripts that look into thoughts, on those of a tiny checkpoint."""

import json
import sys

import pytest
import torch
from conftest import tiny_semcot

from analysis import meaning_of_thoughts, mistakes
from analysis.thoughts import answer_with
from semcot.data import load_problems
from semcot.distillation import token_supervision_targets
from semcot.encoder import build_reasoning_encoder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The folder of a tiny full checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model, tokenizer = tiny_semcot(num_thoughts=4, checkpoint_kind="full")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def call(monkeypatch, capsys):
    """Calls a script's main with arguments; returns the lines that it prints."""

    def call(script, *arguments):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
        script.main()
        return capsys.readouterr().out.splitlines()

    return call


def test_mistakes_tells_spelling_from_answering(checkpoint, call, tmp_path):
    file, output = tmp_path / "problems.jsonl", tmp_path / "mistakes.txt"
    load_problems("synthetic_arithmetic", num_samples=5, seed=1).to_json(file)
    call(mistakes, checkpoint, file, "--output", output)
    first, *counts = output.read_text().split("\n\n")[0].splitlines()
    assert first == "n = 5, float32, greedy" and sum(int(line.split()[0]) for line in counts) == 5

    model, tokenizer = tiny_semcot(num_thoughts=4)
    table = model.get_input_embeddings().weight.detach()
    problem = {"question": "How many?", "condensed_reasoning": "1 + 1 = 2, 2 + 1 = 3"}
    wanted = table[token_supervision_targets(problem["condensed_reasoning"], tokenizer, 4, 3)]
    for wrong, before, last in ((None, True, True), (1, False, True), (3, True, False)):
        thoughts = wanted.clone()
        if wrong is not None:
            thoughts[wrong] = wanted[wrong - 1]  # the sign before it
        model.think = lambda *ids, thoughts=thoughts, **batch: thoughts.unsqueeze(0)
        (found,) = mistakes.read_thoughts(model, tokenizer, [problem])
        assert (found["before"], found["last"]) == (before, last)


def test_mistakes_are_counted_and_listed(checkpoint, call, tmp_path, monkeypatch):
    model, tokenizer = tiny_semcot(num_thoughts=4)
    problems = [
        {"question": "x" * n, "condensed_reasoning": f"{n} + 1 = {n + 1}", "answer": str(n + 1)} for n in range(1, 6)
    ]
    file = tmp_path / "problems.jsonl"
    file.write_text("".join(json.dumps(problem) + "\n" for problem in reversed(problems)))
    thoughts = torch.randn(5, 4, 32, generator=torch.Generator().manual_seed(0)) * 5
    answers = answer_with(model, tokenizer, problems, thoughts)
    assert answer_with(model, tokenizer, problems, thoughts, 2) == answers and len(set(answers)) > 3

    found = [(True, True, "2"), (False, True, "3"), (False, True, "0"), (True, False, "0"), (False, False, "6.")]
    names = "before", "last", "answer"
    found = [{"spelt": f"spelt {i}", **dict(zip(names, row, strict=True))} for i, row in enumerate(found)]
    monkeypatch.setattr(mistakes, "read_thoughts", lambda *_: found)
    call(mistakes, checkpoint, file, "--output", tmp_path / "mistakes.txt")
    assert (tmp_path / "mistakes.txt").read_text().splitlines() == [
        "n = 5, float32, greedy",
        "    1 spells right all steps, answer right",
        "    1 spells right not the last step, answer right",
        "    1 spells right not the last step, answer wrong",
        "    1 spells right the last step alone, answer right",
        "    1 spells right the last step alone, answer wrong",
        "",
        "condensed reasoning | what the thoughts spell | answer | answered",
        "3 + 1 = 4 | spelt 2 | 4 | 0",
        "4 + 1 = 5 | spelt 3 | 5 | 0",
    ]


def test_meaning_of_thoughts_fits_them_to_the_reasonings(checkpoint, call, tmp_path):
    model, tokenizer = tiny_semcot(num_thoughts=4)
    build_reasoning_encoder(model.language_model, tokenizer, embedding_dim=16).save(str(tmp_path / "encoder"))
    output = tmp_path / "meaning.json"
    options = ["--data", "synthetic_coin_flip", "--limit", 6, "--steps", 40, "--output", output]
    call(meaning_of_thoughts, checkpoint, "--encoder", tmp_path / "encoder", *options)
    rows = {row["thoughts"]: row for row in json.loads(output.read_text())["eval"]}
    start, fitted = rows["tokens at random"], rows["those, fitted to the reasoning"]
    assert fitted["cosine"] > max(0.9, start["cosine"]) and fitted["own reasoning found"] > 0.5
    assert all(0 <= row["accuracy"] <= 1 and row["n"] == 6 for row in rows.values())


def test_thoughts_are_judged_by_their_own_reasonings(monkeypatch):
    monkeypatch.setattr(meaning_of_thoughts, "encode_thoughts", lambda encoder, thoughts: thoughts)
    monkeypatch.setattr(meaning_of_thoughts, "answer_with", lambda *_: [" 7", " 8", " 9"])
    problems = [{"answer": "7"}, {"answer": "7"}, {"answer": "9"}]
    thoughts = torch.tensor([[2.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]])
    figures = meaning_of_thoughts.judge(None, None, None, problems, 3 * torch.eye(3), thoughts)
    assert figures == {"cosine": 0.8667, "own reasoning found": 0.6667, "accuracy": 0.6667}
