"""What the frozen base makes of questions, computed once for a training that reads the problems many times."""

import os
import shutil
from pathlib import Path

import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence

from modeling_semcot import CACHE, SemCoTForCausalLM, keeps_keys_alone, run_backbone


class QuestionCache:
    """
    The base's keys and values of all that stands before the thoughts, for a set of problems.

    They lie one after the other in one file, which is mapped and not read into memory: for each token two vectors a
    layer, 46 kB with SmolLM2-135M in float32. A file that an earlier run finished is used as it is.

    Args:
        model: whose base is used.
        problems: all problems that will be asked for, with `prompt_ids`; the same prompt twice is kept once.
        header_length: number of tokens at the beginning that all prompts have in common.
        file: where the keys and values go.
        autocast: compute under bfloat16 autocast and keep them in bfloat16, as attention reads them there; otherwise
            in the base's own dtype.
        batch_size: problems in a pass of the base.

    Raises:
        ValueError: the prompts do not begin with the same `header_length` tokens, or the base is one that [`check`]
            refuses.
        OSError: there is no room for the file, or the one there has another size than that of these problems.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: SemCoTForCausalLM,
        problems: Dataset,
        header_length: int,
        file: Path,
        autocast: bool = False,
        batch_size: int = 32,
    ) -> None:
        self._thought_token_id = model.config.thought_token_id
        self._header_length = header_length
        self._dtype = torch.bfloat16 if autocast else model.language_model.dtype
        prompts = list(problems["prompt_ids"])
        if len({tuple(prompt[:header_length]) for prompt in prompts}) > 1:
            raise ValueError(
                f"The first {header_length} tokens are not the same in all prompts. Train without --cache_questions."
            )
        self.check(model, prompts)
        # In an order that depends on the questions alone, so that the same ones always give the same file.
        questions = sorted({self._question(prompt) for prompt in prompts}, key=lambda q: (len(q), q))
        header = torch.tensor(prompts[0][:header_length], dtype=torch.long, device=model.device)

        def row_of(question: tuple[int, ...]) -> torch.LongTensor:
            return torch.cat([header, torch.tensor(question, dtype=torch.long, device=model.device)])

        def keys_and_values(input_ids: torch.LongTensor) -> torch.Tensor:
            """(batch, layers, 2, heads, length, head width)"""
            with torch.autocast(input_ids.device.type, dtype=torch.bfloat16, enabled=autocast):
                embeds = model.get_input_embeddings()(input_ids)
                shared = header_length if len(input_ids) > 1 else 0  # run once for all rows
                cache = run_backbone(model.language_model.base_model, embeds, None, shared, use_cache=True)[CACHE]
            layers = [torch.stack([layer.keys, layer.values], 1) for layer in cache.layers]
            return torch.stack(layers, 1).to("cpu", self._dtype)

        longest = keys_and_values(row_of(questions[-1])[None])[0]
        width = longest[..., :1, :].numel()
        self._header = keys_and_values(header[None])[0] if header_length else longest[..., :0, :]
        self._spans, end = {}, 0
        for question in questions:
            self._spans[question] = slice(end, end + len(question) * width)
            end += len(question) * width
        num_bytes = end * self._dtype.itemsize
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(file.parent).free
            if num_bytes > free:
                raise OSError(
                    f"The keys and values of {len(questions)} questions take {num_bytes / 1e9:.1f} GB, but there are "
                    f"{free / 1e9:.1f} GB free in {file.parent}. Train without --cache_questions."
                )
            print(f"The keys and values of {len(questions)} questions take {num_bytes / 1e9:.1f} GB.")
            unfinished = file.with_suffix(".tmp")
            with unfinished.open("wb") as target:
                for start in range(0, len(questions), batch_size):
                    batch = questions[start : start + batch_size]
                    # Padded on the right, where no real token looks.
                    found = keys_and_values(pad_sequence([row_of(question) for question in batch], batch_first=True))
                    for question, row in zip(batch, found, strict=True):
                        kept = row[..., header_length : header_length + len(question), :].contiguous()
                        target.write(kept.flatten().view(torch.uint8).numpy())
            os.replace(unfinished, file)
        if file.stat().st_size != num_bytes:
            raise OSError(f"{file} holds the keys and values of other questions. Remove it.")
        self._states = torch.from_file(str(file), size=end, dtype=self._dtype)

    @staticmethod
    @torch.no_grad()
    def check(model: SemCoTForCausalLM, prompts: list[list[int]]) -> None:
        """Raises `ValueError` for a base that keeps anything but keys and values, alike in all layers, of these."""
        remedy = "Train without --cache_questions."
        if not keeps_keys_alone(model.config.text_config):
            raise ValueError(f"This base does not keep keys and values alone. {remedy}")
        longest = max((prompt[: prompt.index(model.config.thought_token_id)] for prompt in prompts), key=len)
        embeds = model.get_input_embeddings()(torch.tensor([longest], device=model.device))
        layers = run_backbone(model.language_model.base_model, embeds, None, use_cache=True)[CACHE].layers
        if (kept := min(layer.keys.shape[-2] for layer in layers)) < len(longest):
            raise ValueError(f"This base keeps the keys of its last {kept} tokens only. {remedy}")
        if len({part.shape for layer in layers for part in (layer.keys, layer.values)}) > 1:
            raise ValueError(f"This base keeps keys and values of several shapes. {remedy}")

    def _question(self, prompt_ids: list[int]) -> tuple[int, ...]:
        """The tokens between the header and the first thought."""
        return tuple(prompt_ids[self._header_length : prompt_ids.index(self._thought_token_id)])

    def __call__(self, prompts: list[list[int]], padding: int = 0) -> torch.Tensor:
        """
        Keys and values `(batch, layers, 2, heads, length, head width)` of the header and, padded on their left with
        zeros, the questions of these prompts, the longest with `padding` of them.
        """
        questions = [self._question(prompt) for prompt in prompts]
        *outer, header_length, width = self._header.shape
        length = header_length + padding + max(map(len, questions))
        batch = self._header.new_zeros(len(questions), *outer, length, width)
        batch[..., :header_length, :] = self._header
        for row, question in zip(batch, questions, strict=True):
            states = self._states[self._spans[question]].view(*outer, len(question), width)
            row[..., length - len(question) :, :] = states
        return batch
