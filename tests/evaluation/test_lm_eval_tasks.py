"""The tasks for the language model evaluation harness: as eval_semcot.py judges, and nothing but the checkpoint."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, TEXTS, tiny_base_tokenizer, tiny_language_model
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

import semcot.lm_eval_tasks.model  # noqa: F401  registers it
from modeling_semcot import SemCoTForCausalLM
from semcot.answers import parse_answer
from semcot.data import load_problems
from semcot.evaluation import METHODS, evaluate_method, load_model
from semcot.tokenization import build_tokenizer, render_prompt

TASKS = ROOT / "semcot" / "lm_eval_tasks"
WRITTEN = ("multiarith", "svamp", "gsm8k", "coin_flip", "commonsense_qa")
WORDS = {"number": "0123456789", "word": ["yes", "no"], "letter": "ABCDE"}
KINDS = {"coin_flip": "word", "commonsense_qa": "letter"}
HF = {"trust_remote_code": True, "dtype": "float32"}


def speaker(kind: str):
    """A tiny checkpoint, with its tokenizer, that writes numbers, yes and no, or letters, depending on the thoughts."""
    base_tokenizer = tiny_base_tokenizer()
    base_tokenizer.add_tokens([f" {word}" for word in WORDS["word"] + [*WORDS["letter"]]])
    base = tiny_language_model(vocab_size=len(base_tokenizer), seed=2, hidden_size=64, initializer_range=0.3)
    written = base_tokenizer([w if kind == "number" else f" {w}" for w in WORDS[kind]], add_special_tokens=False)
    others = torch.ones(base.config.vocab_size, dtype=bool)
    others[[ids[0] for ids in written.input_ids]] = False
    base.lm_head.weight.data[others] = 0
    tokenizer, prompt_template = build_tokenizer(base_tokenizer, 3)
    model = SemCoTForCausalLM.from_components(
        base, 2, num_thoughts=3, tokenizer=tokenizer, prompt_template=prompt_template
    )
    torch.nn.init.normal_(model.projection.weight)  # louder than the question
    return model, tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkpoint for each kind of answer, and eight problems of each data set, some of them answered rightly."""
    folder = tmp_path_factory.mktemp("harness")
    for kind in WORDS:
        model, tokenizer = speaker(kind)
        model.save_pretrained(folder / kind)
        tokenizer.save_pretrained(folder / kind)
        for name in (name for name in WRITTEN if KINDS.get(name, "number") == kind):
            questions = [f"{i} and {i * 7 % 5}: {TEXTS[i % 2]}" for i in range(8)]
            outputs = METHODS["semcot"](model, tokenizer).answer(questions)
            said = [parse_answer(output.text, kind) for output in outputs]
            assert len({*said} - {None}) > 1
            others = {"number": ["1.5"], "word": ["yes", "no"], "letter": ["A", "B"]}[kind]
            golds = [s if s and i % 2 else next(o for o in others if o != s) for i, s in enumerate(said)]
            problems = [{"question": q, "answer": a} for q, a in zip(questions, golds, strict=True)]
            (folder / "data" / name).mkdir(parents=True)
            (folder / "data" / name / "eval.json").write_text(json.dumps(problems))
    return folder


@pytest.fixture
def harness(made, monkeypatch):
    """What the harness finds, its metrics and the outputs, of a task for one of the checkpoints."""
    monkeypatch.setenv("SEMCOT_DATA_DIR", str(made / "data"))

    def harness(task: str, kind: str, model: str = "hf", apply_chat_template: bool = False, **options):
        options = {"pretrained": str(made / kind)} | HF | options
        manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=options)
        found = simple_evaluate(
            model=model,
            model_args=options,
            tasks=[task],
            task_manager=manager,
            apply_chat_template=apply_chat_template,
            batch_size=3,
            device="cpu",
        )
        rows = sorted(found["samples"][task], key=lambda row: row["doc_id"])
        return found["results"][task], [row["filtered_resps"] for row in rows]

    return harness


WAYS = [
    ("hf", {}),
    ("hf", {"apply_chat_template": True, "add_bos_token": False}),
    ("semcot", {}),
    ("semcot", {"apply_chat_template": True}),
]


@pytest.mark.parametrize("model, options", WAYS)
@pytest.mark.parametrize("name", WRITTEN)
def test_written_answers_are_those_of_the_evaluation(harness, made, name, model, options):
    kind = KINDS.get(name, "number")
    figures, outputs = harness(f"semcot_{name}", kind, model, **options)
    method = METHODS["semcot"](*load_model(str(made / kind), dtype="float32"))
    expected, predictions = evaluate_method(method, load_problems(name, "eval"), batch_size=3, latency_samples=0)
    assert [output for (output,) in outputs] == [prediction["output"] for prediction in predictions]
    assert 0 < figures["strict_accuracy,none"] == expected["accuracy"] < 1
    assert figures["lenient_accuracy,none"] == expected["accuracy_lenient"]
    assert figures["unparsed_rate,none"] == expected["unparsed_rate"]


def test_one_name_stands_for_all(made, monkeypatch):
    monkeypatch.setenv("SEMCOT_DATA_DIR", str(made / "data"))
    metadata = {"pretrained": str(made / "number")}
    found = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata).load(["semcot"])["tasks"]
    assert {*found} == {f"semcot_{name}" for name in (*WRITTEN, "commonsense_qa_choices")}


@pytest.mark.parametrize("model, options", WAYS[1:])
def test_the_likeliest_letter_behind_the_cue_is_judged(harness, made, model, options):
    figures, scores = harness("semcot_commonsense_qa_choices", "letter", model, **options)
    checkpoint, tokenizer = load_model(str(made / "letter"), dtype="float32")
    ids = [ids[0] for ids in tokenizer([f" {letter}" for letter in "ABCDE"], add_special_tokens=False).input_ids]
    right = []
    for problem, found in zip(load_problems("commonsense_qa", "eval"), scores, strict=True):
        prompt = tokenizer(render_prompt(tokenizer, problem["question"]), add_special_tokens=False, return_tensors="pt")
        with torch.no_grad():
            expected = checkpoint(**prompt).logits[0, -1].log_softmax(-1)[ids]
        torch.testing.assert_close(torch.tensor([score for score, _ in found]), expected, rtol=0, atol=1e-4)
        right.append("ABCDE"[expected.argmax()] == problem["answer"])
    assert 0 < figures["strict_accuracy,none"] == sum(right) / len(right) < 1


def test_the_cue_is_not_scored_for_the_letters(harness):
    with pytest.raises(ValueError, match="All letters have the same log-likelihood: without --apply_chat_template"):
        harness("semcot_commonsense_qa_choices", "letter")


@pytest.mark.parametrize("name", ["multiarith", "commonsense_qa_choices"])
@pytest.mark.parametrize("options, count", [({"apply_chat_template": True}, 6), ({"add_bos_token": False}, 0)])
def test_no_prompt_has_its_thoughts_twice_or_not_at_all(harness, name, options, count):
    """The hf of the harness adds special tokens, unless told not to or a text begins with the first of them."""
    with pytest.raises(ValueError, match=rf"holds {count} <thought> placeholders|fewer than 3 <thought> placeholders"):
        harness(f"semcot_{name}", "letter" if "qa" in name else "number", **options)


@pytest.mark.parametrize("model", ["hf", "semcot"])
def test_a_base_alone_is_not_judged(harness, made, model, tmp_path):
    tiny_language_model().save_pretrained(tmp_path)
    tiny_base_tokenizer().save_pretrained(tmp_path)
    for name in ("multiarith", "commonsense_qa_choices"):
        with pytest.raises(ValueError, match="is a llama model, not a SemCoT checkpoint"):
            harness(f"semcot_{name}", "number", model, pretrained=str(tmp_path))


def test_a_base_in_a_folder_of_a_checkpoint_is_not_judged(harness, made, tmp_path):
    shutil.copytree(made / "number", tmp_path / "checkpoint")
    tiny_language_model().save_pretrained(tmp_path / "checkpoint" / "base")
    tiny_base_tokenizer().save_pretrained(tmp_path / "checkpoint" / "base")
    with pytest.raises(ValueError, match="is a llama model, not a SemCoT checkpoint"):
        harness("semcot_multiarith", "number", pretrained=str(tmp_path / "checkpoint"), subfolder="base")


def test_a_model_of_which_nothing_is_known_is_not_judged(made):
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    with pytest.raises(ValueError, match="it cannot be told whether this is one: give --model hf or semcot"):
        manager.load(["semcot_gsm8k"])


@pytest.mark.slow
@pytest.mark.parametrize("module", ["lm_eval", "semcot.lm_eval_tasks"])
def test_the_command(made, module, tmp_path):
    command = [sys.executable, "-m", module, "--model_args", f"pretrained={made / 'number'},trust_remote_code=True"]
    command += ["--tasks", "semcot_multiarith", "--limit", "4", "--device", "cpu", "--output_path", str(tmp_path)]
    command += ["--model", "hf", "--include_path", str(TASKS)] if module == "lm_eval" else ["--model", "semcot"]
    variables = {"SEMCOT_DATA_DIR": str(made / "data")}
    subprocess.run(command, cwd=ROOT, env=os.environ | variables, check=True)
    (file,) = tmp_path.rglob("results*.json")
    found = json.loads(file.read_text())
    assert 0 < found["results"]["semcot_multiarith"]["strict_accuracy,none"] < 1
    assert found["n-samples"]["semcot_multiarith"]["effective"] == 4
