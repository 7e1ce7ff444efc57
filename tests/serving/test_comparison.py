"""One question answered three ways: the answers of the methods, one computed at a time, and what the thoughts say."""

import threading
import time

import pytest
import torch
from conftest import QUESTIONS, tiny_semcot

from semcot.evaluation.methods import METHODS
from semcot.serving.comparison import Comparison


@pytest.fixture(scope="module")
def comparison():
    model, tokenizer = tiny_semcot()
    for part in (model, model.language_model):
        part.generation_config.suppress_tokens = [0, 1, 2]  # writes up to the limit
    return Comparison(model, tokenizer)


@pytest.mark.parametrize("name", Comparison.NAMES)
def test_answers_are_those_of_the_method(comparison, name):
    expected = METHODS[name](comparison.model, comparison.tokenizer).answer([QUESTIONS[2]])[0]
    answer = comparison.answer(name, QUESTIONS[2])
    assert answer[:2] == expected[:2] and answer.milliseconds > 0
    *parts, whole = comparison.stream(name, QUESTIONS[2])
    assert whole[:2] == expected[:2] and [part.num_tokens for part in parts] == list(range(1, expected.num_tokens + 1))
    assert whole.cut_off and parts[-1].text == expected.text and whole.text.startswith(parts[0].text)
    times = [part.milliseconds for part in (*parts, whole)]
    assert times == sorted(times)


def test_a_stream_lets_others_go_first_and_its_clock_stands_still(comparison, monkeypatch):
    stream = comparison.stream("cot", QUESTIONS[0])
    next(stream)
    running = threading.Event()

    def slow(questions):
        running.set()
        time.sleep(1)
        return METHODS["direct"].answer(comparison.methods["direct"], questions)

    monkeypatch.setattr(comparison.methods["direct"], "answer", slow)
    other = threading.Thread(target=comparison.answer, args=("direct", QUESTIONS[1]))
    started = time.perf_counter()
    other.start()
    assert running.wait(30) and other.is_alive(), "it had to wait for the end of the stream"
    *_, whole = stream
    assert not other.is_alive() and (time.perf_counter() - started) * 1000 > 1000
    assert whole.milliseconds < (time.perf_counter() - started) * 1000 - 900


def test_a_reader_who_leaves_ends_the_writing(comparison):
    method, written = comparison.methods["cot"], []
    stream = comparison.stream("cot", QUESTIONS[0])
    answer = method.answer

    def counted(*args, **options):
        written.append(answer(*args, **options)[0].num_tokens)
        return written

    method.answer = counted
    try:
        next(stream)
        stream.close()
        comparison.answer("direct", QUESTIONS[0])  # in turn, and so after the writing has ended or stepped aside
        for _ in range(100):
            if written:
                break
            time.sleep(0.1)
    finally:
        del method.answer
    assert written and written[0] < method.max_new_tokens / 2


def test_an_error_in_the_writing_reaches_the_reader(comparison, monkeypatch):
    monkeypatch.setattr(comparison.methods["cot"], "answer", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(comparison.stream("cot", QUESTIONS[0]))
    assert comparison.answer("semcot", QUESTIONS[0]).num_tokens, "and nothing is held up"


def test_thoughts_are_read_word_by_word(comparison):
    batch = comparison.tokenizer([QUESTIONS[1]], return_tensors="pt")
    read = comparison.model.read_thoughts(**batch)
    thoughts = comparison.read_thoughts(QUESTIONS[1])
    assert [word for word, _ in thoughts] == [comparison.tokenizer.decode([i]) for i in read.token_ids[0, :, 0]]
    torch.testing.assert_close(torch.tensor([score for _, score in thoughts]), read.scores[0, :, 0])


@pytest.mark.parametrize(
    ("question", "said"),
    [(" \n", "no question yet"), ("Is <thought> one?", "the question holds <thought>"), ("long " * 400, "reads 512")],
)
def test_what_cannot_be_asked_is_said(comparison, question, said):
    comparison.check(QUESTIONS[0])
    with pytest.raises(ValueError, match=said):
        comparison.check(question)


def test_verdicts_are_strict(comparison):
    assert comparison.verdict("semcot", " 10", "10") == comparison.verdict("cot", "So 4. Answer: 10", "10") == "right"
    assert comparison.verdict("direct", " 4, or 10", "10") == "wrong"
    assert comparison.verdict("direct", " 4", "") == ""
