"""Every example runs, as the script that it is, and shows what it says."""

from pathlib import Path

from tests.operators.test_examples import SHOWN
from tests.support import python, run

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_every_example_has_a_test() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*SHOWN, "quickstart"}


def test_quickstart_shows_what_it_says() -> None:
    done = run(python()[0], EXAMPLES / "quickstart.py")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("PDUReceived(")
    assert "AssociateAC" in lines[0]
    assert lines[1:] == ["Success", lines[2]]
    assert "0x0000" in lines[2]
    assert not done.stderr
