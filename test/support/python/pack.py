"""Pack the Python that runs this, as those archives are packed that uv downloads Pythons from.

    python pack.py FOLDER

Below FOLDER come an archive and a list of downloads that has nothing but this archive; the path of the list is
printed. What was packed before, from the same Python, is not packed again.
"""

import hashlib
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
PREFIX = pathlib.Path(sys.base_prefix)
STDLIB = pathlib.Path(os.__file__).resolve().parent

# Nothing that the tests need, and most of the size.
LEFT_OUT = shutil.ignore_patterns(
    "__pycache__",
    "config-*",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
    "*.a",
    "EXTERNALLY-MANAGED",
    "dist-packages",
)


def main(folder: pathlib.Path) -> None:
    """Print where the list of downloads is, after it was made if need be."""
    if sys.implementation.name != "cpython":
        sys.exit(f"{sys.executable} is not CPython")
    made_from = [
        sys.version,
        str(PREFIX),
        str(folder),
        pathlib.Path(__file__).read_text(encoding="utf-8"),
    ]
    place = folder / hashlib.sha256("\0".join(made_from).encode()).hexdigest()[:12]
    downloads = place / "downloads.json"
    if not downloads.exists():
        place.mkdir(parents=True, exist_ok=True)
        # Whoever else packs at the same time makes the same: each file appears at once and whole.
        with tempfile.TemporaryDirectory(dir=place) as scratch:
            archive = place / "python.tar.gz"
            pack(pathlib.Path(scratch), archive)
            unfinished = pathlib.Path(scratch, "downloads.json")
            unfinished.write_text(json.dumps(describe(archive)), encoding="utf-8")
            unfinished.replace(downloads)
    print(downloads)


def pack(scratch: pathlib.Path, archive: pathlib.Path) -> None:
    """Write the archive: one folder `python`, which can be put anywhere."""
    root = scratch / "python"
    (root / "bin").mkdir(parents=True)
    shutil.copytree(STDLIB, root / "lib" / STDLIB.name, ignore=LEFT_OUT)
    site = root / "lib" / STDLIB.name / "site-packages"
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir()
    executable = root / "bin" / f"python{VERSION}"
    shutil.copy2(pathlib.Path(sys.executable).resolve(), executable)
    for name in ("python", "python3"):
        (root / "bin" / name).symlink_to(executable.name)
    # Where Python is a small program around a library.
    libraries = list((PREFIX / "lib").glob(f"libpython{VERSION}*.so.*"))
    for library in libraries:
        shutil.copy2(library, root / "lib")
    if strip := shutil.which("strip"):
        subprocess.run([strip, "--strip-debug", executable, *root.glob("lib/**/*.so*")], check=True)
    if libraries:
        look_beside(executable)
    with tarfile.open(scratch / "python.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(root, "python")
    (scratch / "python.tar.gz").replace(archive)


def look_beside(executable: pathlib.Path) -> None:
    """Let the program find its library by its own place.

    The path where it looks is a string in the program that ends in a zero, so a shorter one fits.
    """
    fixed = str(PREFIX / "lib").encode() + b"\0"
    movable = b"$ORIGIN/../lib".ljust(len(fixed), b"\0")
    if len(movable) != len(fixed):
        sys.exit(f"{PREFIX} is too short a path to be replaced in {executable}")
    executable.write_bytes(executable.read_bytes().replace(fixed, movable))


def describe(archive: pathlib.Path) -> dict[str, object]:
    """Return the list of downloads, in uv's own form."""
    system = platform.system().lower()
    libc = "none" if system == "darwin" else "gnu" if platform.libc_ver()[0] == "glibc" else "musl"
    machine = {"arm64": "aarch64"}.get(platform.machine(), platform.machine())
    major, minor, patch = sys.version_info[:3]
    key = f"cpython-{major}.{minor}.{patch}-{system}-{machine}-{libc}"
    return {
        key: {
            "name": "cpython",
            "arch": {"family": machine, "variant": None},
            "os": system,
            "libc": libc,
            "major": major,
            "minor": minor,
            "patch": patch,
            "prerelease": "",
            "url": archive.as_uri(),
            "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
            "variant": None,
            "build": None,
        }
    }


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve())
