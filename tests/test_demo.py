"""`python -m semcot.demo`: three answers and what the thoughts say, on the terminal."""

import re
import sys

import pytest
from conftest import QUESTIONS

from semcot import demo
from semcot.data import load_problems
from semcot.evaluation.methods import Method, Output


def said(monkeypatch, capsys, *arguments) -> str:
    monkeypatch.setattr(demo.logging, "disable_progress_bar", lambda: None)
    monkeypatch.setattr(sys, "argv", ["semcot.demo", *map(str, arguments)])
    demo.main()
    return capsys.readouterr().out


def test_own_questions_are_answered_three_ways_at_full_length(adapter, monkeypatch, capsys):
    shown = said(monkeypatch, capsys, *QUESTIONS[:2], "--model", adapter)
    for question in QUESTIONS[:2]:
        answers = shown.partition(question)[2].splitlines()[1:5]
        assert [line.split()[0] for line in answers[:3]] == ["direct", "semcot", "cot"]
        assert all(re.search(r"\d+ tokens +\d+ ms", line) for line in answers[:3])
        assert len(re.findall(r"\d\.\d\d(?: |$)", answers[3])) == 3, "a word and its probability of each thought"
    assert "right" not in shown and "wrong" not in shown


def test_problems_of_the_eval_split_are_drawn_and_each_method_judged(semcot, monkeypatch, capsys):
    problems = [
        *load_problems("synthetic_arithmetic:1-2", "eval", num_samples=2, seed=3),
        *load_problems("synthetic_coin_flip:4", "eval", num_samples=1, seed=3),
    ]
    golds = {problem["question"]: problem["answer"] for problem in problems}
    written = {"direct": " {}.", "cot": "0 and " * 20 + "the answer is 0 + 0 = {}", "semcot": " 0, yes and no: {}"}

    def answer(method, questions, max_new_tokens=None):
        return [Output(written[method.name].format(golds.get(question)), 5) for question in questions]

    monkeypatch.setattr(Method, "answer", answer)
    monkeypatch.setattr(demo, "load_model", lambda path: semcot)
    shown = said(monkeypatch, capsys, "--stories", 2, "--flips", 1, "--seed", 3)
    _, *asked = shown.strip().split("\n\n")
    for (question, gold), (first, *lines, thoughts) in zip(golds.items(), map(str.splitlines, asked), strict=True):
        assert first == f"{question}   [{gold}]" and thoughts.startswith("  its thoughts say: ")
        judged = [line.split()[:6] for line in lines]
        assert [(name, number, verdict) for name, number, _, _, _, verdict in judged] == [
            ("direct", "5", "right"),
            ("semcot", "5", "right" if gold == "yes" else "wrong"),
            ("cot", "5", "right"),
        ]
        assert " … " in lines[2]


def test_a_question_is_wanted_before_a_model_is_loaded(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="nothing to answer"):
        said(monkeypatch, capsys, "--model", "nowhere", "--stories", 0, "--flips", 0)


def test_an_option_that_it_does_not_know_is_no_question(semcot, monkeypatch, capsys):
    monkeypatch.setattr(demo, "load_model", lambda path: semcot)
    assert "-5 + 3?" in said(monkeypatch, capsys, "-5 + 3?")
    with pytest.raises(SystemExit, match="unknown option --flops"):
        said(monkeypatch, capsys, "How many?", "--flops", "3")


def test_what_cannot_be_asked_is_said(adapter, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="semcot.demo: the question holds <thought>"):
        said(monkeypatch, capsys, "Is <thought> a word?", "--model", adapter)
