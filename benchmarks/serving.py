"""
What `python -m semcot.serve` gives many clients at once: answers a second, seconds an answer, processor and memory.

    python -m benchmarks.serving --clients 200 --seconds 60 [--max_batch 1 16] [--output FILE] [--serve --timeout 600]

For each size of batches (1: one request after the other) a server is started on loopback, with what follows `--serve`
as options of its own. Each client asks stories of its own by the `openai` library, one after the other, every fourth
client streaming; those under way after so many seconds are waited for. An answer is right if it is the one that
`generate` gives for that question by itself.
"""

import argparse
import asyncio
import collections
import json
import resource
import signal
import socket
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from openai import APIError, APIStatusError, AsyncOpenAI
from tqdm import tqdm
from transformers.utils import logging

from semcot.data import load_problems
from semcot.evaluation import describe_machine, load_model
from semcot.files import write_json
from semcot.machine import versions

MAX_NEW_TOKENS = 16


def expected_answers(options: argparse.Namespace, questions: list[str]) -> tuple[list[str], dict]:
    """What `generate` answers each question by itself, greedily, and the machine."""
    model, tokenizer = load_model(options.model, options.device)
    answers = []
    for question in tqdm(questions, desc="generate", disable=None):
        batch = tokenizer([question], return_tensors="pt").to(model.device)
        sequences = model.generate(**batch, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        answers.append(tokenizer.decode(sequences[0, batch.input_ids.shape[1] :], skip_special_tokens=True))
    return answers, describe_machine(model)


@contextmanager
def started(options: argparse.Namespace, max_batch: int):
    """The server's address, once it answers, and its process, which is asked to end, and waited for."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "semcot.serve", options.model, "--host", "127.0.0.1", "--port", port]
    command += ["--max-batch", str(max_batch), *(["--device", options.device] if options.device else [])]
    process = subprocess.Popen([*command, *options.serve], stdout=subprocess.DEVNULL, stderr=options.log)
    try:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"The server ended with status {process.returncode}: {' '.join(process.args)}")
            try:
                httpx.get(f"http://127.0.0.1:{port}/health").raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)


async def ask(api: AsyncOpenAI, model: str, question: str, stream: bool) -> str:
    chat = {"model": model, "messages": [{"role": "user", "content": question}]}
    chat |= {"max_tokens": MAX_NEW_TOKENS, "temperature": 0, "stream": stream}
    answer = await api.chat.completions.create(**chat)
    if not stream:
        return answer.choices[0].message.content
    return "".join([part.choices[0].delta.content or "" async for part in answer if part.choices])


async def load(address: str, options: argparse.Namespace, questions: list[str], expected: list[str]) -> dict:
    """The row of the record: what the clients saw."""
    seconds, failures, asked, wrong = [], collections.Counter(), 0, 0
    started = time.perf_counter()

    async def client(number: int) -> None:
        nonlocal asked, wrong
        own = list(range(number, len(questions), options.clients))
        while time.perf_counter() < started + options.seconds:
            asked, began = asked + 1, time.perf_counter()
            try:
                answer = await ask(api, options.model, questions[own[0]], stream=number % 4 == 3)
            except APIStatusError as error:
                failures[f"status {error.status_code}"] += 1
            except (APIError, httpx.HTTPError) as error:
                failures[type(error).__name__] += 1
            else:
                seconds.append(time.perf_counter() - began)
                wrong += answer != expected[own[0]]
            own.append(own.pop(0))

    async with AsyncOpenAI(base_url=address, api_key="none", max_retries=0, timeout=600) as api:
        await asyncio.gather(*map(client, range(options.clients)))
    whole = time.perf_counter() - started
    cuts = statistics.quantiles(seconds, n=20) if len(seconds) > 1 else seconds * 19
    return {
        "clients": options.clients,
        "seconds": whole,
        "questions": len(questions),
        "different_answers": len(set(expected)),
        "asked": asked,
        "answers": len(seconds),
        "answers_per_s": len(seconds) / whole,
        "p50_s": cuts[9],
        "p95_s": cuts[18],
        "wrong": wrong,
        "failures": dict(failures),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=".")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--max_batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--data", default="synthetic_arithmetic")
    parser.add_argument("--questions", type=int, help="different ones, by default two for each client")
    parser.add_argument("--device")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=argparse.FileType("w"), default=subprocess.DEVNULL, help="what the server says")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--serve", nargs=argparse.REMAINDER, default=[], help="options of the server, to the end")
    options = parser.parse_args()
    logging.set_verbosity_error()
    count = max(options.questions or 2 * options.clients, options.clients)
    problems = load_problems(options.data, "eval", num_samples=count, seed=options.seed)
    questions = [problem["question"] for problem in problems]
    expected, machine = expected_answers(options, questions)
    rows = []
    for max_batch in options.max_batch:
        with started(options, max_batch) as (address, process):
            before = sum(process.cpu_times()[:2])
            row = asyncio.run(load(address, options, questions, expected))
            row["processor_s_per_answer"] = (sum(process.cpu_times()[:2]) - before) / row["answers"]
            row["memory_mb"] = process.memory_info().rss / 2**20
        rows.append({"max_batch": max_batch} | row)
        print(json.dumps(rows[-1], indent=2))
    # Of the servers: nothing else was started.
    peak = {"peak_memory_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024}
    record = {
        "run": {"command": " ".join(["python", "-m", "benchmarks.serving", *sys.argv[1:]])},
        "eval": rows,
        "meta": machine | peak | {"data": options.data, "seed": options.seed, "serving": versions("openai", "uvicorn")},
    }
    if options.output:
        write_json(options.output, record)


if __name__ == "__main__":
    main()
