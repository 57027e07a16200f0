"""Whether a JPEG without its end marker has all of its pixels, which a decoder that fills gaps does not tell."""

import struct

END = b"\xff\xd9"
# Put behind the last byte of a file that was cut inside its pixels, each is decoded to other ones.
PADDINGS = (b"", b"\x00" * 64, b"\x55" * 64, b"\xa7\x3c\x91\xe2" * 16)
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))  # TEM, restart markers and the start of an image
_FRAMES = tuple(code for code in range(0xC0, 0xD0) if code not in (0xC4, 0xC8, 0xCC))
_SCAN = 0xDA
_COEFFICIENTS = 64


def has_all_scans(content: bytes) -> bool:
    """Whether scans began for every coefficient of every component, down to its last bit (ITU-T T.81, B.2.2, B.2.3)."""
    missing: dict[int, set[int]] = {}  # coefficients by component
    at = 2
    while 0 <= at <= len(content) - 4:
        marker, code, length = struct.unpack_from(">BBH", content, at)
        if marker != 0xFF:
            return False
        if code == 0xFF or code in _WITHOUT_LENGTH:
            at += 1 if code == 0xFF else 2
            continue
        body = content[at + 4 : at + 2 + length]
        if code in _FRAMES:
            missing = {body[6 + 3 * index]: set(range(_COEFFICIENTS)) for index in range(body[5])}
        at += 2 + length
        if code == _SCAN:
            components = [body[1 + 2 * index] for index in range(body[0])]
            first, last, bits = body[-3:]
            for component in components:
                if bits & 0xF == 0:
                    missing.get(component, set()).difference_update(range(first, last + 1))
            at = _next_marker(content, at)
    return bool(missing) and not any(missing.values())


def _next_marker(content: bytes, at: int) -> int:
    """Where the marker after a scan's data is; -1 at the end of the file."""
    while (at := content.find(b"\xff", at)) >= 0 and at + 1 < len(content):
        if content[at + 1] not in (0x00, *range(0xD0, 0xD8)):
            return at
        at += 2
    return -1
