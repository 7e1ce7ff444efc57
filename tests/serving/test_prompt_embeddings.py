"""Prompts for an engine that serves the base alone: it writes what the whole model would."""

import base64
import io
import json
import runpy
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import FAMILIES, ROOT, TEXTS, tiny_semcot

from semcot.evaluation import load_model
from semcot.evaluation.methods import SemCoT
from semcot.serving import encode_embeds, prompt_embeds

QUESTIONS = [*TEXTS, "How many?"]


def continued(base, embeds: torch.Tensor, **options) -> list[int]:
    """An engine's continuation of one prompt."""
    return base.generate(inputs_embeds=embeds[None], max_new_tokens=16, do_sample=False, **options)[0].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_base_alone_goes_on_as_the_whole_model_does(family):
    model, tokenizer = tiny_semcot(family)
    prompts = prompt_embeds(model, tokenizer, QUESTIONS)
    answers = []
    for question, embeds in zip(QUESTIONS, prompts, strict=True):
        batch = tokenizer([question], return_tensors="pt")
        assert embeds.shape == (batch.input_ids.shape[1], 32) and not embeds.requires_grad
        expected = model.generate(**batch, max_new_tokens=16, do_sample=False, eos_token_id=-1)
        answers.append(continued(model.language_model, embeds, eos_token_id=-1))
        assert answers[-1] == expected[0, batch.input_ids.shape[1] :].tolist()
        torch.testing.assert_close(prompt_embeds(model, tokenizer, [question])[0], embeds, atol=1e-5, rtol=1e-5)
    assert len({tuple(answer) for answer in answers}) == len(QUESTIONS)


def test_embeddings_arrive_as_they_were():
    embeds = torch.randn(7, 32).bfloat16()
    sent = io.BytesIO(base64.b64decode(encode_embeds(embeds), validate=True))
    assert torch.equal(torch.load(sent, weights_only=True), embeds)


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_the_offline_example_compares_the_engine_with_the_whole_model(kind, adapter, tmp_path, monkeypatch):
    model, tokenizer = load_model(str(adapter), "cpu")
    if kind == "full":
        model.save_pretrained(adapter, checkpoint_kind="full")
    served = "someone/tiny-llama" if kind == "full" else str(tmp_path / "models" / "tiny-llama")
    method = SemCoT(model, tokenizer)

    class Engine:
        """
        As much of vLLM's as the example asks for, with transformers behind it; the last answer is another. It needs a
        second for a batch, and a hundred for its first.
        """

        def __init__(self, base, dtype, enable_prompt_embeds, enforce_eager):
            assert (base, dtype, enable_prompt_embeds, enforce_eager) == (served, "float32", True, True)
            self.seconds = 100

        def generate(self, prompts, sampling, use_tqdm):
            nonlocal clock
            clock, self.seconds = clock + self.seconds, 1
            assert sampling == {"temperature": 0, "max_tokens": 16, "stop_token_ids": method.end_ids}
            ids = [continued(model.language_model, p["prompt_embeds"], eos_token_id=method.end_ids) for p in prompts]
            texts = [*tokenizer.batch_decode(ids[:-1], skip_special_tokens=True), "?"]
            return [SimpleNamespace(outputs=[SimpleNamespace(text=text)]) for text in texts]

    def answer(method, questions):
        """Of transformers: a second for each question, and fifty for the first batch."""
        nonlocal clock
        clock += len(questions) if clock > 150 else 50
        return plain_answer(method, questions)

    clock, plain_answer = 0, SemCoT.answer
    monkeypatch.setattr(SemCoT, "answer", answer)
    monkeypatch.setattr("time.perf_counter", lambda: clock)
    vllm = SimpleNamespace(LLM=Engine, SamplingParams=dict, __name__="vllm", __version__="0")
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    (tmp_path / "own.jsonl").write_text("".join(json.dumps({"question": q}) + "\n" for q in QUESTIONS))
    options = f"--model {adapter} --questions {tmp_path}/own.jsonl --limit 3 --compare --batch_size 2 --dtype float32"
    output = tmp_path / "the figures.json"
    monkeypatch.setattr(sys, "argv", ["vllm_offline.py", *options.split(), "--output", str(output)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    runpy.run_path(str(ROOT / "examples/vllm_offline.py"), run_name="__main__")
    figures = json.loads(output.read_text())
    assert (figures["n"], figures["batch_size"], figures["same_answers"]) == (3, 2, 2)
    assert (figures["vllm_questions_per_s"], figures["transformers_questions_per_s"]) == (3.0, 1.0)
    assert f"--output '{tmp_path}/the figures.json'" in figures["command"]
    model.config.base_model_name_or_path = None
    model.save_pretrained(adapter, checkpoint_kind="full")
    with pytest.raises(SystemExit, match="does not name its base"):
        runpy.run_path(str(ROOT / "examples/vllm_offline.py"), run_name="__main__")
