"""Decompress files block by block. The first bytes tell the compression, never the file's name."""

from __future__ import annotations

import bz2
import lzma
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import IO, Any, Literal

import zstandard

from deita_tasks.errors import InputError
from deita_tasks.loading.base import BrokenFile

Compression = Literal["none", "gzip", "bzip2", "xz", "zstd"]

BLOCK_BYTES = 1 << 20
MAX_WINDOW_BYTES = 128 << 20  # what zstd's own command line allows; xz -9 needs 65 MiB
# A byte of zstd can expand to 32 KiB, and the decoder returns all that its input holds at once.
ZSTD_STEP_BYTES = 1 << 8
# Larger output than both is refused as a decompression bomb. Text compresses to a fifth; a file of
# one repeated row to a fiftieth or a hundredth.
BOMB_BYTES = 256 << 20
BOMB_RATIO = 500

MAGIC: tuple[tuple[bytes, Compression], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"(\xb5/\xfd", "zstd"),
    (b"P*M\x18", "zstd"),  # a skippable frame, with which pzstd begins
)

# bz2 raises these two for damage.
DECODING_ERRORS = (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, ValueError)


def detect_compression(head: bytes) -> Compression:
    """Return how a file that begins with `head` is compressed."""
    for magic, compression in MAGIC:
        if head.startswith(magic):
            return compression
    return "none"


def blocks(handle: IO[bytes], compression: Compression) -> Iterator[bytes]:
    """Yield the decompressed content of `handle` in blocks of about a MiB.

    A file may hold several compressed streams one after another. Raises InputError for content that
    expands beyond BOMB_RATIO. Raises BrokenFile if the compressed stream ends early, after all
    bytes before that place, or if it is damaged, after all but the last block before the damage.
    """
    step = BLOCK_BYTES // 8 if compression == "zstd" else BLOCK_BYTES
    streams = None if compression == "none" else _Streams(compression)
    while data := handle.read(step):
        if streams is None:
            yield data
        else:
            yield from streams.feed(data)
    if streams is not None:
        streams.close()


def check_expansion(name: str, bytes_in: int, bytes_out: int, advice: str) -> None:
    """Raise InputError if what `bytes_in` expand to looks like a decompression bomb.

    name: of the compression or container. advice: what to do with a file that is no bomb.
    """
    if bytes_out > BOMB_BYTES and bytes_out > BOMB_RATIO * bytes_in:
        raise InputError(
            f"{bytes_in:,} bytes of {name} expand to over {bytes_out:,}, more than {BOMB_RATIO} "
            f"times as much, like a decompression bomb; if the file is intended, {advice}"
        )


class _Streams:
    """Decodes the compressed streams of one file, one after another."""

    def __init__(self, compression: Compression) -> None:
        self._compression = compression
        self._decoder: _Decoder | None = None  # of the stream that has begun
        self._bytes_in = 0
        self._bytes_out = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what the next `data` of the file decodes to.

        Raises BrokenFile for damage, and InputError for a decompression bomb.
        """
        self._bytes_in += len(data)
        try:
            yield from self._decode(data)
        except DECODING_ERRORS as error:
            raise BrokenFile(
                f"the {self._compression} stream is damaged near byte {self._bytes_in:,} ({error})"
            ) from error

    def close(self) -> None:
        """Check that the last stream has ended. Raises BrokenFile if the file ends within it."""
        if self._decoder is not None:
            raise BrokenFile(
                f"the {self._compression} stream ends early, after {self._bytes_in:,} bytes: the "
                "file is incomplete"
            )

    def _decode(self, data: bytes) -> Iterator[bytes]:
        """Yield the blocks that `data` decodes to, with a new decoder for each stream.

        The decoder's own errors pass through. Raises InputError for a decompression bomb.
        """
        while data:
            if self._decoder is None:
                if self._bytes_out:  # xz pads its streams with NULs, tar pads those of gzip
                    data = data.lstrip(b"\0")
                if not data:
                    return
                self._decoder = _DECODERS[self._compression]()
            for block in self._decoder.feed(data):
                self._count(block)
                yield block
            data = b""
            if self._decoder.eof:
                data = self._decoder.unused_data
                self._decoder = None

    def _count(self, block: bytes) -> None:
        """Count a decoded block. Raises InputError if the file looks like a decompression bomb."""
        self._bytes_out += len(block)
        advice = "decompress it yourself"
        check_expansion(self._compression, self._bytes_in, self._bytes_out, advice)


class _Decoder(ABC):
    """A decoder of one compressed stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    @property
    def eof(self) -> bool:
        """Whether the stream has ended; what follows it may be another stream."""
        return bool(self._stream.eof)

    @property
    def unused_data(self) -> bytes:
        """The bytes after the end of the stream."""
        return bytes(self._stream.unused_data)

    @abstractmethod
    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` decodes to, in blocks of limited size."""


class _BoundedDecoder(_Decoder):
    """A decoder of the standard library, which limits its output to BLOCK_BYTES per call."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield blocks of at most BLOCK_BYTES, up to the end of the stream or of `data`."""
        pending: bytes | None = data
        while pending is not None and not self.eof:
            block = self._stream.decompress(pending, BLOCK_BYTES)
            if block:
                yield block
            pending = self._pending(block)

    @abstractmethod
    def _pending(self, block: bytes) -> bytes | None:
        """Return the input to decode after `block` came out; None if all of it is decoded."""


class _Gzip(_BoundedDecoder):
    """One gzip member, with its header and checksum."""

    def __init__(self) -> None:
        super().__init__(zlib.decompressobj(wbits=31))

    def _pending(self, block: bytes) -> bytes | None:
        """Return what zlib hands back unread.

        After a full block it may hold more output even if it has read all its input.
        """
        tail: bytes = self._stream.unconsumed_tail
        return tail if tail or len(block) == BLOCK_BYTES else None


class _KeepingDecoder(_BoundedDecoder):
    """A decoder that keeps the unread input itself."""

    def _pending(self, block: bytes) -> bytes | None:
        """Return b"" while the decoder has output left: it needs no input to go on."""
        return None if self._stream.needs_input else b""


class _Bzip2(_KeepingDecoder):
    """One bzip2 stream; pbzip2 writes files of many."""

    def __init__(self) -> None:
        super().__init__(bz2.BZ2Decompressor())


class _Xz(_KeepingDecoder):
    """One xz stream. One that needs more memory than MAX_WINDOW_BYTES counts as damaged."""

    def __init__(self) -> None:
        super().__init__(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_WINDOW_BYTES))


class _Zstd(_Decoder):
    """It cannot limit its output, so its input is decoded in small steps."""

    def __init__(self) -> None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        super().__init__(decompressor.decompressobj())
        self._unread = b""

    @property
    def unused_data(self) -> bytes:
        """The bytes after the end of the stream, with those of `feed` that no step has reached."""
        return super().unused_data + self._unread

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what each ZSTD_STEP_BYTES of `data` decode to: at most 8 MiB a block."""
        for start in range(0, len(data), ZSTD_STEP_BYTES):
            end = start + ZSTD_STEP_BYTES
            if block := self._stream.decompress(data[start:end]):
                yield block
            if self.eof:
                self._unread = data[end:]
                return


_DECODERS: dict[Compression, Callable[[], _Decoder]] = {
    "gzip": _Gzip,
    "bzip2": _Bzip2,
    "xz": _Xz,
    "zstd": _Zstd,
}
