"""Files of a checkpoint with Hadoop's checksum beside them on a local disk, as Spark writes and checks its own.

Format of `.<name>.crc`: `crc`, a zero byte, bytes for each sum, then the CRC-32 of each part.
"""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress

from pipelines.lake.storage.protocol import Storage, read_if_there

_PART = 512


def read_checked(storage: Storage, name: str) -> bytes:
    """Read a file; raises ValueError with half a sentence where it is not what its checksum says, FileNotFoundError."""
    content = storage.read(name)
    checksum = None if storage.abilities.checksums else read_if_there(storage, checksum_of(name))
    if checksum is not None and not fits_checksum(content, checksum):
        msg = "differs from Hadoop's checksum beside it"
        raise ValueError(msg)
    return content


def create_checked(storage: Storage, name: str, content: bytes) -> None:
    """Create a file, then its checksum: a crash between the two leaves a file that nothing guards. Raises FileExistsError."""
    storage.create(name, content)
    if not storage.abilities.checksums:
        with suppress(FileExistsError):
            storage.create(checksum_of(name), _checksum(content))


def checksum_of(name: str) -> str:
    """Name of the file with the checksum of `name`."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/.{file}.crc".lstrip("/")


def fits_checksum(content: bytes, checksum: bytes) -> bool:
    """Tell whether `content` is what the checksum was made of."""
    if len(checksum) < 8 or not checksum.startswith(b"crc\0"):
        return False
    (size,) = struct.unpack(">i", checksum[4:8])
    return checksum[8:] == _sums(content, max(size, 1))


def _checksum(content: bytes) -> bytes:
    return b"crc\0" + struct.pack(">i", _PART) + _sums(content, _PART)


def _sums(content: bytes, size: int) -> bytes:
    parts = (content[start : start + size] for start in range(0, len(content), size))
    return b"".join(struct.pack(">I", zlib.crc32(part)) for part in parts)
