"""No reasoning at all: the same base, the same prompt without thoughts."""

from collections.abc import Sequence

from semcot.evaluation.methods.method import Method, prompt_without_thoughts


class Direct(Method):
    """The base without thinking: the floor that thoughts must rise above."""

    name = "direct"

    def prompts(self, questions: Sequence[str]) -> list[str]:
        return [prompt_without_thoughts(self.tokenizer, question) for question in questions]
