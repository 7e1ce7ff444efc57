"""The page of an evaluation: whole in itself, with all figures, whatever stands in the questions."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from semcot.evaluation.methods import METHODS, TRAINED
from semcot.evaluation.page import _problems, write_page
from semcot.evaluation.plots import COLOURS, draw
from semcot.evaluation.report import write_report
from semcot.evaluation.tables import sections
from semcot.evaluation.thoughts import Thoughts

QUESTION = 'Is "a" < b & c? </script><script>alert(1)</script>'


def row(method, seed=0, accuracy=0.5, latency=1.0):
    return {
        "method": method,
        "dataset": "d<ata",
        "seed": seed,
        "n": 2,
        "accuracy": accuracy,
        "accuracy_ci95": [accuracy / 2, min(1.0, accuracy * 1.5)],
        "accuracy_flexible": 0.5,
        "accuracy_lenient": 0.5,
        "unparsed_rate": 0.0,
        "cut_off_rate": 0.0,
        "new_tokens_mean": 4.0,
        "mcnemar": None,
        "latency_p50_s": latency,
        "latency_p95_s": latency and 1.5 * latency,
        "latency_n": 2,
        "accuracy_per_s": latency and accuracy / latency,
        "samples_per_s": 3.0,
        "speedup_vs_cot": None,
        "batch_size": 2,
        "batch_sweep": [{"batch_size": size, "samples_per_s": float(size)} for size in (1, 2)] if latency else [],
        "peak_memory_mb": 5.0,
    }


@pytest.fixture
def record():
    rows = [row("slow", accuracy=0.9, latency=10.0), row("fast", accuracy=0.4, latency=0.1)]
    rows += [row("worse", accuracy=0.3, latency=1.0), row("control", accuracy=0.1, latency=None)]
    part = {"part": "twin", "n": 2, "accuracy": 0.5, "accuracy_ci95": [0.1, 0.9]}
    spelt = {"n": 2, "spelt": 1, "share": 0.5}
    found = {"by": "tokens", "pool": 2, "likeness": -0.5}
    for way in ("thoughts_to_reasonings", "reasonings_to_thoughts"):
        found |= {way: 0.5, f"{way}_mean_rank": 1.5}
    meta = {"model": "m", "device": "Abacus", "dtype": "float32", "cpu_threads": 1, "versions": {"python": "3"}}
    return {
        "run": {"command": "python eval_semcot.py --data 'd<ata'"},
        "eval": rows,
        "overlap": {"train_data": "t", "train_problems": 7, "parts": [{"method": r["method"], **part} for r in rows]},
        "reading": {name: spelt for name in ("all", "right", "wrong")},
        "alignment": [found],
        "meta": meta,
    }


@pytest.fixture
def predictions():
    return [
        {"method": method, "question": question, "gold": "7", "output": " 7", "parsed": "7", "correct": True}
        for method in ("slow", "fast")
        for question in (QUESTION, "How many?")
    ]


@pytest.fixture
def thoughts():
    rows = [{"question": QUESTION, "thoughts": [" =", "7"], "spells_result": True}]
    random = np.random.default_rng(0)
    return Thoughts(
        rows, {}, [{"pool": 2, "thoughts_to_reasonings": 0.5}], random.random((2, 2)), random.random((2, 2, 2))
    )


class Page(HTMLParser):
    """The addresses that a page names, and the texts of its elements."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.texts, self.open = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.setdefault(self.open[-1] if self.open else None, []).append(data)


def test_the_page_needs_nothing_but_itself(record, predictions, thoughts, tmp_path):
    write_page(tmp_path, record, predictions, thoughts)
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert not page.open and not re.search(r"https?://|url\(|@import", text)
    assert len(page.addresses) == 5 and all(address.startswith("data:image/png;base64,") for address in page.addresses)
    shown = {base64.b64decode(address.partition(",")[2]) for address in page.addresses}
    assert shown == {file.read_bytes() for file in (tmp_path / "plots").iterdir()}
    assert sorted(file.name for file in (tmp_path / "plots").iterdir()) == [
        "accuracy.png",
        "accuracy_latency.png",
        "alignment.png",
        "batch_sweep.png",
        "plane.png",
    ]


def test_the_page_shows_all_that_the_report_says(record, predictions, thoughts, tmp_path):
    write_report(tmp_path, record)
    write_page(tmp_path, record, predictions, thoughts)
    page = Page((tmp_path / "report.html").read_text())
    told = " ".join("".join(texts) for texts in page.texts.values())
    report = (tmp_path / "report.md").read_text()
    cells = {cell.strip() for line in report.splitlines() if line[:1] == "|" for cell in line.split("|")}
    assert len(cells) > 40 and all(cell in told for cell in cells if cell.strip("-"))
    assert "d<ata" in page.texts["h1"] and "fast, 40.0% in 0.1 s; slow, 90.0% in 10 s." in report
    assert "fast, 40.0% in 0.1 s; slow, 90.0% in 10 s." in told, "worse is slower than fast, and no better"


def test_questions_are_data_and_nothing_else(record, predictions, thoughts, tmp_path):
    write_page(tmp_path, record, predictions, thoughts)
    page = Page((tmp_path / "report.html").read_text())
    data, script = page.texts["script"]
    answers = [{"method": method, "output": " 7", "parsed": "7", "right": True} for method in ("slow", "fast")]
    assert json.loads(data) == [
        {"question": QUESTION, "gold": "7", "answers": answers, "thoughts": [" =", "7"], "spells": True},
        {"question": "How many?", "gold": "7", "answers": answers},
    ]
    assert "alert" not in script


def test_a_question_that_is_asked_twice_is_shown_twice(predictions, thoughts):
    """Each time with its own answers and thoughts, also where other answers are right."""
    for place, row in enumerate(predictions):
        row |= {"question": QUESTION, "gold": "78"[place % 2], "correct": not place % 2}
    thoughts.rows += [{**thoughts.rows[0], "spells_result": False}]
    shown = _problems(predictions, thoughts)
    assert [(problem["gold"], problem["spells"]) for problem in shown] == [("7", True), ("8", False)]
    answers = [[(answer["method"], answer["right"]) for answer in problem["answers"]] for problem in shown]
    assert answers == [[(method, right) for method in ("slow", "fast")] for right in (True, False)]


def test_the_terms_name_what_was_tested_whatever_the_order_of_methods(record):
    """The last one is that which the others are tested against, the first one a control, which is not timed."""
    *others, last = record["eval"]
    for row in others:
        row["mcnemar"] = {"against": last["method"], "first_alone": 1, "second_alone": 0, "p": 1.0}
    others[0]["latency_n"] = 0
    terms = sections(record)[-1].notes
    assert f"those that {last['method']} alone has" in terms["McNemar"] and "of 2 questions" in terms["p50, p95"]


def test_only_what_was_measured_is_drawn(record, predictions, tmp_path):
    rows = [row("semcot", seed, latency=None) for seed in (0, 1)]
    means = [{**row("semcot"), "seeds": 2, "accuracy_ci95": None}]
    few = {"run": record["run"], "meta": record["meta"], "eval": rows, "means": means}
    assert list(draw(few, None)) == ["accuracy"]
    write_page(tmp_path, few, predictions, None)
    assert Page((tmp_path / "report.html").read_text()).texts["h2"][:2] == ["Accuracy", "Over seeds"]


def test_accuracy_against_latency_is_that_of_all_seeds(record):
    record["eval"] = [
        row("semcot", seed, accuracy, latency) for seed, accuracy, latency in ((0, 0.2, 1.0), (1, 0.6, None))
    ]
    record["means"] = [{**row("semcot", accuracy=0.4), "seeds": 2}]
    ((line, *_),) = [container.lines for container in draw(record, None)["accuracy_latency"][1].axes[0].containers]
    assert line.get_xydata().tolist() == [[1.0, pytest.approx(40)]]


def test_axes_are_labelled_and_methods_told_apart(record, thoughts):
    record["eval"] = [row(f"method {i}", latency=1.0 + i) for i in range(9)]
    for name, (caption, figure) in draw(record, thoughts).items():
        axes = figure.axes[0]
        assert caption.endswith(".") and axes.get_xlabel(), name
        assert axes.get_ylabel() or [label.get_text() for label in axes.get_yticklabels()][0] == "method 0"
    lines = draw(record, thoughts)["batch_sweep"][1].axes[0].lines
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 9
    assert {line.get_color() for line in lines} == set(COLOURS)


@pytest.mark.parametrize("names", [["semcot", "direct", "cot"], [*METHODS, *TRAINED, "cot_few_shot"], ["x" * 60, "y"]])
def test_a_legend_stays_within_its_plot(record, names):
    record["eval"] = [row(name, latency=1.0 + i) for i, name in enumerate(names)]
    for name in ("accuracy_latency", "batch_sweep"):
        figure = draw(record, None)[name][1]
        figure.draw_without_rendering()
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == names
        box, axes = legend.get_window_extent(), figure.axes[0].get_window_extent()
        assert max(names, key=len).startswith("x") or (box.x0 >= 0 and box.x1 <= figure.bbox.x1)
        assert axes.height > 2 * figure.dpi and not box.overlaps(axes)
