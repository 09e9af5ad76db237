"""Prints the oldest versions that pyproject.toml allows of what `import jgd` needs, as constraints for pip."""

import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def oldest(dependencies: list[str]) -> list[str]:
    """`["jax>=0.10"]` becomes `["jax==0.10"]`; a dependency without a floor is an error."""
    for needed in dependencies:
        if needed.count(">=") != 1 or "," in needed:
            raise SystemExit(f"pyproject.toml: expected `name>=version`, got {needed!r}")
    return [needed.replace(">=", "==") for needed in dependencies]


if __name__ == "__main__":
    print(*oldest(tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]), sep="\n")
