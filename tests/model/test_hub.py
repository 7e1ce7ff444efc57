"""Pushing to and loading from the Hub, a loopback server here. Every client is a fresh process with an empty cache."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import HubServer
from safetensors.torch import load, load_file

ROOT = Path(__file__).resolve().parents[2]
REMOTE_CODE = ("configuration_semcot.py", "modeling_semcot.py")
BASE, ADAPTER, FULL, SAVED = (f"loopback/{name}" for name in ("base", "adapter", "full", "saved"))

PUSH = f"""
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from modeling_semcot import SemCoTForCausalLM
from semcot.tokenization import build_tokenizer

torch.manual_seed(0)
vocabulary = ["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
backend = Tokenizer(models.BPE({{token: index for index, token in enumerate(vocabulary)}}, []))
backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="</s>")
base = LlamaForCausalLM(LlamaConfig(
    vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_attention_heads=4, num_hidden_layers=3,
    bos_token_id=None, eos_token_id=0, pad_token_id=0,
))
base.push_to_hub("{BASE}")
tokenizer.push_to_hub("{BASE}")

base = AutoModelForCausalLM.from_pretrained("{BASE}")
base_tokenizer = AutoTokenizer.from_pretrained("{BASE}")
logits = {{"base": base(**base_tokenizer("1 + 1", return_tensors="pt")).logits}}
tokenizer, prompt_template = build_tokenizer(base_tokenizer, num_thoughts=3)
model = SemCoTForCausalLM.from_components(
    base, 2, num_thoughts=3, tokenizer=tokenizer, prompt_template=prompt_template, local_base_model="/nowhere"
)
batch = tokenizer(["1 + 1 is how many?", "2 + 2?"], padding=True, return_tensors="pt")
for options in ({{}}, {{"revision": "v2", "max_shard_size": "40KB"}}):
    card = {{"model_card_kwargs": {{"datasets": ["ChilleD/MultiArith"]}}, "tags": ["arithmetic"]}}
    model.push_to_hub("{ADAPTER}", checkpoint_kind="adapter", tokenizer=tokenizer, **card, **options)
    model.push_to_hub("{FULL}", checkpoint_kind="full", private=True, tokenizer=tokenizer, **card, **options)
    logits[options.get("revision", "main")] = model(**batch).logits
    torch.nn.init.normal_(model.projection.bias)
model.save_pretrained("saved", push_to_hub=True, repo_id="{SAVED}", checkpoint_kind="full")
logits["saved"] = model(**batch).logits
save_file({{name: value.detach() for name, value in logits.items()}}, "logits.safetensors")
"""

LOAD = """
import sys
from pathlib import Path
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

assert not list(Path().iterdir())
repo, logits = sys.argv[1], {}
for auto_class, options in ((AutoModelForCausalLM, {}), (AutoModel, {"revision": "v2"})):
    tokenizer = AutoTokenizer.from_pretrained(repo, **options)
    model = auto_class.from_pretrained(repo, trust_remote_code=True, **options)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    batch = tokenizer(["1 + 1 is how many?", "2 + 2?"], padding=True, return_tensors="pt")
    assert model.generate(**batch, max_new_tokens=2).shape[1] <= batch.input_ids.shape[1] + 2
    logits[options.get("revision", "main")] = model(**batch).logits.detach()
save_file(logits, "logits.safetensors")
"""


def run(script: str, hub: HubServer, folder: Path, *arguments: str, path: str = "") -> subprocess.CompletedProcess:
    """Run a script in a fresh process in the empty `folder`, with an empty cache and this server for the Hub."""
    folder.mkdir()
    environment = {**os.environ, **hub.environment(folder.with_name(f"{folder.name}-cache")), "PYTHONPATH": path}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def run_for_logits(*arguments: str, hub: HubServer, folder: Path, path: str = "") -> dict[str, torch.Tensor]:
    """`run`, which must succeed, and the logits that the script saved."""
    result = run(arguments[0], hub, folder, *arguments[1:], path=path)
    assert result.returncode == 0, result.stderr
    return load_file(folder / "logits.safetensors")


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        yield server
        assert server.unknown == []


@pytest.fixture(scope="module")
def pushed(hub, tmp_path_factory):
    """Logits of a tiny base and of the SemCoT models over it, all of them pushed: `main`, a changed `v2`, `saved`."""
    return run_for_logits(PUSH, hub=hub, folder=tmp_path_factory.mktemp("hub") / "push", path=str(ROOT))


def test_ordinary_model(hub, pushed, tmp_path):
    script = f"""
from pathlib import Path
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import RevisionNotFoundError
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

api = HfApi()
model = AutoModelForCausalLM.from_pretrained("{BASE}")
tokenizer = AutoTokenizer.from_pretrained("{BASE}")
save_file({{"base": model(**tokenizer("1 + 1", return_tensors="pt")).logits.detach()}}, "logits.safetensors")
api.create_branch("{BASE}", branch="notes")
Path("notes").mkdir()
Path("notes/read.me").write_text("a regular file")
commit = api.upload_folder(repo_id="{BASE}", folder_path="notes", path_in_repo="docs", revision="notes")
for revision in ("notes", commit.oid):
    assert (Path(snapshot_download("{BASE}", revision=revision)) / "docs/read.me").read_text() == "a regular file"
assert not (Path(snapshot_download("{BASE}")) / "docs").exists()
try:
    snapshot_download("{BASE}", revision="absent")
except RevisionNotFoundError:
    print("refused")
"""
    result = run(script, hub, tmp_path / "empty")
    assert result.stdout.strip().endswith("refused"), result.stderr
    assert torch.equal(load_file(tmp_path / "empty/logits.safetensors")["base"], pushed["base"])


@pytest.mark.parametrize("repo", [ADAPTER, FULL])
def test_auto_class_in_a_fresh_process(repo, hub, pushed, tmp_path):
    loaded = run_for_logits(LOAD, repo, hub=hub, folder=tmp_path / "empty")
    assert not torch.equal(pushed["main"], pushed["v2"])
    for revision in ("main", "v2"):
        assert torch.equal(loaded[revision], pushed[revision]), revision


def test_class_with_revision_and_save_pretrained_with_push(hub, pushed, tmp_path):
    script = f"""
from safetensors.torch import save_file
from transformers import AutoTokenizer
from modeling_semcot import SemCoTForCausalLM

tokenizer = AutoTokenizer.from_pretrained("{FULL}")
batch = tokenizer(["1 + 1 is how many?", "2 + 2?"], padding=True, return_tensors="pt")
models = {{
    "v2": SemCoTForCausalLM.from_pretrained("{ADAPTER}", revision="v2"),
    "saved": SemCoTForCausalLM.from_pretrained("{SAVED}"),
}}
save_file({{name: model(**batch).logits.detach() for name, model in models.items()}}, "logits.safetensors")
"""
    loaded = run_for_logits(script, hub=hub, folder=tmp_path / "empty", path=str(ROOT))
    for name in ("v2", "saved"):
        assert torch.equal(loaded[name], pushed[name]), name


def test_what_was_asked_for_arrives(hub, pushed, tmp_path):
    script = f"""
from modeling_semcot import SemCoTForCausalLM

model = SemCoTForCausalLM.from_pretrained("{FULL}")
weights = {{name: weight if "language" in name else weight + 1 for name, weight in model.state_dict().items()}}
options = {{"state_dict": weights, "max_shard_size": "40KB", "variant": "v1"}}
model.save_pretrained("saved", push_to_hub=True, repo_id="loopback/asked", checkpoint_kind="adapter", **options)
model.push_to_hub("loopback/asked", revision="some", ignore_patterns=["*.py"], commit_description="Weights alone")
model.push_to_hub("loopback/asked", revision="some", allow_patterns="README.md")
model.push_to_hub("loopback/asked", revision="some", ignore_patterns=["*.safetensors", "*.py"])
"""
    result = run(script, hub, tmp_path / "empty", path=str(ROOT))
    assert result.returncode == 0, result.stderr
    files, saved = hub.files("loopback/asked", "main"), tmp_path / "empty" / "saved"
    shards = [name for name in files if name.endswith(".safetensors")]
    assert len(shards) > 1 and all("v1" in name for name in shards)
    assert all(files[name] == (saved / name).read_bytes() for name in shards)
    some = hub.files("loopback/asked", "some")
    assert "config.json" in some and some.keys() - files.keys() == {"model.safetensors"}


@pytest.mark.parametrize(("repo", "revision"), [(ADAPTER, "main"), (ADAPTER, "v2"), (FULL, "main"), (FULL, "v2")])
def test_what_arrives(repo, revision, hub, pushed):
    assert hub.private == {FULL}
    files = hub.files(repo, revision)
    assert {name: files[name] for name in REMOTE_CODE} == {name: (ROOT / name).read_bytes() for name in REMOTE_CODE}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} <= files.keys()
    assert not any(b"/nowhere" in content for content in files.values()), "a path of the pushing machine"

    config = json.loads(files["config.json"])
    assert config["auto_map"].keys() == {"AutoConfig", "AutoModel", "AutoModelForCausalLM"}
    assert config["checkpoint_kind"] == repo.removeprefix("loopback/")
    assert config["base_model_name_or_path"] == BASE
    shards = [name for name in files if name.endswith(".safetensors")]
    if revision == "main":
        assert shards == ["model.safetensors"]
    else:
        assert len(shards) > 1
        assert "model.safetensors" not in shards, "weights of an earlier push"
    has_base = any(name.startswith("language_model.") for shard in shards for name in load(files[shard]))
    assert has_base == (repo == FULL)

    card = yaml.safe_load(files["README.md"].decode().split("---")[1])
    assert {"semcot", "chain-of-thought", "implicit-reasoning", "arithmetic"} <= set(card["tags"])
    assert {"model_hub_mixin", "pytorch_model_hub_mixin"} <= set(card["tags"])
    assert card["pipeline_tag"] == "text-generation"
    assert card["library_name"] == "transformers"
    assert card["license"] == "apache-2.0"
    assert card["base_model"] == BASE
    assert card["datasets"] == ["ChilleD/MultiArith"]
    assert f'"{repo}"' in files["README.md"].decode(), "the snippet names the repository"


def test_a_second_push_keeps_what_is_not_its_own(hub, pushed, tmp_path):
    script = """
from huggingface_hub import HfApi
from modeling_semcot import SemCoTForCausalLM

model = SemCoTForCausalLM.from_pretrained("loopback/adapter")
pushed = {"checkpoint_kind": "full", "tags": ["first"], "model_card_kwargs": {"datasets": ["a/first"]}}
addresses = [model.push_to_hub("loopback/mine", max_shard_size="40KB", **pushed)]
api = HfApi()
card = api.hf_hub_download("loopback/mine", "README.md")
text = open(card).read().replace("license: apache-2.0", "license: mit\\nlanguage: en") + "\\nRead by hand.\\n"
for name in ("model-backup.safetensors", "old.txt", "older.txt", "notes.txt", "README.md"):
    api.upload_file(repo_id="loopback/mine", path_in_repo=name, path_or_fileobj=text.encode())
pushed |= {"tags": ["second"], "model_card_kwargs": {"datasets": ["a/second"], "details": "Another text."}}
pushed |= {"push_to_hub": True, "repo_id": "loopback/mine", "delete_patterns": "old*"}
addresses.append(model.save_pretrained("saved", **pushed))
print(*addresses)
"""
    result = run(script, hub, tmp_path / "empty", path=str(ROOT))
    assert result.returncode == 0, result.stderr
    assert [address.split("/commit/")[0] for address in result.stdout.split()] == [f"{hub.url}/loopback/mine"] * 2
    files = hub.files("loopback/mine")
    assert {name for name in files if "safetensors" in name} == {"model.safetensors", "model-backup.safetensors"}
    assert "notes.txt" in files and not {"old.txt", "older.txt"} & files.keys()
    _, metadata, text = files["README.md"].decode().split("---\n", 2)
    assert text.endswith("Read by hand.\n") and "Another text." not in text
    card = yaml.safe_load(metadata)
    assert (card["license"], card["language"], card["base_model"]) == ("mit", "en", BASE)
    assert {"first", "second", "semcot"} <= set(card["tags"]) and card["datasets"] == ["a/first", "a/second"]


def test_a_push_of_an_adapter_of_pefts_leaves_the_checkpoint_there(hub, pushed, tmp_path):
    script = """
import peft
import transformers.integrations.peft
from modeling_semcot import SemCoTForCausalLM

transformers.integrations.peft.MIN_PEFT_VERSION = peft.__version__
model = SemCoTForCausalLM.from_pretrained("loopback/adapter")
model.push_to_hub("loopback/lora")
model.add_adapter(peft.LoraConfig(target_modules=r"generator\\..*\\.q_proj"))
model.push_to_hub("loopback/lora")
"""
    result = run(script, hub, tmp_path / "empty", path=str(ROOT))
    assert result.returncode == 0, result.stderr
    before, files = list(hub.repository("loopback/lora").commits.values())[-2:]
    assert files.keys() - before.keys() == {"adapter_config.json", "adapter_model.safetensors"}
    assert before.items() <= files.items()


def test_missing_base_and_missing_revision_are_errors(hub, pushed, tmp_path, monkeypatch):
    monkeypatch.delitem(hub.repositories, BASE)
    script = f"""
from transformers import AutoModelForCausalLM

for repo, revision in (("{ADAPTER}", "main"), ("{FULL}", "absent")):
    try:
        AutoModelForCausalLM.from_pretrained(repo, revision=revision, trust_remote_code=True)
    except OSError as error:
        print("OSError:", str(error).replace("\\n", " "))
"""
    result = run(script, hub, tmp_path / "empty")
    errors = result.stdout.splitlines()
    assert len(errors) == 2, result.stdout + result.stderr
    assert BASE in errors[0]
    assert "base_model=" in errors[0]
    assert "absent" in errors[1]
