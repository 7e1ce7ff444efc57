"""
Requests that wait together are answered together: dynamic batching for `transformers serve`.

The server's handlers hand each request to a *generation manager*; theirs calls `model.generate` for one after the
other. Here they wait in one line, and one thread answers the first together with those that have the same settings and
are about as long, in one padded batch. Each row's tokens go to its request as they come: streams stream, a row that
ends early is answered early, and a batch that nobody waits for any more is ended. Nobody is kept waiting for company: a
batch is what came while the last one was answered.
"""

import asyncio
import logging
import threading
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from prometheus_client import Counter, Gauge, Histogram
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cli.serving.utils import BaseGenerateManager, DirectStreamer, _GenerationCancelled, _StreamError
from transformers.generation.streamers import BaseStreamer

from modeling_semcot import SemCoTForCausalLM

logger = logging.getLogger(__name__)

SAMPLING = ("temperature", "top_p", "top_k", "min_p")
SERVED = {"max_new_tokens", "do_sample", "repetition_penalty", "sequence_bias", "stop_strings", *SAMPLING}
"""Settings of `generate` that a request may have of its own."""
BOOKKEEPING = {"transformers_version", "_from_model_config"}
SEED: ContextVar[int | None] = ContextVar("seed", default=None)
"""Of the request that is being handled."""

WAITING = Gauge("semcot_requests_waiting", "Requests that no batch has taken yet.")
ROWS = Histogram("semcot_batch_rows", "Requests that were answered in one batch.", buckets=[2**i for i in range(9)])
PROMPT_TOKENS = Counter("semcot_prompt_tokens", "Tokens of the prompts that were answered, without padding.")
ANSWER_TOKENS = Counter("semcot_answer_tokens", "Tokens of their answers.")


class RefusedError(ValueError):
    """A request that cannot be answered, however often it is made: status 400."""


class QueueFullError(RuntimeError):
    """As many requests wait as may: status 503."""


@dataclass(frozen=True)
class Limits:
    """What is answered, and how much of it at once."""

    max_batch: int = 16
    max_batch_tokens: int = 8192  # rows × the longest of them; a single prompt may have more
    max_queue: int = 256
    max_prompt_tokens: int = 2048
    max_new_tokens: int = 256


class Request(DirectStreamer):
    """A prompt `(length,)`; text and end of its answer go to the `queue` of whoever waits for them."""

    def __init__(
        self, prompt: torch.LongTensor, settings: GenerationConfig, group: object, ends: list[int], *streaming
    ):
        super().__init__(*streaming)
        self.prompt, self.settings, self.group, self.ends, self.seed = prompt, settings, group, ends, SEED.get()
        self.tokens: list[int] = []
        self.error: Exception | None = None
        self.is_done = False
        super().put(prompt)  # the first that a streamer is given is not the answer's

    @property
    def is_gone(self) -> bool:
        return self._cancelled.is_set()

    def put(self, token: int) -> None:
        """The next token; behind the end of a row comes padding."""
        if self.is_done or self.is_gone:
            return
        self.tokens.append(token)
        super().put(torch.tensor([token]))
        if token in self.ends:
            self.end()

    def end(self) -> None:
        if not (self.is_done or self.is_gone):
            self.is_done = True
            PROMPT_TOKENS.inc(len(self.prompt))
            ANSWER_TOKENS.inc(len(self.tokens))
            super().end()

    def fail(self, error: Exception) -> None:
        if not self.is_done:
            self.is_done, self.error = True, error
            self._enqueue(_StreamError(str(error).replace('"', "'")))  # the handlers put it between quotes


class Rows(BaseStreamer):
    """Gives each row of a batch its tokens."""

    def __init__(self, batch: list[Request]) -> None:
        self.batch, self.is_prompt = batch, True

    def put(self, value: torch.LongTensor) -> None:
        if self.is_prompt:
            self.is_prompt = False
            return
        for request, token in zip(self.batch, value.tolist(), strict=True):
            request.put(token)
        if all(request.is_done or request.is_gone for request in self.batch):
            raise _GenerationCancelled

    def end(self) -> None:
        for request in self.batch:
            request.end()


class BatchingManager(BaseGenerateManager):
    """The line of one model's requests, and the thread that answers them."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.model, self.pad = limits, None, 0
        self.waiting: list[Request] = []
        self.changed = threading.Condition()
        WAITING.set_function(lambda: len(self.waiting))
        threading.Thread(target=self._work, name="batches", daemon=True).start()

    def stop(self) -> None:
        """Nothing: the thread ends with the process."""

    def generate_streaming(
        self,
        model: PreTrainedModel,
        processor: PreTrainedTokenizerBase,
        inputs: dict,
        gen_config: GenerationConfig,
        request_id: str,
        response_parser: object = None,
    ) -> tuple[asyncio.Queue, Request]:
        """Has a request wait. Raises `RefusedError` and `QueueFullError`."""
        group = self._check(model, inputs, gen_config)
        ends = gen_config.eos_token_id or model.generation_config.eos_token_id or []
        ends = ends if isinstance(ends, list) else [ends]
        queue = asyncio.Queue()
        streaming = (processor._tokenizer, asyncio.get_running_loop(), queue, response_parser)
        request = Request(inputs["input_ids"][0], gen_config, group, ends, *streaming)
        with self.changed:
            self.model, self.pad, self.tokenizer = model, processor.pad_token_id or 0, processor
            self._forget_the_gone()
            if len(self.waiting) >= self.limits.max_queue:
                raise QueueFullError(f"{len(self.waiting)} requests wait already. Try again later.")
            self.waiting.append(request)
            self.changed.notify()
        return queue, request

    async def generate_non_streaming(
        self, model: PreTrainedModel, processor: PreTrainedTokenizerBase, inputs: dict, *args, **kwargs
    ) -> tuple[str, int, torch.LongTensor]:
        """The same, and the whole answer: its text, the prompt's length and the answer's tokens."""
        queue, request = self.generate_streaming(model, processor, inputs, *args, **kwargs)
        try:
            while not isinstance(await queue.get(), (_StreamError, type(None))):
                pass
        finally:
            request.cancel()  # where nobody waits for it any more
        if request.error is not None:
            raise request.error
        tokens = torch.tensor(request.tokens)
        return processor.decode(tokens, skip_special_tokens=True), len(request.prompt), tokens

    def _check(self, model: SemCoTForCausalLM, inputs: dict, settings: GenerationConfig) -> object:
        """
        Cuts the settings to what is served. Returns what requests have in common that may be answered together. Raises
        `RefusedError`.
        """
        own = model.generation_config.to_dict()
        asked = {name: value for name, value in settings.to_dict().items() if value not in (None, own.get(name))}
        asked = {name: value for name, value in asked.items() if name not in BOOKKEEPING}
        try:
            model._check_settings(settings, {})
            model._check_prompt(inputs["input_ids"] == model.config.thought_token_id, inputs["attention_mask"])
            if unserved := asked.keys() - SERVED:
                raise ValueError(f"{min(unserved)} cannot be used here; these can: {', '.join(sorted(SERVED))}.")
            length, limits = inputs["input_ids"].shape[1], self.limits
            if length > limits.max_prompt_tokens:
                raise ValueError(f"The prompt has {length} tokens, this server reads {limits.max_prompt_tokens}.")
            if "temperature" in asked:
                if not settings.temperature >= 0:
                    raise ValueError(f"temperature is {settings.temperature}, and must not be negative.")
                settings.do_sample = settings.temperature > 0
            if not (model.generation_config.do_sample if settings.do_sample is None else settings.do_sample):
                for name in SAMPLING:
                    setattr(settings, name, None)
                    asked.pop(name, None)
            stops = [settings.stop_strings] if isinstance(settings.stop_strings, str) else settings.stop_strings or []
            if len(stops) > 4 or not all(isinstance(stop, str) and 0 < len(stop) <= 64 for stop in stops):
                raise ValueError("stop may be up to four strings of up to 64 characters.")
            if isinstance(bias := settings.sequence_bias, dict):  # OpenAI's may be whole numbers
                settings.sequence_bias = {tokens: float(value) for tokens, value in bias.items()}
            wanted = settings.max_new_tokens
            if wanted is not None and wanted < 1:
                raise ValueError(f"{wanted} tokens are no answer.")
            settings.max_new_tokens = min(limits.max_new_tokens, wanted or limits.max_new_tokens)
        except ValueError as error:
            raise RefusedError(str(error)) from error
        # Whether a stop string stands in a row is seen by the whole batch alone, and a seed is one request's.
        alone = settings.stop_strings or (settings.do_sample and SEED.get() is not None)
        return object() if alone else repr(sorted((asked | {"max_new_tokens": settings.max_new_tokens}).items()))

    def _forget_the_gone(self) -> None:
        self.waiting = [request for request in self.waiting if not request.is_gone]

    def _next(self) -> list[Request]:
        """The first that waits and, of those like it, the nearest in length."""
        with self.changed:
            self._forget_the_gone()
            while not self.waiting:
                self.changed.wait()
                self._forget_the_gone()
            first, batch, longest = self.waiting[0], [], 0
            like = [request for request in self.waiting if request.group == first.group]
            for request in sorted(like, key=lambda one: abs(len(one.prompt) - len(first.prompt))):
                longest = max(longest, len(request.prompt))
                full = len(batch) == self.limits.max_batch or (len(batch) + 1) * longest > self.limits.max_batch_tokens
                if batch and full:
                    break
                batch.append(request)
            self.waiting = [request for request in self.waiting if request not in batch]
        return batch

    def _work(self) -> None:
        while True:
            batch = self._next()
            ROWS.observe(len(batch))
            try:
                self._answer(batch)
            except _GenerationCancelled:
                pass
            except Exception as error:
                logger.exception("A batch of %d requests failed.", len(batch))
                for request in batch:
                    request.fail(RefusedError(str(error)) if isinstance(error, ValueError) else error)

    def _answer(self, batch: list[Request]) -> None:
        if batch[0].seed is not None:
            torch.manual_seed(batch[0].seed)
        prompts = [request.prompt for request in batch]
        masks = [torch.ones_like(prompt) for prompt in prompts]
        self.model.generate(
            pad_sequence(prompts, batch_first=True, padding_value=self.pad, padding_side="left"),
            attention_mask=pad_sequence(masks, batch_first=True, padding_side="left"),
            generation_config=batch[0].settings,
            tokenizer=self.tokenizer,
            streamer=Rows(batch),
        )
