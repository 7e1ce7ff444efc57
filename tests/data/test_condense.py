"""The command that writes missing reasoning, against a loopback endpoint that misbehaves as real ones do."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Self

import pytest
from conftest import ROOT
from datasets import Dataset

from semcot.data import condense as module
from semcot.data import load_problems
from semcot.data.condense import CondenseError, CondenseOptions, condense

USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
KEY = "sk-loopback-0123456789"
# A proxy that nobody runs: what is meant for the loopback server must not go there.
NETWORK = {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


@dataclass
class Request:
    """What the server was asked: a field of the record whose question begins "How many are `first` and"."""

    field: str
    first: int
    body: dict[str, Any]
    key: str
    time: float  # s, monotonic


class ChatServer(ThreadingHTTPServer):
    """
    Serves /v1/chat/completions from a free port of 127.0.0.1 for the duration of a `with` block.

    It adds well; every reply counts 100 tokens read and 10 written. `faults` has, for a field and a question's first
    number, what is done instead of answering the first, second, … request for it. Requests beyond `patience` hang.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.requests: list[Request] = []
        self.faults: dict[tuple[str, int], list[Callable[[Handler], None]]] = {}
        self.lock, self.closing = Lock(), Event()
        self.active = self.most_active = 0
        self.delay, self.patience = 0.0, float("inf")

    def __enter__(self) -> Self:
        Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """A client that hung up is no news here."""

    @property
    def asked(self) -> Counter[tuple[str, int]]:
        return Counter((request.field, request.first) for request in self.requests)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        field = "condensed_reasoning" if prompt.startswith("Condense") else "reasoning"
        first, second = map(int, re.search(r"How many are (\d+) and (\d+)\?", prompt).groups())
        with self.server.lock:
            key = self.headers["Authorization"].removeprefix("Bearer ")
            self.server.requests.append(Request(field, first, body, key, time.monotonic()))
            patient = len(self.server.requests) <= self.server.patience
            faults = self.server.faults.get((field, first))
            fault = faults.pop(0) if faults else None
            self.server.active += 1
            self.server.most_active = max(self.server.most_active, self.server.active)
        time.sleep(self.server.delay)
        with self.server.lock:
            self.server.active -= 1
        if not patient:
            hang(self)
        elif fault:
            fault(self)
        else:
            self.answer(TEXTS[field](first, second))

    def answer(self, text: object, finish_reason: str | None = "stop", usage: dict[str, Any] | None = USAGE) -> None:
        message = {"role": "assistant", "content": text}
        reply = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": "adder",
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        }
        if usage:
            reply["usage"] = usage
        self.send(200, json.dumps(reply))

    def send(self, status: int, body: str, content_type: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


TEXTS = {
    "reasoning": lambda a, b: f"There are {a} of them, and {b} come to it. {a} + {b} = {a + b}. The answer is {a + b}.",
    "condensed_reasoning": lambda a, b: f"{a} + {b} = {a + b}",
}


def hang(handler: Handler) -> None:
    handler.server.closing.wait()
    handler.close_connection = True


def trickle(handler: Handler) -> None:
    handler.send(200, "{", Content_Length="500")
    while not handler.server.closing.wait(0.1):
        handler.wfile.write(b" ")


def half_a_body(handler: Handler) -> None:
    handler.send(200, '{"choices": [{"mess', Content_Length="500")
    handler.close_connection = True


def status(number: int, message: str = "no", code: str | None = None, **headers: str) -> Callable[[Handler], None]:
    body = json.dumps({"error": {"message": message, "code": code}})
    return lambda handler: handler.send(number, body, **headers)


def says(text: object, **options: Any) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(text, **options)


PASSING = {
    **{str(number): status(number) for number in (408, 409, 425, 429, 500)},
    "503 in HTML": lambda handler: handler.send(503, "<html>", "text/html"),
    "half a body": half_a_body,
    "not JSON": lambda handler: handler.send(200, "<html>"),
    "nested too deep": lambda handler: handler.send(200, "[" * 100_000),
}
BAD = {
    "cut off": says("It is 4. The answer is 4.", finish_reason="length"),
    "filtered": says("It is 4. The answer is 4.", finish_reason="content_filter"),
    "stopped by the server": says("It is 4. The answer is 4.", finish_reason="abort"),
    "thoughts without an end": says("<think>Is it 4? The answer is 4."),
    "empty": says(" \n"),
    "null": says(None),
    "parts": says([{"type": "text", "text": "The answer is 4."}]),
    "half a character": says("The answer is 4. \ud800"),
    "HTML": lambda handler: handler.send(200, "<html>", "text/html"),
    "other JSON": lambda handler: handler.send(200, '{"error": "overloaded"}'),
    "a list": lambda handler: handler.send(200, "[1]"),
    "no choice": lambda handler: handler.send(200, '{"choices": []}'),
}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    for name, value in {**NETWORK, "OPENAI_API_KEY": KEY}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module, "FIRST_BACKOFF", 0.01)


@pytest.fixture
def server():
    with ChatServer() as server:
        yield server


def bare(count: int) -> list[dict[str, Any]]:
    """Records 1 and 3, 2 and 3, …, with question and answer only."""
    return [{"question": f"How many are {n} and 3?", "answer": str(n + 3)} for n in range(1, count + 1)]


def filled(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What shall come of bare records."""
    return [{**r, **{name: text(n, 3) for name, text in TEXTS.items()}} for n, r in enumerate(records, 1)]


def options_for(folder: Path, server: ChatServer, records: list[dict[str, Any]] | None = None, **options: Any):
    """The command's options; `records`, if any, become its input file."""
    if records is not None:
        (folder / "raw.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    paths = {"input": str(folder / "raw.jsonl"), "output": str(folder / "pairs.jsonl")}
    return CondenseOptions(**{**paths, "base_url": server.url, "model": "adder", **options})


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def command(options: CondenseOptions) -> list[str]:
    flags = [part for name, value in asdict(options).items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", "semcot.data.condense", *flags]


class TestRecords:
    def test_only_what_is_missing_is_written(self, server, tmp_path):
        kept = "I thought of 9, then of 4 + 3 = 7, and the answer is 7."
        records = [
            {"id": 7, "question": "How many are 1 and 3?", "answer": 4, "note": {"é": [None]}},
            {"question": "How many are 2 and 3?", "answer": "5", "reasoning": kept},
            {"question": "How many are 3 and 3?", "answer": "6", "reasoning": "", "condensed_reasoning": "3, 3"},
            {"question": "How many are 4 and 3?", "answer": "70", "reasoning": kept, "condensed_reasoning": kept},
        ]
        condense(options_for(tmp_path, server, records, temperature=0.25, max_tokens=99))
        texts = {name: [text(n, 3) for n in range(5)] for name, text in TEXTS.items()}
        assert read(tmp_path / "pairs.jsonl") == [
            {
                **records[0],
                "answer": "4",
                "reasoning": texts["reasoning"][1],
                "condensed_reasoning": texts["condensed_reasoning"][1],
            },
            {**records[1], "condensed_reasoning": texts["condensed_reasoning"][2]},
            {**records[2], "reasoning": texts["reasoning"][3]},
            records[3],
        ]
        assert server.asked == Counter(
            [("reasoning", 1), ("condensed_reasoning", 1), ("condensed_reasoning", 2), ("reasoning", 3)]
        )
        prompts = {(r.field, r.first): r.body["messages"][0]["content"] for r in server.requests}
        assert texts["reasoning"][1] in prompts["condensed_reasoning", 1]
        assert kept in prompts["condensed_reasoning", 2]
        assert "Known answer: 4" in prompts["reasoning", 1] and "sentence: The answer is 4." in prompts["reasoning", 1]
        asked = [(r.body["model"], r.body["temperature"], r.body["max_tokens"]) for r in server.requests]
        assert set(asked) == {("adder", 0.25, 99)}
        assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.jsonl", "raw.jsonl"]

    def test_the_output_is_in_order_and_can_be_trained_on(self, server, tmp_path, capsys):
        records = bare(20)
        for n in range(1, 20, 3):
            server.faults["reasoning", n] = [status(500)]
        condense(options_for(tmp_path, server, records))
        assert read(tmp_path / "pairs.jsonl") == filled(records)
        assert "| 20/20 [" in capsys.readouterr().err
        assert load_problems(tmp_path / "pairs.jsonl")["answer"][:] == [record["answer"] for record in records]

    @pytest.mark.parametrize("suffix", [".json", ".csv", ".parquet"])
    def test_other_formats(self, server, tmp_path, suffix):
        records = [{**record, "source": "own"} for record in bare(2)]
        file = tmp_path / f"raw{suffix}"
        writer = getattr(Dataset.from_list(records), f"to_{suffix[1:]}")
        writer(file, lines=False) if suffix == ".json" else writer(file)
        output = tmp_path / "new" / "pairs.jsonl"
        condense(options_for(tmp_path, server, input=str(file), output=str(output)))
        assert read(output) == filled(records)

    @pytest.mark.parametrize(
        "second, message",
        [
            ({"question": "How many?"}, r"raw.jsonl, line 2: there is no answer"),
            ({"question": "Who?", "answer": "a cat"}, r"raw.jsonl, line 2: The gold answer 'a cat' is neither"),
            (
                {"question": "Who?", "answer": "a cat", "reasoning": "Cats."},
                r"raw.jsonl, line 2: The gold answer 'a cat'",
            ),
            ({"question": "How many <thought>s?", "answer": "1"}, r"raw.jsonl, line 2: question holds <thought>"),
            ({"question": "How many?", "answer": "1", "note": float("nan")}, r"raw.jsonl, line 2: .*JSON compliant"),
            ({"question": "How many?", "answer": "1", "note": "\ud800"}, r"raw.jsonl, line 2: .*can't encode"),
        ],
    )
    def test_bad_records_are_refused_before_anything_is_asked(self, server, tmp_path, second, message):
        with pytest.raises(ValueError, match=message):
            condense(options_for(tmp_path, server, [*bare(1), second]))
        assert not server.requests and [path.name for path in tmp_path.iterdir()] == ["raw.jsonl"]

    def test_gsm8k_s_own_records(self, server, tmp_path):
        """Their annotations are a condensed reasoning; without them one is asked for."""
        annotated = {**bare(1)[0], "answer": "1 + 3 = <<1+3=4>>4 of them.\n#### 4"}
        condense(options_for(tmp_path, server, [annotated]))
        assert read(tmp_path / "pairs.jsonl")[0]["condensed_reasoning"] == "1 + 3 = 4" and not server.requests
        (tmp_path / "pairs.jsonl").unlink()
        told = "1 + 3 = 4, so there are four of them."
        condense(options_for(tmp_path, server, [{**bare(1)[0], "answer": f"{told}\n#### 4"}]))
        assert read(tmp_path / "pairs.jsonl") == [
            {
                **bare(1)[0],
                "reasoning": "1 + 3 = 4, so there are four of them.",
                "condensed_reasoning": TEXTS["condensed_reasoning"](1, 3),
            }
        ]
        assert list(server.asked) == [("condensed_reasoning", 1)]

    def test_a_reasoning_that_is_short_already(self, server, tmp_path):
        records = [{**bare(1)[0], "reasoning": "1 + 3 = 4"}]
        condense(options_for(tmp_path, server, records, max_attempts=1))
        assert read(tmp_path / "pairs.jsonl") == [{**records[0], "condensed_reasoning": "1 + 3 = 4"}]


class TestFaults:
    @pytest.mark.parametrize("field", TEXTS)
    def test_another_attempt(self, server, tmp_path, field):
        faults = PASSING | BAD
        server.faults = {(field, n): [fault] for n, fault in enumerate(faults.values(), 1)}
        condense(options_for(tmp_path, server, bare(len(faults))))
        assert read(tmp_path / "pairs.jsonl") == filled(bare(len(faults)))
        temperatures = {
            name: [r.body["temperature"] for r in server.requests if (r.field, r.first) == (field, n)]
            for n, name in enumerate(faults, 1)
        }
        # The same request again where it came to nothing, another draw where its reply was bad.
        assert temperatures == dict.fromkeys(PASSING, [0.0, 0.0]) | dict.fromkeys(BAD, [0.0, 0.7])

    def test_replies_that_take_too_long(self, server, tmp_path):
        server.faults = {("reasoning", 1): [hang], ("reasoning", 2): [trickle]}
        started = time.monotonic()
        condense(options_for(tmp_path, server, bare(2), timeout=1.0))
        assert time.monotonic() - started < 15
        assert read(tmp_path / "pairs.jsonl") == filled(bare(2))
        assert server.asked["reasoning", 1] >= 2 and server.asked["reasoning", 2] >= 2

    @pytest.mark.parametrize(
        "field, text, message",
        [
            ("reasoning", "1 and 3 are 4. The answer is 5.", "ends in 5, not in the gold answer 4"),
            ("reasoning", "I do not know.", "ends in None, not in the gold answer 4"),
            ("condensed_reasoning", TEXTS["reasoning"](1, 3) + " So 4.", "is longer than the reasoning"),
        ],
    )
    def test_nonsense(self, server, tmp_path, capsys, field, text, message):
        server.faults[field, 1] = [says(text)] * 3
        with pytest.raises(CondenseError, match="1 of 1 records failed"):
            condense(options_for(tmp_path, server, bare(1), max_attempts=2))
        assert f"line 1: the {field.replace('_', ' ')} {message}" in capsys.readouterr().err
        condense(options_for(tmp_path, server, max_attempts=2))
        assert read(tmp_path / "pairs.jsonl") == filled(bare(1))

    @pytest.mark.parametrize(
        "reply",
        [
            "<think>\nIs it 5?\n</think>\n\n{}{}",
            "Is it 5?\n</think>\n\n{}{}",  # the server's chat template wrote the beginning
            "<think>Is it 5?</think><think>No.</think>{}{}",
            "{}\n<think>Is it 5?</think>{} <think>Yes.</think>",
        ],
    )
    def test_thoughts_that_the_server_leaves_in_are_not_reasoning(self, server, tmp_path, reply):
        text = TEXTS["reasoning"](1, 3)
        server.faults["reasoning", 1] = [says(reply.format(text[:40], text[40:]))]
        condense(options_for(tmp_path, server, bare(1), max_attempts=1))
        assert read(tmp_path / "pairs.jsonl") == filled(bare(1))

    @pytest.mark.parametrize("finish_reason", ["eos", "STOP", "", None])
    def test_ways_to_say_that_a_reply_is_whole(self, server, tmp_path, finish_reason):
        server.faults["reasoning", 1] = [says(TEXTS["reasoning"](1, 3), finish_reason=finish_reason)]
        condense(options_for(tmp_path, server, bare(1), max_attempts=1))
        assert read(tmp_path / "pairs.jsonl") == filled(bare(1))

    def test_the_body_can_be_changed(self, server, tmp_path):
        server.faults["reasoning", 1] = [says("")]
        extra = '{"temperature": null, "max_tokens": null, "max_completion_tokens": 9}'
        condense(options_for(tmp_path, server, bare(1), extra_body=extra))
        assert all(r.body.keys() == {"model", "messages", "max_completion_tokens"} for r in server.requests)
        assert len(server.requests) == 3

    def test_a_higher_temperature_stays(self, server, tmp_path):
        server.faults["reasoning", 1] = [BAD["empty"]]
        condense(options_for(tmp_path, server, bare(1), temperature=1.5))
        assert [request.body["temperature"] for request in server.requests] == [1.5] * 3

    def test_waits_grow_to_the_longest(self, server, tmp_path, monkeypatch):
        monkeypatch.setattr(module, "FIRST_BACKOFF", 0.1)
        monkeypatch.setattr(module, "LONGEST_BACKOFF", 0.4)
        server.faults["reasoning", 1] = [status(500)] * 6
        condense(options_for(tmp_path, server, bare(1), max_attempts=8))
        times = [request.time for request in server.requests]
        gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
        assert gaps[0] >= 0.1 and gaps[1] >= 0.2 and 0.4 <= gaps[2] and gaps[5] < 3.2

    def test_retry_after_holds_for_all(self, server, tmp_path):
        def refuse_later(handler: Handler) -> None:
            time.sleep(0.2)
            status(429, Retry_After="0.1")(handler)  # does not shorten the first one's pause

        server.faults = {("reasoning", 1): [status(429, Retry_After="0.9")], ("reasoning", 2): [refuse_later]}
        condense(options_for(tmp_path, server, bare(3), concurrency=2))
        refused, _, *others = [request.time for request in server.requests]
        assert len(others) == 6 and min(others) - refused >= 0.8
        assert read(tmp_path / "pairs.jsonl") == filled(bare(3))

    def test_a_pause_that_nobody_would_wait_for(self, server, tmp_path, monkeypatch):
        monkeypatch.setattr(module, "LONGEST_PAUSE", 1.5)
        server.faults["reasoning", 2] = [status(429, "for today", Retry_After="2")]
        with pytest.raises(
            CondenseError, match=r"line 2: HTTP 429: .*for today\nThe endpoint .* 2 s\. The same command"
        ):
            condense(options_for(tmp_path, server, bare(2), concurrency=1))
        condense(options_for(tmp_path, server))
        assert read(tmp_path / "pairs.jsonl") == filled(bare(2)) and len(server.requests) == 5


class TestFailures:
    def test_failed_records_are_listed_and_asked_again(self, server, tmp_path, capsys):
        server.faults = {
            ("reasoning", 2): [status(500)] * 2,
            ("condensed_reasoning", 4): [BAD["empty"], BAD["cut off"]],
        }
        with pytest.raises(CondenseError, match=r"2 of 5 records failed, and .*same command again.*--skip_failed True"):
            condense(options_for(tmp_path, server, bare(5), max_attempts=2))
        listed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("line ")]
        assert [line[:8] for line in listed] == ["line 2: ", "line 4: "]
        assert "HTTP 500" in listed[0] and "the reply was cut off (length): see --max_tokens" in listed[1]
        assert not (tmp_path / "pairs.jsonl").exists()
        texts = [reply.get(name) for reply in read(tmp_path / "pairs.jsonl.partial")[1:] for name in TEXTS]
        assert "" not in texts and len([text for text in texts if text]) == 7

        before = len(server.requests)
        condense(options_for(tmp_path, server, max_attempts=2))
        assert sorted((r.field, r.first) for r in server.requests[before:]) == [
            ("condensed_reasoning", 2),
            ("condensed_reasoning", 4),
            ("reasoning", 2),
        ]
        assert read(tmp_path / "pairs.jsonl") == filled(bare(5))
        assert not (tmp_path / "pairs.jsonl.partial").exists()

    def test_failed_records_can_be_left_out_and_made_up_for(self, server, tmp_path, capsys):
        server.faults["reasoning", 2] = [status(500)]
        condense(options_for(tmp_path, server, bare(3), max_attempts=1, skip_failed=True))
        assert read(tmp_path / "pairs.jsonl") == [filled(bare(3))[n] for n in (0, 2)]
        assert "1 records that failed were left out" in capsys.readouterr().out
        condense(options_for(tmp_path, server, overwrite=True))
        assert read(tmp_path / "pairs.jsonl") == filled(bare(3)) and len(server.requests) == 7

    def test_an_output_of_nothing_is_none(self, server, tmp_path):
        server.faults["reasoning", 1] = [status(500)]
        with pytest.raises(CondenseError, match="1 of 1 records failed"):
            condense(options_for(tmp_path, server, bare(1), max_attempts=1, skip_failed=True))
        assert not (tmp_path / "pairs.jsonl").exists()

    def test_no_server(self, server, tmp_path, capsys):
        with pytest.raises(CondenseError):
            condense(options_for(tmp_path, server, bare(1), base_url="http://127.0.0.1:9/v1", max_attempts=2))
        assert "line 1: there was no whole reply (APIConnectionError: " in capsys.readouterr().err

    @pytest.mark.parametrize("number", [400, 413, 422])
    def test_a_record_that_is_refused_fails_alone(self, server, tmp_path, capsys, number):
        server.faults = {("reasoning", n): [status(number, "too long")] * 2 for n in range(2, 20)}
        condense(options_for(tmp_path, server, bare(20), concurrency=1, skip_failed=True))
        assert read(tmp_path / "pairs.jsonl") == [filled(bare(20))[n] for n in (0, 19)]
        assert f"line 2: HTTP {number}: Error code: {number} - too long\n" in capsys.readouterr().err
        assert server.asked["reasoning", 2] == 1, "asking again would not help"

    @pytest.mark.parametrize("number", [400, 413, 422])
    def test_where_all_records_are_refused_not_all_are_asked_for(self, server, tmp_path, number):
        server.faults = {("reasoning", n): [status(number, "no such parameter")] for n in range(1, 13)}
        with pytest.raises(CondenseError, match=rf"line 8: HTTP {number}: .*no such parameter\nAsking again cannot"):
            condense(options_for(tmp_path, server, bare(12), concurrency=1, skip_failed=True))
        assert len(server.requests) == 8
        condense(options_for(tmp_path, server, concurrency=1, skip_failed=True))  # those eight are answered now
        assert read(tmp_path / "pairs.jsonl") == filled(bare(12))[:8] and server.asked["reasoning", 12] == 1

    @pytest.mark.parametrize(
        "number, code",
        [(401, None), (403, None), (404, None), (429, "insufficient_quota"), (400, "insufficient_quota")],
    )
    def test_what_cannot_be_cured_stops_the_run(self, server, tmp_path, capsys, number, code):
        server.faults = {
            (name, n): [status(number, f"Not you, {KEY}!", code)] * 5 for name in TEXTS for n in range(3, 13)
        }
        with pytest.raises(CondenseError, match=rf"line \d+: HTTP {number}: .*Not you, \[key\]!") as stopped:
            condense(options_for(tmp_path, server, bare(12), concurrency=2))
        assert KEY not in str(stopped.value) and "OPENAI_API_KEY" in str(stopped.value)
        assert len(server.requests) <= 8
        assert " replies, " in capsys.readouterr().out, "what was spent is told all the same"
        server.faults.clear()
        condense(options_for(tmp_path, server))
        assert read(tmp_path / "pairs.jsonl") == filled(bare(12))

    @pytest.mark.parametrize(
        "body, content_type",
        [(f'{{"detail": "No {KEY}!"}}', "application/json"), (f"<p>No {KEY}!" + " <br>" * 500, "text/html")],
    )
    def test_an_error_of_another_form(self, server, tmp_path, body, content_type):
        server.faults["reasoning", 1] = [lambda handler: handler.send(401, body, content_type)]
        with pytest.raises(CondenseError, match=r"line 1: HTTP 401: .*No \[key\]!") as stopped:
            condense(options_for(tmp_path, server, bare(1)))
        assert len(str(stopped.value)) < 1000


class TestPace:
    def test_concurrency(self, server, tmp_path):
        server.delay = 0.1
        condense(options_for(tmp_path, server, bare(8), concurrency=3))
        assert 2 <= server.most_active <= 3

    def test_requests_per_minute(self, server, tmp_path):
        started = time.monotonic()
        condense(options_for(tmp_path, server, bare(4), requests_per_minute=600))
        times = [request.time - started for request in server.requests]
        assert len(times) == 8 and all(time >= 0.1 * n for n, time in enumerate(sorted(times)))


class TestJournal:
    def test_a_killed_run_goes_on(self, server, tmp_path, capsys):
        records = bare(12)
        reference = tmp_path / "reference"
        reference.mkdir()
        condense(options_for(reference, server, records))
        server.requests.clear()
        server.patience = 9

        options = options_for(tmp_path, server, records, concurrency=3, price_input=1.0, price_output=10.0)
        journal = tmp_path / "pairs.jsonl.partial"
        process = subprocess.Popen(command(options), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 120
        while not (journal.exists() and journal.read_bytes().count(b"\n") == 10):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (tmp_path / "pairs.jsonl").exists()
        finished = {
            (name, int(reply["record"].split()[1])) for reply in read(journal)[1:] for name in TEXTS if name in reply
        }
        assert len(finished) == 9

        server.patience = float("inf")
        condense(options)
        assert {asked for asked in finished if server.asked[asked] > 1} == set()
        assert (tmp_path / "pairs.jsonl").read_bytes() == (reference / "pairs.jsonl").read_bytes()
        assert "24 replies, 2,400 tokens read, 240 written, cost 0.004800" in capsys.readouterr().out

    def test_a_torn_line_is_dropped(self, server, tmp_path):
        server.faults["reasoning", 2] = [BAD["empty"]] * 2
        for _ in range(2):
            with pytest.raises(CondenseError):
                condense(options_for(tmp_path, server, bare(3), max_attempts=1))
            with (tmp_path / "pairs.jsonl.partial").open("a") as file:
                file.write('{"record": "line 2", "tokens": [100, 10], "reaso')
        condense(options_for(tmp_path, server))
        assert read(tmp_path / "pairs.jsonl") == filled(bare(3))
        assert server.asked["reasoning", 2] == 3 and server.asked.total() == 8

    @pytest.mark.parametrize(
        "change, message", [({"model": "other"}, "'model': 'adder'.*'model': 'other'"), ({}, "'input'")]
    )
    def test_of_another_run(self, server, tmp_path, change, message):
        server.faults["reasoning", 1] = [status(500)]
        with pytest.raises(CondenseError):
            condense(options_for(tmp_path, server, bare(2), max_attempts=1))
        before = len(server.requests)
        with pytest.raises(
            ValueError, match=rf"pairs.jsonl.partial is of another model or input .*{message}.*remove it"
        ):
            condense(options_for(tmp_path, server, bare(2) if change else bare(3)[1:], **change))
        assert len(server.requests) == before

    @pytest.mark.parametrize("content", ["", "half a download", "a list\nof things\n"])
    def test_of_another_command(self, server, tmp_path, content):
        (tmp_path / "pairs.jsonl.partial").write_text(content)
        with pytest.raises(ValueError, match="pairs.jsonl.partial is not a journal of this command .*; move it away"):
            condense(options_for(tmp_path, server, bare(1)))
        assert (tmp_path / "pairs.jsonl.partial").read_text() == content

    def test_each_file_gets_its_name_when_it_is_whole(self, server, tmp_path, monkeypatch):
        replace, fsync, done = os.replace, os.fsync, []
        monkeypatch.setattr(os, "replace", lambda source, target: done.append(target.name) or replace(source, target))
        monkeypatch.setattr(os, "fsync", lambda file: done.append(os.fstat(file).st_size) or fsync(file))
        condense(options_for(tmp_path, server, bare(1)))
        journal, one_reply, both, output, whole = done  # names, and the sizes of what is safe on the disk
        assert (journal, output) == ("pairs.jsonl.partial", "pairs.jsonl")
        assert 0 < one_reply < both and whole == (tmp_path / "pairs.jsonl").stat().st_size

    def test_an_output_that_is_there(self, server, tmp_path):
        (tmp_path / "pairs.jsonl").write_text("mine")
        with pytest.raises(FileExistsError, match="pairs.jsonl is already there.*--overwrite True"):
            condense(options_for(tmp_path, server, bare(1)))
        assert (tmp_path / "pairs.jsonl").read_text() == "mine" and not server.requests
        condense(options_for(tmp_path, server, bare(1), overwrite=True))
        assert read(tmp_path / "pairs.jsonl") == filled(bare(1))

    def test_an_output_that_is_the_input(self, server, tmp_path):
        options = options_for(tmp_path, server, bare(2), overwrite=True, skip_failed=True)
        options.output = f"{tmp_path}/../{tmp_path.name}/raw.jsonl"
        with pytest.raises(ValueError, match="raw.jsonl is the input: name another --output"):
            condense(options)
        assert read(tmp_path / "raw.jsonl") == bare(2) and not server.requests


class TestCost:
    def test_bad_replies_and_earlier_sittings_count(self, server, tmp_path, capsys):
        empty = says("", usage={"prompt_tokens": 100, "completion_tokens": 0})
        server.faults["reasoning", 1] = [empty, status(500), BAD["cut off"]]
        with pytest.raises(CondenseError):
            condense(options_for(tmp_path, server, bare(2), max_attempts=3, price_input=2.0, price_output=30.0))
        # Two for record 2 and two bad ones: (400 * 2 + 30 * 30) / 1,000,000
        assert "4 replies, 400 tokens read, 30 written, cost 0.001700\n" in capsys.readouterr().out
        condense(options_for(tmp_path, server))
        assert "6 replies, 600 tokens read, 50 written\n" in capsys.readouterr().out

    @pytest.mark.parametrize(
        "usage",
        [
            None,
            {"prompt_tokens": "5", "completion_tokens": {"text": 3}},
            {"prompt_tokens": float("nan"), "completion_tokens": float("inf")},
            {"prompt_tokens": -1},
            {"prompt_tokens": 10**400},
        ],
    )
    def test_tokens_that_the_server_does_not_tell(self, server, tmp_path, capsys, usage):
        server.faults["reasoning", 1] = [says(TEXTS["reasoning"](1, 3), usage=usage)]
        condense(options_for(tmp_path, server, bare(1), price_input=1.0))
        cost = "2 replies, 100 tokens read, 10 written (unknown for 1 of the replies), cost 0.000100\n"
        assert cost in capsys.readouterr().out


class TestKey:
    def test_it_comes_from_the_environment_and_is_shown_nowhere(self, server, tmp_path):
        server.faults["reasoning", 2] = [status(401, f"Incorrect API key provided: {KEY}")]
        options = options_for(tmp_path, server, bare(2), concurrency=1, api_key_variable="OWN_KEY")
        environment = {**os.environ, "OWN_KEY": f"{KEY}\n", "OPENAI_API_KEY": "another"}
        ended = subprocess.run(command(options), cwd=ROOT, env=environment, capture_output=True, text=True)
        assert ended.returncode == 1 and "OWN_KEY" in ended.stderr and "Traceback" not in ended.stderr
        assert [request.key for request in server.requests] == [KEY] * 3
        seen = [ended.stdout, ended.stderr, *(path.read_text() for path in tmp_path.iterdir())]
        assert len(seen) == 4 and not any(KEY in text for text in seen)

    def test_a_server_that_needs_none(self, server, tmp_path, monkeypatch):
        monkeypatch.delenv("OPENAI_API_KEY")
        monkeypatch.setenv("OPENAI_ADMIN_KEY", KEY)
        condense(options_for(tmp_path, server, bare(1)))
        assert {request.key for request in server.requests} == {"none"}
        with pytest.raises(ValueError, match="needs a key: set the environment variable OPENAI_API_KEY"):
            options_for(tmp_path, server, base_url="https://api.openai.com/v1")

    def test_one_that_cannot_be(self, server, tmp_path, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "sk-1\nsk-2")
        with pytest.raises(ValueError, match="OPENAI_API_KEY holds a character that no key has") as refused:
            options_for(tmp_path, server)
        assert "sk-" not in str(refused.value)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"concurrency": 0}, "concurrency must be above 0, got 0"),
        ({"timeout": float("nan")}, "timeout must be above 0, got nan"),
        ({"output": "pairs.json"}, "output must end in .jsonl, got pairs.json"),
        ({"base_url": "localhost:8000/v1"}, "base_url must start with http:// or https://"),
        ({"extra_body": "{"}, "extra_body must be a JSON object, got {"),
        ({"extra_body": "[]"}, "extra_body must be a JSON object"),
        ({"extra_body": '{"temperature": "0.5"}'}, "temperature must be a number, got '0.5'"),
    ],
)
def test_bad_options(server, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        options_for(tmp_path, server, **options)


@pytest.mark.parametrize(
    "error, message",
    [(KeyboardInterrupt(), "interrupted; the same command goes on"), (OSError(28, "the disk is full"), "disk is full")],
)
def test_what_ends_the_command_is_told_in_a_line(server, tmp_path, monkeypatch, error, message):
    def stop(options: CondenseOptions) -> None:
        raise error

    monkeypatch.setattr(module, "condense", stop)
    monkeypatch.setattr(sys, "argv", command(options_for(tmp_path, server))[2:])
    with pytest.raises(SystemExit, match=rf"\Asemcot\.data\.condense: .*{message}"):
        module.main()
