"""The harness's model `semcot`."""

from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM

from semcot.tokenization import THOUGHT_TOKEN, render_prompt


@register_model("semcot")
class SemCoTLM(HFLM):
    """
    The harness's `hf` for SemCoT checkpoints. Every context that is no whole prompt yet becomes one, as a chat with the
    thoughts and the answer cue; what is scored stands behind the cue, with `--apply_chat_template` and without.
    """

    def __init__(self, pretrained: str, trust_remote_code: bool = True, **kwargs) -> None:
        super().__init__(pretrained, trust_remote_code=trust_remote_code, **kwargs)
        if self.config.model_type != "semcot":
            kind = self.config.model_type
            raise ValueError(f"{pretrained} is a {kind} model, not a SemCoT checkpoint: give --model hf.")
        self.add_bos_token = False  # the prompt has all the special tokens that it needs

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs) -> list[int]:
        return super().tok_encode(self._prompt(string), add_special_tokens=False, **kwargs)

    def tok_batch_encode(self, strings: list[str], *args, **kwargs) -> tuple:
        return super().tok_batch_encode([self._prompt(string) for string in strings], *args, **kwargs)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        return super()._encode_pair(self._prompt(context), continuation)

    def _prompt(self, context: str) -> str:
        return context if THOUGHT_TOKEN in context else render_prompt(self.tokenizer, context)
