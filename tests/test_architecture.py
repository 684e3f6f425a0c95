"""The rooms of the library: what README's map says, and which way imports point."""

import ast
import graphlib
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LIBRARY = REPOSITORY / "steatosis_d2"
# What a room's name does not tell, and what is too small for a line of the map.
NOT_IN_THE_MAP = {"__init__.py", "__main__.py", "errors.py", "files.py", "install_detectron2.py"}


def test_readmes_map_is_the_tree():
    text = (REPOSITORY / "README.md").read_text().split("## What is where")[1].split("## ")[0]
    listed = set(re.findall(r"(?<=[ ])([a-z_]+(?:/|\.py))(?= )", text.split("the library:")[1]))
    tree = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in LIBRARY.iterdir()
        if not path.name.startswith("__pycache__")
    }
    assert listed == tree - NOT_IN_THE_MAP


def room_of(module):
    """The folder or file right under the library that a module lies in."""
    return module.split(".")[1] if module.count(".") else "steatosis_d2"


def imports_of(path):
    """Rooms that a file imports when it is imported itself."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("steatosis_d2"):
            names = [node.module] if node.module != "steatosis_d2" else [
                f"steatosis_d2.{alias.name}" for alias in node.names
            ]  # fmt: skip
            yield from map(room_of, names)


def test_rooms_import_each_other_one_way():
    rooms: dict[str, set[str]] = {}
    for path in LIBRARY.rglob("*.py"):
        room = path.relative_to(LIBRARY).parts[0].removesuffix(".py")
        rooms.setdefault(room, set()).update(set(imports_of(path)) - {room, "__version__"})
    graphlib.TopologicalSorter(rooms).prepare()  # raises CycleError, which names the circle
    assert rooms["cli"] >= {"api"}


def test_public_names_stand_once():
    owners: dict[str, list[str]] = {}
    for path in LIBRARY.rglob("*.py"):
        if path.parent.name == "cli":  # each command has its run() and build_parser()
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_":
                owners.setdefault(node.name, []).append(str(path.relative_to(LIBRARY)))
    twice = {name: paths for name, paths in owners.items() if len(paths) > 1 and name != "main"}
    assert twice == {}
