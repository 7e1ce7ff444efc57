"""Published checkpoints: the released code's states and logits, and errors for what is none or does not fit."""

import json
import os
import shutil
import string
import subprocess
import sys
from functools import cache
from pathlib import Path, PurePosixPath

import pytest
import torch
from conftest import QUESTIONS, ROOT, TEXTS, tiny_base_tokenizer, tiny_language_model
from hub_server import HubServer, Repository
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from semcot.evaluation import METHODS, load_model
from semcot.import_published import ImportOptions, import_published

K = 3
# What the released code puts around a question.
AROUND = {
    "llama": ("Question: ", "\n Answer:"),
    "mistral": ("<s>[INST] Question: ", "\n Answer: [/INST]"),
    "qwen2": ("<|im_start|>user\nQuestion: ", "<|im_end|>\n<|im_start|>assistant\nAnswer: "),
}
# The end of the prompt for an explicit chain of thought.
RIVALS = {
    "llama": "\n Answer: Let's think step by step.",
    "mistral": "\n  [/INST]",
    "qwen2": 'final answer after "Answer:".<|im_end|>\n<|im_start|>assistant\n',
}


def sentencepiece(marks_every_piece: bool) -> PreTrainedTokenizerFast:
    """As Llama 2's, which marks every piece of a text between special tokens as a word, or as later ones, the first."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    if marks_every_piece:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        tokenizer.decoder = decoders.Metaspace()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    alphabet = sorted({*"".join(TEXTS), *string.printable, "▁"})
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


TOKENIZERS = {
    "llama": lambda: sentencepiece(True),
    "mistral": lambda: sentencepiece(False),
    "qwen2": tiny_base_tokenizer,
}


class Published(nn.Module, PyTorchModelHubMixin):
    """
    What is published, after its description: a model without head over one id more than the base has, and a projection;
    or, as an ablation, a whole causal LM with LoRA on the query and value projections, as wide as the base.
    """

    def __init__(self, model_name: str, teacher_hid_dim: int, with_lora: bool = False):
        super().__init__()
        self.model_name, self.teacher_hid_dim = model_name, teacher_hid_dim
        model = AutoModelForCausalLM.from_pretrained(model_name)
        model.resize_token_embeddings(len(AutoTokenizer.from_pretrained(model_name)) + 1)
        nn.init.normal_(model.get_input_embeddings().weight[-1:].data)
        self.model, self.projection_layer = model.model, nn.Linear(model.config.hidden_size, teacher_hid_dim)
        nn.init.normal_(self.projection_layer.bias)
        if with_lora:
            from peft import LoraConfig, get_peft_model

            lora = LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=6, target_modules=["q_proj", "v_proj"])
            self.model, self.projection_layer = get_peft_model(model, lora), nn.Identity()
            for name, weight in self.model.named_parameters():
                if "lora_B" in name:
                    nn.init.normal_(weight, std=0.1)

    def save_locally(self, folder, **changed):
        """As the released code's save_pretrained."""
        folder.mkdir()
        with_lora = isinstance(self.projection_layer, nn.Identity)
        config = {"model_name": self.model_name, "teacher_hid_dim": self.teacher_hid_dim}
        config["variation"] = "no_small_contemp_gen" if with_lora else "vanilla"
        torch.save(config | {"r": 2, "lora_alpha": 6, "lora_dropout": 0.1} | changed, folder / "config.pt")
        torch.save(self.state_dict(), folder / "model.pt")


@torch.no_grad()
def reference(published, base, tokenizer, family: str, question: str):
    """The K states and the logits behind the answer cue, from the description."""
    before, after = AROUND[family]
    query = tokenizer(before + question, add_special_tokens=False, return_tensors="pt").input_ids
    cue = tokenizer(after, add_special_tokens=False, return_tensors="pt").input_ids
    thoughts = torch.full((1, K), len(tokenizer))
    outputs = published.eval().model(torch.cat([query, thoughts], 1), output_hidden_states=True)
    length = query.shape[1]
    states = published.projection_layer(outputs.hidden_states[-1])[:, length - 1 : length - 1 + K]
    embed = base.get_input_embeddings()
    return states, base(inputs_embeds=torch.cat([embed(query), states, embed(cue)], 1)).logits


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Makes a family's folder: a base, 32 wide, a generator, 16 wide, with their tokenizer, and each published form."""
    return cache(lambda family: publish(family, tmp_path_factory.mktemp(family)))


@pytest.fixture
def made(make):
    """That of one family, where one is enough."""
    return make("mistral")


def publish(family: str, folder: Path) -> Path:
    tokenizer = TOKENIZERS[family]()
    for name, options in (("base", {}), ("generator", {"hidden_size": 16, "num_hidden_layers": 2, "seed": 1})):
        model = tiny_language_model(family, vocab_size=len(tokenizer), initializer_range=0.1, **options)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    Published(str(folder / "generator"), 32).save_pretrained(folder / "hub")
    Published.from_pretrained(folder / "hub").save_locally(folder / "local")
    Published(str(folder / "base"), 32, with_lora=True).save_locally(folder / "lora")
    return folder


def imported(made, output, form="hub", **options):
    options = {"checkpoint": str(made / form), "base_model": str(made / "base"), "num_thoughts": K} | options
    return import_published(ImportOptions(output_dir=str(output), **options))


def published_in(made, form):
    if form == "hub":
        return Published.from_pretrained(made / form)
    published = Published(str(made / ("base" if form == "lora" else "generator")), 32, with_lora=form == "lora")
    published.load_state_dict(torch.load(made / form / "model.pt"))
    return published


def the_models(made, form):
    """Base, its tokenizer, and what was published."""
    published = Published(str(made / ("base" if form == "lora" else "generator")), 32, with_lora=form == "lora")
    if form == "hub":
        published.load_state_dict(load_file(made / form / "model.safetensors"))
    else:
        published.load_state_dict(torch.load(made / form / "model.pt"))
    base, tokenizer = (auto.from_pretrained(made / "base") for auto in (AutoModelForCausalLM, AutoTokenizer))
    return published, base, tokenizer


@pytest.mark.parametrize("family", AROUND)
@pytest.mark.parametrize("form", ["hub", "local", "lora"])
def test_states_and_logits_are_those_of_the_released_code(make, family, form, tmp_path):
    made = make(family)
    imported(made, tmp_path / "imported", form)
    model, tokenizer = load_model(str(tmp_path / "imported"), dtype="float32")
    assert model.config.thought_offset == -1 and model.config.checkpoint_kind == "adapter"
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    batch = tokenizer.apply_chat_template(chats, add_generation_prompt=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**batch)
    rows = zip(QUESTIONS, batch.attention_mask.bool(), outputs.thoughts, outputs.logits, strict=True)
    for question, real, thoughts, logits in rows:
        states, expected = reference(*the_models(made, form), family, question)
        torch.testing.assert_close(thoughts, states[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(logits[real], expected[0], rtol=0, atol=1e-5)
    # Beside them, the same prompt as a string, where the tokenizer allows it, and as the evaluation writes it.
    plain = tokenizer(QUESTIONS, padding=True, return_tensors="pt").input_ids
    assert family == "qwen2" or plain.equal(batch.input_ids)
    (rival,) = METHODS["cot"](model, tokenizer).prompts(["Why?"])
    assert rival.startswith(f"{AROUND[family][0]}Why?") and rival.endswith(RIVALS[family])
    (answer,) = METHODS["semcot"](model, tokenizer).answer(QUESTIONS[-1:], 1)
    assert answer.text == tokenizer.decode(expected[0, -1].argmax(), skip_special_tokens=True)


def test_weights_are_kept_and_the_card_says_where_they_are_from(made, tmp_path):
    found = load_file(imported(made, tmp_path / "imported") / "model.safetensors")
    weights = load_file(made / "hub" / "model.safetensors")
    assert found.keys() == {
        name.replace("model.", "generator.").replace("projection_layer.", "projection.") for name in weights
    } | {"thought_embedding"}
    table = weights["model.embed_tokens.weight"]
    assert found["generator.embed_tokens.weight"].equal(table[:-1]) and found["thought_embedding"].equal(table[-1])
    assert "published checkpoint `hub`" in (tmp_path / "imported" / "README.md").read_text()
    with pytest.raises(FileExistsError, match="is there and not empty"):
        imported(made, tmp_path / "imported")


def test_the_command_takes_a_hub_id(made, tmp_path):
    with HubServer() as hub:
        repository = hub.repositories["someone/published"] = Repository()
        repository.commit("main", {file.name: file.read_bytes() for file in (made / "hub").iterdir()})
        command = [sys.executable, "-m", "semcot.import_published", "--base_model", str(made / "base")]
        outcomes = {}
        for name in ("someone/published", "someone/else"):
            options = ["--checkpoint", name, "--output_dir", str(tmp_path / name), "--num_thoughts", str(K)]
            outcomes[name] = subprocess.run(
                [*command, *options],
                cwd=ROOT,
                env=os.environ | hub.environment(tmp_path / "home"),
                capture_output=True,
                text=True,
            )
        assert not hub.unknown
    assert outcomes["someone/published"].returncode == 0, outcomes["someone/published"].stderr
    assert (tmp_path / "someone" / "published" / "model.safetensors").is_file()
    failed = outcomes["someone/else"]
    assert failed.returncode == 1 and "There is no folder 'someone/else', nor could it be had from" in failed.stderr


def changed_weights(**changes):
    """Changes a folder of either form: weights by name, None for none."""

    def change(folder: Path):
        if (file := folder / "model.safetensors").exists():
            weights = load_file(file)
            save = save_file
        else:
            file = folder / "model.pt"
            weights, save = torch.load(file), torch.save
        weights |= {name.replace("__", "."): weight for name, weight in changes.items()}
        save({name: weight for name, weight in weights.items() if weight is not None}, file)

    return change


def changed_config(**changes):
    def change(folder: Path):
        if (file := folder / "config.json").exists():
            file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        else:
            torch.save(torch.load(folder / "config.pt") | changes, folder / "config.pt")

    return change


def replaced(name: str, content):
    return lambda folder: torch.save(content, folder / name)


def legacy_and_cut(folder: Path):
    """As torch wrote them before its files were archives, less the end."""
    file = folder / "model.pt"
    torch.save(torch.load(file), file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes()[:-3])


BROKEN = [
    ("hub", changed_config(model_name=None), "The config of .* has no model_name .str., .* but None"),
    ("hub", changed_config(teacher_hid_dim="32"), "has no teacher_hid_dim .int., .* but '32'"),
    ("hub", changed_config(teacher_hid_dim=64), "a base of width 64 .teacher_hid_dim., .*base has 32. Name the right"),
    ("hub", changed_weights(model__norm__weight=None), "1 weights are missing, such as generator.norm.weight"),
    ("hub", changed_weights(projection_layer__bias=None), "1 weights are missing, such as projection.bias"),
    ("hub", changed_weights(model__embed_tokens__weight=None), "lacks model.embed_tokens.weight"),
    ("hub", changed_weights(model__embed_tokens__weight=torch.ones(9, 16)), "has 9 rows, the last for <thought>, but"),
    ("hub", changed_weights(model__layers__7__a=torch.ones(1)), "1 are not known, such as generator.layers.7.a"),
    ("hub", changed_weights(lm_head__weight=torch.ones(1)), "has 1 weights that are not known, such as lm_head.weight"),
    ("hub", changed_weights(projection_layer__weight=torch.ones(48, 16)), "projection.weight, .48, 16. where .32, 16."),
    ("hub", changed_weights(model__norm__weight=torch.ones(16, dtype=int)), "model.safetensors is no state dict"),
    ("hub", lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 99), "truncated or corrupt"),
    ("hub", lambda folder: (folder / "config.json").write_text("{"), "truncated or corrupt"),
    ("hub", lambda folder: (folder / "config.json").write_text("[]"), "has no model_name"),
    ("local", lambda folder: (folder / "model.pt").write_bytes(b"\0" * 99), "is damaged, or a pickle with more in it"),
    ("local", legacy_and_cut, "model.pt is damaged, or a pickle with more in it than tensors and plain values, which"),
    ("local", replaced("model.pt", {"model.norm.weight": PurePosixPath("x")}), "model.pt is damaged, or a pickle with"),
    ("local", replaced("config.pt", {"model_name": PurePosixPath("x")}), "loaded .it asks for pathlib.PurePosixPath."),
    ("local", replaced("model.pt", {"model.norm.weight": 1}), "model.pt is no state dict"),
    ("local", replaced("model.pt", [torch.ones(1)]), "model.pt is no state dict"),
    ("local", replaced("config.pt", ["model_name"]), "has no model_name"),
    ("local", changed_weights(model__norm__weight=torch.ones(16, dtype=int)), "model.pt is no state dict"),
    ("local", changed_weights(model__norm__weight=torch.ones(16, device="meta")), "model.pt is no state dict"),
    ("lora", changed_config(r=None), "has LoRA weights, and its config no r and lora_alpha"),
    ("lora", changed_config(r=4), "which do not fit r 4 and a weight of .32, 32."),
    ("lora", changed_config(variation="vanilla"), "lacks model.embed_tokens.weight"),
]


@pytest.mark.parametrize("form, change, message", BROKEN, ids=[message for *_, message in BROKEN])
def test_what_is_none_or_does_not_fit_is_refused(made, form, change, message, tmp_path):
    shutil.copytree(made / form, tmp_path / form)
    change(tmp_path / form)
    with pytest.raises(ValueError, match=message):
        imported(made, tmp_path / "imported", checkpoint=str(tmp_path / form))
    assert [file.name for file in tmp_path.iterdir()] == [form]


def test_what_earlier_versions_of_transformers_saved_besides_is_no_error(made, tmp_path):
    shutil.copytree(made / "hub", tmp_path / "hub")
    changed_weights(model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(4))(tmp_path / "hub")
    for name in ("hub", "imported"):
        imported(made, tmp_path / f"{name} again", checkpoint=str((tmp_path if name == "hub" else made) / "hub"))
    weights = [load_file(tmp_path / f"{name} again" / "model.safetensors") for name in ("hub", "imported")]
    assert weights[0].keys() == weights[1].keys()


def test_what_is_not_there_is_named(made, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no published checkpoint: neither model.safetensors with"):
        imported(made, tmp_path / "imported", checkpoint=str(tmp_path / "empty"))
    tiny_language_model("gpt2").save_pretrained(tmp_path / "gpt2")
    tiny_base_tokenizer().save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ValueError, match="gpt2 is a gpt2 model, for which the released code has no format: give --pr"):
        imported(made, tmp_path / "imported", base_model=str(tmp_path / "gpt2"))
    with pytest.raises(ValueError, match="37 .* have other shapes|weights are missing"):
        imported(made, tmp_path / "imported", generator=str(made / "base"))
    for name, option in (("base", "base_model"), ("generator", "generator")):
        with pytest.raises(OSError, match=rf"(?s)of the {name}, 'a/b', could not be loaded: .* with --{option}"):
            imported(made, tmp_path / "imported", **{option: "a/b"})
    changed = json.loads((made / "base" / "config.json").read_text()) | {"pad_token_id": 9999, "vocab_size": 10000}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match="Name the right --base_model, or the generator's config with --generator"):
        imported(made, tmp_path / "imported", generator=str(tmp_path / "other"))


def test_no_code_of_base_or_generator_is_run_nor_asked_for(made, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda question: pytest.fail(question))
    (tmp_path / "own").mkdir()
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    (tmp_path / "own" / "config.json").write_text(json.dumps(own))
    (tmp_path / "own" / "own.py").write_text("from transformers import PreTrainedConfig as Config\n")
    for option in ("generator", "base_model"):
        with pytest.raises(OSError, match=rf"(?s)contains custom code .* with --{option}"):
            imported(made, tmp_path / "imported", **{option: str(tmp_path / "own")})


def test_a_folder_that_cannot_be_replaced_is_named(made, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with pytest.raises(FileExistsError, match="link cannot be replaced .*: name another --output_dir"):
        imported(made, tmp_path / "link")
    assert {file.name for file in tmp_path.iterdir()} == {"empty", "link"}
    imported(made, tmp_path / "empty")
    assert (tmp_path / "empty" / "model.safetensors").is_file()
