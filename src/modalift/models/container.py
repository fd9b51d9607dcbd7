"""The file of a model: weights and a JSON document in one safetensors file, sealed with SHA-256.

Why one safetensors file and not a zip of several: it is read with one ``read`` and no decompression, its format has
nothing that could run code or name another path, and one rename makes the write atomic. Everything that is not a
weight is one canonical JSON text in the header, so that the same network gives the same bytes.

The seal is the SHA-256 of the document, which holds the SHA-256 of the weights. It finds damage and accidental edits.
It is not a signature: an attacker can compute it anew. Where that matters, compare :attr:`Contents.sha256` with the
value that the author published.
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
from modalift.files import exists, is_file, is_folder, read_bytes, write_beside

FORMAT = "modalift-model/1"
_KEY = "modalift"
#: Largest header in bytes: a bundle's has some kilobytes, and parsing a larger one would exhaust the memory.
_HEADER_LIMIT = 32 * 2**20
_REMAKE = "make it again with `modalift ship RUN -o x.modalift` (a file in a run's models/: with `modalift train RUN`)"
_CODE = f"which can run code when opened; it was not opened - {_REMAKE}"
#: First bytes of other kinds of files, and what they are.
_OTHER_FORMATS: tuple[tuple[bytes, str], ...] = (
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
        document: the JSON document, without its hashes.
        sha256: the seal, 64 hex digits that depend on every weight and every value of the document.
    """

    tensors: dict[str, Tensor]
    document: dict[str, Any]
    sha256: str


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of tensors, sorted by name.

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
    """Whether the first bytes of a file are those of a bundle, of any format version, intact or damaged."""
    try:
        head = read_bytes(path, most=4096)
    except ModaliftError:
        return False
    return head[8:9] == b"{" and b'"' + _KEY.encode() + b'"' in head


def is_whole(path: Path) -> bool:
    """Whether a file is there and everything in it is as it was written."""
    try:
        read(path)
    except ModaliftError:
        return False
    return True


def write(path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> str:
    """Writes tensors and a JSON document as one sealed file, and verifies it before it replaces an older one.

    Returns:
        The seal; see :attr:`Contents.sha256`.

    Raises:
        ModaliftError: the document is not plain JSON, ``path`` is a file that is not a bundle, or it cannot be
            written.
    """
    if is_file(path) and path.stat().st_size and not is_bundle(path):
        raise ModaliftError(f"{path}: exists and is not a bundle - remove it, or choose another name")
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

    def write_and_verify(temporary: Path) -> None:
        temporary.write_bytes(data)
        if read(temporary).sha256 != seal:
            raise ModaliftError(f"{path}: reads back differently than it was written - check the disk")

    write_beside(path, write_and_verify)
    return seal


def read(path: Path) -> Contents:
    """Reads and verifies a sealed file; nothing in it is executed.

    Raises:
        ModaliftError: the file is missing, empty, not a bundle, of another format version, truncated, or its
            contents do not match their hashes.
    """
    data = _read_bytes(path)
    document, seal = _verified(path, _header(path, data))
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
    """Reads the JSON document alone and verifies its seal, without reading the weights.

    Raises:
        ModaliftError: as :func:`read`, except that damage of the weights is not detected.
    """
    document, _ = _verified(path, _header(path, _read_bytes(path, header_only=True), path.stat().st_size))
    document.pop("weights_sha256", None)
    return document


def read_weights_hash(path: Path) -> str:
    """SHA-256 of the weights in a file, from its verified document: a run's model and the bundle made of it have the same.

    Raises:
        ModaliftError: as :func:`read_document`.
    """
    document, _ = _verified(path, _header(path, _read_bytes(path, header_only=True), path.stat().st_size))
    return str(document.get("weights_sha256", ""))


def _verified(path: Path, header: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The document of a header and its seal, which must equal the stored one."""
    document = _document(path, header)
    stored = document.pop("sha256", None)
    try:
        seal = hashlib.sha256(_canonical(document).encode()).hexdigest()
    except (ValueError, RecursionError):  # lone surrogates or deep nesting, which `write` never makes
        seal = ""
    if not seal or stored != seal:
        raise ModaliftError(f"{path}: its description does not match its SHA-256: it was damaged or changed -"
                            f" download it again, or {_REMAKE}")
    return document, seal


def _read_bytes(path: Path, header_only: bool = False) -> bytes:
    if is_folder(path):
        raise ModaliftError(f"{path}: is a folder, not a bundle - `modalift ship {path} -o x.modalift` makes one from"
                            " a run")
    if not exists(path):
        raise ModaliftError(f"{path}: no such file - check the path, or {_REMAKE}")
    if not is_file(path):
        raise ModaliftError(f"{path}: is not a regular file - give a bundle")
    try:
        with path.open("rb") as file:
            head = file.read(64)
            if not head:
                raise ModaliftError(f"{path}: is empty (0 bytes) - {_REMAKE}")
            # A safetensors file starts with its header's length, which may equal another format's magic bytes.
            for magic, what in _OTHER_FORMATS if head[8:9] != b"{" else ():
                if head.startswith(magic):
                    raise ModaliftError(f"{path}: {what}")
            if header_only:
                return head + file.read(max(0, min(int.from_bytes(head[:8], "little"), _HEADER_LIMIT) + 8 - len(head)))
            return head + file.read()
    except OSError as error:
        raise ModaliftError(f"{path}: cannot be read ({error.strerror}) - check its permissions") from None


def _header(path: Path, data: bytes, size: int | None = None) -> dict[str, Any]:
    """The safetensors header in the first bytes of a file; ``size`` is the file's size where ``data`` is only its start."""
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
        raise ModaliftError(f"{path}: its header cannot be read: it is damaged or not a bundle - {_REMAKE}") from None
    if 8 + length + max(ends, default=0) > size:
        raise ModaliftError(f"{path}: is truncated ({size} of {8 + length + max(ends)} bytes) - download it again,"
                            f" or {_REMAKE}")
    return dict(header)


def _document(path: Path, header: dict[str, Any]) -> dict[str, Any]:
    metadata = header.get("__metadata__")
    metadata = metadata if isinstance(metadata, dict) else {}
    if _KEY not in metadata:
        raise ModaliftError(f"{path}: is a safetensors file of plain weights, not a bundle - {_REMAKE}")
    try:
        document = _parse(metadata[_KEY])
        version = document["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModaliftError(f"{path}: its description cannot be read: it is damaged - download it again, or {_REMAKE}"
                            ) from None
    if version != FORMAT:
        raise ModaliftError(f"{path}: has the format {str(version)[:40]!r}; this Modalift reads {FORMAT!r} - install"
                            " the version that made it, or ship the network again")
    return dict(document)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
