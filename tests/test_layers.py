"""The layers of the architecture: imports point upward only, and heavy packages are loaded where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rxdicom

PACKAGE = Path(rxdicom.__file__).parent
# From the bottom up. The modules beside the packages are the vocabulary that users import.
LAYERS = {
    "errors": 0,
    "log": 0,
    "wire": 1,
    "protocol": 2,
    "status": 2,
    "service_class": 2,
    "sop_class": 2,
    "builders": 2,
    "application_information": 2,
    "pdu_primitives": 2,
    "presentation": 2,
    "events": 3,
    "evt": 3,
    "operators": 4,
    "services": 5,
    "runtimes": 6,
    "aio": 6,
    "recording": 7,
    "testing": 7,
    "apps": 8,
    "__main__": 8,
}
ALLOWED_PACKAGES = {
    "wire": {"attrs"},
    "protocol": {"attrs"},
    "operators": {"attrs", "reactivex"},
    "services": {"attrs"},
    "runtimes": {"attrs"},
    "recording": {"attrs", "reactivex"},
    "testing": {"attrs", "reactivex"},
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path: Path) -> str:
    """The part of the package that a module belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, *, when_loaded: bool = False) -> set[str]:
    """The modules that a module imports; ``when_loaded`` leaves out what is imported later, or for types only."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if when_loaded else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES])
def test_imports_point_upward_only(path: Path) -> None:
    own = LAYERS[room(path)]
    used = {name.split(".")[1] for name in imports(path) if name.startswith("rxdicom.")}
    below = {name: LAYERS[name] for name in used if name in LAYERS}
    assert all(level <= own for level in below.values()), below


def test_layers_are_imported_without_a_cycle_between_packages() -> None:
    """In the same level nothing reaches back: the vocabulary knows wire, the protocol does not know the vocabulary."""
    for path in (PACKAGE / "protocol").glob("*.py"):
        used = {name.split(".")[1] for name in imports(path) if name.startswith("rxdicom.")}
        assert used <= {"errors", "wire", "protocol"}, path


def test_every_module_below_the_programs_is_in_the_architecture() -> None:
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    below = {path.stem for path in MODULES if path.parent != PACKAGE and room(path) != "apps"} - {"__init__"}
    assert below == {stem for stem in below if f"`{stem}`" in text}


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES])
def test_reactivex_is_imported_by_the_streams_and_operators_alone(path: Path) -> None:
    streams = {PACKAGE / "events" / "streams.py", PACKAGE / "recording" / "streams.py"}
    if room(path) not in ("apps", "operators", "testing") and path not in streams:
        assert not {name for name in imports(path, when_loaded=True) if name.split(".")[0] == "reactivex"}


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES])
def test_the_core_uses_the_standard_library_and_attrs(path: Path) -> None:
    allowed = ALLOWED_PACKAGES.get(room(path))
    if allowed is not None:
        roots = {name.split(".")[0] for name in imports(path, when_loaded=True)}
        foreign = roots - set(sys.stdlib_module_names) - {"rxdicom"}
        assert foreign <= allowed


@pytest.mark.parametrize("layer", ["wire", "protocol"])
def test_the_core_reads_no_clock_and_no_socket(layer: str) -> None:
    for path in (PACKAGE / layer).glob("*.py"):
        assert not imports(path) & {"time", "datetime", "socket", "os", "select", "ssl"}, path


@pytest.mark.parametrize("statement", ["from rxdicom import AE, evt", "import rxdicom.runtimes.threads.ae"])
def test_heavy_packages_are_not_loaded_at_import(statement: str) -> None:
    script = (
        f"import sys; {statement}; print([each for each in ('pydicom', 'reactivex', 'numpy') if each in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert shown.stdout.strip() == "[]"
