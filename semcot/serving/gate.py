"""
What stands before a server's routes: the key, limits of size and time, clients that vanish, and what is counted.

An ASGI middleware for servers whose requests are small and whose answers are dear. It reads a request's body before the
routes see any of it, and ends the work on an answer as soon as its client has gone or has waited for too long.
"""

import asyncio
import contextlib
import hmac
import json

from prometheus_client import Counter, Histogram
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = ("/health", "/metrics")
"""Paths without a key."""
NOBODY = 499
"""Counted as the status where the client has gone before its answer began."""
READ_ON = 16
"""So many times the limit are read of a body that is too large: who is still sending would not see the refusal."""

REQUESTS = Counter("semcot_requests", "Requests by path and status.", ["path", "status"])
SECONDS = Histogram(
    "semcot_request_seconds",
    "From a request to the end of its answer.",
    ["path"],
    buckets=[0.05 * 2**i for i in range(12)],
)


class Gate:
    """
    Args:
        app: whose routes are `paths`; others count as one.
        api_key: asked for as `Authorization: Bearer …`, else 401.
        max_body: bytes, else 413.
        timeout: seconds for the body, else 408, and for the whole answer, else 504, or an error in a stream.
    """

    def __init__(self, app: ASGIApp, paths: list[str], api_key: str | None, max_body: int, timeout: float) -> None:
        self.app, self.paths, self.max_body, self.timeout = app, paths, max_body, timeout
        self.authorization = f"Bearer {api_key}".encode() if api_key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN:
            return await self.app(scope, receive, send)
        exchange = Exchange(send)
        path = scope["path"] if scope["path"] in self.paths else "other"
        with SECONDS.labels(path).time():
            try:
                await self._answer(scope, receive, exchange)
            finally:
                REQUESTS.labels(path, exchange.status).inc()

    async def _answer(self, scope: Scope, receive: Receive, exchange: "Exchange") -> None:
        given = Headers(scope=scope).get("authorization", "").encode()
        if self.authorization and not hmac.compare_digest(given, self.authorization):
            return await exchange.refuse(401, "The API key is missing or wrong.", {"WWW-Authenticate": "Bearer"})
        try:
            async with asyncio.timeout(self.timeout):
                body = await self._body(receive)
        except TimeoutError:
            return await exchange.refuse(408, f"The request did not arrive within {self.timeout:g} seconds.")
        if body is None:
            return
        if len(body) > self.max_body:
            return await exchange.refuse(413, f"The request has more than {self.max_body} bytes.")
        unread = [{"type": "http.request", "body": body}]

        async def replay() -> Message:
            return unread.pop() if unread else await asyncio.Event().wait()  # going away is seen below

        answer = asyncio.create_task(self.app(scope, replay, exchange.send))
        gone = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait((answer, gone), timeout=self.timeout, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
        finally:
            gone.cancel()
            answer.cancel()
            await asyncio.wait((answer,))
        if gone.done() and not gone.cancelled():
            return
        message = f"There was no answer within {self.timeout:g} seconds."
        await (exchange.break_off(message) if exchange.is_begun else exchange.refuse(504, message))

    async def _body(self, receive: Receive) -> bytes | None:
        """The body, or the beginning of one that is too large; `None` where the client has gone."""
        parts, size, more = [], 0, True
        while more and size <= READ_ON * self.max_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part, more = message.get("body", b""), message.get("more_body", False)
            if size <= self.max_body:
                parts.append(part)
            size += len(part)
        return b"".join(parts)


class Exchange:
    """What has been sent to one client."""

    def __init__(self, send: Send) -> None:
        self._send, self.status, self.is_begun = send, NOBODY, False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.is_begun = message["status"], True
        await self._send(message)

    async def refuse(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        await refusal(status, message, headers)({"type": "http"}, None, self.send)

    async def break_off(self, message: str) -> None:
        """Ends a stream with an error; a client that does not read gets no more."""
        event = f"data: {json.dumps(_error(504, message))}\n\n".encode()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self.send({"type": "http.response.body", "body": event})


def refusal(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """A response that says what was wrong as OpenAI's server does."""
    return JSONResponse(_error(status, message), status, headers)


def _error(status: int, message: str) -> dict:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "code": status}}


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
