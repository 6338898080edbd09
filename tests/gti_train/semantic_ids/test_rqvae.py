"""The RQ-VAE's parts: the diversity term by its formula, dead codes restarted, and the folded net equal to the trained one."""

import math

import pytest
import torch

from gti_train.semantic_ids import rqvae as module
from gti_train.semantic_ids.rqvae import RqVaeConfig, diversity, rqvae

from .cases import nested, spread

SMALL = {"sizes": (6, 4), "dim": 5, "hidden": (24, 12), "batch": 64, "every": 2}


def test_diversity_is_its_formula_where_each_code_has_one_mate():
    generator = torch.Generator().manual_seed(0)
    book, groups = torch.randn(6, 3, generator=generator, dtype=torch.float64), torch.tensor([0, 0, 1, 1, 2, 3])
    code = torch.tensor([0, 1, 3, 4, 5, 0])  # 4 and 5 are alone in their groups: they do not count
    mates = {0: 1, 1: 0, 2: 3, 3: 2}
    terms = []
    for i in (0, 1, 3, 0):
        weights = [math.exp(float(book[i] @ book[j])) for j in range(6) if j != i]
        terms.append(-math.log(math.exp(float(book[i] @ book[mates[i]])) / sum(weights)))
    found = diversity(book, code, groups, torch.Generator().manual_seed(1))
    assert found.item() == pytest.approx(sum(terms) / 4)


def test_diversity_draws_evenly_among_mates_and_pulls_them_together():
    book = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [5.0, 5.0]], requires_grad=True)
    groups, code = torch.tensor([0, 0, 0, 1]), torch.zeros(4000, dtype=torch.long)
    loss = diversity(book, code, groups, torch.Generator().manual_seed(0))
    scores = torch.tensor([0.0, -1.0, 5.0]).log_softmax(0)  # of codes 1, 2 and 3, seen from 0
    assert loss.item() == pytest.approx(-(scores[0] + scores[1]).item() / 2, rel=0.05)
    loss.backward()
    with torch.no_grad():
        after = diversity(book - 0.01 * book.grad, code, groups, torch.Generator().manual_seed(0))
    assert after < loss


def test_codes_that_are_all_alone_have_no_diversity():
    assert diversity(torch.ones(2, 2), torch.tensor([0, 1]), torch.tensor([0, 1]), torch.Generator()).item() == 0


def test_dead_codes_are_restarted_where_the_level_serves_worst():
    encoder = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False))
    torch.nn.init.eye_(encoder[0].weight)
    x = torch.cat([torch.zeros(20, 2), torch.tensor([[8.0, 0.0], [0.0, 8.0]])])
    book = torch.nn.Parameter(torch.tensor([[0.0, 0.0], [99.0, 99.0], [99.0, -99.0]]))
    module._restart(encoder, x, [book], torch.Generator().manual_seed(0))
    codes = torch.cdist(x, book.detach()).argmin(dim=1)
    assert torch.equal(book[0], torch.zeros(2)) and not (book.detach().abs() > 50).any()
    assert len(codes.unique()) >= 2


def test_the_folded_net_is_the_trained_one(monkeypatch):
    kept = {}
    folded = module._folded

    def keep(encoder, decoder, books, mean, scale):
        kept.update(encoder=encoder, decoder=decoder, mean=mean, scale=scale)
        return folded(encoder, decoder, books, mean, scale)

    monkeypatch.setattr(module, "_folded", keep)
    vectors = spread() * 7 + 3
    found = rqvae(vectors, RqVaeConfig(**SMALL, epochs=8, warm_epochs=3, dropout=0.3))
    with torch.no_grad():
        x = ((vectors - kept["mean"]) / kept["scale"]).float()
        latent = module._forward(kept["encoder"], x, 0.0, None)
        back = module._forward(kept["decoder"], found.quantiser.summed(found.codes).float(), 0.0, None)
    assert torch.allclose(found.quantiser.latent(vectors).float(), latent, atol=1e-4)
    assert torch.allclose(found.quantiser.decode(found.codes), back.double() * kept["scale"] + kept["mean"], atol=1e-3)


def test_training_lowers_the_error_and_uses_all_codes():
    vectors, told = nested(), []
    config = RqVaeConfig(**SMALL, epochs=120, warm_epochs=40, dropout=0.0, learning_rate=1e-2)
    found = rqvae(vectors, config, progress=lambda share, detail: told.append((share, detail)))
    centred = vectors - vectors.mean(dim=0)
    error = (found.quantiser.decode(found.codes) - vectors).square().sum() / centred.square().sum()
    assert error < 0.3
    assert [len(found.codes[:, level].unique()) for level in (0, 1)] == [6, 4]
    assert told[-1][0] == 1.0 and told[-1][1].startswith("epoch 120/120, loss ")


def test_an_rqvae_without_warm_up_starts_with_its_codes():
    found = rqvae(spread(), RqVaeConfig(**SMALL, epochs=3, warm_epochs=0))
    assert found.codes.shape == (120, 2) and len(found.quantiser.books) == 2


@pytest.mark.parametrize("warm", [3, 9])
def test_a_warm_up_that_leaves_no_epoch_for_codes_is_refused(warm):
    with pytest.raises(ValueError, match=f"3 epochs, {warm} of them without codes"):
        rqvae(spread(), RqVaeConfig(**SMALL, epochs=3, warm_epochs=warm))
