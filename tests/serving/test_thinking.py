"""The generator before an engine that serves the base: what reaches it, what is refused, what waits together."""

import base64
import io
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import QUESTIONS, tiny_semcot

from semcot.tokenization import tokenize_prompts

fastapi = pytest.importorskip("fastapi")
from fastapi.testclient import TestClient  # noqa: E402
from starlette.websockets import WebSocketDisconnect  # noqa: E402

from semcot.serving import thinking as module  # noqa: E402
from semcot.serving.thinking import CHECKPOINT_VARIABLE, Thinker, Thinking, served_thinker  # noqa: E402

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def user(text) -> list[dict]:
    return [{"role": "user", "content": text}]


def decoded(embeds: str) -> torch.Tensor:
    return torch.load(io.BytesIO(base64.b64decode(embeds)), weights_only=True)


class Engine(fastapi.FastAPI):
    """As much of vLLM's server as is asked, with transformers behind it; keeps what it was asked."""

    def __init__(self, base, tokenizer) -> None:
        super().__init__()
        self.base, self.tokenizer, self.asked = base, tokenizer, []
        self.post(CHAT)(self.chat)
        self.post(COMPLETIONS)(self.complete)
        self.post("/tokenize")(lambda: "ids")
        self.get("/health")(lambda: "well")
        self.websocket("/v1/realtime")(self.talk)

    async def talk(self, websocket: fastapi.WebSocket):
        await websocket.accept()

    def answer(self, asked: dict, embeds: str) -> str:
        self.asked.append(asked)
        tokens = self.base.generate(
            inputs_embeds=decoded(embeds)[None],
            max_new_tokens=asked["max_tokens"],
            do_sample=False,
            eos_token_id=asked["stop_token_ids"],
        )
        return self.tokenizer.decode(tokens[0], skip_special_tokens=True)

    def chat(self, asked: dict):
        (message,) = asked["messages"]
        (part,) = message["content"]
        assert (message["role"], part["type"]) == ("user", "prompt_embeds")
        return self.answer(asked, part["data"])

    def complete(self, asked: dict):
        return [self.answer(asked, embeds) for embeds in asked["prompt_embeds"]]


@pytest.fixture(scope="module")
def whole():
    return tiny_semcot()


@pytest.fixture(scope="module")
def thinker():
    return Thinker(*tiny_semcot())


@pytest.fixture
def engine(whole):
    model, tokenizer = whole
    return Engine(model.language_model, tokenizer)


@pytest.fixture
def client(engine, thinker):
    with TestClient(Thinking(engine, thinker)) as client:
        yield client


def expected(whole, messages: list[dict]) -> str:
    model, tokenizer = whole
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    batch = tokenize_prompts(tokenizer, [prompt])
    ids = model.generate(**batch, max_new_tokens=8, do_sample=False)[0, batch.input_ids.shape[1] :]
    return tokenizer.decode(ids, skip_special_tokens=True)


def test_the_engine_writes_what_the_whole_model_does(client, whole, thinker):
    answers = [expected(whole, user(question)) for question in QUESTIONS[:4]]
    assert len(set(answers)) > 1
    for question, answer in zip(QUESTIONS, answers, strict=False):
        assert client.post(CHAT, json={"messages": user(question), "max_tokens": 8}).json() == answer
    assert client.post(COMPLETIONS, json={"prompt": QUESTIONS[0], "max_tokens": 8}).json() == answers[:1]
    assert client.post(COMPLETIONS, json={"prompt": QUESTIONS[:4], "max_tokens": 8}).json() == answers
    assert sum(weight.numel() for weight in thinker.model.language_model.parameters()) == 330 * 32


def test_a_conversation_goes_on_with_the_answer_as_it_came(client, whole):
    earlier = {"role": "assistant", "content": " 10", "refusal": None, "tool_calls": []}
    rules = {"role": "system", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "short."}]}
    chat = [rules, *user(QUESTIONS[1]), earlier, *user(QUESTIONS[2])]
    plain = [{"role": "system", "content": "Be\nshort."}, *user(QUESTIONS[1]), earlier, *user(QUESTIONS[2])]
    answer = client.post(CHAT, json={"messages": chat, "max_tokens": 8}).json()
    assert answer == expected(whole, plain) != expected(whole, user(QUESTIONS[2]))


def test_the_engine_gets_the_allowed_fields_alone(client, engine, whole, thinker):
    sampling = {"temperature": 0.5, "top_p": 0.9, "n": 1, "seed": 7, "stop": "\n", "max_tokens": 3, "model": "m"}
    more = {"stream": False, "stream_options": {"include_usage": True}, "user": "u", "max_completion_tokens": 4}
    client.post(CHAT, json=sampling | more | {"messages": user("Why?")}).raise_for_status()
    (asked,) = engine.asked
    asked.pop("messages")
    assert asked == sampling | more | {"stop": ["\n"], "stop_token_ids": [2]}
    client.post(COMPLETIONS, json={"prompt": "Why?", "max_tokens": 3, "stop": None, "seed": None}).raise_for_status()
    assert set(engine.asked[1]) == {"prompt_embeds", "max_tokens", "temperature", "stop_token_ids"}
    assert engine.asked[1]["temperature"] == 0, "greedy, unless something else was asked for"


@pytest.mark.parametrize(
    ("path", "asked", "said"),
    [
        (CHAT, {"messages": user("Is <thought> one?")}, "A message holds <thought>"),
        (CHAT, {"messages": user("long " * 400)}, "the position limit of text_config is 512"),
        (CHAT, {"messages": user(" \n")}, "messages: the last message must be the user's, with a text"),
        (CHAT, {"messages": []}, "messages: Field required"),
        (CHAT, {}, "messages: Field required"),
        (CHAT, {"messages": "Why?"}, "messages: Input should be a valid array"),
        (CHAT, {"messages": [*user("Why?"), {"role": "assistant", "content": "So."}]}, "must be the user's"),
        (
            CHAT,
            {"messages": [{"role": "tool", "content": "Why?"}]},
            "messages.0.role: Input should be 'system', 'user'",
        ),
        (CHAT, {"messages": user([{"type": "image_url", "text": "x"}])}, "messages.0.content.0.type: Input should be"),
        (CHAT, {"messages": user([{"type": "prompt_embeds", "data": "x"}])}, "messages.0.content.0.type: Input should"),
        (CHAT, {"messages": user("Why?"), "temperature": "0"}, "temperature: Input should be a valid number"),
        (CHAT, {"messages": user("Why?"), "temperature": 3}, "temperature: Input should be less than or equal to 2"),
        (CHAT, {"messages": user("Why?"), "max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        (CHAT, {"messages": user("Why?"), "n": 17}, "n: Input should be less than or equal to 16"),
        (CHAT, {"messages": user("Why?"), "stop": [""]}, "stop.0: String should have at least 1 character"),
        (CHAT, {"messages": user("Why?"), "stop": list("abcde")}, "stop: List should have at most 4 items"),
        (COMPLETIONS, {"prompt": ""}, "prompt.0: the prompt is empty"),
        (COMPLETIONS, {"prompt": ["Why?", " "]}, "prompt.1: the prompt is empty"),
        (COMPLETIONS, {"prompt": []}, "prompt: Field required"),
        (COMPLETIONS, {"prompt": ["Why?"] * 65}, "prompt: List should have at most 64 items"),
        (COMPLETIONS, {"prompt": [1, 2]}, "prompt.0: Input should be a valid string"),
        (COMPLETIONS, {"prompt": ["Why?", "Is <thought> one?"]}, "A message holds <thought>"),
        (COMPLETIONS, ["Why?"], "the body: Input should be"),
        (COMPLETIONS, b'{"prompt": ', "the body: Invalid JSON"),
        (COMPLETIONS, b'{"prompt": "Why?", "top_p": NaN}', "top_p: Input should be a finite number"),
        (COMPLETIONS, b"\xff\xfe", "the body: Invalid JSON"),
        (COMPLETIONS, b"", "the body: Invalid JSON"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_answered_is_a_bad_request(client, engine, path, asked, said, stream):
    asked = asked | {"stream": stream} if isinstance(asked, dict) else asked
    body = asked if isinstance(asked, bytes) else json.dumps(asked)
    response = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400 and said in response.json()["detail"]
    assert not engine.asked, "the engine never sees it"
    assert client.post(COMPLETIONS, json={"prompt": "Why?", "max_tokens": 2}).status_code == 200


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    "field",
    ["prompt_embeds", "suffix", "echo", "prompt_logprobs", "repetition_penalty", "logit_bias", "tools", "x" * 500],
)
def test_other_fields_are_a_bad_request(client, engine, path, field):
    asked = {"messages": user("Why?")} if path == CHAT else {"prompt": "Why?"}
    response = client.post(path, json=asked | {field: 1.5})
    assert response.status_code == 400 and not engine.asked
    assert response.json()["detail"].startswith(
        f"{field[:100]}: Extra inputs are not permitted. This server takes model,"
    )


def test_large_bodies_are_refused_before_they_are_read(client, engine, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_BODY", 1000)
    sent = []

    def body():
        for _ in range(100):
            sent.append(100)
            yield b" " * 100

    response = client.post(COMPLETIONS, content=body())
    assert response.status_code == 413 and "more than 1,000 bytes" in response.json()["detail"] and not engine.asked


def test_nothing_else_that_writes_can_be_reached(client):
    for path in ("/tokenize", f"{CHAT}/", "/v1//completions", "/v1/responses"):
        response = client.post(path, json={"prompt": "Why?"}, follow_redirects=False)
        assert response.status_code == 404
        assert "does not go through the thoughts" in response.json()["error"]["message"]
    assert client.put(CHAT, json={}).status_code == 404
    assert client.get("/health").json() == "well"
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/v1/realtime"):
        pass


def test_under_a_root_path_the_endpoints_are_the_same(engine, thinker):
    with TestClient(Thinking(engine, thinker), root_path="/api") as client:
        assert client.post(f"/api{COMPLETIONS}", json={"prompt": "<thought>"}).status_code == 400
        assert client.post("/api/tokenize").status_code == 404


def test_whoever_has_no_key_is_not_thought_about(engine, thinker, monkeypatch):
    monkeypatch.setattr(thinker, "think", lambda messages: pytest.fail("it was"))

    @engine.middleware("http")
    async def guard(request, call_next):
        return fastapi.Response(status_code=401)

    with TestClient(Thinking(engine, thinker)) as client:
        assert client.post(COMPLETIONS, json={"prompt": "Why?"}).status_code == 401


def test_what_waits_together_is_thought_about_together(client, whole, thinker, monkeypatch):
    answers = [expected(whole, user(question)) for question in QUESTIONS]
    batches, may_go, embed = [], threading.Event(), module.embed_prompts

    def slow(model, tokenizer, prompts):
        batches.append(len(prompts))
        assert may_go.wait(30)
        return embed(model, tokenizer, prompts)

    monkeypatch.setattr(module, "embed_prompts", slow)

    def ask(question):
        return client.post(CHAT, json={"messages": user(question), "max_tokens": 8}).json()

    with ThreadPoolExecutor(16) as pool:
        first = pool.submit(ask, QUESTIONS[0])
        while not batches:
            pass
        refused = ["Is <thought> one?", "long " * 400]
        others = [pool.submit(ask, question) for question in [*QUESTIONS[1:], *refused]]
        while thinker._waiting.qsize() < len(others):
            pass
        may_go.set()
        found = [future.result() for future in (first, *others)]
    assert found[:-2] == answers, "whatever else waits"
    assert "A message holds <thought>" in found[-2]["detail"] and "the position limit" in found[-1]["detail"]
    assert batches == [1, len(QUESTIONS) - 1]


def test_batches_are_of_similar_lengths_and_bounded(thinker, monkeypatch):
    batches, embed = [], module.embed_prompts

    def seen(model, tokenizer, prompts):
        batches.append([len(ids) for ids in tokenizer(prompts, add_special_tokens=False).input_ids])
        return embed(model, tokenizer, prompts)

    monkeypatch.setattr(module, "embed_prompts", seen)
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", 300)
    gate = threading.Event()
    thinker._thread.submit(gate.wait)
    futures = [thinker.think(user("why " * n)) for n in (90, 1, 2, 90, 3)]
    gate.set()
    assert all(len(decoded(future.result(30))) for future in futures)
    assert [len(batch) for batch in batches] == [3, 1, 1] and batches[1][0] > 150


def test_whoever_has_left_is_not_thought_about(thinker, monkeypatch):
    gate = threading.Event()
    thinker._thread.submit(gate.wait)
    left, stays = thinker.think(user("Why?")), thinker.think(user("How?"))
    assert left.cancel()
    thought_about, prompt = [], thinker._prompt
    monkeypatch.setattr(thinker, "_prompt", lambda messages: (thought_about.append(messages), prompt(messages))[1])
    gate.set()
    assert decoded(stays.result(30)).shape[1] == 32 and thought_about == [user("How?")]


@pytest.mark.parametrize("wrong", [lambda row: row[:, 1:], lambda row: row[1:], lambda row: row / 0])
def test_embeddings_of_another_shape_never_reach_the_engine(client, engine, monkeypatch, wrong, caplog):
    embed = module.embed_prompts
    with monkeypatch.context() as patched:
        patched.setattr(module, "embed_prompts", lambda *args: [wrong(row) for row in embed(*args)])
        response = client.post(COMPLETIONS, json={"prompt": "Why?"})
    assert response.status_code == 500 and not engine.asked and "finite embeddings were to be" in caplog.text
    assert "embeddings" not in response.text, "what went wrong stands in the log"
    assert client.post(COMPLETIONS, json={"prompt": "Why?", "max_tokens": 2}).status_code == 200


def test_messages_that_the_chat_template_does_not_take(client, thinker, monkeypatch):
    refusing = "{{ raise_exception('roles must alternate') }}"
    monkeypatch.setattr(thinker.tokenizer, "chat_template", refusing)
    response = client.post(CHAT, json={"messages": user("Why?")})
    assert response.status_code == 400 and response.json()["detail"].endswith("these messages: roles must alternate")


def test_a_placeholder_that_the_base_could_write_is_kept_from_it():
    model, tokenizer = tiny_semcot()
    model.generation_config.eos_token_id = [1, 2]
    model.config.text_config.vocab_size = 400  # of a padded vocabulary
    thinker = Thinker(model, tokenizer)
    assert thinker.fields == {"stop_token_ids": [1, 2], "logit_bias": {str(model.config.thought_token_id): -100}}


def test_the_environment_names_the_checkpoint(adapter, monkeypatch, tmp_path, engine, whole):
    checkpoint = {"model": str(adapter), "base_model": None, "dtype": "float32"}
    monkeypatch.setitem(os.environ, CHECKPOINT_VARIABLE, json.dumps(checkpoint))
    served_thinker.cache_clear()
    try:
        thinking = Thinking(engine)
        assert thinking.thinker is served_thinker()
        assert thinking.thinker.base_model == str(tmp_path / "models" / "tiny-llama")
        with TestClient(thinking) as client:
            answer = client.post(COMPLETIONS, json={"prompt": QUESTIONS[3], "max_tokens": 8}).json()
        assert answer == [expected(whole, user(QUESTIONS[3]))]
    finally:
        served_thinker.cache_clear()
