"""The prompt format: strings, chats and batches become the same prompt."""

import string
from types import SimpleNamespace

import pytest
from conftest import TEXTS, tiny_base_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from semcot.tokenization import PLAIN_CHAT_TEMPLATES, build_tokenizer, render_prompt, tokenize_prompts

INST = "{% for m in messages %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endfor %}"
USER = "{% for m in messages %}{{ '<|user|>\n' + m['content'] + '\n' }}{% endfor %}"


def sentencepiece_like(chat_template: str | None) -> PreTrainedTokenizerFast:
    """Marks the beginnings of words, also that of a text that begins without a blank."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    alphabet = sorted({*"".join(TEXTS), *string.printable})
    trainer = trainers.BpeTrainer(special_tokens=["<unk>", "</s>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
    fast.chat_template = chat_template
    return fast


BASES = {
    "instruct": tiny_base_tokenizer,
    "plain": lambda: tiny_base_tokenizer(chat=False),
    "sentencepiece, instruct": lambda: sentencepiece_like(INST),
    "sentencepiece, plain": lambda: sentencepiece_like(None),
}


@pytest.mark.parametrize("base", BASES)
def test_string_and_chat_give_the_same_prompt(base, tmp_path, caplog):
    tokenizer, template = build_tokenizer(BASES[base](), 3)
    assert not caplog.records
    tokenizer.save_pretrained(tmp_path)
    for tokenizer in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):  # noqa: B020
        for text in TEXTS:
            rendered = render_prompt(tokenizer, text)
            assert rendered == template.format(question=text, thoughts="<thought>" * 3)
            ids = tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)
            assert ids["input_ids"] == tokenizer(rendered, add_special_tokens=False).input_ids
            thought = tokenizer.convert_tokens_to_ids("<thought>")
            plain = tokenizer(text).input_ids
            assert plain == ids["input_ids"] and plain.count(thought) == 3
            assert "<thought>" not in tokenizer.decode(plain, skip_special_tokens=True)
            assert tokenizer.decode(plain).endswith("\nAnswer:" if "plain" in base else "<thought>Answer:")


def test_where_strings_and_chats_cannot_be_the_same_prompt_a_warning_says_so(caplog):
    tokenizer, _ = build_tokenizer(sentencepiece_like(USER), 3)
    assert "a plain string is not quite the prompt that is trained on. Pass questions as chats." in caplog.text
    assert tokenizer("Why?").input_ids.count(tokenizer.convert_tokens_to_ids("<thought>")) == 3


def test_an_instruct_base_keeps_its_format_and_a_plain_one_gets_question_and_answer():
    _, chat = build_tokenizer(tiny_base_tokenizer(), 2)
    assert chat == "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{thoughts}Answer:"
    named = tiny_base_tokenizer()
    named.chat_template = {"tool_use": INST, "default": named.chat_template}
    assert build_tokenizer(named, 2)[1] == chat
    _, plain = build_tokenizer(sentencepiece_like(None), 2)
    assert plain == "Question: {question}{thoughts}\nAnswer:"
    _, plain = build_tokenizer(tiny_base_tokenizer(chat=False), 2)
    assert plain == "Question:\n{question}{thoughts}\nAnswer:"


def test_a_plain_base_keeps_its_beginning_of_sequence():
    base = sentencepiece_like(None)
    base.add_special_tokens({"bos_token": "<s>"})
    base.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", base.bos_token_id)]
    )
    tokenizer, template = build_tokenizer(base, 2)
    assert template == "<s>Question: {question}{thoughts}\nAnswer:"
    ids = tokenizer("Why?").input_ids
    assert ids == tokenizer(render_prompt(tokenizer, "Why?"), add_special_tokens=False).input_ids
    assert ids[0] == base.bos_token_id and ids.count(base.bos_token_id) == 1


def test_without_a_padding_token_the_end_of_a_text_pads():
    base = sentencepiece_like(None)
    tokenizer, _ = build_tokenizer(base, 2)
    assert base.pad_token is None and tokenizer.pad_token == "</s>"


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(ValueError, match="SimpleNamespace is a slow tokenizer"):
        build_tokenizer(SimpleNamespace(is_fast=False), 2)


def test_earlier_turns_hold_no_thoughts():
    tokenizer, _ = build_tokenizer(tiny_base_tokenizer(), 2)
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text.count("<thought>") == 2 and text.endswith("<thought><thought>Answer:")
    assert "<thought>" not in tokenizer.apply_chat_template(turns, tokenize=False)


@pytest.mark.parametrize("base", ["plain", "sentencepiece, plain"])
@pytest.mark.parametrize("answer", ["3", " 3", " 3\n"])
def test_earlier_answers_of_a_plain_base_are_written_as_in_training(base, answer):
    """With one blank, where what was generated has one of its own too."""
    tokenizer, template = build_tokenizer(BASES[base](), 2)
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": answer}]
    text = tokenizer.apply_chat_template([*turns, {"role": "user", "content": "c"}], tokenize=False)
    ask = template.split("{thoughts}")[0]
    assert text == f"{ask.format(question='a')}\nAnswer: 3\n\n{ask.format(question='c')}"


def test_checkpoints_that_kept_the_blank_are_still_known_as_plain():
    kept = "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'Question: ' + message['content'] }}"
    kept += "{% elif message['role'] == 'assistant' %}{{ '\nAnswer: ' + message['content'] + '\n\n' }}"
    kept += "{% else %}{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
    assert any(template in kept for template in PLAIN_CHAT_TEMPLATES)


LLAMA = (
    '{%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}'
    "{%- else %}{%- set date_string = \"26 Jul 2024\" %}{%- endif %}{{ 'Today: ' + date_string + '\n' }}"
)


@pytest.mark.parametrize(
    "dated, opening",
    [
        (LLAMA, "Today: 26 Jul 2024\n"),
        ("{% set today = strftime_now('%Y-%m-%d') %}{{ 'It is ' + today + '. ' }}", "It is 2024-07-26. "),
        ("{{ 'It is ' + strftime_now( '%B' ) + ', ' + strftime_now(\"%Y\") + '. ' }}", "It is July, 2024. "),
    ],
)
def test_a_prompt_is_the_same_on_every_day(dated, opening):
    base = tiny_base_tokenizer()
    base.chat_template = dated + base.chat_template
    tokenizer, template = build_tokenizer(base, 2)
    assert template == opening + build_tokenizer(tiny_base_tokenizer(), 2)[1]
    assert tokenizer.decode(tokenizer("a").input_ids) == template.format(question="a", thoughts="<thought>" * 2)


def test_the_base_tokenizer_is_left_alone():
    base = tiny_base_tokenizer()
    before = base("a b").input_ids, base.padding_side, dict(base.init_kwargs)
    tokenizer, _ = build_tokenizer(base, 2)
    assert (base("a b").input_ids, base.padding_side, base.init_kwargs) == before
    assert len(tokenizer) == len(base) + 1


def test_batches_are_padded_on_the_left_after_a_reload_too(tmp_path):
    base = tiny_base_tokenizer()
    base.padding_side = "right"
    tokenizer, _ = build_tokenizer(base, 2)
    tokenizer.save_pretrained(tmp_path)
    for tokenizer in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):  # noqa: B020
        mask = tokenizer(["a", "a b c d"], padding=True).attention_mask
        assert mask[0][0] == 0 and mask[0][-1] == 1
    tokenizer.padding_side = "right"
    mask = tokenize_prompts(tokenizer, ["a", "a b c d"]).attention_mask
    assert mask[0, 0] == 0 and mask[0, -1] == 1


def test_a_template_that_changes_the_question_is_refused():
    base = tiny_base_tokenizer()
    base.chat_template = "{% for m in messages %}{{ m['content'] }} {{ m['content'] }}{% endfor %}"
    with pytest.raises(ValueError, match="as it is, once"):
        build_tokenizer(base, 2)
