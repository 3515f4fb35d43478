"""Write what a release consists of (CycloneDX 1.6, JSON): every locked package and every model file, with its digest.

    .venv/bin/python deploy/sbom.py dist/sbom.cdx.json

It needs no network. Packages and their digests come from requirements.lock, by `cyclonedx-py`; model files from the
manifests in models/, and where a pack is installed the digest of the installed file too. The result is checked against
the schema that comes with the library before it is written.
"""

import argparse
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).resolve().parent.parent
_ROLES = ("detector", "recogniser", "presentation_attack")

Json = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="folder of the model packs")
    arguments = parser.parse_args()
    document = packages(ROOT)
    document["components"] = [*document.get("components", []), *models(arguments.models)]
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document))
    if problem is not None:
        print(f"the bill of materials does not have the form of CycloneDX 1.6: {problem}", file=sys.stderr)
        return 1
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{arguments.out}: {len(document['components'])} components")
    return 0


def packages(root: Path) -> Json:
    """Return the document of the locked packages."""
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", "--pyproject", str(root / "pyproject.toml"),
               "--sv", "1.6", "--of", "JSON", "--output-reproducible", str(root / "requirements.lock")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: Json = json.loads(done.stdout)
    return found


def models(folder: Path) -> list[Json]:
    """Return a component for each file that a manifest names."""
    return [
        _component(path.parent, manifest, role)
        for path in sorted(folder.glob("*/manifest.toml"))
        for manifest in [tomllib.loads(path.read_text(encoding="utf-8"))]
        for role in _ROLES
        if role in manifest
    ]


def _component(folder: Path, manifest: Json, role: str) -> Json:
    entry, pack_id = manifest[role], manifest["pack_id"]
    properties = {
        "biodedup:role": role,
        "biodedup:pack": pack_id,
        "biodedup:restricted": manifest["licence"]["restricted"],
    }
    installed = _installed_digest(folder, role)
    if installed is not None:
        properties["biodedup:installed-sha256"] = installed
    component: Json = {
        "type": "machine-learning-model",
        "bom-ref": f"model:{pack_id}/{entry['file']}",
        "group": pack_id,
        "name": entry["file"],
        "licenses": [{"license": {"name": manifest["licence"]["name"], "url": manifest["licence"]["link"]}}],
        "externalReferences": [
            {"type": "distribution", "url": link} for link in manifest["source"].get("upstream", [])
        ],
        "properties": [{"name": name, "value": str(value).lower()} for name, value in sorted(properties.items())],
    }
    if "sha256" in entry:  # of the published file; packs that the operator brings may name none
        component["hashes"] = [{"alg": "SHA-256", "content": entry["sha256"]}]
    return component


def _installed_digest(folder: Path, role: str) -> str | None:
    try:
        record = json.loads((folder / "installed.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    digest = record.get(role, {}).get("installed_sha256")
    return str(digest) if digest else None


if __name__ == "__main__":
    sys.exit(main())
