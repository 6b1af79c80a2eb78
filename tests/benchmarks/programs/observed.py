"""``observed.py REPORT PROGRAM …``: one of rxdicom's programs as it is; its memory is written into a file at the end.

``idle`` is the resident memory in bytes when the program is loaded and has not begun, ``peak`` the most that it had.
"""

import json
import sys
from importlib import import_module
from pathlib import Path

from memory import peak, resident

from rxdicom.__main__ import PROGRAMS, main

if __name__ == "__main__":
    report, program, *arguments = sys.argv[1:]
    import_module(PROGRAMS[program][0])
    idle = resident("self")
    code = main([program, *arguments])
    Path(report).write_text(json.dumps({"idle": idle, "peak": peak("self")}))
    sys.exit(code)
