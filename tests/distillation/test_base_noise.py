"""A base that is a little different in each step, and itself again after it."""

from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_language_model

from semcot.distillation.base_noise import BaseNoise, noisy, rounded


def test_rounding_keeps_what_lies_on_its_grid_and_no_more():
    weight = torch.tensor([[7.0, -3.0, 2.0, 0.0], [0.7, 0.34, -0.36, 0.0]])
    assert torch.equal(rounded(weight[:1], bits=4), weight[:1])
    assert rounded(weight, bits=4)[1].tolist() == pytest.approx([0.7, 0.3, -0.4, 0.0])
    assert rounded(weight, bits=4, group=2)[1, 2:].tolist() == pytest.approx([-0.36, 0.0])


def test_noise_has_the_size_that_was_asked_for():
    weight = torch.randn(30, 50, generator=torch.manual_seed(0))
    changed = noisy(weight, 0.07, torch.Generator().manual_seed(1))
    assert ((changed - weight).norm() / weight.norm()).item() == pytest.approx(0.07, rel=1e-4)


def changes_in(base, noise, step: int) -> float:
    """The relative change of a step, of the largest of all matrices."""
    before = [weight.clone() for weight in base.parameters()]
    noise.on_step_begin(None, SimpleNamespace(global_step=step), None)
    changed = [(w - b).norm().item() / b.norm().item() for w, b in zip(base.parameters(), before, strict=True)]
    during = [weight.clone() for weight in base.parameters()]
    noise.on_step_end(None, SimpleNamespace(global_step=step), None)
    assert all(map(torch.equal, base.parameters(), before)), "it is itself again"
    changes_in.during = during
    return max(changed)


def test_each_step_has_a_change_of_its_own_which_repeats():
    base = tiny_language_model("llama").requires_grad_(False)
    noise = BaseNoise(base, 0.1, seed=0)
    sizes = [changes_in(base, noise, step) for step in range(40)]
    assert 5 <= sum(size == 0 for size in sizes) <= 16, "a quarter keeps the base"
    assert max(sizes) < 0.3 and sum(0 < size <= 0.1 for size in sizes) >= 15
    changes_in(base, noise, 3)
    first = changes_in.during
    changes_in(base, BaseNoise(base, 0.1, seed=0), 3)
    assert all(map(torch.equal, first, changes_in.during))
    assert sizes != [changes_in(base, BaseNoise(base, 0.1, seed=1), step) for step in range(40)]


def test_a_quantised_base_is_refused():
    base = tiny_language_model("llama").requires_grad_(False)
    layer = base.model.layers[0].mlp.up_proj
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match="base_noise .* quantised: leave it out"):
        BaseNoise(base, 0.1, seed=0)
