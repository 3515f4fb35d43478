#!/bin/sh
# Install biodedup and one model pack into a folder. Runs in the first stage of the Dockerfile, and as well outside Docker:
#   deploy/image/build.sh SOURCE PREFIX [PACK]
# PREFIX must stay where it is: the virtual environment in it knows its own path.
set -eu

source=$1
prefix=$2
pack=${3:-opencv-zoo}

mkdir -p "$prefix/app"
for part in service models pyproject.toml requirements.lock README.md LICENSE; do
  cp -R "$source/$part" "$prefix/app/"
done
# fetched below, so that the image is the same whatever this machine had fetched before
rm -f "$prefix"/app/models/*/*.onnx "$prefix"/app/models/*/installed.json

python3 -m venv "$prefix/venv"
"$prefix/venv/bin/python" -m pip install --no-cache-dir --disable-pip-version-check -q \
  --require-hashes --no-deps -r "$prefix/app/requirements.lock"
"$prefix/venv/bin/python" -m pip install --no-cache-dir --disable-pip-version-check -q \
  --no-deps --no-build-isolation -e "$prefix/app"

# ONNX Runtime reports its use to Microsoft unless it is told not to before it starts
export ORT_DISABLE_TELEMETRY=1

# checked against the digests of the manifest, repaired and checked again; nothing is downloaded at run time
"$prefix/venv/bin/biodedup" models fetch "$pack"

# other accounts may read and run it, nobody may change it
chmod -R a+rX,a-w "$prefix/app"
