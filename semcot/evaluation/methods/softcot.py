"""SoftCoT: soft thoughts of a frozen assistant, projected for a frozen base, which then writes its reasoning out."""

import os
from collections.abc import Sequence

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from checkpoint_semcot import find_base
from semcot.evaluation.methods.cot import INSTRUCTION
from semcot.evaluation.methods.method import padded
from semcot.evaluation.methods.trained import Problem, TrainedMethod, around
from semcot.tokenization import build_tokenizer

ASSISTANT_INSTRUCTION = "Think of the steps that solve this problem, for another model to read. "


class SoftCoT(TrainedMethod):
    """
    Soft chain-of-thought prompting (Xu et al. 2025, arXiv 2502.12134, section 3). A frozen assistant reads its
    instruction, the question and N placeholders; its last hidden states there, projected, stand in the frozen base's
    prompt before the reasoning R and the answer A, which it writes,

        h = Assistant([I, Q, <unk>_{1:N}]),    T_soft = W h_{|I|+|Q|+1 : |I|+|Q|+N} + b
        L = CE(R, A | I', Q, T_soft)

    and W and b alone are trained.

    Args:
        num_thoughts: N; 4 in the released code's commands.
        assistant: name or folder of the assistant, a causal LM; by default the base itself.
    """

    name = "softcot"
    max_new_tokens = 256
    explicit_reasoning = True
    needs = ("reasoning", "answer")

    def __init__(
        self,
        base: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        num_thoughts: int = 4,
        assistant: str | None = None,
    ) -> None:
        super().__init__(base, tokenizer)
        if num_thoughts < 1:
            raise ValueError(f"num_thoughts must be at least 1, got {num_thoughts}.")
        self.num_thoughts = num_thoughts
        self.assistant, self.assistant_tokenizer = base, tokenizer
        if assistant is not None:
            source = find_base(assistant, os.curdir)
            self.assistant = AutoModelForCausalLM.from_pretrained(source, dtype=base.dtype)
            self.assistant_tokenizer, _ = build_tokenizer(AutoTokenizer.from_pretrained(source), num_thoughts=1)
        self.base.requires_grad_(False)
        self.assistant.requires_grad_(False)
        width, own_width = (model.get_input_embeddings().weight.shape[1] for model in (base, self.assistant))
        self.projection = nn.Linear(own_width, width, dtype=base.dtype)

    def loss(self, problems: Sequence[Problem], stage: int) -> torch.Tensor:
        questions = [problem["question"] for problem in problems]
        return self.cross_entropy(self.prompt_ids(questions), self.written(problems), self.think(questions))

    def written(self, problems: Sequence[Problem]) -> list[list[int]]:
        """The token ids of R and A, begun without a blank, as a frozen base begins by itself."""
        end = self.tokenizer.eos_token
        texts = [f"{problem['reasoning'].strip()}\nAnswer: {problem['answer']}{end}" for problem in problems]
        return self.tokenizer(texts, add_special_tokens=False).input_ids

    def think(self, questions: Sequence[str]) -> torch.Tensor:
        """T_soft, `(batch, N, width of the base)`."""
        tokenizer = self.assistant_tokenizer
        unknown = tokenizer.pad_token_id if tokenizer.unk_token_id is None else tokenizer.unk_token_id
        asked = around(tokenizer, [ASSISTANT_INSTRUCTION + question for question in questions])
        rows = [before + [unknown] * self.num_thoughts for before, _ in asked]
        input_ids, attention_mask = padded(rows, unknown, "right", self.device)
        with torch.no_grad():
            states = self.assistant.base_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        ends = attention_mask.sum(1, keepdim=True)
        places = ends - self.num_thoughts + torch.arange(self.num_thoughts, device=self.device)
        states = states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))
        return self.projection(states.to(self.projection.weight.dtype))

    def prompt_ids(self, questions: Sequence[str]) -> list[list[int]]:
        asked = self.around([question + INSTRUCTION for question in questions])
        return [before + [self.thought_id] * self.num_thoughts for before, _ in asked]

    def beside(self, questions: Sequence[str]) -> dict[str, torch.Tensor]:
        return {"vectors": self.think(questions)}

    def generate(self, **inputs) -> torch.LongTensor:
        return self.generate_after(**inputs)
