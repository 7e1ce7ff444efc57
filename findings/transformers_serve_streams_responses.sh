#!/usr/bin/env bash
# transformers serve (5.24) answers POST /v1/responses with a stream of events unless the request says
# "stream": false. In OpenAI's API, which it offers, leaving stream out asks for a single JSON object, as the
# server's own /v1/chat/completions does. OpenAI's client, told nothing, hands back the raw stream as a string.
# Every example of the documentation sets stream; the default is not stated. Matters to every client that leaves
# it out.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 transformers[serving]==5.24.0 accelerate==1.15.0 fastapi==0.165.0 uvicorn==0.54.0 openai==3.57.0
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
cd "$work"
"$work/venv/bin/python" - <<'PY'
import json
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path

from openai import OpenAI
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

names = ("torch", "transformers", "fastapi", "uvicorn", "openai")
print(*(f"{name} {version(name)}" for name in names), sep=", ")

words = Tokenizer(models.WordLevel(unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
words.train_from_iterator(["two plus two is four"], trainers.WordLevelTrainer(special_tokens=["<unk>", "<s>", "</s>"]))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
tokenizer.save_pretrained("model")
LlamaForCausalLM(
    LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )
).save_pretrained("model")
model = str(Path("model").resolve())

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
address = f"http://127.0.0.1:{port}"
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
command = Path(sys.executable).with_name("transformers")


def content_type(path, **body):
    body = json.dumps({"model": model, **body}).encode()
    request = urllib.request.Request(f"{address}{path}", body, {"Content-Type": "application/json"})
    with opener.open(request, timeout=60) as response:
        return response.headers.get_content_type()


with open("log", "w") as log:
    server = subprocess.Popen(
        [command, "serve", model, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
        stdout=log, stderr=log,
    )
try:
    for _ in range(300):
        try:
            opener.open(f"{address}/health", timeout=5).close()
            break
        except OSError:
            time.sleep(0.4)
    else:
        raise SystemExit(f"the server did not start:\n{Path('log').read_text()}")
    question = {"input": "two plus two is", "max_output_tokens": 2}
    chat = {"messages": [{"role": "user", "content": "two plus two is"}], "max_tokens": 2}
    seen = {
        "/v1/responses": content_type("/v1/responses", **question),
        "/v1/responses, stream false": content_type("/v1/responses", **question, stream=False),
        "/v1/chat/completions": content_type("/v1/chat/completions", **chat),
    }
    with OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        answer = type(client.responses.create(model=model, **question)).__name__
finally:
    server.terminate()
    server.wait()

print("expected: application/json wherever stream is not true, and a Response from OpenAI's client")
for request, kind in seen.items():
    print(f"seen: {request}: {kind}")
print(f"seen: client.responses.create without stream: {answer}")
if not (list(seen.values()) == ["text/event-stream", "application/json", "application/json"] and answer == "str"):
    raise SystemExit("changed: the default of /v1/responses no longer behaves as described")
PY
