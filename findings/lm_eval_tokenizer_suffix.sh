#!/usr/bin/env bash
# lm-eval 0.4.13 tokenizes the context and context + continuation, and takes the latter beyond the former's
# length for the continuation. With a tokenizer whose post-processor appends a token (here </s>), one-token
# choices come down to that </s> alone, and to a context with </s> inside: all choices of a question get the
# same log-likelihood, and acc says how often the first is right. Nothing warns. Tokenizers of embedding models
# append so, as do some fine-tuned decoders'.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 transformers==5.24.0 lm_eval[hf]==0.4.13
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
cd "$work"
"$work/venv/bin/python" - <<'PY'
from importlib.metadata import version

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "tokenizers", "lm_eval")), sep=", ")

def tiny(model_class=LlamaForCausalLM, **settings):
    torch.manual_seed(0)
    return model_class(
        LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0, **settings,
        )
    ).eval()


def word_tokenizer(suffix):
    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["<pad>", "<s>", "</s>", "<unk>"])
    words.train_from_iterator(["two plus two is four five six"], trainer)
    if suffix:
        words.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", words.token_to_id("</s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


choices = [" four", " five", " six"]
scores, targets = {}, {}
for suffix in (False, True):
    model = HFLM(pretrained=tiny(), tokenizer=word_tokenizer(suffix), batch_size=1, device="cpu")
    requests = [Instance("loglikelihood", {}, ("two plus two is", choice), 0) for choice in choices]
    scores[suffix] = [score for score, _ in model.loglikelihood(requests, disable_tqdm=True)]
    targets[suffix] = [
        model.tokenizer.convert_ids_to_tokens(model._encode_pair("two plus two is", choice)[1]) for choice in choices
    ]

print("expected: the tokens that are scored are the choice's, whatever the tokenizer adds")
for suffix in (False, True):
    print(f"seen: suffix={suffix}: scored tokens {targets[suffix]}, log-likelihoods "
          f"{[round(score, 4) for score in scores[suffix]]}")
if not (len(set(scores[False])) == 3 and len(set(scores[True])) == 1 and targets[True] == [["</s>"]] * 3):
    raise SystemExit("changed: lm-eval with a suffix of the tokenizer no longer behaves as described")
PY
