"""The file of a model: weights and a JSON document in one safetensors file, sealed with SHA-256.

Why one safetensors file and not a zip of several: it is read with one ``read`` and no decompression, its format has
nothing that could run code or name a path outside itself, and one rename makes it whole. Everything that is not a
weight is one canonical JSON text in the header, so that the same network gives the same bytes.

The hashes find damage and careless edits. They are no signature: whoever rewrites a file on purpose can rewrite its
hashes too. Compare :attr:`Contents.sha256` with the one its author states where that matters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from modalift.errors import ModaliftError
from modalift.files import write_beside

FORMAT = "modalift-model/1"
_KEY = "modalift"
#: A document is some kilobytes; a header beyond this is no bundle's, and parsing it would only cost memory.
_HEADER_LIMIT = 32 * 2**20
_REMAKE = "make it again with `modalift ship RUN -o x.modalift`"
_CODE = f"which can run code when opened; it was not opened - {_REMAKE}"
#: First bytes of files that people hand in by mistake, or by malice.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", f"is a zip file (a torch checkpoint?), {_CODE}"),
    *((b"\x80" + bytes([p]), f"is a Python pickle (a torch checkpoint?), {_CODE}") for p in range(1, 6)),
    (b"\x1f\x8b", f"is a gzip archive, not a bundle - unpack it or {_REMAKE}"),
    (b"version https://git-lfs", "is a Git LFS pointer, not the bundle itself - run `git lfs pull`"),
    (b"<", f"is a web page or XML, not a bundle - download it again, or {_REMAKE}"),
)


@dataclass(frozen=True)
class Contents:
    """What a sealed file holds.

    Attributes:
        tensors: name -> tensor.
        document: the JSON document, without its seal.
        sha256: 64 hex digits that depend on every weight and every word of the document.
    """

    tensors: dict[str, Tensor]
    document: dict[str, Any]
    sha256: str


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of names.

    Example:
        >>> hash_tensors({"a": torch.zeros(2)}) == hash_tensors({"a": torch.zeros(1, 2)})
        False
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _canonical(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _parse(text: str | bytes) -> Any:
    return json.loads(text, parse_constant=_refuse_constant)


def is_bundle(path: Path) -> bool:
    """Whether a file looks like a bundle (of any format version, whole or damaged), from its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    return head[8:9] == b"{" and b'"' + _KEY.encode() + b'"' in head


def write(path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> str:
    """Seals tensors and a JSON document into one file, and reads it back before it gets its name.

    Returns:
        The seal, as :attr:`Contents.sha256`.

    Raises:
        ModaliftError: the document holds something that is not plain JSON, ``path`` holds something else than a
            bundle, or it cannot be written.
    """
    if path.is_file() and path.stat().st_size and not is_bundle(path):
        raise ModaliftError(f"{path}: exists and is not a bundle - choose another name")
    # Copies: networks may share storage between weights, which the format does not allow.
    own = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    body = {**document, "format": FORMAT, "weights_sha256": hash_tensors(own)}
    try:
        body = _parse(_canonical(body))
        seal = hashlib.sha256(_canonical(body).encode()).hexdigest()
    except (TypeError, ValueError, RecursionError) as error:
        raise ModaliftError(f"{path}: its description is not plain JSON ({error}) - use text, numbers, lists and"
                            " dictionaries") from None
    data = save_tensors(own, {_KEY: _canonical({**body, "sha256": seal})})

    def put(beside: Path) -> None:
        beside.write_bytes(data)
        if read(beside).sha256 != seal:
            raise ModaliftError(f"{path}: does not read back as it was written - check the disk")

    write_beside(path, put)
    return seal


def read(path: Path) -> Contents:
    """The contents of a sealed file; nothing in it is executed, and nothing damaged gets through.

    Raises:
        ModaliftError: the file is missing, empty, no bundle, of another format version, truncated, or its contents do
            not match their hashes.
    """
    data = _bytes(path)
    document, seal = _sealed(path, _header(path, data))
    try:
        tensors = load_tensors(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModaliftError(f"{path}: its weights cannot be read ({_short(error)}): it is damaged or truncated -"
                            f" download it again, or {_REMAKE}") from None
    if hash_tensors(tensors) != document.pop("weights_sha256", None):
        raise ModaliftError(f"{path}: its weights do not match their SHA-256: they were damaged or changed -"
                            f" download it again, or {_REMAKE}")
    return Contents(tensors, document, seal)


def read_document(path: Path) -> dict[str, Any]:
    """The JSON document alone, checked against its seal, without reading the weights.

    Raises:
        ModaliftError: as :func:`read`, but for damage among the weights, which is not looked for.
    """
    document, _ = _sealed(path, _header(path, _bytes(path, header_only=True), path.stat().st_size))
    document.pop("weights_sha256", None)
    return document


def _sealed(path: Path, header: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The document of a header, and its seal, which must be the stated one."""
    document = _document(path, header)
    stated = document.pop("sha256", None)
    try:
        seal = hashlib.sha256(_canonical(document).encode()).hexdigest()
    except (ValueError, RecursionError):  # lone surrogates, absurd nesting: nothing that `write` makes
        seal = ""
    if not seal or stated != seal:
        raise ModaliftError(f"{path}: its description does not match its SHA-256: it was damaged or changed -"
                            f" download it again, or {_REMAKE}")
    return document, seal


def _bytes(path: Path, header_only: bool = False) -> bytes:
    if path.is_dir():
        raise ModaliftError(f"{path}: is a folder, not a bundle - `modalift ship {path} -o x.modalift` makes one of a"
                            " run")
    if not path.exists():
        raise ModaliftError(f"{path}: no such file - check the path, or {_REMAKE}")
    if not path.is_file():
        raise ModaliftError(f"{path}: is not a regular file - name a bundle")
    try:
        with path.open("rb") as file:
            head = file.read(64)
            if not head:
                raise ModaliftError(f"{path}: is empty (0 bytes) - {_REMAKE}")
            # A safetensors file starts with a number, whose bytes may be anyone's magic: the brace tells it apart.
            for magic, what in _OTHERS if head[8:9] != b"{" else ():
                if head.startswith(magic):
                    raise ModaliftError(f"{path}: {what}")
            if header_only:
                return head + file.read(max(0, min(int.from_bytes(head[:8], "little"), _HEADER_LIMIT) + 8 - len(head)))
            return head + file.read()
    except OSError as error:
        raise ModaliftError(f"{path}: cannot be read ({error.strerror}) - check its permissions") from None


def _header(path: Path, data: bytes, size: int | None = None) -> dict[str, Any]:
    """The header of a file whose first (or all) bytes are ``data``; ``size`` is that of the whole file."""
    length, size = int.from_bytes(data[:8], "little"), len(data) if size is None else size
    if len(data) < 10 or data[8:9] != b"{" or length > _HEADER_LIMIT:
        raise ModaliftError(f"{path}: is not a Modalift bundle - {_REMAKE}")
    if length > len(data) - 8:
        raise ModaliftError(f"{path}: is truncated ({size} bytes, its header alone needs {length + 8}) - download"
                            f" it again, or {_REMAKE}")
    try:
        header = _parse(data[8:8 + length])
        ends = [int(v["data_offsets"][1]) for k, v in header.items() if k != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise ModaliftError(f"{path}: its header cannot be read: it is damaged or no bundle - {_REMAKE}") from None
    if 8 + length + max(ends, default=0) > size:
        raise ModaliftError(f"{path}: is truncated ({size} of {8 + length + max(ends)} bytes) - download it again,"
                            f" or {_REMAKE}")
    return dict(header)


def _document(path: Path, header: dict[str, Any]) -> dict[str, Any]:
    notes = header.get("__metadata__")
    notes = notes if isinstance(notes, dict) else {}
    if _KEY not in notes:
        raise ModaliftError(f"{path}: is a safetensors file of plain weights, not a bundle - {_REMAKE}")
    try:
        document = _parse(notes[_KEY])
        version = document["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModaliftError(f"{path}: its description cannot be read: it is damaged - download it again, or {_REMAKE}"
                            ) from None
    if version != FORMAT:
        raise ModaliftError(f"{path}: has the format {str(version)[:40]!r}; this Modalift reads {FORMAT!r} - install"
                            " the Modalift that made it, or ship the network again")
    return dict(document)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
