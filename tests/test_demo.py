"""`python -m semcot.demo`: three answers and what the thoughts say, on the terminal."""

import re
import sys

import pytest
from conftest import QUESTIONS

from semcot import demo


def said(monkeypatch, capsys, *arguments) -> str:
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


def test_drawn_problems_are_judged(adapter, monkeypatch, capsys):
    shown = said(monkeypatch, capsys, "--model", adapter, "--stories", 1, "--flips", 1)
    assert len(re.findall(r" ms  (?:right|wrong) ", shown)) == 6


def test_what_cannot_be_asked_is_said(adapter, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="semcot.demo: the question holds <thought>"):
        said(monkeypatch, capsys, "Is <thought> a word?", "--model", adapter)
