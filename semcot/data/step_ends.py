"""A reasoning, or the ends of its steps, as tokens: what thoughts are to spell."""

from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from semcot.data.problems import split_steps

IGNORED = -100
"""Where a thought has nothing to spell."""


def token_supervision_targets(
    condensed_reasoning: str, tokenizer: PreTrainedTokenizerBase, num_thoughts: int, supervised_steps: int
) -> list[int]:
    """
    The token that each thought is to spell: of each of the last `supervised_steps` steps, the last tokens that are not
    blank, so that every result has its own place. Half of the thoughts are the last step's, the steps before it share
    the other half; with 1 supervised step the text is one step. Steps are parted by a comma or semicolon and a space.
    -100 stands in front of short steps, and for missing ones.

    With 0 supervised steps the whole reasoning is spelt, as [`in_short`] has it, from the first thought on, and the end
    of sequence behind it. One that is too long is not spelt at all.

    "3 + 8 = 11, 11 - 9 = 2, 2 + 8 = 10" gives, for K = 8 and single digits as tokens, `2 , 2 + 8 = 1 0` from 1 step,
    `- 9 = 2 8 = 1 0` from 2 and `1 1 = 2 8 = 1 0` from 3.
    """
    if not supervised_steps:
        text = in_short(condensed_reasoning, tokenizer)
        tokens = [*_tokens(text, tokenizer), tokenizer.eos_token_id]
        fits = 1 < len(tokens) <= num_thoughts
        return tokens + [IGNORED] * (num_thoughts - len(tokens)) if fits else [IGNORED] * num_thoughts
    several = supervised_steps > 1
    *earlier, last = split_steps(condensed_reasoning)[-supervised_steps:] if several else [condensed_reasoning]
    half = num_thoughts // 2

    def end(step: str, width: int) -> list[int]:
        tokens = _tokens(f" {step}", tokenizer)[-width:]
        return [IGNORED] * (width - len(tokens)) + tokens

    targets = [token for step in earlier for token in end(step, half // len(earlier))]
    targets += end(last, num_thoughts - half if several else num_thoughts)
    return [IGNORED] * (num_thoughts - len(targets)) + targets


def in_short(condensed_reasoning: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """
    The reasoning with a blank in front, and with fewer tokens. A step that goes on from the result before it leaves
    that out, "3 * 4 = 12 + 5 = 17". A step in words, "Annette does not: tails", is the first token of its first word,
    its last word and what stands behind the colon, "Ann not tails", without a comma before it.
    """
    text, result = "", ""
    for step in split_steps(condensed_reasoning):
        words, _, told = step.rpartition(": ")
        if words.strip():
            first = tokenizer.decode(_tokens(f" {words}", tokenizer)[:1])
            text += f" {first.strip()} {words.split()[-1]} {told}"
        elif result and step.startswith(f"{result} "):
            text += step.removeprefix(result)
        else:
            text += f", {told}" if text else f" {told}"
        result = told.rpartition(" = ")[2] if " = " in told else ""
    return text


def _tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Those that are not blank."""
    tokens = tokenizer(text, add_special_tokens=False).input_ids
    return [token for token in tokens if not _is_blank(token, tokenizer)]


@lru_cache(maxsize=1 << 16)
def _is_blank(token: int, tokenizer: PreTrainedTokenizerBase) -> bool:
    return not tokenizer.decode([token]).strip()
