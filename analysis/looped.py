"""Trial: a generator that is the base with LoRA at the placeholders alone, behind the question's cache, in T passes."""
import copy, sys, time, json, math, random, argparse
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer
from datasets import concatenate_datasets
from transformers.cache_utils import DynamicCache
from modeling_semcot import CACHE, position_ids_of
from semcot.data import load_problems, split_validation, without_repeats
from semcot.data.problems import split_steps
from semcot.distillation import tokenize_problems
from semcot.tokenization import build_tokenizer, render_prompt
IGNORED = -100
P = argparse.ArgumentParser()
P.add_argument("--n", type=int, default=16000); P.add_argument("--batch", type=int, default=64)
P.add_argument("--lr", type=float, default=1e-3); P.add_argument("--rank", type=int, default=32)
P.add_argument("--full", action="store_true"); P.add_argument("--minutes", type=float, default=8)
P.add_argument("--gold", type=float, default=0.5, help="share of rows whose second pass reads the truth, at the start")
P.add_argument("--modes", default="ab"); P.add_argument("--widths", default="4,4,8"); P.add_argument("--soft", action="store_true")
P.add_argument("--name", default="trial"); P.add_argument("--mix", default="full"); P.add_argument("--every", type=int, default=4000)
P.add_argument("--resume", default=""); P.add_argument("--seed", type=int, default=0); P.add_argument("--warm", type=int, default=50)
A = P.parse_args()
W = [int(w) for w in A.widths.split(",")]; K = sum(W)
torch.manual_seed(A.seed)
BASE = "models/SmolLM2-135M-Instruct"
MIX = {"full": {"synthetic_expressions": 30, "synthetic_arithmetic": 70, "synthetic_school": 100, "synthetic_coin_flip": 8,
       "augmented:gsm8k": 70, "augmented:multiarith": 40, "augmented:svamp": 45}, "stories": {"synthetic_arithmetic": 1}}[A.mix]
total = sum(MIX.values())
parts = [load_problems(name, "train", num_samples=math.ceil(A.n * c / total), seed=A.seed) for name, c in MIX.items()]
problems = without_repeats(concatenate_datasets(parts))
train, val = split_validation(problems, min(0.03, 260 / A.n), 0, by_template=True)
tok, _ = build_tokenizer(AutoTokenizer.from_pretrained(BASE), num_thoughts=K)

def targets(text):
    steps = split_steps(text)[-len(W):]
    steps = [""] * (len(W) - len(steps)) + steps
    out = []
    for s, w in zip(steps, W):
        t = [i for i in tok(f" {s}", add_special_tokens=False).input_ids if tok.decode([i]).strip()] if s else []
        t = t[-w:]; out += [IGNORED] * (w - len(t)) + t
    return out
def prepare(ds):
    ids = tok([render_prompt(tok, q) for q in ds["question"]], add_special_tokens=False).input_ids
    lab = [targets(c) for c in ds["condensed_reasoning"]]
    return [(i, l) for i, l in zip(ids, lab)]
thought_id = tok.convert_tokens_to_ids("<thought>"); EQ = tok(" =", add_special_tokens=False).input_ids[-1]
t0 = time.time(); train, val = prepare(train), prepare(val)
addsub = [json.loads(l) for l in open("data/addsub/validation.jsonl")]
random.Random(0).shuffle(addsub); addsub = addsub[:200]; asids = tok([render_prompt(tok, q["question"]) for q in addsub], add_special_tokens=False).input_ids
print(len(train), len(val), f"{time.time()-t0:.0f}s prepared", tok.decode([t for t in train[0][1] if t >= 0]), flush=True)

from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask
def grouped(module, q, k, v, attention_mask, scaling=None, dropout=0.0, **kw):
    B, H, n, d = q.shape; G = k.shape[1]
    sc = torch.matmul(q.reshape(B, G, H // G * n, d) * scaling, k.transpose(2, 3)).view(B, G, H // G, n, -1)
    if attention_mask is not None: sc = sc + attention_mask[:, :, None].to(sc.dtype)
    w = sc.softmax(-1).to(q.dtype).view(B, G, H // G * n, -1)
    return torch.matmul(w, v).view(B, H, n, d).transpose(1, 2).contiguous(), None
AttentionInterface.register("grouped", grouped); AttentionMaskInterface.register("grouped", eager_mask)
full = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32, attn_implementation="grouped").eval().requires_grad_(False)
E = full.get_input_embeddings().weight
base = copy.deepcopy(full.model).to(torch.bfloat16)

class LoRA(nn.Module):
    def __init__(self, linear, r):
        super().__init__(); self.w = linear.weight
        self.a = nn.Parameter(torch.randn(r, linear.in_features) / linear.in_features**0.5); self.b = nn.Parameter(torch.zeros(linear.out_features, r))
    def forward(self, x):
        a, b = self.a.bfloat16(), self.b.bfloat16(); x2 = x.reshape(-1, x.shape[-1])
        return torch.addmm(x2 @ self.w.T, x2 @ a.T, b.T).view(*x.shape[:-1], -1)
if A.full:
    gen = copy.deepcopy(full.model).requires_grad_(True); gen.embed_tokens.requires_grad_(False)
else:
    memo = {id(p): p for p in base.parameters()}
    gen = copy.deepcopy(base, memo)
    for m in list(gen.modules()):
        for n, c in list(m.named_children()):
            if isinstance(c, nn.Linear): setattr(m, n, LoRA(c, A.rank))
    for n, p in gen.named_parameters():
        if n.endswith("norm.weight"): pass
own = nn.ParameterDict({"thought": nn.Parameter(E.mean(0) + torch.randn(576) * 0.02), "out": nn.Parameter(torch.eye(576)), "norm": nn.Parameter(full.model.norm.weight.clone())})
params = [p for p in gen.parameters() if p.requires_grad and p.dtype == torch.float32] + list(own.parameters())
print("trained", sum(p.numel() for p in params) / 1e6, "M", flush=True)
opt = torch.optim.AdamW(params, lr=A.lr, weight_decay=0.0, betas=(0.9, 0.98))
spelt = torch.tensor(sorted({t for _, l in train for t in l} - {IGNORED}))
if A.resume:
    s = torch.load(A.resume, weights_only=True); own.load_state_dict(s["own"])
    gen.load_state_dict(s["gen"], strict=False)
def save():
    torch.save({"own": own.state_dict(), "gen": {n: p.detach() for n, p in gen.named_parameters() if p.dtype == torch.float32}}, f"runs/{A.name}.pt"); torch.save(opt.state_dict(), f"runs/{A.name}.opt.pt")

from os.path import commonprefix
heads = [i[: i.index(thought_id) - 1] for i, _ in train]; shared = len(commonprefix([min(heads), max(heads)]))
def collate(rows):
    heads = [i[: i.index(thought_id)] for i in rows]; n = max(map(len, heads))
    ids = torch.tensor([h[:shared] + [0] * (n - len(h)) + h[shared:] for h in heads])
    mask = torch.tensor([[1] * shared + [0] * (n - len(h)) + [1] * (len(h) - shared) for h in heads])
    return ids, mask
@torch.no_grad()
def question(ids, mask):
    cache = base(inputs_embeds=base.embed_tokens(ids[:1, :shared]), use_cache=True)[CACHE]
    cache.batch_repeat_interleave(len(ids))
    base(input_ids=ids[:, shared:-1], attention_mask=mask[:, :-1], position_ids=position_ids_of(mask)[:, shared:-1], use_cache=True, **{CACHE: cache})
    return [(l.keys, l.values) for l in cache.layers]
def passes(kv, ids, mask, inputs):
    """inputs: (batch, K-1, 576) -> scores' states (batch, K, 576)."""
    cache = DynamicCache(config=base.config)
    for i, (k, v) in enumerate(kv): cache.update(k, v, i)
    m = torch.cat([mask, mask.new_ones(len(mask), K - 1)], 1)
    x = torch.cat([E[ids[:, -1:]], inputs], 1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        h = gen(inputs_embeds=x if not A.full else x.float(), attention_mask=m, position_ids=position_ids_of(m)[:, -K:], use_cache=True, **{CACHE: cache}).last_hidden_state
        return F.linear(h * own["norm"], own["out"])
gen.norm.weight.data = torch.ones_like(gen.norm.weight) if not A.full else gen.norm.weight.data
if A.full: own["norm"].data.fill_(1); own["norm"].requires_grad_(False)
def masked(n): return own["thought"].expand(n, K - 1, -1)
def feed(scores, ids):
    if A.soft:
        return scores.float().softmax(-1).to(torch.bfloat16) @ E[ids].bfloat16()
    return E[ids[scores.argmax(-1)]]
E16 = E.bfloat16()
def result_places(lab):
    eq = (lab == EQ); last = torch.where(eq.any(1), lab.shape[1] - 1 - eq.flip(1).int().argmax(1), 0)
    return (torch.arange(lab.shape[1]) > last[:, None]) & (lab != IGNORED)
@torch.no_grad()
def read(rows, T):
    ids, mask = collate(rows); kv = question(ids, mask); x = masked(len(ids)); outs = []
    for t in range(T):
        h = passes(kv, ids, mask, x); sc = F.linear(h.bfloat16(), E16); g = sc.argmax(-1); outs.append(g)
        x = E[g[:, :-1]] if not A.soft else (sc.float().softmax(-1).bfloat16() @ E16)[:, :-1].float()
    return outs
def number(tokens):
    text = tok.decode(tokens); text = text.rsplit("=", 1)[-1].replace(" ", "") if "=" in text else ""
    try: return float(text)
    except ValueError: return None
TS = (1, 2, 4, 8, 12) if A.n < 20000 else (1, 2, 3, 4)
@torch.no_grad()
def evaluate():
    exact = [0] * len(TS); right = [0] * len(TS); n = 0
    for s in range(0, len(val), 64):
        part = val[s : s + 64]; outs = read([i for i, _ in part], max(TS)); lab = torch.tensor([l for _, l in part]); rp = result_places(lab); n += len(part)
        for j, t in enumerate(TS):
            same = (outs[t - 1] == lab)
            exact[j] += (same | (lab == IGNORED)).all(1).sum().item(); right[j] += (same | ~rp).all(1).sum().item()
    hits = [0] * len(TS)
    for s in range(0, len(addsub), 64):
        outs = read(asids[s : s + 64], max(TS))
        for j, t in enumerate(TS):
            for row, q in zip(outs[t - 1].tolist(), addsub[s : s + 64]):
                v = number(row[-W[-1]:]); hits[j] += v is not None and abs(v - float(q["answer"])) < 1e-6
    f = lambda l, n: " ".join(f"{100*x/n:.1f}" for x in l)
    return f"T={TS} exact {f(exact, n)} | result {f(right, n)} | addsub {f(hits, len(addsub))}"

rng = random.Random(A.seed); order = list(range(len(train))); rng.shuffle(order)
pool = A.batch * 16; batches = []
for s in range(0, len(order), pool):
    chunk = sorted(order[s : s + pool], key=lambda i: len(train[i][0])); bs = [chunk[i : i + A.batch] for i in range(0, len(chunk), A.batch)]; rng.shuffle(bs); batches += bs
steps = len(batches); t0 = time.time(); la, lb = [], []; nexte = A.every; seen = 0; limit = 60 * A.minutes
def loss_of(h, lab, ids):
    lab2 = torch.where(lab == IGNORED, IGNORED, torch.searchsorted(ids, lab))
    sc = F.linear(h.bfloat16(), E16[ids])
    return F.cross_entropy(sc.float().flatten(0, 1), lab2.flatten(), ignore_index=IGNORED), sc
for step, rows in enumerate(batches):
    done = max(step / steps, (time.time() - t0) / limit)
    if done >= 1: break
    ids, mask = collate([train[i][0] for i in rows]); lab = torch.tensor([train[i][1] for i in rows])
    cand = torch.cat([spelt, torch.randint(len(E), (2048,))]).unique()
    lr = A.lr * min(1, (step + 1) / A.warm) * min(1, (1 - done) / 0.6 + 0.005)
    for group in opt.param_groups: group["lr"] = lr
    opt.zero_grad()
    kv = question(ids, mask)
    only_a = rng.random() < 0.35
    if "a" in A.modes:
        with torch.set_grad_enabled(only_a or "b" not in A.modes):
            h = passes(kv, ids, mask, masked(len(ids))); loss, sc = loss_of(h, lab, cand); la.append(loss.item())
        if loss.requires_grad: loss.backward()
    if "b" in A.modes and not ("a" in A.modes and only_a):
        gold = torch.where((lab != IGNORED)[..., None], E[lab.clamp(min=0)], own["thought"].detach())[:, :-1]
        if "a" in A.modes:
            x = feed(sc.detach(), cand)[:, :-1].float()
            if rng.random() < 0.3:
                with torch.no_grad(): x = feed(loss_of(passes(kv, ids, mask, x), lab, cand)[1], cand)[:, :-1].float()
            g = (torch.rand(len(ids)) < A.gold * max(0, 1 - done / 0.6)); x = torch.where(g[:, None, None], gold, x)
        else: x = gold
        h = passes(kv, ids, mask, x); loss, sc = loss_of(h, lab, cand); loss.backward(); lb.append(loss.item())
    torch.nn.utils.clip_grad_norm_(params, 1.0); opt.step(); seen += len(rows)
    if (step + 1) % 20 == 0:
        print(f"{seen} {time.time()-t0:.0f}s lr {lr:.1e} a {sum(la[-20:])/20:.3f} b {sum(lb[-20:])/20:.3f}", flush=True)
    if seen >= nexte: nexte += A.every; e0 = time.time(); print("EVAL", seen, evaluate(), f"{time.time()-e0:.0f}s", flush=True); save()
print("END", seen, evaluate(), flush=True); save()
