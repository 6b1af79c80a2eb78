"""pynetdicom's documentation, fetched and cut into examples.

Nothing of it is kept in this repository: it comes from the source distribution, into pytest's cache.
"""

import ast
import doctest
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support import DEADLINE

VERSION = "3.0.4"
"""Of the documentation whose examples are listed."""

Key = tuple[str, tuple[int, ...]]
"""A page and the places of blocks on it, which are one example together."""

_CODE = re.compile(r"(?P<indent> *)\.\. code-block:: python$")
_LITERAL = re.compile(r"(?P<indent> *)(?!\.\. )(.*\S)?::$")
_OPTION = re.compile(r"\s*:[a-z-]+:.*\n")
_IMPORT = re.compile(r"^(\s*(?:>>> |\.\.\. )?(?:from|import) )pynetdicom\b", re.MULTILINE)


def fetch(cache: Path) -> Path:
    """The folder of pynetdicom's source distribution; without a network a failure in CI, a skip elsewhere."""
    name = f"pynetdicom-{VERSION}"
    if not (cache / name).is_dir():
        with tempfile.TemporaryDirectory(dir=cache) as unpacked:
            folder = Path(unpacked)
            _download(folder)
            with tarfile.open(folder / f"{name}.tar.gz") as archive:
                archive.extractall(folder, filter="data")
            try:
                (folder / name).rename(cache / name)
            except OSError:
                # Another test run may have been faster.
                if not (cache / name).is_dir():
                    raise
    return cache / name


def _download(folder: Path) -> None:
    options = ("--no-binary", ":all:", "--no-deps", "--quiet", "--retries", "1", "--dest", str(folder))
    command = (sys.executable, "-m", "pip", "download", *options, f"pynetdicom=={VERSION}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * DEADLINE, check=False)
        failure = done.stderr[-300:] if done.returncode else ""
    except subprocess.TimeoutExpired as error:
        failure = str(error)
    if failure:
        message = f"pynetdicom's documentation cannot be downloaded from PyPI: {failure}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


def code_blocks(text: str) -> list[str]:
    """The Python blocks of a reStructuredText document: those marked as such, and literal ones that import."""
    lines = text.splitlines()
    found: list[str] = []
    for number, line in enumerate(lines):
        marked = _CODE.match(line)
        opening = marked or _LITERAL.match(line)
        if opening is None:
            continue
        block = textwrap.dedent("\n".join(_indented(lines[number + 1 :], len(opening["indent"]))))
        if marked:
            while option := _OPTION.match(block):
                block = block[option.end() :]
            block = textwrap.dedent(block)
        if marked or _IMPORT.search(block):
            found.append(block.strip("\n"))
    return found


def _indented(lines: Sequence[str], indent: int) -> Iterator[str]:
    for line in lines:
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            return
        yield line


def documents(folder: Path) -> dict[str, list[str]]:
    """The examples of each page that has any; pages are named by their path in the documentation."""
    pages = {"README": folder / "README.rst"}
    for path in sorted((folder / "docs").rglob("*.rst")):
        pages[str(path.relative_to(folder / "docs").with_suffix(""))] = path
    blocks = {name: code_blocks(path.read_text()) for name, path in pages.items()}
    return {name: found for name, found in blocks.items() if found}


def docstrings(folder: Path) -> dict[str, str]:
    """The docstrings with examples, by ``module.Class.method``, but for those of the configuration."""
    parser = doctest.DocTestParser()
    found: dict[str, str] = {}

    def walk(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(child) or ""
                if parser.get_examples(text) or code_blocks(text):
                    found[f"{name}.{child.name}"] = text
                walk(child, f"{name}.{child.name}")

    for path in sorted((folder / "pynetdicom").glob("*.py")):
        if path.stem != "_config":
            walk(ast.parse(path.read_text()), path.stem)
    return found


def imported_from(package: str, code: str) -> str:
    """The example with its import lines changed, and nothing else."""
    return _IMPORT.sub(rf"\g<1>{package}", code)
