"""`python -m semcot.serve`: a real server and the openai client."""

import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
from conftest import QUESTIONS, ROOT
from openai import BadRequestError, OpenAI
from transformers import AutoTokenizer, GenerationConfig

from modeling_semcot import SemCoTForCausalLM


@pytest.fixture
def readable(adapter):
    """A checkpoint that writes ASCII alone: a stream keeps back what is no character yet."""
    tokenizer = AutoTokenizer.from_pretrained(adapter, trust_remote_code=True)
    others = [token for token in range(330) if not tokenizer.decode([token]).isascii()]
    GenerationConfig(eos_token_id=tokenizer.eos_token_id, suppress_tokens=others).save_pretrained(adapter)
    return adapter


@pytest.fixture
def server(readable):
    """A server on loopback, that is asked to batch continuously; yields its address and ends with it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "semcot.serve", str(readable), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen([*command, "--continuous-batching", "--device", "cpu"], cwd=ROOT)
    try:
        for _ in range(600):
            assert process.poll() is None, "the server has ended"
            try:
                httpx.get(f"http://127.0.0.1:{port}/health").raise_for_status()
                break
            except httpx.ConnectError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)  # of itself
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_the_server_answers_as_generate_does(server, readable):
    model = SemCoTForCausalLM.from_pretrained(readable)
    tokenizer = AutoTokenizer.from_pretrained(readable, trust_remote_code=True)
    client, name = OpenAI(base_url=server, api_key="none"), str(readable)
    answers = set()
    for question in QUESTIONS[:3]:
        batch = tokenizer([question], return_tensors="pt")
        ids = model.generate(**batch, max_new_tokens=8, do_sample=False)[0, batch.input_ids.shape[1] :]
        answer = tokenizer.decode(ids, skip_special_tokens=True)
        answers.add(answer)
        chat = {"model": name, "messages": [{"role": "user", "content": question}], "max_tokens": 8, "temperature": 0}
        plain = {"model": name, "prompt": question, "max_tokens": 8, "temperature": 0}
        response = {"model": name, "input": question, "max_output_tokens": 8, "temperature": 0}
        assert client.chat.completions.create(**chat).choices[0].message.content == answer
        assert client.completions.create(**plain).choices[0].text == answer
        assert client.responses.create(**response, stream=False).output_text == answer
        parts = [part.choices for part in client.chat.completions.create(**chat, stream=True)]
        assert "".join(choices[0].delta.content or "" for choices in parts if choices) == answer
        parts = [part.choices for part in client.completions.create(**plain, stream=True)]
        assert "".join(choices[0].text or "" for choices in parts if choices) == answer
        events = client.responses.create(**response, stream=True)
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == answer
    assert len(answers) > 1


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_go_through_the_thoughts_is_a_bad_request(server, readable, stream):
    client, name = OpenAI(base_url=server, api_key="none", max_retries=0), str(readable)
    common = {"model": name, "stream": stream}
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
