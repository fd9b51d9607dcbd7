"""Atomic writing: what another process left is removed when nobody writes to it any more, on every system."""

from __future__ import annotations

import os
import time

from modalift.files import ABANDONED_S, write_text


def test_an_incomplete_file_is_removed_once_nobody_writes_to_it(tmp_path):
    old, fresh, other = (tmp_path / name for name in (".a.txt.1.part", f".a.txt.{os.getppid()}.part", ".b.txt.1.part"))
    for path in (old, fresh, other):
        path.write_text("half")
    long_ago = time.time() - ABANDONED_S - 5
    for path in (old, other):
        os.utime(path, (long_ago, long_ago))
    write_text(tmp_path / "a.txt", "whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([fresh.name, other.name, "a.txt"])
    assert (tmp_path / "a.txt").read_text() == "whole"
