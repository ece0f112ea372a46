"""The shape of the package: imports run one way, torch stays at the edges, files stay short."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import peeralign

ROOT = Path(peeralign.__file__).parent
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

# Who may import whom: a module may import its own layer and those below, never one above.
LAYERS: list[set[str]] = [
    {"distributed", "errors", "escape", "records"},
    {"chat", "config", "panel", "progress"},
    {"describing", "engines", "images", "judging", "store", "training"},
    {"stages"},
    # An exam is answered by the stage that answers questions.
    {"evals"},
    {"recipes"},
    {"classroom", "report"},
    {"doctor"},
    {"commands"},
    {"cli"},
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
# (from, to): a member called "classroom:ada" is looked up in the package, when it is first used.
ALLOWED_LATE = {("panel.py", "classroom")}
FILES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(node: ast.AST, path: Path, late: bool = False) -> Iterator[tuple[str, int, bool]]:
    """(dotted name, line, whether it is inside a function) of all imports that are executed."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield alias.name, child.lineno, late
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                parents = path.relative_to(ROOT.parent).with_suffix("").parts
                base = ".".join([*parents[: len(parents) - child.level], *filter(None, [base])])
            for alias in child.names:
                yield f"{base}.{alias.name}", child.lineno, late
        elif is_type_checking(child):
            yield from imports(ast.Module(child.orelse, []), path, late)  # type: ignore[attr-defined]
        else:
            inside = late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(child, path, inside)


def own_imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """(part of peeralign, line, late) of what a file imports from its own package."""
    for name, line, late in imports(tree_of(path), path):
        package, *rest = name.split(".")
        if package == "peeralign" and rest:
            yield rest[0], line, late


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def test_the_reader_of_imports_reads_them_all() -> None:
    source = """
from __future__ import annotations
import numpy as np, peeralign.report.build
from peeralign import cli
from ..stages import judge
from . import local
if TYPE_CHECKING:
    import torch
else:
    from peeralign.engines import base
try:
    import tensorboard
except ImportError:
    pass
class Engine:
    def load(self):
        from peeralign.recipes.pop import run
"""
    found = list(imports(ast.parse(source), ROOT / "engines" / "vllm.py"))
    assert [(name, late) for name, _, late in found] == [
        ("__future__.annotations", False),
        ("numpy", False),
        ("peeralign.report.build", False),
        ("peeralign.cli", False),
        ("peeralign.stages.judge", False),
        ("peeralign.engines.local", False),
        ("peeralign.engines.base", False),
        ("tensorboard", False),
        ("peeralign.recipes.pop.run", True),
    ]


def test_every_part_has_its_place() -> None:
    parts = {part_of(path) for path in FILES} - {"__init__", "__main__"}
    assert parts == set(LAYER), "give a new part its place in LAYERS"


def test_imports_run_one_way() -> None:
    reversed_edges = []
    for path in FILES:
        part = part_of(path)
        if part == "__init__":
            continue
        for target, line, late in own_imports(path):
            if late and (name_of(path), target) in ALLOWED_LATE:
                continue
            if target in LAYER and LAYER[target] > LAYER[part]:
                reversed_edges.append(f"{name_of(path)}:{line} imports {target}")
    assert not reversed_edges, "reversed imports:\n" + "\n".join(reversed_edges)


@pytest.mark.parametrize("part", ["recipes", "stages"])
def test_the_loop_knows_neither_report_nor_command_line(part: str) -> None:
    found = [
        f"{name_of(path)}:{line} imports {target}"
        for path in FILES
        if part_of(path) == part
        for target, line, _ in own_imports(path)
        if target in {"report", "cli", "doctor"}
    ]
    assert not found, "\n".join(found)


def test_parts_of_one_layer_do_not_import_each_other_in_a_circle() -> None:
    edges: dict[str, set[str]] = {name: set() for name in LAYER}
    for path in FILES:
        if part_of(path) in LAYER:
            targets = {t for t, _, late in own_imports(path) if t in LAYER and not late}
            edges[part_of(path)] |= targets - {part_of(path)}
    left = dict(edges)
    while left:
        free = [name for name, targets in left.items() if not targets & set(left)]
        assert free, f"a circle of imports among {sorted(left)}"
        for name in free:
            del left[name]


def test_only_engines_and_training_import_torch_at_the_top() -> None:
    found = [
        f"{name_of(path)}:{line} imports {name}"
        for path in FILES
        if part_of(path) not in {"engines", "training"}
        for name, line, late in imports(tree_of(path), path)
        if not late and name.split(".")[0] in {"torch", "torchvision"}
    ]
    assert not found, "\n".join(found)


def loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


HEAVY = {"torch", "transformers", "matplotlib", "sklearn", "scipy", "accelerate", "tokenizers"}


@pytest.mark.parametrize(
    "statement",
    [
        "import peeralign",
        "from peeralign import Member, Panel, PeeralignError, Question",
        "import peeralign.cli",
        "from peeralign.recipes.pop import PopConfig",
    ],
)
def test_importing_is_light(statement: str) -> None:
    assert not loaded_by(statement) & HEAVY


def test_the_check_for_light_imports_can_fail() -> None:
    assert "sklearn" in loaded_by("import sklearn")


def test_every_public_name_is_there() -> None:
    for name in peeralign.__all__:
        assert getattr(peeralign, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'judgement'"):
        _ = peeralign.judgement


def test_files_stay_short() -> None:
    long = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in FILES}
    found = [f"{name}: {lines} lines" for name, lines in long.items() if lines > MAX_FILE_LINES]
    assert not found, f"files of more than {MAX_FILE_LINES} lines:\n" + "\n".join(found)


def test_functions_stay_short() -> None:
    found = []
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    found.append(f"{name_of(path)}:{node.lineno} {node.name}: {lines} lines")
    assert not found, f"functions of more than {MAX_FUNCTION_LINES} lines:\n" + "\n".join(found)
