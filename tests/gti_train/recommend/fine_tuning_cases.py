"""A small shop, its semantic IDs and a tiny model that knows their tokens."""

from dataclasses import replace
from functools import cache

import torch

from gti_train.catalogue.splits import leave_one_out
from gti_train.catalogue.world import product_world
from gti_train.model.vocabulary import extend_checkpoint
from gti_train.recommend.prompts import NEXT, fine_tuning_examples, validation_examples
from gti_train.recommend.stage import Lessons
from gti_train.semantic_ids.making import semantic_ids


@cache
def shop(users=10):
    """Catalogue (training events only), semantic IDs, lessons of the task itself."""
    world = product_world(items=90, users=users)
    sids, split = semantic_ids(world, dimensions=8, sizes=(6, 5)), leave_one_out(world)
    catalogue = replace(world, histories=split.train)
    return catalogue, sids, validation_examples(world, split, sids)


def lessons(tasks=(NEXT,), count=None, **weights):
    catalogue, sids, validation = shop()
    return Lessons(fine_tuning_examples(catalogue, sids, tasks=tasks)[:count], validation[:4], weights)


def extended(base, out):
    """A checkpoint that knows the codes, each row its own."""
    sids = shop()[1]
    extend_checkpoint(
        base, out, tokens=sids.tokens, levels=sids.levels, codebooks=sids.reference, init="random", sigma=0.05,
        dtype=torch.float32,
    )  # fmt: skip
    return out
