"""Every room is a folder. Only the order of the rooms stands here; who lies where is read from the tree."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Beside the folders; everyone may import them.
FOUNDATION = ("errors", "files", "document")
# Rooms from the bottom up: a module imports its own room and those before it.
ROOMS = {
    "gti_diag": ("foreign", "measures", "checkpoint", "tokens", "analysis", "render", "gate", "training", "cli"),
    "gti_train": ("catalogue", "semantic_ids", "loop", "model", "grounding", "recommend", "search", "study", "cli"),
}
# What the order allows and the house forbids.
APART = {("gti_diag.checkpoint", "gti_diag.measures"), ("gti_diag.render", "gti_diag.analysis"), ("gti_train.model", "gti_train.catalogue"),
         ("gti_train.model", "gti_train.semantic_ids"), ("gti_train.loop", "gti_train.catalogue"), ("gti_train.loop", "gti_train.semantic_ids")}  # fmt: skip
DRAWING = {"matplotlib", "seaborn", "plotly"}  # they live in one room


def modules() -> dict[str, Path]:
    found = {}
    for package in ROOMS:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str) -> set[str]:
    """Absolute names of what a module imports, anywhere in it."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            target = ".".join(filter(None, [base if node.level else "", node.module or ""]))
            found |= {f"{target}.{alias.name}" for alias in node.names}
    return found


def used(name: str) -> set[str]:
    """The modules of ours that a module imports: the longest known part of each name."""
    found = set()
    for target in imports(name):
        while target and target not in MODULES:
            target = target.rpartition(".")[0]
        found |= {target} - {"", name}
    return found


def room_of(name: str) -> tuple[str, str | None]:
    """Package and folder of a module; None for what stands beside the folders."""
    package, _, rest = name.partition(".")
    first = rest.split(".")[0]
    return package, None if first in ("", "__main__", *FOUNDATION) else first


@pytest.mark.parametrize("name", MODULES)
def test_every_module_lies_in_a_room(name):
    package, room = room_of(name)
    assert room is None or room in ROOMS[package], f"{name} lies in no room"
    assert room is None or (ROOT / package / room).is_dir(), f"{name} stands beside the folders"


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name):
    package, room = room_of(name)
    for target in used(name):
        other, below = room_of(target)
        if package == "gti_diag":
            assert other == "gti_diag", f"{name} imports the trainer"
        if room is None or below is None or other != package:
            continue  # what stands beside the folders hands on names of rooms, lazily; gti_train lies above gti_diag
        order = ROOMS[package]
        assert order.index(below) <= order.index(room), f"{name} imports {target}, which lies above it"
        assert (f"{package}.{room}", f"{package}.{below}") not in APART, f"{name} must not know {target}"


def test_no_module_imports_itself_by_a_detour():
    graph = {name: {t for t in used(name) if not name.startswith(t + ".")} for name in MODULES if room_of(name)[1]}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("name", MODULES)
def test_no_folder_imports_a_command_line(name):
    reached = {target for target in used(name) if room_of(target)[1] == "cli"}
    package, room = room_of(name)
    if room == "cli":
        shared = {"gti_diag.cli.shell", "gti_diag.cli.bundles"}
        reached -= {target for target in reached if target.startswith(package + ".")} | shared
    if name.endswith("__main__"):
        reached = set()
    assert not reached, f"{name} imports {reached}"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("gti_diag.measures.")])
def test_the_mathematics_is_pure(name):
    used = {found.split(".")[0] for found in imports(name)}
    assert not used & {"pathlib", "json", "rich", "typer", "transformers", "safetensors", *DRAWING}


@pytest.mark.parametrize("name", MODULES)
def test_drawing_lives_in_render(name):
    drawing = {found.split(".")[0] for found in imports(name)} & DRAWING
    assert not drawing or name.startswith("gti_diag.render"), f"{name} draws with {drawing}"


@pytest.mark.parametrize("package", ["gti_diag.cli", "gti_train.cli"])
def test_help_loads_no_heavy_library(package):
    code = f"import sys, {package}; print([m for m in ('torch', 'transformers', 'matplotlib', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", ["gti_diag.cli", "gti_train.cli"])
def test_no_help_text_holds_what_markup_takes_for_a_tag(package):
    """`[default: …]` inside a help text is read as a style and vanishes: typer's `show_default` says it."""
    from importlib import import_module

    import typer

    commands = typer.main.get_command(import_module(package).app).commands.values()
    texts = [
        text for command in commands for text in (command.help, *(getattr(p, "help", None) for p in command.params))
    ]
    assert len(texts) > 30
    assert not [text for text in texts if text and re.search(r"\[default", text)]


def test_no_module_is_a_drawer_for_everything():
    assert not {name.rpartition(".")[2] for name in MODULES} & {"utils", "util", "helpers", "common", "misc"}


def test_api_names_are_functions_even_after_their_modules_were_imported():
    code = (
        "import gti_diag, gti_diag.analysis.diagnosis, gti_diag.analysis.scan, gti_diag.checkpoint, gti_diag.gate.findings; "
        "print([callable(getattr(gti_diag, name)) for name in gti_diag.__all__])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([True] * 7)


def test_each_room_says_what_it_is_for():
    for package, rooms in ROOMS.items():
        for room in rooms:
            path = MODULES.get(f"{package}.{room}")
            assert path is None or len(ast.get_docstring(ast.parse(path.read_text())) or "") > 60, f"{package}/{room}"


@pytest.mark.parametrize("package", ROOMS)
def test_each_room_stands_in_the_table_of_contributing(package):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition(f"| room of `{package}` |")[2].partition("\n\n")[0]
    listed = re.findall(r"^\| `(\w+)/` \|", table, re.MULTILINE)
    assert listed == [room for room in ROOMS[package] if (ROOT / package / room).is_dir()]
