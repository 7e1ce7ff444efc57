"""Saving and loading: both kinds of checkpoint, every Auto class, wrong and broken files, LoRA."""

import copy
import json
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
from conftest import FAMILIES, ROOT, TEXTS, tiny_language_model, tiny_semcot
from datasets import Dataset
from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments
from transformers.utils import logging as hf_logging

from checkpoint_semcot import find_base
from configuration_semcot import SemCoTConfig
from modeling_semcot import SemCoTForCausalLM

IN_A_FRESH_PROCESS = """
import sys, torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, pipeline
path, question = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
batch = tokenizer([question], return_tensors="pt")
logits = [
    auto.from_pretrained(path, trust_remote_code=True)(**batch).logits for auto in (AutoModel, AutoModelForCausalLM)
]
assert torch.equal(*logits)
torch.save(logits[0], "logits.pt")
answer = pipeline("text-generation", model=path, trust_remote_code=True, max_new_tokens=4, do_sample=False)
string = answer(question, return_full_text=False)[0]["generated_text"]
chat = answer([{"role": "user", "content": question}])[0]["generated_text"][-1]["content"]
batched = answer([question, question + " Now?"], batch_size=2, return_full_text=False)
assert string == chat == batched[0][0]["generated_text"], (string, chat, batched)
"""


def logits_of(model, tokenizer):
    return model(**tokenizer(list(TEXTS), return_tensors="pt", padding=True)).logits


@pytest.mark.parametrize("kind", ["adapter", "full"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("generator", [2, None], ids=["first_layers", "named"])
def test_reload_is_bitwise(family, kind, generator, tmp_path):
    model, tokenizer = tiny_semcot(family, generator, base_model_name_or_path="someone/base")
    model.language_model.save_pretrained(tmp_path / "models" / "base")
    model.save_pretrained(tmp_path / "checkpoint", checkpoint_kind=kind)
    assert model.config.checkpoint_kind == "full", "a save leaves the model as it is"
    assert not list((tmp_path / "checkpoint").glob("*.bin")) and not list((tmp_path / "checkpoint").glob(".saving*"))
    names = load_file(tmp_path / "checkpoint" / "model.safetensors").keys()
    assert any(name.startswith("language_model.") for name in names) == (kind == "full")
    loaded, info = SemCoTForCausalLM.from_pretrained(tmp_path / "checkpoint", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert loaded.config.checkpoint_kind == kind and not loaded.training
    assert not any(p.requires_grad for p in loaded.language_model.parameters())
    assert torch.equal(logits_of(loaded, tokenizer), logits_of(model, tokenizer))


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_fresh_process_in_an_empty_folder(adapter, kind, tmp_path):
    if kind == "full":
        model = SemCoTForCausalLM.from_pretrained(adapter)
        adapter = tmp_path / "elsewhere"
        model.save_pretrained(adapter, checkpoint_kind="full")
        AutoTokenizer.from_pretrained(tmp_path / "checkpoint", trust_remote_code=True).save_pretrained(adapter)
        shutil.rmtree(tmp_path / "models")
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS, str(adapter), TEXTS[0]]
    result = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    tokenizer = AutoTokenizer.from_pretrained(adapter, trust_remote_code=True)
    model = SemCoTForCausalLM.from_pretrained(adapter)
    expected = model(**tokenizer([TEXTS[0]], return_tensors="pt")).logits
    assert torch.equal(torch.load(empty / "logits.pt", weights_only=True), expected)


def test_a_checkpoint_in_a_subfolder(semcot, tmp_path):
    model, tokenizer = semcot
    model.save_pretrained(tmp_path / "sub")
    loaded = SemCoTForCausalLM.from_pretrained(tmp_path, subfolder="sub")
    assert torch.equal(logits_of(loaded, tokenizer), logits_of(model, tokenizer))


def test_what_a_checkpoint_holds(adapter):
    names = {file.name for file in adapter.iterdir()}
    assert names >= {"README.md", "config.json", "configuration_semcot.py", "modeling_semcot.py", "model.safetensors"}
    config = json.loads((adapter / "config.json").read_text())
    assert config["auto_map"]["AutoModelForCausalLM"] == "modeling_semcot.SemCoTForCausalLM"
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForCausalLM"}
    card = (adapter / "README.md").read_text()
    for tag in ("semcot", "chain-of-thought", "implicit-reasoning", "model_hub_mixin", "pytorch_model_hub_mixin"):
        assert f"- {tag}\n" in card
    for line in ("pipeline_tag: text-generation", "base_model: someone/tiny-llama", "license: apache-2.0"):
        assert line in card
    for text in ("in parallel passes, into 3 implicit tokens", "The base is not in this checkpoint"):
        assert text in card


def test_the_snippet_on_the_card_runs(adapter, tmp_path, capsys):
    snippet = (adapter / "README.md").read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "snippet.py").write_text(snippet.replace("PATH_OR_REPO", str(adapter)))
    runpy.run_path(str(tmp_path / "snippet.py"))
    assert "generated_text" in capsys.readouterr().out


def test_card_takes_data_sets_and_details(tmp_path):
    model, _ = tiny_semcot()
    model.save_pretrained(tmp_path, model_card_kwargs={"datasets": ["openai/gsm8k"], "details": "## Training\n\n42 %"})
    card = (tmp_path / "README.md").read_text()
    assert "datasets:\n- openai/gsm8k" in card and "42 %" in card


def test_saving_again_replaces_the_weights_and_keeps_the_card(tmp_path):
    model, tokenizer = tiny_semcot()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    assert torch.equal(logits_of(SemCoTForCausalLM.from_pretrained(tmp_path), tokenizer), logits_of(model, tokenizer))
    (tmp_path / "README.md").write_text("mine")
    model.save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.glob("model*.safetensors*")] == ["model.safetensors"]
    assert (tmp_path / "README.md").read_text() == "mine"
    before = (tmp_path / "model.safetensors").read_bytes()
    copy.deepcopy(model).half().save_pretrained(tmp_path, variant="fp16", max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.fp16.json").exists()
    copy.deepcopy(model).half().save_pretrained(tmp_path, variant="fp16")
    names = sorted(file.name for file in tmp_path.glob("model*.safetensors*"))
    assert names == ["model.fp16.safetensors", "model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_a_save_removes_nothing_but_weights_under_its_own_names(tmp_path):
    model, _ = tiny_semcot()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert list(tmp_path.glob("model-00001-of-*.safetensors"))
    mine = ["model-backup.safetensors", "model-1-of-2.safetensors", "model-00001-of-00002-old.safetensors"]
    mine += ["model.fp16.safetensors", "model.fp16-00001-of-00002.safetensors", "adapter_model.safetensors"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    model.save_pretrained(tmp_path)
    kept = {file.name for file in tmp_path.iterdir()}
    assert set(mine) < kept and {name for name in kept - set(mine) if "safetensors" in name} == {"model.safetensors"}


def test_saving_that_is_cut_short_leaves_the_earlier_checkpoint(tmp_path, request):
    model, _ = tiny_semcot()
    model.save_pretrained(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    torch.nn.init.normal_(model.projection.bias)

    request.getfixturevalue("killed_at_renames")  # from here on
    with pytest.raises(KeyboardInterrupt):
        model.save_pretrained(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    with pytest.raises(KeyboardInterrupt):
        model.save_pretrained(tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize("base", [str(ROOT / "tests"), "tests", "/nowhere/models/tests", "../models/tests"])
def test_a_base_in_a_folder_is_neither_pushed_nor_shown(base, monkeypatch):
    monkeypatch.chdir(ROOT)
    model, _ = tiny_semcot(base_model_name_or_path=base, checkpoint_kind="adapter")
    for stored, given in (("adapter", {}), ("full", {"checkpoint_kind": "adapter"})):
        model.config.checkpoint_kind = stored
        with pytest.raises(ValueError, match="nobody who downloads it has"):
            model.push_to_hub("someone/model", **given)
    card = model.generate_model_card()
    assert "`tests`" in card.text and not card.data.base_model


def test_a_full_checkpoint_is_pushed_without_the_folder_of_its_base(monkeypatch):
    pushed = {}

    def upload_folder(self, *, folder_path, **_):
        pushed.update({file.name: file.read_bytes() for file in Path(folder_path).iterdir()})

    monkeypatch.setattr("checkpoint_semcot.HfApi.create_repo", MagicMock())
    no_card = RemoteEntryNotFoundError("no card", response=MagicMock())
    monkeypatch.setattr("checkpoint_semcot.HfApi.hf_hub_download", MagicMock(side_effect=no_card))
    monkeypatch.setattr("checkpoint_semcot.HfApi.upload_folder", upload_folder)
    model, _ = tiny_semcot(base_model_name_or_path="/home/someone/tiny-llama", local_base_model="/home/someone/other")
    model.push_to_hub("someone/model")
    assert "README.md" in pushed and not any(b"/home/someone" in content for content in pushed.values())
    assert b"The base is not in this checkpoint" not in pushed["README.md"]
    assert model.config.base_model_name_or_path == "/home/someone/tiny-llama"


def test_the_card_has_the_addresses_of_its_class(tmp_path):
    class Mine(SemCoTForCausalLM, repo_url="https://a.example", model_card_template="{{ repo_url }} {{ paper_url }}"):
        """Another project's model."""

    model, _ = tiny_semcot()
    assert "[SemCoT](https://arxiv.org/abs/2510.24940)" in model.generate_model_card().text
    model.__class__ = Mine
    assert model.generate_model_card().text == "https://a.example https://arxiv.org/abs/2510.24940"


def test_tags_of_the_model_are_on_its_card(semcot):
    semcot[0].add_model_tags(["arithmetic"])
    assert {"arithmetic", "semcot"} <= set(semcot[0].generate_model_card().data.tags)


def test_a_save_that_pushes_hands_on_what_was_asked_for(semcot, tmp_path, monkeypatch):
    pushed = []

    def push_to_hub(self, name, **given):
        pushed.append((name, given))
        return "address"

    monkeypatch.setattr(SemCoTForCausalLM, "push_to_hub", push_to_hub)
    asked = {"commit_message": "m", "private": True, "revision": "r", "create_pr": True, "token": "t"}
    asked |= {"model_card_kwargs": {"details": "d"}, "delete_patterns": "*.old"}
    for is_main_process, answer in ((False, None), (True, "address")):
        told = {"is_main_process": is_main_process, **asked}
        assert semcot[0].save_pretrained(tmp_path / "mine", push_to_hub=True, **told) == answer
    ((name, given),) = pushed
    assert name == "mine" and asked.items() <= given.items()


@pytest.mark.parametrize("create_pr", [False, True])
def test_a_push_goes_where_it_was_asked_to(semcot, monkeypatch, create_pr):
    opened = MagicMock()
    api = opened.return_value
    api.create_repo.return_value.repo_id = "someone/mine"
    api.hf_hub_download.side_effect = RemoteEntryNotFoundError("no card", response=MagicMock())
    monkeypatch.setattr("checkpoint_semcot.HfApi", opened)
    said = {"commit_message": "m", "commit_description": "d", "create_pr": create_pr}
    semcot[0].push_to_hub("mine", branch="b", token="t", **said)
    opened.assert_called_once_with(token="t")
    api.create_repo.assert_called_once_with("mine", private=None, exist_ok=True)  # an organisation's own default
    assert [call.kwargs["branch"] for call in api.create_branch.call_args_list] == ([] if create_pr else ["b"])
    given = {"repo_id": "someone/mine", "revision": "b", **said}
    assert given.items() <= api.upload_folder.call_args.kwargs.items()


def test_a_card_that_cannot_be_read_is_not_written_over(semcot, monkeypatch):
    opened = MagicMock()
    opened.return_value.hf_hub_download.side_effect = LocalEntryNotFoundError("no connection")
    monkeypatch.setattr("checkpoint_semcot.HfApi", opened)
    with pytest.raises(LocalEntryNotFoundError, match="no connection"):
        semcot[0].push_to_hub("mine")
    opened.return_value.upload_folder.assert_not_called()


def test_another_config_than_the_models_is_not_saved(semcot, tmp_path):
    with pytest.raises(ValueError, match="change model.config"):
        semcot[0].save_pretrained(tmp_path, config=SemCoTConfig())
    with pytest.raises(ValueError, match="There is no base to save"):
        SemCoTForCausalLM(semcot[0].config, with_base=False).save_pretrained(tmp_path)
    semcot[0].save_pretrained(tmp_path, is_main_process=False)
    assert not list(tmp_path.iterdir()), "the other processes write nothing"


def test_what_a_trainer_predicts_are_the_logits_alone(semcot, tmp_path):
    model, tokenizer = semcot
    batch = tokenizer(list(TEXTS), padding=True)
    hidden = model.config.thought_token_id, tokenizer.pad_token_id
    labels = [[-100 if token in hidden else token for token in row] for row in batch["input_ids"]]
    rows = Dataset.from_dict({**batch, "labels": labels})
    arguments = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, per_device_eval_batch_size=2)
    predictions = Trainer(model, arguments).predict(rows).predictions
    torch.testing.assert_close(torch.tensor(predictions), logits_of(model, tokenizer), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_a_trainer_misses_nothing_that_the_checkpoint_leaves_out(adapter, tmp_path, kind, caplog):
    model = SemCoTForCausalLM.from_pretrained(adapter)
    model.config.checkpoint_kind = kind
    tokenizer = AutoTokenizer.from_pretrained(adapter, trust_remote_code=True)
    batch = tokenizer(list(TEXTS), padding=True)
    labels = [[*[-100] * (len(row) - 1), row[-1]] for row in batch["input_ids"]]
    rows = Dataset.from_dict({**batch, "labels": labels})
    options = {"max_steps": 2, "save_steps": 1, "eval_steps": 1, "eval_strategy": "steps", "report_to": "none"}
    arguments = TrainingArguments(str(tmp_path / "run"), load_best_model_at_end=True, use_cpu=True, **options)
    hf_logging.enable_propagation()
    Trainer(model, arguments, train_dataset=rows, eval_dataset=rows).train()
    hf_logging.disable_propagation()
    assert "missing keys" not in caplog.text
    names = load_file(tmp_path / "run" / "checkpoint-1" / "model.safetensors").keys()
    assert any(name.startswith("language_model.") for name in names) == (kind == "full")
    weights = load_file(tmp_path / "run" / "checkpoint-1" / "model.safetensors")
    assert set(model.load_state_dict(weights, strict=False).missing_keys) == model._keys_to_ignore_on_save


def test_saving_from_a_loaded_remote_class(adapter, tmp_path):
    loaded = AutoModelForCausalLM.from_pretrained(adapter, trust_remote_code=True)
    assert type(loaded) is not SemCoTForCausalLM
    loaded.save_pretrained(tmp_path / "again", checkpoint_kind="full")
    again = AutoModel.from_pretrained(tmp_path / "again", trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(adapter, trust_remote_code=True)
    assert torch.equal(logits_of(again, tokenizer), logits_of(loaded, tokenizer))


def test_where_the_base_is_looked_for(adapter, tmp_path, monkeypatch):
    model = SemCoTForCausalLM.from_pretrained(adapter)
    model.config.local_base_model = str(tmp_path / "gone")  # where another machine had it
    model.save_pretrained(adapter)
    SemCoTForCausalLM.from_pretrained(adapter)
    moved = tmp_path / "moved"
    (tmp_path / "models" / "tiny-llama").rename(moved)
    (tmp_path / "models").rmdir()
    with pytest.raises(OSError, match="'someone/tiny-llama', (?s:could not be loaded.*base_model=.*SEMCOT_BASE_MODEL)"):
        SemCoTForCausalLM.from_pretrained(adapter)
    SemCoTForCausalLM.from_pretrained(adapter, base_model=moved)
    SemCoTForCausalLM.from_pretrained(adapter, base_model=AutoModelForCausalLM.from_pretrained(moved))
    monkeypatch.setenv("SEMCOT_BASE_MODEL", str(moved))
    model = SemCoTForCausalLM.from_pretrained(adapter)
    monkeypatch.setenv("SEMCOT_BASE_MODEL", "nowhere")
    SemCoTForCausalLM.from_pretrained(adapter, base_model=moved)
    monkeypatch.delenv("SEMCOT_BASE_MODEL")
    assert model.config.text_config is model.language_model.config
    model.config.local_base_model = str(moved)
    model.save_pretrained(tmp_path / "hinted")
    SemCoTForCausalLM.from_pretrained(tmp_path / "hinted")
    assert find_base("someone/tiny-llama", adapter) == "someone/tiny-llama"


@pytest.mark.parametrize("named", [False, True])
def test_a_base_that_was_found_is_found_again(adapter, tmp_path, named):
    """Else the next load would take the Hub's, whose weights may differ."""
    found = tmp_path / "models" / "tiny-llama"
    if named:
        found = found.rename(tmp_path / "elsewhere")
    model = SemCoTForCausalLM.from_pretrained(adapter, base_model=found if named else None)
    with tempfile.TemporaryDirectory() as elsewhere:
        model.save_pretrained(elsewhere)
        assert SemCoTForCausalLM.from_pretrained(elsewhere).config.local_base_model == str(found)


def test_a_base_beside_a_link_to_the_checkpoint_is_found(adapter, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link").symlink_to(adapter)
    (tmp_path / "models").rename(tmp_path / "elsewhere" / "models")
    SemCoTForCausalLM.from_pretrained(tmp_path / "elsewhere" / "link")


def test_a_base_from_a_relative_folder_is_found_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_language_model().save_pretrained("here")
    base = AutoModelForCausalLM.from_pretrained("here")
    SemCoTForCausalLM.from_components(base, 2, checkpoint_kind="adapter").save_pretrained("checkpoint")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    SemCoTForCausalLM.from_pretrained(tmp_path / "checkpoint")


@pytest.mark.parametrize(
    "wrong", [{"hidden_size": 64}, {"vocab_size": 400}, {"num_hidden_layers": 3}, {"model_type": "mistral"}]
)
def test_base_that_does_not_fit(adapter, tmp_path, wrong):
    ((field, found),) = wrong.items()
    tiny_language_model(**({"family": found} if field == "model_type" else wrong)).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=f"has {field} {found}, this checkpoint was trained on 'someone/tiny-llama'"):
        SemCoTForCausalLM.from_pretrained(adapter, base_model=tmp_path / "other")


def test_a_base_that_cannot_be_one(adapter, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match="'someone/tiny-llama', could not be loaded from .*empty': .* no config.json"):
        SemCoTForCausalLM.from_pretrained(adapter, base_model=tmp_path / "empty")
    headless = AutoModel.from_pretrained(tmp_path / "models" / "tiny-llama")
    with pytest.raises(ValueError, match="A LlamaModel writes no text"):
        SemCoTForCausalLM.from_pretrained(adapter, base_model=headless)


def test_truncated_weights(adapter):
    weights = adapter / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(OSError, match="truncated or corrupt"):
        SemCoTForCausalLM.from_pretrained(adapter)
    weights.write_bytes(whole)
    weights = adapter.parent / "models" / "tiny-llama" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(OSError, match="'someone/tiny-llama', could not be loaded"):
        SemCoTForCausalLM.from_pretrained(adapter)


def test_another_failure_is_not_taken_for_one_of_shapes(adapter, monkeypatch):
    monkeypatch.setattr(SemCoTForCausalLM, "_load_pretrained_model", MagicMock(side_effect=RuntimeError("no memory")))
    with pytest.raises(RuntimeError, match="no memory"):
        SemCoTForCausalLM.from_pretrained(adapter)


def test_weights_of_other_shapes_than_the_config_says(adapter):
    config = json.loads((adapter / "config.json").read_text())
    config["generator_config"]["intermediate_size"] = 48
    (adapter / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="other shapes than its config.json says"):
        SemCoTForCausalLM.from_pretrained(adapter)


def test_a_base_for_a_checkpoint_that_holds_its_own_is_refused(adapter, tmp_path):
    SemCoTForCausalLM.from_pretrained(adapter).save_pretrained(tmp_path / "full", checkpoint_kind="full")
    with pytest.raises(ValueError, match="full checkpoint, which holds its base"):
        SemCoTForCausalLM.from_pretrained(tmp_path / "full", base_model=tmp_path / "models" / "tiny-llama")


def test_missing_weights_are_never_made_up(adapter):
    weights = load_file(adapter / "model.safetensors")
    del weights["projection.bias"]
    save_file(weights, adapter / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights that its config calls for, such as projection.bias"):
        SemCoTForCausalLM.from_pretrained(adapter)


def test_missing_weights_of_the_base_are_never_made_up(adapter, tmp_path):
    file = tmp_path / "models" / "tiny-llama" / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(OSError, match="lacks weights, such as model.layers.1.mlp.up_proj.weight"):
        SemCoTForCausalLM.from_pretrained(adapter)


def test_adapter_without_a_name_for_its_base(tmp_path):
    model, _ = tiny_semcot()
    model.config.base_model_name_or_path = None
    with pytest.raises(ValueError, match="it must name it"):
        model.save_pretrained(tmp_path / "x", checkpoint_kind="adapter")
    assert not (tmp_path / "x").exists() or not any((tmp_path / "x").iterdir())
    model.config.checkpoint_kind = "adapter"
    model.config.save_pretrained(tmp_path)
    with pytest.raises(OSError, match="does not name its base: pass base_model="):
        SemCoTForCausalLM.from_pretrained(tmp_path)


def test_default_config_is_sheared_llama():
    config = SemCoTConfig()
    text = config.text_config
    assert (text.num_hidden_layers, text.hidden_size, text.num_attention_heads) == (24, 2048, 16)
    assert (text.intermediate_size, text.vocab_size, text.tie_word_embeddings) == (5504, 32000, False)
    assert config.generator_config.hidden_size < text.hidden_size
    assert config.answer_cue == "\nAnswer:"
    assert config.thought_token_id == 32000 and config.tie_word_embeddings is False
    assert (config.encoder_start_layer, config.encoder_end_layer) == (12, 15)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_thoughts": 0},
        {"num_thoughts": "3"},
        {"thought_token_id": -1},
        {"thought_token_id": 7.0},
        {"thought_offset": 2},
        {"thought_passes": 2},
        {"base_model_revision": "earlier"},
        {"refiner_layers": 1},
        {"thought_layers": 3},
        {"checkpoint_kind": "half"},
        {"prompt_template": None},
        {"prompt_template": "{question}"},
        {"prompt_template": "{thoughts}"},
        {"prompt_template": "{question}{thoughts}{thoughts}"},
        {"text_config": {"hidden_size": 32}},
    ],
)
def test_config_refuses(wrong):
    with pytest.raises(ValueError, match="model_type" if "text_config" in wrong else next(iter(wrong))):
        SemCoTConfig(**wrong)


@pytest.mark.parametrize("start, end", [(-1, 2), (3, 3), (20, 25), (1, 2.5), ("1", 2)])
def test_layers_outside_the_base_are_refused(start, end):
    with pytest.raises(ValueError, match=f"0 <= start < end <= 24, got {start} and {end}"):
        SemCoTConfig(encoder_start_layer=start, encoder_end_layer=end)


def test_config_round_trip(adapter):
    config = AutoConfig.from_pretrained(adapter, trust_remote_code=True)
    assert config.num_thoughts == 3 and config.thought_token_id == 330 and config.share_embeddings
    assert config.text_config.num_hidden_layers == 4 and config.generator_config.num_hidden_layers == 2
    assert "{question}" in config.prompt_template


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_loading_options(adapter, kind, tmp_path):
    folder = adapter
    if kind == "full":
        folder = tmp_path / "full"
        SemCoTForCausalLM.from_pretrained(adapter).save_pretrained(folder, checkpoint_kind="full")
    for dtype in (torch.bfloat16, torch.float16):
        model = SemCoTForCausalLM.from_pretrained(folder, dtype=dtype)
        assert {p.dtype for p in model.parameters()} == {dtype}
    model = SemCoTForCausalLM.from_pretrained(folder, device_map="cpu")
    assert model.device.type == "cpu"
    auto = partial(AutoModelForCausalLM.from_pretrained, trust_remote_code=True)
    for load in (SemCoTForCausalLM.from_pretrained, auto):
        assert {p.dtype for p in load(folder, torch_dtype=torch.bfloat16).parameters()} == {torch.bfloat16}
        assert {p.dtype for p in load(folder, dtype="auto").parameters()} == {torch.float32}
        for implementation in ("eager", "sdpa"):
            model = load(folder, attn_implementation=implementation)
            parts = (model.language_model, model.generator)
            assert {part.config._attn_implementation for part in parts} == {implementation}
        model = load(folder, attn_implementation={"text_config": "eager", "generator_config": "sdpa"})
        parts = (model.language_model, model.generator)
        assert [part.config._attn_implementation for part in parts] == ["eager", "sdpa"]


def test_loading_options_reach_the_base(adapter, tmp_path, monkeypatch):
    load = MagicMock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load)
    given = {"device_map": "cpu", "max_memory": {"cpu": 10**9}, "offload_folder": "x", "quantization_config": object()}
    given |= {"cache_dir": str(tmp_path), "local_files_only": True, "token": "t", "dtype": torch.bfloat16}
    with pytest.raises(KeyboardInterrupt):
        SemCoTForCausalLM.from_pretrained(adapter, **given)
    assert given.items() <= load.call_args.kwargs.items()


@pytest.mark.parametrize("kind", ["adapter", "full"])
@pytest.mark.parametrize("auto", [False, True], ids=["class", "auto"])
def test_fields_of_the_base_are_given_as_to_a_stock_model(adapter, tmp_path, kind, auto):
    SemCoTForCausalLM.from_pretrained(adapter).save_pretrained(tmp_path / "full", checkpoint_kind="full")
    path = {"adapter": adapter, "full": tmp_path / "full"}[kind]
    load = partial(AutoModelForCausalLM.from_pretrained, trust_remote_code=True)
    load = partial(load if auto else SemCoTForCausalLM.from_pretrained, path)
    batch = AutoTokenizer.from_pretrained(adapter, trust_remote_code=True)([TEXTS[0]], return_tensors="pt")

    assert load()(**batch).past_key_values and load()(**batch).hidden_states is None
    model = load(use_cache=False)
    assert model(**batch).past_key_values is None and model.generation_config.use_cache is False
    model = load(pad_token_id=7)
    assert model.language_model.config.pad_token_id == model.generation_config.pad_token_id == 7
    assert len(load(output_hidden_states=True)(**batch).hidden_states) == 5
    assert len(load(output_attentions=True, attn_implementation="eager")(**batch).attentions) == 4
    slow = {"rope_theta": 9.0, "rope_type": "default"}
    assert not torch.equal(load(rope_parameters=slow)(**batch).logits, load()(**batch).logits)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        load(nonsense=1)


def test_fields_of_a_base_that_is_loaded_already(adapter):
    base = SemCoTForCausalLM.from_pretrained(adapter).language_model
    model = SemCoTForCausalLM.from_pretrained(adapter, base_model=base, use_cache=False)
    assert model.language_model is base and base.config.use_cache is False


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_a_config_and_a_state_dict_instead_of_files(adapter, kind):
    model = SemCoTForCausalLM.from_pretrained(adapter)
    tokenizer = AutoTokenizer.from_pretrained(adapter, trust_remote_code=True)
    config, weights = copy.deepcopy(model.config), model.state_dict()
    config.checkpoint_kind, given = kind, {}
    if kind == "adapter":
        weights = {name: weight for name, weight in weights.items() if not name.startswith("language_model.")}
        given["base_model"] = adapter.parent / "models" / "tiny-llama"
    loaded = SemCoTForCausalLM.from_pretrained(None, config=config, state_dict=weights, **given)
    assert torch.equal(logits_of(loaded, tokenizer), logits_of(model, tokenizer))
    del weights["projection.bias"]
    with pytest.raises(ValueError, match="lacks 1 weights that its config calls for, such as projection.bias"):
        SemCoTForCausalLM.from_pretrained(None, config=config, state_dict=weights, **given)


def test_what_from_pretrained_returns_is_annotated():
    assert "Self" in str(SemCoTForCausalLM.from_pretrained.__annotations__["return"])


def test_a_base_that_is_spread_says_where_its_parts_are(semcot):
    own = dict.fromkeys(("generator", "projection"), torch.device("cpu"))
    for spread, named in (({"": 0}, {"language_model": 0}), ({"model": 1}, {"language_model.model": 1})):
        semcot[0].language_model.hf_device_map = spread
        semcot[0].attach_base(semcot[0].language_model)
        assert semcot[0].hf_device_map == named | own


def test_a_base_that_is_offloaded_whole(adapter, tmp_path):
    loaded = SemCoTForCausalLM.from_pretrained(adapter, device_map={"": "disk"}, offload_folder=tmp_path / "offloaded")
    assert loaded.language_model.device.type == "meta" and loaded.projection.weight.device.type == "cpu"
    tokenizer = AutoTokenizer.from_pretrained(adapter, trust_remote_code=True)
    assert torch.equal(logits_of(loaded, tokenizer), logits_of(SemCoTForCausalLM.from_pretrained(adapter), tokenizer))


def test_an_adapters_base_keeps_its_dtype(adapter, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(adapter.parent / "models" / "tiny-llama", dtype=torch.bfloat16)
    SemCoTForCausalLM.from_pretrained(adapter, base_model=base).save_pretrained(adapter)
    model = SemCoTForCausalLM.from_pretrained(adapter)
    assert model.language_model.dtype == torch.bfloat16 and model.projection.weight.dtype == torch.float32


def test_attention_implementations_agree(adapter):
    tokenizer = AutoTokenizer.from_pretrained(adapter, trust_remote_code=True)
    eager, sdpa = (
        logits_of(SemCoTForCausalLM.from_pretrained(adapter, attn_implementation=name), tokenizer)
        for name in ("eager", "sdpa")
    )
    torch.testing.assert_close(eager[:, -1], sdpa[:, -1], atol=1e-4, rtol=1e-4)


def test_lora_on_the_generator(adapter, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    model = SemCoTForCausalLM.from_pretrained(adapter)
    tokenizer = AutoTokenizer.from_pretrained(adapter, trust_remote_code=True)
    lora = get_peft_model(model, LoraConfig(r=4, target_modules=r"generator\..*\.(q_proj|v_proj)"))
    trained = [name for name, p in lora.named_parameters() if p.requires_grad]
    assert trained and all("generator" in name and "lora" in name for name in trained)
    batch = tokenizer(list(TEXTS), return_tensors="pt", padding=True)
    before = lora(**batch).logits
    optimizer = torch.optim.SGD([p for p in lora.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        lora(**batch).logits.square().mean().backward()
        optimizer.step()
    after = lora.eval()(**batch).logits
    assert not torch.allclose(before, after)
    lora.save_pretrained(tmp_path / "lora")
    again = PeftModel.from_pretrained(SemCoTForCausalLM.from_pretrained(adapter), tmp_path / "lora")
    torch.testing.assert_close(again(**batch).logits, after)
    assert again.generate(**batch, max_new_tokens=2).shape[0] == 3


def test_quantising_a_full_checkpoint_is_refused(tmp_path):
    model, _ = tiny_semcot()
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="save it as an adapter"):
        SemCoTForCausalLM.from_pretrained(tmp_path, quantization_config=object())


def test_the_clone_is_a_checkpoint():
    """The repository's root: config, tokenizer, card and weights fit each other; no base is needed to see that."""
    config = AutoConfig.from_pretrained(ROOT, trust_remote_code=True)
    assert config.checkpoint_kind == "adapter" and config.local_base_model is None
    assert '"/' not in (ROOT / "config.json").read_text(), "a path of the machine that wrote it"
    weights = Path(ROOT / "model.safetensors")
    assert weights.stat().st_size <= 64 * 2**20
    tokenizer = AutoTokenizer.from_pretrained(ROOT, trust_remote_code=True)
    assert tokenizer.convert_tokens_to_ids("<thought>") == config.thought_token_id
    assert tokenizer("How many?").input_ids.count(config.thought_token_id) == config.num_thoughts
