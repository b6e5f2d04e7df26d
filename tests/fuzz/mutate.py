"""Bytes that are nearly right: flipped, cut, doubled, moved, with numbers that are too long and characters that are not text."""

from __future__ import annotations

_BITS = (
    b"9" * 400,
    b"9" * 5000,
    b"-1",
    b"0",
    b"1e309",
    b"NaN",
    b"null",
    b"\0",
    b"\xff\xfe",
    b"\r",
    b"\n",
    b"\n\n",
    b" ",
    b":",
    b"[",
    b"{",
    b'"',
    b"\\",
)
_MORE = ("\u0663".encode(), "\u202e".encode(), "\u2028".encode(), b"\x1b[2J", b"2147483648", b"18446744073709551616", b"../", b"://")


def mutated(data, chance):
    """`data` with one to six changes."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        _change(found, chance)
    return bytes(found)


def _change(found, chance):
    at = chance.randint(0, len(found))
    to = min(len(found), at + chance.choice((1, 1, 2, 8, 40, 300)))
    match chance.randrange(7):
        case 0 if at < len(found):
            found[at] ^= 1 << chance.randrange(8)
        case 1:
            del found[at:to]
        case 2:
            found[at:at] = found[at:to]
        case 3:
            found[at:to] = chance.choice(_BITS + _MORE)
        case 4:
            found[at:at] = chance.choice(_BITS + _MORE)
        case 5:
            del found[at:]
        case _:
            piece, place = bytes(found[at:to]), chance.randint(0, len(found))
            del found[at:to]
            found[place:place] = piece
