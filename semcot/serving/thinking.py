"""
The generator before an engine that serves the base: an ASGI middleware for vLLM's own server.

A request for a completion goes in as a question and reaches the engine as embeddings of a prompt with the thoughts in
place. It is read, checked and thought about when the endpoint asks for its body, so that keys, scaling and errors are
vLLM's business; the answer, streamed or not, goes out as it is. What does not go through the thoughts is refused.
"""

import functools
import json
import logging
import os
from asyncio import gather, wrap_future
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import NamedTuple, Self

import torch
from fastapi import HTTPException
from fastapi.responses import JSONResponse
from jinja2 import TemplateError
from pydantic import ValidationError
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from modeling_semcot import SemCoTForCausalLM
from semcot.serving.prompt_embeddings import embed_prompts, encode_embeds
from semcot.serving.requests import REQUESTS, Request
from semcot.tokenization import THOUGHT_TOKEN

logger = logging.getLogger(__name__)

CHECKPOINT_VARIABLE = "SEMCOT_SERVED"
"""Names the checkpoint to the processes that vLLM starts: the arguments of [`Thinker.load`] as JSON."""
LONGEST_BODY = 2**20
"""Bytes of a request."""
TOKENS_AT_ONCE = 4096
"""Of a batch of the generator, padding included; a prompt that is longer is thought about alone."""


class Waiting(NamedTuple):
    """A prompt, its number of tokens, and what its embeddings are the result of."""

    prompt: str
    length: int
    embeds: Future


class Thinker:
    """
    A checkpoint without the layers of its base, which an engine has; where they are its generator too, with them. One
    thread thinks, each time about all that waits.

    Args:
        model: a loaded checkpoint; it can answer no more itself.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: SemCoTForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
        self.base_model = model.language_model.name_or_path or model.config.base_model_name_or_path
        if not model.config.adapter_rank:  # whose generator the base's layers are
            model.language_model = _Embeddings(model.language_model)
        self.model, self.tokenizer = model, tokenizer
        ends = model.generation_config.eos_token_id
        ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None}
        self.fields = {"stop_token_ids": sorted(ends)}
        """What every request tells the engine."""
        if (thought := model.config.thought_token_id) < model.config.text_config.vocab_size:
            self.fields["logit_bias"] = {str(thought): -100}  # a base with a padded vocabulary could write it
        self._waiting: SimpleQueue[tuple[list[dict[str, str]], Future]] = SimpleQueue()
        self._thread = ThreadPoolExecutor(1, "thinker")

    @classmethod
    def load(cls, model: str, base_model: str | None, dtype: str) -> Self:
        """
        Loads a checkpoint, on the CPU; `base_model` and errors are those of `SemCoTForCausalLM.from_pretrained`.
        """
        loaded = SemCoTForCausalLM.from_pretrained(model, base_model=base_model, dtype=dtype)
        return cls(loaded, AutoTokenizer.from_pretrained(model))

    def think(self, messages: list[dict[str, str]]) -> Future:
        """
        The prompt of a chat with its thoughts in place, as `encode_embeds` writes it, once it has been thought about.
        The future's error is a `ValueError` where the checkpoint cannot answer the chat.
        """
        future = Future()
        self._waiting.put((messages, future))
        self._thread.submit(self._think_about_all)  # and has nothing left to do where another has done it
        return future

    def _think_about_all(self) -> None:
        prompts = []
        while not self._waiting.empty():
            messages, future = self._waiting.get()
            if future.set_running_or_notify_cancel():  # else whoever asked has left
                try:
                    prompts.append(Waiting(*self._prompt(messages), future))
                except Exception as error:
                    future.set_exception(error)
        for batch in _batches(prompts):
            try:
                embeds = embed_prompts(self.model, self.tokenizer, [prompt for prompt, _, _ in batch])
                width = self.model.config.text_config.hidden_size
                for row, (_, length, future) in zip(embeds, batch, strict=True):
                    if row.shape != (length, width) or not row.isfinite().all():
                        raise RuntimeError(f"{tuple(row.shape)} finite embeddings were to be {(length, width)}.")
                    future.set_result(encode_embeds(row))
            except Exception as error:
                for *_, future in batch:
                    if not future.done():
                        future.set_exception(error)

    def _prompt(self, messages: list[dict[str, str]]) -> tuple[str, int]:
        """A chat's prompt and its number of tokens. Raises `ValueError` where the checkpoint cannot answer it."""
        if any(THOUGHT_TOKEN in message["content"] for message in messages):
            raise ValueError(f"A message holds {THOUGHT_TOKEN}, which marks a place. Take it out.")
        try:
            prompt = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise ValueError(f"The checkpoint's chat template does not take these messages: {error}") from error
        ids = self.tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
        self.model._check_prompt(ids == self.model.config.thought_token_id, None)
        return prompt, ids.shape[1]


class _Embeddings(nn.Module):
    """What is left of a base: its token embeddings."""

    def __init__(self, base: PreTrainedModel) -> None:
        super().__init__()
        self.embed_tokens = base.get_input_embeddings()

    def get_input_embeddings(self) -> nn.Module:
        return self.embed_tokens


def _batches(prompts: Iterable[Waiting]) -> Iterator[list[Waiting]]:
    """Prompts of about the same length, as many as are thought about at once."""
    batch = []
    for prompt in sorted(prompts, key=lambda prompt: prompt.length):
        if batch and (len(batch) + 1) * prompt.length > TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch


@functools.cache
def served_thinker() -> Thinker:
    """The checkpoint that the environment names."""
    return Thinker.load(**json.loads(os.environ[CHECKPOINT_VARIABLE]))


class Thinking:
    """
    The middleware. Of what it puts before, the two endpoints of `REQUESTS` can be reached, and all that is only read.

    Args:
        app: the server.
        thinker: by default the checkpoint that the environment names, on a GPU where there is one: in the memory that
            the engine, which is up by now, has left.
    """

    def __init__(self, app, thinker: Thinker | None = None) -> None:
        self.app, self.thinker = app, thinker
        if thinker is None:
            self.thinker = served_thinker()
            self.thinker.model.to("cuda" if torch.cuda.is_available() else "cpu")

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "http":
            method, path = scope["method"], scope["path"].removeprefix(scope.get("root_path", ""))
            if method == "POST" and path in REQUESTS:
                receive = self._thinking(REQUESTS[path], receive)
            elif method not in ("GET", "HEAD", "OPTIONS"):
                said = f"{method} {path} does not go through the thoughts: this server has {' and '.join(REQUESTS)}."
                error = {"message": said, "type": "NotFoundError", "param": None, "code": 404}
                return await JSONResponse({"error": error}, 404)(scope, receive, send)
        elif scope["type"] == "websocket":
            return await send({"type": "websocket.close"})
        await self.app(scope, receive, send)

    def _thinking(self, kind: type[Request], receive):
        """What the endpoint is to call in place of `receive`: the whole request, thought about."""
        is_read = False

        async def receive_thought():
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            body = json.dumps(await self._answerable(kind, await _read(receive))).encode()
            return {"type": "http.request", "body": body, "more_body": False}

        return receive_thought

    async def _answerable(self, kind: type[Request], body: bytes) -> dict:
        """The request that the engine gets. Raises `HTTPException`, which vLLM answers with."""
        try:
            request = kind.model_validate_json(body)
            embeds = await gather(*(wrap_future(self.thinker.think(chat)) for chat in request.chats()))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))[:100] or "the body"
            known = f" This server takes {', '.join(kind.model_fields)}." if first["type"] == "extra_forbidden" else ""
            raise HTTPException(400, f"{where}: {first['msg'].removeprefix('Value error, ')}.{known}") from error
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        except Exception as error:
            logger.exception("The generator failed.")
            raise HTTPException(500, "The generator failed; the server's log says why.") from error
        return request.for_engine(embeds) | self.thinker.fields


async def _read(receive) -> bytes:
    """The body of a request."""
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HTTPException(400, "The client has left.")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > LONGEST_BODY:
            raise HTTPException(413, f"The request has more than {LONGEST_BODY:,} bytes.")
    return bytes(body)
