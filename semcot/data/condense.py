"""
Writes the reasoning and the condensed reasoning that records lack, through any OpenAI-compatible endpoint:
`python -m semcot.data.condense --input raw.jsonl --output pairs.jsonl --base_url URL --model NAME`

Every reply is kept at once in a journal beside the output, `pairs.jsonl.partial`: the same command, given again after
a kill or a failure, asks only for what is missing. The output appears when every record is complete. A record that the
endpoint refuses, as too long say, fails alone. The key comes from the environment alone, and only api.openai.com must
have one. What a record has already is never rewritten.
"""

import asyncio
import hashlib
import json
import os
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any

from openai import APIError, APIStatusError, AsyncOpenAI
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential, wait_random
from tqdm.auto import tqdm
from transformers import HfArgumentParser

from semcot.answers import answer_kind, normalize_answer, parse_answer
from semcot.data import READERS, load_problems
from semcot.files import write_text

PROMPTS = {
    "reasoning": "Reason step by step from the question to its known answer, in short plain sentences, without "
    "headings or lists, and as if the answer were not known yet. End with the sentence: The answer is {answer}.\n\n"
    "Question: {question}\n\nKnown answer: {answer}",
    "condensed_reasoning": "Condense the reasoning to its essential steps, in their order, on one line, with commas "
    "between them. Keep numbers and equations, drop all words that the answer does not need, and write nothing else. "
    "An example of the form: 2 + 6 = 8, 8 * 10 = 80\n\nQuestion: {question}\n\nReasoning: {reasoning}",
}
# Where a server leaves them in the reply; some chat templates open them themselves, so that only the end is there.
THOUGHTS = re.compile(r"\A(?:(?!<think>).)*</think>|\s*<think>.*?</think>", re.DOTALL)
ENDED = ("stop", "eos", "eos_token", "stop_sequence", "end_turn", "complete")  # as servers call a reply that is whole
RETRY_TEMPERATURE = 0.7  # at least, after a bad reply: a greedy model would write the same again
FIRST_BACKOFF, LONGEST_BACKOFF = 1.0, 60.0  # seconds
LONGEST_PAUSE = 3600.0  # seconds that an endpoint may ask for; more, and a day's quota is used up
PASSING_STATUSES = (408, 409, 425, 429)  # and all from 500
REFUSING_STATUSES = (400, 413, 422)  # of one record, too long or filtered; of all where the request as such is at fault
MOST_REFUSED = 8  # records, before any reply: then it is the request


@dataclass
class CondenseOptions:
    """Options of `python -m semcot.data.condense`."""

    input: str = field(metadata={"help": "Records with question and answer: a file or a data set, as for training."})
    output: str = field(metadata={"help": "The .jsonl file for the complete records, all their fields kept."})
    model: str = field(metadata={"help": "The model's name at the endpoint."})
    base_url: str = field(default="https://api.openai.com/v1", metadata={"help": "The endpoint."})
    api_key_variable: str = field(default="OPENAI_API_KEY", metadata={"help": "Environment variable with the key."})
    concurrency: int = field(default=8, metadata={"help": "Requests under way at once, at most."})
    requests_per_minute: float = field(default=float("inf"), metadata={"help": "At most, evenly spread."})
    timeout: float = field(default=120.0, metadata={"help": "Seconds until a whole reply must be there."})
    max_attempts: int = field(
        default=8, metadata={"help": "Requests for one text before its record counts as failed; 8 take two minutes."}
    )
    temperature: float = field(default=0.0, metadata={"help": "Of the first request; 0.7 or more after a bad reply."})
    max_tokens: int = field(default=1024, metadata={"help": "Of a reply; one that is cut off is a bad one."})
    extra_body: str = field(default="{}", metadata={"help": "JSON merged into each request; null takes a field out."})
    price_input: float = field(default=0.0, metadata={"help": "Price of a million prompt tokens."})
    price_output: float = field(default=0.0, metadata={"help": "Price of a million tokens written."})
    skip_failed: bool = field(default=False, metadata={"help": "Write the output without the records that failed."})
    overwrite: bool = field(default=False, metadata={"help": "Replace an output that is there."})

    def __post_init__(self) -> None:
        for name in ("concurrency", "requests_per_minute", "timeout", "max_attempts", "max_tokens"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")
        if not self.output.endswith(".jsonl"):
            raise ValueError(f"output must end in .jsonl, got {self.output}.")
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must start with http:// or https://, got {self.base_url}.")
        try:
            body = {"temperature": self.temperature, "max_tokens": self.max_tokens} | json.loads(self.extra_body)
        except (TypeError, ValueError) as error:
            raise ValueError(f"extra_body must be a JSON object, got {self.extra_body}.") from error
        self.body = {name: value for name, value in body.items() if value is not None}
        if not isinstance(self.body.get("temperature", 0), int | float):
            raise ValueError(f"temperature must be a number, got {self.body['temperature']!r}.")
        self.key = os.environ.get(self.api_key_variable, "").strip()  # no field: it must not be shown
        if not self.key and "//api.openai.com" in self.base_url:
            raise ValueError(f"{self.base_url} needs a key: set the environment variable {self.api_key_variable}.")
        if not re.fullmatch("[!-~]*", self.key):
            raise ValueError(f"{self.api_key_variable} holds a character that no key has; set it afresh.")


class CondenseError(RuntimeError):
    """The run ended before every record was complete."""


class RecordError(Exception):
    """A record cannot be completed; others may."""


class AttemptError(RecordError):
    """A request came to nothing; another may not."""


def missing(record: dict[str, Any]) -> list[str]:
    """The fields that are still to be written."""
    return [name for name in PROMPTS if not record[name]]


def to_line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"


def read_records(source: str) -> dict[str, dict[str, Any]]:
    """
    A file's records by their places ("line 3"): question and the like as `load_problems` gives them, other fields too.
    Raises what it raises, and `ValueError` where JSON cannot hold a field.
    """
    problems, path = load_problems(source).to_list(), Path(source)
    reader = READERS.get(path.suffix.lower())
    rows = reader(path) if reader else ((f"record {number}", {}) for number, _ in enumerate(problems, 1))
    records = {where: {**row, **problem} for (where, row), problem in zip(rows, problems, strict=True)}
    for where, record in records.items():
        try:
            to_line(record).encode()
        except (TypeError, ValueError) as error:
            raise ValueError(f"{source}, {where}: {error}") from error
    return records


class Journal:
    """
    The replies of a run, one a line, so that none is paid for twice. The first line says what run it is. Every
    other has `record` (its place), `tokens` (read and written, 0 if the server did not say) and, if the reply was good,
    the text under its field's name. Raises `ValueError` if the file is no journal, or another run's.
    """

    def __init__(self, path: Path, run: dict[str, str]) -> None:
        if not path.exists():
            write_text(path, to_line(run))
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]  # a line without its end was cut short by a kill
        try:
            begun, *self.replies = map(json.loads, whole.splitlines())
        except ValueError as error:
            raise ValueError(f"{path} is not a journal of this command ({error}); move it away.") from error
        if begun != run:
            raise ValueError(f"{path} is of another model or input ({begun}, not {run}): give that, or remove it.")
        self.path, self.file = path, path.open("ab")
        self.file.truncate(len(whole))

    def add(self, where: str, tokens: list[int], texts: dict[str, str]) -> None:
        """Stores a reply; when this returns, it is on the disk."""
        self.replies.append({"record": where, "tokens": tokens, **texts})
        self.file.write(to_line(self.replies[-1]).encode())
        self.file.flush()
        os.fsync(self.file.fileno())

    def cost(self, price_input: float, price_output: float) -> str:
        """All tokens of the run, those of bad replies and of earlier sittings too, and what they cost."""
        read, written = (sum(reply["tokens"][i] for reply in self.replies) for i in (0, 1))
        text = f"{len(self.replies)} replies, {read:,} tokens read, {written:,} written"
        if uncounted := sum(not any(reply["tokens"]) for reply in self.replies):
            text += f" (unknown for {uncounted} of the replies)"
        cost = (read * price_input + written * price_output) / 1e6
        return f"{text}, cost {cost:.6f}" if price_input or price_output else text


class Condenser:
    """Asks for what records lack. `failures` has, by a record's place, why its last request came to nothing."""

    def __init__(self, options: CondenseOptions, journal: Journal) -> None:
        self.options, self.journal = options, journal
        # Without a key the client would look for one elsewhere. The time-out of the whole reply is set in `_ask`.
        key = options.key or "none"
        self.client = AsyncOpenAI(base_url=options.base_url, api_key=key, max_retries=0, timeout=None)
        self.failures: dict[str, str] = {}
        self.num_refused = 0
        self.slots = asyncio.Semaphore(options.concurrency)
        self.free_at = 0.0  # when the next request may start, on the monotonic clock

    async def run(self, records: dict[str, dict[str, Any]]) -> None:
        """Completes records or notes their failure. Raises `CondenseError` when asking again cannot cure anything."""
        with tqdm(total=len(records), desc="condense", unit="record") as self.progress:
            try:
                async with self.client, asyncio.TaskGroup() as group:
                    for where, record in records.items():
                        group.create_task(self._complete(where, record))
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None  # the other tasks were cancelled, or met the same

    async def _complete(self, where: str, record: dict[str, Any]) -> None:
        async with self.slots:
            try:
                for name in missing(record):
                    record[name] = await self._ask(where, record, name)
                self.progress.update()
            except RecordError as error:
                self.failures[where] = str(error)

    async def _ask(self, where: str, record: dict[str, Any], name: str) -> str:
        """Asks for one text until it is good. Raises the last `AttemptError`, a `RecordError` or `CondenseError`."""
        options, body = self.options, dict(self.options.body)
        messages = [{"role": "user", "content": PROMPTS[name].format(**record)}]
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(AttemptError),
            stop=stop_after_attempt(options.max_attempts),
            wait=wait_exponential(FIRST_BACKOFF, LONGEST_BACKOFF) + wait_random(0, FIRST_BACKOFF),
            before_sleep=lambda state: self.progress.set_postfix_str(shorten(f"{state.outcome.exception()}", 60)),
            reraise=True,
        ):
            with attempt:
                await self._wait_for_turn()
                try:
                    async with asyncio.timeout(options.timeout):
                        create = self.client.chat.completions.create
                        reply = await create(model=options.model, messages=messages, extra_body=body)
                except (APIError, TimeoutError, ValueError, RecursionError) as error:
                    raise self._judge(error, where) from error
                text, fault = read_reply(reply, name, record)
                usage = getattr(reply, "usage", None)
                tokens = [_count(getattr(usage, kind, None)) for kind in ("prompt_tokens", "completion_tokens")]
                self.journal.add(where, tokens, {} if fault else {name: text})
                if fault:
                    if "temperature" in body:
                        body["temperature"] = max(body["temperature"], RETRY_TEMPERATURE)
                    raise AttemptError(fault)
        return text

    async def _wait_for_turn(self) -> None:
        while (wait := self.free_at - time.monotonic()) > 0:  # again: another was first, or a 429 put it off
            await asyncio.sleep(wait)
        self.free_at = time.monotonic() + 60 / self.options.requests_per_minute

    def _judge(self, error: Exception, where: str) -> Exception:
        """
        The meaning of a client's error: an `AttemptError`, or, where asking again cannot cure it, a `RecordError` if it
        may be this record's fault, else a `CondenseError`.
        """
        if isinstance(error, TimeoutError):
            return AttemptError(f"there was no whole reply within {self.options.timeout:g} s")
        if not isinstance(error, APIStatusError):
            return AttemptError(f"there was no whole reply ({type(error).__name__}: {error.__cause__ or error})")
        message = error.message  # the client puts in what the server wrote only where it stands in OpenAI's place
        if error.body and " - " not in message:
            message += f" - {error.body}"
        message = message.replace(self.options.key or "\0", "[key]")  # some servers repeat it
        message = f"HTTP {error.status_code}: {shorten(message, 300)}"
        passing = error.status_code in PASSING_STATUSES or error.status_code >= 500
        if passing and error.code != "insufficient_quota":
            seconds = error.response.headers.get("retry-after", "")
            if re.fullmatch(r"\d+(\.\d+)?", seconds):  # the other form, a date, is not in use at such endpoints
                if float(seconds) > LONGEST_PAUSE:
                    return CondenseError(
                        f"{where}: {message}\nThe endpoint wants no request for {seconds} s. The same command then "
                        f"goes on from {self.journal.path}."
                    )
                self.free_at = max(self.free_at, time.monotonic() + float(seconds))
            return AttemptError(message)
        if error.status_code in REFUSING_STATUSES and error.code != "insufficient_quota":
            self.num_refused += 1
            if self.num_refused < MOST_REFUSED or self.journal.replies:
                return RecordError(message)
        return CondenseError(
            f"{where}: {message}\nAsking again cannot cure this. Check --base_url (it mostly ends in /v1), --model and "
            f"the key in {self.options.api_key_variable}; the same command then goes on from {self.journal.path}."
        )


def _count(tokens: Any) -> int:
    """A server's number of tokens; 0 where it is none, for the journal must stay one that can be summed up."""
    return int(tokens) if isinstance(tokens, int | float) and 0 <= tokens < 1e15 else 0


def read_reply(reply: Any, name: str, record: dict[str, Any]) -> tuple[str, str | None]:
    """The text in a reply that shall be the field `name` of the record, and what makes it a bad one, or `None`."""
    try:
        choice = reply.choices[0]
        text = THOUGHTS.sub("", choice.message.content or "").strip()
        text.encode()
    except (AttributeError, LookupError, TypeError, UnicodeEncodeError):
        return "", "the reply is no chat completion"
    if choice.finish_reason and str(choice.finish_reason).lower() not in ENDED:
        advice = ": see --max_tokens" if choice.finish_reason == "length" else ""
        return text, f"the reply was cut off ({choice.finish_reason}){advice}"
    if not text:
        return text, "the reply is empty"
    if re.search("</?think>", text):
        return text, "the reply's thoughts have no end"
    if name == "reasoning":
        kind, gold = answer_kind(record["answer"]), normalize_answer(record["answer"])
        if (found := parse_answer(text, kind, explicit_reasoning=True)) != gold:
            return text, f"the reasoning ends in {found}, not in the gold answer {gold}"
    elif len(text) > len(record["reasoning"]):
        return text, "the condensed reasoning is longer than the reasoning"
    return text, None


def condense(options: CondenseOptions) -> None:
    """
    Completes the records of `options.input` and writes them, in their order, to `options.output`. Raises `ValueError`
    for a bad record or journal or an output that is the input, `FileNotFoundError` and `FileExistsError` for the input
    and the output, and `CondenseError` if records failed or the endpoint refused: then the journal alone is there.
    """
    output = Path(options.output)
    if output.resolve() == Path(options.input).resolve():  # a record that is left out would be in no file
        raise ValueError(f"{output} is the input: name another --output.")
    if output.exists() and not options.overwrite:
        raise FileExistsError(f"{output} is already there: name another --output, or give --overwrite True.")
    records = read_records(options.input)
    digest = hashlib.sha256(to_line(records).encode()).hexdigest()[:16]
    output.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(output.with_name(f"{output.name}.partial"), {"model": options.model, "input": digest})
    with journal.file:
        for reply in journal.replies:
            records[reply["record"]] |= {name: reply[name] for name in PROMPTS if name in reply}
        condenser = Condenser(options, journal)
        try:
            asyncio.run(condenser.run(records))
        finally:
            print(journal.cost(options.price_input, options.price_output))

    failed = [where for where, record in records.items() if missing(record)]
    for where in failed:
        print(f"{where}: {condenser.failures[where]}", file=sys.stderr)
    if failed and not options.skip_failed or len(failed) == len(records):
        raise CondenseError(
            f"{len(failed)} of {len(records)} records failed, and {output} was not written. Run the same command again "
            f"(what is done is in {journal.path}), or leave them out with --skip_failed True."
        )
    write_text(output, "".join(to_line(record) for record in records.values() if not missing(record)))
    with output.open("rb") as file:
        os.fsync(file.fileno())  # before the journal goes
    if failed:
        print(f"{len(failed)} records that failed were left out; {journal.path} stays, for when they are asked again.")
    else:
        journal.path.unlink()
    print(f"{output}: {len(records) - len(failed)} complete records.")


def main() -> None:
    parser = HfArgumentParser(CondenseOptions, prog="semcot.data.condense", allow_abbrev=False)
    try:
        condense(parser.parse_args_into_dataclasses()[0])
    except (CondenseError, ValueError, OSError) as error:
        sys.exit(f"semcot.data.condense: {error}")
    except KeyboardInterrupt:
        sys.exit("semcot.data.condense: interrupted; the same command goes on from here.")


if __name__ == "__main__":
    main()
