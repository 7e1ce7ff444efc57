"""Trial: LoRA on the base at the placeholders behind the question's cache; a revealed beginning of the reasoning, the rest placeholders."""
import copy, sys, time, json, math, random, argparse, re, os
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from datasets import concatenate_datasets
from transformers.cache_utils import DynamicCache
from modeling_semcot import CACHE, position_ids_of
from semcot.data import load_problems, split_validation, without_repeats
from semcot.tokenization import build_tokenizer, render_prompt
IGNORED = -100
P = argparse.ArgumentParser()
P.add_argument("--n", type=int, default=16000); P.add_argument("--batch", type=int, default=64)
P.add_argument("--lr", type=float, default=1e-3); P.add_argument("--rank", type=int, default=32)
P.add_argument("--minutes", type=float, default=8); P.add_argument("--ar", type=float, nargs=2, default=(0.9, 0.3)); P.add_argument("--ramp", type=float, default=0.4)
P.add_argument("--none", type=float, default=0.0, help="share of rows with nothing revealed at the end")
P.add_argument("--k", type=int, default=28); P.add_argument("--name", default="trial"); P.add_argument("--mix", default="full")
P.add_argument("--every", type=float, default=4); P.add_argument("--resume", default=""); P.add_argument("--seed", type=int, default=0)
P.add_argument("--warm", type=int, default=50); P.add_argument("--eval_only", action="store_true"); P.add_argument("--decay_from", type=float, default=0.4)
P.add_argument("--la", type=int, default=15); P.add_argument("--le", type=int, default=22); P.add_argument("--deep", type=float, default=1.0); P.add_argument("--self_feed", type=float, default=0.0)
A = P.parse_args(); K = A.k
torch.manual_seed(A.seed)
BASE = "models/SmolLM2-135M-Instruct"
MIX = {"full": {"synthetic_expressions": 30, "synthetic_arithmetic": 70, "synthetic_school": 100, "synthetic_coin_flip": 6,
       "augmented:gsm8k": 90, "augmented:multiarith": 40, "augmented:svamp": 45}, "stories": {"synthetic_arithmetic": 1}}[A.mix]
total = sum(MIX.values())
tok, _ = build_tokenizer(AutoTokenizer.from_pretrained(BASE), num_thoughts=1)
thought_id = tok.convert_tokens_to_ids("<thought>"); EQ = tok(" =", add_special_tokens=False).input_ids[-1]; END = tok.convert_tokens_to_ids("<|im_end|>")
BLANK = {i for i in range(len(tok)) if not tok.decode([i]).strip()}
G, Wd = 3, 5
K = G * Wd
BLK = tok(" ", add_special_tokens=False).input_ids[0]; IDS = lambda t: [i for i in tok(" " + t, add_special_tokens=False).input_ids if i not in BLANK]
CH = {c: i for i, c in enumerate("0123456789.")}; NONE, REF1, REF2 = 11, 12, 13; OPS = {"+": 0, "-": 1, "*": 2, "/": 3}
def chars(x):
    c = [CH[ch] for ch in x if ch in CH][-Wd:]; return [NONE] * (Wd - len(c)) + c
def layout(c, answer):
    """Last-group-aligned steps: (labels K, a K, b K, op K, early K) or None."""
    lab, A1, B1, O1, EA = [], [], [], [], []
    if "so yes" in c or "so no" in c:
        i = [IGNORED] * K; return i[:-1] + IDS(answer)[:1], i, i, i, i
    steps = c.split(", ")
    if len(steps) > G: return None
    res = []
    for s in steps:
        m = re.fullmatch(r"([\d.]+) ([-+*/]) ([\d.]+) = ([\d.]+)", s)
        if not m: return None
        x, op, y, r = m.groups()
        if len(r) > Wd or len(x) > Wd or len(y) > Wd: return None
        ra = REF1 if res and x == res[-1] else REF2 if len(res) > 1 and x == res[-2] else None
        rb = REF1 if res and y == res[-1] and ra != REF1 else REF2 if len(res) > 1 and y == res[-2] and ra != REF2 else None
        A1 += chars(x) if ra is None else [ra] * Wd; B1 += chars(y) if rb is None else [rb] * Wd; O1 += [OPS[op]] * Wd
        t = (["="] if len(r) < Wd else []) + list(r); t = [IDS(ch)[-1] for ch in t]; t = [BLK] * (Wd - len(t)) + t
        lab += t; EA += t if ra is None and rb is None else [IGNORED] * Wd; res.append(r)
    n = K - len(lab); pad = lambda l, v: [v] * n + l
    return pad(lab, IGNORED), pad(A1, IGNORED), pad(B1, IGNORED), pad(O1, 4), pad(EA, IGNORED)
def draw(n, seed):
    parts = [load_problems(name, "train", num_samples=math.ceil(n * c / total), seed=seed) for name, c in MIX.items()]
    parts = [p.add_column("source", [name] * len(p)) for p, name in zip(parts, MIX)]
    return concatenate_datasets(parts)
def prepare(ds):
    ids = tok([render_prompt(tok, q) for q in ds["question"]], add_special_tokens=False).input_ids
    rows = [(i[: i.index(thought_id)], layout(c, a), q, a, s) for i, c, q, a, s in zip(ids, ds["condensed_reasoning"], ds["question"], ds["answer"], ds["source"])]
    return [r for r in rows if r[1]]
t0 = time.time()
problems = without_repeats(draw(A.n, A.seed))
train, val = split_validation(problems, min(0.05, 1500 / A.n), 0, by_template=True)
train, val = prepare(train), prepare(val)
rng = random.Random(1); rng.shuffle(val)
from collections import defaultdict
sets = defaultdict(list)
for r in val:
    if len(sets[r[4]]) < 64: sets[r[4]].append(r)
del sets["synthetic_expressions"]
def extra(name, qs): 
    ids = tok([render_prompt(tok, q) for q, _ in qs], add_special_tokens=False).input_ids
    sets[name] = [(i[: i.index(thought_id)], ([IGNORED]*K,)*5, q, a, name) for i, (q, a) in zip(ids, qs)]
a = [json.loads(l) for l in open("data/addsub/validation.jsonl")]; random.Random(0).shuffle(a)
extra("AddSub", [(r["question"], r["answer"]) for r in a[:128]])
print(len(train), len(val), {k: len(v) for k, v in sets.items()}, f"{time.time()-t0:.0f}s prepared", train[0][1], flush=True)

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
gen = copy.deepcopy(base, {id(p): p for p in base.parameters()})
for m in list(gen.modules()):
    for n, c in list(m.named_children()):
        if isinstance(c, nn.Linear): setattr(m, n, LoRA(c, A.rank))
own = nn.ParameterDict({"place": nn.Parameter(torch.randn(K, 576) * 0.05), **{f"head{j}": nn.Parameter(torch.zeros(n, 576)) for j, n in enumerate((14, 14, 5))},"thought": nn.Parameter(E.mean(0) + torch.randn(576) * 0.02)})
params = [p for p in gen.parameters() if p.requires_grad] + list(own.parameters())
print("trained", sum(p.numel() for p in params) / 1e6, "M", flush=True)
opt = torch.optim.AdamW(params, lr=A.lr, weight_decay=0.0, betas=(0.9, 0.98), fused=True)
if A.resume:
    s = torch.load(A.resume, weights_only=True); own.load_state_dict(s["own"]); print(gen.load_state_dict(s["gen"], strict=False).unexpected_keys)
    if "opt" in s: opt.load_state_dict(s["opt"])
def save():
    torch.save({"own": own.state_dict(), "gen": {n: p.detach() for n, p in gen.named_parameters() if p.requires_grad}, "opt": opt.state_dict()}, f"runs/{A.name}.pt.tmp"); os.replace(f"runs/{A.name}.pt.tmp", f"runs/{A.name}.pt")
from os.path import commonprefix
heads = [r[0][:-1] for r in train[:2000]]; shared = len(commonprefix([min(heads), max(heads)]))
def collate(rows):
    heads = [r[0] for r in rows]; n = max(map(len, heads))
    ids = torch.tensor([h[:shared] + [0] * (n - len(h)) + h[shared:] for h in heads])
    mask = torch.tensor([[1] * shared + [0] * (n - len(h)) + [1] * (len(h) - shared) for h in heads])
    return ids, mask, torch.tensor([r[1] for r in rows])
@torch.no_grad()
def question(ids, mask):
    cache = base(inputs_embeds=base.embed_tokens(ids[:1, :shared]), use_cache=True)[CACHE]
    cache.batch_repeat_interleave(len(ids))
    base(input_ids=ids[:, shared:-1], attention_mask=mask[:, :-1], position_ids=position_ids_of(mask)[:, shared:-1], use_cache=True, **{CACHE: cache})
    return [(l.keys, l.values) for l in cache.layers]
E16 = E.bfloat16()
def states(kv, ids, mask):
    """-> hidden states of all layers (batch, K, 576) at the K last places, the first of which is the question's last token."""
    cache = DynamicCache(config=base.config)
    for i, (a, b) in enumerate(kv): cache.update(a, b, i)
    m = torch.cat([mask, mask.new_ones(len(mask), K)], 1); n = len(ids)
    x = torch.cat([E[ids[:, -1:]], (own["thought"] + own["place"])[None].expand(n, -1, -1)], 1).bfloat16()
    o = gen(inputs_embeds=x, attention_mask=m, position_ids=position_ids_of(m)[:, -K - 1 :], use_cache=True, output_hidden_states=True, **{CACHE: cache})
    return [h[:, 1:] for h in o.hidden_states[:-1]] + [o.last_hidden_state[:, 1:]]
def heads_of(h):
    h = h.float(); h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-5)
    return [F.linear(h, own[f"head{j}"]) for j in range(3)]
def number(tokens):
    t = "".join(tok.decode([x]).strip() for x in tokens)
    if t in ("yes", "no"): return t
    try: return float(t.rsplit("=", 1)[-1])
    except ValueError: return None
@torch.no_grad()
def evaluate(modes=None):
    gen.eval(); out = []; t = time.time()
    for name, rows in sets.items():
        rows = sorted(rows, key=lambda r: len(r[0])); hits = exact = opn = last = 0
        for s in range(0, len(rows), 64):
            part = rows[s : s + 64]; ids, mask, lab = collate(part); hs = states(question(ids, mask), ids, mask)
            g = spelt[F.linear(hs[-1], E16[spelt]).float().argmax(-1)]
            exact += ((g == lab[:, 0]) | (lab[:, 0] == IGNORED)).all(1).sum().item()
            ok = torch.stack([(z.argmax(-1) == lab[:, j + 1]) | (lab[:, j + 1] == IGNORED) for j, z in enumerate(heads_of(hs[A.la]))]).all(0)
            opn += ok.all(1).sum().item(); last += ok[:, -Wd:].all(1).sum().item()
            for row, r in zip(g.tolist(), part):
                v = number(row[-1:] if r[3] in ("yes", "no") else row[-Wd:])
                try: hits += v is not None and not isinstance(v, str) and abs(v - float(r[3].replace(",", ""))) < 1e-6
                except ValueError: hits += v == r[3]
        n = len(rows); out.append(f"{name.split(':')[-1].removeprefix('synthetic_')} {100*hits/n:.0f} (exact {100*exact/n:.0f}, operands {100*opn/n:.0f}, last step's {100*last/n:.0f})")
    print("  EVAL " + " | ".join(out) + f" ({time.time()-t:.0f}s)", flush=True)
MODES = None
spelt = torch.tensor(sorted({t for r in train for t in r[1][0]} - {IGNORED})); print("spelt", len(spelt))
if A.eval_only: evaluate(MODES); sys.exit()
rng = random.Random(A.seed); order = list(range(len(train))); rng.shuffle(order)
pool = A.batch * 24; batches = []
for s in range(0, len(order), pool):
    chunk = sorted(order[s : s + pool], key=lambda i: len(train[i][0])); bs = [chunk[i : i + A.batch] for i in range(0, len(chunk), A.batch)]; rng.shuffle(bs); batches += bs
t0 = time.time(); log = []; seen = 0; limit = 60 * A.minutes; nexte = 60 * A.every; lost = 0
def now(): return time.time() - t0 - lost
for step, rows in enumerate(batches):
    done = max(step / len(batches), now() / limit)
    if done >= 1: break
    ids, mask, lab = collate([train[i] for i in rows])
    cand = torch.cat([spelt, torch.randint(len(E), (1024,))]).unique()
    lr = A.lr * min(1, (step + 1) / A.warm) * min(1, (1 - done) / (1 - A.decay_from) + 0.005)
    for g in opt.param_groups: g["lr"] = lr
    hs = states(question(ids, mask), ids, mask)
    def read(h, l): return F.cross_entropy(F.linear(h, E16[cand]).float().flatten(0, 1), torch.where(l == IGNORED, IGNORED, torch.searchsorted(cand, l)).flatten(), ignore_index=IGNORED)
    final = read(hs[-1], lab[:, 0]); early = read(gen.norm(hs[A.le]), lab[:, 4])
    parts = [F.cross_entropy(z.flatten(0, 1), lab[:, j + 1].flatten(), ignore_index=IGNORED) for j, z in enumerate(heads_of(hs[A.la]))]
    loss = final + A.deep * (0.5 * early + sum(parts) / 2)
    opt.zero_grad(); loss.backward(); torch.nn.utils.clip_grad_norm_(params, 1.0); opt.step(); seen += len(rows)
    log.append([x.item() for x in (final, early, *parts)])
    if (step + 1) % 20 == 0:
        z = [sum(c) / len(log) for c in zip(*log)]; log = []
        print(f"{seen} {now():.0f}s lr {lr:.1e} final {z[0]:.3f} early {z[1]:.3f} a {z[2]:.3f} b {z[3]:.3f} op {z[4]:.3f}", flush=True)
    if now() >= nexte:
        nexte += 60 * A.every; e0 = time.time(); evaluate(MODES); save(); lost += time.time() - e0
print("END", seen, flush=True); evaluate(MODES); save()
