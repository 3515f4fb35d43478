"""Build, sign and verify a release.

    .venv/bin/python deploy/release.py make --key ~/.ssh/release      wheel, sdist, SBOM, digests, signature
    .venv/bin/python deploy/release.py sign --key ~/.ssh/release DIR  the last two for files that are there
    .venv/bin/python deploy/release.py verify --signers FILE DIR      is every file what was signed?

What is built is the last commit, from a copy of it, at the time of that commit: what lies about in the folder gets into
no release, and the same commit makes the same wheel, byte for byte (the sdist bears times of its making). Signed is the
list of digests, with OpenSSH's signatures (`ssh-keygen -Y`), so that whoever gets a release needs nothing of ours to
check it:

    ssh-keygen -Y verify -f allowed_signers -I release -n biodedup-release -s SHA256SUMS.sig < SHA256SUMS
    sha256sum --strict -c SHA256SUMS
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUMS, SIGNATURE = "SHA256SUMS", "SHA256SUMS.sig"
NAMESPACE, SIGNER = "biodedup-release", "release"
# the folder is kept first: setuptools writes over the arguments
_BUILD = "import sys; from setuptools import build_meta as b; out = sys.argv[1]; b.build_wheel(out); b.build_sdist(out)"


class Refused(Exception):
    """What was asked for cannot be done, or is not so; the message is for people."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    make, sign_, check = (commands.add_parser(name) for name in ("make", "sign", "verify"))
    for each in (make, sign_):
        each.add_argument("--key", type=Path, required=True, help="private OpenSSH key (Ed25519)")
    make.add_argument("--out", type=Path, default=ROOT / "dist", help="folder to fill; must not hold another release")
    check.add_argument(
        "--signers", type=Path, required=True, help="file of allowed signers, a line: release KEYTYPE KEY"
    )
    for each in (sign_, check):
        each.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    try:
        if arguments.command == "make":
            build(ROOT, arguments.out)
            sign(arguments.out, arguments.key)
        elif arguments.command == "sign":
            sign(arguments.folder, arguments.key)
        else:
            verify(arguments.folder, arguments.signers)
    except Refused as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def build(root: Path, out: Path) -> None:
    """Fill `out` with the wheel, the sdist and the bill of materials of the last commit. Raises Refused."""
    if _run(["git", "-C", str(root), "status", "--porcelain"]).strip():
        raise Refused("there are changes that are not committed: a release is made of a commit")
    if out.exists() and any(out.iterdir()):
        raise Refused(f"{out} is not empty: move the former release away")
    out.mkdir(parents=True, exist_ok=True)
    committed_at = _run(["git", "-C", str(root), "log", "-1", "--format=%ct"]).decode().strip()
    environ = {**os.environ, "SOURCE_DATE_EPOCH": committed_at}
    with tempfile.TemporaryDirectory(prefix="biodedup-release-") as name:
        copy = Path(name)
        with tarfile.open(fileobj=BytesIO(_run(["git", "-C", str(root), "archive", "HEAD"]))) as archive:
            archive.extractall(copy, filter="data")
        _run([sys.executable, "-c", _BUILD, str(out.resolve())], cwd=copy, env=environ)
        _run([sys.executable, str(copy / "deploy" / "sbom.py"), str(out.resolve() / "sbom.cdx.json")], env=environ)


def sign(folder: Path, key: Path) -> None:
    """Write the digests of all files of a folder, and the signature over them. Raises Refused."""
    sums, signature = folder / SUMS, folder / SIGNATURE
    files = _files(folder)
    if not files:
        raise Refused(f"{folder} holds nothing to sign")
    sums.write_text("".join(f"{_digest(folder / name)}  {name}\n" for name in files), encoding="utf-8")
    signature.unlink(missing_ok=True)
    _run(["ssh-keygen", "-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(sums)])
    print(f"{folder}: {len(files)} files signed")


def verify(folder: Path, signers: Path) -> None:
    """Raises Refused: the signature is not one of the signers', a file is another one, is missing or was added."""
    sums, signature = folder / SUMS, folder / SIGNATURE
    if not sums.is_file() or not signature.is_file():
        raise Refused(f"{folder} holds no {SUMS} with its {SIGNATURE}")
    command = ["ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", SIGNER, "-n", NAMESPACE, "-s", str(signature)]
    content = sums.read_bytes()
    if subprocess.run(command, input=content, capture_output=True, check=False).returncode:
        raise Refused(f"the signature of {SUMS} is not one of the allowed signers': do not use this release")
    signed = {name: digest for digest, _, name in (line.partition("  ") for line in content.decode().splitlines())}
    found = {name: _digest(folder / name) for name in _files(folder)}
    wrong = sorted(name for name in signed.keys() | found.keys() if signed.get(name) != found.get(name))
    if wrong:
        raise Refused(f"not what was signed: {', '.join(wrong)}: do not use this release")
    print(f"{folder}: {len(found)} files are what was signed")


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.name not in {SUMS, SIGNATURE})


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _run(command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> bytes:
    """Raises Refused."""
    try:
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise Refused(f"{command[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        raise Refused(f"{command[0]} failed: {error.stderr.decode(errors='replace')[-2000:]}") from None


if __name__ == "__main__":
    sys.exit(main())
