#!/usr/bin/env bash
# SFTTrainer of TRL 1.16 computes loss_type="nll", "standard negative log-likelihood", without the forward of
# the model's class: it patches the instance and calls base_model and the output embeddings itself. A causal LM
# whose forward does something before or after the base (an added embedding, scaled logits) is trained as if it
# did not; no warning, and generation later uses what was never trained. Trainer of transformers 5.24 calls the
# forward.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 transformers==5.24.0 accelerate==1.15.0 datasets==5.2.0 trl==1.16.0
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
cd "$work"
"$work/venv/bin/python" - <<'PY'
from importlib.metadata import version

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer
from trl import SFTConfig, SFTTrainer

print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "trl")), sep=", ")

def tiny(model_class=LlamaForCausalLM, **settings):
    torch.manual_seed(0)
    return model_class(
        LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0, **settings,
        )
    ).eval()


class OffsetForCausalLM(LlamaForCausalLM):
    """A causal LM with a learned vector added to its inputs."""

    def __init__(self, config):
        super().__init__(config)
        self.offset = nn.Parameter(torch.ones(config.hidden_size))
        self.calls = 0

    def forward(self, input_ids=None, labels=None, **kwargs):
        self.calls += 1
        embeddings = self.get_input_embeddings()(input_ids) + self.offset
        return super().forward(inputs_embeds=embeddings, labels=labels, **kwargs)


words = Tokenizer(models.WordLevel(unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
words.train_from_iterator(["a b c"], trainers.WordLevelTrainer(special_tokens=["<pad>", "<s>", "</s>", "<unk>"]))
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
)
sequence = list(range(3, 12))
arguments = SFTConfig(
    "out", max_steps=2, learning_rate=0.1, report_to=[], use_cpu=True, bf16=False, save_strategy="no",
    logging_steps=1, gradient_checkpointing=False, weight_decay=0.0,
)
results = {}
for name in ("SFTTrainer", "Trainer"):
    model = tiny(OffsetForCausalLM)
    with torch.no_grad():
        own = model(input_ids=torch.tensor([sequence]), labels=torch.tensor([sequence])).loss.item()
    model.calls = 0
    if name == "SFTTrainer":
        data = Dataset.from_dict({"input_ids": [sequence] * 16})
        trainer = SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)
    else:
        data = [{"input_ids": sequence, "labels": sequence}] * 16
        trainer = Trainer(model=model, args=arguments, train_dataset=data)
    trainer.train()
    loss = trainer.state.log_history[0]["loss"]
    moved = (model.offset - 1).abs().max().item()
    results[name] = model.calls, abs(loss - own), moved
    print(f"seen: {name} (loss_type {arguments.loss_type}): {model.calls} calls of forward, first loss {loss:.4f} "
          f"against the model's own {own:.4f}, offset moved by {moved:.3f}")

print("expected: both trainers call forward and train the offset")
if not (results["SFTTrainer"][0] == 0 and results["SFTTrainer"][1] > 1e-3 and results["SFTTrainer"][2] == 0
        and results["Trainer"][0] > 0 and results["Trainer"][1] < 1e-3 and results["Trainer"][2] > 0):
    raise SystemExit("changed: SFTTrainer no longer behaves as described")
PY
