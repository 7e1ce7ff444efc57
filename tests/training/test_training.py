"""Whole training runs on a tiny base: what they write and what they refuse."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT, tiny_base_tokenizer, tiny_language_model, tiny_semcot
from runs import ENVIRONMENT, SCRIPT, as_flags, run
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.training_args import BatchSamplers
from tensorboard.backend.event_processing import event_accumulator
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

import semcot.training.run
from configuration_semcot import SemCoTConfig
from modeling_semcot import SemCoTForCausalLM, decoder_layers
from semcot.data import fingerprint, load_problems
from semcot.distillation import lens_targets
from semcot.encoder import build_reasoning_encoder
from semcot.training.card import describe_for_card, hub_datasets
from semcot.training.options import PHASES, TrainOptions, parse_options
from semcot.training.record import check_output_dir, prepare_output_dir
from semcot.training.run import (
    build_model,
    check_lengths,
    compile_layers,
    embed_reasonings,
    freeze_layers,
    header_length,
    load_data,
    prefills_question,
    reads_over_padding,
    train,
    with_renumbered,
)


def test_the_output_folder_is_a_checkpoint(finished):
    options, folder = finished
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    batch = tokenizer(["How many songs are left?"], return_tensors="pt")
    assert model.generate(**batch, max_new_tokens=2, do_sample=False).shape[1] > batch.input_ids.shape[1]
    assert model.config.checkpoint_kind == "adapter" and not list(folder.rglob("*.pkl"))
    assert json.loads((folder / "options.json").read_text()) == asdict(options)
    encoder = SentenceTransformer(str(folder / "reasoning_encoder"), trust_remote_code=True)
    assert encoder.encode("2 + 2 = 4").shape == (16,)


def test_the_card_and_the_records(finished):
    options, folder = finished
    card = (folder / "README.md").read_text()
    rows = ["learning_rate | 0.0003", "generator, generator | answer loss", "generator, warmup | accuracy"]
    rows += [f"reasoning encoder, {name} | reasoning to condensed" for name in ("dense", "all")]
    for text in ("synthetic_coin_flip (40)", *(f"| {row} |" for row in rows)):
        assert text in card
    assert "; 90 problems to train on and 10 of the same source for validation (seed 0)" in card
    record = json.loads((folder / "training.json").read_text())
    assert record["train_problems"] + record["validation_problems"] == 100
    assert [record["data_sha256"], record["validation_sha256"]] == [fingerprint(part) for part in load_data(options)]
    losses = json.loads((folder / "reasoning_encoder" / "losses.json").read_text())
    assert all(sum("loss" in entry for entry in losses[phase]) == 5 for phase in ("dense", "all"))
    for phase, terms in (("warmup", "answer_loss alignment_loss lens_loss"), ("lens", "lens_loss")):
        history = json.loads((folder / "phases" / phase / "losses.json").read_text())
        for term in terms.split():
            assert sum(term in entry for entry in history) == 5, "a training loss for each step"
            assert any(f"eval_{term}" in entry for entry in history)


def test_only_reasonings_that_are_aligned_with_are_embedded(finished):
    options, folder = finished
    embedded = load_file(folder / "phases/reasoning_embeddings_train.safetensors")["embeddings"]
    assert embedded.shape == (options.max_steps * options.batch_size, options.encoder_embedding_dim)


def test_what_is_aligned_with_is_the_reasoning(finished):
    options, folder = finished
    encoder = SentenceTransformer(str(folder / "reasoning_encoder"), trust_remote_code=True)
    embedded = load_file(folder / "phases/reasoning_embeddings_validation.safetensors")["embeddings"]
    expected = encoder.encode(load_data(options)[1]["reasoning"], convert_to_tensor=True)
    torch.testing.assert_close(embedded, expected, atol=1e-4, rtol=1e-4)


def test_reasonings_are_embedded_in_the_precision_of_training(finished, tmp_path):
    options, folder = finished
    encoder = SentenceTransformer(str(folder / "reasoning_encoder"), trust_remote_code=True)
    problems, embedded = load_data(options)[1], {}
    for bf16 in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            expected = encoder.encode(problems["reasoning"], convert_to_tensor=True).float()
        chosen = replace(options, output_dir=str(tmp_path / str(bf16)), bf16=bf16)
        Path(chosen.output_dir).mkdir()
        embedded[bf16] = torch.tensor(embed_reasonings(chosen, problems, encoder, "train")["reasoning_embedding"])
        torch.testing.assert_close(embedded[bf16], expected, atol=1e-5, rtol=1e-5)
    assert (embedded[True] - embedded[False]).abs().max() > 1e-3


def test_embeddings_are_whole_or_not_there(finished, tmp_path, killed_at_renames):
    options, folder = finished
    encoder = SentenceTransformer(str(folder / "reasoning_encoder"), trust_remote_code=True)
    with pytest.raises(KeyboardInterrupt):
        embed_reasonings(replace(options, output_dir=str(tmp_path)), load_data(options)[1], encoder, "train")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_figures_of_a_phase_are_those_of_its_last_validation(finished):
    options, folder = finished
    record, card = json.loads((folder / "training.json").read_text()), (folder / "README.md").read_text()
    losses = set()
    for phase, term in (("warmup", "answer_loss"), ("lens", "lens_loss"), ("generator", "answer_loss")):
        history = json.loads((folder / "phases" / phase / "losses.json").read_text())
        last = [entry[f"eval_{term}"] for entry in history if f"eval_{term}" in entry][-1]
        assert record[phase][term] == last
        weights = {"answer_loss": 0.5, "alignment_loss": 0.5, "lens_loss": 1.0 if phase == "lens" else 0.5}
        terms = [weight * record[phase].get(name, 0.0) for name, weight in weights.items()]
        assert record[phase]["loss"] == pytest.approx(sum(terms), abs=2e-4)
        assert f"| generator, {phase} | {term.replace('_', ' ')} | {last:.4g} |" in card
        losses.add(last)
    assert len(losses) == 3 and "output_dir" not in card


def test_every_option_arrives(options, monkeypatch):
    """Each has a value that no other has, nor any default."""
    options = replace(
        options,
        dataset=["synthetic_arithmetic"],
        num_samples=[100],
        validation_fraction=0.3,
        seed=3,
        max_steps=-1,
        dtype="bfloat16",
        bf16=True,
        attn_implementation="sdpa",
        generator_layers=3,
        num_thoughts=6,
        thought_layers=1,
        encoder_start_layer=1,
        encoder_end_layer=2,
        encoder_batch_size=7,
        encoder_temperature=0.25,
        encoder_dense_learning_rate=0.011,
        encoder_dense_epochs=0.2,
        encoder_learning_rate=0.012,
        encoder_epochs=0.3,
        alpha=0.4,
        explanation_weight=0.15,
        lens_weight=0.35,
        lens_steps=2,
        warmup_learning_rate=0.013,
        warmup_epochs=0.12,
        lens_learning_rate=0.014,
        lens_epochs=0.5,
        exchange_learning_rate=0.015,
        exchange_epochs=0.2,
        exchange_batch_size=9,
        exchange_share=0.6,
        learning_rate=0.016,
        epochs=0.45,
        batch_size=6,
        gradient_accumulation_steps=2,
        lr_scheduler_type="constant_with_warmup",
        optim="adafactor",
        weight_decay=0.21,
        max_grad_norm=0.7,
        gradient_checkpointing=True,
        logging_steps=3,
        eval_steps=4,
        save_steps=7,
        report_to=["tensorboard"],
    )
    trainers, collators, encoders, losses = [], [], [], []

    def recording(name: str, seen: list) -> None:
        place = "semcot.training.run" if hasattr(semcot.training.run, name) else "semcot.encoder.contrastive"
        made = getattr(sys.modules[place], name)

        def make(*arguments, **named):
            seen.append((made(*arguments, **named), named))
            return seen[-1][0]

        monkeypatch.setattr(f"{place}.{name}", make)

    recording("DistillationTrainer", trainers)
    recording("ExchangeCollator", collators)
    recording("SentenceTransformerTrainingArguments", encoders)
    recording("MultipleNegativesRankingLoss", losses)
    model = train(options)

    tokenizer = AutoTokenizer.from_pretrained(options.output_dir)
    trained = {name: weight.dtype for name, weight in model.named_parameters() if "language_model" not in name}
    assert set(trained.values()) == {torch.float32} and model.language_model.dtype == torch.bfloat16
    assert model.config.encoder_start_layer == 1 and model.config.encoder_end_layer == 2
    assert model.config.num_thoughts == tokenizer("How many?").input_ids.count(model.config.thought_token_id) == 6
    assert model.config.generator_config.num_hidden_layers == 3
    _, validation = load_data(options)
    expected = {"dense": (0.011, 2), "all": (0.012, 3)}  # steps: of 70 problems in batches of 7
    for arguments, _ in encoders:
        rate, steps = expected.pop(Path(arguments.output_dir).name)
        assert (arguments.learning_rate, arguments.max_steps) == (rate, steps)
        assert (arguments.seed, arguments.bf16, arguments.optim) == (3, True, "adafactor")
        assert arguments.warmup_steps == 1
        assert (arguments.logging_steps, arguments.save_steps, arguments.report_to) == (3, 7, ["tensorboard"])
        assert arguments.per_device_train_batch_size == 7 and arguments.batch_sampler == BatchSamplers.NO_DUPLICATES
    assert not expected and {loss.scale for loss, _ in losses} == {4.0}

    phases = {Path(trainer.args.output_dir).name: trainer for trainer, _ in trainers}
    steps = {"warmup": 1, "lens": 3, "exchange": 1, "generator": 3}  # of 70 problems, in steps of 12 or 18
    assert phases.keys() == steps.keys() == PHASES.keys()
    trained = {"warmup": {"projection", "thought_embedding"}, "exchange": {"thought_layers"}}
    trained["lens"] = trained["generator"] = trained["warmup"] | trained["exchange"] | {"generator"}
    for phase, trainer in phases.items():
        arguments = trainer.args
        assert arguments.learning_rate == getattr(options, PHASES[phase].learning_rate)
        assert arguments.max_steps == steps[phase] and arguments.warmup_steps == (steps[phase] > 1)
        assert (arguments.logging_steps, arguments.save_steps, arguments.report_to) == (3, 7, ["tensorboard"])
        assert (arguments.eval_strategy, arguments.eval_steps, arguments.save_total_limit) == ("steps", 4, 2)
        assert arguments.per_device_eval_batch_size == 6
        taught = {id(weight) for group in trainer.optimizer.param_groups for weight in group["params"]}
        parts = {name.split(".")[0] for name, weight in model.named_parameters() if id(weight) in taught}
        assert parts == trained[phase]
        assert (arguments.weight_decay, arguments.max_grad_norm) == (0.21, 0.7)
        assert (arguments.lr_scheduler_type, arguments.optim) == ("constant_with_warmup", "adafactor")
        assert (arguments.seed, arguments.bf16) == (3, True)
        assert arguments.gradient_checkpointing and arguments.gradient_accumulation_steps == 2
        assert arguments.per_device_train_batch_size == (9 if phase == "exchange" else 6)
        assert (trainer.alpha, trainer.explanation_weight, trainer.lens_weight) == (0.4, 0.15, 0.35)
        assert trainer.lens_only == (phase in ("lens", "exchange"))
        assert len(trainer.train_dataset) == (70 if trainer.lens_only else 36) and len(trainer.eval_dataset) == 30
        assert trainer.eval_dataset["question"] == validation["question"]
        assert all(trainer.train_dataset["explanation_ids"])
        text, lens_ids = trainer.eval_dataset["condensed_reasoning"][0], trainer.eval_dataset["lens_ids"][0]
        assert lens_ids == lens_targets(text, tokenizer, 6, 2)
    ((collator, _),) = collators
    assert (collator.lens_steps, collator.share, collator.seed) == (2, 0.6, 3)
    exchange = phases["exchange"]
    assert exchange.train_dataset["index"] == list(range(70)) and exchange.eval_dataset["index"] == list(range(70, 100))
    lens_ids = [ids for part in (exchange.train_dataset, exchange.eval_dataset) for ids in part["lens_ids"]]
    assert exchange.lens_tokens.tolist() == sorted({token for ids in lens_ids for token in ids} - {-100})


def test_only_the_projection_trains_in_the_warm_up_and_the_base_never(finished):
    options, folder = finished
    before = build_model(options)[0].state_dict()
    warm, done = (
        load_file(folder / "phases" / phase / "finished" / "model.safetensors") for phase in ("warmup", "generator")
    )
    changed = {name for name in warm if not torch.equal(warm[name], before[name])}
    assert changed == {"projection.weight", "projection.bias", "thought_embedding"}
    assert sum(not torch.equal(done[name], warm[name]) for name in done) > 10
    assert not any(name.startswith("language_model") for name in done)
    assert load_file(folder / "model.safetensors").keys() == done.keys()


@pytest.mark.skipif(torch.cuda.is_available(), reason="about training on a CPU")
@pytest.mark.parametrize(
    "bf16, given, taken",
    [(True, None, "eager"), (False, None, "sdpa"), (True, "sdpa", "sdpa"), (False, "eager", "eager")],
)
def test_attention_is_the_one_that_is_fast_there_unless_told_otherwise(options, finished, tmp_path, bf16, given, taken):
    for goes_on in ({"generator": str(finished[1]), "generator_layers": None}, {}):
        model, _ = build_model(replace(options, bf16=bf16, attn_implementation=given, **goes_on))
        parts = (model.language_model, model.generator)
        assert {part.config._attn_implementation for part in parts} == {taken}
    model.save_pretrained(tmp_path / "saved")
    assert "attn" not in (tmp_path / "saved/config.json").read_text(), "a checkpoint does not remember it"


def test_questions_that_the_base_reads_once_give_the_same_losses(options, finished, capsys):
    options = replace(options, cache_questions=True)
    train(options)
    folders = [Path(where) / "phases" for where in (options.output_dir, finished[1])]
    assert "The keys and values of 50 questions take" in capsys.readouterr().out
    train(replace(options, resume_from_checkpoint=True))
    assert "keys and values" not in capsys.readouterr().out, "nothing is left to train"
    assert not list(folders[0].glob("question_states*")), "what no phase will read again is removed"
    for phase in PHASES:
        if (folders[1] / phase).exists():
            history, other = (json.loads((folder / phase / "losses.json").read_text()) for folder in folders)
            for entry, same in zip(history, other, strict=True):
                for term in ("loss", "answer_loss", "eval_answer_loss", "alignment_loss", "eval_accuracy"):
                    assert entry.get(term) == pytest.approx(same.get(term), abs=1.01e-4), f"{phase}: {term}"


@pytest.mark.parametrize("count, warmup_epochs", [(1, 0.0), (2, 0.5)])
def test_frozen_layers_stay_as_they_are(options, count, warmup_epochs):
    options = replace(options, alpha=0.0, warmup_epochs=warmup_epochs, max_steps=2, frozen_layers=count)
    before = build_model(options)[0].state_dict()
    train(options)
    after = load_file(Path(options.output_dir) / "model.safetensors")
    kept = {name for name in after if torch.equal(after[name], before[name])}
    frozen = tuple(f"generator.layers.{i}." for i in range(count))
    assert kept == {"thought_embedding"} | {name for name in after if name.startswith(frozen)}
    with pytest.raises(ValueError, match="frozen_layers is 3, but the generator has 2 layers in all"):
        build_model(replace(options, frozen_layers=3))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_first_layers_of_any_family_can_be_frozen(family):
    base, generator = tiny_language_model(), tiny_language_model(family)
    model = SemCoTForCausalLM.from_components(base, generator, tokenizer=tiny_base_tokenizer())
    freeze_layers(model, 1)
    layers = model.generator.layers if family == "llama" else model.generator.h
    trained = [any(p.requires_grad for p in layer.parameters()) for layer in layers]
    assert trained == [False] + [True] * (len(layers) - 1)
    assert not any(
        p.requires_grad for m in model.generator.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
    )


def test_stage_1_reads_copies_of_its_pairs_with_other_numbers(options):
    options = replace(options, encoder_renumbered=3)
    pairs = load_data(options)[0]
    more = with_renumbered(pairs, options.encoder_renumbered, options.seed)
    assert len(more) == 4 * len(pairs) and more[: len(pairs)]["reasoning"] == pairs["reasoning"]
    shapes = [[re.sub(r"\d", "0", text) for text in row.values()] for row in more]
    originals, copies = shapes[: len(pairs)], shapes[len(pairs) :]
    assert [copies[i::3] for i in range(3)] == [originals] * 3
    numbered = [row["reasoning"] for row in more if "=" in row["reasoning"]]
    assert len(set(numbered)) > 0.95 * len(numbered)
    assert with_renumbered(pairs, 3, options.seed + 1)["reasoning"] != more["reasoning"]
    assert with_renumbered(pairs, 0, options.seed).to_list() == more.select(range(len(pairs))).to_list()
    train(replace(options, max_steps=1))
    record = json.loads((Path(options.output_dir) / "reasoning_encoder" / "losses.json").read_text())
    assert record["dense"][0]["epoch"] == pytest.approx(8 / len(more), rel=0.1)


def test_losses_fall(options):
    options = replace(options, alpha=0.0, lens_epochs=0.0, lens_weight=0.0, max_steps=60, epochs=20, learning_rate=3e-3)
    train(replace(options, eval_steps=30, save_steps=100))
    history = json.loads((Path(options.output_dir) / "phases/generator/losses.json").read_text())
    losses = [entry["answer_loss"] for entry in history if "answer_loss" in entry]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert not (Path(options.output_dir) / "reasoning_encoder").exists(), "alpha = 0 needs no stage 1"


def test_another_optimizer_trains_both_stages(options, tmp_path):
    train(replace(options, optim="adafactor", max_steps=2, lens_epochs=0, warmup_epochs=0))
    (state,) = Path(options.output_dir).glob("phases/generator/checkpoint-2/optimizer.pt")
    moments = torch.load(state, weights_only=True)["state"].values()
    assert any("exp_avg_sq_row" in moment for moment in moments)  # a row and a column in the place of a matrix


@pytest.mark.slow
def test_losses_go_to_tensorboard_and_trackio(options, tmp_path, monkeypatch):
    monkeypatch.setitem(ENVIRONMENT, "TRACKIO_DIR", str(tmp_path / "trackio"))
    run(replace(options, report_to=["tensorboard", "trackio"], lens_epochs=0.0, max_steps=2))
    events = event_accumulator.EventAccumulator(str(next((tmp_path / "run/phases/generator").rglob("events.*")).parent))
    events.Reload()
    drawn = [event.value for event in events.Scalars("train/answer_loss")]
    for phase in ("reasoning_encoder/phases/dense", "reasoning_encoder/phases/all", "phases/warmup"):
        assert next((tmp_path / "run" / phase).rglob("events.*")), "the curves stay"
    assert not list((tmp_path / "run/reasoning_encoder/phases").rglob("*.safetensors"))
    history = json.loads((tmp_path / "run/phases/generator/losses.json").read_text())
    assert drawn == pytest.approx([entry["answer_loss"] for entry in history if "answer_loss" in entry])
    databases = list((tmp_path / "trackio").rglob("*semcot*"))
    assert databases, list((tmp_path / "trackio").rglob("*"))


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one_with_their_batches(options, tmp_path):
    options = replace(options, dataset=["synthetic_arithmetic"], num_samples=[60], explanation_weight=0.25)
    alone = run(options)
    accumulated = run(replace(options, output_dir=str(tmp_path / "parts"), batch_size=4, gradient_accumulation_steps=2))
    halves = replace(options, output_dir=str(tmp_path / "two"), batch_size=4, encoder_batch_size=4)
    launcher = "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"
    together = run(halves, *launcher)
    sharded = run(replace(halves, output_dir=str(tmp_path / "sharded"), shard_base=True), *launcher)
    cached = replace(halves, output_dir=str(tmp_path / "cached"), shard_base=True, cache_questions=True)
    cached = run(cached, *launcher)
    terms = ["loss", "answer_loss", "alignment_loss", "explanation_loss", "lens_loss", "accuracy", "lens_accuracy"]
    terms += [f"eval_{term}" for term in terms]  # of 6 validation problems: none is counted twice
    compared = 0
    for other in (accumulated, together, sharded, cached):
        for phase, history in alone.items():
            for entry, same in zip(history, other[phase], strict=True):
                for term in set(terms) & entry.keys():
                    assert abs(entry[term] - same[term]) < 1.01e-4, f"{phase}, step {entry['step']}: {term}"
                    compared += 1
    assert compared > 100
    assert set(terms) <= {term for history in alone.values() for entry in history for term in entry}
    held = re.search(r"holds ([\d.]+)% of the base", (tmp_path / "sharded" / "output.txt").read_text())
    assert 50 <= float(held[1]) < 75  # half of the layers, all of the embeddings
    for name in ("model.safetensors", "reasoning_encoder/model.safetensors"):
        expected = load_file(Path(options.output_dir) / name)
        spread = load_file(tmp_path / "sharded" / name)
        for key, weight in load_file(tmp_path / "two" / name).items():
            torch.testing.assert_close(weight, expected[key], atol=1e-3, rtol=1e-3)
            assert torch.equal(weight, spread[key])


@pytest.mark.slow
def test_pairs_that_fill_no_batch_of_several_processes_are_too_few(options):
    options = replace(options, dataset=["synthetic_arithmetic"], num_samples=[12], encoder_batch_size=16)
    command = [SCRIPT[0], "-m", "torch.distributed.run", "--standalone", *SCRIPT[1:], *as_flags(options)]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode != 0 and "took 0 of 1 steps: 10 pairs" in result.stderr, result.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("phase, prefill_question", [("lens", True), ("generator", False)])
def test_compiled_it_learns_the_same(phase, prefill_question, options, tmp_path):
    others = {f"{name}_epochs": 0.0 for name in ("warmup", "lens")} if phase == "generator" else {"epochs": 0.0}
    options = replace(options, alpha=0.0, warmup_epochs=0.0, max_steps=4, prefill_question=prefill_question)
    options = replace(options, **others)
    expected = run(options)[phase]
    compiled = run(replace(options, output_dir=str(tmp_path / "compiled"), torch_compile=True))[phase]
    for entry, other in zip(expected, compiled, strict=True):
        assert entry.get("lens_loss") == pytest.approx(other.get("lens_loss"), abs=1.01e-4)
        assert entry.get("answer_loss") == pytest.approx(other.get("answer_loss"), abs=1.01e-4)
    weights, others = (load_file(folder / "model.safetensors") for folder in (tmp_path / "run", tmp_path / "compiled"))
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, atol=1e-3, rtol=1e-3)


def test_on_a_gpu_questions_are_prefilled_where_that_saves_more_than_it_costs(options):
    """Decided by sizes; the meta device is not a CPU either."""

    def prefilled(width: int, device: str = "meta", **options) -> bool:
        config = SemCoTConfig()
        for part in (config.text_config, config.generator_config):
            part.num_hidden_layers, part.hidden_size, part.intermediate_size = 1, width, 4 * width
        with torch.device("meta" if device == "meta" else "cpu"):
            model = SemCoTForCausalLM(config)
        return prefills_question(TrainOptions(output_dir="", generator_layers=1, **options), model)

    assert not prefilled(576) and prefilled(576, prefill_question=True) and prefilled(128, device="cpu")
    assert prefilled(4096) and not prefilled(4096, batch_size=2)
    assert not prefilled(4096, torch_compile=True) and not prefilled(4096, prefill_question=False)
    assert not build_model(replace(options, prefill_question=False))[0].prefill_question


def test_what_is_compiled(options, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, **_: compiled.append(module))
    model, tokenizer = tiny_semcot()
    encoder = build_reasoning_encoder(model.language_model, tokenizer)
    generator, base, upper = map(decoder_layers, (model.generator, model.language_model.base_model, encoder[0].upper))
    for prefill, passes, cached, expected in (
        (True, 1, False, [model.generator]),
        (False, 1, False, [*generator, *base, *upper]),
        (False, 2, False, [model.generator, *base, *upper]),
        (False, 1, True, [*generator, *upper]),
    ):
        model.prefill_question, model.config.thought_passes = prefill, passes
        compile_layers(replace(options, cache_questions=cached), model, encoder)
        assert compiled == expected
        compiled.clear()
    assert train(replace(options, alpha=0.0, lens_epochs=0.0, warmup_epochs=0.0, max_steps=1, torch_compile=True))
    assert len(compiled) == 1, "and is, where that was asked for"


def test_shorter_questions_are_padded_behind_the_header_where_all_of_a_row_is_read():
    model, tokenizer = tiny_semcot("mistral")
    assert header_length(model, tokenizer) == len(tokenizer("<|im_start|>user", add_special_tokens=False).input_ids)
    rows = {"prompt_ids": [[5] * 40], "length": [45]}  # with padding to multiples up to 53 tokens
    for part in (model.config.text_config, model.config.generator_config):
        for window, fits in ((53, False), (54, True), (None, True)):
            part.sliding_window = window
            assert (header_length(model, tokenizer, rows) > 0) == fits
    for generator, reads in (("mpt", False), ("gpt2", True)):
        assert reads_over_padding(tiny_semcot(generator=tiny_language_model(generator))[0], 40) == reads


def test_a_problem_may_be_as_long_as_the_models_read():
    model, _ = tiny_semcot()
    check_lengths(model, {"question": ["x"], "length": [512]})
    with pytest.raises(ValueError, match="has 513 tokens"):
        check_lengths(model, {"question": ["x"], "length": [513]})


# ---------------------------------------------------------------------------------------------------- what is refused


def test_a_non_empty_folder(options, finished):
    Path(options.output_dir).mkdir()
    (Path(options.output_dir) / "thesis.txt").write_text("mine")
    for asked in ({}, {"resume_from_checkpoint": True}, {"overwrite_output_dir": True}):
        with pytest.raises(FileExistsError, match="holds no earlier run .* Give another --output_dir, or empty it"):
            train(replace(options, **asked))
    with pytest.raises(FileExistsError):
        prepare_output_dir(options)  # filled since it was checked
    with pytest.raises(FileExistsError, match="is not empty. .* or --resume_from_checkpoint True"):
        train(finished[0])
    assert (Path(options.output_dir) / "thesis.txt").read_text() == "mine"
    for name, other in (("alpha", 0.25), ("seed", 1), ("learning_rate", 0.1), ("batch_size", 4), ("num_thoughts", 4)):
        before = getattr(finished[0], name)
        with pytest.raises(ValueError, match=f"{name} was {before}, now {other}"):
            train(replace(finished[0], **{name: other}, resume_from_checkpoint=True))
    free = {"report_to": ["trackio"], "push_to_hub": True, "hub_model_id": "someone/mine"}
    check_output_dir(replace(finished[0], **free, resume_from_checkpoint=True))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"generator": "x/y"}, "either generator .* or generator_layers"),
        ({"generator_layers": None}, "either generator .* or generator_layers"),
        ({"frozen_layers": -1}, "frozen_layers must not be negative"),
        ({"alpha": 1.5}, "alpha must lie between 0 and 1"),
        ({"num_samples": [1]}, "1 numbers for 2 data sets"),
        ({"validation_fraction": 0.0}, "validation_fraction"),
        ({"exchange_share": 1.1}, "exchange_share"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps must be at least 1"),
        ({"encoder_temperature": 0.0}, "encoder_temperature must be above 0"),
        ({"validation_dataset": ["gsm8k"]}, "names \\['gsm8k'\\], which are not among"),
        ({"lens_steps": 4}, "lens_steps must lie between 1 and 3"),
        ({"lens_steps": 0}, "lens_steps must lie between 1 and 3"),
        ({"save_steps": 0}, "save_steps must be at least 1"),
        ({"exchange_epochs": 1.0}, "give lens_steps 2 or 3"),
        ({"warmup_epochs": 0, "lens_epochs": 0, "epochs": 0}, "nothing would be trained"),
        ({"encoder_dense_epochs": 0, "encoder_epochs": 0}, "encoder gets no epochs"),
    ],
)
def test_options(options, wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(options, **wrong)


def test_flags_override_the_file_and_unknown_names_are_refused(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("generator_layers: 3\nalpha: 0.25\ndataset: [gsm8k, svamp]\n")
    options = parse_options([str(recipe), "--output_dir", "x", "--alpha", "0.75"])
    assert (options.alpha, options.generator_layers, options.dataset) == (0.75, 3, ["gsm8k", "svamp"])
    with pytest.raises(FileNotFoundError, match="no recipe"):
        parse_options([str(tmp_path / "other.yaml"), "--output_dir", "x"])
    recipe.write_text(
        "generator_layers: 3\ndataset: [gsm8k, svamp]\nnum_samples: [5, 6]\nvalidation_dataset: [svamp]\n"
    )
    options = parse_options([str(recipe), "--output_dir", "x", "--generator", "y", "--train_file=own.jsonl"])
    assert (options.generator, options.generator_layers) == ("y", None)
    assert options.sources == [("own.jsonl", None)] and options.validation_dataset is None
    recipe.write_text("generator: y\ntrain_file: [own.jsonl]\n")
    options = parse_options([str(recipe), "--output_dir", "x", "--generator-layers", "2", "--dataset", "gsm8k"])
    assert (options.generator, options.generator_layers, options.sources) == (None, 2, [("gsm8k", None)])
    recipe.write_text("generator_layer: 3\n")
    with pytest.raises((ValueError, SystemExit)):
        parse_options([str(recipe), "--output_dir", "x", "--generator_layers", "2"])


@pytest.mark.parametrize("recipe", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_parse(recipe):
    assert parse_options([str(recipe), "--output_dir", "x"]).base_model


def test_a_generator_with_other_token_ids(options, tmp_path):
    other = tmp_path / "other"
    tiny_language_model(hidden_size=16, vocab_size=340, max_position_embeddings=1024).save_pretrained(other)
    tokenizer = tiny_base_tokenizer()
    tokenizer.add_tokens(["extra"])
    vocabulary = tokenizer.get_vocab()
    assert len(vocabulary) < 340
    tokenizer.save_pretrained(other)
    base = AutoTokenizer.from_pretrained(options.base_model)
    base.add_tokens(["another", "extra"])
    base.save_pretrained(tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(options.base_model).save_pretrained(tmp_path / "base")
    options = replace(options, base_model=str(tmp_path / "base"), generator=str(other), generator_layers=None)
    with pytest.raises(ValueError, match="other token ids than the base"):
        build_model(options)


def test_training_goes_on_from_a_checkpoint(options, finished):
    _, checkpoint = finished
    options = replace(options, generator=str(checkpoint), generator_layers=None)
    model, tokenizer = build_model(options)
    saved = load_file(checkpoint / "model.safetensors")
    weights = model.state_dict()
    assert all(torch.equal(weights[name], saved[name]) for name in saved)
    assert model.config.thought_passes == 1
    train(replace(options, alpha=0.0, lens_epochs=0.0, max_steps=2, thought_passes=2))
    model = AutoModelForCausalLM.from_pretrained(options.output_dir, trust_remote_code=True)
    assert model(**tokenizer(["How many?"], return_tensors="pt")).thoughts.shape == (1, 5, 32)
    again, _ = build_model(replace(options, generator=options.output_dir))
    assert again.config.thought_passes == 2, "the checkpoint's own, where no other number is asked for"
    with pytest.raises(ValueError, match="thought_offset 0"):
        build_model(replace(options, generator_layers=2, generator=None, thought_offset=-1, thought_passes=2))
    for name, own, other in (("num_thoughts", 5, 4), ("thought_offset", 0, -1)):
        with pytest.raises(ValueError, match=f"has {name} {own}; give --{name} {own}"):
            build_model(replace(options, **{name: other}))
    with pytest.raises(ValueError, match="give --thought_layers 3, say"):
        build_model(replace(options, lens_steps=3, exchange_epochs=1.0))


def test_a_file_named_as_evaluation_splits_are_is_none_of_a_synthetic_set(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("eval").write_text("something else")
    assert len(load_data(options)[0]) == 90


def test_what_cannot_end_well_is_refused_at_the_start(options, tmp_path, finished):
    file = tmp_path / "train.json"
    bare = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(20)]
    file.write_text(json.dumps(bare))
    own = replace(options, train_file=[str(file)], num_samples=None, alpha=0.0)
    for column, text, message in (("answer", "left", "The gold answer"), ("reasoning", "<thought>", "reasoning holds")):
        marked = tmp_path / "marked.json"
        marked.write_text(json.dumps([*bare, {**bare[0], column: text}]))
        with pytest.raises(ValueError, match=f"marked.json, record 21: {message}"):
            train(replace(own, train_file=[str(marked)]))
    with pytest.raises(ValueError, match="no condensed_reasoning.*--lens_weight 0 --lens_epochs 0"):
        train(own)
    with pytest.raises(ValueError, match="but this is one: use torchrun"):
        train(replace(options, shard_base=True))
    with pytest.raises(ValueError, match="nobody who downloads the checkpoint has"):
        train(replace(own, push_to_hub=True))
    with pytest.raises(ValueError, match="Repo id"):
        train(replace(own, base_model="someone/base", push_to_hub=True, output_dir="run 1 (é)"))
    with pytest.raises(ValueError, match="no condensed_reasoning.*--exchange_epochs 0"):
        train(replace(own, lens_weight=0.0, lens_epochs=0.0, thought_layers=1, lens_steps=3, exchange_epochs=1.0))
    with pytest.raises(ValueError, match="no condensed_reasoning.*--explanation_weight 0"):
        train(replace(own, lens_weight=0.0, lens_epochs=0.0, explanation_weight=0.5))
    both = [{**problem, "reasoning": "r", "condensed_reasoning": "c"} for problem in bare[:5]]
    file.write_text(json.dumps([*both, *bare[5:]]))
    seed = next(s for s in range(50) if not any(load_data(replace(own, seed=s))[1]["reasoning"]))
    with pytest.raises(ValueError, match="problems of the validation split has both .*--validation_fraction"):
        train(replace(own, alpha=0.5, seed=seed))
    with pytest.raises(ValueError, match="No problem is left to train on"):
        train(replace(own, evaluation_file=[str(file)]))
    file.write_text(json.dumps([{**problem, "condensed_reasoning": "so it is"} for problem in bare]))
    given = {"thought_layers": 1, "lens_steps": 3, "exchange_epochs": 1.0, "lens_weight": 0.0, "lens_epochs": 0.0}
    with pytest.raises(ValueError, match="exchange_epochs needs condensed reasonings"):
        train(replace(own, **given, warmup_epochs=0.0, epochs=0.0, max_steps=1))
    file.write_text(json.dumps([*bare, {"question": "What? " * 400, "answer": "7"}]))
    for part in (0, 1):
        seed = next(s for s in range(99) if max(map(len, load_data(replace(own, seed=s))[part]["question"])) > 1000)
        with pytest.raises(ValueError, match=r"has \d+ tokens, the models read at most 1024.*What\? What\?"):
            train(replace(own, lens_weight=0.0, lens_epochs=0.0, overwrite_output_dir=True, seed=seed))
    with pytest.raises(ValueError, match="batch_size is 1"):
        train(replace(options, encoder_batch_size=1, output_dir=str(tmp_path / "one")))
    folder = tmp_path / "resumed"
    shutil.copytree(finished[1], folder)
    data = json.loads((folder / "data.json").read_text())
    for name, other in (("data_sha256", "0"), ("validation_sha256", "0"), ("processes", 2), ("engine", "FSDP")):
        (folder / "data.json").write_text(json.dumps({**data, name: other}))
        with pytest.raises(ValueError, match=f"started with other data, processes or engine: {name} was {other}"):
            train(replace(finished[0], output_dir=str(folder), resume_from_checkpoint=True))
    del data["engine"], data["validation_sha256"]  # as in runs that were started before they were written down
    (folder / "data.json").write_text(json.dumps(data))
    train(replace(finished[0], output_dir=str(folder), resume_from_checkpoint=True))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train_file": ["typo.jsonl"], "num_samples": None}, "no file typo.jsonl"),
        ({"base_model": "nowhere"}, "The base 'nowhere' could not be loaded"),
        ({"generator": "nowhere", "generator_layers": None}, "The generator 'nowhere' could not be loaded"),
        ({"generator": "ITSELF", "generator_layers": None}, "would be overwritten"),
        ({"generator": "ITSELF/../again", "generator_layers": None}, "would be overwritten"),
        ({"base_model": "ITSELF"}, "would be overwritten"),
        ({"dtype": "fp16"}, "none of PyTorch's"),
    ],
)
def test_a_run_that_cannot_begin_clears_no_other(finished, tmp_path, wrong, message):
    folder = tmp_path / "again"
    shutil.copytree(finished[1], folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    wrong = {name: str(folder) + value[6:] if str(value)[:6] == "ITSELF" else value for name, value in wrong.items()}
    with pytest.raises((OSError, ValueError), match=message):
        train(replace(finished[0], output_dir=str(folder), overwrite_output_dir=True, **wrong))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    fresh = tmp_path / "fresh"
    with pytest.raises((OSError, ValueError)):
        train(replace(finished[0], output_dir=str(fresh), **{**wrong, "dtype": "fp16"}))
    assert not fresh.exists()


@pytest.mark.parametrize(
    "family, asked, message",
    [
        ("bloom", {}, "A BloomForCausalLM cannot be cut .*--alpha 0"),
        ("gemma3_text", {"cache_questions": True}, "keeps the keys of its last 7 tokens only"),
    ],
)
def test_a_base_that_cannot_do_what_was_asked_is_refused_at_the_start(options, tmp_path, family, asked, message):
    tiny_language_model(family).save_pretrained(tmp_path / "base")
    tiny_base_tokenizer().save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match=message):
        train(replace(options, base_model=str(tmp_path / "base"), **asked))
    assert not Path(options.output_dir).exists()


def test_a_phase_of_one_step_trains_something(options, finished, base):
    options = replace(options, max_steps=1, lens_epochs=0.0, encoder_dense_epochs=0.0)
    train(options)
    folder = Path(options.output_dir)
    losses = [json.loads((folder / "phases" / phase / "losses.json").read_text()) for phase in ("warmup", "generator")]
    losses += json.loads((folder / "reasoning_encoder" / "losses.json").read_text()).values()
    assert len(losses) == 3 and all(entry["learning_rate"] > 0 for [entry, *_] in losses)
    started, _ = build_model(options)
    trained = load_file(folder / "model.safetensors")
    assert not all(torch.equal(started.state_dict()[name], weight) for name, weight in trained.items())


def test_the_encoder_finds_its_base_where_the_checkpoint_does(options, base, tmp_path, monkeypatch):
    shutil.copytree(base, tmp_path / "here" / "models" / "tiny-x")
    shutil.copytree(base, tmp_path / "here" / "own")
    for name in ("someone/tiny-x", "./own"):
        monkeypatch.chdir(tmp_path / "here")
        folder = tmp_path / "there" / Path(name).name
        train(replace(options, base_model=name, output_dir=str(folder), max_steps=1, lens_epochs=0.0))
        monkeypatch.chdir(tmp_path)
        encoder = SentenceTransformer(str(folder / "reasoning_encoder"), trust_remote_code=True)
        assert encoder.encode("2 + 2 = 4").shape == (16,)
        card = (folder / "README.md").read_text()
        assert "./own" not in card and str(tmp_path) not in card


def test_paths_are_not_shown_on_the_card(options, tmp_path):
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in load_problems("synthetic_arithmetic", num_samples=40)))
    train(replace(options, train_file=[str(file)], num_samples=None, max_steps=1, alpha=0.0, lens_epochs=0.0))
    card = (Path(options.output_dir) / "README.md").read_text()
    assert "Data: own.jsonl; " in card and "| train_file | ['own.jsonl'] |" in card and "| dataset |" not in card
    assert str(tmp_path) not in card and "| base_model | tiny-llama |" in card
    record = json.loads((Path(options.output_dir) / "training.json").read_text())
    card = describe_for_card(replace(options, train_file=[f"augmented:{file}"], num_samples=None), record)
    assert "Data: augmented:own.jsonl; " in card and str(tmp_path) not in card


def test_the_hubs_data_sets_are_named_once(options):
    names = ["augmented:svamp", "augmented:gsm8k", "gsm8k", "synthetic_arithmetic"]
    assert hub_datasets(replace(options, dataset=names, num_samples=None)) == ["ChilleD/SVAMP", "openai/gsm8k"]


def test_trained_on_with_other_layers_for_the_encoder(options, finished):
    own = replace(options, generator=str(finished[1]), generator_layers=None)
    layers = [
        (model.config.encoder_start_layer, model.config.encoder_end_layer)
        for start, end in ((None, None), (3, None), (1, None), (None, 4), (0, 2))
        for model in [build_model(replace(own, encoder_start_layer=start, encoder_end_layer=end))[0]]
    ]
    assert layers == [(2, 3), (3, 4), (1, 2), (2, 4), (0, 2)]
    with pytest.raises(ValueError, match="0 <= start < end <= 4, got 4 and 4"):
        build_model(replace(own, encoder_start_layer=4))


def test_training_goes_on_from_a_full_checkpoint_with_the_base_that_is_given(options, finished, tmp_path):
    model = SemCoTForCausalLM.from_pretrained(finished[1])
    torch.nn.init.zeros_(model.language_model.lm_head.weight)
    model.config.base_model_revision = "earlier"
    model.save_pretrained(tmp_path / "full", checkpoint_kind="full")
    goes_on, _ = build_model(replace(options, generator=str(tmp_path / "full"), generator_layers=None))
    assert torch.equal(goes_on.projection.weight, model.projection.weight)
    assert goes_on.language_model.lm_head.weight.any() and goes_on.config.checkpoint_kind == "adapter"
    assert goes_on.config.base_model_revision is None
    model.config.thought_offset = -1
    model.save_pretrained(tmp_path / "left")
    left = replace(options, generator=str(tmp_path / "left"), generator_layers=None, thought_offset=-1)
    assert build_model(left)[0].config.thought_offset == -1
    with pytest.raises(ValueError, match="thought_offset 0"):
        build_model(replace(left, thought_passes=2))


def test_a_base_beside_the_code_is_found_from_elsewhere(options, base, tmp_path, monkeypatch):
    shutil.copytree(base, tmp_path / "clone" / "models" / "tiny-llama")
    monkeypatch.setattr(semcot.training.run, "__file__", str(tmp_path / "clone" / "semcot" / "training.py"))
    monkeypatch.chdir(tmp_path)
    assert build_model(replace(options, base_model="someone/tiny-llama"))


def test_trained_on_with_a_base_that_has_got_more_tokens(options, finished, base, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<new>", "<newer>"])
    more = tmp_path / "more"
    shutil.copytree(base, more)
    tokenizer.save_pretrained(more)
    given = {"base_model": str(more), "generator": str(finished[1]), "generator_layers": None}
    model, tokenizer = build_model(replace(options, **given))
    batch = tokenizer(["How many?"], return_tensors="pt")
    assert model(**batch).thoughts.shape == (1, 5, 32)


def test_trained_on_with_another_base_that_base_is_remembered(options, finished, base, tmp_path):
    """The other base lies in the Hub's cache and has no folder, the first one's is there still."""
    snapshot = tmp_path / "hub" / "models--someone--other" / "snapshots" / ("0" * 40)
    shutil.copytree(base, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    assert SemCoTConfig.from_pretrained(finished[1]).local_base_model == str(base)
    options = replace(options, base_model="someone/other", generator=str(finished[1]), generator_layers=None)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from semcot.training.options import parse_options; from semcot.training.run import build_model\n"
        "config = build_model(parse_options(sys.argv[2:]))[0].config\n"
        "print(config.base_model_name_or_path, config.local_base_model)"
    )
    environment = {**ENVIRONMENT, "HF_HUB_CACHE": str(tmp_path / "hub")}
    command = [sys.executable, "-c", code, str(ROOT), *as_flags(options)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.stdout.split() == ["someone/other", "None"], result.stderr


def test_a_named_generator(options, tmp_path):
    small = tmp_path / "small"
    tiny_language_model(hidden_size=16, max_position_embeddings=1024).save_pretrained(small)
    tiny_base_tokenizer().save_pretrained(small)
    model, _ = build_model(replace(options, generator=str(small), generator_layers=None))
    assert model.projection.weight.shape == (32, 16) and not model.config.share_embeddings
    tiny_language_model(hidden_size=16, max_position_embeddings=64).save_pretrained(small)
    with pytest.raises(ValueError, match="the models read at most 64"):
        train(replace(options, generator=str(small), generator_layers=None))


@pytest.mark.parametrize("name", ["eval.json", "other.json"])
def test_evaluation_questions_are_left_out_and_counted(options, tmp_path, capsys, name):
    problems = list(load_problems("synthetic_coin_flip", "train", num_samples=20))
    train_file, evaluation_file = tmp_path / "train.json", tmp_path / name
    train_file.write_text(json.dumps([*problems, {**problems[5], "question": problems[5]["question"].upper()}]))
    evaluation_file.write_text(json.dumps(problems[:3]))
    named = [str(evaluation_file)] if name != "eval.json" else None  # eval.json beside train.json is found
    options = replace(options, train_file=[str(train_file)], evaluation_file=named, num_samples=None)
    parts = load_data(options)
    assert "3 of 3 evaluation questions also stand in train; left out" in capsys.readouterr().out
    questions = [question for part in parts for question in part["question"]]
    assert sorted(questions) == sorted(problem["question"] for problem in problems[3:]), "and each of the others once"


@pytest.mark.parametrize("name", ["svamp", "augmented:svamp"])
def test_evaluation_questions_of_a_named_data_set_are_left_out(options, tmp_path, monkeypatch, capsys, name):
    problems = list(load_problems("synthetic_arithmetic", "train", num_samples=60))
    (tmp_path / "svamp").mkdir()
    (tmp_path / "svamp" / "train.json").write_text(json.dumps(problems))
    (tmp_path / "svamp" / "eval.json").write_text(json.dumps(problems[:3]))
    monkeypatch.setenv("SEMCOT_DATA_DIR", str(tmp_path))
    parts = load_data(replace(options, dataset=[name], num_samples=None if name == "svamp" else [20]))
    shared = 3 if name == "svamp" else 0
    assert f"svamp: {shared} of 3 evaluation questions also stand in train" in capsys.readouterr().out
    questions = {question for part in parts for question in part["question"]}
    assert not questions & {problem["question"] for problem in problems[:3]}
    with pytest.raises(FileNotFoundError, match="none.json"):
        load_data(replace(options, evaluation_file=[str(tmp_path / "none.json")]))


def test_the_seed_draws_problems_and_their_split(options, tmp_path):
    first, second = (load_data(replace(options, seed=seed))[0]["question"] for seed in (0, 1))
    assert not set(first) & set(second)
    file = tmp_path / "own.json"
    file.write_text(json.dumps(list(load_problems("synthetic_arithmetic", num_samples=40))))
    own = replace(options, train_file=[str(file)], num_samples=None, validation_fraction=0.5)
    first, second = (load_data(replace(own, seed=seed))[1]["question"] for seed in (0, 1))
    assert set(first) != set(second)


def test_validation_problems_come_from_the_named_data_sets(options, tmp_path):
    file = tmp_path / "own.json"
    own = list(load_problems("synthetic_arithmetic", num_samples=40, seed=5))
    flips = list(load_problems("synthetic_coin_flip", num_samples=60, seed=options.seed))
    file.write_text(json.dumps([*own, *flips[:4]]))
    options = replace(
        options, dataset=[str(file), "synthetic_coin_flip"], num_samples=[44, 60], validation_fraction=0.5
    )
    (train_set, validation_set), again = (load_data(replace(options, validation_dataset=[str(file)])) for _ in range(2))
    assert train_set.to_list() == again[0].to_list()
    assert len(validation_set) == 22 and len(train_set) == 22 + 56
    questions = {problem["question"] for problem in (*own, *flips[:4])}
    assert set(validation_set["question"]) < questions
    assert not set(validation_set["question"]) & set(train_set["question"]), "not even from another data set"
    alone = load_data(replace(options, dataset=[str(file)], num_samples=None))
    assert validation_set.to_list() == alone[1].to_list(), "the same ones as without the other data sets"
    mixture = [question in questions for question in train_set["question"]]
    assert sum(mixture) == 22 and 0 < sum(mixture[:39]) < 22, "what reads the first problems only reads some of each"


def test_semantic_loss_needs_both_forms_of_the_reasoning(options, tmp_path):
    file = tmp_path / "train.json"
    file.write_text(json.dumps([{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(20)]))
    with pytest.raises(ValueError, match="of the train split has both reasoning and condensed_reasoning"):
        train(replace(options, base_model="nowhere", train_file=[str(file)], num_samples=None))


def test_problems_without_reasoning_are_aligned_with_nothing(options, tmp_path):
    """Mixed data: what has no reasoning takes part in the answer's loss alone."""
    file = tmp_path / "train.json"
    file.write_text(json.dumps([{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(60)]))
    options = replace(options, dataset=["synthetic_arithmetic", str(file)], num_samples=[40, 60], max_steps=3)
    train(options)
    embedded = load_file(Path(options.output_dir) / "phases/reasoning_embeddings_validation.safetensors")["embeddings"]
    assert 0 < embedded.any(1).sum() < len(embedded) == 10


@pytest.mark.parametrize("script", ["train_semcot.py", "eval_semcot.py"])
def test_help_from_another_folder(script, tmp_path):
    result = subprocess.run(
        [sys.executable, str(ROOT / script), "--help"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert result.returncode == 0 and "--output_dir" in result.stdout
