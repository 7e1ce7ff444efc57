"""
A training pass of generator and base, with the shortcuts that a frozen base allows. None changes a loss or a gradient:

1. All prompts begin with the same tokens, the head of the chat template. Their keys and values are computed on one row
   and repeated for the others: a third of a short prompt.
2. Nothing in the base is trained, and no thought stands before the question's end: the base reads the question without
   a graph, and the gradient passes through thoughts, cue and answer alone.
3. Logits are made where a label is.

The first two split one pass into several: less arithmetic in more kernels. On a CPU that pays. A GPU that trains on
short problems waits for the launch of its kernels, and reads all in one pass (results/h200_train_throughput.json).
"""

from os.path import commonprefix
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.modeling_outputs import BaseModelOutputWithPast

from modeling_semcot import CACHE, SemCoTForCausalLM, position_ids_of

BASE = "language_model."


class StudentOutput(NamedTuple):
    """
    The generator's `states` `(batch, K, its width)`, the `thoughts` `(batch, K, hidden)` made of them and the logits of
    the targets, `(batch, num_targets, vocabulary)`, or none. Of a generator that thinks in blocks thoughts where the
    base reads them alone, and the states that would be if all before each thought were told, `one_by_one`.
    """

    states: torch.FloatTensor
    thoughts: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    one_by_one: torch.FloatTensor | None = None


class Student(nn.Module):
    """
    What the Trainer trains: its forward takes the batches of [`DistillationCollator`].

    Args:
        model: the model, whose own weights may be trained.
        shared_prefix: number of tokens that all prompts begin with; 0 takes no shortcut but the third.
    """

    def __init__(self, model: SemCoTForCausalLM, shared_prefix: int = 0) -> None:
        super().__init__()
        self.model = model
        self.shared_prefix = shared_prefix

    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.LongTensor,
        num_targets: int = 0,
        thought_labels: torch.LongTensor | None = None,
    ) -> StudentOutput:
        """
        Args:
            input_ids, attention_mask: `(batch, length)`, the thoughts of all rows in the same columns.
            num_targets: so many last positions are read for logits; 0 runs no base.
            thought_labels: `(batch, K)`, what blocks of thoughts are told (see `BlocksMixin.states_in_blocks`).
        """
        model = self.model
        if model.config.adapter_rank:
            return self._think_in_blocks(input_ids, attention_mask, num_targets, thought_labels)
        if self.shared_prefix:
            first = int((input_ids[0] == model.config.thought_token_id).nonzero()[0])
            states = self._generator_states(input_ids, attention_mask, first)
            thoughts = model.project(states)
            logits = self._logits(input_ids, attention_mask, thoughts, first, num_targets) if num_targets else None
            return StudentOutput(states, thoughts, logits)
        states = model.generator_states(input_ids, attention_mask)
        thoughts = model.project(states)
        if not num_targets:
            return StudentOutput(states, thoughts)
        targets = _last_positions(num_targets, input_ids)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "thoughts": thoughts}
        return StudentOutput(states, thoughts, model(**inputs, logits_to_keep=targets, use_cache=False).logits)

    def _think_in_blocks(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.LongTensor,
        num_targets: int,
        told: torch.LongTensor,
    ) -> StudentOutput:
        """
        Every block behind the right tokens, all in one pass. In validation answers follow thoughts that were told
        nothing, as in use; that all thoughts are spelt right is the same with and without.
        """
        model, prefix, first = self.model, None, int((input_ids[0] == self.model.config.thought_token_id).nonzero()[0])
        if self.shared_prefix:
            with torch.no_grad():
                embeds = model.get_input_embeddings()(input_ids[:1, : self.shared_prefix])
                read = model.language_model.base_model(inputs_embeds=embeds, use_cache=True)[CACHE]
            prefix = [(layer.keys, layer.values) for layer in read.layers]
        # In use a block begins where the one before was no longer sure: anywhere.
        longest = model.config.thoughts_per_pass or model.config.num_thoughts
        first_block = int(torch.randint(longest, ())) + 1 if self.training else None
        states, one_by_one = model.states_in_blocks(input_ids, attention_mask, prefix, told, first_block)
        if not num_targets:
            return StudentOutput(states, one_by_one=one_by_one)
        untold = states if self.training else model.states_in_blocks(input_ids, attention_mask, prefix)[0]
        logits = self._logits(input_ids, attention_mask, model.project(untold), first, num_targets)
        return StudentOutput(states, model.project(states), logits, one_by_one)

    def _generator_states(
        self, input_ids: torch.LongTensor, attention_mask: torch.LongTensor, first: int
    ) -> torch.FloatTensor:
        """The generator's states at the placeholders, which begin in column `first`."""
        end, generator = first + self.model.config.num_thoughts, self.model.generator
        # With gradient checkpointing there is no cache to share.
        shared = 0 if getattr(generator, "gradient_checkpointing", False) else self.shared_prefix
        embeds = self.model.embed_for_generator(input_ids[:, :end])
        states = _read(generator, embeds, attention_mask[:, :end], shared).last_hidden_state
        columns = slice(first + self.model.config.thought_offset, end + self.model.config.thought_offset)
        skipped = end - states.shape[1]
        return states[:, columns.start - skipped : columns.stop - skipped]

    def _logits(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.LongTensor,
        thoughts: torch.FloatTensor,
        first: int,
        num_targets: int,
    ) -> torch.FloatTensor:
        """The base's logits at the last positions; the question, all before column `first`, is read without a graph."""
        base, embed = self.model.language_model, self.model.get_input_embeddings()
        with torch.no_grad():
            question, mask = embed(input_ids[:, :first]), attention_mask[:, :first]
            cache = _read(base.base_model, question, mask, self.shared_prefix, use_cache=True)[CACHE]
        rest = embed(input_ids[:, first + thoughts.shape[1] :])
        rest = torch.cat([thoughts.to(rest.dtype), rest], dim=1)
        outputs = base(
            inputs_embeds=rest,
            attention_mask=attention_mask,
            position_ids=position_ids_of(attention_mask)[:, first:],
            logits_to_keep=_last_positions(num_targets, rest),
            use_cache=False,
            **{CACHE: cache},
        )
        return outputs.logits

    def activation_checkpointing_enable(self, *args, **kwargs) -> None:
        """As the Trainer asks for it, of the generator; the base, in eval mode, keeps no activations to speak of."""
        self.model.activation_checkpointing_enable(*args, **kwargs)

    def gradient_checkpointing_enable(self, *args, **kwargs) -> None:
        """The same by its name before transformers 5.20."""
        self.model.gradient_checkpointing_enable(*args, **kwargs)

    def own_weights(self) -> dict[str, torch.Tensor]:
        """The model's weights without the frozen base's."""
        return {name: weight for name, weight in self.model.state_dict().items() if not name.startswith(BASE)}


def shared_prefix_length(model: SemCoTForCausalLM, prompts: list[list[int]], longest: int) -> int:
    """
    The number of tokens that all prompts begin with and that a batch may share, before padding; 0 where shortcuts do
    not pay, or would change what rows of at most `longest` tokens say.
    """
    if model.device.type != "cpu" or not _reads_over_padding(model, longest):
        return 0
    questions = [prompt[: prompt.index(model.config.thought_token_id) - 1] for prompt in prompts]
    return len(commonprefix([min(questions), max(questions)]))


@torch.no_grad()
def _reads_over_padding(model: SemCoTForCausalLM, length: int) -> bool:
    """
    True where caches are plain and padding in the middle of a row changes nothing. It does where distances are counted
    in columns (MPT), which only a probe tells.
    """
    if not all(_keeps_all(config, length) for config in (model.config.text_config, model.config.generator_config)):
        return False
    was_training = model.training
    model.eval()
    ids = torch.arange(8, device=model.device)[None]
    mask = torch.ones(1, 40, dtype=torch.long, device=model.device)
    mask[:, 4:-4] = 0
    changes = []
    stacks = [(model.language_model.base_model, model.get_input_embeddings()(ids))]
    if not model.config.adapter_rank:
        stacks.append((model.generator, model.embed_for_generator(ids)))
    for stack, embeds in stacks:
        apart = embeds.new_zeros(1, mask.shape[1], embeds.shape[-1])
        apart[mask == 1] = embeds[0]
        expected = _read(stack, embeds, torch.ones_like(ids)).last_hidden_state[:, -4:].float()
        found = _read(stack, apart, mask).last_hidden_state[:, -4:].float()
        changes.append((found - expected).abs().max() / expected.abs().max())
    model.train(was_training)
    return max(changes).item() < 0.3  # in bfloat16 SmolLM2's rounding alone makes 0.05; MPT's distances make 0.9


def _keeps_all(config: PreTrainedConfig, length: int) -> bool:
    """True for a plain KV cache: keys and values of each token of a text so long, in every layer."""
    layers = DynamicCache(config=config).layers
    windows = [layer.sliding_window for layer in layers if type(layer) is DynamicSlidingWindowLayer]
    plain = sum(type(layer) is DynamicLayer for layer in layers)
    return plain + len(windows) == len(layers) and min(windows, default=length + 1) > length


def _read(
    stack: PreTrainedModel, embeds: torch.Tensor, mask: torch.LongTensor, shared: int = 0, use_cache: bool = False
) -> BaseModelOutputWithPast:
    """Runs a decoder stack, the first `shared` positions on one row only; `last_hidden_state` leaves them out."""
    shared = shared if len(embeds) > 1 else 0
    cache, position_ids = {}, position_ids_of(mask)[:, shared:]
    if shared:
        cache = {CACHE: stack(inputs_embeds=embeds[:1, :shared], use_cache=True)[CACHE]}
        cache[CACHE].batch_repeat_interleave(len(embeds))
    return stack(
        inputs_embeds=embeds[:, shared:],
        attention_mask=mask,
        position_ids=position_ids,
        use_cache=use_cache or shared > 0,
        **cache,
    )


def _last_positions(count: int, rows: torch.Tensor) -> torch.LongTensor:
    """As indices, not a slice: of a slice's rows each would read the whole output table for itself."""
    return torch.arange(rows.shape[1] - count, rows.shape[1], device=rows.device)
