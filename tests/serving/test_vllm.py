"""`python -m semcot.serving.vllm`: what it tells vLLM and, where vLLM is installed, the real server."""

import os
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
from conftest import QUESTIONS, ROOT, tiny_base_tokenizer, tiny_language_model

from modeling_semcot import SemCoTForCausalLM
from semcot.serving.vllm import parse, serve_arguments
from semcot.tokenization import build_tokenizer, render_prompt, tokenize_prompts


def test_vllm_is_told_of_the_base_and_its_options_are_handed_on():
    options = ["--port", "1", "--base_model", "b", "--model", "m", "--tensor-parallel-size", "2", "--mod", "x"]
    checkpoint, others = parse([*options, "--dtype", "float16"])
    assert checkpoint == {"model": "m", "base_model": "b", "dtype": "float16"}
    assert others == ["--port", "1", "--tensor-parallel-size", "2", "--mod", "x"]
    others = ["--served-model-name", "mine", "--chat-template", "theirs", "--generation-config", "auto"]
    arguments = serve_arguments(checkpoint, "base", others)
    assert arguments[:4] == ["serve", "base", "--dtype", "float16"] and "--enable-prompt-embeds" in arguments
    last = {name: value for name, value in zip(arguments, arguments[1:], strict=False) if name.startswith("--")}
    assert last["--served-model-name"] == "mine", "which may be another"
    assert last["--generation-config"] == "vllm" and last["--chat-template"] != "theirs", "which may not"
    assert last["--middleware"] == "semcot.serving.thinking.Thinking"


def test_without_a_gpu_all_is_float32(monkeypatch):
    for is_there, dtype in ((False, "float32"), (True, "bfloat16")):
        monkeypatch.setattr("torch.cuda.is_available", lambda is_there=is_there: is_there)
        assert parse(["--model", "m"])[0] == {"model": "m", "base_model": None, "dtype": dtype}


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_the_command_says_what_to_install():
    command = [sys.executable, "-m", "semcot.serving.vllm", "--model", "m"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1 and "pip install vllm, in an environment of its own" in ended.stderr


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """An adapter, of a width that vLLM has attention for, and its base in `models/` beside it."""
    folder = tmp_path_factory.mktemp("served")
    tokenizer, prompt_template = build_tokenizer(tiny_base_tokenizer(), num_thoughts=3)
    base = tiny_language_model(hidden_size=128, num_attention_heads=2, num_key_value_heads=1)
    model = SemCoTForCausalLM.from_components(
        base,
        2,
        num_thoughts=3,
        tokenizer=tokenizer,
        prompt_template=prompt_template,
        base_model_name_or_path="someone/tiny-llama",
        checkpoint_kind="adapter",
    )
    base.save_pretrained(folder / "models" / "tiny-llama")
    tiny_base_tokenizer().save_pretrained(folder / "models" / "tiny-llama")
    model.save_pretrained(folder / "checkpoint")
    tokenizer.save_pretrained(folder / "checkpoint")
    return folder / "checkpoint"


@pytest.fixture(scope="module")
def server(checkpoint, tmp_path_factory):
    """A server on loopback with a key; yields its address and ends with it."""
    httpx = pytest.importorskip("httpx")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "semcot.serving.vllm", "--model", str(checkpoint), "--dtype", "float32"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--api-key", "key", "--enforce-eager"]
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    log = tmp_path_factory.mktemp("log") / "server.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
    try:
        for _ in range(1200):
            assert process.poll() is None, f"the server has ended:\n{log.read_text()[-3000:]}"
            try:
                httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)  # of itself
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_answers_as_generate_does_and_outlives_what_is_wrong(server, checkpoint):
    import httpx
    from openai import APIStatusError, AuthenticationError, OpenAI
    from transformers import AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(checkpoint), SemCoTForCausalLM.from_pretrained(checkpoint)
    client = OpenAI(base_url=server, api_key="key", http_client=httpx.Client(trust_env=False), max_retries=0)
    assert [served.id for served in client.models.list()] == [str(checkpoint)]
    common, answers = {"model": str(checkpoint), "max_tokens": 8, "stop": ["never written"]}, []
    for question in QUESTIONS[:4]:
        batch = tokenize_prompts(tokenizer, [render_prompt(tokenizer, question)])
        ids = model.generate(**batch, max_new_tokens=8, do_sample=False)[0, batch.input_ids.shape[1] :]
        answers.append(tokenizer.decode(ids, skip_special_tokens=True))
        chat = {"messages": [{"role": "user", "content": question}], **common}
        whole = client.chat.completions.create(**chat)
        assert whole.choices[0].message.content == answers[-1]
        assert whole.usage.prompt_tokens == batch.input_ids.shape[1], "nothing stands around the prompt"
        parts = [part.choices for part in client.chat.completions.create(**chat, stream=True)]
        assert "".join(choices[0].delta.content or "" for choices in parts if choices) == answers[-1]
    assert len(set(answers)) > 1
    choices = client.completions.create(prompt=QUESTIONS[:4], **common).choices
    assert [choice.text for choice in sorted(choices, key=lambda choice: choice.index)] == answers

    statuses = {}
    for name, asked in {
        "placeholder": {"prompt": "Is <thought> one?"},
        "empty": {"prompt": " "},
        "long": {"prompt": "long " * 400},
        "tokens": {"prompt": "Why?", "max_tokens": 1000},
        "embeddings": {"prompt": "Why?", "extra_body": {"prompt_embeds": "AAAA"}},
        "penalty": {"prompt": "Why?", "presence_penalty": 1},
    }.items():
        for stream in (False, True):
            with pytest.raises(APIStatusError) as raised:
                client.completions.create(**{**common, **asked, "stream": stream})
            statuses[name] = raised.value.status_code
    assert set(statuses.values()) == {400}, statuses
    with pytest.raises(AuthenticationError):
        client.with_options(api_key="another").completions.create(prompt="<thought>", **common)
    assert client.completions.create(prompt=QUESTIONS[0], **common).choices[0].text == answers[0]
