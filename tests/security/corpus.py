"""What fuzzing begins with: small files, forms and JSON texts, each made here and each of another kind.

What fuzzing ever finds is added by hand, as the few bytes that show it.
"""

import io
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from tests.broken_images import png_chunk
from tests.security.bombs import png
from tests.security.operations import SAMPLE, operations

BOUNDARY = b"x-boundary"

_SIDE_PX = 40


@cache
def images() -> tuple[bytes, ...]:
    """Return pictures of 40 x 32 pixels without a face, in every format that is accepted and several ways of each."""
    return tuple(_images())


def _images() -> Iterator[bytes]:
    down, across = np.mgrid[0:32, 0:_SIDE_PX]
    colours = np.stack([across * 6, down * 7, (across * down) % 256], axis=-1).astype(np.uint8)
    rgb = PillowImage.fromarray(colours)
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "JPEG2000"):
        yield _written(rgb, kind)
    for options in ({"progressive": True}, {"exif": exif.tobytes()}, {"subsampling": 0, "quality": 1}):
        yield _written(rgb, "JPEG", **options)
    yield _written(rgb.convert("CMYK"), "JPEG")
    for mode in ("L", "1", "P", "LA", "RGBA"):
        yield _written(rgb.convert(mode), "PNG")
    yield _written(PillowImage.fromarray(colours[..., 0].astype(np.uint16) * 200), "PNG")
    yield _written(rgb, "PNG", exif=exif.tobytes())
    yield _written(rgb, "WEBP", lossless=True, exif=exif.tobytes())
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield _written(rgb, "TIFF", compression=compression)
    yield _written(PillowImage.fromarray(colours[..., 0].astype(np.float32)), "TIFF")
    yield _written(rgb, "JPEG2000", no_jp2=True, irreversible=True)
    yield png(40, 32, 41 * 32, png_chunk(b"tEXt", b"a\0b") + png_chunk(b"iTXt", b"a\0\0\0\0\0b"))


def _written(image: PillowImage.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@cache
def forms() -> tuple[bytes, ...]:
    """Return bodies of multipart/form-data with the boundary above: whole ones, odd ones, broken ones."""
    fields = {"subject_id": "S-1", "site": "KE-12", "birth_year": "1990", "labels": '{"a": "b"}', "sex": "female"}
    texts = b"".join(_part(name.encode(), value.encode()) for name, value in fields.items())
    sample = _part(b"sample", b"\xff\xd8\xff\xe0", b'; filename="a.jpg"', b"Content-Type: image/jpeg\r\n")
    end = b"--" + BOUNDARY + b"--\r\n"
    return (
        sample + texts + end,
        texts + sample + sample + end,
        sample + texts,
        end,
        b"",
        b"\r\n" * 20 + sample + end,
        _part(b"sample", b"--" + BOUNDARY + b"\r\n\r\n--") + end,
        _part(b"\xff\xfe", b"\xff") + end,
        _part(b"site", b"\0\xc3\x28") + end,
        _part(b"sample", b"", b"; filename*=UTF-8''%0d%0a") + end,
        sample.replace(b"\r\n", b"\n") + end,
        b"--" + BOUNDARY + b"\r\n" + b"A: b\r\n" * 50 + b"\r\nx\r\n" + end,
        b"--" + BOUNDARY + b"\r\nContent-Transfer-Encoding: base64\r\n\r\nQQ==\r\n" + end,
    )


def _part(name: bytes, value: bytes, more: bytes = b"", headers: bytes = b"") -> bytes:
    head = b'Content-Disposition: form-data; name="' + name + b'"' + more + b"\r\n"
    return b"--" + BOUNDARY + b"\r\n" + head + headers + b"\r\n" + value + b"\r\n"


@cache
def json_bodies() -> tuple[tuple[str, str, dict[str, Any]], ...]:
    """Return method, path and body of every operation that takes JSON; but for clients and galleries, which stay."""
    values = {"gallery_id": "default", "encounter_id": "E-1", "case_id": 1, "name": "nobody"}
    found = []
    for operation in operations():
        body = operation.body()
        if body is not None and operation.name not in {"POST /v1/clients", "POST /v1/galleries"}:
            path = operation.path.format(**{name: values.get(name, 1) for name in operation.path_names})
            found.append((operation.method, path, body))
    return tuple(found)


@cache
def json_texts() -> tuple[bytes, ...]:
    """Return texts that readers of JSON have stumbled over."""
    whole = json.dumps({"samples": [SAMPLE], "subject_id": "S-1", "labels": {"a": "b"}}).encode()
    return (
        whole,
        whole.replace(b'"S-1"', b'"\\ud800"'),
        whole.replace(b'"S-1"', b'"\\u0000"'),
        b"\xef\xbb\xbf" + whole,
        whole.decode().encode("utf-16"),
        b'{"birth_year": 1e999}',
        b'{"birth_year": ' + b"9" * 5000 + b"}",
        b'{"birth_year": NaN, "birth_year": Infinity}',
        b'{"labels": ' + b'{"a":' * 300 + b"1" + b"}" * 301,
        b"[" * 3000,
        b'"' + b"\\" * 99,
        b"{}",
        b"null",
        b"",
    )
