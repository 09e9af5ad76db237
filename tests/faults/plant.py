"""Plants each fault of `faults.py` in a copy of the repository, and sees which test finds it.

python tests/faults/plant.py                       # the fast tier; goes on where it was interrupted
python tests/faults/plant.py lion_one_beta         # this fault, anew
python tests/faults/plant.py --tier all            # then the slow tier, for what the fast one did not find
python tests/faults/plant.py --first-only          # only the tests that are likely to find it
python tests/faults/plant.py --whole               # the whole tier at once, without the likely tests before it
python tests/faults/plant.py --table [JSON]        # writes README.md from the results, and runs nothing

With JAX_COMPILATION_CACHE_DIR set, programs that a fault does not touch are compiled once.
"""

import argparse
import functools
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))

from faults.fault import Fault  # noqa: E402
from faults.faults import FAULTS  # noqa: E402
from faults.results import NOT_LIKELY, TIERS, Result, Results, digest, is_open, table  # noqa: E402

LEFT_OUT = ("tests/faults/", "tests/test_faults.py")  # a planted fault no longer fits its row there
PASSED, FAILED, INTERRUPTED, NOTHING_COLLECTED = 0, 1, 2, 5


def copy_tree(target: Path) -> None:
    """The files that git tracks or would track, as they are now."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(LEFT_OUT):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def set_environment(copy: Path) -> None:
    """For all processes to come. Those made by the fork server import JAX before they see `conftest.py`.

    Bytecode is not kept: a fault as long as what it replaces, in the same second, would go unnoticed.
    """
    os.environ |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "JAX_PLATFORMS": "cpu"}
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def check_package(copy: Path) -> None:
    """Refuses to test a package that is not the copy's, such as an editable install."""
    command = [sys.executable, "-c", "import jgd; print(jgd.__file__)"]
    found = subprocess.run(command, cwd=copy, check=True, capture_output=True, text=True).stdout
    if not Path(found.strip()).resolve().is_relative_to(copy.resolve()):
        raise RuntimeError(f"jgd is imported from {found.strip()}; expected the copy in {copy}.")


def be_pytest(copy: str, arguments: list[str], output: str) -> None:
    """Runs pytest in the copy, as a process of its own; what it says goes into a file."""
    os.setsid()
    with open(output, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(copy)
    sys.path[:] = [copy, *(place for place in sys.path if not place.startswith(str(ROOT)))]
    compiled = os.environ.get("JAX_COMPILATION_CACHE_DIR", f"{copy}/.jax_cache/alone")
    jax.config.update("jax_compilation_cache_dir", compiled)
    sys.exit(pytest.main(["-x", "-q", "--tb=line", "-rfE", "-p", "no:cacheprovider", *arguments]))


def run_tests(copy: Path, arguments: list[str], timeout: float) -> tuple[int | None, str]:
    """pytest's exit status and output; None where it took too long."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["jax", "optax", "pytest"])  # to import them takes longer than most tests
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as output:
        process = server.Process(target=be_pytest, args=(str(copy), arguments, output.name))
        process.start()
        try:
            process.join(timeout)
        finally:  # its workers as well, which a fault may have put into an endless loop
            code = process.exitcode
            if code is None and process.pid:
                os.killpg(process.pid, signal.SIGKILL)
                process.join()
        return code, output.read()


@functools.cache
def passes(copy: Path, test: str, *arguments: str, timeout: float) -> bool:
    """Whether a test passes where no fault is planted."""
    return run_tests(copy, [test, "-n", "0", *arguments], timeout)[0] == PASSED


def check_likely(copy: Path, faults: list[Fault], tier: str, options: argparse.Namespace) -> None:
    """Refuses to plant anything where one of the likely tests fails as it is."""
    places = sorted({place for fault in faults for place in fault.first})
    code, output = run_tests(copy, [*places, "-n", str(options.workers), *TIERS[tier]], options.timeout)
    if code not in (PASSED, NOTHING_COLLECTED):
        raise RuntimeError(f"without a fault:\n{output[-2000:]}")


def judge(code: int | None, output: str) -> Result:
    """What a run of pytest says: only a test that failed has found the fault.

    With workers pytest calls its stop after the first failure an interruption, as it does errors of collection; what
    tells them apart is the id of a test.
    """
    if code is None:
        return {"outcome": "timed out"}
    failed = re.search(r"^(?:FAILED|ERROR) (\S+?::[^\[\n]*?(?:\[.*?\])?)(?: - .*)?$", output, re.MULTILINE)
    if code in (FAILED, INTERRUPTED) and failed:
        return {"outcome": "found", "test": failed[1]}
    return {"outcome": "error", "code": code, "output": output[-2000:]}


def try_fault(fault: Fault, copy: Path, tier: str, options: argparse.Namespace) -> Result:
    """Plants one fault, runs its likely tests and then the tier until one fails, and takes it out again."""
    file, began = copy / fault.file, time.monotonic()
    text = file.read_text(encoding="utf-8")
    runs = [] if options.whole else [[*fault.first, "-n", "0"]]
    runs += [] if options.first_only else [["-n", str(options.workers)]]
    result: Result = {"outcome": NOT_LIKELY if options.first_only else "survived"}
    file.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
    try:
        for arguments in runs:
            code, output = run_tests(copy, arguments + TIERS[tier], options.timeout)
            of_another_tier = code == NOTHING_COLLECTED and arguments[0] == fault.first[0]
            if code != PASSED and not of_another_tier:
                result = judge(code, output)
                break
    finally:
        file.write_text(text, encoding="utf-8")
    test = result.get("test")
    # The likely tests have passed before.
    if test and not (test.startswith(fault.first) or passes(copy, test, *TIERS[tier], timeout=options.timeout)):
        result = {"outcome": "error", "output": f"{test} fails without the fault as well"}
    return result | {"seconds": round(time.monotonic() - began, 1), "fault": digest(fault)}


def main() -> None:
    """Runs what is asked for, and writes down each result at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--tier", choices=[*TIERS, "all"], default="fast")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds that one run of pytest may take")
    parser.add_argument("--first-only", action="store_true")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--results", type=Path, default=HERE / "table.json")
    parser.add_argument("--table", type=Path, nargs="?", const=HERE / "table.json")
    options = parser.parse_args()
    if options.table:
        (HERE / "README.md").write_text(table(json.loads(options.table.read_text(encoding="utf-8"))), encoding="utf-8")
        return
    if unknown := set(options.names) - {fault.name for fault in FAULTS}:
        parser.error(f"no fault is called {', '.join(sorted(unknown))}")
    results: Results = json.loads(options.results.read_text(encoding="utf-8")) if options.results.exists() else {}
    with tempfile.TemporaryDirectory(prefix="jgd-faults-") as folder:
        copy = Path(folder).resolve()
        copy_tree(copy)
        set_environment(copy)
        check_package(copy)
        for tier in TIERS if options.tier == "all" else (options.tier,):
            faults = [fault for fault in FAULTS if fault.name in options.names or not options.names]
            if not options.names:
                faults = [fault for fault in faults if is_open(results, fault, tier)]
            if faults and not options.whole:
                check_likely(copy, faults, tier, options)
            for fault in faults:
                result = try_fault(fault, copy, tier, options)
                results.setdefault(fault.name, {})[tier] = result
                options.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
                print(f"{fault.name}: {result.get('test', result['outcome'])} ({result['seconds']} s)", flush=True)


if __name__ == "__main__":
    main()
