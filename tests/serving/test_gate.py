"""The gate, before an app that answers as it is told, under a real server."""

import asyncio
import socket
import threading
import time

import httpx
import pytest

pytest.importorskip("prometheus_client")

import uvicorn  # noqa: E402
from prometheus_client import REGISTRY  # noqa: E402

from semcot.serving.gate import Gate  # noqa: E402

KEY = {"Authorization": "Bearer secret"}


class Told:
    """An ASGI app: /sleep never answers, /drip streams without an end, /flood as much as is taken, others at once."""

    def __init__(self) -> None:
        self.ended = []

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        body = (await receive())["body"]
        try:
            if scope["path"] == "/sleep":
                await asyncio.Event().wait()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x-length", b"%d" % len(body))]})
            while scope["path"] in ("/drip", "/flood"):
                part = b"data: x\n\n" if scope["path"] == "/drip" else b"x" * 2**20
                await send({"type": "http.response.body", "body": part, "more_body": True})
                await asyncio.sleep(0.05 if scope["path"] == "/drip" else 0)
            await send({"type": "http.response.body", "body": b"answered"})
        except asyncio.CancelledError:
            self.ended.append(scope["path"])
            raise


@pytest.fixture(scope="module")
def told():
    return Told()


@pytest.fixture(scope="module")
def url(told):
    paths = ["/sleep", "/drip", "/flood", "/now"]
    gate = Gate(told, paths, api_key="secret", max_body=1000, timeout=3.0)
    server = uvicorn.Server(uvicorn.Config(gate, port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=10)


def counted(path: str, status: int) -> float:
    return REGISTRY.get_sample_value("semcot_requests_total", {"path": path, "status": str(status)}) or 0


def until(condition) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("not within ten seconds")


def connected(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_without_the_key_only_health_and_metrics_are_answered(url):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
        refused = httpx.post(f"{url}/now", headers=headers)
        assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
        assert "API key" in refused.json()["error"]["message"]
    assert httpx.get(f"{url}/health").text == httpx.get(f"{url}/metrics").text == "answered"
    assert httpx.post(f"{url}/now", headers=KEY).text == "answered"


def test_bodies_have_a_limit_with_and_without_a_length(url):
    def parts(size):
        yield from [b"x" * 100] * (size // 100)

    for size, status in ((1000, 200), (1100, 413), (2**20, 413)):
        for content in (b"x" * size, parts(size)):
            answer = httpx.post(f"{url}/now", headers=KEY, content=content)
            assert answer.status_code == status
    assert httpx.post(f"{url}/now", headers=KEY, content=b"x" * 1000).headers["x-length"] == "1000"


def test_a_body_that_does_not_come_is_given_up(url):
    with connected(url) as client:
        client.sendall(b"POST /now HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nContent-Length: 9\r\n\r\nx")
        assert client.recv(1000).startswith(b"HTTP/1.1 408")


def test_an_answer_that_does_not_come_is_given_up(url, told):
    before = told.ended.count("/sleep")
    answer = httpx.post(f"{url}/sleep", headers=KEY)
    assert answer.status_code == 504 and "within 3 seconds" in answer.json()["error"]["message"]
    assert told.ended.count("/sleep") == before + 1


def test_a_stream_that_does_not_end_ends_with_an_error(url, told):
    before = told.ended.count("/drip")
    answer = httpx.post(f"{url}/drip", headers=KEY)
    events = answer.text.strip().split("\n\n")
    assert events[0] == "data: x" and len(events) > 5 and '"code": 504' in events[-1]
    assert told.ended.count("/drip") == before + 1


@pytest.mark.parametrize("path", ["/sleep", "/drip"])
def test_work_for_a_client_that_vanishes_ends(url, told, path):
    before, started = told.ended.count(path), time.monotonic()
    with connected(url) as client:
        client.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n\r\n" % path.encode())
        time.sleep(0.2)
    until(lambda: told.ended.count(path) == before + 1)
    assert time.monotonic() - started < 2.5, "it did not wait for its time to be over"


def test_a_client_that_does_not_read_harms_nobody_and_is_given_up(url, told):
    before = told.ended.count("/flood")
    with connected(url) as client:
        client.sendall(b"POST /flood HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n\r\n")
        for _ in range(5):
            assert httpx.post(f"{url}/now", headers=KEY, timeout=2).text == "answered"
        until(lambda: told.ended.count("/flood") == before + 1)


def test_requests_are_counted_by_path_and_status(url):
    before = [counted("/now", 200), counted("other", 200), counted("/sleep", 499)]
    httpx.post(f"{url}/now", headers=KEY)
    httpx.post(f"{url}/a/path/of/a/client's/own", headers=KEY)
    with connected(url) as client:
        client.sendall(b"POST /sleep HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n\r\n")
        time.sleep(0.2)
    until(lambda: counted("/sleep", 499) == before[2] + 1)
    assert [counted("/now", 200), counted("other", 200)] == [before[0] + 1, before[1] + 1]
