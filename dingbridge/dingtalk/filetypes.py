"""What a downloaded file is, by its bytes first and its name second.

Documents are those that AnythingLLM's collector reads (its list of accepted types); a name alone proves nothing.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePath

from dingbridge.model import Attachment

MAX_NAME = 80

_OFFICE = "application/vnd.openxmlformats-officedocument."
_ZIPPED = {
    ".docx": (b"word/", _OFFICE + "wordprocessingml.document"),
    ".xlsx": (b"xl/", _OFFICE + "spreadsheetml.sheet"),
    ".pptx": (b"ppt/", _OFFICE + "presentationml.presentation"),
    ".odt": (b"mimetypeapplication/vnd.oasis.opendocument.text", "application/vnd.oasis.opendocument.text"),
    ".epub": (b"mimetypeapplication/epub+zip", "application/epub+zip"),
}
_TEXTS = {
    ".txt": "text/plain",
    ".log": "text/plain",
    ".md": "text/plain",
    ".csv": "text/csv",
    ".html": "text/html",
    ".htm": "text/html",
    ".json": "application/json",
}
# The collector goes by the extension; these it does not know, their twins it does.
_TWINS = {".htm": ".html", ".log": ".txt"}
_EXTENSIONS = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "image/bmp": ".bmp",
}
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def is_picture(mime: str) -> bool:
    return mime.startswith("image/")


def picture_type(content: bytes) -> str:
    """The type of a picture that models can look at; "" for anything else."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "image/webp"
    # "BM" alone also begins a text; the length of the file follows, and a header of a known length.
    is_bitmap = content.startswith(b"BM") and content[14:18] in (b"\x28\0\0\0", b"\x6c\0\0\0", b"\x7c\0\0\0")
    return "image/bmp" if is_bitmap else ""


def picture(name: str, content: bytes) -> Attachment | None:
    """None where it is no picture."""
    mime = picture_type(content)
    if not mime:
        return None
    stem, _ = _parts_of(name)
    return Attachment((stem or "picture") + _EXTENSIONS[mime], mime, content)


def document(name: str, content: bytes) -> Attachment | None:
    """None where it is none that can be read, or not what its name says. A picture sent as a file is one, too.

    Texts become UTF-8: as GBK, or UTF-16, the collector would read them as noise.
    """
    if (found := picture(name, content)) is not None:
        return found
    stem, extension = _parts_of(name)
    mime = ""
    if extension == ".pdf" and b"%PDF-" in content[:1024]:
        mime = "application/pdf"
    elif extension in _ZIPPED and content.startswith(b"PK\x03\x04"):
        mark, mime = _ZIPPED[extension]
        mime = mime if mark in content else ""
    elif extension in _TEXTS and (text := _decoded(content)) is not None:
        mime, content = _TEXTS[extension], text.encode()
    return Attachment((stem or "file") + _TWINS.get(extension, extension), mime, content) if mime else None


def _decoded(content: bytes) -> str | None:
    """A text in one of the encodings of Chinese office computers; None for bytes that are none."""
    encodings = ["utf-16"] if content.startswith((b"\xff\xfe", b"\xfe\xff")) else ["utf-8-sig", "gb18030"]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        return None if _CONTROLS.search(text) or not text.strip() else text
    return None


def _parts_of(name: str) -> tuple[str, str]:
    """Stem and extension (lower case) of a name that may come from any system, or from somebody who means harm."""
    bare = re.split(r"[/\\]", name)[-1]
    seen = "".join(one for one in bare if unicodedata.category(one)[0] != "C" and one not in '<>:"|?*')
    path = PurePath(seen.strip(" ."))
    return path.stem[:MAX_NAME].strip(" ."), path.suffix.lower()[:10]
