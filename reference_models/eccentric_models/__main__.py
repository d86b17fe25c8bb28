"""`python -m eccentric_models` and the script `eccentric`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command, or print which package is missing."""
    try:
        from eccentric_models import command
    except ModuleNotFoundError as error:
        sys.stderr.write(f"error: the command eccentric needs {error.name}: pip install 'eccentric[models,torch]'\n")
        return 2
    return command.main()


if __name__ == "__main__":
    sys.exit(main())
