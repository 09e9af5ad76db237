"""Runs the tests that optax ships with jgd's names in the place of optax's.

The modules under test look their optimizers up in a module global. Here that global is replaced by a stand-in that
looks in jgd first, and skips the case where jgd has no such name.

    python tests/optax_suite.py optax._src.alias_test alias AliasTest
"""

import importlib
import sys
import types
import unittest

import jgd


class Lookup(types.ModuleType):
    """A module in which jgd's names come first."""

    def __init__(self, original: types.ModuleType):
        super().__init__(original.__name__)
        self.__dict__["original"] = original

    def __getattr__(self, name: str):
        if name.startswith("_") or not callable(getattr(self.original, name, None)):
            return getattr(self.original, name)
        if not hasattr(jgd, name):
            raise unittest.SkipTest(f"jgd has no {name}")
        return getattr(jgd, name)


def run(module_name: str, global_name: str, *tests: str) -> unittest.TestResult:
    """Runs the named test classes (all if none is named) of a module with one global replaced."""
    from absl import flags

    flags.FLAGS.mark_as_parsed()
    module = importlib.import_module(module_name)
    setattr(module, global_name, Lookup(getattr(module, global_name)))
    loader = unittest.TestLoader()
    suite = loader.loadTestsFromNames(tests, module) if tests else loader.loadTestsFromModule(module)
    return unittest.TextTestRunner(stream=sys.stdout, verbosity=1).run(suite)


if __name__ == "__main__":
    result = run(*sys.argv[1:])
    ran = result.testsRun - len(result.skipped)
    print(f"ran {ran}, failed {len(result.failures) + len(result.errors)}, not in jgd {len(result.skipped)}")
    sys.exit(not result.wasSuccessful())
