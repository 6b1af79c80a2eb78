"""The examples of operators show what they say, and are short."""

import ast
import re
from pathlib import Path

import pytest

from tests.support import python, run

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
MOST_LINES = 40
SHOWN = {
    "pdu_log": r"INFO ECHO-1 <- A-ASSOCIATE-RQ\nINFO ECHO-1 -> A-RELEASE-RP\n",
    "throughput_meter": r"( +\d+\.\d\d MB/s +\d+ PDUs/s +\d+ messages/s\n)+",
    "failure_alert": (
        r"ALERT: 3 failures within a minute\n"
        r"  ME: status: refused: SOP class not supported\n"
        # Two associations: the one may be told of before the other.
        r"(?=(?s:.*)aborted: by the service user\n)(?=(?s:.*)rejected: called AE title not recognised\n)(  ME: .*\n){2}"
    ),
    "study_completed": (
        r"2\.25\.1: 3 instances, \d+ bytes, from ARCHIVE\n2\.25\.2: 2 instances, \d+ bytes, from ARCHIVE\n"
    ),
    "two_sinks": r"CT \d+ bytes from STORE\nMR \d+ bytes from STORE\n\['CT', 'MR'\]\n",
    "retry": r"ConnectionFailed, once more in 0\.1 s\n(ConnectionFailed, .*\n)*answered 0x0000\n",
    "pure_scp": r"Pending CITIZEN\^JANE\nPending SMITH\^JOHN\nSuccess -\n",
}


@pytest.mark.parametrize("name", SHOWN)
def test_what_an_example_shows(name: str) -> None:
    done = run(python()[0], EXAMPLES / f"{name}.py")
    assert re.fullmatch(SHOWN[name], done.stdout), done.stdout
    assert not done.stderr


@pytest.mark.parametrize("name", SHOWN)
def test_an_example_is_short(name: str) -> None:
    """Lines of code: without blank ones, comments and docstrings."""
    text = (EXAMPLES / f"{name}.py").read_text()
    tree = ast.parse(text)
    documented = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef))]
    said: set[int] = set()
    for node in documented:
        if ast.get_docstring(node):
            first = node.body[0]
            said |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines = enumerate(text.splitlines(), 1)
    code = [line for number, line in lines if number not in said and line.strip() and not line.strip().startswith("#")]
    assert len(code) < MOST_LINES
