"""`python -m semcot.serve`: real servers and the openai client."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from conftest import QUESTIONS, ROOT, TEXTS, write_adapter
from openai import (
    APIConnectionError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    OpenAI,
)
from transformers import AutoTokenizer, GenerationConfig

from modeling_semcot import SemCoTForCausalLM

pytest.importorskip("prometheus_client")
pytestmark = pytest.mark.slow
ENDLESS = {"logit_bias": {"2": -100}}  # never the end of the text


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """One that writes ASCII alone: a stream keeps back what is no character yet."""
    adapter = write_adapter(tmp_path_factory.mktemp("served"))
    tokenizer = AutoTokenizer.from_pretrained(adapter, trust_remote_code=True)
    others = [token for token in range(330) if not tokenizer.decode([token]).isascii()]
    GenerationConfig(eos_token_id=tokenizer.eos_token_id, suppress_tokens=others).save_pretrained(adapter)
    return adapter


@contextmanager
def serving(checkpoint: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """A server on loopback, its address and its process, which is killed where it has not ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "semcot.serve", str(checkpoint), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen([*command, "--device", "cpu", *options], cwd=ROOT)
    try:
        for _ in range(600):
            assert process.poll() is None, "the server has ended"
            try:
                httpx.get(f"http://127.0.0.1:{port}/health").raise_for_status()
                break
            except httpx.ConnectError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(checkpoint) -> Iterator[str]:
    """A server that is asked to batch continuously, as vLLM does, and cannot; it ends by itself."""
    with serving(checkpoint, "--continuous-batching", "--max-body", "10000") as (address, process):
        yield address
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def answers(checkpoint):
    """What `generate` answers a question by itself."""
    model = SemCoTForCausalLM.from_pretrained(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=True)

    def answer(question: str, **settings) -> str:
        batch = tokenizer([question], return_tensors="pt")
        ids = model.generate(**batch, **({"max_new_tokens": 8, "do_sample": False} | settings))
        return tokenizer.decode(ids[0, batch.input_ids.shape[1] :], skip_special_tokens=True)

    return answer


def chat(checkpoint: Path, question: str, **settings) -> dict:
    return {"model": str(checkpoint), "messages": [{"role": "user", "content": question}], "temperature": 0} | settings


def metric(server: str, name: str) -> float:
    lines = httpx.get(server.replace("/v1", "/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


async def streamed(api: AsyncOpenAI, request: dict) -> str:
    parts = await api.chat.completions.create(**request, stream=True)
    return "".join([part.choices[0].delta.content or "" async for part in parts if part.choices])


async def whole(api: AsyncOpenAI, request: dict) -> str:
    return (await api.chat.completions.create(**request)).choices[0].message.content


def test_the_server_answers_as_generate_does(server, checkpoint, answers):
    client, found = OpenAI(base_url=server, api_key="none"), set()
    assert [model.id for model in client.models.list()] == [str(checkpoint)]
    for question in QUESTIONS[:3]:
        answer = answers(question)
        found.add(answer)
        asked = chat(checkpoint, question, max_tokens=8)
        plain = {"model": str(checkpoint), "prompt": question, "max_tokens": 8, "temperature": 0}
        response = {"model": str(checkpoint), "input": question, "max_output_tokens": 8, "temperature": 0}
        assert client.chat.completions.create(**asked).choices[0].message.content == answer
        assert client.completions.create(**plain).choices[0].text == answer
        assert client.responses.create(**response, stream=False).output_text == answer
        parts = [part.choices for part in client.chat.completions.create(**asked, stream=True)]
        assert "".join(choices[0].delta.content or "" for choices in parts if choices) == answer
        parts = [part.choices for part in client.completions.create(**plain, stream=True)]
        assert "".join(choices[0].text or "" for choices in parts if choices) == answer
        events = client.responses.create(**response, stream=True)
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == answer
    assert len(found) > 1


def test_openvino_answers_as_generate_does(checkpoint, answers):
    with serving(checkpoint, "--openvino") as (address, _):
        client = OpenAI(base_url=address, api_key="none")
        for question in QUESTIONS[:3]:
            asked = chat(checkpoint, question, max_tokens=8)
            assert client.chat.completions.create(**asked).choices[0].message.content == answers(question)


def test_many_at_once_get_their_own_answers_in_batches(server, checkpoint, answers):
    questions = [f"{number} {text[: 20 + number]}" for number in range(22) for text in TEXTS][:64]
    before = metric(server, "semcot_batch_rows_count"), metric(server, "semcot_batch_rows_sum")

    async def run():
        async with AsyncOpenAI(base_url=server, api_key="none", max_retries=0) as api:
            requests = [chat(checkpoint, question, max_tokens=8) for question in questions]
            asked = ((streamed if i % 3 == 0 else whole)(api, request) for i, request in enumerate(requests))
            return await asyncio.gather(*asked)

    expected = [answers(question) for question in questions]
    assert asyncio.run(run()) == expected and len(set(expected)) > 20
    batches = metric(server, "semcot_batch_rows_count") - before[0]
    assert metric(server, "semcot_batch_rows_sum") - before[1] == 64 and batches < 20
    assert metric(server, "semcot_requests_waiting") == 0


@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_go_through_the_thoughts_is_a_bad_request(server, checkpoint, stream):
    client = OpenAI(base_url=server, api_key="none", max_retries=0)
    common = {"model": str(checkpoint), "stream": stream}
    ask = {
        "chat": lambda question, **more: client.chat.completions.create(
            messages=[{"role": "user", "content": question}], **common, **more
        ),
        "completion": lambda question, **more: client.completions.create(prompt=question, **common, **more),
        "response": lambda question, **more: client.responses.create(input=question, **common, **more),
    }
    for endpoint in ask.values():
        with pytest.raises(BadRequestError, match="Row 0 holds 4 <thought> placeholders .* needs exactly 3"):
            endpoint("Is <thought> a word?")
        with pytest.raises(BadRequestError, match="the position limit of text_config is 512"):
            endpoint("long " * 400)
        with pytest.raises(BadRequestError, match="guidance_scale cannot be used"):
            endpoint("How many?", extra_body={"generation_config": '{"guidance_scale": 2}'})
        assert endpoint(QUESTIONS[0]), "and the next one is answered"


MALFORMED = {
    "no JSON": ("chat/completions", b"{", 422),
    "no object": ("chat/completions", b"[]", 422),
    "no messages": ("chat/completions", {}, 400),
    "messages of another kind": ("chat/completions", {"messages": "Hello"}, 400),
    "a message without a role": ("chat/completions", {"messages": [{"content": "Hello"}]}, 400),
    "a number for a text": ("completions", {"prompt": 5}, 400),
    "no input": ("responses", {}, 400),
    "words for a number": ("completions", {"prompt": "Hello", "max_tokens": "many"}, 400),
    "too great a number": ("completions", b'{"prompt": "Hello", "max_tokens": 1e999}', 400),
    "a negative temperature": ("completions", {"prompt": "Hello", "temperature": -1}, 400),
    "an unknown field": ("completions", {"prompt": "Hello", "beams": 3}, 400),
    "several answers": ("completions", {"prompt": "Hello", "n": 3}, 400),
    "a template of one's own": ("chat/completions", {"messages": [], "chat_template_kwargs": {}}, 400),
    "settings that are none": ("completions", {"prompt": "Hello", "generation_config": "none"}, 400),
    "a seed that is none": ("completions", {"prompt": "Hello", "seed": "x"}, 400),
    "too many bytes": ("completions", {"prompt": "x" * 2**20}, 413),
    "another model": ("completions", {"model": "someone/else", "prompt": "Hello"}, 400),
    "a route that loads models": ("../load_model", {"model": "someone/else"}, 404),
    "a route that drops them": ("../reset", {}, 404),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_requests_are_told_so(server, checkpoint, answers, case):
    path, body, status = MALFORMED[case]
    body = {"content": body} if isinstance(body, bytes) else {"json": {"model": str(checkpoint)} | body}
    answer = httpx.post(f"{server}/{path}", **body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, bool(answer.json())) == (status, True), answer.text
    client = OpenAI(base_url=server, api_key="none", max_retries=0)
    found = client.chat.completions.create(**chat(checkpoint, QUESTIONS[0], max_tokens=8))
    assert found.choices[0].message.content == answers(QUESTIONS[0])


def test_harmless_fields_are_passed_by_and_answers_are_cut(server, checkpoint):
    client = OpenAI(base_url=server, api_key="none")
    more = {"user": "someone", "n": 1, "presence_penalty": 0, "seed": 1, "stream_options": None}
    choice = client.chat.completions.create(
        **chat(checkpoint, QUESTIONS[0], max_tokens=9999, **ENDLESS, **more)
    ).choices
    assert choice[0].finish_reason == "length"
    usage = client.chat.completions.create(**chat(checkpoint, QUESTIONS[0], max_tokens=9999, **ENDLESS)).usage
    assert usage.completion_tokens == 256


def test_limits_a_key_and_an_end_under_load(checkpoint, answers):
    options = ["--max-batch", "1", "--max-queue", "4", "--max-new-tokens", "400", "--timeout", "60"]
    long = chat(checkpoint, QUESTIONS[1], max_tokens=400, **ENDLESS)
    expected = answers(QUESTIONS[1], max_new_tokens=400, sequence_bias={(2,): -100.0})

    async def run(address: str, process: subprocess.Popen) -> None:
        async with AsyncOpenAI(base_url=address, api_key="none", max_retries=0) as unknown:
            with pytest.raises(AuthenticationError, match="API key"):
                await whole(unknown, long)
        async with AsyncOpenAI(base_url=address, api_key="secret", max_retries=0) as api:
            gone = [asyncio.create_task((streamed if i % 2 else whole)(api, long)) for i in range(4)]
            await asyncio.sleep(0.2)
            for one in gone:
                one.cancel()
            await asyncio.wait(gone)
            short = chat(checkpoint, QUESTIONS[0], max_tokens=1)
            await whole(api, short)
            assert metric(address, "semcot_answer_tokens_total") == 1, "nobody waited for other answers"

            crowd = await asyncio.gather(*[whole(api, long) for _ in range(12)], return_exceptions=True)
            refused = [one for one in crowd if isinstance(one, InternalServerError)]
            assert 1 <= len(refused) <= 7 and [one for one in crowd if one not in refused] == [expected] * (
                12 - len(refused)
            )
            assert {(one.status_code, one.response.headers["retry-after"]) for one in refused} == {(503, "2")}

            first = await api.chat.completions.create(**long, stream=True)
            running = [asyncio.create_task((streamed if i % 2 else whole)(api, long)) for i in range(4)]
            parts = [await anext(first), await anext(first)]  # the first is being answered
            await asyncio.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            with pytest.raises(APIConnectionError):
                await whole(AsyncOpenAI(base_url=address, api_key="secret", max_retries=0), long)
            assert not all(one.done() for one in running), "too short a load"
            parts += [part async for part in first]
            text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
            assert [text, *await asyncio.gather(*running)] == [expected] * 5

    with serving(checkpoint, *options, "--api-key", "secret") as (address, process):
        asyncio.run(run(address, process))
        assert process.wait(timeout=30) == -signal.SIGTERM
