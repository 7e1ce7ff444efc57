"""
Whether a running server answers as `generate` does, and outlives requests that it cannot answer.

    python -m semcot.serving.vllm --model . --port 8000
    python -m benchmarks.served_answers --model . --data multiarith --base_url http://localhost:8000/v1

Each question is asked by the `openai` library for a chat, a streamed chat and a completion, many at a time, and its
greedy answer compared with the one that `generate` gives to that question alone. Then come requests that are wrong in
one way each, of which none may be answered, and the first question once more.
"""

import argparse
import asyncio
import collections
import json
import sys
import time
from pathlib import Path

import httpx
from openai import APIStatusError, AsyncOpenAI
from tqdm import tqdm

from semcot.data import load_problems
from semcot.evaluation import describe_machine, load_model
from semcot.files import write_json

MAX_NEW_TOKENS = 16
CHAT = {"messages": [{"role": "user", "content": "How many?"}]}
WRONG = {
    "a placeholder": {"messages": [{"role": "user", "content": "Is <thought> one?"}]},
    "an empty question": {"messages": [{"role": "user", "content": ""}]},
    "no messages": {"messages": []},
    "a prompt beyond the limit": {"messages": [{"role": "user", "content": "long " * 100_000}]},
    "more than a megabyte": {"messages": [{"role": "user", "content": "long " * 400_000}]},
    "too many tokens to write": CHAT | {"max_tokens": 10**6},
    "a temperature below zero": CHAT | {"temperature": -1},
    "a number as text": CHAT | {"max_tokens": "16"},
    "an unknown model": CHAT | {"model": "another"},
}


def expected_answers(options: argparse.Namespace, questions: list[str]) -> tuple[list[str], dict]:
    """What `generate` answers each question by itself, greedily, and the machine."""
    model, tokenizer = load_model(options.model, "cpu", "float32")
    answers = []
    for question in tqdm(questions, desc="generate"):
        batch = tokenizer([question], return_tensors="pt")
        sequences = model.generate(**batch, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        answers.append(tokenizer.decode(sequences[0, batch.input_ids.shape[1] :], skip_special_tokens=True))
    return answers, describe_machine(model)


async def chat(api: AsyncOpenAI, model: str, question: str) -> str:
    messages = [{"role": "user", "content": question}]
    answer = await api.chat.completions.create(model=model, messages=messages, max_tokens=MAX_NEW_TOKENS, temperature=0)
    return answer.choices[0].message.content


async def streamed_chat(api: AsyncOpenAI, model: str, question: str) -> str:
    messages = [{"role": "user", "content": question}]
    parts = await api.chat.completions.create(
        model=model, messages=messages, max_tokens=MAX_NEW_TOKENS, temperature=0, stream=True
    )
    return "".join([part.choices[0].delta.content or "" async for part in parts if part.choices])


async def completion(api: AsyncOpenAI, model: str, question: str) -> str:
    answer = await api.completions.create(model=model, prompt=question, max_tokens=MAX_NEW_TOKENS, temperature=0)
    return answer.choices[0].text


async def compare(api: AsyncOpenAI, options: argparse.Namespace, questions: list[str], expected: list[str]) -> list:
    """A row for each way to ask."""
    rows, model, places = [], (await api.models.list()).data[0].id, asyncio.Semaphore(options.clients)
    for way in (chat, streamed_chat, completion):

        async def ask(question: str, way=way) -> str:
            async with places:
                return await way(api, model, question)

        await way(api, model, questions[0])  # the first is not typical
        started = time.perf_counter()
        answers = await asyncio.gather(*map(ask, questions))
        seconds = time.perf_counter() - started
        same = sum(a == b for a, b in zip(answers, expected, strict=True))
        row = {"asked": way.__name__, "n": len(questions), "clients": options.clients}
        rows.append(row | {"same_answers": same, "questions_per_s": len(questions) / seconds})
    statuses = collections.Counter()
    for asked in WRONG.values():
        try:
            await api.chat.completions.create(**{"model": model, **asked})
            statuses["answered"] += 1
        except APIStatusError as error:
            statuses[str(error.status_code)] += 1
    lives = await chat(api, model, questions[0]) == expected[0]
    return [*rows, {"asked": "what is wrong", "kinds": list(WRONG), "statuses": dict(statuses), "answers_after": lives}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=".", help="the checkpoint that is served")
    parser.add_argument("--base_url", default="http://localhost:8000/v1")
    parser.add_argument("--api_key", default="none")
    parser.add_argument("--data", default="synthetic_arithmetic")
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    problems = load_problems(options.data, "eval", num_samples=options.limit, seed=options.seed)
    questions = [problem["question"] for problem in problems]
    expected, machine = expected_answers(options, questions)

    async def asked() -> list:
        async with AsyncOpenAI(base_url=options.base_url, api_key=options.api_key, max_retries=0, timeout=600) as api:
            return await compare(api, options, questions, expected)

    rows = asyncio.run(asked())
    version = httpx.get(options.base_url.removesuffix("/v1") + "/version")
    record = {
        "run": {"command": " ".join(["python", "-m", "benchmarks.served_answers", *sys.argv[1:]])},
        "eval": rows,
        "meta": machine | {"data": options.data, "seed": options.seed, "different_answers": len(set(expected))},
    }
    if version.is_success:
        record["meta"]["server"] = version.json()
    print(json.dumps(rows, indent=2))
    if options.output:
        write_json(options.output, record)


if __name__ == "__main__":
    main()
