"""Files that appear whole or not at all, written by several programs at once."""

import os
from types import SimpleNamespace

from espnet2_avsr_llm.data.atomic import atomic_path, remove_leftovers


def test_equal_process_ids_on_two_machines_do_not_meet(tmp_path, monkeypatch):
    with atomic_path(tmp_path / "a") as here:
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename="elsewhere"))
        with atomic_path(tmp_path / "a") as there:
            assert here != there
            there.write_text("there")
        here.write_text("here")
    assert (tmp_path / "a").read_text() == "here" and os.listdir(tmp_path) == ["a"]


def test_leftovers_are_the_temporary_files_alone(tmp_path):
    for name in ("a", ".hidden", "b.tmp"):
        (tmp_path / name).touch()
    with atomic_path(tmp_path / "a") as temporary:
        left = tmp_path / temporary.name.replace(str(os.getpid()), "1")
        left.touch()
        temporary.touch()
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "a", "b.tmp"]
