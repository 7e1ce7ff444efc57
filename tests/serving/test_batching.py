"""Requests that wait together: who is answered with whom, with what, and who is not answered any more."""

import asyncio
import threading

import pytest
from conftest import QUESTIONS, prompts, tiny_semcot
from transformers import GenerationConfig

pytest.importorskip("prometheus_client")

from semcot.serving import batching  # noqa: E402

LONG = 200


class Line:
    """A manager over a tiny model, whose batches wait until they are let go."""

    def __init__(self, **limits) -> None:
        self.model, self.tokenizer = tiny_semcot()
        self.model.generation_config.eos_token_id = self.tokenizer.eos_token_id
        self.generate, self.batches, self.steps, self.released = self.model.generate, [], [], threading.Event()
        self.model.generate = self._generate
        self.manager = batching.BatchingManager(batching.Limits(**limits))

    def _generate(self, input_ids, **named):
        self.batches.append(tuple(input_ids.shape))
        assert self.released.wait(60)
        put = named["streamer"].put

        def counted(value) -> None:
            self.steps[-1] += 1
            put(value)

        self.steps.append(0)
        named["streamer"].put = counted
        return self.generate(input_ids, **named)

    def alone(self, question: str, **settings) -> list[int]:
        """The tokens that `generate` answers a question with, up to its end."""
        batch = prompts(self.tokenizer, [question])
        return self.generate(**batch, **settings)[0, batch.input_ids.shape[1] :].tolist()

    def asked(self, question: str, **settings) -> tuple:
        config = GenerationConfig()
        for name, value in settings.items():  # as the handlers set them, unseen by its own checks
            setattr(config, name, value)
        return self.model, self.tokenizer, prompts(self.tokenizer, [question]), config, "id"

    async def ask(self, question: str, **settings) -> list[int]:
        text, length, tokens = await self.manager.generate_non_streaming(*self.asked(question, **settings))
        assert length == prompts(self.tokenizer, [question]).input_ids.shape[1]
        assert text == self.tokenizer.decode(tokens, skip_special_tokens=True)
        return tokens.tolist()

    async def stream(self, question: str, **settings) -> tuple[str, list[int]]:
        queue, request = self.manager.generate_streaming(*self.asked(question, **settings))
        parts = []
        while (part := await queue.get()) is not None:
            parts.append(part)
        return "".join(parts), request.tokens

    async def busy(self) -> asyncio.Task:
        """A first request, that is a batch by itself and keeps the thread until it is let go."""
        first = asyncio.create_task(self.ask(QUESTIONS[0], max_new_tokens=1))
        while not self.batches:
            await asyncio.sleep(0.01)
            assert not first.done(), first.exception()
        return first

    async def let_go(self, *waiting) -> list:
        await asyncio.sleep(0.05)  # they are in the line
        self.released.set()
        return await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 60)


def test_those_that_wait_are_one_batch_and_get_their_own_answers():
    line, settings = Line(), {"max_new_tokens": 12, "do_sample": False}

    async def run():
        first = await line.busy()
        asked = [asyncio.create_task(line.ask(question, **settings)) for question in QUESTIONS]
        streamed = [asyncio.create_task(line.stream(question, **settings)) for question in QUESTIONS[:3]]
        return await line.let_go(first, *asked, *streamed)

    found = asyncio.run(run())[1:]
    expected = [line.alone(question, **settings) for question in QUESTIONS]
    assert len(set(map(tuple, expected))) > 3
    assert found[: len(expected)] == expected
    for (text, tokens), answer in zip(found[len(expected) :], expected, strict=False):
        assert tokens == answer
        whole = line.tokenizer.decode(answer, skip_special_tokens=True)
        assert whole.startswith(text) and (text or not whole.isascii())  # half a character is kept back
    assert [rows for rows, _ in line.batches] == [1, len(QUESTIONS) + 3]


def test_only_the_same_settings_share_a_batch_and_seeds_repeat():
    line = Line()

    async def ask_with_seed(seed: int):
        batching.SEED.set(seed)
        return await line.ask(QUESTIONS[1], max_new_tokens=12, temperature=1.0)

    async def run():
        first = await line.busy()
        seeds = [asyncio.create_task(ask_with_seed(seed)) for seed in (1, 2, 1)]
        greedy = [asyncio.create_task(line.ask(q, max_new_tokens=6, temperature=0.0)) for q in QUESTIONS[:2]]
        others = [asyncio.create_task(line.ask(q, max_new_tokens=7)) for q in QUESTIONS[:3]]
        stops = [asyncio.create_task(line.ask(q, max_new_tokens=7, stop_strings=["e"])) for q in QUESTIONS[:2]]
        return await line.let_go(first, *seeds, *greedy, *others, *stops)

    _, one, two, again, *rest = asyncio.run(run())
    assert one == again != two
    assert rest[0] == line.alone(QUESTIONS[0], max_new_tokens=6)  # temperature 0 is greedy
    assert [rows for rows, _ in line.batches] == [1, 1, 1, 1, 2, 3, 1, 1]
    tokenizer = line.tokenizer
    assert rest[-1] == line.alone(QUESTIONS[1], max_new_tokens=7, stop_strings=["e"], tokenizer=tokenizer)


def test_a_batch_has_limits_and_takes_the_nearest_in_length_to_the_first():
    line = Line(max_batch=3, max_batch_tokens=170)
    texts = ["word " * count for count in (12, 2, 3, 11, 10, 2, 60)]

    async def run():
        first = await line.busy()
        return await line.let_go(first, *[asyncio.create_task(line.ask(text, max_new_tokens=2)) for text in texts])

    assert all(isinstance(tokens, list) for tokens in asyncio.run(run()))
    lengths = [prompts(line.tokenizer, [text]).input_ids.shape[1] for text in texts]
    assert 2 * lengths[0] <= 170 < 3 * lengths[0] and lengths[-1] > 170
    assert line.batches[1:] == [(2, lengths[0]), (3, lengths[2]), (1, lengths[4]), (1, lengths[6])]


def test_a_full_line_refuses_and_those_that_went_away_leave_it():
    line = Line(max_queue=2)

    async def run():
        first = await line.busy()
        waiting = [asyncio.create_task(line.ask(question, max_new_tokens=2)) for question in QUESTIONS[:2]]
        await asyncio.sleep(0.05)
        with pytest.raises(batching.QueueFullError, match="2 requests wait"):
            await line.ask(QUESTIONS[2], max_new_tokens=2)
        waiting[0].cancel()
        await asyncio.sleep(0.05)
        waiting.append(asyncio.create_task(line.ask(QUESTIONS[2], max_new_tokens=2)))
        return await line.let_go(first, *waiting)

    _, gone, *found = asyncio.run(run())
    assert isinstance(gone, asyncio.CancelledError)
    assert found == [line.alone(question, max_new_tokens=2) for question in QUESTIONS[1:3]]
    assert [rows for rows, _ in line.batches] == [1, 2]


def test_a_batch_that_nobody_waits_for_ends():
    line = Line()
    line.released.set()
    endless = {"max_new_tokens": LONG, "sequence_bias": {(line.tokenizer.eos_token_id,): -100.0}}

    async def run():
        queue, request = line.manager.generate_streaming(*line.asked(QUESTIONS[0], **endless))
        await queue.get()
        request.cancel()
        await line.ask(QUESTIONS[1], max_new_tokens=1)  # the thread is free

    asyncio.run(run())
    assert 1 < line.steps[0] < LONG


def test_a_row_that_ends_early_is_answered_early():
    line = Line()
    lengths = {len(line.alone(question, max_new_tokens=LONG)): question for question in QUESTIONS}

    async def run():
        first = await line.busy()
        short, long = (line.ask(lengths[end(lengths)], max_new_tokens=LONG) for end in (min, max))
        short, long = asyncio.create_task(short), asyncio.create_task(long)
        await line.let_go(first, short)
        return line.steps[-1], await long

    steps, tokens = asyncio.run(run())
    assert min(lengths) < steps < LONG == len(tokens)
    assert [rows for rows, _ in line.batches] == [1, 2]


def test_what_fails_fails_for_its_own_batch_alone():
    line = Line()

    async def run():
        first = await line.busy()
        bad = [asyncio.create_task(line.ask(QUESTIONS[0], top_p=-1.0, do_sample=True)) for _ in range(2)]
        good = asyncio.create_task(line.ask(QUESTIONS[1], max_new_tokens=2))
        found = await line.let_go(first, *bad, good)
        line.model.generate = None  # a fault of the server's own
        return [*found, *await asyncio.gather(line.ask(QUESTIONS[0]), return_exceptions=True)]

    _, *bad, good, broken = asyncio.run(run())
    assert [type(error) for error in bad] == [batching.RefusedError] * 2 and "top_p" in str(bad[0])
    assert good == line.alone(QUESTIONS[1], max_new_tokens=2)
    assert isinstance(broken, TypeError)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 4}, "num_beams cannot be used here"),
        ({"guidance_scale": 2}, "guidance_scale cannot be used with implicit tokens"),
        ({"temperature": -1.0}, "must not be negative"),
        ({"max_new_tokens": 0}, "0 tokens are no answer"),
        ({"stop_strings": ["x"] * 5}, "up to four strings"),
        ({"stop_strings": [1]}, "up to four strings"),
    ],
)
def test_settings_that_are_not_served_are_refused(settings, message):
    line = Line()

    async def run():
        await line.ask(QUESTIONS[0], **settings)

    with pytest.raises(batching.RefusedError, match=message):
        asyncio.run(run())
    assert not line.batches


def test_answers_are_cut_and_long_prompts_refused():
    line = Line(max_new_tokens=3, max_prompt_tokens=100)
    line.released.set()
    config = GenerationConfig(max_new_tokens=1000)

    async def run():
        batch = prompts(line.tokenizer, [QUESTIONS[0]])
        *_, tokens = await line.manager.generate_non_streaming(line.model, line.tokenizer, batch, config, "id")
        with pytest.raises(batching.RefusedError, match="this server reads 100"):
            await line.ask("word " * 30)
        return tokens.tolist()

    assert asyncio.run(run()) == line.alone(QUESTIONS[0], max_new_tokens=3)
    assert config.max_new_tokens == 3, "the handlers tell by it that an answer was cut"


def test_the_gauge_shows_who_waits():
    line = Line()

    async def run():
        first = await line.busy()
        waiting = asyncio.create_task(line.ask(QUESTIONS[0], max_new_tokens=2))
        await asyncio.sleep(0.05)
        seen = batching.WAITING.collect()[0].samples[0].value
        await line.let_go(first, waiting)
        return seen, batching.WAITING.collect()[0].samples[0].value

    assert asyncio.run(run()) == (1, 0)
