"""Soft answers at the last position: the loss and its gradients against one prompt at a time, masks, refusals."""

import pytest
import torch
import torch.nn.functional as F

from gti_diag.errors import InputError
from gti_train.model.loading import load_language_model
from gti_train.model.tree_passes import Way, find_way
from gti_train.search.soft_answers import SoftAnswers, SoftExample, soft_divergence

ANSWERS = torch.tensor([[20, 21], [30, 31]])  # two tasks
FAMILIES = [
    [
        SoftExample((5, 6, 7, 8), (0.9, 0.0), (1.0, 0.0)),
        SoftExample((5, 6, 9), (0.2, 1.0), (1.0, 5.0)),
        SoftExample((5, 6, 9, 10, 11), (0.5, 0.25), (0.0, 1.0)),
    ],
    [SoftExample((12, 13), (0.0, 1.0), (1.0, 1.0))],
]


@pytest.fixture
def model(tiny_lm):
    return load_language_model(tiny_lm(), dtype=torch.float32)[0].requires_grad_(True)


def objective(model, families=FAMILIES, **told):
    way = find_way(model, [e.ids for family in families for e in family])
    given = {"answers": ANSWERS, "way": way, "micro_tokens": 16, "compute": torch.float32}
    return SoftAnswers(model, families, **given | told)


def one_by_one(model):
    """The same sum from the definition: whole vocabulary, one prompt at a time, −Σ p log q + Σ p log p."""
    total = torch.zeros(())
    for example in (e for family in FAMILIES for e in family):
        logits = model(input_ids=torch.tensor([example.ids])).logits[0, -1]
        for (yes, no), p, w in zip(ANSWERS.tolist(), example.targets, example.weights, strict=True):
            student = logits[[yes, no]].softmax(0)
            for share, q in zip((p, 1 - p), student, strict=True):
                if w and share:
                    total = total + w * share * (torch.tensor(share).log() - q.log())
    return total


def test_the_loss_and_its_gradients_are_those_of_one_prompt_at_a_time(model):
    found, expected = sum(part() for part in objective(model).parts([0, 1])), one_by_one(model)
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    gradients = torch.autograd.grad(found, list(model.parameters()))
    for one, other in zip(gradients, torch.autograd.grad(expected, list(model.parameters())), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


def test_what_no_teacher_said_changes_nothing(model):
    def loss(target):
        family = [SoftExample((5, 6, 7), (0.3, target), (1.0, 0.0))]
        return float(objective(model, [family]).parts([0])[0]())

    assert loss(0.0) == loss(float("nan")) == loss(1.0)


def test_a_batch_weighs_what_its_answers_weigh_and_an_empty_one_is_no_division_by_zero(model):
    made = objective(model)
    assert made.supervised([0, 1]) == 1 + 6 + 1 + 2
    assert objective(model, [[SoftExample((5,), (0.0, 0.0), (0.0, 0.0))]]).supervised([0]) == 1


def test_the_divergence_is_zero_only_where_student_and_teacher_agree():
    logits = torch.tensor([[1.2, -0.3]])
    same = F.softmax(logits, -1)[..., 0]
    assert float(soft_divergence(logits, same)) == pytest.approx(0, abs=1e-6)
    assert float(soft_divergence(logits, 1 - same)) > 0.1


def test_refusals(model):
    with pytest.raises(InputError, match=r"probability is 1\.5"):
        SoftExample((1,), (1.5,), (1.0,))
    with pytest.raises(InputError, match="one token"):
        objective(model, answers=torch.tensor([[20, 20], [30, 31]]))
    with pytest.raises(InputError, match="2 targets and there are 1 tasks"):
        objective(model, answers=torch.tensor([[20, 21]]))
    with pytest.raises(InputError, match="head of"):
        objective(model, way=Way(own_head=True))
