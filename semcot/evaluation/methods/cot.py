"""The explicit chain of thought: the same base writes its reasoning out, then the answer."""

from collections.abc import Sequence

from semcot.evaluation.methods.method import Method, prompt_without_thoughts
from semcot.tokenization import ANSWER_CUE, PLAIN_CHAT_TEMPLATES

INSTRUCTION = ' Think step by step, then give the final answer after "Answer:".'
OPENING = " Let's think step by step."
NEXT_QUESTION = "\nQuestion:"


class ExplicitCoT(Method):
    """
    A base with a chat format is asked in the user's message to think step by step, and answers from there; one without
    is given the opening words after the cue (zero-shot CoT, arXiv 2205.11916), and stopped where it goes on to a next
    question, since many such bases never end by themselves.
    """

    name = "cot"
    max_new_tokens = 256
    explicit_reasoning = True

    @property
    def _has_chat_format(self) -> bool:
        return not any(template in self.tokenizer.chat_template for template in PLAIN_CHAT_TEMPLATES)

    @property
    def stop_string(self) -> str | None:
        return None if self._has_chat_format else NEXT_QUESTION

    def prompts(self, questions: Sequence[str]) -> list[str]:
        if not self._has_chat_format:
            return [prompt_without_thoughts(self.tokenizer, question) + OPENING for question in questions]
        prompts = [prompt_without_thoughts(self.tokenizer, question + INSTRUCTION) for question in questions]
        # In the formats of published checkpoints the cue does not stand at the end.
        parts = [prompt.rpartition(ANSWER_CUE) for prompt in prompts]
        return [before + after.rstrip(" ") for before, _, after in parts]
