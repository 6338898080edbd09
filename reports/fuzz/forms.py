"""Fuzz the forms and the pickle machine: `python reports/fuzz/forms.py [CASES]`, by default 60,000 in one process.

Writes forms.json beside itself. A case is a JSON value of a known file with parts replaced, removed or added, as bytes, read as
that file is read; or a program of pickle opcodes in any order with arguments of any form. It passes if the value is taken or
refused in one line; anything else stops the run.
"""

import json
import platform
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import pydantic

from gti_diag.document import dumps
from gti_diag.errors import InputError
from gti_diag.foreign import schemas
from gti_diag.foreign.json_text import parse_json
from gti_diag.gate.baseline import baseline
from tests.gti_diag.foreign.test_inert_pickle import OPCODES, outcome
from tests.gti_diag.gate.gate_cases import HEALTHY

SIDECAR = {"schema": 1, "new_tokens": ["<a_0>", "<a_1>"], "ids": [6, 7], "levels": [1, 1], "init": "mean", "seed": 0, "parent": "base",
           "codebooks": "codebooks.safetensors", "counts": [3, 4], "stage": "extend", "step": 0}  # fmt: skip
SIDS = {"schema": 1, "encoder": "lsa", "seed": 0, "codes": [4, 6], "items": {"x": [0, 1], "y": [3, 5]}}
FORMS: dict[str, tuple[type[pydantic.BaseModel], Any]] = {
    "gti.json": (schemas.Sidecar, SIDECAR),
    "baseline": (schemas.Baseline, baseline(HEALTHY)),
    "analysis.json": (schemas.Analysis, HEALTHY),
    "comparison.json": (schemas.Comparison, {"schema": 1, "analyses": [HEALTHY]}),
    "sids.json": (schemas.SemanticIds, SIDS),
    "bounds": (schemas.Bounds, {"min": 1.0, "max_drop": 0.5, "if_measured": True}),
    "trainer_state.json": (schemas.TrainerState, {"global_step": 3, "log_history": [{"loss": 1.5}]}),
    "manifest": (schemas.Written, {"schema": 1, "files": {"config.json": 10}}),
}
WRONG = [None, True, False, 0, -1, 1.5, 2**63, 10**400, float("nan"), float("inf"), -1e308, "", "x", "\ud800", "../x", [], {}, [[]], {"": None},
         [0] * 50, {"schema": 1}]  # fmt: skip


def damaged(value: Any, rng: random.Random) -> Any:
    """A copy of a JSON value with one place replaced, removed, or grown."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        found = dict(value)
        turn = rng.random()
        if turn < 0.1:
            del found[key]
        elif turn < 0.2:
            found[rng.choice(["", "extra", "schema", "\ud800", key + "x"])] = rng.choice(WRONG)
        else:
            found[key] = damaged(value[key], rng)
        return found
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        return [*value[:place], damaged(value[place], rng), *value[place + 1 :]]
    return rng.choice(WRONG)


def text_of(value: Any, rng: random.Random) -> bytes:
    """As bytes, now and then with a bit flipped or an end cut off."""
    data = bytearray(json.dumps(value).encode())
    turn = rng.random()
    if turn < 0.1 and data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif turn < 0.15:
        del data[rng.randrange(len(data) + 1) :]
    elif turn < 0.2:
        return b"[" * rng.randrange(10_000) + bytes(data)
    return bytes(data)


def form_case(name: str, rng: random.Random) -> str:
    form, sound = FORMS[name]
    value = sound
    for _ in range(rng.randint(1, 2)):
        value = damaged(value, rng)
    try:
        schemas.formed(form, parse_json(text_of(value, rng), name, finite=True), name)
    except InputError as error:
        said = str(error)
    else:
        return "taken"
    assert "\n" not in said and len(said) < 1000, said
    return "refused"


def pickle_case(rng: random.Random) -> str:
    import pickletools

    codes, parts = sorted(OPCODES), []
    for _ in range(rng.randint(0, 60)):
        code = rng.choice(codes)
        size = pickletools.code2op[code.decode("latin-1")].arg
        parts.append(code + (b"" if size is None else _argument(size.n, rng)))
    return outcome(b"".join(parts) + b".")


def _argument(size: int, rng: random.Random) -> bytes:
    if size >= 0:
        return rng.choice([rng.randbytes(size), bytes(size), b"\x01".ljust(size, b"\0")[:size]])
    if rng.random() < 0.6:
        return rng.choice(
            [b"0\n", b"1\n", b"-5L\n", b"'x'\n", b"os\nsystem\n", b"collections\nOrderedDict\n", b"1.5\n", b"\n"]
        )
    text = rng.randbytes(rng.randrange(6))
    claimed = rng.choice([len(text), len(text), len(text) + 1, 2**31 - 1, 2**62])
    width = rng.choice([1, 4, 8])
    return (claimed % 256**width).to_bytes(width, "little") + text


def main(total: int) -> None:
    found: dict[str, dict[str, Any]] = {}
    for name, (form, sound) in FORMS.items():
        schemas.formed(form, parse_json(dumps(sound).encode(), name), name)
    targets = [*FORMS, "pickle opcodes"]
    for number, name in enumerate(targets):
        rng, counts, began = random.Random(number), Counter(), time.monotonic()
        each = total // 2 if name == "pickle opcodes" else -(-total // 2 // len(FORMS))
        for _ in range(each):
            counts[pickle_case(rng) if name == "pickle opcodes" else form_case(name, rng)] += 1
        found[name] = {**counts, "seconds": round(time.monotonic() - began, 1)}
        print(name, found[name], flush=True)
    record = {
        "cases": sum(count for counts in found.values() for key, count in counts.items() if key != "seconds"),
        "outcomes": found,
        "versions": {"python": platform.python_version(), "pydantic": pydantic.VERSION},
    }
    Path(__file__).with_name("forms.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60_000)
