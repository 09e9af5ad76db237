"""The command line: `python -m jgd demo` and `python -m jgd doctor`."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jgd
from jgd import _demo, _doctor

_LARGEST_SEED = 2**32 - 1
_MOST_EPOCHS = 1_000_000  # the steps are counted in 32 bits
_INTERRUPTED, _PIPE_CLOSED = 130, 141  # 128 and the signal's number, as shells have it


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jgd", description="Gradient descent for JAX.")
    parser.add_argument("--version", action="version", version=f"jgd {jgd.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="{demo,doctor}")
    demo = commands.add_parser("demo", help="train a classifier on handwritten digits and show what happens")
    rates = ", ".join(f"{rate:g} for {name}" for name, (_, rate) in _demo.OPTIMIZERS.items())
    demo.add_argument(
        "--optimizer",
        choices=sorted(_demo.OPTIMIZERS),
        default="adamw",
        metavar="NAME",
        help=f"one of {', '.join(sorted(_demo.OPTIMIZERS))} (default: %(default)s)",
    )
    demo.add_argument(
        "--epochs",
        type=_whole_number(1, _MOST_EPOCHS),
        default=20,
        metavar="N",
        help="how often to go through the images (default: %(default)s)",
    )
    demo.add_argument(
        "--learning-rate",
        type=float,
        default=None,
        metavar="RATE",
        help=f"the peak, after a tenth of the steps (default: what suits the optimizer: {rates})",
    )
    demo.add_argument(
        "--seed",
        type=_whole_number(0, _LARGEST_SEED),
        default=0,
        metavar="N",
        help="of the split, the model and the order of examples (default: %(default)s)",
    )
    demo.add_argument(
        "--out",
        type=Path,
        default=None,
        metavar="DIR",
        help="where history, plot and checkpoint go; nothing there is overwritten"
        f" (default: {_demo.FOLDER}, or {_demo.FOLDER}-2 and so on where that is there)",
    )
    commands.add_parser("doctor", help="versions, devices, memory bandwidth, and a check of the arithmetic")
    return parser


def _whole_number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and least <= int(text[:20]) <= most):
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}; got {text[:40]!r}")
        return int(text)

    return parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit status: 0; 1 with a line on stderr that says why; 2 for invalid arguments; 130 after Ctrl-C
        before there is anything to report.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        if options.command == "doctor":
            return _doctor.report()
        accuracy = _demo.demo(options.optimizer, options.epochs, options.learning_rate, options.seed, options.out)
        return 0 if accuracy == accuracy else _INTERRUPTED
    except BrokenPipeError:  # `| head`: nobody reads what is written, at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (ImportError, ValueError, OSError, FloatingPointError, RuntimeError) as error:
        print(f"jgd: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
