"""Trial: the frozen base reads the question; a trained copy of all its layers reads the placeholders behind it."""
import copy, sys, time, json, math, random
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer
from datasets import concatenate_datasets
from transformers.cache_utils import DynamicCache
from modeling_semcot import CACHE, position_ids_of
from semcot.data import load_problems, split_validation, without_repeats
from semcot.distillation import tokenize_problems, DistillationCollator, IGNORED
from semcot.distillation.glancing import glances_at
from semcot.tokenization import build_tokenizer
from transformers.trainer_pt_utils import LengthGroupedSampler
import argparse
P = argparse.ArgumentParser()
P.add_argument("--n", type=int, default=32000); P.add_argument("--batch", type=int, default=32)
P.add_argument("--lr", type=float, default=3e-4); P.add_argument("--glancing", type=float, default=1.0)
P.add_argument("--unaided", type=float, default=0.4); P.add_argument("--minutes", type=float, default=30)
P.add_argument("--mix", default="full"); P.add_argument("--K", type=int, default=12)
P.add_argument("--first", type=int, default=0, help="first trained layer")
A = P.parse_args()
torch.manual_seed(0)
BASE = "models/SmolLM2-135M-Instruct"
MIX = {"full": {"synthetic_expressions": 50, "synthetic_arithmetic": 90, "synthetic_school": 80, "synthetic_coin_flip": 8,
       "augmented:gsm8k": 50, "augmented:multiarith": 40, "augmented:svamp": 32},
       "stories": {"synthetic_arithmetic": 350}}[A.mix]
total = sum(MIX.values())
parts = [load_problems(name, "train", num_samples=math.ceil(A.n * c / total), seed=0) for name, c in MIX.items()]
problems = without_repeats(concatenate_datasets(parts))
train, val = split_validation(problems, 0.012, 0, by_template=True)
tok, _ = build_tokenizer(AutoTokenizer.from_pretrained(BASE), num_thoughts=A.K)
train, val = (tokenize_problems(p, tok, A.K, 3) for p in (train, val))
print(len(train), len(val), flush=True)
base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32, attn_implementation="eager").eval().requires_grad_(False)
reader = copy.deepcopy(base.model).train()
for i, layer in enumerate(reader.layers): layer.requires_grad_(i >= A.first)
reader.embed_tokens.requires_grad_(False); reader.norm.requires_grad_(True)
E = base.get_input_embeddings().weight
thought = torch.nn.Parameter(E[tok("?").input_ids[0]].clone() * 0 + E.mean(0) + torch.randn(576) * 0.02)
base16 = copy.deepcopy(base).to(torch.bfloat16)
thought_id = tok.convert_tokens_to_ids("<thought>")
from os.path import commonprefix
ps = [p[: p.index(thought_id) - 1] for p in list(train["prompt_ids"])]
shared = len(commonprefix([min(ps), max(ps)]))
collate = DistillationCollator(tok.pad_token_id, shared)
params = [p for p in reader.parameters() if p.requires_grad] + [thought]
opt = torch.optim.AdamW(params, lr=A.lr, weight_decay=0.0, betas=(0.9, 0.98))
spelt = torch.tensor(sorted({t for l in train["thought_labels"] for t in l} - {IGNORED}))

@torch.no_grad()
def question(ids, mask):
    cache = base16.model(inputs_embeds=base16.get_input_embeddings()(ids[:1, :shared]), use_cache=True)[CACHE]
    cache.batch_repeat_interleave(len(ids))
    base16.model(input_ids=ids[:, shared:], attention_mask=mask, position_ids=position_ids_of(mask)[:, shared:], use_cache=True, **{CACHE: cache})
    return cache

def run(batch, glances=None):
    ids, mask = batch["input_ids"], batch["attention_mask"]
    first = int((ids[0] == thought_id).nonzero()[0])
    cache = question(ids[:, : first - 1], mask[:, : first - 1])
    K = A.K
    inputs = thought.expand(len(ids), K - 1, -1)
    if glances is not None:
        g = glances[:, :-1]
        inputs = torch.where((g != IGNORED)[..., None], E[g.clamp(min=0)], inputs)
    inputs = torch.cat([E[ids[:, first - 1]][:, None], inputs], dim=1)
    m = mask[:, : first - 1 + K]
    with torch.autocast("cpu", torch.bfloat16):
        h = reader(inputs_embeds=inputs, attention_mask=m, position_ids=position_ids_of(m)[:, first - 1 :], use_cache=True, **{CACHE: cache}).last_hidden_state
    return h

@torch.no_grad()
def evaluate():
    right = n = 0; loss = 0; by = {}
    for s in range(0, len(val), 64):
        b = collate(list(val.select(range(s, min(len(val), s + 64)))))
        h = run(b); sc = h.float() @ E.T; lab = b["thought_labels"]
        ok = ((sc.argmax(-1) == lab) | (lab == IGNORED)).all(1); has = (lab != IGNORED).any(1)
        right += (ok & has).sum().item(); n += has.sum().item()
        loss += F.cross_entropy(sc.flatten(0, 1), lab.flatten(), ignore_index=IGNORED, reduction="sum").item() / (lab != IGNORED).sum().item() * len(lab)
    return right / n, loss / len(val)

steps = len(train) // A.batch
order = list(LengthGroupedSampler(A.batch, lengths=list(train["length"]), generator=torch.Generator().manual_seed(0)))
t0 = time.time(); log = []; 
for step in range(steps):
    b = collate(list(train.select(order[step * A.batch : (step + 1) * A.batch])))
    lab = b["thought_labels"]; g = None
    if A.glancing:
        most = A.glancing * max(0, 1 - step / steps / (1 - A.unaided))
        g = glances_at(lab, most, torch.Generator().manual_seed(step)); lab = lab.masked_fill(g != IGNORED, IGNORED)
    h = run(b, g)
    ids = torch.cat([spelt, torch.randint(len(E), (2048,))]).unique()
    with torch.autocast("cpu", torch.bfloat16): sc = (h @ E[ids].T)
    lab2 = torch.where(lab == IGNORED, IGNORED, torch.searchsorted(ids, lab))
    loss = F.cross_entropy(sc.float().flatten(0, 1), lab2.flatten(), ignore_index=IGNORED)
    for group in opt.param_groups: group["lr"] = A.lr * min(1, (step + 1) / 60) * (1 - step / steps)
    opt.zero_grad(); loss.backward(); torch.nn.utils.clip_grad_norm_(params, 1.0); opt.step()
    log.append(loss.item())
    if (step + 1) % 25 == 0:
        print(f"{(step+1)*A.batch} problems {time.time()-t0:.0f}s loss {sum(log[-25:])/25:.3f}", flush=True)
    if (step + 1) % (2000 // A.batch) == 0:
        print("EVAL", (step + 1) * A.batch, evaluate(), flush=True)
    if time.time() - t0 > 60 * A.minutes: break
print("END", evaluate(), flush=True)
