"""The examples in the documentation of the testing kit run."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent.parent / "docs" / "testing.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs(number: int):
    exec(compile(EXAMPLES[number], f"{DOCS}, example {number}", "exec"), {})


def test_there_are_examples():
    assert len(EXAMPLES) > 5
