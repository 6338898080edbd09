"""The loss by chunks is the softmax's own, with its gradients, whatever the head does to its logits."""

import pytest
import torch
import torch.nn.functional as F

from gti_train.model.head import Head, SummedCrossEntropy, head_of, logits_of, vocabulary_loss
from tests.gti_train.grounding.grounding_cases import extended


def material():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(50, 8, generator=generator, dtype=torch.float64)
    hidden = torch.randn(70, 8, generator=generator, dtype=torch.float64)
    targets = torch.randint(50, (70,), generator=generator)
    return weight, hidden, targets, torch.rand(70, generator=generator, dtype=torch.float64)


def test_chunks_of_positions_change_nothing(monkeypatch):
    weight, hidden, targets, _ = material()
    head, ids = Head(weight, None, 0.7, 3.0), [7, 40, 3]

    def run():
        seen, masters = hidden.clone().requires_grad_(), weight[ids].clone().requires_grad_()
        SummedCrossEntropy.apply(seen, masters, None, head, ids, targets, None).backward()
        return seen.grad, masters.grad

    whole = run()
    monkeypatch.setattr(SummedCrossEntropy, "CHUNK_BYTES", 1)
    for expected, found in zip(whole, run(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale, cap", [(1.0, None), (0.7, None), (0.7, 3.0)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_the_whole_head_gets_autograds_gradients(monkeypatch, scale, cap, with_bias):
    monkeypatch.setattr(SummedCrossEntropy, "CHUNK_BYTES", 1)
    weight, hidden, targets, weights = material()
    found, expected = ([value.clone().requires_grad_() for value in (hidden, weight, weight[:, 0])] for _ in range(2))
    heads = [Head(w, b if with_bias else None, scale, cap) for _, w, b in (found, expected)]
    vocabulary_loss(heads[0], found[0], targets, weights).backward()
    losses = F.cross_entropy(logits_of(expected[0], heads[1]), targets, reduction="none")
    (losses * weights).sum().backward()
    for one, two in zip(found[: 2 + with_bias], expected, strict=False):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-5, atol=1e-6)


def test_under_autocast_products_are_rounded_and_gradients_stay_float32():
    weight, hidden, targets, _ = (value if value.dtype == torch.long else value.float() for value in material())
    weight.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = vocabulary_loss(Head(weight, None, 1.0, None), hidden, targets)
    loss.backward()
    exact = float(F.cross_entropy(hidden @ weight.detach().T, targets, reduction="sum"))
    assert weight.grad.dtype == torch.float32
    assert 0 < abs(float(loss.detach()) - exact) < 0.02 * exact


def test_gradients_are_handed_out_once():
    hidden = torch.randn(4, 6, requires_grad=True)
    loss = vocabulary_loss(Head(torch.randn(9, 6, requires_grad=True), None, 1.0, None), hidden, torch.arange(4))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_loss_without_gradients_keeps_none():
    weight, hidden, targets, _ = material()
    with torch.no_grad():
        assert not vocabulary_loss(Head(weight.requires_grad_(), None, 1.0, None), hidden, targets).requires_grad


def test_head_as_the_families_build_it(tiny_lm):
    model, _, _ = extended(tiny_lm(family="gemma2"))
    assert head_of(model).cap == model.config.final_logit_softcapping
    assert head_of(extended(tiny_lm("c", family="cohere"))[0]).scale == pytest.approx(0.0625)


def test_the_head_of_some_tokens_gives_their_logits():
    weight, hidden, _, _ = material()
    head, ids = Head(weight, weight[:, 0], 0.7, 3.0), torch.tensor([4, 9])
    torch.testing.assert_close(logits_of(hidden, head.rows(ids)), logits_of(hidden, head)[:, ids])
