"""The decoder under atheris, which sees what each input reaches: `python -m tests.security.fuzz_decoder CORPUS`.

Takes the options of libFuzzer. Any error but SampleRejected, a crash, a hang or too much memory ends it with a failure.
"""

import sys

import atheris

with atheris.instrument_imports(include=["service.face", "PIL"]):
    from service.errors import SampleRejected
    from service.face.image import ImageLimits, decode

_LIMITS = ImageLimits(max_bytes=100_000, max_pixels=1_000_000, max_decode_s=1.0)


def decode_one(data: bytes) -> None:
    try:
        pixels = decode(data, _LIMITS)
    except SampleRejected:
        return
    assert pixels.ndim == 3


if __name__ == "__main__":
    atheris.Setup(sys.argv, decode_one)
    atheris.Fuzz()
