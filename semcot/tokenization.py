"""The prompt format: a base's tokenizer with K thoughts before the answer cue, in chats and in plain strings alike."""

import copy
from collections.abc import Sequence

from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing
from transformers import BatchEncoding, PreTrainedTokenizerBase

THOUGHT_TOKEN = "<thought>"
ANSWER_CUE = "Answer:"
_QUESTION = "\N{OBJECT REPLACEMENT CHARACTER}"  # stands for the question while a chat template is rendered

# A base without a chat format: questions and answers under each other.
PLAIN_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'Question: ' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '\n" + ANSWER_CUE + " ' + message['content'] + '\n\n' }}"
    "{% else %}{{ message['content'] + '\n\n' }}{% endif %}"
    "{% endfor %}"
)


def build_tokenizer(base_tokenizer: PreTrainedTokenizerBase, num_thoughts: int) -> tuple[PreTrainedTokenizerBase, str]:
    """
    The tokenizer of a SemCoT checkpoint: the base's, with a `<thought>` token that is never embedded, and with
    `num_thoughts` of them and the answer cue after every question.

    An instruct base keeps its own chat format, the thoughts opening the assistant's turn; a plain base uses
    `Question: …` / `Answer:`. A plain string is put into the same prompt by the post-processor, so that
    `pipeline("text-generation")` takes strings, chats and batches.

    Returns:
        The tokenizer (a copy) and the prompt template of one question, with `{question}` and `{thoughts}`.

    Raises:
        ValueError: the base has a slow tokenizer, or its chat template changes the question's text.
    """
    if not base_tokenizer.is_fast:
        raise ValueError(f"{type(base_tokenizer).__name__} is a slow tokenizer; SemCoT needs this base's fast one.")
    tokenizer = copy.deepcopy(base_tokenizer)
    bos = _added_bos(tokenizer)
    tokenizer.add_tokens([AddedToken(THOUGHT_TOKEN, special=True, normalized=False)], special_tokens=True)
    # Answers are written at the right end of a batch. A tokenizer saves what it was made with, so it is said there too.
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token

    if base_tokenizer.chat_template:
        chat_template, cue = base_tokenizer.chat_template, ANSWER_CUE
    else:
        chat_template, cue = ("{{ bos_token }}" if bos else "") + PLAIN_CHAT_TEMPLATE, "\n" + ANSWER_CUE
    ending = (THOUGHT_TOKEN * num_thoughts + cue).replace("\n", "\\n")
    tokenizer.chat_template = chat_template + "{% if add_generation_prompt %}{{ '" + ending + "' }}{% endif %}"

    rendered = render_prompt(tokenizer, _QUESTION)
    if rendered.count(_QUESTION) != 1:
        raise ValueError("The base's chat template does not hold the user's message as it is, once.")
    prefix, suffix = rendered.split(_QUESTION)
    prompt_template = f"{prefix}{{question}}{suffix.replace(THOUGHT_TOKEN * num_thoughts, '{thoughts}')}"
    tokenizer.backend_tokenizer.post_processor = _around(tokenizer, prefix, suffix)
    return tokenizer, prompt_template


def render_prompt(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """The prompt of one question as text, up to and with the answer cue."""
    chat = [{"role": "user", "content": question}]
    return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)


def tokenize_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> BatchEncoding:
    """`input_ids` and `attention_mask` `(batch, length)` of whole prompts, padded on the left, to be continued."""
    return tokenizer(prompts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")


def _added_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the base puts its beginning-of-sequence token before a plain string."""
    return tokenizer.bos_token_id is not None and tokenizer("a").input_ids[0] == tokenizer.bos_token_id


def _around(tokenizer: PreTrainedTokenizerBase, prefix: str, suffix: str) -> TemplateProcessing:
    """A post-processor that puts the prompt's fixed tokens around a plain question."""
    pieces = []
    for name, text in (("<prompt>", prefix), ("<cue>", suffix)):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        pieces.append({"id": name, "ids": ids, "tokens": tokenizer.convert_ids_to_tokens(ids)})
    before, after = (f"{piece['id']}:0 " if piece["ids"] else "" for piece in pieces)
    return TemplateProcessing(
        single=f"{before}$A:0 {after}".strip(),
        pair=f"{before}$A:0 $B:0 {after}".strip(),
        special_tokens=[piece for piece in pieces if piece["ids"]],
    )
