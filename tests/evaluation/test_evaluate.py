"""The methods, their measurement, and eval_semcot.py from end to end on a tiny checkpoint."""

import contextlib
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tempfile

import evaluate as hf_evaluate
import pytest
import torch
from conftest import ROOT, tiny_semcot
from scipy.stats import binomtest

import eval_semcot
from modeling_semcot import SemCoTForCausalLM
from semcot import machine
from semcot.data import fingerprint, load_problems
from semcot.evaluation import methods
from semcot.evaluation.judging import with_comparisons
from semcot.evaluation.loading import load_model
from semcot.evaluation.measure import (
    _WARM_UP_TOKENS,
    check_questions,
    describe_machine,
    evaluate_method,
    measure_throughput,
)
from semcot.evaluation.methods import METHODS, Method, Output
from semcot.evaluation.report import prepare_output_dir, write_report
from semcot.evaluation.tables import SPEED, format_table, format_tables
from semcot.machine import device_name, peak_memory
from semcot.tokenization import tokenize_prompts

QUESTIONS = [
    "A coin is heads up. Is it heads up?",
    "How many songs?",
    "Paige had 11 songs and deleted 9. How many now?",
]
WITH_THOUGHTS = ("semcot", "semcot_zeroed", "semcot_shuffled", "semcot_random")
RESULT_KEYS = {
    "method",
    "dataset",
    "data_sha256",
    "split",
    "seed",
    "n",
    "accuracy",
    "accuracy_ci95",
    "accuracy_flexible",
    "accuracy_lenient",
    "unparsed_rate",
    "cut_off_rate",
    "new_tokens_mean",
    "max_new_tokens",
    "latency_p50_s",
    "latency_p95_s",
    "latency_n",
    "accuracy_per_s",
    "samples_per_s",
    "speedup_vs_cot",
    "mcnemar",
    "batch_size",
    "batch_sweep",
    "peak_memory_mb",
}
METRICS = ROOT / "semcot" / "evaluation" / "metrics"


class Constant(Method):
    """Continues every prompt with the same tokens."""

    name = "constant"

    def __init__(self, model, tokenizer, text):
        super().__init__(model, tokenizer)
        self.ids = tokenizer(text, add_special_tokens=False).input_ids

    def prompts(self, questions):
        return list(questions)

    def generate(self, input_ids, **options):
        return torch.cat([input_ids, torch.tensor([self.ids] * len(input_ids))], dim=1)


def test_prompts_of_a_base_with_a_chat_format(semcot):
    head = "<|im_start|>user\nHow many?"
    prompts = {name: method(*semcot).prompts(["How many?"])[0] for name, method in METHODS.items()}
    instruction = 'Think step by step, then give the final answer after "Answer:".'
    assert prompts == {
        "direct": f"{head}<|im_end|>\n<|im_start|>assistant\nAnswer:",
        "cot": f"{head} {instruction}<|im_end|>\n<|im_start|>assistant\n",
        **dict.fromkeys(WITH_THOUGHTS, f"{head}<|im_end|>\n<|im_start|>assistant\n<thought><thought><thought>Answer:"),
    }


def test_prompts_of_a_base_without_a_chat_format():
    model_and_tokenizer = tiny_semcot(chat=False)
    prompts = {name: method(*model_and_tokenizer).prompts(["How many?"])[0] for name, method in METHODS.items()}
    assert prompts == {
        "direct": "Question:\nHow many?\nAnswer:",
        "cot": "Question:\nHow many?\nAnswer: Let's think step by step.",
        **dict.fromkeys(WITH_THOUGHTS, "Question:\nHow many?<thought><thought><thought>\nAnswer:"),
    }


@pytest.mark.parametrize("name", ["semcot", "direct", "cot", "semcot_zeroed", "semcot_random"])
@pytest.mark.parametrize("chat", [True, False])
def test_a_batch_is_answered_as_one_by_one(name, chat):
    method = METHODS[name](*tiny_semcot(chat=chat))
    together = method.answer(QUESTIONS, 12)
    assert together == [method.answer([question], 12)[0] for question in QUESTIONS]
    assert len({output.text for output in together}) > 1


def test_semcot_uses_its_thoughts_and_direct_has_none(semcot, monkeypatch):
    model, tokenizer = semcot
    before = {name: METHODS[name](model, tokenizer).answer(QUESTIONS, 8) for name in METHODS}
    model.thought_embedding.data += 5.0
    after = {name: METHODS[name](model, tokenizer).answer(QUESTIONS, 8) for name in METHODS}
    assert {name for name in METHODS if before[name] != after[name]} == {"semcot", "semcot_shuffled"}


def test_controls_replace_the_thoughts(semcot):
    model, tokenizer = semcot
    zeroed, shuffled, random = (METHODS[name](model, tokenizer) for name in WITH_THOUGHTS[1:4])
    thoughts = torch.randn(3, 4, 32) * 7
    assert torch.equal(zeroed.replace(thoughts), torch.zeros(3, 4, 32))
    assert torch.equal(shuffled.replace(thoughts), thoughts[[2, 0, 1]])
    assert torch.equal(shuffled.replace(thoughts[:1]), thoughts[2:])
    noise = random.replace(thoughts)
    assert noise.shape == thoughts.shape and noise.square().mean().sqrt() == pytest.approx(7, rel=0.15)
    for batch_size in (1, 2):
        assert torch.equal(torch.cat([random.replace(batch) for batch in thoughts.split(batch_size)]), noise)
    assert random.replace(thoughts.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_no_question_gets_its_own_thoughts_whatever_the_batches(semcot, monkeypatch, batch_size):
    method, given = METHODS["semcot_shuffled"](*semcot), []
    monkeypatch.setattr(
        method.model, "generate", lambda thoughts, input_ids, **_: given.append(thoughts) or input_ids[:, :0]
    )
    problems = [{"question": question, "answer": "1"} for question in QUESTIONS[:3]]
    evaluate_method(method, problems, batch_size=batch_size, latency_samples=0)
    prompts = method.prompts([problem["question"] for problem in problems])
    own = [method.model.think(**tokenize_prompts(method.tokenizer, [prompt])) for prompt in prompts]
    torch.testing.assert_close(torch.cat(given)[-3:], torch.cat([own[2], own[0], own[1]]), atol=1e-5, rtol=1e-5)


def test_the_base_reads_the_replaced_thoughts(semcot, monkeypatch):
    model, tokenizer = semcot
    expected = METHODS["semcot"](model, tokenizer).answer(QUESTIONS, 8)
    control = METHODS["semcot_zeroed"](model, tokenizer)
    assert control.answer(QUESTIONS, 8) != expected
    monkeypatch.setattr(control, "replace", lambda thoughts: thoughts)
    assert control.answer(QUESTIONS, 8) == expected


def test_greedy_whatever_the_base_recommends(semcot):
    model, tokenizer = semcot
    expected = METHODS["direct"](model, tokenizer).answer(QUESTIONS, 12)
    for settings in (
        {"do_sample": True, "temperature": 5.0, "top_k": 100, "repetition_penalty": 2.0, "no_repeat_ngram_size": 1},
        {"do_sample": False, "num_beams": 4},
    ):
        model.language_model.generation_config.update(**settings)
        assert METHODS["direct"](model, tokenizer).answer(QUESTIONS, 12) == expected


@pytest.mark.parametrize("name", METHODS)
def test_no_method_reads_its_prompt_again_for_every_token(semcot, name):
    """Bases that were trained further often say `use_cache: false`; the slowness would be the method's."""
    model, tokenizer = semcot
    for part in (model, model.language_model):
        part.config.use_cache = part.generation_config.use_cache = False
    lengths = []
    model.language_model.base_model.register_forward_hook(lambda *seen: lengths.append(seen[-1][0].shape[1]))
    assert METHODS[name](model, tokenizer).answer(QUESTIONS[:1], 4)[0].num_tokens == 4
    assert lengths[-3:] == [1, 1, 1]


def test_a_base_without_a_chat_format_is_stopped_at_the_next_question(monkeypatch):
    monkeypatch.setattr(methods.cot, "NEXT_QUESTION", " ")  # a random model never writes the real one
    model, tokenizer = tiny_semcot(chat=False)
    method, full = (METHODS[name](model, tokenizer) for name in ("cot", "direct"))
    full.prompts = method.prompts
    for question in QUESTIONS:
        (stopped,), (unstopped,) = method.answer([question], 60), full.answer([question], 60)
        assert " " in unstopped.text
        assert unstopped.text.startswith(stopped.text) and stopped.text.count(" ") == 1
        assert stopped.num_tokens < unstopped.num_tokens


def test_padding_after_a_stop_string_is_not_counted(monkeypatch):
    monkeypatch.setattr(methods.cot, "NEXT_QUESTION", " ")
    model, tokenizer = tiny_semcot(chat=False)
    tokenizer.pad_token = tokenizer.eos_token
    method = METHODS["cot"](model, tokenizer)
    singly = [method.answer([question], 60)[0] for question in QUESTIONS]
    assert len({output.num_tokens for output in singly}) > 1, "else no row is padded"
    assert method.answer(QUESTIONS, 60) == singly


@pytest.mark.parametrize(
    ("written", "output"),
    [
        (" 42<|im_end|><|endoftext|><|endoftext|>", Output(" 42", 4)),
        (" 42<|im_end|> 7<|im_end|>", Output(" 42", 4)),
        (" 42<|endoftext|>", Output(" 42", 3)),  # stopped by a stop string, then padded
        (" 42", Output(" 42", 3)),
    ],
)
def test_tokens_are_counted_to_the_end_of_sequence(semcot, written, output):
    assert Constant(*semcot, written).answer(["one", "another, longer"]) == [output] * 2


def test_the_end_of_sequence_may_also_be_the_padding(semcot):
    model, tokenizer = semcot
    tokenizer.pad_token = tokenizer.eos_token
    assert Constant(model, tokenizer, " 42<|im_end|><|im_end|>").answer(["one"]) == [Output(" 42", 4)]


def test_every_end_of_the_base_ends_an_answer(semcot):
    model, tokenizer = semcot
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    for ends, written in (
        (start, "<|im_start|>"),
        ([start], "<|im_start|>"),
        ([start], "<|im_end|>"),
        (None, "<|im_end|>"),
    ):
        model.generation_config.eos_token_id = ends
        assert Constant(model, tokenizer, f" 42{written} 7").answer(["one"]) == [Output(" 42", 4)]


def test_an_answer_that_comes_to_no_end_is_cut_off(semcot):
    def answer(written, limit):
        return Constant(*semcot, written).answer(["one"], limit)[0].cut_off

    assert answer(" 42", 3) and not answer(" 42", 4) and not answer(" 42<|im_end|>", 4)
    method = Constant(*semcot, " 42")
    method.stop_string = "2"
    assert not method.answer(["one"], 3)[0].cut_off


def test_answers_are_sampled_where_that_is_asked_for(semcot):
    method = METHODS["semcot"](*semcot)
    greedy = method.answer(QUESTIONS, 8)
    method.sampling = {"do_sample": True, "temperature": 3.0, "top_p": 0.9, "top_k": 50}
    torch.manual_seed(0)
    sampled = method.answer(QUESTIONS, 8)
    torch.manual_seed(0)
    assert method.answer(QUESTIONS, 8) == sampled != greedy


def test_summary_and_predictions(semcot):
    problems = [{"question": f"Question {i}", "answer": gold} for i, gold in enumerate(("42", "7", "1,042", "42.0"))]
    summary, predictions = evaluate_method(
        Constant(*semcot, " 42 or 7<|im_end|>"), problems, batch_size=3, latency_samples=2
    )
    interval = binomtest(2, 4).proportion_ci(0.95, method="wilson")
    expected = {
        "method": "constant",
        "n": 4,
        "accuracy": 0.5,
        "accuracy_ci95": [interval.low, interval.high],
        "accuracy_flexible": 0.25,
        "accuracy_lenient": 0.75,
        "unparsed_rate": 0.0,
        "cut_off_rate": 0.0,
        "batch_size": 3,
        "latency_n": 2,
        "max_new_tokens": 16,
    }
    assert {key: summary[key] for key in expected} == expected
    assert 0 < summary["latency_p50_s"] <= summary["latency_p95_s"]
    assert summary["accuracy_per_s"] == 0.5 / summary["latency_p50_s"]
    assert predictions[2].pop("seconds") > 0
    assert predictions[2] == {
        "method": "constant",
        "seed": 0,
        "question": "Question 2",
        "gold": "1,042",
        "output": " 42 or 7",
        "parsed": "42",
        "correct": False,
        "correct_flexible": False,
        "correct_lenient": False,
        "new_tokens": summary["new_tokens_mean"],
        "cut_off": False,
    }


def test_a_chain_of_thought_is_judged_by_what_it_ends_with(semcot):
    method = Constant(*semcot, " 3, then 4 more. The answer is 7<|im_end|>")
    problems = [{"question": "Three and four?", "answer": "7"}]
    direct, _ = evaluate_method(method, problems, latency_samples=0)
    method.explicit_reasoning = True
    explicit, (prediction,) = evaluate_method(method, problems, latency_samples=0)
    assert (direct["accuracy"], explicit["accuracy"]) == (0.0, 1.0)
    assert prediction["parsed"] == "7" and prediction["correct"]


def test_times_are_those_of_whole_answers(semcot, monkeypatch):
    """On a clock that goes on by one with each question that is answered."""
    clock, lengths = 0, []
    method = Constant(*semcot, " 42")

    def answer(questions, max_new_tokens=None):
        nonlocal clock
        clock += len(questions) * (3 if questions == ["Question 1"] else 1)
        lengths.append((len(questions), max_new_tokens))
        return [Output(" 42", 1)] * len(questions)

    monkeypatch.setattr(method, "answer", answer)
    monkeypatch.setattr("semcot.evaluation.measure._now", lambda device: clock)
    problems = [{"question": f"Question {i}", "answer": "42"} for i in range(5)]
    summary, _ = evaluate_method(method, problems, batch_size=2, max_new_tokens=9, latency_samples=3)
    assert summary["samples_per_s"] == 1.0
    assert summary["latency_p50_s"] == 1.0 and summary["latency_p95_s"] == pytest.approx(2.8)
    warm_up = _WARM_UP_TOKENS
    assert lengths == [(2, warm_up), (2, 9), (2, 9), (1, 9), (1, warm_up), (1, 9), (1, 9), (1, 9)]


def test_a_sweep_gives_each_batch_size_the_same_questions(semcot, monkeypatch):
    """On a clock that each batch takes a second and a tenth for each question of."""
    clock, asked = 0.0, []
    method = Constant(*semcot, " 42")

    def answer(questions, max_new_tokens=None):
        nonlocal clock
        clock += 1 + len(questions) / 10
        asked.append(questions)
        return [Output(" 42", 1)] * len(questions)

    monkeypatch.setattr(method, "answer", answer)
    monkeypatch.setattr("semcot.evaluation.measure._now", lambda device: clock)
    sweep = measure_throughput(method, ["one", "two", "three"], [1, 4])
    assert [row["batch_size"] for row in sweep] == [1, 4]
    assert [row["samples_per_s"] for row in sweep] == pytest.approx([4 / 4.4, 4 / 1.4])
    four = ["one", "two", "three", "one"]
    assert asked == [four[:1], *([question] for question in four), four, four]
    assert measure_throughput(method, ["one"], []) == []


def test_each_figure_stands_in_its_column():
    figures = {
        "method": "semcot",
        "seed": 10,
        "n": 11,
        "accuracy": 0.12,
        "accuracy_ci95": [0.13, 0.14],
        "accuracy_flexible": 0.145,
        "accuracy_lenient": 0.15,
        "unparsed_rate": 0.16,
        "cut_off_rate": 0.165,
        "new_tokens_mean": 17.0,
        "mcnemar": {"against": "direct", "first_alone": 3, "second_alone": 4, "p": 0.175},
        "latency_p50_s": 0.018,
        "latency_p95_s": 0.019,
        "accuracy_per_s": 19.5,
        "samples_per_s": 20.0,
        "speedup_vs_cot": 21.0,
        "peak_memory_mb": 22.0,
    }

    def read(table):
        header, _, row = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
        return dict(zip(header, row, strict=True))

    assert read(format_table([figures])) == {
        "method": "semcot",
        "seed": "10",
        "n": "11",
        "strict": "12.0% [13.0%, 14.0%]",
        "flexible": "14.5%",
        "lenient": "15.0%",
        "unparsed": "16.0%",
        "cut off": "16.5%",
        "new tokens": "17.0",
        "McNemar": "3 : 4, p 0.17",
    }
    assert read(format_table([figures], SPEED)) == {
        "method": "semcot",
        "p50 s": "0.018",
        "p95 s": "0.019",
        "speed-up": "21.0×",
        "right/s": "19.50",
        "samples/s": "20.00",
        "memory MiB": "22",
    }


def test_an_answer_that_cannot_be_judged_is_refused_before_anything_is_run(semcot):
    with pytest.raises(ValueError, match="'left'"):
        evaluate_method(Constant(*semcot, " 42"), [{"question": "Where?", "answer": "left"}])


def compared(*latencies):
    """`with_comparisons` of rows with these methods and latencies."""
    rows = [{"method": method, "seed": 0, "latency_p50_s": seconds} for method, seconds in latencies]
    return [row["speedup_vs_cot"] for row in with_comparisons(rows, [], "semcot")]


def test_speedups():
    assert compared(("cot", 3.0)) == [1.0]
    assert compared(("semcot", 0.5), ("cot", 3.0)) == [6.0, 1.0]
    assert compared(("semcot", 0.5)) == [None]
    assert compared(("semcot", None), ("cot", None)) == [None, None]
    assert compared(("semcot_zeroed", None), ("cot", 3.0)) == [None, 1.0]


def test_methods_are_compared_on_the_same_questions_of_a_seed():
    rows = [{"method": m, "seed": seed, "latency_p50_s": None} for m in ("semcot", "direct") for seed in (0, 1)]
    outcomes = {("semcot", 0): "1100", ("direct", 0): "0010", ("semcot", 1): "11", ("direct", 1): "1"}
    predictions = [
        {"method": method, "seed": seed, "correct": outcome == "1"}
        for (method, seed), row in outcomes.items()
        for outcome in row
    ]
    tests = [row["mcnemar"] for row in with_comparisons(rows, predictions, "semcot")]
    # Three questions that one of them has right: 1 : 2 or less even half the time.
    assert tests == [None, None, {"against": "semcot", "first_alone": 1, "second_alone": 2, "p": 1.0}, None]


def test_a_report_without_latencies(semcot, tmp_path, monkeypatch):
    replace, named = os.replace, []
    monkeypatch.setattr(os, "replace", lambda source, target: named.append(target.name) or replace(source, target))
    problems = [{"question": "How many?", "answer": "42"}]
    summary, predictions = evaluate_method(Constant(*semcot, " 42"), problems, latency_samples=0)
    meta = {"model": "m", **describe_machine(semcot[0])}
    rows = with_comparisons([{**summary, "dataset": "d", "seed": 0}], predictions, "semcot")
    record = {"run": {"command": "python eval_semcot.py"}, "eval": rows, "meta": meta}
    write_report(tmp_path, record)
    assert json.loads((tmp_path / "results.json").read_text()) == record
    assert sorted(named) == ["report.md", "results.json"], "each when it is whole"
    assert "| –     | –     |" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(("cpu_threads", "said"), [(1, "1 CPU thread"), (2, "2 CPU threads")])
def test_the_report_says_what_was_measured_and_where(semcot, tmp_path, cpu_threads, said):
    problems = [{"question": "How many?", "answer": "42"}] * 3
    summary, predictions = evaluate_method(Constant(*semcot, " 42"), problems, batch_size=2, latency_samples=1)
    where = {
        "device": "Abacus",
        "dtype": "bfloat16",
        "cpu_threads": cpu_threads,
        "versions": {"python": "3", "torch": "2"},
    }
    rows = with_comparisons([{**summary, "dataset": "d", "seed": 7}], predictions, "semcot")
    write_report(tmp_path, {"run": {"command": "c"}, "eval": rows, "meta": {"model": "m", **where}})
    report = (tmp_path / "report.md").read_text()
    assert (
        f"Model `m`, 3 problems, seed 7, greedy, batch size 2, Abacus ({said}), bfloat16; python 3, torch 2.\n"
        in report
    )
    assert "at batch size 1, of 1 questions" in report


def test_load_model_says_what_is_wrong(semcot, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_model(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="no checkpoint folder '../nowhere'"):
        load_model("../nowhere")
    with pytest.raises(OSError, match="There is no checkpoint folder 'runs/mine', nor was one found on the Hub"):
        load_model("runs/mine")
    with pytest.raises(ValueError, match="holds no checkpoint: there is no config.json"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(OSError, match="^(?!There is no checkpoint).*config.json"):
        load_model(str(tmp_path))
    semcot[0].language_model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="llama model, not a SemCoT checkpoint"):
        load_model(str(tmp_path), base_model="another")
    for dtype in ("fp16", "int16", "float8_e4m3fn"):
        with pytest.raises(ValueError, match=f"dtype '{dtype}' is none of PyTorch's"):
            load_model(str(tmp_path), dtype=dtype)
    with pytest.raises(ValueError, match="device is gpu, which PyTorch cannot use here: Expected one of cpu, cuda"):
        load_model(str(tmp_path), device="gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device is cuda:1, but PyTorch sees no GPU"):
        load_model(str(tmp_path), device="cuda:1")


@pytest.mark.parametrize("name", ["semcot", "direct", "cot"])
def test_questions_that_cannot_be_asked_are_named(semcot, name):
    method = METHODS[name](*semcot)
    check_questions(method, QUESTIONS, 16, "own.jsonl")
    with pytest.raises(ValueError, match="own.jsonl, problem 3: the question holds <thought>"):
        check_questions(method, [*QUESTIONS[:2], "What is <thought>?"], 16, "own.jsonl")
    with pytest.raises(ValueError, match=rf"problem 2: its prompt for {name} has \d+ tokens, .* the base reads 512"):
        check_questions(method, [QUESTIONS[0], "long " * 400], 16, "own.jsonl")
    with pytest.raises(ValueError, match="problem 1: .* its answer up to 500"):
        check_questions(method, QUESTIONS, 500, "own.jsonl")


@pytest.mark.parametrize(
    ("name", "limit", "reader"),
    [("semcot", 64, "generator"), ("semcot_zeroed", 64, "generator"), ("direct", 80, "base"), ("cot", 80, "base")],
)
def test_a_question_may_be_as_long_as_its_readers_take(semcot, name, limit, reader):
    """The generator reads 64 tokens; the base 96, of which 16 are the answer's."""
    method = METHODS[name](*semcot)
    semcot[0].config.generator_config.max_position_embeddings = 64
    semcot[0].language_model.config.max_position_embeddings = 96
    around = len(method.tokenizer(method.prompts([""]), add_special_tokens=False).input_ids[0])
    longest = "a" * (limit - around)
    check_questions(method, [longest], 16, "own.jsonl")
    with pytest.raises(ValueError, match=f"problem 2: its prompt for {name} has {limit + 1} tokens, .*{reader} reads"):
        check_questions(method, [longest, longest + "a"], 16, "own.jsonl")


def test_a_base_without_a_limit_is_asked_anything():
    model, tokenizer = tiny_semcot("mpt")
    del model.language_model.config.max_position_embeddings, model.config.generator_config.max_position_embeddings
    for method in METHODS.values():
        check_questions(method(model, tokenizer), ["long " * 400], 500, "own.jsonl")


def test_load_model(adapter):
    base = adapter.parent / "elsewhere"
    (adapter.parent / "models" / "tiny-llama").rename(base)
    model, tokenizer = load_model(str(adapter), dtype="bfloat16", base_model=base)
    assert model.language_model.dtype == torch.bfloat16 and not model.training
    assert tokenizer.convert_tokens_to_ids("<thought>") == model.config.thought_token_id
    model.language_model.save_pretrained(base)
    model, _ = load_model(str(adapter), dtype="auto", base_model=base)
    assert (model.generator.dtype, describe_machine(model)["dtype"]) == (torch.float32, "bfloat16"), (
        "as they are stored"
    )


def test_an_output_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Give another --output_dir"):
        prepare_output_dir(tmp_path / "file" / "results")
    for _ in range(2):
        assert not list(prepare_output_dir(tmp_path / "new" / "results").iterdir())

    def refuse(dir):
        raise PermissionError(f"not in {dir}")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(OSError, match="not in .*results. Give another --output_dir"):
        prepare_output_dir(tmp_path / "new" / "results")


def run_command(folder, *arguments):
    """The output of eval_semcot.py, called in a folder."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["eval_semcot.py", *map(str, arguments)])
        eval_semcot.main()
    return printed.getvalue()


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A folder in which eval_semcot.py was run on a tiny checkpoint; the run's output is in `printed`."""
    folder = tmp_path_factory.mktemp("evaluated")
    model, tokenizer = tiny_semcot(base_model_name_or_path="someone/tiny-llama", checkpoint_kind="full")
    assert isinstance(model, SemCoTForCausalLM)
    model.save_pretrained(folder / "checkpoint")
    tokenizer.save_pretrained(folder / "checkpoint")
    options = "--model checkpoint --data synthetic_arithmetic --limit 5 --seed 3 --output_dir out --batch_size 2"
    options += " --methods semcot direct cot --cot_max_new_tokens 24 --latency_samples 2 --device cpu"
    (folder / "printed").write_text(run_command(folder, *options.split()))
    return folder


def read_results(folder):
    record = json.loads((folder / "out" / "results.json").read_text())
    predictions = [json.loads(line) for line in (folder / "out" / "predictions.jsonl").read_text().splitlines()]
    assert all(row.pop("seconds") > 0 for row in predictions)
    return record, predictions


def test_command_writes_all_results(evaluated):
    record, predictions = read_results(evaluated)
    assert sorted(path.name for path in (evaluated / "out").iterdir()) == [
        "plots",
        "predictions.jsonl",
        "report.html",
        "report.md",
        "results.json",
    ]
    results, meta = record["eval"], record["meta"]
    assert [result["method"] for result in results] == ["semcot", "direct", "cot"]
    for result in results:
        assert result.keys() == RESULT_KEYS
        known = {
            "dataset": "synthetic_arithmetic",
            "split": "eval",
            "seed": 3,
            "n": 5,
            "batch_size": 2,
            "max_new_tokens": 24 if result["method"] == "cot" else 16,
        }
        assert {key: result[key] for key in known} == known
        assert result["samples_per_s"] > 0 and result["peak_memory_mb"] > 0
    weights = (evaluated / "checkpoint" / "model.safetensors").read_bytes()
    assert (meta["model"], meta["model_sha256"]) == ("checkpoint", hashlib.sha256(weights).hexdigest())
    assert (meta["device"], meta["dtype"]) == (device_name(torch.device("cpu")), "float32")
    assert {"python", "torch", "transformers"} <= meta["versions"].keys()
    cot = results[2]
    assert [result["speedup_vs_cot"] for result in results] == [
        cot["latency_p50_s"] / result["latency_p50_s"] for result in results
    ]
    problems = load_problems("synthetic_arithmetic", "eval", num_samples=5, seed=3)
    asked = [(problem["question"], problem["answer"]) for problem in problems]
    assert [(row["question"], row["gold"]) for row in predictions] == asked * 3


def test_figures_agree_with_the_predictions(evaluated):
    record, predictions = read_results(evaluated)
    metrics = [
        hf_evaluate.load(str(METRICS / f"{kind}_accuracy"), keep_in_memory=True)
        for kind in ("strict", "flexible", "lenient")
    ]
    for result in record["eval"]:
        rows = [row for row in predictions if row["method"] == result["method"]]
        assert len(rows) == result["n"]
        assert result["accuracy"] == sum(row["correct"] for row in rows) / len(rows)
        assert result["unparsed_rate"] == sum(row["parsed"] is None for row in rows) / len(rows)
        assert result["new_tokens_mean"] == sum(row["new_tokens"] for row in rows) / len(rows)
        assert all(1 <= row["new_tokens"] <= result["max_new_tokens"] for row in rows)
        texts, golds = ([row[key] for row in rows] for key in ("output", "gold"))
        options = {"explicit_reasoning": True} if result["method"] == "cot" else {}
        for metric in metrics:
            found = metric.compute(predictions=texts, references=golds, **(options if metric is metrics[0] else {}))
            assert {key: result[key] for key in found} == found


def test_report_and_printed_table_show_the_results(evaluated):
    record = read_results(evaluated)[0]
    results = record["eval"]
    table = format_tables(record)
    report = (evaluated / "out" / "report.md").read_text()
    assert all(part in report for part in table.split("\n\n"))
    assert ", 5 problems, seed 3, greedy, batch size 2, " in report
    assert table in (evaluated / "printed").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    for row, result in zip(rows[:3], results, strict=True):
        assert row[:2] == [result["method"], "5"]
        assert row[2].split()[0] == f"{100 * result['accuracy']:.1f}%"
    for row, result in zip(rows[-3:], results, strict=True):
        assert row[:2] == [result["method"], f"{result['latency_p50_s']:.3f}"]


def test_command_is_repeatable(evaluated, tmp_path):
    """The same answers, with other batches and only one method."""
    options = "--data synthetic_arithmetic --limit 5 --seed 3 --batch_size 4 --methods semcot --latency_samples 0"
    run_command(tmp_path, "--model", evaluated / "checkpoint", "--output_dir", "out", *options.split())
    _, before = read_results(evaluated)
    record, predictions = read_results(tmp_path)
    assert predictions == before[:5]
    assert record["eval"][0]["speedup_vs_cot"] is None and record["eval"][0]["latency_p50_s"] is None


@pytest.mark.slow
def test_command_in_a_process_of_its_own(evaluated, tmp_path):
    options = ["--data", "synthetic_arithmetic", "--limit", "5", "--seed", "3", "--methods", "semcot"]
    command = [sys.executable, ROOT / "eval_semcot.py", "--model", evaluated / "checkpoint", "--output_dir", "out"]
    subprocess.run([*command, *options], cwd=tmp_path, check=True, capture_output=True)
    assert read_results(tmp_path)[1] == read_results(evaluated)[1][:5]


def test_a_run_that_is_cut_short_leaves_what_it_found(evaluated, tmp_path, monkeypatch):
    def killed(method, *arguments, **options):
        if method.name == "direct":
            raise RuntimeError("killed")
        return evaluate_method(method, *arguments, **options)

    monkeypatch.setattr("semcot.evaluation.evaluate.evaluate_method", killed)
    monkeypatch.setenv("SEMCOT_BASE_MODEL", "not heeded")
    options = f"--model {evaluated}/checkpoint --output_dir {tmp_path}/out --data synthetic_arithmetic --limit 2"
    monkeypatch.setattr(sys, "argv", f"eval_semcot.py {options} --methods semcot direct --latency_samples 0".split())
    with pytest.raises(RuntimeError, match="killed"):
        eval_semcot.main()
    assert [result["method"] for result in read_results(tmp_path)[0]["eval"]] == ["semcot"]
    assert "SEMCOT_BASE_MODEL" not in (tmp_path / "out" / "report.md").read_text(), "a full checkpoint has its base"
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--methods", "direct", "cot", "--cot_max_new_tokens", "600"])
    with pytest.raises(ValueError, match="synthetic_arithmetic, problem 1: its prompt for cot"):
        eval_semcot.main()


def test_each_option_is_heeded(adapter, tmp_path, monkeypatch):
    base = (adapter.parent / "models" / "tiny-llama").rename(tmp_path / "elsewhere")
    (tmp_path / "svamp").mkdir()
    load_problems("synthetic_arithmetic", num_samples=4).to_json(tmp_path / "svamp" / "train.json", lines=False)
    monkeypatch.setenv("SEMCOT_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SEMCOT_BASE_MODEL", "not heeded")
    options = f"--model {adapter} --data svamp --output_dir {tmp_path}/out --methods direct direct --split train"
    options += f" --limit 3 --batch_size 2 --max_new_tokens 3 --latency_samples 1 --dtype bfloat16 --base_model {base}"
    monkeypatch.setattr(sys, "argv", f"eval_semcot.py {options}".split())
    torch.backends.cuda.enable_cudnn_sdp(True)
    eval_semcot.main()
    peak = peak_memory(torch.device("cpu")) / 2**20
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    record, predictions = read_results(tmp_path)
    (result,), meta = record["eval"], record["meta"]
    problems = load_problems("svamp", num_samples=3)
    assert [row["question"] for row in predictions] == problems["question"][:]
    known = {
        "split": "train",
        "data_sha256": fingerprint(problems),
        "max_new_tokens": 3,
        "latency_n": 1,
        "batch_size": 2,
    }
    assert {key: result[key] for key in known} == known
    assert (meta["dtype"], meta["cpu_threads"]) == ("bfloat16", torch.get_num_threads())
    assert result["peak_memory_mb"] == pytest.approx(peak, rel=0.04)  # MB would be 4.9 % more
    assert 100 < result["peak_memory_mb"] < 100_000
    command = f"\n\n```\nSEMCOT_DATA_DIR={tmp_path} python eval_semcot.py {options}\n```\n\n"
    assert command in (tmp_path / "out" / "report.md").read_text()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--device", "cuda"])
    with pytest.raises(ValueError, match="device is cuda"):
        eval_semcot.main()


def test_the_report_says_how_to_get_it_again(adapter, tmp_path, monkeypatch):
    """From any folder, with what the run read from the environment."""
    base = (adapter.parent / "models" / "tiny-llama").rename(tmp_path / "my base")
    data = tmp_path / "my data" / "svamp"
    data.mkdir(parents=True)
    load_problems("synthetic_arithmetic", num_samples=20).to_json(data / "train.json", lines=False)
    monkeypatch.setenv("SEMCOT_BASE_MODEL", str(base))
    monkeypatch.setenv("SEMCOT_DATA_DIR", str(data.parent))
    options = "--methods direct --split train --limit 1 --latency_samples 0"
    problems = f"--model {adapter} --data augmented:svamp"
    arguments = [*options.split(), "--output_dir", str(tmp_path / "first try"), "--batch_size", "16", *problems.split()]
    monkeypatch.setattr(sys, "argv", ["/anywhere/eval_semcot.py", *arguments])
    eval_semcot.main()
    environment = f"SEMCOT_BASE_MODEL='{base}' SEMCOT_DATA_DIR='{data.parent}'"
    command = f"{environment} python eval_semcot.py {problems} --output_dir '{tmp_path}/first try' {options}"
    assert f"\n\n```\n{command}\n```\n\n" in (tmp_path / "first try" / "report.md").read_text()


def test_an_answer_that_cannot_be_judged_is_named_before_the_model_is_loaded(tmp_path, monkeypatch):
    (tmp_path / "own.jsonl").write_text('{"question": "Where?", "answer": "left"}\n')
    options = f"eval_semcot.py --model nowhere --data {tmp_path}/own.jsonl --output_dir {tmp_path}/out"
    monkeypatch.setattr(sys, "argv", options.split())
    with pytest.raises(ValueError, match="own.jsonl, line 1: .*'left'"):
        eval_semcot.main()


def test_what_is_compared_by_default():
    options = eval_semcot.EvalOptions(model="m", data="d", output_dir="o")
    assert options.methods == ["semcot", "direct", "cot", "semcot_zeroed", "semcot_shuffled", "semcot_random"]
    assert options.cot_max_new_tokens == 256


def test_controls_are_not_timed_and_what_thoughts_mean_stands_beside_them(evaluated, tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps(load_problems("synthetic_arithmetic", "eval", num_samples=1)[0]))
    options = "--data synthetic_arithmetic --limit 3 --batch_size 2 --latency_samples 1 --batch_sizes 1 2"
    options += f" --cot_max_new_tokens 8 --train_data {tmp_path}/train.jsonl --output_dir out"
    run_command(tmp_path, "--model", evaluated / "checkpoint", *options.split())
    record, _ = read_results(tmp_path)
    timed = {row["method"] for row in record["eval"] if row["latency_p50_s"]}
    assert timed == {row["method"] for row in record["eval"] if row["batch_sweep"]} == {"semcot", "direct", "cot"}
    assert {row["part"]: row["n"] for row in record["overlap"]["parts"]}["verbatim"] == 1
    assert record["reading"]["all"]["n"] == record["alignment"][0]["pool"] == 3
    report = (tmp_path / "out" / "report.md").read_text()
    assert all(f"\n## {heading}\n" in report for heading in ("Batch sizes", "Overlap", "Reading", "Alignment"))


@pytest.mark.parametrize("name", ["batch_size", "max_new_tokens", "cot_max_new_tokens"])
def test_nothing_is_asked_for_that_cannot_be(name):
    with pytest.raises(ValueError, match=f"^{name} must be at least 1, got 0"):
        eval_semcot.EvalOptions(model="m", data="d", output_dir="o", **{name: 0})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--latency_samples", "-1"), "latency_samples must be at least 0"),
        (("--limit", "0"), "limit must be at least 1, got 0"),
        (("--update_card", "True", "--methods", "direct"), "update_card writes the figure of semcot, which is none"),
        (("--methods", "semcot", "guess"), "There is no method 'guess'; there are semcot, direct, cot"),
        (("--model", "nowhere"), "There is no checkpoint folder 'nowhere'"),
        (("--data", "nothing"), "no known data set"),
        (("--train_data", "nothing"), "'nothing' is no known data set"),
    ],
)
def test_wrong_use_says_so(arguments, message, tmp_path, capsys):
    valid = ["--model", "m", "--data", "synthetic_coin_flip", "--output_dir", "out"]
    with pytest.raises((ValueError, FileNotFoundError, SystemExit)) as raised:
        run_command(tmp_path, *valid, *arguments)
    assert message in f"{raised.value} {capsys.readouterr().err}"
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", METHODS)
def test_on_cuda(name, adapter):
    model, tokenizer = load_model(str(adapter))
    assert model.device.type == "cuda" and model.language_model.dtype == torch.bfloat16
    problems = load_problems("synthetic_coin_flip", "eval", num_samples=4)
    summary, _ = evaluate_method(METHODS[name](model, tokenizer), problems, max_new_tokens=8, latency_samples=2)
    assert summary["n"] == 4 and 0 < summary["peak_memory_mb"] < 4096


def test_the_device_is_named_as_the_system_names_it(tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "CPU_INFO", file)
    cpu = torch.device("cpu")
    assert device_name(cpu) == (platform.processor() or "cpu")
    file.write_text("processor\t: 0\nmodel name\t: Abacus: 9000\n\nprocessor\t: 1\nmodel name\t: Abacus: 9000\n")
    assert device_name(cpu) == "Abacus: 9000"
    assert device_name(torch.device("meta")) == "meta"
