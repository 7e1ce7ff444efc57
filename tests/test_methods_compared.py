"""The comparison of all methods: its budget in steps, what is not done again, and what its page says."""

import json
from dataclasses import replace

import pytest
import yaml
from safetensors.torch import load_file, save_file

from benchmarks import methods as benchmark
from benchmarks.methods import Comparison, compare, steps_within, with_steps
from semcot.evaluation import EvalOptions
from semcot.evaluation.comparison import write_comparison

TRAINED = ["generator", "projection", "thought_embedding"]


@pytest.fixture
def comparison(base, adapter):
    return Comparison(
        minutes=0.002,
        seeds=[0],
        trial_steps=2,
        problems={"synthetic_arithmetic": 40, "synthetic_coin_flip": 40},
        recipe={"base_model": str(base), "validation_fraction": 0.1, "batch_size": 4, "trainer": {"bf16": False}},
        methods={
            "semcot": {
                "generator": 2,
                "stages": [
                    {"name": "a", "share": 0.7, "train": TRAINED, "losses": {"token_supervision": 1}, "batch_size": 2},
                    {"name": "b", "share": 0.3, "train": TRAINED, "losses": {"answer": 1}, "batch_size": 2},
                ],
            },
            "direct_finetuned": {},
        },
        untrained={
            "direct": {"model": str(adapter), "method": "direct"},
            "cot_few_shot": {
                "model": str(adapter),
                "method": "cot_few_shot=PROBLEMS,1",
                "evaluation": {"limit": 2, "cot_max_new_tokens": 4},
            },
        },
        data={"Stories": "synthetic_arithmetic:1", "Coin flips": "synthetic_coin_flip:2"},
        evaluation={"limit": 3, "latency_samples": 1, "max_new_tokens": 4},
    )


@pytest.fixture
def places(tmp_path):
    return tmp_path / "runs", tmp_path / "results", tmp_path / "docs"


def test_a_budget_of_minutes_becomes_steps():
    assert steps_within(60, [0.0, 10.0, 12.0, 14.0]) == 30, "the first step, the slow one, does not count"
    assert steps_within(60, [0.0, 3.0]) == 20, "where it is the only one, it does"
    assert steps_within(1, [0.0, 3.0, 9.0]) == 1


def test_the_steps_are_those_of_each_stage(comparison):
    assert with_steps({"method": "pause"}, [7]) == {"method": "pause", "max_steps": 7, "epochs": 7}
    recipe = comparison.methods["semcot"]
    stages = with_steps(recipe, [7, 2])["stages"]
    assert [(stage["max_steps"], stage["epochs"]) for stage in stages] == [(7, 7), (2, 2)]
    assert "share" not in stages[0] and recipe["stages"][0]["share"] == 0.7, "it is not changed itself"


def test_what_is_done_is_not_done_again(comparison, places, monkeypatch):
    """Trained for what the trial's speed gives, asked all questions; the page is there after the first method."""
    seconds = iter(range(10**6))
    monkeypatch.setattr(benchmark, "now", lambda: next(seconds) / 100)  # 0.01 s a step: 12 steps in 0.002 minutes
    runs, results, docs = places
    monkeypatch.setattr(benchmark, "MODEL", comparison.untrained["direct"]["model"])
    compare(comparison, *places, ["direct", "semcot"])
    assert "Not run yet: cot_few_shot, direct_finetuned." in (docs / "methods.md").read_text()
    benchmark.make_page(replace(comparison, minutes=1), results, docs)
    assert "Not run yet: cot_few_shot, semcot, direct_finetuned." in (docs / "methods.md").read_text()
    record = json.loads((results / "semcot.json").read_text())
    (trained,) = record["train"]
    told = yaml.safe_load((runs / "semcot" / "seed-0.yaml").read_text())
    assert [stage["max_steps"] for stage in told["stages"]] == [8, 4], "7 and 3 of 10, of 12 steps"
    assert trained["problems"] == (8 + 4) * 2 and trained["minutes"] == pytest.approx(0.002)
    assert all(row["latency_p50_s"] == pytest.approx(0.01) and row["latency_n"] == 1 for row in record["eval"])
    assert [(row["title"], row["n"], len(row["right"])) for row in record["eval"]] == [
        ("Stories", 3, 3),
        ("Coin flips", 3, 3),
    ]

    monkeypatch.setattr(benchmark, "train", None)  # not called again
    compare(comparison, *places)
    assert {file.stem for file in results.iterdir()} == {"semcot", "direct", "direct_finetuned", "cot_few_shot"}
    page = (docs / "methods.md").read_text()
    for name in ("semcot", "direct", "direct_finetuned", "cot_few_shot"):
        assert f"| {name} " in page
    assert "each for 0.002 minutes" in page and "(methods_plots/coin_flips.png)" in page
    monkeypatch.setattr(benchmark, "train_method", None)
    monkeypatch.setattr(benchmark, "evaluate", None)
    compare(comparison, *places)
    assert (docs / "methods.md").read_text() == page and "Not run yet" not in page
    comparison.minutes = 1
    with pytest.raises(ValueError, match="semcot/seed-0 was trained with other budget_minutes: move it away"):
        compare(comparison, *places)
    with pytest.raises(ValueError, match="nothing named codi to compare; there are direct, cot_few_shot, semcot"):
        compare(comparison, *places, ["codi"])


def test_problems_of_another_list_are_not_taken_for_its_own(comparison, tmp_path):
    file = benchmark.draw_problems(comparison, 0, tmp_path)
    assert benchmark.draw_problems(comparison, 0, tmp_path) == file and len(file.read_text().splitlines()) == 80
    with pytest.raises(ValueError, match=r"problems-0.jsonl holds other problems .* give other --runs"):
        benchmark.draw_problems(replace(comparison, problems={"synthetic_arithmetic": 30}), 0, tmp_path)
    lessons = tmp_path / "lessons.jsonl"
    lessons.write_text(file.read_text())
    asked = tmp_path / "Lessons.jsonl"
    assert benchmark.shuffled(str(lessons), asked) == str(asked)
    assert sorted(asked.read_text().splitlines()) == sorted(lessons.read_text().splitlines())
    assert benchmark.shuffled("synthetic_arithmetic", tmp_path / "Stories.jsonl") == "synthetic_arithmetic"
    lessons.write_text(file.read_text().partition("\n")[2])
    with pytest.raises(ValueError, match="Lessons.jsonl holds other problems"):
        benchmark.shuffled(str(lessons), asked)


def test_answers_of_another_checkpoint_are_not_taken_for_its_own(adapter, tmp_path):
    weights = adapter / "model.safetensors"
    for name in ("direct", "semcot"):
        options = EvalOptions(str(adapter), "synthetic_coin_flip", str(tmp_path / name), [name], limit=2)
        options.latency_samples = 0
        before = benchmark.evaluated(options)
        found = load_file(weights)
        save_file({key: value / 2 for key, value in found.items()}, weights, {"format": "pt"})
        if name == "direct":
            assert benchmark.evaluated(options) == before, "which does not ask the checkpoint"
    with pytest.raises(ValueError, match="model_sha256 was"):
        benchmark.evaluated(options)


def record(name, right, seconds, trained=True, questions="x"):
    """A method's record on one data set; `right` has an outcome for each question, and a text for each seed."""
    rows = [
        {
            "title": "Sums",
            "dataset": "sums",
            "split": "eval",
            "data_sha256": questions,
            "n": len(own),
            "accuracy": own.count("1") / len(own),
            "accuracy_flexible": 0.5,
            "right": own,
            "latency_p50_s": seconds,
            "latency_p95_s": seconds,
            "latency_n": 2,
            "new_tokens_mean": 3.0,
            "unparsed_rate": 0.0,
            "cut_off_rate": 0.0,
            "batch_size": 2,
        }
        for own in right
    ]
    return {
        "name": name,
        "run": {"command": "make methods"},
        "budget_minutes": 2 if trained else None,
        "trained": None,
        "train": [{"seed": i, "minutes": 2.0, "problems": 1200 + i} for i in range(len(right))] if trained else [],
        "eval": rows,
        "meta": {"device": "Abacus", "dtype": "float32", "cpu_threads": 1, "versions": {"python": "3"}},
    }


@pytest.fixture
def page(tmp_path):
    """The page of records, in Markdown and in HTML."""

    def page(*records):
        write_comparison(tmp_path, records)
        return [(tmp_path / f"methods.{kind}").read_text() for kind in ("md", "html")]

    return page


def test_the_page_says_which_to_take_and_where_semcot_is_beaten(page):
    markdown, html = page(
        record("direct", ["0" * 20], 0.1, trained=False),
        record("semcot", ["1" * 6 + "0" * 14], 0.2),
        record("codi", ["0" * 20], 0.4),
        record("cot_finetuned", ["1" * 18 + "00"], 3.0),
        record("cot", ["1"], 9.0, trained=False, questions="others"),
    )
    short = markdown.split("## In short")[1].split("## All methods")[0]
    assert "Of all, take direct (0%) if you have 0.1 s, semcot (30%) if you have 0.2 s, cot_finetuned (90%)" in short
    assert "Of those trained here, each for 2 minutes, take semcot (30%) if you have 0.2 s, cot_finetuned" in short
    assert "Not better than the untrained base on any of the sets: codi." in short
    assert "Better than SemCoT trained for the same minutes: cot_finetuned (Sums)." in short
    rows = dict(line[2:].split(" ", 1) for line in markdown.split("## Sums")[0].split("\n") if line.startswith("| c"))
    assert "90 [70, 97] ▲" in rows["cot_finetuned"] and "0 [0, 16] ▼" in rows["codi"]
    assert "100 [21, 100] |" in rows["cot"], "which was asked other questions"
    details = markdown.split("## Sums")[1]
    assert "| 12 : 0, p 0.00049 |" in details and "| 0 : 6, p 0.031 " in details
    assert "Better than SemCoT trained for the same minutes: cot_finetuned (Sums)." in html
    assert html.count("data:image/png;base64,") == 1 and "<script" not in html and 'src="http' not in html


def test_several_seeds_give_their_mean(page):
    markdown, _ = page(record("semcot", ["1000", "1100", "1110"], 0.2), record("codi", ["1111"] * 3, 0.4))
    assert "50 [0, 100]" in markdown and "1,201" in markdown, "the mean of 25, 50 and 75 %, Student's t of three"
    assert "seeds 0, 1, 2" in markdown
