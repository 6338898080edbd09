"""The chain as a whole: a small model, fine-tuned on the embedded world, ranks what comes next better than popularity."""

from dataclasses import replace

from gti_train.catalogue.splits import leave_one_out
from gti_train.catalogue.world import product_world
from gti_train.model.vocabulary import extend_checkpoint
from gti_train.recommend.config import FineTuningConfig
from gti_train.recommend.evaluation import EvaluationConfig, evaluate_checkpoint
from gti_train.recommend.prompts import fine_tuning_examples
from gti_train.recommend.stage import Lessons, fine_tune_checkpoint
from gti_train.semantic_ids.making import semantic_ids

CONFIG = FineTuningConfig(steps=110, batch=24, learning_rate=8e-3, warmup=10, micro_tokens=8192, loss="codes")


def test_a_fine_tuned_model_ranks_better_than_popularity(tiny_lm, tmp_path):
    world = product_world(items=200, users=240, seed=0)
    split, sids = leave_one_out(world), semantic_ids(world, dimensions=24, sizes=(27, 8))
    extend_checkpoint(
        tiny_lm(), tmp_path / "start", tokens=sids.tokens, levels=sids.levels, init="random", dtype="float32"
    )
    lessons = Lessons(fine_tuning_examples(replace(world, histories=split.train), sids, longest=8))
    fine_tune_checkpoint(
        tmp_path / "start", tmp_path / "sft", lessons=lessons, sids=sids, config=CONFIG, compute="float32"
    )
    asked = EvaluationConfig(ks=(10,), exact=True, most_users=200)
    found, records = evaluate_checkpoint(tmp_path / "sft", sids=sids, split=split, config=asked)
    popular = found["baselines"]["popularity"]["recall@10"]["value"]
    recall, interval = (found["metrics"]["recall@10"][name] for name in ("value", "interval"))
    assert len(records) == 200
    assert recall > 1.5 * popular and interval[0] > popular
