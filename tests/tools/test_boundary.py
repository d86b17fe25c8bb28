"""The two sides of the boundary, as the command shows them."""

from __future__ import annotations

import boundary
import pytest


def test_table_and_picture(tmp_path, capsys):
    picture = tmp_path / "boundary.png"
    assert boundary.main(["--rows", "100", "--plot", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(" yes " in line for line in lines) == 5
    assert sum(" no " in line for line in lines) == 3
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_bad_usage(capsys):
    with pytest.raises(SystemExit) as caught:
        boundary.main(["--rows", "3"])
    assert caught.value.code == 2
    assert "--rows: must be 50 or more, got 3" in capsys.readouterr().err
