"""Trial: nine layers and a refiner from nothing; Muon, or operands told in between."""
import sys, time, json, math, random, argparse, re, os
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from datasets import concatenate_datasets
from transformers.cache_utils import DynamicCache
from modeling_semcot import CACHE, position_ids_of, SemCoTForCausalLM
from semcot.data import load_problems, split_validation, without_repeats
from semcot.data.step_ends import token_supervision_targets
from semcot.data.problems import split_steps
from semcot.tokenization import build_tokenizer, render_prompt
IGNORED = -100
P = argparse.ArgumentParser()
P.add_argument("--n", type=int, default=24000); P.add_argument("--batch", type=int, default=32); P.add_argument("--lr", type=float, default=1e-3)
P.add_argument("--muon", type=float, default=0.0); P.add_argument("--deep", type=float, default=0.0); P.add_argument("--layers", type=int, default=9)
P.add_argument("--refiner", type=int, default=3); P.add_argument("--minutes", type=float, default=8); P.add_argument("--every", type=float, default=5)
P.add_argument("--name", default="nine"); P.add_argument("--warm", type=int, default=100); P.add_argument("--threads", type=int, default=2); P.add_argument("--seed", type=int, default=0)
P.add_argument("--resume", default=""); P.add_argument("--decay_from", type=float, default=1.0); P.add_argument("--wd", type=float, default=0.0)
A = P.parse_args(); torch.set_num_threads(A.threads); torch.manual_seed(A.seed)
K, S, W = 12, 3, [3, 3, 6]
BASE = "models/SmolLM2-135M-Instruct"
MIX = {"synthetic_expressions": 60, "synthetic_arithmetic": 60, "synthetic_school": 60, "synthetic_coin_flip": 4, "augmented:gsm8k": 40, "augmented:multiarith": 20, "augmented:svamp": 20}
total = sum(MIX.values())
base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval().requires_grad_(False)
tok, template = build_tokenizer(AutoTokenizer.from_pretrained(BASE), K)
thought_id = tok.convert_tokens_to_ids("<thought>")
CH = {c: i for i, c in enumerate("0123456789.")}; NONE, REF1, REF2 = 11, 12, 13; OPS = {"+": 0, "-": 1, "*": 2, "/": 3}
def heads_labels(c):
    none = [IGNORED] * K
    steps = split_steps(c)[-S:]; every = split_steps(c)
    a, b, o = [], [], []; results = [s.rsplit(" = ", 1)[-1] for s in every]
    first = len(every) - len(steps)
    for k, s in enumerate(steps):
        w = W[S - len(steps) + k]; m = re.fullmatch(r"([\d.]+) ([-+*/]) ([\d.]+) = ([\d.]+)", s)
        if not m: return none, none, none
        x, op, y, r = m.groups(); prev = results[: first + k]
        def ref(v): return REF1 if prev and v == prev[-1] else REF2 if v in prev else None
        def chars(v):
            if (f := ref(v)) is not None: return [f] * w
            c = [CH[ch] for ch in v][-w:]; return [NONE] * (w - len(c)) + c
        a += chars(x); b += chars(y); o += [OPS[op]] * w
    pad = [IGNORED] * (K - len(a)); return pad + a, pad + b, [4] * len(pad) + o
def prepare(ds):
    ids = tok([render_prompt(tok, q) for q in ds["question"]], add_special_tokens=False).input_ids
    return [(i[: i.index(thought_id)], (token_supervision_targets(c, tok, K, S), *heads_labels(c)), s) for i, c, s in zip(ids, ds["condensed_reasoning"], ds["source"])]
t0 = time.time()
parts = [load_problems(n, "train", num_samples=math.ceil(A.n * c / total), seed=A.seed) for n, c in MIX.items()]
parts = [p.add_column("source", [n] * len(p)) for p, n in zip(parts, MIX)]
train, val = split_validation(without_repeats(concatenate_datasets(parts)), min(0.05, 1500 / A.n), 0, by_template=True)
train, val = prepare(train), prepare(val); random.Random(0).shuffle(val); val = val[:768]
print(len(train), len(val), f"{time.time()-t0:.0f}s", tok.decode([t for t in train[0][1][0] if t >= 0]), flush=True)
def grouped(module, q, k, v, attention_mask, scaling=None, dropout=0.0, **kw):
    B, H, n, d = q.shape; G = k.shape[1]
    sc = torch.matmul(q.reshape(B, G, H // G * n, d) * scaling, k.transpose(2, 3)).view(B, G, H // G, n, -1)
    if attention_mask is not None: sc = sc + attention_mask[:, :, None].to(sc.dtype)
    return torch.matmul(sc.softmax(-1).to(q.dtype).view(B, G, H // G * n, -1), v).view(B, H, n, d).transpose(1, 2).contiguous(), None
AttentionInterface.register("grouped", grouped); AttentionMaskInterface.register("grouped", eager_mask)
model = SemCoTForCausalLM.from_components(base, A.layers, num_thoughts=K, prompt_template=template, thought_token_id=thought_id, refiner_layers=A.refiner, base_model_name_or_path=BASE)
gen, ref = model.generator.float().train(), model.refiner.float().train()
for c in (gen.config, ref.config): c._attn_implementation = "grouped"
E = base.get_input_embeddings().weight
heads = nn.ParameterDict({f"head{j}": nn.Parameter(torch.zeros(n, 576)) for j, n in enumerate((14, 14, 5))})
if A.resume:
    s = torch.load(A.resume, weights_only=True); model.load_state_dict(s["model"], strict=False); heads.load_state_dict(s["heads"])
own = {n: p for n, p in model.named_parameters() if not n.startswith("language_model")}
for p in own.values(): p.requires_grad_(True)
mats = [p for n, p in own.items() if p.ndim == 2 and "layers." in n]; rest = [p for p in own.values() if not any(p is m for m in mats)] + list(heads.parameters())
print("trained", sum(p.numel() for p in own.values()) / 1e6, flush=True)
opts = [torch.optim.AdamW(rest if A.muon else rest + mats, lr=A.lr, weight_decay=0.0, betas=(0.9, 0.98), fused=True)]; rates = [A.lr]
if A.muon: opts.append(torch.optim.Muon(mats, lr=A.muon, weight_decay=A.wd, momentum=0.95, adjust_lr_fn="match_rms_adamw")); rates.append(A.muon)
from os.path import commonprefix
hs = [r[0][:-1] for r in train[:2000]]; shared = len(commonprefix([min(hs), max(hs)]))
spelt = torch.tensor(sorted({t for r in train for t in r[1][0]} - {IGNORED}))
def collate(rows):
    h = [r[0] for r in rows]; n = max(map(len, h))
    ids = torch.tensor([x[:shared] + [0] * (n - len(x)) + x[shared:] for x in h])
    mask = torch.tensor([[1] * shared + [0] * (n - len(x)) + [1] * (len(x) - shared + K) for x in h])
    return ids, mask, torch.tensor([r[1] for r in rows])
def think(ids, mask):
    with torch.autocast("cpu", torch.bfloat16):
        cache = gen(inputs_embeds=E[ids[:1, :shared]], use_cache=True)[CACHE]; cache.batch_repeat_interleave(len(ids))
        x = torch.cat([E[ids[:, shared:]], model.thought_embedding.expand(len(ids), K, -1)], 1)
        st = gen(inputs_embeds=x, attention_mask=mask, position_ids=position_ids_of(mask)[:, shared:], use_cache=True, **{CACHE: cache}).last_hidden_state[:, -K:]
        return st, model.projection(st + ref(inputs_embeds=st, use_cache=False).last_hidden_state) if ref is not None else st
def loss_parts(rows, cand):
    ids, mask, lab = collate(rows); st, th = think(ids, mask)
    sc = F.linear(th.bfloat16(), E[cand].bfloat16()).float(); l = lab[:, 0]; l = torch.where(l == IGNORED, IGNORED, torch.searchsorted(cand, l))
    ce = F.cross_entropy(sc.transpose(1, 2), l, ignore_index=IGNORED, reduction="none"); n = (l != IGNORED).sum(1)
    final = (ce.sum(1) / n.clamp(min=1)).sum() / (n > 0).sum()
    right = ((sc.argmax(-1) == l) | (l == IGNORED)).all(1).float().mean()
    h = st.float(); parts = [F.cross_entropy(F.linear(h, heads[f"head{j}"]).flatten(0, 1), lab[:, j + 1].flatten(), ignore_index=IGNORED) for j in range(3)]
    return final, right, parts
@torch.no_grad()
def evaluate():
    from collections import defaultdict
    by = defaultdict(list); 
    for r in val: by[r[2]].append(r)
    out, tot, n = [], 0, 0
    for name, rows in by.items():
        rows = sorted(rows, key=lambda r: len(r[0])); hit = 0
        for s in range(0, len(rows), 64):
            f, r, _ = loss_parts(rows[s : s + 64], spelt); tot += f.item() * len(rows[s : s + 64]); hit += r.item() * len(rows[s : s + 64])
        n += len(rows); out.append(f"{name.split(':')[-1].removeprefix('synthetic_')} {100*hit/len(rows):.1f}")
    print(f"  EVAL loss {tot/n:.3f} " + " ".join(out), flush=True)
def save():
    torch.save({"model": {n: p.detach() for n, p in own.items()}, "heads": heads.state_dict(), "opts": [o.state_dict() for o in opts]}, f"runs/{A.name}.pt.tmp"); os.replace(f"runs/{A.name}.pt.tmp", f"runs/{A.name}.pt")
rng = random.Random(A.seed); order = list(range(len(train))); rng.shuffle(order); pool = A.batch * 32; batches = []
for s in range(0, len(order), pool):
    chunk = sorted(order[s : s + pool], key=lambda i: len(train[i][0])); bs = [chunk[i : i + A.batch] for i in range(0, len(chunk), A.batch)]; rng.shuffle(bs); batches += bs
t0 = time.time(); log = []; seen = 0; nexte = 60 * A.every; limit = 60 * A.minutes
for step, rows in enumerate(batches):
    el = time.time() - t0
    done = max(step / len(batches), el / limit)
    if done >= 1: break
    f = min(1, (step + 1) / A.warm) * (1 if done < A.decay_from else max(0.0, (1 - done) / (1 - A.decay_from)))
    for o, r in zip(opts, rates):
        for g in o.param_groups: g["lr"] = r * f
    cand = torch.cat([spelt, torch.randint(len(E), (1024,))]).unique()
    final, right, parts = loss_parts([train[i] for i in rows], cand)
    loss = final + A.deep * sum(parts) / 2 if A.deep else final
    for o in opts: o.zero_grad()
    loss.backward(); torch.nn.utils.clip_grad_norm_(list(own.values()), 1.0)
    for o in opts: o.step()
    seen += len(rows); log.append([x.item() for x in (final, right, *parts)])
    if seen // 800 != (seen - len(rows)) // 800:
        z = [sum(c) / len(log) for c in zip(*log)]; log = []
        print(f"{seen} {time.time()-t0:.0f}s final {z[0]:.3f} right {100*z[1]:.1f} a {z[2]:.3f} b {z[3]:.3f} op {z[4]:.3f}", flush=True)
    if time.time() - t0 >= nexte: nexte += 60 * A.every; evaluate(); save()
print("END", seen, f"{time.time()-t0:.0f}s"); evaluate(); save()
