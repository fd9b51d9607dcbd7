"""The sealed file: whatever is done to it, reading gives the same contents or a one-line error."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

import modalift as ml
from modalift.errors import ModaliftError
from modalift.models import container


class Bomb:
    """Unpickling it would create a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.mark),))


def refused(path: Path) -> str:
    with pytest.raises(ModaliftError) as caught:
        ml.load(path)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    assert " - " in line, "the message says what to do"
    return line


def test_same_input_same_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(3)}
    for name in ("one", "two"):
        container.write(tmp_path / name, tensors, {"z": [1, 2.5, None, "é"], "a": {"q": True}})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    found = container.read(tmp_path / "one")
    assert torch.equal(found.tensors["b"], tensors["b"])
    assert found.document == {"z": [1, 2.5, None, "é"], "a": {"q": True}, "format": container.FORMAT}


def test_the_seal_depends_on_weights_and_document(tmp_path: Path) -> None:
    one = torch.ones(2)
    seals = {container.write(tmp_path / "x", {"a": t}, d)
             for t, d in ((one, {"k": 1}), (one, {"k": 2}), (one * 2, {"k": 1}), (one.half(), {"k": 1}))}
    assert len(seals) == 4


@pytest.mark.parametrize("length", range(600, 700))
def test_headers_of_any_length_are_distinguished_from_other_formats(tmp_path: Path, length: int) -> None:
    # The length is the first number of the file; 0x0280 would be the first bytes of a pickle.
    container.write(tmp_path / "x", {"a": torch.ones(1)}, {"k": "x" * (length - 300)})
    container.read(tmp_path / "x")


@pytest.mark.parametrize(("content", "words"), [
    (b"", "empty"),
    (b"hello", "not a Modalift bundle"),
    (b"\x1f\x8b" + b"0" * 64, "gzip"),
    (b"<!DOCTYPE html><title>404", "web page"),
    (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    (b"\xff" * 7 + b"\x7f" + b"{" * 64, "not a Modalift bundle"),
    ((1 << 20).to_bytes(8, "little") + b'{"a":', "truncated"),
    ((40).to_bytes(8, "little") + b"{" * 40, "header cannot be read"),
    ((200_002).to_bytes(8, "little") + b"{" + b"[" * 200_000 + b"}", "header cannot be read"),
    ((2).to_bytes(8, "little") + b"{}", "plain weights"),
    ((64).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}         ', "truncated"),
])
def test_files_of_other_formats_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.modalift"
    path.write_bytes(content)
    assert words in refused(path)


def test_missing_and_folder(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.modalift")
    assert "folder" in refused(tmp_path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_in_disguise_is_not_opened(tmp_path: Path, protocol: int) -> None:
    path, mark = tmp_path / "x.modalift", tmp_path / "mark"
    path.write_bytes(pickle.dumps(Bomb(mark), protocol=protocol))
    assert "pickle" in refused(path)
    assert not mark.exists()


def test_a_torch_checkpoint_in_disguise_is_not_opened(tmp_path: Path) -> None:
    path, mark = tmp_path / "x.modalift", tmp_path / "mark"
    torch.save({"state_dict": Bomb(mark)}, path)
    assert "zip file" in refused(path)
    assert not mark.exists()


def test_plain_weights_are_distinguished_from_a_bundle(tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    path.write_bytes(save({"a": torch.ones(1)}, {"format": "pt"}))
    assert "plain weights, not a bundle" in refused(path)


def test_another_version_is_named(tmp_path: Path, whole: Path) -> None:
    path = tmp_path / "x.modalift"
    path.write_bytes(whole.read_bytes().replace(b"modalift-model/1", b"modalift-model/7"))
    assert "modalift-model/7" in refused(path)


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3, 0.9, 0.9999])
def test_truncated(tmp_path: Path, whole: Path, share: float) -> None:
    data, path = whole.read_bytes(), tmp_path / "x.modalift"
    path.write_bytes(data[: max(1, int(len(data) * share))])
    refused(path)


def test_longer_than_its_header_says(tmp_path: Path, whole: Path) -> None:
    path = tmp_path / "x.modalift"
    path.write_bytes(whole.read_bytes() + b"\0")
    refused(path)


def _same(path: Path, whole: Path) -> bool:
    """Whether a file is refused, or gives exactly the contents of the intact one."""
    try:
        found = container.read(path)
    except ModaliftError:
        return True
    good = container.read(whole)
    return (found.document == good.document and found.tensors.keys() == good.tensors.keys()
            and all(torch.equal(found.tensors[k], v) for k, v in good.tensors.items()))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_changed_bytes_are_refused_or_change_nothing(tmp_path: Path, whole: Path, data: st.DataObject) -> None:
    content = bytearray(whole.read_bytes())
    header = int.from_bytes(content[:8], "little") + 8
    region = data.draw(st.sampled_from([(0, 8), (8, header), (header, len(content))]))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(region[0], region[1] - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "changed.modalift"
    path.write_bytes(content)
    assert _same(path, whole)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=300))
def test_noise_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "noise.modalift"
    path.write_bytes(content)
    refused(path)


def test_every_weight_and_value_is_sealed(tmp_path: Path, whole: Path) -> None:
    content = whole.read_bytes()
    path = tmp_path / "x.modalift"
    for old, new in ((b'"stop"', b'"atop"'), (b"0.8", b"0.9"), (b"frames", b"framez"),
                     (b"head.fc.bias", b"head.fc.bjas")):
        for text in (old, old.replace(b'"', b'\\"')):
            if text in content:
                path.write_bytes(content.replace(text, new.replace(b'"', b'\\"') if b"\\" in text else new, 1))
                refused(path)
                break
        else:
            pytest.fail(f"{old!r} is not in the file")


def test_what_is_not_json_is_not_written(tmp_path: Path) -> None:
    for value in (np.float32(1), float("nan"), {1, 2}, Path("x"), "\ud800"):
        with pytest.raises(ModaliftError, match="plain JSON"):
            container.write(tmp_path / "x", {}, {"k": value})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_older_bundle(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.modalift"
    path.write_bytes(whole.read_bytes())

    def full(self: Path, data: bytes) -> int:
        with io.FileIO(str(self), "w") as file:
            file.write(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ModaliftError, match="the disk is full"):
        container.write(path, {"a": torch.ones(3)}, {})
    monkeypatch.undo()
    assert path.read_bytes() == whole.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["x.modalift"]


def test_only_bundles_are_replaced(tmp_path: Path, whole: Path) -> None:
    clip, old = tmp_path / "clip.mp4", tmp_path / "old.modalift"
    clip.write_bytes(b"precious")
    with pytest.raises(ModaliftError, match="not a bundle"):
        container.write(clip, {}, {})
    assert clip.read_bytes() == b"precious"
    old.write_bytes(whole.read_bytes())
    container.write(old, {}, {"k": 1})
    assert container.read(old).document["k"] == 1


def test_missing_folders_are_made_and_a_folder_is_never_replaced(tmp_path: Path) -> None:
    container.write(tmp_path / "new" / "x.modalift", {}, {})
    assert (tmp_path / "new" / "x.modalift").is_file()
    with pytest.raises(ModaliftError, match="folder"):
        container.write(tmp_path, {}, {})


def test_the_document_is_plain_json_text(whole: Path) -> None:
    data = whole.read_bytes()
    header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
    assert json.loads(header["__metadata__"]["modalift"])["provenance"]["run"] == "r1"
