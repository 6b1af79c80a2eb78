"""What programs show of the library's log."""

import logging
from argparse import Namespace
from pathlib import Path

import pytest

from rxdicom.apps.console import logging_to_stderr
from rxdicom.log import LOG
from tests.apps.support import call, dicom_file, server


def options(**given: bool) -> Namespace:
    return Namespace(**{"verbose": False, "debug": False, "quiet": False, **given})


def test_the_log_is_as_it_was_when_the_program_has_ended(capsys: pytest.CaptureFixture[str]):
    before = LOG.level, LOG.handlers[:]
    with logging_to_stderr("echoscu", options(debug=True)):
        LOG.debug("shown")
    LOG.debug("not shown")
    assert (LOG.level, LOG.handlers) == before
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(" DEBUG shown")


def test_without_options_a_line_looks_like_an_error_of_the_program(capsys: pytest.CaptureFixture[str]):
    with logging_to_stderr("echoscp", options()) as log:
        log.warning("odd: %s", "A\nB")
        log.info("not shown")
    assert capsys.readouterr().err == "rxdicom echoscp: odd: A\\nB\n"
    assert not logging.getLogger("rxdicom").isEnabledFor(logging.INFO)


def test_d_shows_every_message_and_no_patient(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    image = dicom_file(tmp_path / "image.dcm")
    assert b"DOE^JOHN" in image.read_bytes()
    with server("storescp", "-od", tmp_path / "out", "-d") as running:
        outcome = call(capsys, "storescu", "127.0.0.1", running.port, image, "-d")
        assert (outcome.code, running.stop()) == (0, 0)
    for said, direction in ((outcome.err, "sent"), (running.said, "received")):
        assert f": {direction} C-STORE-RQ 1 in context 1; dataset of " in said
        assert f": {direction} A-ASSOCIATE-RQ from 'STORESCU' to 'ANY-SCP', " in said
        assert "SOPInstanceUID  1.2.3" in said
        assert "DOE" not in said
