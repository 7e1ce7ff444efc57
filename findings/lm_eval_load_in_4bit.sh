#!/usr/bin/env bash
# load_in_4bit=True and load_in_8bit=True among the model arguments, as in lm-eval 0.4.13's own README, end in
# "LlamaForCausalLM.__init__() got an unexpected keyword argument" under transformers 5, which took these
# arguments out of from_pretrained; lm-eval passes them on, and its requirements admit transformers 5. What
# works: quantise beforehand and give HFLM the folder, or the model itself. Matters to whoever evaluates a model
# on a small device.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 transformers==5.24.0 accelerate==1.15.0 bitsandbytes==0.50.2 lm_eval[hf]==0.4.13
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
cd "$work"
"$work/venv/bin/python" - <<'PY'
from importlib.metadata import metadata, version

import torch
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "bitsandbytes", "lm_eval")), sep=", ")

def tiny(model_class=LlamaForCausalLM, **settings):
    torch.manual_seed(0)
    return model_class(
        LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0, **settings,
        )
    ).eval()


words = Tokenizer(models.WordLevel(unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
words.train_from_iterator(["two plus two is four"], trainers.WordLevelTrainer(special_tokens=["<unk>", "<s>", "</s>"]))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
tiny().save_pretrained("base")
tokenizer.save_pretrained("base")
quantised = LlamaForCausalLM.from_pretrained(
    "base", quantization_config=BitsAndBytesConfig(load_in_4bit=True), device_map="cpu"
)
quantised.save_pretrained("quantised")
tokenizer.save_pretrained("quantised")

readme = metadata("lm_eval").get_payload() or metadata("lm_eval")["Description"]
print("lm-eval's README:", next(line.strip() for line in readme.splitlines() if "load_in_4bit=True" in line))
print("expected: the README's argument quantises the model")
outcomes = []
for folder, arguments in (("base", {"load_in_4bit": True}), ("base", {"load_in_8bit": True}), ("quantised", {})):
    try:
        layer = HFLM(pretrained=folder, device="cpu", **arguments).model.model.layers[0].mlp.up_proj
        outcomes.append(type(layer).__name__)
    except TypeError as error:
        outcomes.append(f"TypeError: {error}")
    print(f"seen: HFLM(pretrained={folder!r}, **{arguments}): {outcomes[-1]}")
refused = ["unexpected keyword argument" in outcome for outcome in outcomes]
if refused != [True, True, False] or outcomes[2] != "Linear4bit":
    raise SystemExit("changed: load_in_4bit of lm-eval no longer behaves as described")
PY
