"""What image files say beside their pixels: it may be damaged while the pixels are good.

Decoders give up a whole file for one wrong byte of a colour profile, a comment or a date. Without
these parts the same file is read.
"""

from __future__ import annotations

import zlib

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_COMMENT, _ADOBE, _EXIF, _SCAN = 0xFE, 0xEE, 0xE1, 0xDA  # markers of JPEG


def without_metadata(data: bytes) -> bytes:
    """Takes all out of a PNG or JPEG file that its pixels do not need, but whole EXIF.

    Args:
        data: a file; one of another format comes back as it is.

    Returns:
        The same pixels, transparency and, if it can be read, orientation.

    Reference:
        https://www.w3.org/TR/png-3/, section 5.3; ITU-T T.81, section B.1.1.
    """
    if data.startswith(PNG):
        return _png(data)
    return _jpeg(data) if data.startswith(JPEG) else data


def _png(data: bytes) -> bytes:
    kept, at = [PNG], len(PNG)
    while at + 12 <= len(data):  # length, name, content, checksum
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        name, checksum = data[at + 4 : at + 8], zlib.crc32(data[at + 4 : end - 4])
        whole = data[end - 4 : end] == checksum.to_bytes(4, "big")
        # A capital marks what is needed; of that, a damaged checksum means damaged pixels.
        if name[:1].isupper() or name == b"tRNS" or (name == b"eXIf" and whole):
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _jpeg(data: bytes) -> bytes:
    kept, at = [JPEG], len(JPEG)
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _SCAN:
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        # Adobe's segment, if it is whole, tells how the colours are meant.
        needed = marker == _EXIF or (marker == _ADOBE and end - at >= 16)
        if needed or not (0xE0 <= marker <= 0xEF or marker == _COMMENT):
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])
