"""Imports point down. The table is the house plan; a module that is not in it has no place yet."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FOUNDATION = {"gti_diag", "gti_diag.errors", "gti_diag.files"}
CORE = {
    f"gti_diag.{name}"
    for name in (
        "tiles",
        "spectra",
        "geometry",
        "relation",
        "dimension",
        "hierarchy",
        "rsa",
        "spearman",
        "jackknife",
        "alignment",
    )
}
# Rooms from the bottom up; a room may import the rooms before it, and itself where it is a folder.
ROOMS: list[tuple[str, set[str]]] = [
    ("foundation", FOUNDATION),
    ("core", CORE),
    ("checkpoint", {"gti_diag.checkpoint"}),
    ("tokens", {"gti_diag.tokens"}),
    (
        "composition",
        {
            f"gti_diag.{n}"
            for n in (
                "group_rows",
                "group_measures",
                "exhibits",
                "text_relation",
                "resemblance",
                "reference",
                "explain",
            )
        },
    ),
    ("verdict", {"gti_diag.verdict"}),
    ("render", {"gti_diag.render"}),
    ("report", {"gti_diag.report"}),
    ("diagnosis", {"gti_diag.diagnosis"}),
]
# matplotlib and friends draw; they live in one room.
DRAWING = {"matplotlib", "seaborn"}


def modules(package: str) -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path) -> set[str]:
    """Absolute names of what a module imports, anywhere in it."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            target = ".".join(filter(None, [base if node.level else "", node.module or ""]))
            found |= {target} | {f"{target}.{alias.name}" for alias in node.names}
    return found


def room_of(name: str) -> str | None:
    for room, members in ROOMS:
        if name in members or any(name.startswith(member + ".") for member in members if member != "gti_diag"):
            return room
    return None


@pytest.mark.parametrize("name,path", modules("gti_diag").items())
def test_rooms_import_only_what_lies_below(name, path):
    room = room_of(name)
    order = [room for room, _ in ROOMS]
    allowed = set(order) if room is None else set(order[: order.index(room) + 1])
    used = {found for found in imports(name, path) if found.split(".")[0] in ("gti_diag", "gti_train")}
    assert not {found for found in used if found.startswith("gti_train")}, f"{name} imports the trainer"
    above = {found: room_of(found) for found in used if room_of(found) not in (None, *allowed)}
    assert not above, f"{name} ({room}) imports what lies above it: {above}"


@pytest.mark.parametrize("name", sorted(CORE))
def test_core_is_pure(name):
    path = ROOT / Path(*name.split(".")).with_suffix(".py")
    used = imports(name, path)
    siblings = {found for found in used if found.startswith("gti_diag.")} - {name}
    machinery = {
        "gti_diag.alignment",
        "gti_diag.tiles",
        "gti_diag.spectra",
        "gti_diag.geometry",
        "gti_diag.spearman",
    }
    assert {s for s in siblings if room_of(s) != "core"} == set(), "the core imports no outer room"
    assert {".".join(s.split(".")[:2]) for s in siblings} <= machinery, "only shared machinery crosses the core"
    assert not used & {"pathlib", "json", "rich", "typer", "transformers", *DRAWING}


@pytest.mark.parametrize("name,path", [*modules("gti_diag").items(), *modules("gti_train").items()])
def test_drawing_lives_in_render(name, path):
    drawing = {found.split(".")[0] for found in imports(name, path)} & DRAWING
    assert not drawing or name.startswith("gti_diag.render"), f"{name} draws with {drawing}"


@pytest.mark.parametrize("package", ["gti_diag.cli", "gti_train.cli"])
def test_help_loads_no_heavy_library(package):
    code = f"import sys, {package}; print([m for m in ('torch', 'transformers', 'matplotlib', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_module_is_a_drawer_for_everything():
    names = {path.stem for package in ("gti_diag", "gti_train") for path in modules(package).values()}
    assert not names & {"utils", "util", "helpers", "common", "misc"}


def test_api_names_are_functions_even_after_their_modules_were_imported():
    code = (
        "import gti_diag, gti_diag.diagnosis, gti_diag.checkpoint; "
        "print([callable(getattr(gti_diag, n)) for n in ('open_checkpoint', 'diagnose', 'compare')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[True, True, True]"
