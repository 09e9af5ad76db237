"""The command line: `python -m jgd demo` and `python -m jgd doctor`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jgd import _demo, _doctor


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jgd", description="Gradient descent for JAX.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="train a classifier on handwritten digits and show what happens")
    demo.add_argument("--optimizer", choices=sorted(_demo.OPTIMIZERS), default="adamw")
    demo.add_argument("--epochs", type=_at_least_one, default=20)
    demo.add_argument(
        "--learning-rate", type=float, default=None, help="the peak; by default one that suits the optimizer"
    )
    demo.add_argument("--seed", type=_not_negative, default=0, help="of the split, the model and the order of examples")
    demo.add_argument("--out", type=Path, default=Path("jgd-demo"), help="where history, plot and checkpoint go")
    commands.add_parser("doctor", help="versions, devices, memory bandwidth, and a check of the arithmetic")
    return parser


def _at_least_one(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1; got {text!r}")
    return int(text)


def _not_negative(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0; got {text!r}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit status: 0, or 1 with a line on stderr that says why."""
    given = _parser().parse_args(arguments)
    try:
        if given.command == "doctor":
            return _doctor.run()
        _demo.run(given.optimizer, given.epochs, given.learning_rate, given.seed, given.out)
    except (ImportError, ValueError, OSError, FloatingPointError) as error:
        print(f"jgd: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
