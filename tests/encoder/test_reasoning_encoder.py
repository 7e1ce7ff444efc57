"""Stage 1: the reasoning encoder, on tiny random bases of the four supported kinds."""

import json
import multiprocessing
import os
import signal
import string
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import FAMILIES, tiny_base_tokenizer, tiny_language_model
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from semcot.encoder import (
    build_reasoning_encoder,
    contrastive,
    encode_texts,
    encode_thoughts,
    load_reasoning_encoder,
    retrieval_accuracy,
    train_reasoning_encoder,
)
from semcot.encoder.cached_activations import CachedMeans, CachedStates
from semcot.encoder.contrastive import Phase
from semcot.files import last_whole_checkpoint
from semcot.tokenization import build_tokenizer

TEXTS = ["She had 9 old songs", "yes", "rushawn flips the coin and yerania does not"]


def make_base(family: str = "llama", depth: int = 6, **options):
    model = tiny_language_model(family, num_hidden_layers=depth, **options)
    for name, parameter in model.named_parameters():  # away from one and zero, or a forgotten one would not be seen
        if "norm" in name or "ln_" in name or "wpe" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.5)
    return model


def make_encoder(family: str = "llama", start: int | None = None, end: int | None = None, **options):
    base = make_base(family, **options)
    layers = None if start is None else (start, end)
    return build_reasoning_encoder(base, tiny_base_tokenizer(), layers, embedding_dim=24)


def make_pairs(count: int, seed: int = 0) -> Dataset:
    """Pairs that name the same letters."""
    generator = torch.Generator().manual_seed(seed)
    letters = [[string.ascii_lowercase[i] for i in torch.randperm(26, generator=generator)[:6]] for _ in range(count)]
    return Dataset.from_dict(
        {
            "question": ["" for _ in letters],
            "reasoning": [f"first {' then '.join(row)}" for row in letters],
            "condensed_reasoning": [" ".join(row) for row in letters],
        }
    )


def weights(encoder) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in encoder.state_dict().items()}


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


def test_the_newest_whole_checkpoint(tmp_path):
    for step, content in ((2, "{}"), (9, "{}"), (10, "{}"), (11, '{"half'), (12, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if content:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(content)
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


@pytest.mark.parametrize("family", (*FAMILIES, "granite", "phi"))
@pytest.mark.parametrize("start, end", [(3, 5), (0, 2), (2, 6)])
def test_text_passes_the_base_up_to_start_and_copies_up_to_end(family, start, end):
    encoder = make_encoder(family, start, end)
    module = encoder[0]
    batch = module.preprocess(TEXTS)
    states = module.language_model(**batch, output_hidden_states=True).hidden_states
    real = batch["attention_mask"].bool()

    assert torch.equal(module.base_states(**batch)[real], states[start][real])
    got = module(dict(batch))["token_embeddings"]
    backbone = module.language_model.base_model
    norm = backbone._modules[{"gpt2": "ln_f", "phi": "final_layernorm"}.get(family, "norm")]
    want = states[end] if end == 6 else norm(states[end])  # the last of transformers' states is normed already
    torch.testing.assert_close(got[real], want[real])


@pytest.mark.parametrize("family", FAMILIES)
def test_mixed_layer_types_and_attention_follow_the_cut(family):
    options = {}
    if family == "qwen2":
        options = {
            "use_sliding_window": True,
            "sliding_window": 2,
            "layer_types": ["full_attention", "sliding_attention"] * 3,
        }
    encoder = make_encoder(family, 3, 5, **options)
    module = encoder[0]
    batch = module.preprocess(TEXTS[2:])
    for implementation in ("eager", "sdpa"):  # changed on the base, after the encoder was built
        module.language_model.set_attn_implementation(implementation)
        states = module.language_model(**batch, output_hidden_states=True).hidden_states
        torch.testing.assert_close(module.base_states(**batch), states[3])
        through = module({"input_features": states[3], "attention_mask": batch["attention_mask"]})["token_embeddings"]
        torch.testing.assert_close(through, module(dict(batch))["token_embeddings"])


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_above_start_are_not_run_and_the_base_is_not_changed(family):
    encoder = make_encoder(family, 3, 5)
    base = encoder[0].language_model
    before, config = weights(base), base.config.to_dict()
    layers = base.base_model.h if family == "gpt2" else base.base_model.layers
    assert len(layers) == 6
    for layer in layers[3:]:
        layer.register_forward_hook(lambda *_: pytest.fail("an upper layer of the base ran"))
    encoder(encoder[0].preprocess(TEXTS))["sentence_embedding"].sum().backward()
    assert_same(before, base.state_dict())
    assert base.config.to_dict() == config
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in base.parameters())
    own = {parameter.data_ptr() for parameter in encoder.parameters()}
    assert own.isdisjoint(parameter.data_ptr() for parameter in base.parameters())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(family, side):
    encoder = make_encoder(family)
    together = encode_texts(encoder, TEXTS)
    torch.testing.assert_close(together, torch.cat([encode_texts(encoder, [text]) for text in TEXTS]))

    ids = encoder[0].preprocess(TEXTS[:1])["input_ids"]
    zeros = torch.zeros(1, 3, dtype=torch.long)
    parts, masks = [ids, zeros], [torch.ones_like(ids), zeros]
    if side == "left":
        parts, masks = parts[::-1], masks[::-1]
    padded = encoder({"input_ids": torch.cat(parts, 1), "attention_mask": torch.cat(masks, 1)})
    torch.testing.assert_close(padded["sentence_embedding"], together[:1])


@pytest.mark.parametrize("family", FAMILIES)
def test_thoughts_enter_at_start_with_gradient(family):
    encoder = make_encoder(family)
    module = encoder[0]
    batch = module.preprocess(TEXTS[:1])
    thoughts = module.base_states(**batch).requires_grad_()
    meaning = encode_thoughts(encoder, thoughts)
    target = encode_texts(encoder, TEXTS[:1])
    assert meaning.shape == (1, 24)
    torch.testing.assert_close(meaning, target)
    (meaning * target).sum().backward()  # encode_texts gives a target that autograd takes
    assert (thoughts.grad.abs().sum(-1) > 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_at_the_input_thoughts_are_read_at_the_scale_of_tokens(family):
    encoder = make_encoder(family, 0, 1)
    module = encoder[0]
    batch = module.preprocess([" ".join(TEXTS) * 4])
    embeds = module.base_states(**batch)
    target = encoder(dict(batch))["sentence_embedding"]
    close = F.cosine_similarity(encode_thoughts(encoder, embeds), target)
    assert close > 0.99, "but for the scale, which is that of all tokens, they are the text"
    torch.testing.assert_close(encode_thoughts(encoder, 12 * embeds), encode_thoughts(encoder, embeds))
    thoughts = (12 * embeds).requires_grad_()
    F.cosine_similarity(encode_thoughts(encoder, thoughts), torch.randn(1, 24)).sum().backward()
    assert (thoughts.grad.abs().sum(-1) > 0).all()


def test_low_precision_base_has_copies_in_float32():
    base = make_base().bfloat16().train()
    encoder = build_reasoning_encoder(base, tiny_base_tokenizer())
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert base.dtype == torch.bfloat16 and not base.training
    assert encode_texts(encoder, TEXTS).shape == (3, 768)
    thoughts = torch.randn(2, 5, 32, dtype=torch.bfloat16, requires_grad=True)
    encode_thoughts(encoder, thoughts).sum().backward()
    assert thoughts.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("depth, layers", [(1, (0, 1)), (2, (1, 2)), (30, (15, 18)), (32, (16, 20))])
def test_default_layers_scale_with_depth(depth, layers):
    module = make_encoder(depth=depth)[0]
    assert (module.start, module.end) == layers


def test_wrong_use_says_so():
    base = make_base()
    with pytest.raises(ValueError, match="Layers 4 to 7 do not lie within a base of 6"):
        build_reasoning_encoder(base, tiny_base_tokenizer(), (4, 7))
    with pytest.raises(ValueError, match="Text 1 of the batch holds no tokens"):
        encode_texts(make_encoder(), ["yes", ""])
    with pytest.raises(ValueError, match="lacks the columns .*'condensed_reasoning'"):
        pairs = make_pairs(4)
        train_reasoning_encoder(make_encoder(), pairs.remove_columns("condensed_reasoning"), pairs, "unused")
    with pytest.raises(ValueError, match="has 1 pairs"):
        train_reasoning_encoder(make_encoder(), make_pairs(1), make_pairs(4), "unused")


def test_a_base_that_changes_its_input_embeddings_is_refused(monkeypatch):
    base = make_base()
    forward = type(base.base_model).forward

    def scaled(self, input_ids=None, inputs_embeds=None, **kwargs):
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        return forward(self, inputs_embeds=2 * inputs_embeds, **kwargs)

    monkeypatch.setattr(type(base.base_model), "forward", scaled)
    with pytest.raises(ValueError, match="cannot be cut at layer 3"):
        build_reasoning_encoder(base, tiny_base_tokenizer())


def test_a_checkpoint_tokenizer_adds_no_thoughts():
    base, (tokenizer, _) = make_base(), build_tokenizer(tiny_base_tokenizer(), num_thoughts=3)
    encoder = build_reasoning_encoder(base, tokenizer)
    want = tiny_base_tokenizer()(TEXTS[0], add_special_tokens=False).input_ids
    assert encoder[0].preprocess(TEXTS[:1])["input_ids"].tolist() == [want]


@pytest.mark.parametrize("name, shown", [("someone/base", "someone/base"), (".", None)])
def test_the_card_names_a_base_on_the_hub(name, shown):
    encoder = build_reasoning_encoder(make_base(), tiny_base_tokenizer(), base_model_name_or_path=name)
    assert encoder.model_card_data.base_model == shown


def test_long_texts_are_truncated(tmp_path):
    encoder = build_reasoning_encoder(make_base(), tiny_base_tokenizer(), max_length=3)
    assert torch.equal(encode_texts(encoder, ["zqxwv"]), encode_texts(encoder, ["zqx"]))
    encoder.save_pretrained(str(tmp_path))
    assert load_reasoning_encoder(tmp_path, encoder[0].language_model)[0].max_seq_length == 3
    assert make_encoder(max_position_embeddings=64)[0].max_seq_length == 64  # the base's own limit


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_encoder_is_the_same_through_both_ways_to_load(family, tmp_path):
    base, tokenizer = make_base(family), tiny_base_tokenizer()
    base.save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    encoder = build_reasoning_encoder(base, tokenizer, embedding_dim=24)
    folder = tmp_path / "encoder"
    torch.nn.init.constant_(encoder[2].linear.bias, 5.0)
    for _ in range(2):  # the second time over the first
        torch.nn.init.normal_(next(encoder.parameters()))
        encoder.save_pretrained(str(folder))
    want = encode_texts(encoder, TEXTS)
    assert want.max() > 1, "a dense layer and nothing behind it"

    plain = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    assert type(plain[0]).__module__.startswith("transformers_modules.")  # the shipped code, not this package
    plain.save_pretrained(str(tmp_path / "again"))
    again = SentenceTransformer(
        str(tmp_path / "again"), trust_remote_code=True, device="cpu", model_kwargs={"language_model": base}
    )
    assert again[0].language_model is base
    for loaded in (load_reasoning_encoder(folder), load_reasoning_encoder(folder, base), plain, again):
        assert torch.equal(encode_texts(loaded, TEXTS), want)

    suffixes = {file.suffix for file in folder.rglob("*") if file.is_file()}
    assert suffixes <= {".safetensors", ".json", ".py", ".md", ".jinja"}
    saved = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    own = sum(parameter.numel() * 4 for parameter in encoder.parameters())
    assert own <= saved < own + 5000  # the base is not in it
    assert not (folder / ".saving").exists()


def test_loading_says_what_is_missing(tmp_path, monkeypatch):
    encoder = make_encoder()
    encoder.save_pretrained(str(tmp_path / "nameless"))
    with pytest.raises(OSError, match="does not name its base"):
        load_reasoning_encoder(tmp_path / "nameless")
    encoder[0].base_model_name_or_path = str(tmp_path / "nowhere")
    encoder.save_pretrained(str(tmp_path / "encoder"))
    with pytest.raises(OSError, match="nowhere(.|\n)*language_model"):
        load_reasoning_encoder(tmp_path / "encoder")
    with pytest.raises(FileNotFoundError, match="holds no reasoning encoder"):
        load_reasoning_encoder(tmp_path)
    with pytest.raises(ValueError, match="do not fit the base"):
        load_reasoning_encoder(tmp_path / "encoder", make_base(intermediate_size=40))

    make_base().save_pretrained(tmp_path / "base")
    monkeypatch.setenv("SEMCOT_BASE_MODEL", str(tmp_path / "base"))
    assert torch.equal(encode_texts(load_reasoning_encoder(tmp_path / "encoder"), TEXTS), encode_texts(encoder, TEXTS))
    given = make_base()
    assert load_reasoning_encoder(tmp_path / "encoder", given)[0].language_model is given


def test_the_base_of_another_checkpoint_above_is_not_taken(tmp_path):
    make_base().save_pretrained(tmp_path / "other")
    checkpoint = {"base_model_name_or_path": "someone/other", "local_base_model": str(tmp_path / "other")}
    (tmp_path / "config.json").write_text(json.dumps(checkpoint))
    encoder = make_encoder()
    encoder[0].base_model_name_or_path = "someone/base"
    encoder.save_pretrained(str(tmp_path / "encoder"))
    with pytest.raises(OSError, match="'someone/base'"):
        load_reasoning_encoder(tmp_path / "encoder")


@pytest.mark.parametrize("train_layers", [False, True])
def test_a_phase_changes_what_it_should_and_nothing_else(train_layers, tmp_path):
    encoder = make_encoder("gpt2")
    base = encoder[0].language_model
    before, base_before = weights(encoder), weights(base)
    phase = Phase("only", learning_rate=1e-3, train_layers=train_layers, max_steps=3, batch_size=8)
    train_reasoning_encoder(encoder, make_pairs(16), make_pairs(8, seed=1), tmp_path, phases=[phase])

    after = weights(encoder)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if train_layers or name.startswith("2.")}
    assert_same(base_before, base.state_dict())
    assert not any(parameter.requires_grad for parameter in encoder.parameters()) and not encoder.training


def make_easy_encoder():
    """Over a base whose states still say which letters were read."""
    base = tiny_language_model(initializer_range=0.02)
    return build_reasoning_encoder(base, tiny_base_tokenizer(), embedding_dim=24)


def test_training_learns_and_saves_what_it_measured(tmp_path, capsys):
    encoder = make_easy_encoder()
    train, validation = make_pairs(400), make_pairs(60, seed=1)
    untrained = retrieval_accuracy(encoder, validation)
    phases = (
        Phase("dense", 1e-2, False, max_steps=30, batch_size=8),
        Phase("all", 3e-3, True, max_steps=60, batch_size=8),
    )
    figures = train_reasoning_encoder(encoder, train, validation, tmp_path, phases=phases)

    assert figures["all"]["loss"] < figures["dense"]["loss"]
    for way in ("reasoning_to_condensed", "condensed_to_reasoning"):
        assert untrained[way] < 0.2 < 0.5 < figures["dense"][way]
        assert figures["all"][way] > 0.9
    assert figures["kept"] == "all" and figures["pool"] == 60
    assert capsys.readouterr().out.count("retrieval") == 2

    loaded = load_reasoning_encoder(tmp_path, encoder[0].language_model)
    assert_same(weights(encoder), loaded.state_dict())
    assert retrieval_accuracy(loaded, validation).items() <= figures["all"].items()
    assert json.loads((tmp_path / "validation.json").read_text()) == figures
    assert not (tmp_path / "phases").exists() and not list(tmp_path.rglob("*.bin"))


def test_a_phase_that_makes_retrieval_worse_is_undone(tmp_path, capsys):
    train, validation = make_pairs(200), make_pairs(40, seed=1)
    good = Phase("dense", 1e-2, False, max_steps=20, batch_size=8)
    bad = Phase("all", 10.0, True, max_steps=3, batch_size=8)
    alone, encoder = make_easy_encoder(), make_easy_encoder()
    train_reasoning_encoder(alone, train, validation, tmp_path / "alone", phases=[good])
    figures = train_reasoning_encoder(encoder, train, validation, tmp_path / "both", phases=[good, bad])
    assert figures["kept"] == "dense"
    assert figures["all"]["reasoning_to_condensed"] < figures["dense"]["reasoning_to_condensed"]
    assert_same(weights(alone), weights(encoder))
    assert "worse than phase dense" in capsys.readouterr().out


def count_passes(module, monkeypatch) -> list[int]:
    """The batch size of each later pass of the base's lower layers."""
    passes, run = [], module.base_states
    count = lambda input_ids, attention_mask: passes.append(len(input_ids)) or run(input_ids, attention_mask)  # noqa: E731
    monkeypatch.setattr(module, "base_states", count)
    return passes


def test_a_phase_that_changes_nothing_is_kept(tmp_path):
    phases = [
        Phase("dense", 1e-2, False, max_steps=2, batch_size=8),
        Phase("all", 0.0, True, max_steps=2, batch_size=8),
    ]
    pairs = make_pairs(16), make_pairs(8, seed=1)
    figures = train_reasoning_encoder(make_encoder(), *pairs, tmp_path, phases=phases)
    assert figures["kept"] == "all"


def test_an_earlier_outcome_is_thrown_away_or_taken_up(tmp_path):
    found = []
    for rate, resume in ((1e-3, False), (1e-1, False), (1e-1, True)):
        encoder, phases = make_encoder(), [Phase("only", rate, False, max_steps=2, batch_size=8)]
        pairs = make_pairs(16), make_pairs(8, seed=1)
        options = {"phases": phases, "resume_from_checkpoint": resume}
        train_reasoning_encoder(encoder, *pairs, tmp_path, **options)
        found.append(weights(encoder)["2.linear.weight"])
        assert not encoder.training and not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not torch.equal(found[0], found[1]) and torch.equal(found[1], found[2])


def test_the_loss_is_a_contrast_in_both_directions(tmp_path):
    encoder, pairs = make_easy_encoder(), make_pairs(8, seed=1)
    phases = [Phase("only", 1e-3, False, max_steps=1, batch_size=8)]
    figures = train_reasoning_encoder(encoder, make_pairs(16), pairs, tmp_path, phases=phases)
    texts = (pairs["reasoning"], pairs["condensed_reasoning"])
    scores = encoder.similarity(*(encode_texts(encoder, column) for column in texts)) / 0.05
    ways = [torch.nn.functional.cross_entropy(way, torch.arange(8)).item() for way in (scores, scores.T)]
    assert figures["only"]["loss"] == pytest.approx(sum(ways) / 2, rel=1e-4) != pytest.approx(ways[0], rel=1e-4)


@pytest.mark.parametrize("max_bytes, kind", [(2**20, np.ndarray), (1000, np.memmap)])
def test_cached_states_are_those_of_the_base(max_bytes, kind, tmp_path, monkeypatch):
    encoder = make_encoder()
    fresh = encode_texts(encoder, TEXTS)
    passes = count_passes(encoder[0], monkeypatch)
    for _ in range(2):  # the second time from the file
        encoder[0].cached_activations = CachedStates(
            encoder[0], TEXTS * 2, tmp_path / "states.npy", max_bytes, batch_size=2
        )
        assert type(encoder[0].cached_activations._states) is kind
        torch.testing.assert_close(encode_texts(encoder, TEXTS[::-1]).flip(0), fresh, atol=5e-3, rtol=5e-3)
    assert passes == [2, 1] and [file.name for file in tmp_path.iterdir()] == ["states.npy"]
    assert encode_texts(encoder, ["another text"]).isfinite().all() and passes == [2, 1, 1]
    with pytest.raises(ValueError, match="of other texts"):
        CachedStates(encoder[0], TEXTS[:2], tmp_path / "states.npy")


def test_states_are_whole_or_not_there(tmp_path, monkeypatch):
    encoder = make_encoder()
    run = encoder[0].base_states
    batches = iter([run])  # and no more

    def killed_in_the_second(**batch):
        if (once := next(batches, None)) is None:
            raise KeyboardInterrupt
        return once(**batch)

    monkeypatch.setattr(encoder[0], "base_states", killed_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        CachedStates(encoder[0], TEXTS, tmp_path / "states.npy", batch_size=1)
    assert not (tmp_path / "states.npy").exists()
    monkeypatch.setattr(encoder[0], "base_states", run)
    assert CachedStates(encoder[0], TEXTS, tmp_path / "states.npy")(TEXTS[:1])["input_features"].abs().sum() > 0


def test_states_beyond_half_precision_are_cut(tmp_path, monkeypatch):
    module = make_encoder()[0]
    monkeypatch.setattr(
        module, "base_states", lambda input_ids, attention_mask: torch.full((*input_ids.shape, 32), -1e6)
    )
    cache = CachedStates(module, TEXTS, tmp_path / "states.npy")
    assert (cache(TEXTS[:1])["input_features"] == -65504).all()


def test_training_asks_the_base_once_for_each_text(tmp_path, monkeypatch):
    encoder, train, validation = make_encoder(), make_pairs(24), make_pairs(8, seed=1)
    passes = count_passes(encoder[0], monkeypatch)
    phases = [Phase("dense", 1e-2, False, epochs=2, batch_size=8), Phase("all", 1e-3, True, epochs=2, batch_size=8)]
    train_reasoning_encoder(encoder, train, validation, tmp_path, phases=phases)
    assert sum(passes) == 2 * (24 + 8) and encoder[0].cached_activations is None


def test_cached_means_are_those_of_the_layers():
    encoder = make_encoder(attention_dropout=0.5)
    fresh = encode_texts(encoder, TEXTS)
    CachedMeans(encoder[0].eval(), TEXTS)
    assert not encoder[0].training
    encoder.train()
    encoder[0].cached_activations = CachedMeans(encoder[0], TEXTS * 2, batch_size=2)
    assert encoder[0].training and "another text" not in encoder[0].cached_activations
    encoder[0].upper.forward = lambda **_: pytest.fail("the layers are run again")
    torch.testing.assert_close(encode_texts(encoder, TEXTS[::-1]).flip(0), fresh)


def test_the_first_phase_runs_its_frozen_layers_once_for_each_text(tmp_path):
    encoder, train, validation = make_encoder(), make_pairs(24), make_pairs(8, seed=1)
    rows: list[int] = []
    encoder[0].upper.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    phases = [Phase("dense", 1e-2, False, epochs=5, batch_size=8)]
    figures = train_reasoning_encoder(encoder, train, validation, tmp_path, phases=phases)
    assert sum(rows) == 2 * (24 + 8) and figures["dense"]["loss"] > 0
    assert retrieval_accuracy(encoder, validation).items() <= figures["dense"].items()


def test_retrieval_counts_pairs_that_share_a_text_as_found():
    pairs = Dataset.from_dict({"reasoning": ["one", "two", "three"], "condensed_reasoning": ["same", "same", "same"]})
    swapped = pairs.rename_columns({"reasoning": "condensed_reasoning", "condensed_reasoning": "reasoning"})
    for either in (pairs, swapped):
        assert set(retrieval_accuracy(make_encoder(), either).values()) == {1.0}


def test_retrieval_is_measured_both_ways():
    similarity = torch.tensor([[5, 1, 1], [6, 3, 1], [1, 4, 7]])
    encoder = SimpleNamespace(encode=lambda *_, **__: similarity, similarity=lambda *_: similarity)
    pairs = Dataset.from_dict({"reasoning": [*"abc"], "condensed_reasoning": [*"xyz"]})
    assert retrieval_accuracy(encoder, pairs) == {"reasoning_to_condensed": 2 / 3, "condensed_to_reasoning": 1 / 3}
    searched = []
    encoder.encode = lambda texts, **_: searched.append(len(texts)) or similarity
    retrieval_accuracy(encoder, make_pairs(120))
    assert searched == [100, 100]


PHASES = (
    Phase("dense", learning_rate=1e-2, train_layers=False, max_steps=4, batch_size=8),
    Phase("all", learning_rate=1e-3, train_layers=True, max_steps=4, batch_size=8),
)


def run_training(folder: str, kill_at: int | None = None) -> dict[str, torch.Tensor]:
    """Trains a GPT-2 with dropout; with `kill_at`, dies by SIGKILL in that training step of this process."""
    steps, training_step = 0, contrastive._Trainer.training_step

    def counted(self, *args, **kwargs):
        nonlocal steps
        steps += 1
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return training_step(self, *args, **kwargs)

    torch.set_num_threads(1)
    encoder = make_encoder("gpt2", resid_pdrop=0.2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrastive._Trainer, "training_step", counted)
        train_reasoning_encoder(
            encoder,
            make_pairs(24),
            make_pairs(8, seed=1),
            folder,
            phases=PHASES,
            save_steps=2,
            resume_from_checkpoint=True,
        )
    return weights(encoder)


def test_killed_and_resumed_training_ends_where_an_uninterrupted_run_does(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    # Dies in step 4 of the first phase; goes on from its step 2, and dies two steps later in the second phase's step 4.
    for kill_at, reached in ((4, "dense/checkpoint-2"), (6, "all/checkpoint-2")):
        process = spawn.Process(target=run_training, args=(str(tmp_path / "killed"), kill_at))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert (tmp_path / "killed/phases" / reached).is_dir()
    half_written = tmp_path / "killed/phases/all/checkpoint-3"
    half_written.mkdir()
    (half_written / "trainer_state.json").write_text('{"global_step": 3')

    whole = run_training(str(tmp_path / "whole"))
    assert_same(run_training(str(tmp_path / "killed")), whole)
    assert_same(run_training(str(tmp_path / "killed")), whole)  # and there is nothing left to do
