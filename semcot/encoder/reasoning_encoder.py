"""
The reasoning encoder: puts a reasoning and its condensed form close together, and judges whether implicit tokens mean
what the reasoning says (SemCoT, arXiv 2510.24940, section 4.2).
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.model_card import SentenceTransformerModelCardData
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from semcot.encoder import reasoning_module
from semcot.encoder.reasoning_module import ReasoningModule, check_base, default_layers


class ReasoningEncoder(SentenceTransformer):
    """A `SentenceTransformer` whose saved folder brings its first module's code along, each file written whole."""

    def save(self, path: str, *args, **kwargs) -> None:
        folder = Path(path)
        saving = folder / ".saving"
        shutil.rmtree(saving, ignore_errors=True)
        super().save(str(saving), *args, **kwargs)

        shutil.copy(reasoning_module.__file__, saving)
        entries = json.loads((saving / "modules.json").read_text())
        entries[0]["type"] = f"{Path(reasoning_module.__file__).stem}.{ReasoningModule.__name__}"
        (saving / "modules.json").write_text(json.dumps(entries, indent=2))
        for entry in sorted(saving.iterdir()):
            if entry.is_dir():
                shutil.rmtree(folder / entry.name, ignore_errors=True)
            os.replace(entry, folder / entry.name)
        saving.rmdir()


def build_reasoning_encoder(
    language_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    layers: tuple[int, int] | None = None,
    embedding_dim: int = 768,
    max_length: int = 512,
    base_model_name_or_path: str | None = None,
) -> ReasoningEncoder:
    """
    An untrained reasoning encoder over a frozen base: its layers up to the first of `layers`, trainable copies of those
    up to the second (exclusive), its final norm, the mean over real tokens, and a dense layer to `embedding_dim`.

    The dense layer starts at random: seed before. The base is shared with the caller, frozen, in eval mode.

    Args:
        layers: by default from the middle of the base, an eighth of its depth (paper: 16 to 20 of 32).
        max_length: longer texts are truncated to this many tokens.
        base_model_name_or_path: what a saved encoder names as its base; by default where `language_model` came from.

    Raises:
        ValueError: the layers do not lie within the base, or the base is of a kind that cannot be cut in layers.
    """
    start, end = default_layers(language_model) if layers is None else layers
    module = ReasoningModule(language_model, tokenizer, start, end, max_length, base_model_name_or_path)
    check_base(language_model, start, end)
    return _assemble(module, embedding_dim)


def load_reasoning_encoder(
    path: str | os.PathLike, language_model: PreTrainedModel | str | None = None
) -> ReasoningEncoder:
    """
    Loads a saved reasoning encoder, frozen and in eval mode.

    Args:
        path: folder of the encoder.
        language_model: its base, or where to load it from. By default the environment variable `SEMCOT_BASE_MODEL` or
            the name that the encoder was saved with.

    Raises:
        OSError: the folder is not that of an encoder, or the base cannot be loaded.
        ValueError: the weights do not fit the base.
    """
    folder = Path(path)
    if not (folder / ReasoningModule.config_file_name).is_file():
        raise FileNotFoundError(f"{folder} holds no reasoning encoder: {ReasoningModule.config_file_name} is missing.")
    module = ReasoningModule.load(str(folder), model_kwargs={"language_model": language_model})
    dense = _dense_folder(folder)
    encoder = _assemble(module, Dense.load_config(str(folder), subfolder=dense)["out_features"])
    load_weights(encoder, folder)
    return frozen(encoder)


def encode_texts(encoder: SentenceTransformer, texts: Sequence[str], batch_size: int = 32) -> torch.FloatTensor:
    """Embeds texts, (number of texts, embedding_dim), as a plain tensor that a loss can use as its target."""
    embeddings = encoder.encode(list(texts), batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False)
    return embeddings.clone()  # encode() gives inference tensors, which autograd refuses


def encode_thoughts(encoder: SentenceTransformer, thoughts: torch.FloatTensor) -> torch.FloatTensor:
    """
    Embeds implicit tokens, (batch, K, base hidden) → (batch, embedding_dim), with gradient.

    They enter as if they were the base's states at layer `start`. At layer 0, where the base reads them too, they are
    given the scale of its token embeddings, of which they are many times as long: the states that tell reasonings apart
    there would drown in theirs.
    """
    if encoder[0].start == 0:
        thoughts = thoughts * (encoder[0].token_scale() / _rms(thoughts))
    mask = torch.ones(thoughts.shape[:2], dtype=torch.long, device=thoughts.device)
    return encoder({"input_features": thoughts, "attention_mask": mask})["sentence_embedding"]


def _rms(states: torch.FloatTensor) -> torch.FloatTensor:
    """The root mean square of each row's states, (batch, 1, 1)."""
    return states.float().square().mean((1, 2), keepdim=True).sqrt()


def _assemble(module: ReasoningModule, embedding_dim: int) -> ReasoningEncoder:
    width, base = module.get_embedding_dimension(), module.base_model_name_or_path
    card = SentenceTransformerModelCardData(
        task_name="judging whether implicit tokens mean what a reasoning says",
        generate_widget_examples=False,
        local_files_only=True,
    )
    if base and not os.path.isdir(base):
        card.base_model = base
    modules = [module, Pooling(width, "mean"), Dense(width, embedding_dim, activation_function=nn.Identity())]
    device = str(module.language_model.get_input_embeddings().weight.device)
    return ReasoningEncoder(modules=modules, device=device, model_card_data=card)


def load_weights(encoder: SentenceTransformer, folder: Path) -> None:
    """Puts the weights of a saved encoder into this one, whose base stays."""
    ReasoningModule.load_torch_weights(str(folder), model=encoder[0])
    Dense.load_torch_weights(str(folder), subfolder=_dense_folder(folder), model=encoder[2])


def _dense_folder(folder: Path) -> str:
    return json.loads((folder / "modules.json").read_text())[2]["path"]


def frozen(encoder: SentenceTransformer) -> SentenceTransformer:
    return encoder.requires_grad_(False).eval()
