"""The comparisons that take hours on real models, on a tiny one."""

import json
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import ROOT, tiny_base_tokenizer, tiny_language_model, tiny_semcot

from benchmarks import ablations, meaning_of_thoughts, mistakes
from benchmarks.accuracy_by_steps import operations
from benchmarks.mistakes import read_thoughts
from benchmarks.spelling_by_pass import spelling_by_pass
from benchmarks.thoughts import answer_with
from benchmarks.train_throughput import ratios_over_passes
from semcot.data import load_problems
from semcot.distillation import lens_targets


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    base = folder / "models" / "tiny-llama"
    tiny_language_model(max_position_embeddings=1024).save_pretrained(base)
    tiny_base_tokenizer().save_pretrained(base)
    options = {
        "base_model": str(base),
        "generator_layers": 2,
        "num_thoughts": 4,
        "dataset": ["synthetic_coin_flip"],
        "num_samples": [60],
        "validation_fraction": 0.2,
        "encoder_batch_size": 8,
        "encoder_embedding_dim": 16,
        "batch_size": 8,
        "max_steps": 2,
        "logging_steps": 1,
        "bf16": False,
    }
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(options))
    return file


def run(script, *arguments):
    command = [sys.executable, str(ROOT / "benchmarks" / script), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_ablations_train_and_evaluate_each_variant_once(recipe, tmp_path):
    arguments = [recipe, "--data", "synthetic_coin_flip", "--limit", 10, "--seeds", 1, "--runs_dir", tmp_path / "runs"]
    arguments += ["--variants", "full", "K = 1", "--output_dir", tmp_path / "results"]
    assert "train_semcot.py" in run("ablations.py", *arguments)
    report = (tmp_path / "results" / "report.md").read_text()
    for label in ("full", "K = 1", "thoughts zeroed", "thoughts shuffled", "thoughts random"):
        assert f"| {label} | 1 |" in report
    for name, changed in (("full-1", 4), ("K1-1", 1)):
        options = json.loads((tmp_path / "runs" / name / "options.json").read_text())
        assert (options["seed"], options["num_thoughts"]) == (1, changed)
        result = json.loads((tmp_path / "results" / name / "results.json").read_text())[0]
        assert f"{result['accuracy']:.1%}" in report and result["seed"] == 1000
    assert "train_semcot.py" not in run("ablations.py", *arguments)


def test_ablations_give_the_mean_with_its_interval(tmp_path, monkeypatch):
    """Of runs that are all there."""
    for seed, accuracy in enumerate((0.5, 0.7, 0.6)):
        folder = tmp_path / "results" / f"no_lens-{seed}"
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps([{"method": "semcot", "accuracy": accuracy}]))
    options = f"ablations.py recipe --data d --variants no_lens --output_dir {tmp_path}/results".split()
    monkeypatch.setattr(sys, "argv", [option.replace("no_lens", "no lens") for option in options])
    ablations.main()
    # Student's 4.303 at two degrees of freedom, times 0.1 / sqrt(3).
    assert "| no lens | 3 | 60.0% ± 24.8% | 50.0%, 70.0%, 60.0% |\n" in (tmp_path / "results/report.md").read_text()


def test_finetuned_cot_trains_the_base_and_reports_each_data_set(recipe, tmp_path):
    checkpoint = tmp_path / "run"
    command = [sys.executable, "train_semcot.py", str(recipe), "--output_dir", str(checkpoint), "--alpha", "0"]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    arguments = ["--model", checkpoint, "--problems", 40, "--batch_size", 8, "--output_dir", tmp_path / "results"]
    run("finetuned_cot.py", recipe, *arguments, "--data", "synthetic_coin_flip,12,5", "synthetic_arithmetic,6")
    losses = [entry["answer_loss"] for entry in json.loads((tmp_path / "results" / "losses.json").read_text())[:5]]
    assert losses[-1] < losses[0]
    for name, n in (("synthetic_coin_flip", 12), ("synthetic_arithmetic", 6)):
        result = json.loads((tmp_path / "results" / name / "results.json").read_text())[0]
        assert (result["method"], result["n"], result["train_problems"]) == ("cot_finetuned", n, 40)
    lines = (tmp_path / "results" / "synthetic_coin_flip" / "predictions.jsonl").read_text().splitlines()
    asked = load_problems("synthetic_coin_flip", "eval", num_samples=12, seed=5)["question"][:]
    assert [json.loads(line)["question"] for line in lines] == asked


def test_throughput_compares_equal_losses_and_says_what_work_was_saved(recipe, tmp_path):
    base = yaml.safe_load(recipe.read_text())["base_model"]
    sizes = ["--generator_layers", 2, "--samples", 8, "--plain_samples", 4, "--batch_sizes", 1, 4]
    run("train_throughput.py", "--base_model", base, *sizes, "--output", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    for name in ("batch 1", "batch 4", "batch 4, questions cached"):
        assert figures["largest_difference_of_losses"][name] < 1e-4
    assert 0 < figures["gflop_per_sample"]["batch 4"] < figures["gflop_per_sample"]["plain"]
    work, plain = figures["gflop_per_sample"], figures["plain_samples_per_s"]
    assert work["batch 4, questions cached"] < work["batch 4"]
    ways = ("batch 1", "batch 4", "batch 1, questions cached", "batch 4, questions cached")
    assert plain[0] == plain[1] == figures["samples_per_s"]["plain"] and len(plain) == 2 + len(ways)
    for i, name in enumerate(ways, 1):
        seconds = (1 / plain[i] + 1 / plain[i + 1]) / 2
        assert figures["ratio"][name] == pytest.approx(seconds * figures["samples_per_s"][name])
        assert 0 < figures["share_of_matrix_peak"][name] < 2
    one, ten = (figures["ratio_over_passes"]["batch 4"][passes] for passes in ("1", "10"))
    assert max(one, ten) < max(figures["ratio"][name] for name in ways[1::2]), "as reasonings are embedded once"


def test_spelling_by_pass_counts_the_steps_that_the_thoughts_spell(tmp_path):
    model, tokenizer = tiny_semcot(num_thoughts=4)
    problem = {"question": "How many?", "condensed_reasoning": "1 + 1 = 2, 2 + 1 = 3, 3 + 1 = 4"}
    model.save_pretrained(tmp_path / "model", checkpoint_kind="full")
    tokenizer.save_pretrained(tmp_path / "model")
    output = tmp_path / "spelling.json"
    run("spelling_by_pass.py", tmp_path / "model", "--limit", 5, "--passes", 2, "--output", output)
    record = json.loads(output.read_text())
    assert record["n"] == 5 and len(record["passes"]) == 2
    # A model that thinks what it shall, in its second pass: all steps are right there, and only there.
    table = model.get_input_embeddings().weight.detach()
    wanted = table[lens_targets(problem["condensed_reasoning"], tokenizer, 4, 3)].unsqueeze(0)
    model.think_in_passes = lambda **batch: [wanted.flip(1), wanted]
    first, second = spelling_by_pass(model, tokenizer, [problem])
    assert first["all"] == 0
    assert set(second.values()) == {1}
    product = {"question": "How many?", "condensed_reasoning": "1 + 1 = 2, 2 * 1 = 2, 2 + 1 = 3"}
    wanted = table[lens_targets(product["condensed_reasoning"], tokenizer, 4, 3)].repeat(2, 1, 1)
    wanted[1] = 0
    model.think_in_passes = lambda **batch: [wanted]
    (only,) = spelling_by_pass(model, tokenizer, [product, problem])
    assert only["all"] == 0.5
    assert only["by place, of 1 with a product before the last step"] == [1, 1, 1, 1], "the other has none"


def test_accuracy_by_source_tells_the_sources_of_a_recipe_apart(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    sources = {"synthetic_coin_flip": 6, "synthetic_arithmetic": 4}
    options = {"generator_layers": 2, "dataset": list(sources), "num_samples": list(sources.values()), "seed": 3}
    recipe.write_text(yaml.safe_dump(options))
    lines = []
    for name, n in sources.items():
        for i, question in enumerate(load_problems(name, num_samples=n, seed=3)["question"]):
            right = i < 3 or name == "synthetic_arithmetic"
            lines.append(json.dumps({"method": "semcot", "question": question, "correct": right}))
            lines.append(json.dumps({"method": "direct", "question": question, "correct": False}))
    (tmp_path / "predictions.jsonl").write_text("\n".join(lines))
    printed = run("accuracy_by_source.py", recipe, tmp_path).splitlines()
    assert [line.split() for line in printed] == [
        ["synthetic_coin_flip", "50.0%", "of", "6"],
        ["synthetic_arithmetic", "100.0%", "of", "4"],
    ]


@pytest.mark.parametrize("name", ["accuracy_by_source.py", "accuracy_by_steps.py", "wordings.py"])
def test_what_reads_logs_says_how_it_is_used(name):
    assert run(name, "--help").startswith(f"usage: {name}")


def test_accuracy_by_steps_tells_lengths_operations_and_large_answers_apart(tmp_path):
    problems = load_problems("synthetic_shapes", "train", num_samples=60, seed=3)
    results = {"dataset": "synthetic_shapes", "split": "train", "n": 60, "seed": 3}
    (tmp_path / "results.json").write_text(json.dumps([results]))
    rows = [{"question": p["question"], "method": "semcot", "correct": int(p["answer"]) <= 100} for p in problems]
    rows += [{**row, "method": "direct"} for row in rows]
    (tmp_path / "predictions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lines = run("accuracy_by_steps.py", tmp_path).splitlines()
    found = {line[:24].strip(): line[24:].split() for line in lines}
    lengths = [condensed.count("=") for condensed in problems["condensed_reasoning"]]
    large = sum(int(answer) > 100 for answer in problems["answer"])
    assert large and found["above 100"] == ["0.0%", "of", str(large)]
    assert all(found[f"{n} steps"][1:] == ["of", str(lengths.count(n))] for n in (1, 2, 3))
    told = [" then ".join(step.split()[1] for step in p["condensed_reasoning"].split(", ")) for p in problems]
    assert all(found[name][-1] == str(told.count(name)) for name in set(told))
    real = {"question": "64 pens, 36 lost, 4 boxes.", "reasoning": "((64.0 - 36.0) / 4.0)", "answer": "7"}
    assert operations("svamp", real) == ["-", "/"] and operations("svamp", {**real, "answer": "8"}) == []


def test_wordings_tells_problems_whose_variants_are_trained_on_from_others(tmp_path):
    problems = [
        {
            "question": f"{name} had {a} eggs and ate {b}. How many? ({'x' * i})",
            "reasoning": f"{a} - {b} = {a - b}",
            "answer": str(a - b),
        }
        for name in ("Haley", "Robin")
        for a, b in ((9, 4), (50, 7))
        for i in range(1, 31)
    ]
    problems.append({"question": "Why?", "reasoning": "So.", "answer": "7"})
    file = tmp_path / "own.json"
    file.write_text(json.dumps(problems))
    rows = [{"question": problem["question"], "correct": problem["question"] != "Why?"} for problem in problems]
    rows.append({"question": "Who had 9 eggs?", "correct": False})
    rows += [{**row, "method": "direct", "correct": False} for row in rows]
    (tmp_path / "predictions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lines = run("wordings.py", file, tmp_path).splitlines()
    train, evaluation = (int(line.split()[1]) for line in lines[:2])
    assert train + evaluation == 120 and 0 < evaluation < train
    assert lines[0] == f"train: {train} of 121 problems, in {train // 4} wordings"
    assert lines[2:] == [
        "worded like one of the train split: 121 of 122",
        f"variants in train: {train} right of {train}",
        f"others: {evaluation} right of {evaluation + 2}",
    ]


def test_mistakes_tells_spelling_from_answering(tmp_path):
    model, tokenizer = tiny_semcot(num_thoughts=4)
    model.save_pretrained(tmp_path / "model", checkpoint_kind="full")
    tokenizer.save_pretrained(tmp_path / "model")
    file, output = tmp_path / "problems.jsonl", tmp_path / "mistakes.txt"
    load_problems("synthetic_arithmetic", num_samples=5, seed=1).to_json(file)
    run("mistakes.py", tmp_path / "model", file, "--output", output)
    first, *counts = output.read_text().split("\n\n")[0].splitlines()
    assert first == "n = 5, float32, greedy" and sum(int(line.split()[0]) for line in counts) == 5

    table = model.get_input_embeddings().weight.detach()
    problem = {"question": "How many?", "condensed_reasoning": "1 + 1 = 2, 2 + 1 = 3"}
    wanted = table[lens_targets(problem["condensed_reasoning"], tokenizer, 4, 3)]
    for wrong, before, last in ((None, True, True), (1, False, True), (3, True, False)):
        thoughts = wanted.clone()
        if wrong is not None:
            thoughts[wrong] = wanted[wrong - 1]  # the sign before it
        model.think = lambda *ids, thoughts=thoughts, **batch: thoughts.unsqueeze(0)
        (found,) = read_thoughts(model, tokenizer, [problem])
        assert (found["before"], found["last"]) == (before, last)


def test_mistakes_are_counted_and_listed(tmp_path, monkeypatch):
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
    model.save_pretrained(tmp_path, checkpoint_kind="full")
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setattr(sys, "argv", f"mistakes.py {tmp_path} {file} --output {tmp_path}/mistakes.txt".split())
    mistakes.main()
    assert (tmp_path / "mistakes.txt").read_text().splitlines() == [
        "n = 5, float32, greedy",
        "    1 spells right all steps, answer right",
        "    1 spells right not the last step, answer right",
        "    1 spells right not the last step, answer wrong",
        "    1 spells right the last step alone, answer right",
        "    1 spells right the last step alone, answer wrong",
        "",
        "condensed reasoning | thoughts read through the lens | answer | answered",
        "3 + 1 = 4 | spelt 2 | 4 | 0",
        "4 + 1 = 5 | spelt 3 | 5 | 0",
    ]


def test_meaning_of_thoughts_fits_them_to_the_reasonings(recipe, tmp_path):
    options = ["--output_dir", tmp_path / "run", "--max_steps", 2, "--num_thoughts", 4]
    subprocess.run([sys.executable, "train_semcot.py", recipe, *map(str, options)], cwd=ROOT, check=True)
    output = tmp_path / "meaning.json"
    encoder = tmp_path / "run" / "reasoning_encoder"
    options = ["--data", "synthetic_coin_flip", "--limit", 6, "--steps", 40, "--output", output]
    run("meaning_of_thoughts.py", tmp_path / "run", "--encoder", encoder, *options)
    thoughts = json.loads(output.read_text())["thoughts"]
    start, fitted = thoughts["tokens at random"], thoughts["those, fitted to the reasoning"]
    assert fitted["cosine"] > max(0.9, start["cosine"]) and fitted["own reasoning found"] > 0.5
    assert all(0 <= row["accuracy"] <= 1 for row in thoughts.values())


def test_thoughts_are_judged_by_their_own_reasonings(monkeypatch):
    monkeypatch.setattr(meaning_of_thoughts, "encode_thoughts", lambda encoder, thoughts: thoughts)
    monkeypatch.setattr(meaning_of_thoughts, "answer_with", lambda *_: [" 7", " 8", " 9"])
    problems = [{"answer": "7"}, {"answer": "7"}, {"answer": "9"}]
    thoughts = torch.tensor([[2.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]])
    figures = meaning_of_thoughts.judge(None, None, None, problems, 3 * torch.eye(3), thoughts)
    assert figures == {"cosine": 0.8667, "own reasoning found": 0.6667, "accuracy": 0.6667}


def test_memory_of_training(tmp_path):
    table = run("train_memory.py", "--processes", 4, "--output", tmp_path / "computed.json")
    figures = json.loads((tmp_path / "computed.json").read_text())["gb"]["Llama-2-7B + Sheared-LLaMA-1.3B"]
    assert "| Llama-2-7B + Sheared-LLaMA-1.3B | 13.5 |" in table
    # 6.74 and 1.28 billion weights, four layers of 202 million, of 32.
    base, trained, encoder = 6.738 * 2, 1.28 * 4, 4 * 0.2024 * 4
    shard = base - 24 * 0.2024 * 2
    expected = {
        "each whole": base + 4 * trained + encoder,
        "shard_base": shard + 4 * trained + encoder,
        "shard_base, adafactor": shard + 2 * trained + encoder,
        "zero2": base + trained * (1 + 4 / 4) + encoder,
        "fsdp": (base + 4 * trained) / 4 + encoder,
        "stage 1": base + 4 * encoder,
        "stage 1, adafactor": base + 2 * encoder,
        "warm-up": base + trained + encoder,
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=0.1)
    run("train_memory.py", "--measure", "tiny + tiny", "--output", tmp_path / "measured.json")
    peaks = json.loads((tmp_path / "measured.json").read_text())["peak_gb"]
    assert set(peaks) == {"reasoning_encoder", "warmup", "generator"} and min(peaks.values()) > 0


def test_a_run_of_several_passes_pays_once_for_what_is_computed_once():
    assert ratios_over_passes(each=0.25, cached=0.125, embedded=0.25, kept=0.5) == pytest.approx(
        {1: 1 / 0.5, 3: 3 / 1.0, 5: 5 / (0.25 + 0.5 + 0.625), 10: 10 / (0.25 + 0.5 + 1.25)}
    )
