"""Checks what was built: the wheel holds all of the package and nothing else, and its version is the changelog's.

python .ci/check_release.py dist               # a folder with one wheel
python .ci/check_release.py dist --tag v0.1.0  # the tag as well
"""

import argparse
import re
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def complaints(wheel: Path, tag: str | None) -> list[str]:
    """What is wrong with a wheel, a sentence each."""
    version = re.fullmatch(r"jgd-([^-]+)-py3-none-any\.whl", wheel.name).group(1)
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    kept = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "jgd").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    found = [f"{wheel.name} lacks {name}" for name in sorted((kept | {"jgd/py.typed"}) - packed)]
    found += [f"{wheel.name} holds {name}, which is not in jgd/" for name in sorted(packed - kept)]
    headings = re.findall(r"^## (\S+) - \d{4}-\d{2}-\d{2}$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    if headings[:1] != [version]:
        found.append(f"the newest version in CHANGELOG.md is {headings[:1]}; expected `## {version} - YYYY-MM-DD`")
    if tag is not None and tag != f"v{version}":
        found.append(f"the tag is {tag}; expected v{version}, by `__version__` in jgd/__init__.py")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tag")
    given = parser.parse_args()
    (only,) = given.folder.glob("*.whl")
    if found := complaints(only, given.tag):
        sys.exit("\n".join(found))
    print(f"{only.name} is whole")
