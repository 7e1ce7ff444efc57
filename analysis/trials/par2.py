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
P.add_argument("--h", type=int, default=5); P.add_argument("--g", type=int, default=3); P.add_argument("--block", type=float, default=1.0)
A = P.parse_args(); K = A.k
torch.manual_seed(A.seed)
BASE = "models/SmolLM2-135M-Instruct"
MIX = {"full": {"synthetic_expressions": 30, "synthetic_arithmetic": 70, "synthetic_school": 100, "synthetic_coin_flip": 6,
       "augmented:gsm8k": 90, "augmented:multiarith": 40, "augmented:svamp": 45}, "stories": {"synthetic_arithmetic": 1}}[A.mix]
total = sum(MIX.values())
tok, _ = build_tokenizer(AutoTokenizer.from_pretrained(BASE), num_thoughts=1)
thought_id = tok.convert_tokens_to_ids("<thought>"); EQ = tok(" =", add_special_tokens=False).input_ids[-1]; END = tok.convert_tokens_to_ids("<|im_end|>")
BLANK = {i for i in range(len(tok)) if not tok.decode([i]).strip()}
def spell(c):
    c = re.sub(r"\w+ (flips|does not): ", "", c)
    return [i for i in tok(" " + c, add_special_tokens=False).input_ids if i not in BLANK]
def draw(n, seed):
    parts = [load_problems(name, "train", num_samples=math.ceil(n * c / total), seed=seed) for name, c in MIX.items()]
    parts = [p.add_column("source", [name] * len(p)) for p, name in zip(parts, MIX)]
    return concatenate_datasets(parts)
def prepare(ds):
    ids = tok([render_prompt(tok, q) for q in ds["question"]], add_special_tokens=False).input_ids
    rows = [(i[: i.index(thought_id)], spell(c) + [END], q, a, s) for i, c, q, a, s in zip(ids, ds["condensed_reasoning"], ds["question"], ds["answer"], ds["source"])]
    return [r for r in rows if len(r[1]) <= K]
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
    sets[name] = [(i[: i.index(thought_id)], [END], q, a, name) for i, (q, a) in zip(ids, qs)]
a = [json.loads(l) for l in open("data/addsub/validation.jsonl")]; random.Random(0).shuffle(a)
extra("AddSub", [(r["question"], r["answer"]) for r in a[:128]])
print(len(train), len(val), {k: len(v) for k, v in sets.items()}, f"{time.time()-t0:.0f}s prepared", tok.decode(train[0][1]), flush=True)

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
own = nn.ParameterDict({"thought": nn.Parameter(E.mean(0) + torch.randn(576) * 0.02)})
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
    k = min(K, max(len(r[1]) for r in rows) + 1)
    lab = torch.tensor([(r[1] + [END] * K)[:k] for r in rows]); length = torch.tensor([len(r[1]) for r in rows])
    return ids, mask, lab, length
@torch.no_grad()
def question(ids, mask):
    cache = base(inputs_embeds=base.embed_tokens(ids[:1, :shared]), use_cache=True)[CACHE]
    cache.batch_repeat_interleave(len(ids))
    base(input_ids=ids[:, shared:-1], attention_mask=mask[:, :-1], position_ids=position_ids_of(mask)[:, shared:-1], use_cache=True, **{CACHE: cache})
    return [(l.keys, l.values) for l in cache.layers]
E16 = E.bfloat16()
def states(kv, ids, mask, inputs, reveal=None, groups=None):
    """
    inputs (batch, k-1, 576) behind the question's last token -> states (batch, k, 576). With groups (batch, g) of
    beginnings: also, behind the truth, g blocks of h placeholders, block g as if behind input groups[:, g].
    """
    cache = DynamicCache(config=base.config); k = inputs.shape[1] + 1
    for i, (a, b) in enumerate(kv): cache.update(a, b, i)
    m = torch.cat([mask, mask.new_ones(len(mask), k - 1)], 1); pos = position_ids_of(m)[:, -k:]
    x = torch.cat([E[ids[:, -1:]], inputs], 1)
    if groups is None:
        return gen(inputs_embeds=x.bfloat16(), attention_mask=m, position_ids=pos, use_cache=True, **{CACHE: cache}).last_hidden_state
    n, g = groups.shape; M = g * A.h; nq = kv[0][0].shape[2]
    x = torch.cat([x, own["thought"].expand(n, M, -1)], 1)
    pos = torch.cat([pos, (pos[:, :1, None] + groups[..., None] + torch.arange(1, A.h + 1)).flatten(1)], 1)
    see = torch.zeros(n, k + M, nq + k + M, dtype=torch.bool)
    see[:, :, :nq] = mask[:, None, :-1].bool()
    see[:, :k, nq : nq + k] = torch.ones(k, k).tril().bool()
    see[:, k:, nq : nq + k] = (torch.arange(k) <= groups[..., None]).repeat_interleave(A.h, 1)
    see[:, k:, nq + k :] = torch.block_diag(*[torch.ones(A.h, A.h).tril()] * g).bool()
    bias = torch.zeros(see.shape, dtype=torch.bfloat16).masked_fill(~see, torch.finfo(torch.bfloat16).min)[:, None]
    return gen(inputs_embeds=x.bfloat16(), attention_mask=bias, position_ids=pos, use_cache=True, **{CACHE: cache}).last_hidden_state
def inputs_of(tokens, reveal):
    """tokens (batch, k): inputs of places 1..k-1, the first `reveal` (batch,) of them shown."""
    k = tokens.shape[1]; shown = torch.arange(k - 1) < reveal[:, None]
    return torch.where(shown[..., None], E[tokens[:, :-1]], own["thought"])
def answer(tokens):
    tokens = tokens[: tokens.index(END)] if END in tokens else tokens
    text = tok.decode(tokens)
    if "so yes" in text: return "yes"
    if "so no" in text: return "no"
    text = text.rsplit("=", 1)[-1].replace(" ", "") if "=" in text else ""
    try: return float(text)
    except ValueError: return None
def is_right(tokens, a):
    got = answer(tokens)
    try: return got is not None and not isinstance(got, str) and abs(got - float(a.replace(",", ""))) < 1e-6
    except ValueError: return got == a
@torch.no_grad()
def think(rows, block=None, tau=None):
    """Reads reasonings `block` tokens a pass, or as many (at most h + 1) as are surer than tau."""
    ids, mask, _, _ = collate(rows); kv = question(ids, mask); n = len(rows); k = K + A.h
    tokens = torch.full((n, k), END); reveal = torch.zeros(n, dtype=torch.long); passes = torch.zeros(n, dtype=torch.long); place = torch.arange(k)
    for t in range(K):
        live = reveal < K
        if not live.any(): break
        w = min(k, int(reveal[live].max()) + A.h + 1)
        sc = F.linear(states(kv, ids, mask, inputs_of(tokens[:, :w], reveal)), E16[spelt]).float()
        p, g = sc.softmax(-1).max(-1); g = spelt[g]; passes += live
        pl = place[:w]; open_ = (pl >= reveal[:, None]) & live[:, None]
        tokens[:, :w] = torch.where(open_, g, tokens[:, :w])
        if tau is None: step = reveal + block
        else: step = torch.minimum(((p >= tau) | (pl <= reveal[:, None])).long().cumprod(1).sum(1), reveal + A.h + 1)
        is_end = (tokens == END) & (place < step[:, None]); ended = is_end.any(1) & live
        first = torch.where(is_end.any(1), is_end.int().argmax(1), k)
        tokens = torch.where((place > first[:, None]) & ended[:, None], END, tokens)
        reveal = torch.where(live, torch.where(ended, K, step), reveal)
    return tokens[:, :K].tolist(), passes.float().mean().item()
@torch.no_grad()
def think_ar(rows):
    ids, mask, _, _ = collate(rows); cache = DynamicCache(config=base.config)
    for i, (a, b) in enumerate(question(ids, mask)): cache.update(a, b, i)
    x = ids[:, -1:]; out = []; done = torch.zeros(len(rows), dtype=torch.bool)
    for t in range(K):
        if t: mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        h = gen(inputs_embeds=E16[x], attention_mask=mask, position_ids=position_ids_of(mask)[:, -1:], use_cache=True, **{CACHE: cache}).last_hidden_state
        x = spelt[F.linear(h, E16[spelt]).argmax(-1)]; x[done] = END; done |= x[:, 0] == END; out.append(x)
        if done.all(): break
    return torch.cat(out, 1).tolist(), len(out)
def evaluate(modes):
    gen.eval()
    for label, kw in modes:
        out, ps, t = [], [], time.time()
        for name, rows in sets.items():
            rows = sorted(rows, key=lambda r: len(r[0])); hits, ex = 0, 0
            for s in range(0, len(rows), 64):
                got, p = think(rows[s : s + 64], **kw) if kw else think_ar(rows[s : s + 64]); ps.append(p)
                hits += sum(is_right(g, r[3]) for g, r in zip(got, rows[s : s + 64]))
            out.append(f"{name.split(':')[-1].removeprefix('synthetic_')} {100*hits/len(rows):.0f}")
        print(f"  EVAL {label}: {' '.join(out)} | passes {sum(ps)/len(ps):.1f} ({time.time()-t:.0f}s)", flush=True)
MODES = [("6 a pass", dict(block=6)), ("4 a pass", dict(block=4)), ("tau .9", dict(tau=0.9)), ("AR", {})]
spelt = torch.tensor(sorted({t for r in train for t in r[1]})); print("spelt", len(spelt))
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
    ids, mask, lab, length = collate([train[i] for i in rows]); k = lab.shape[1]
    cand = torch.cat([spelt, torch.randint(len(E), (1024,))]).unique()
    lr = A.lr * min(1, (step + 1) / A.warm) * min(1, (1 - done) / (1 - A.decay_from) + 0.005)
    for g in opt.param_groups: g["lr"] = lr
    groups = (torch.rand(len(ids), A.g) * (length + 1)[:, None]).long().clamp(max=k - 1)
    hs = states(question(ids, mask), ids, mask, E[lab[:, :-1]], groups=groups)
    real = torch.arange(k) < (length + 1)[:, None]
    want = (groups[..., None] + torch.arange(1, A.h + 1)).flatten(1)
    told = torch.cat([lab, lab.gather(1, want.clamp(max=k - 1))], 1); counts = torch.cat([real, want <= length[:, None]], 1)
    ahead = torch.cat([torch.zeros_like(lab), torch.arange(1, A.h + 1).repeat(len(ids), A.g)], 1)
    ce = F.cross_entropy(F.linear(hs, E16[cand]).float().transpose(1, 2), torch.searchsorted(cand, told), reduction="none")
    weight = counts * torch.where(ahead == 0, 1.0, A.block / A.g)
    loss = (ce * weight).sum() / (counts & (ahead == 0)).sum(); real = counts
    opt.zero_grad(); loss.backward(); torch.nn.utils.clip_grad_norm_(params, 1.0); opt.step(); seen += len(rows)
    with torch.no_grad():
        e = ce.detach(); f = lambda m: (e[m].sum().item(), m.sum().item())
        log.append([f(real & (ahead <= 0)), f(real & (ahead == 1)), f(real & (ahead == 2)), f(real & (ahead > 2))])
    if (step + 1) % 20 == 0:
        z = [sum(r[j][0] for r in log) / max(1, sum(r[j][1] for r in log)) for j in range(4)]; log = []
        print(f"{seen} {now():.0f}s lr {lr:.1e} ahead 0: {z[0]:.3f}  1: {z[1]:.3f}  2: {z[2]:.3f}  3-: {z[3]:.3f}", flush=True)
    if now() >= nexte:
        nexte += 60 * A.every; e0 = time.time(); evaluate(MODES); save(); lost += time.time() - e0
print("END", seen, flush=True); evaluate(MODES); save()
