"""The evaluation stage: a fine-tuned checkpoint, semantic IDs and histories become a document and one record a user."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gti_diag.errors import InputError
from gti_train.catalogue.splits import Split
from gti_train.loop.processes import join_processes
from gti_train.model.loading import load_language_model
from gti_train.model.sequences import prompt_ids
from gti_train.semantic_ids.ids import SemanticIds

from .baselines import baselines
from .cases import Cases, cases
from .decoding import Decoder
from .judging import Values, document, model_lists, records
from .prompts import LONGEST, history_prompt
from .trie import Trie

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class EvaluationConfig:
    """What an evaluation depends on, besides model and data.

    beams: prefixes kept on each level [default: the largest k]; exact keeps all. part: which held-out events, `test` or
    `valid`.
    most_users: judge by the first so many; None: all. longest: items of a history that are read, as in fine-tuning.
    """

    ks: tuple[int, ...] = (5, 10, 20)
    beams: int | None = None
    exact: bool = False
    scores: str = "items"
    gains: str = "exponential"
    part: str = "test"
    exclude_seen: bool = False
    most_users: int | None = None
    longest: int = LONGEST
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1:
            raise InputError(f"k is {list(self.ks)}: give one or more numbers from 1 up")


def evaluate_checkpoint(
    source: str | os.PathLike[str],
    *,
    sids: SemanticIds,
    split: Split,
    config: EvaluationConfig,
    texts: Float[Tensor, "items dim"] | None = None,
    grades: Mapping[str, Mapping[int, float]] | None = None,
    others: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
    dtype: str = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Judge the model at `source` by the held-out events of `split`; the document, and a record a user.

    texts: vectors of the items for the baseline of transitions [default: the sums of their codes' codebook vectors].
    others: other evaluations' metrics by user, to compare with. Processes that a launcher started share the users.

    Raises:
        InputError: as `load_language_model`, `cases` and `Decoder.decode`; tokens of the codes that the model lacks;
            another evaluation without one of the users.
    """
    rows = {item: row for row, item in enumerate(sids.item_ids)}
    asked = cases(split, rows, part=config.part, grades=grades).first(config.most_users)
    device = join_processes()
    model, tokenizer = load_language_model(source, dtype=dtype)
    model.to(device)  # type: ignore[arg-type]
    separate, groups = sids.codes.unique(dim=0, return_inverse=True)
    decoder = Decoder(model, Trie(separate.to(device), code_tokens(sids, tokenizer, source)), scores=config.scores)
    exclude = [set(history) for history in asked.histories] if config.exclude_seen else None
    lists = model_lists(
        decoder,
        prompts([history[-config.longest :] for history in asked.histories], sids, tokenizer),
        max(config.ks),
        groups=groups,
        beams=config.beams,
        exact=config.exact,
        exclude=exclude,
        progress=progress and (lambda done: progress(done, len(asked.users))),
    )
    found, values = document(
        asked,
        lists,
        config.ks,
        groups=groups,
        baselines=baselines(asked.training, reconstructed(sids) if texts is None else texts),
        others={name: _aligned(name, of, asked) for name, of in (others or {}).items()},
        exclude=exclude,
        gains=config.gains,
        seed=config.seed,
    )
    how = {
        "split": config.part,
        "scores": config.scores,
        "beams": config.beams or max(config.ks),
        "exact": config.exact,
    }
    seen = {"history": config.longest, "exclude_seen": config.exclude_seen, "dtype": dtype, "seed": config.seed}
    return {"schema": 1, "checkpoint": str(source), **how, **seen, **found}, records(
        asked, lists, values, sids.item_ids
    )


def prompts(
    histories: Sequence[Sequence[int]], sids: SemanticIds, tokenizer: "PreTrainedTokenizerBase"
) -> list[list[int]]:
    """The tokens of the question about each history, as fine-tuning asked it in its first phrasing."""
    names = ["".join(sids.of(item)) for item in sids.item_ids]
    return [prompt_ids(history_prompt([names[i] for i in history]), tokenizer) for history in histories]


def code_tokens(
    sids: SemanticIds, tokenizer: "PreTrainedTokenizerBase", source: str | os.PathLike[str]
) -> list[Int[Tensor, " codes"]]:
    """For each level the ids of its codes' tokens.

    Raises:
        InputError: the tokenizer lacks one.
    """
    known = tokenizer.get_vocab()
    missing = [token for token in sids.tokens if token not in known]
    if missing:
        raise InputError(
            f"{missing[0]!r} is no token of {source} ({len(missing)} are not): "
            "name the semantic IDs that the model was extended with"
        )
    ids = torch.tensor([known[token] for token in sids.tokens])
    return list(ids.split([len(book) for book in sids.codebooks]))


def reconstructed(sids: SemanticIds) -> Float[Tensor, "items dim"]:
    """What the codes say of each item: the sum of their codebook vectors."""
    return torch.stack([book[codes] for book, codes in zip(sids.codebooks, sids.codes.T, strict=True)]).sum(0)


def read_grades(path: str | os.PathLike[str], item_ids: Sequence[str]) -> dict[str, dict[int, float]]:
    """Grades by user from JSON lines, `{"user_id", "grades": {item_id: grade}}` each.

    Raises:
        InputError: no such file, a line of another form, an unknown item.
    """
    known, found = {item: row for row, item in enumerate(item_ids)}, {}
    for number, record in _lines(Path(path)):
        try:
            found[str(record["user_id"])] = {known[str(item)]: float(g) for item, g in record["grades"].items()}
        except KeyError as error:
            raise InputError(f"{path}, line {number}: {error} is missing or no item that has a semantic ID") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f'{path}, line {number}: not {{"user_id", "grades": {{item: number}}}} ({error})'
            ) from error
    return found


def read_evaluation(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The document of an evaluation.

    Raises:
        InputError: no such document.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        _ = found["metrics"], found["k"], found["per_user"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: no document of `gti-train eval` ({error}); name what it wrote with --json"
        ) from error
    return found


def read_values(path: str | os.PathLike[str]) -> dict[str, dict[str, float]]:
    """Metrics by user of another evaluation, from the document that it wrote.

    Raises:
        InputError: no such document, or the records that it names are gone.
    """
    records_file = (
        Path(path).parent / Path(read_evaluation(path)["per_user"]).name
    )  # beside it, also where both were moved
    return {record["user_id"]: record["metrics"] for _, record in _lines(records_file)}


def _lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [(number, json.loads(line)) for number, line in enumerate(lines, start=1) if line.strip()]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; name a file of JSON lines") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON lines ({error})") from error


def _aligned(name: str, values: Mapping[str, Mapping[str, float]], asked: Cases) -> Values:
    missing = [user for user in asked.users if user not in values]
    if missing:
        raise InputError(
            f"{name} has no user {missing[0]!r} ({len(missing)} are missing): compare runs on the same users"
        )
    return {
        metric: torch.tensor([values[user][metric] for user in asked.users], dtype=torch.float64)
        for metric in values[asked.users[0]]
    }
