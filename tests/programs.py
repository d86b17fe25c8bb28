"""Programs of several cases, each of which is a test: to start a process and a framework takes longer than they do."""

from __future__ import annotations

import json

# The head of such a program. A case is a source, which may define a function `case` to be called with arguments.
CASE = """
import json, traceback


def outcome(name, source, *arguments):
    scope = dict(globals())
    try:
        exec(source, scope)
        if "case" in scope:
            scope["case"](*arguments)
        error = ""
    except Exception:
        error = traceback.format_exc()
    print(json.dumps([name, error]), flush=True)
    return not error


"""


def outcomes(printed):
    """The error of each case that was reached, "" where there was none."""
    return dict(json.loads(line) for line in printed.splitlines() if line.startswith("["))
