"""Every example runs, as the script that it is."""

from pathlib import Path

import pytest

from tests.support import python, run

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_example(path: Path) -> None:
    done = run(python()[0], path)
    assert done.stdout
    assert not done.stderr


def test_quickstart_shows_what_it_says() -> None:
    done = run(python()[0], EXAMPLES[0].parent / "quickstart.py")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("PDUReceived(")
    assert "AssociateAC" in lines[0]
    assert lines[1:] == ["Success", lines[2]]
    assert "0x0000" in lines[2]
