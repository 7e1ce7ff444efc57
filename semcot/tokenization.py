"""The prompt format: a base's tokenizer with K thoughts before the answer cue, in chats and in plain strings alike."""

import copy
import re
from collections.abc import Sequence
from datetime import datetime

from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing
from transformers import BatchEncoding, PreTrainedTokenizerBase
from transformers.utils import logging

logger = logging.get_logger(__name__)

THOUGHT_TOKEN = "<thought>"
ANSWER_CUE = "Answer:"
_QUESTION = "\N{OBJECT REPLACEMENT CHARACTER}"  # stands for the question while a chat template is rendered
# Questions that begin and end with a letter, a digit, a sign.
_PROBES = ("Paige had 11 songs. How many are left?", "12 + 3", "if so, is it heads up", "“Why”", "(a) Élan, b) 7.")

# A base without a chat format: questions and answers under each other. After "Question:" a blank, or a new line: a
# byte-level tokenizer reads "Paige" after a blank otherwise than alone, a SentencePiece one after a new line. A
# checkpoint without a chat format is known by these beginnings, whatever follows them.
_BEGINNING = "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'BEFORE' + message['content'] }}"
PLAIN_CHAT_TEMPLATES = tuple(_BEGINNING.replace("BEFORE", "Question:" + blank) for blank in (" ", "\n"))
# Answers as they are generated begin with a blank of their own.
_OTHER_TURNS = (
    "{% elif message['role'] == 'assistant' %}{{ 'CUE ' + message['content'] | trim + '\n\n' }}"
    "{% else %}{{ message['content'] + '\n\n' }}{% endif %}"
    "{% endfor %}"
)
_TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
_FIXED_DAY = datetime(2024, 7, 26)  # which such templates themselves take where there is no clock


def build_tokenizer(
    base_tokenizer: PreTrainedTokenizerBase, num_thoughts: int, prompt: tuple[str, str] | None = None
) -> tuple[PreTrainedTokenizerBase, str]:
    """
    The tokenizer of a SemCoT checkpoint: the base's, with a `<thought>` token that is never embedded, and with
    `num_thoughts` of them and the answer cue after every question.

    An instruct base keeps its own chat format, the thoughts opening the assistant's turn; a plain base uses
    `Question: …` / `Answer:`, with a new line after `Question:` where the tokenizer needs it. A plain string is put
    into the same prompt by the post-processor, so that `pipeline("text-generation")` takes strings, chats and batches;
    where a tokenizer allows no such prompt, a warning says so.

    Args:
        base_tokenizer: the base's fast tokenizer, which stays as it is.
        num_thoughts: K.
        prompt: a format instead of these, as what stands before the question and what follows the thoughts, the latter
            in the tokens that it has alone.

    Returns:
        The tokenizer (a copy) and the prompt template of one question, with `{question}` and `{thoughts}`.

    Raises:
        ValueError: the base has a slow tokenizer, its chat template changes the question's text, of several chat
            templates none is the default, or what follows the thoughts has other tokens there than alone.
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

    if prompt is not None:
        before, cue = prompt[0], _cue_as_alone(tokenizer, prompt[1])
        chat_templates = [_BEGINNING.replace("BEFORE", before) + _OTHER_TURNS.replace("CUE", cue)]
    elif base_tokenizer.chat_template:
        chat_template = base_tokenizer.get_chat_template()  # of several named ones the default
        # With today's date a prompt would be another on every day, and not that of training.
        chat_template = _TODAY.sub(lambda call: call[1] + _FIXED_DAY.strftime(call[2]) + call[1], chat_template)
        chat_templates, cue = [chat_template], ANSWER_CUE
    else:
        before, cue = "{{ bos_token }}" if bos else "", "\n" + ANSWER_CUE
        other_turns = _OTHER_TURNS.replace("CUE", cue)
        chat_templates = [before + beginning + other_turns for beginning in PLAIN_CHAT_TEMPLATES]
    ending = (THOUGHT_TOKEN * num_thoughts + cue).replace("\n", "\\n")
    for chat_template in chat_templates:
        tokenizer.chat_template = chat_template + "{% if add_generation_prompt %}{{ '" + ending + "' }}{% endif %}"
        if around := _fixed_ids(tokenizer):
            break
    rendered = render_prompt(tokenizer, _QUESTION)
    if rendered.count(_QUESTION) != 1:
        raise ValueError("The base's chat template does not hold the user's message as it is, once.")
    prefix, suffix = rendered.split(_QUESTION)
    if not around:
        logger.warning(
            "This base's tokenizer reads a question otherwise within a prompt than alone, so that a plain string is "
            "not quite the prompt that is trained on. Pass questions as chats."
        )
        around = [tokenizer(text, add_special_tokens=False).input_ids for text in (prefix, suffix)]
    prompt_template = f"{prefix}{{question}}{suffix.replace(THOUGHT_TOKEN * num_thoughts, '{thoughts}')}"
    tokenizer.backend_tokenizer.post_processor = _around(tokenizer, *around)
    return tokenizer, prompt_template


def render_prompt(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """The prompt of one question as text, up to and with the answer cue."""
    chat = [{"role": "user", "content": question}]
    return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)


def tokenize_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> BatchEncoding:
    """`input_ids` and `attention_mask` `(batch, length)` of whole prompts, padded on the left, to be continued."""
    return tokenizer(prompts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")


def tokenize_targets(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """
    The ids of texts as they continue the answer cue, after a blank. Alone, " yes" would have a token too many where a
    tokenizer marks the beginning of every text as that of a word.
    """

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    cue = ids(ANSWER_CUE)
    wholes = ((ids(f"{ANSWER_CUE} {text}"), text) for text in texts)
    return [whole[len(cue) :] if whole[: len(cue)] == cue else ids(f" {text}") for whole, text in wholes]


def _added_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the base puts its beginning-of-sequence token before a plain string."""
    return tokenizer.bos_token_id is not None and tokenizer("a").input_ids[0] == tokenizer.bos_token_id


def _cue_as_alone(tokenizer: PreTrainedTokenizerBase, cue: str) -> str:
    """
    The text that has, behind a thought, the tokens of `cue` alone: with a blank before it where the tokenizer marks the
    beginning of a text as that of a word, and that of its later pieces not.
    """

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    for text in (cue, " " + cue):
        if ids(THOUGHT_TOKEN + text)[1:] == ids(cue):
            return text
    raise ValueError(f"This base's tokenizer reads {cue!r} otherwise behind a thought than alone, with a blank or not.")


def _fixed_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]] | None:
    """What stands before and after the ids of any question in its prompt; `None` where some are others in there."""

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    found: set[tuple[tuple[int, ...], tuple[int, ...]]] | None = None
    for probe in _PROBES:
        prompt, question = ids(render_prompt(tokenizer, probe)), ids(probe)
        last = len(prompt) - len(question)
        starts = [i for i in range(last + 1) if prompt[i : i + len(question)] == question]
        here = {(tuple(prompt[:i]), tuple(prompt[i + len(question) :])) for i in starts}
        found = here if found is None else found & here
    return tuple(map(list, min(found))) if found else None


def _around(tokenizer: PreTrainedTokenizerBase, before_ids: list[int], after_ids: list[int]) -> TemplateProcessing:
    """A post-processor that puts the prompt's fixed tokens around a plain question."""
    pieces = []
    for name, ids in (("<prompt>", before_ids), ("<cue>", after_ids)):
        pieces.append({"id": name, "ids": ids, "tokens": tokenizer.convert_ids_to_tokens(ids)})
    before, after = (f"{piece['id']}:0 " if piece["ids"] else "" for piece in pieces)
    return TemplateProcessing(
        single=f"{before}$A:0 {after}".strip(),
        pair=f"{before}$A:0 $B:0 {after}".strip(),
        special_tokens=[piece for piece in pieces if piece["ids"]],
    )
