"""The results of several runs of parts of one study, as one folder of results."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gti_diag.document import dumps
from gti_diag.errors import InputError
from gti_diag.files import all_or_none, write_text

from .manifest import MANIFEST
from .plan import RESULTS
from .results import read_manifest


def join(parts: Sequence[Path], out: Path) -> Path:
    """Copy the results of all parts to `out`/results, with one manifest; returns that folder.

    Results that `out` has already are a part, too. What several parts have is taken from the first that has it. Stages that were
    not made on the first part's machine, or not with its versions, are listed by `other_machines`.

    Raises:
        InputError: a folder without results; parts of different studies; `out` cannot be written.
    """
    there = out / RESULTS
    if (there / MANIFEST).is_file() and there.resolve() not in [part.resolve() for part in parts]:
        parts = [*parts, there]
    manifests = [read_manifest(part) for part in parts]
    whole: dict[str, Any] = {**manifests[0], "stages": dict(manifests[0]["stages"])}
    others: list[dict[str, Any]] = list(whole.pop("other_machines", []))
    for part, manifest in zip(parts[1:], manifests[1:], strict=True):
        _same_study(whole["study"], manifest["study"], parts[0], part)
        new = {name: cost for name, cost in manifest["stages"].items() if name not in whole["stages"]}
        whole["stages"] |= new
        elsewhere = [
            {**one, "stages": [s for s in one["stages"] if s in new]} for one in manifest.get("other_machines", [])
        ]
        own = [name for name in new if not any(name in one["stages"] for one in elsewhere)]
        if any(manifest[key] != whole[key] for key in ("machine", "versions")):
            elsewhere.insert(0, {**manifest["machine"], "versions": manifest["versions"], "stages": own})
        others += [one for one in elsewhere if one["stages"]]
    with all_or_none(there) as stage:
        for part in reversed(parts):
            for file in sorted(part.rglob("*.json")):
                if file.name != MANIFEST:
                    target = stage / file.relative_to(part)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, target)
        write_text(stage / MANIFEST, dumps(whole | ({"other_machines": others} if others else {})))
    return there


def _same_study(one: dict[str, Any], other: dict[str, Any], first: Path, second: Path) -> None:
    for key in sorted({*one, *other}):
        if one.get(key) != other.get(key):
            raise InputError(f"{second} is of another study than {first}: `{key}` differs; run parts of one STUDY.toml")
