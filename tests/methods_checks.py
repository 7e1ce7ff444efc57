"""Tiny trained methods and a few problems that they can fit in seconds."""

import functools

import torch
from conftest import tiny_base_tokenizer, tiny_language_model

from semcot.evaluation.methods import TRAINED, TrainedMethod
from semcot.evaluation.methods.cot import INSTRUCTION
from semcot.tokenization import build_tokenizer

SUMS = [(3, 4), (2, 5), (8, 1), (6, 6)]
PROBLEMS = [
    {
        "question": f"Paige had {a} songs and added {b}. How many songs?",
        "reasoning": f"{a} songs and {b} songs are {a + b}.",
        "condensed_reasoning": f"{a} + {b} = {a + b}",
        "answer": str(a + b),
    }
    for a, b in SUMS
]
SETTINGS: dict[str, dict] = {
    "icot_si": {"num_tokens": 8},
    "softcot": {"num_thoughts": 1},
    "codi": {"num_latents": 4},
    "pccot": {"num_latents": 5, "iterations": 2},
    "lotus": {"max_stage": 2, "thoughts_per_step": 8, "loops": 2},
}
"""Those that suit problems of this size."""


def tiny_method(name: str, family: str = "llama", chat: bool = True, **settings) -> TrainedMethod:
    """A method on a random base of 4 layers, in eval mode."""
    tokenizer, _ = build_tokenizer(tiny_base_tokenizer(chat), num_thoughts=1)
    base = tiny_language_model(family, max_position_embeddings=1024)
    if name in FROZEN and family == "llama":
        base.load_state_dict(_reader_of_thoughts(chat))
    return TRAINED[name].make(base, tokenizer, SETTINGS.get(name, {}) | settings).eval()


def fit(method: TrainedMethod, steps: int = 150) -> float:
    """Trains it on `PROBLEMS` through all of its stages; returns the last loss."""
    learning_rate = 1e-2 if method.name in FROZEN else 3e-3
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(method.own_weights().values(), lr=learning_rate, weight_decay=0.0)
    method.train()
    for step in range(steps):
        stage = method.stage(step / steps)
        if step and stage != method.stage((step - 1) / steps):
            optimizer.state.clear()
        optimizer.zero_grad()
        loss = method.loss(PROBLEMS, stage)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(method.own_weights().values(), 1.0)
        optimizer.step()
    method.eval()
    return loss.item()


FROZEN = ("softcot",)
"""Methods whose base must be of use as it is."""


@functools.cache
def _reader_of_thoughts(chat: bool) -> dict[str, torch.Tensor]:
    """Weights of a base that reasons and answers rightly where something at the place of a thought tells it the sum."""
    method = tiny_method("cot_finetuned", chat=chat)
    table = method.base.get_input_embeddings().weight.detach().clone()
    # Each question with each sum: what it says is of no use.
    told = torch.stack([table[100 + i] for i in range(len(PROBLEMS))] * len(PROBLEMS))[:, None]
    questions = [problem["question"] + INSTRUCTION for problem in PROBLEMS for _ in PROBLEMS]
    asked = [[*before, method.thought_id] for before, _ in method.around(questions)]
    end = method.tokenizer.eos_token
    texts = [f"{problem['reasoning']}\nAnswer: {problem['answer']}{end}" for problem in PROBLEMS]
    written = method.tokenizer(texts * len(PROBLEMS), add_special_tokens=False).input_ids
    optimizer = torch.optim.AdamW(method.base.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(150):
        optimizer.zero_grad()
        method.cross_entropy(asked, written, told).backward()
        optimizer.step()
    return method.base.state_dict()
