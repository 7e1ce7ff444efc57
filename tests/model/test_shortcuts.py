"""Shortcuts of greedy decoding: the same answers in fewer passes."""

import pytest
import torch
from conftest import QUESTIONS, TEXTS, prompts, tiny_language_model, tiny_semcot
from transformers import LogitsProcessor, StoppingCriteria, TextStreamer
from transformers.generation.streamers import BaseStreamer

from building_semcot import decoder_layers, draft_marks
from configuration_semcot import SemCoTConfig


@pytest.fixture
def passes(monkeypatch):
    """Has a model draft what is given, and returns the lengths that its base reads."""

    def watch(model, drafts):
        lengths = []
        longest = max(map(len, drafts))
        drafts = torch.tensor([[*draft, *[-1] * (longest - len(draft))] for draft in drafts], dtype=torch.long)
        monkeypatch.setattr(model, "draft_answers", lambda thoughts: drafts.clone())
        model.language_model.register_forward_pre_hook(
            lambda _, args, kwargs: lengths.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
        )
        return lengths

    return watch


def answer(model, batch, **options):
    options = {"max_new_tokens": 6, "do_sample": False, **options}
    return model.generate(**batch, **options)


@pytest.mark.parametrize("ends", [0, 1, 9])
@pytest.mark.parametrize("rows", [1, 9])
def test_whatever_is_drafted_the_answers_are_the_same(family, passes, rows, ends):
    """Drafts that are right, right at first, wrong, longer than the answer, or none; answers of different lengths."""
    model, tokenizer = tiny_semcot(family)
    batch = prompts(tokenizer, QUESTIONS[:rows])
    length = batch.input_ids.shape[1]
    written = answer(model, batch, eos_token_id=None)[:, length:].tolist()
    ends = [written[row][row % 5] for row in range(min(rows, ends))] or None
    expected = answer(model, batch, eos_token_id=ends, shortcuts=False)
    for kept in range(7):
        drafts = [[*row[: (kept + i) % 7], *[(row[0] + 1) % 300] * (i % 3)] for i, row in enumerate(written)]
        lengths = passes(model, drafts)
        assert answer(model, batch, eos_token_id=ends).tolist() == expected.tolist(), drafts
        assert lengths[0][1] <= length + 5, "what could not be written is not read"


def test_one_pass_where_the_drafts_are_right(semcot, passes):
    model, tokenizer = semcot
    batch = prompts(tokenizer)
    length = batch.input_ids.shape[1]
    written = answer(model, batch, eos_token_id=None)[:, length:].tolist()
    ends = [row[i + 1] for i, row in enumerate(written)]
    expected = answer(model, batch, eos_token_id=ends, shortcuts=False)
    drafts = [row[: expected[i, length:].tolist().index(ends[i])] for i, row in enumerate(written)]
    lengths = passes(model, drafts)
    assert answer(model, batch, eos_token_id=ends).tolist() == expected.tolist()
    assert lengths == [(3, length + max(map(len, drafts)))]
    drafts[1] = [7, 7]  # this row alone goes on, in steps of one
    lengths = passes(model, drafts)
    assert answer(model, batch, eos_token_id=ends).tolist() == expected.tolist()
    assert set(lengths[1:]) == {(1, 1)}


@pytest.mark.parametrize(
    "options",
    [{"repetition_penalty": 1.5}, {"min_new_tokens": 4}, {"no_repeat_ngram_size": 1}, {"max_new_tokens": 1}, {}],
    ids=str,
)
def test_processors_see_what_they_would_without_drafts(semcot, passes, options):
    model, tokenizer = semcot

    class Watch(LogitsProcessor):
        def __init__(self):
            self.seen = []

        def __call__(self, ids, scores):
            self.seen.append(ids.tolist())
            return scores

    for rows in (1, 3):
        batch = prompts(tokenizer, QUESTIONS[:rows])
        free = answer(model, batch, eos_token_id=None, shortcuts=False)[:, batch.input_ids.shape[1] :].tolist()
        options = {"eos_token_id": free[0][3], "pad_token_id": 0, **options}
        plain, drafted = Watch(), Watch()
        expected = answer(model, batch, shortcuts=False, logits_processor=[plain], **options)
        passes(model, [[*row[:2], 7] for row in free])
        assert answer(model, batch, logits_processor=[drafted], **options).tolist() == expected.tolist()
        assert drafted.seen == plain.seen


def test_streamers_are_handed_one_token_after_another(semcot, passes, capsys):
    model, tokenizer = semcot
    batch = prompts(tokenizer, QUESTIONS[:1])
    length = batch.input_ids.shape[1]
    free = answer(model, batch, eos_token_id=None)[0, length:].tolist()

    class Keep(BaseStreamer):
        def __init__(self):
            self.put, self.got = lambda value: self.got.append(value.tolist()), []

        def end(self):
            self.got.append("end")

        def put(self, value): ...

    for draft, end in ((free[:3], free[3]), ([*free[:2], 7], free[4]), (free, None)):
        passes(model, [draft])
        plain, drafted = Keep(), Keep()
        expected = answer(model, batch, streamer=plain, shortcuts=False, eos_token_id=end)
        assert answer(model, batch, streamer=drafted, eos_token_id=end).tolist() == expected.tolist()
        assert drafted.got == plain.got and plain.got[-1] == "end"
    output = answer(model, batch, streamer=TextStreamer(tokenizer), eos_token_id=None)
    assert capsys.readouterr().out.strip() == tokenizer.decode(output[0]).strip()


def test_what_is_not_plainly_greedy_goes_the_ordinary_way(semcot, passes):
    model, tokenizer = semcot
    batch = prompts(tokenizer)
    single = prompts(tokenizer, QUESTIONS[:1])

    class Stop(StoppingCriteria):
        def __call__(self, ids, scores, **kwargs):
            return torch.full((len(ids),), ids.shape[1] >= batch.input_ids.shape[1] + 2)

    for inputs, options in (
        (batch, {"do_sample": True, "temperature": 3.0}),
        (batch, {"do_sample": True, "num_return_sequences": 2}),
        (batch, {"num_beams": 3, "num_return_sequences": 2}),
        (batch, {"stopping_criteria": [Stop()]}),
        (batch, {"use_cache": False}),
        (single, {"prompt_lookup_num_tokens": 2}),
        (single, {"cache_implementation": "static", "disable_compile": True}),
        (single, {"assistant_model": tiny_language_model(seed=5)}),
        (single, {"stop_strings": ["e", "a"], "tokenizer": tokenizer}),
    ):
        free = answer(model, inputs, eos_token_id=None, shortcuts=False)[:, inputs.input_ids.shape[1] :].tolist()
        torch.manual_seed(0)
        expected = answer(model, inputs, shortcuts=False, **options)
        lengths = passes(model, [row[:3] for row in free])
        torch.manual_seed(0)
        assert answer(model, inputs, **options).tolist() == expected.tolist(), options
        if "prompt_lookup_num_tokens" not in options and "assistant_model" not in options:
            assert lengths[0][1] == inputs.input_ids.shape[1], options
    free = answer(model, batch, eos_token_id=None, shortcuts=False)[:, batch.input_ids.shape[1] :].tolist()
    passes(model, free)
    plain, drafted = (
        answer(model, batch, return_dict_in_generate=True, output_scores=True, output_logits=True, shortcuts=shortcuts)
        for shortcuts in (False, True)
    )
    assert drafted.keys() == plain.keys() and drafted.sequences.tolist() == plain.sequences.tolist()
    assert torch.equal(torch.stack(drafted.scores), torch.stack(plain.scores))


def test_drafts_are_what_stands_behind_the_last_mark(semcot):
    model, _ = semcot
    model.config.draft_marks = {31: [223], 81: []}
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        table.copy_(torch.nn.functional.normalize(table))  # so that each token is nearest to itself
    spelt = torch.tensor([[31, 17, 18], [81, 31, 19], [31, 81, 20], [31, 21, 31], [40, 41, 42]])
    expected = [[223, 17, 18], [223, 19, -1], [20, -1, -1], [-1, -1, -1], [-1, -1, -1]]
    assert model.draft_answers(table[spelt]).tolist() == expected
    for none in ([[31, 21, 31]], [[40, 41, 42]]):
        assert model.draft_answers(table[torch.tensor(none)]) is None
    ended = torch.tensor([[31, 17, model.end_of_reasoning, 18, 81, 20]])
    assert model.draft_answers(table[ended]).tolist() == [[223, 17]]
    model.config.draft_marks = {}
    assert model.draft_answers(table[spelt]) is None


def test_a_checkpoint_knows_the_marks_of_its_tokenizer(semcot, tmp_path):
    model, tokenizer = semcot
    marks = draft_marks(tokenizer, "Answer:")
    assert tokenizer.decode(list(marks)) == "=o" and all(tokenizer.decode(blank) == " " for blank in marks.values())
    assert model.config.draft_marks == marks
    model.config.save_pretrained(tmp_path)
    assert SemCoTConfig.from_pretrained(tmp_path).draft_marks == marks


@pytest.mark.parametrize("given", [False, True])
def test_a_batch_of_many_lengths_is_read_in_parts(semcot, given):
    model, tokenizer = semcot
    batch = prompts(tokenizer, [text * (1 + i % 3) for i, text in enumerate(TEXTS * 4)])
    batch["attention_mask"] = batch.attention_mask.bool()
    shape = batch.input_ids.shape
    thoughts = {"thoughts": model.think(**batch).flip(0)} if given else {}
    free = answer(model, batch, eos_token_id=None, shortcuts=False, **thoughts)[:, shape[1] :]
    read = []
    decoder_layers(model.language_model)[0].register_forward_pre_hook(lambda _, args: read.append(args[0].shape[:2]))
    for ends, more in ((None, {}), ([int(free[1, 1]), int(free[7, 4])], {}), (int(free[0, 0]), {"pad_token_id": 7})):
        options = {"eos_token_id": ends, **more, **thoughts, "num_beams": 1, "repetition_penalty": 1.0}
        expected = answer(model, batch, shortcuts=False, **options)
        assert read.pop(0) == shape and len(expected) == shape[0]
        read.clear()
        assert answer(model, batch, **options).tolist() == expected.tolist()
        assert [rows for rows, length in read if length > 1] == [4, 4, 4], "and less padding:"
        assert sum(rows * length for rows, length in read if length > 1) < 0.9 * batch.input_ids.numel()
        read.clear()
    for whole in (
        {"max_new_tokens": 64},
        {"repetition_penalty": 1.2},
        {"num_beams": 2},
        {"do_sample": True},
        {"return_dict_in_generate": True},
        {"logits_processor": []},
    ):
        answer(model, batch, eos_token_id=int(free[0, 0]), **(whole | thoughts))
        assert read[0][1] == shape[1], whole
        read.clear()
