"""An evaluation that was interrupted goes on where it was, and with nothing else than it was."""

import gc
import json
import sys
import weakref

import pytest
from conftest import tiny_semcot

import eval_semcot
from semcot.evaluation import EvalOptions
from semcot.evaluation.evaluate import evaluate
from semcot.evaluation.judging import over_seeds
from semcot.evaluation.measure import evaluate_method
from semcot.evaluation.methods import METHODS, TRAINED, Method, open_method
from semcot.evaluation.predictions import Predictions


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    model, tokenizer = tiny_semcot(checkpoint_kind="full")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def call(checkpoint, tmp_path, monkeypatch):
    """Calls eval_semcot.py with options; returns its record and the predictions, as they were written."""

    def call(*options, data="synthetic_arithmetic"):
        command = ["eval_semcot.py", "--model", checkpoint, "--output_dir", tmp_path / "out", "--data", data]
        command += ["--limit", "5", "--latency_samples", "0", "--batch_size", "2", "--max_new_tokens", "4"]
        monkeypatch.setattr(sys, "argv", [*map(str, command), *map(str, options)])
        eval_semcot.main()
        return read(tmp_path / "out")

    return call


def read(folder):
    lines = (folder / "predictions.jsonl").read_text().split("\n")
    return json.loads((folder / "results.json").read_text()), [json.loads(line) for line in lines[:-1]]


def without_times(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


class Asked(list):
    """The batches that are answered, as (method, questions), warm-ups left out; `at_most` so many of them."""

    at_most = 99


@pytest.fixture
def asked(monkeypatch):
    batches, answer = Asked(), Method.answer

    def note(method, questions, max_new_tokens=None):
        if max_new_tokens > 1:
            if len(batches) == batches.at_most:
                raise KeyboardInterrupt
            batches.append((method.name, list(questions)))
        return answer(method, questions, max_new_tokens)

    monkeypatch.setattr("semcot.evaluation.measure._WARM_UP_TOKENS", 1)
    monkeypatch.setattr(Method, "answer", note)
    return batches


@pytest.mark.parametrize("sampled", [(), ("--temperature", "2.0")])
@pytest.mark.parametrize(("batches", "answered"), [(1, 2), (4, 7)])  # in the first method, in the second one
def test_it_goes_on_where_it_was_interrupted(call, asked, tmp_path, batches, answered, sampled):
    options = ("--methods", "semcot_shuffled", "direct", *sampled)
    whole, expected = call(*options)
    (tmp_path / "out").rename(tmp_path / "uninterrupted")
    asked.clear()
    asked.at_most = batches
    with pytest.raises(KeyboardInterrupt):
        call(*options)
    file = tmp_path / "out" / "predictions.jsonl"
    with file.open("a") as lines:
        half, cut = map(json.dumps, expected[answered : answered + 2])
        lines.write(f"{half}\n{cut[:40]}")
    asked.at_most = 99
    record, predictions = call(*options)
    assert without_times(predictions) == without_times(expected)
    questions = [row["question"] for row in expected[:5]]
    once = [questions[:2], questions[2:4], questions[4:]]
    assert [batch for _, batch in asked] == once * 2, "none is asked twice"
    shares = ("method", "accuracy", "accuracy_lenient", "cut_off_rate", "new_tokens_mean", "mcnemar")
    rows, wanted = ([{share: row[share] for share in shares} for row in found["eval"]] for found in (record, whole))
    assert rows == wanted
    asked.clear()
    again, _ = call(*options)
    assert again == record and not asked, "an evaluation that is through is not done again"


def test_other_methods_join_it(call, asked):
    first, _ = call("--methods", "semcot")
    asked.clear()
    record, predictions = call("--methods", "direct", "semcot")
    assert {name for name, _ in asked} == {"direct"}
    assert [row["method"] for row in record["eval"]] == ["direct", "semcot"] and len(predictions) == 10
    assert record["eval"][1]["accuracy"] == first["eval"][0]["accuracy"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--limit", "4"), "limit was 5, now 4"),
        (("--max_new_tokens", "5"), "max_new_tokens was 4, now 5"),
        (("--seed", "3"), r"seeds was \[0\], now \[3\]"),
        (("--data", "synthetic_coin_flip"), "data was 'synthetic_arithmetic', now 'synthetic_coin_flip'"),
    ],
)
def test_with_other_options_it_does_not(call, options, said):
    call("--methods", "direct")
    with pytest.raises(ValueError, match=f"out holds an evaluation that was started otherwise: .*{said}.* --overwrite"):
        call("--methods", "direct", *options)
    _, predictions = call("--methods", "semcot", *options, "--overwrite_output_dir", "True")
    assert {row["method"] for row in predictions} == {"semcot"}


def test_nor_with_another_checkpoint_or_other_data_of_the_same_name(call, checkpoint, tmp_path):
    file = tmp_path / "own.jsonl"
    file.write_text('{"question": "How many?", "answer": "7"}\n')
    call("--methods", "direct", data=file)
    file.write_text('{"question": "How many?", "answer": "8"}\n')
    with pytest.raises(ValueError, match="data_sha256 was"):
        call("--methods", "direct", data=file)
    file.write_text('{"question": "How many?", "answer": "7"}\n')
    model, _ = tiny_semcot(checkpoint_kind="full", num_thoughts=3)
    model.projection.bias.data += 1
    weights = (checkpoint / "model.safetensors").read_bytes()
    try:
        model.save_pretrained(checkpoint)
        with pytest.raises(ValueError, match="model_sha256 was"):
            call("--methods", "direct", data=file)
    finally:
        (checkpoint / "model.safetensors").write_bytes(weights)
    call("--methods", "direct", data=file)


def test_nor_with_another_source_of_a_method(call, tmp_path):
    file = tmp_path / "own.jsonl"
    file.write_text('{"question": "7?", "answer": "7"}\n')
    options = ("--cot_max_new_tokens", 4, "--methods")
    call(*options, "cot_few_shot=synthetic_coin_flip:1,1", data=file)
    with pytest.raises(ValueError, match="weights of cot_few_shot was 'synthetic_coin_flip:1,1', now"):
        call(*options, "cot_few_shot=synthetic_coin_flip:2,1", data=file)


def test_what_is_no_evaluation_is_not_written_over(call, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.jsonl").write_text("mine\n")
    with pytest.raises(ValueError, match="does not say how it was started"):
        call("--methods", "direct")
    assert (tmp_path / "out" / "predictions.jsonl").read_text() == "mine\n"
    with pytest.raises(ValueError, match="predictions.jsonl, line 1 is no prediction"):
        Predictions(tmp_path / "out", {0: 5}, 2)


def test_a_line_that_was_cut_within_a_character_is_dropped(tmp_path):
    row = {"method": "direct", "seed": 0, "question": "Müller’s?"}
    whole = (json.dumps(row, ensure_ascii=False) + "\n").encode()
    file = tmp_path / "predictions.jsonl"
    file.write_bytes(whole + whole[: whole.index(b"\xe2") + 1])
    assert Predictions(tmp_path, {0: 2}, 1).all() == [row]
    assert file.read_bytes() == whole
    file.write_bytes(b"\xe2\n")
    with pytest.raises(ValueError, match="predictions.jsonl, line 1 is no prediction"):
        Predictions(tmp_path, {0: 2}, 1)


def test_seeds_give_a_row_each_and_their_mean(call):
    record, predictions = call("--methods", "semcot", "direct", "--seeds", 3, 4)
    assert [(row["method"], row["seed"]) for row in record["eval"]] == [
        ("semcot", 3),
        ("direct", 3),
        ("semcot", 4),
        ("direct", 4),
    ]
    assert len({row["data_sha256"] for row in record["eval"]}) == 2 and len(predictions) == 20
    for mean in record["means"]:
        own = [row["accuracy_lenient"] for row in record["eval"] if row["method"] == mean["method"]]
        assert mean["accuracy_lenient"] == sum(own) / 2 and mean["seeds"] == 2
    with pytest.raises(ValueError, match="seeds must be one or more, each another"):
        call("--seeds", 3, 3)


def test_seeds_must_make_a_difference(call, tmp_path):
    file = tmp_path / "own.jsonl"
    file.write_text('{"question": "How many?", "answer": "7"}\n' * 5)
    with pytest.raises(ValueError, match="is the same for the seeds"):
        call("--seeds", 0, 1, data=file)
    _, predictions = call("--methods", "direct", "--seeds", 0, 1, "--temperature", 3.0, data=file)
    first, second = ([row["output"] for row in predictions if row["seed"] == seed] for seed in (0, 1))
    assert first != second and len(set(first)) > 1


def test_an_interval_over_seeds_is_one_of_shares():
    shares = [dict.fromkeys(("accuracy", "accuracy_flexible", "accuracy_lenient"), share) for share in (0.9, 1.0)]
    (mean,) = over_seeds([{"method": "semcot", **row} for row in shares])
    # Student's 12.7 at one degree of freedom, times 0.05.
    assert mean["accuracy_ci95"] == [pytest.approx(0.95 - 0.635, abs=1e-3), 1.0]


def test_batches_are_kept_as_they_come():
    problems = [{"question": f"Question {i}?", "answer": "7"} for i in range(5)]
    kept = []
    method = METHODS["direct"](*tiny_semcot())
    _, predictions = evaluate_method(method, problems, batch_size=2, latency_samples=0, keep=kept.append)
    assert [len(rows) for rows in kept] == [2, 2, 1] and sum(kept, []) == predictions


def test_rivals_are_loaded_one_after_another(base, adapter, tmp_path, monkeypatch):
    """Each is gone before the next one is there, for the check of the questions as for the answers."""
    options = []
    for name in ("pause", "direct_finetuned"):
        TRAINED[name].build("someone/tiny-llama", str(base)).save(tmp_path / name)
        options.append(f"{name}={tmp_path / name}")
    alive, most = weakref.WeakSet(), []

    def noted(*arguments):
        method = open_method(*arguments)
        gc.collect()
        alive.add(method)
        most.append(len(alive))
        return method

    monkeypatch.setattr("semcot.evaluation.evaluate.open_method", noted)
    told = EvalOptions(str(adapter), "synthetic_arithmetic", str(tmp_path / "out"), options, limit=2, latency_samples=0)
    record = evaluate(told)
    assert [row["method"] for row in record["eval"]] == ["pause", "direct_finetuned"]
    assert most == [1] * 4
    evaluate(told)
    assert most == [1] * 6, "those that are through are loaded for the check alone"
