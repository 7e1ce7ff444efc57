"""
Interchange intervention as training data: problems whose earlier steps come from others (interchange intervention
training, arXiv 2112.00826), to teach the refiner to go on from a result that it reads.

The generator works out all steps of a reasoning at once, so that nothing forces it to make the last one from what it
spelt of those before. Here the states of the earlier steps are taken from other problems, and the last step is worked
out anew from their results: "12 / 4 = 3, 3 * 12 = 36, 36 + 31 = 67" with a 3 * 6 = 18 in the second place asks for
"18 + 31 = 49". Only reading the thoughts gets that right. Of last steps, sums and differences alone are made anew: a
product or a quotient of a result is what the generator gets right in one go. The states are computed once, and the
layers that learn go over K of them a problem, so that this reads far more problems a second than training the generator
does.
"""

import random
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from modeling_semcot import SemCoTForCausalLM
from semcot.data import Equation, split_steps
from semcot.data.step_ends import IGNORED, step_places, token_supervision_targets
from semcot.distillation.collator import DistillationCollator
from semcot.files import whole

ATTEMPTS = 30


class LastStep(NamedTuple):
    """The last step of a reasoning over the results of the earlier ones."""

    results: tuple[int, ...]
    equation: Equation
    """Its operands are numbers of the question, or "r0", "r1", … where they are earlier results."""

    def redone(self, results: tuple[int, ...]) -> str | None:
        """The step with other results before it, "18 + 31 = 49"; `None` where it gives none above 0."""
        values = {f"r{i}": result for i, result in enumerate(results)}
        return self.equation.write(values) if self.equation.solve(values) > 0 else None


def last_step(condensed_reasoning: str, supervised_steps: int) -> LastStep | None:
    """
    How the last step, a sum or a difference, goes on from those before it that the thoughts spell. `None` where it is
    the only one or another operation, where it does not go on, where one of its numbers might be either of two, or
    where a step is not true.
    """
    steps = split_steps(condensed_reasoning)
    if not 2 <= len(steps) <= supervised_steps or not all(" = " in step for step in steps):
        return None
    try:
        *earlier, last = map(Equation.parse, steps)
    except ValueError:
        return None
    results = tuple(int(step.solve()) for step in earlier)
    found = [[f"r{i}" for i, result in enumerate(results) if str(result) == name] for name in (last.left, last.right)]
    if last.operation not in "+-" or max(map(len, found)) > 1 or not any(found) or last.left == last.right:
        return None
    left, right = (next(iter(names), name) for names, name in zip(found, (last.left, last.right), strict=True))
    return LastStep(results, Equation(left, last.operation, right))


@dataclass
class InterchangeCollator(DistillationCollator):
    """
    Turns most rows of a batch into problems, drawn at random, whose earlier steps are those of others. What is drawn
    depends on the seed, the row's `index` and the pass over the problems alone, so that a resumed run repeats.

    Args:
        states: the generator's states, (problems, K, width), from [`states_of`], in the order of the problems' `index`.
        problems: the first of them, with `condensed_reasoning` and `thought_labels`; those that come after them, for
            validation, stay as they are.
        spelt: which of these problems' places are spelt right as they are, (problems, K).
        share: of the rows, those that get steps of others; the others stay as they are.
        epoch: tells which pass over the problems it is.
    """

    _: KW_ONLY
    states: np.ndarray
    problems: Dataset
    spelt: np.ndarray
    tokenizer: PreTrainedTokenizerBase
    supervised_steps: int
    share: float
    seed: int
    epoch: Callable[[], int]

    def __post_init__(self) -> None:
        texts = self.problems["condensed_reasoning"]
        self._thought_labels = list(self.problems["thought_labels"])
        self._tokens = {IGNORED, *(token for ids in self._thought_labels for token in ids)}  # that the loss tells apart
        self._last_steps = [last_step(text, self.supervised_steps) for text in texts]
        self._num_thoughts = self.states.shape[1]
        # Of problems with so many steps, for each earlier one, those whose thoughts there spell the whole result.
        self._donors: dict[int, list[list[int]]] = {}
        for number in range(2, self.supervised_steps + 1):
            places = step_places(number, self._num_thoughts)
            self._donors[number] = [
                [
                    i
                    for i, step in enumerate(self._last_steps)
                    if step and len(step.results) == number - 1
                    if self.spelt[i, where].all() and len(str(step.results[j])) <= where.stop - where.start
                ]
                for j, where in enumerate(places[:-1])
            ]
        self._receivers = [
            i for i, step in enumerate(self._last_steps) if step and all(self._donors[len(step.results) + 1])
        ]

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor | int]:
        return super().__call__([{**row, **self._draw(row["index"])} for row in rows])

    def _draw(self, index: int) -> dict[str, np.ndarray | list[int]]:
        """The columns of the problem's row that change."""
        rng = random.Random(f"{self.seed} {self.epoch()} {index}")
        if index < len(self._thought_labels) and self._receivers and rng.random() < self.share:
            for _ in range(ATTEMPTS):
                if changed := self._interchange(rng.choice(self._receivers), rng):
                    return changed
        return {"generator_states": np.array(self.states[index])}

    def _interchange(self, index: int, rng: random.Random) -> dict[str, np.ndarray | list[int]] | None:
        """A problem with other earlier steps; `None` where the last one cannot be made from those that were drawn."""
        step = self._last_steps[index]
        others = [rng.choice(donors) for donors in self._donors[len(step.results) + 1]]
        redone = step.redone(tuple(self._last_steps[i].results[j] for j, i in enumerate(others)))
        if redone is None:
            return None
        *places, last = step_places(len(others) + 1, self._num_thoughts)
        filler = ", ".join(["0"] * len(others))
        text = f"{filler}, {redone}"
        new = token_supervision_targets(text, self.tokenizer, self._num_thoughts, self.supervised_steps)
        if not self._tokens.issuperset(new[last]):
            return None
        states, labels = np.array(self.states[index]), [*self._thought_labels[index][: last.start], *new[last]]
        for other, where in zip(others, places, strict=True):
            states[where] = self.states[other, where]
            labels[where] = self._thought_labels[other][where]
        return {"generator_states": states, "thought_labels": labels}


def with_index(problems: Dataset, start: int = 0) -> Dataset:
    """The problems, numbered from `start` in a column `index`."""
    return problems.add_column("index", list(range(start, start + len(problems))))


@torch.no_grad()
def states_of(
    model: SemCoTForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    problems: Dataset,
    file: Path,
    bf16: bool = False,
    batch_size: int = 32,
) -> np.ndarray:
    """
    The generator's states at the placeholders of each problem, (problems, K, width) in half precision: computed once,
    under bfloat16 autocast if `bf16`, each process its share, kept in `file` and mapped from there.
    """
    state = PartialState()
    model.eval()
    if not file.exists():
        order = np.argsort(problems["length"], kind="stable").tolist()
        found: dict[int, np.ndarray] = {}
        with state.split_between_processes(order) as share:
            for start in range(0, len(share), batch_size):
                batch = share[start : start + batch_size]
                prompts = {"input_ids": list(problems.select(batch)["prompt_ids"])}
                inputs = tokenizer.pad(prompts, padding_side="left", return_tensors="pt").to(model.device)
                with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
                    states = model.generator_states(inputs.input_ids, inputs.attention_mask)
                found |= zip(batch, states.half().cpu().numpy(), strict=True)
        shares = gather_object([found])
        if state.is_main_process:
            found = {index: rows for part in shares for index, rows in part.items()}
            with whole(file) as unfinished, unfinished.open("wb") as target:
                np.save(target, np.stack([found[index] for index in range(len(problems))]))
        state.wait_for_everyone()
    return np.load(file, mmap_mode="r")


@torch.no_grad()
def spelt_right(
    model: SemCoTForCausalLM, states: np.ndarray, thought_labels: list[list[int]], supervised_tokens: torch.LongTensor
) -> np.ndarray:
    """The places of each problem, (problems, K), that the thoughts spell right, or need not spell."""
    table = model.get_input_embeddings().weight[supervised_tokens.to(model.device)]
    right = []
    for start in range(0, len(states), 1024):
        thoughts = model.project(torch.tensor(states[start : start + 1024]).to(model.projection.weight))
        wanted = torch.tensor(thought_labels[start : start + 1024])
        read = supervised_tokens[(thoughts @ table.T.to(thoughts)).argmax(-1).cpu()]
        right.append((read == wanted) | (wanted == IGNORED))
    return torch.cat(right).numpy()
