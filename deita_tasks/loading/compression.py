"""Compressed bytes to bytes, block by block, known by their first bytes and never by a name."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator
from typing import IO, Any, Literal, Protocol

import zstandard

from deita_tasks.errors import InputError
from deita_tasks.loading.base import BrokenFile

Compression = Literal["none", "gzip", "xz", "zstd"]

BLOCK = 1 << 20
MAX_WINDOW = 128 << 20  # what zstd's own command line allows; xz -9 needs 65 MiB
ZSTD_STEP = (
    1 << 8
)  # a byte of zstd can make 32 KiB, and the decoder gives all that its input holds at once
BOMB_BYTES = 256 << 20
BOMB_RATIO = (
    500  # text shrinks to a fifth; a file of one row repeated, to a fiftieth or a hundredth of that
)

MAGIC: tuple[tuple[bytes, Compression], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"(\xb5/\xfd", "zstd"),
    (b"P*M\x18", "zstd"),  # a skippable frame, with which pzstd begins
)


class _Decoder(Protocol):
    eof: bool
    unused_data: bytes

    def feed(self, data: bytes) -> Iterator[bytes]: ...


def compression_of(head: bytes) -> Compression:
    """How a file that begins with `head` is compressed."""
    return next((name for magic, name in MAGIC if head.startswith(magic)), "none")


def blocks(handle: IO[bytes], compression: Compression) -> Iterator[bytes]:
    """The bytes behind `handle`, decompressed, in blocks of about a MiB. Several streams in one
    file are read one after another.

    Raises InputError for what swells beyond BOMB_RATIO, and BrokenFile where the compressed stream
    breaks off, after all the bytes before that place, or is damaged, after all but the last block
    before it.
    """
    if compression == "none":
        while block := handle.read(BLOCK):
            yield block
        return
    read = made = 0
    decoder: _Decoder | None = None
    try:
        while data := handle.read(BLOCK if compression != "zstd" else BLOCK // 8):
            read += len(data)
            while data:
                if decoder is None:
                    data = (
                        data.lstrip(b"\0") if made else data
                    )  # xz pads its streams, tar pads gzip's
                    if not data:
                        break
                    decoder = _DECODERS[compression]()
                for block in decoder.feed(data):
                    made += len(block)
                    if made > BOMB_BYTES and made > BOMB_RATIO * read:
                        raise InputError(
                            f"{read:,} bytes of {compression} make over {made:,}: more than "
                            f"{BOMB_RATIO} times as much, as a "
                            "decompression bomb does; decompress it yourself if it is meant so"
                        )
                    yield block
                data = b""
                if decoder.eof:
                    data, decoder = decoder.unused_data, None
    except (zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise BrokenFile(
            f"the {compression} stream is damaged near byte {read:,} ({error})"
        ) from error
    if decoder is not None:
        raise BrokenFile(
            f"the {compression} stream breaks off after {read:,} bytes: the file is not whole"
        )


class _Gzip:
    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while not self._stream.eof:
            if made := self._stream.decompress(data, BLOCK):
                yield made
            data = self._stream.unconsumed_tail
            if not data and len(made) < BLOCK:
                return

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data


class _Xz:
    def __init__(self) -> None:
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_WINDOW)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while not self._stream.eof:
            if made := self._stream.decompress(data, BLOCK):
                yield made
            data = b""
            if self._stream.needs_input:
                return

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data


class _Zstd:
    def __init__(self) -> None:
        self._stream = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj()
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), ZSTD_STEP):
            if made := self._stream.decompress(data[start : start + ZSTD_STEP]):
                yield made
            if self._stream.eof:
                self._rest = data[start + ZSTD_STEP :]
                return

    @property
    def eof(self) -> bool:
        return bool(self._stream.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._stream.unused_data) + self._rest


_DECODERS: dict[str, Any] = {"gzip": _Gzip, "xz": _Xz, "zstd": _Zstd}
