"""Pictures: what they claim to measure is read before anything is unfolded, then all is unfolded.

A picture of a few kilobytes may claim a hundred thousand pixels a side. So the head is read alone,
each frame is held against the policy, and only then is the data decoded, to see that it is all
there. Decoding happens in the throw-away child: the decoder is what the attacker aims at.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator

import PIL
from PIL import Image, ImageFile, features

from quarantine.contract import Finding, Policy, Verdict
from quarantine.engines.base import Leaf, Unscannable

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
FRAMES_MAX = 2_000
DECODED_SHARE = 8
"""All frames together may have this many times the pixels of one; more is held, not decoded."""

_TYPES = {
    "image/png", "image/apng", "image/jpeg", "image/pjpeg", "image/gif", "image/webp",
    "image/bmp", "image/x-ms-bmp", "image/x-bmp", "image/tiff",
}  # fmt: skip
_HEADS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\x00", b"MM\x00*")

_SENTENCES = {
    "image.pixels": "It claims more pixels than are let in.",
    "image.frames": "It has more frames, or more pixels in all frames, than are let in.",
    "image.broken": "The picture is damaged, or not of the sort that it seems.",
}


class _Held(Exception):
    """The code of the finding."""


class ImagesEngine:
    """PNG, JPEG, GIF, WebP, BMP and TIFF, every frame. Memory: one decoded frame."""

    name = "images"
    version = (
        f"1; pillow {PIL.__version__}; jpeg {features.version('jpg')}; "
        f"zlib {features.version('zlib')}; webp {features.version('webp')}"
    )

    def wants(self, leaf: Leaf) -> bool:
        """By our detection, or by the head when that says nothing better."""
        if leaf.type in _TYPES:
            return True
        with leaf.path.open("rb") as file:
            head = file.read(12)
        return head.startswith(_HEADS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")

    def examine(self, leaf: Leaf, policy: Policy) -> Iterable[Finding]:
        """Suspicious when too large, too many, or broken. Unscannable when time runs out."""
        deadline = time.monotonic() + policy.seconds_max
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for frame in _frames(leaf, policy, deadline):
                    frame.load()
        except _Held as held:
            code = str(held)
        except Image.DecompressionBombError:
            code = "image.pixels"
        except (OSError, ValueError, SyntaxError, EOFError, KeyError, IndexError, TypeError):
            code = "image.broken"
        except (OverflowError, ZeroDivisionError, RuntimeError):
            code = "image.broken"
        else:
            return []
        return [Finding(self.name, code, Verdict.SUSPICIOUS, _SENTENCES[code], leaf.place)]


def _frames(leaf: Leaf, policy: Policy, deadline: float) -> Iterator[ImageFile.ImageFile]:
    """Each frame, already held against the limits but not yet decoded."""
    # The library warns above its bound and refuses above twice that, in WebP before it takes memory.
    Image.MAX_IMAGE_PIXELS = -(-policy.pixels_max // 2)
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    decoded = 0
    with Image.open(leaf.path, formats=FORMATS) as picture:
        for number in range(FRAMES_MAX + 1):
            if number:
                try:
                    picture.seek(number)
                except EOFError:
                    return
            if number == FRAMES_MAX:
                raise _Held("image.frames")
            width, height = picture.size
            if width * height > policy.pixels_max:
                raise _Held("image.pixels")
            decoded += width * height
            if decoded > DECODED_SHARE * policy.pixels_max:
                raise _Held("image.frames")
            if time.monotonic() > deadline:
                raise Unscannable("The picture took longer than the policy allows.")
            if picture.format == "JPEG":
                # All of the data is read, an eighth of the size is kept: memory, not certainty.
                picture.draft("RGB", (max(1, width // 8), max(1, height // 8)))
            yield picture


# All formats are known from the start: what is asked for by name is otherwise missing or late.
Image.init()
ENGINE = ImagesEngine()
