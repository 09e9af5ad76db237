"""Runs the tests that optax ships with jgd's names in the place of optax's.

A test module reaches what it tests through modules that it imports, such as `alias`. Its source is compiled with one
more statement after the imports, which puts stand-ins in the place of those modules: they look in jgd first. So names
that are bound while the module is imported are replaced as well, and nothing is copied.

    python tests/optax_suite.py alias-convergence masking
    python tests/optax_suite.py alias --shard 0/2
    python tests/optax_suite.py masking --only test_prefix_mask
"""

import argparse
import ast
import collections
import dataclasses
import functools
import importlib.util
import re
import sys
import time
import types
import unittest
import zlib
from collections.abc import Callable

import jax
import optax
from absl import flags

import jgd
import jgd.schedules

NOT_IN_JGD = "not in jgd: "
HOMES = (jgd, jgd.schedules)
ERROR = r"(?m)^[\w.]*(?:Error|Exception).*"
# Wrappers that take jgd's rules, be they optax's or jgd's own.
WRAPPERS = ("mechanize", "schedule_free", "schedule_free_eval_params", "reduce_on_plateau")


@dataclasses.dataclass(frozen=True)
class Suite:
    """The cases of one test module, or some of them.

    Attributes:
        module: The test module.
        instead: Modules in whose place jgd stands, by their names there: a case that asks one of them for a name that
            jgd lacks is skipped.
        beside: Modules, or single names of those above, in which jgd's names come first, and optax's serve where jgd
            has none: what mixes with jgd in a case.
        cases: Which cases belong to the suite, a pattern at the start of `Class.test_name`.
        at_least: So many cases must run and use a name of jgd's, in each shard: a suite that skips everything proves
            nothing.
        shards: Into how many processes the cases are split, for suites that take long.
        none_is_fresh: Whether cases pass None for the state, as optax's transforms without numbers in their state
            allow. jgd's transforms are given the state that their `init` makes.
        excluded: Cases that are not run, since they ask for something that jgd does differently on purpose: the start
            of `Class.test_name`, and why.
    """

    module: str
    instead: tuple[str, ...]
    beside: tuple[str, ...] = ()
    cases: str = ""
    at_least: int = 0
    shards: int = 1
    none_is_fresh: bool = False
    excluded: dict[str, str] = dataclasses.field(default_factory=dict)


SUITES = {
    "alias": Suite(
        "optax._src.alias_test",
        ("alias",),
        ("update",),
        r"AliasTest\.(?!test_optimization\d)",
        at_least=185,
        shards=2,
    ),
    "alias-convergence": Suite(
        "optax._src.alias_test", ("alias",), ("update",), r"AliasTest\.test_optimization\d", at_least=92
    ),
    # jgd's wrappers, where the suites above have optax's.
    "alias-wrapped": Suite(
        "optax._src.alias_test",
        ("_accumulation", "_inject"),
        ("alias", "update"),
        r"AliasTest\.test_(gradient_accumulation|optimizers_can_be_wrapped)",
        at_least=66,
    ),
    # One more fails for optax too on jax 0.12.
    "lbfgs": Suite(
        "optax._src.alias_test",
        ("alias",),
        ("update",),
        "LBFGSTest",
        at_least=38 if jax.version.__version_info__ < (0, 12) else 37,
    ),
    "contrib": Suite(
        "optax.contrib._common_test",
        ("contrib", "alias"),
        ("combine", "update", *WRAPPERS),
        r"ContribTest\.(?!test_optimizers\d)",
        at_least=183,
        shards=2,
    ),
    "contrib-convergence": Suite(
        "optax.contrib._common_test",
        ("contrib", "alias"),
        ("combine", "update", *WRAPPERS),
        r"ContribTest\.test_optimizers\d",
        at_least=160,
    ),
    "schedule": Suite(
        "optax.schedules._schedule_test", ("_schedule",), cases="(?!ScheduleAsLearningRateTest)", at_least=47
    ),
    "schedule-as-rate": Suite(
        "optax.schedules._schedule_test",
        ("alias",),
        ("_schedule", "update"),
        "ScheduleAsLearningRateTest",
        at_least=25,
    ),
    "inject": Suite(
        "optax.schedules._inject_test", (), ("schedules", "transforms", "transform", "wrappers"), at_least=4
    ),
    "float64": Suite("optax._src.float64_test", ("alias", "transform", "transforms", "base"), ("update",), at_least=13),
    "sharding": Suite("optax._src.sharding_test", ("optax",), at_least=73),
    "clipping": Suite(
        "optax.transforms._clipping_test", ("_clipping",), ("unitwise_norm",), at_least=4, none_is_fresh=True
    ),
    "accumulation": Suite(
        "optax.transforms._accumulation_test",
        (),
        ("_accumulation", "alias", "combine", "transform", "update", "_constraining"),
        at_least=8,
    ),
    "masking": Suite(
        "optax.transforms._masking_test",
        (),
        ("_masking", "alias", "combine", "transform", "update"),
        at_least=18,
        excluded={
            "MaskedTest.test_masked_state_structure": "It reads the slots of optax's sgd, inner_state[0].trace; jgd has"
            " them in inner_state.slots."
        },
    ),
    "combining": Suite(
        "optax.transforms._combining_test",
        (),
        ("_combining", "alias", "transform", "update", "_accumulation"),
        at_least=10,
        excluded={
            "ExtraArgsTest.test_extra_args ": "The gradients are Python integers, and no params come with them:"
            " jgd's rules refuse integer gradients."
        },
    ),
    "freezing": Suite("optax.transforms._freezing_test", (), ("_freezing", "alias", "update"), at_least=10),
    "adding": Suite(
        "optax.transforms._adding_test",
        ("_adding",),
        at_least=2,
        excluded={
            "AddingTest.test_none_argument": "It passes None for the updates and 0 for the state; jgd's decay is in the"
            " state."
        },
    ),
    "conditionality": Suite(
        "optax.transforms._conditionality_test",
        (),
        ("_conditionality", "_constraining", "alias", "combine", "transform", "update"),
        at_least=4,
    ),
    "monitoring": Suite(
        "optax.transforms._monitoring_test",
        (),
        ("_monitoring", "_clipping", "_combining", "alias", "update"),
        at_least=2,
    ),
    "layouts": Suite("optax.transforms._layouts_test", (), ("_layouts", "alias", "update"), at_least=1),
    "join": Suite("optax.schedules._join_test", ("_join",), ("_schedule",), at_least=1),
    "complex": Suite("optax.contrib._complex_valued_test", ("_complex_valued",), ("update",), at_least=2),
    "sam": Suite("optax.contrib._sam_test", ("_sam",), ("alias", "combine", "update"), at_least=4),
    "schedule-free": Suite(
        "optax.contrib._schedule_free_test",
        ("_schedule_free",),
        ("alias", "update"),
        at_least=4,
        excluded={"ScheduleFreeTest.test_explicit_dtype": "It reads state.z; jgd has it in state.own.slots."},
    ),
    "muon": Suite(
        "optax.contrib._muon_test",
        ("_muon",),
        ("update",),
        at_least=23,
        excluded={
            "MuonTest.test_dim_nums_combinations": "It reads optax's state, state[0]['muon'][0][0][1]; jgd has the slot"
            " in state.slots."
        },
    ),
}


class Lookup(types.ModuleType):
    """A module in which jgd's names come first."""

    def __init__(self, original: types.ModuleType, run: "Run", required: bool):
        super().__init__(original.__name__)
        self.__dict__.update(original=original, run=run, required=required)

    def __getattr__(self, name: str):
        theirs = getattr(self.original, name)
        required = self.required and name not in self.run.suite.beside
        homes = [home for home in HOMES if name in vars(home)]  # not what is handed on when asked for
        # Constants, modules, types of states and what is private to optax stay optax's.
        is_state = isinstance(theirs, type) and issubclass(theirs, tuple)
        if name.startswith("_") or not callable(theirs) or (is_state and not homes):
            return theirs
        if self.run.importing:
            return Late(self, name)
        if not homes:
            if required:
                raise unittest.SkipTest(NOT_IN_JGD + name)
            self.run.mixed_in.add(name)
            return theirs
        ours = getattr(homes[0], name)
        handed_on = homes[0] is jgd and ours is theirs
        self.run.used_jgd |= not (is_state or handed_on)
        return none_is_fresh(ours) if self.run.suite.none_is_fresh else ours


class Late:
    """A name asked for while the test module is imported, with its call: looked up when a case uses what it gives."""

    def __init__(self, lookup: Lookup, name: str, call: Callable = lambda factory: factory):
        self.lookup, self.name, self.call = lookup, name, call

    def __call__(self, *args, **kwargs):
        return Late(self.lookup, self.name, functools.cache(lambda factory: self.call(factory)(*args, **kwargs)))

    def __getattr__(self, attribute: str):
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return getattr(self.call(getattr(self.lookup, self.name)), attribute)


class TextVersion(types.ModuleType):
    """jax, for tests that compare its version as text, in which 0.10 comes before 0.7."""

    __version__ = "9"

    def __getattr__(self, name: str):
        return getattr(jax, name)


def none_is_fresh(factory: Callable) -> Callable:
    """The factory, its transforms taking None for the state that their `init` makes."""

    def make(*args, **kwargs):
        made = factory(*args, **kwargs)
        if not isinstance(made, optax.GradientTransformation):
            return made

        def update(updates, state, params=None):
            return made.update(updates, made.init(params) if state is None else state, params)

        return optax.GradientTransformation(made.init, update)

    return make


class Run(unittest.TestResult):
    """One run of a suite: the test module with jgd in it, and what became of each case."""

    def __init__(self, suite: Suite):
        super().__init__()
        self.suite = suite
        self.used_jgd = False
        self.texts: list[str] = []
        self.reasons: list[str] = []
        self.mixed_in: set[str] = set()
        self.outcomes: dict[str, tuple[str, str]] = {}
        self.importing = True
        self.module = self.load()
        self.importing = False

    def load(self) -> types.ModuleType:
        spec = importlib.util.find_spec(self.suite.module)
        tree = ast.parse(spec.loader.get_source(self.suite.module))
        after = 1 + max(i for i, node in enumerate(tree.body) if isinstance(node, ast.Import | ast.ImportFrom))
        tree.body[after:after] = ast.parse("put_jgd_in(globals())").body
        module = importlib.util.module_from_spec(spec)
        module.put_jgd_in = self.put_jgd_in
        exec(compile(tree, spec.origin, "exec"), module.__dict__)
        return module

    def put_jgd_in(self, names: dict[str, object]) -> None:
        names["jax"] = TextVersion("jax")
        for name in {*self.suite.instead, *self.suite.beside} & set(names):
            names[name] = Lookup(names[name], self, required=name in self.suite.instead)

    def startTest(self, test):  # noqa: N802
        super().startTest(test)
        self.used_jgd, self.texts, self.reasons = False, [], []

    def addSkip(self, test, reason):  # noqa: N802
        self.reasons.append(reason)

    def addFailure(self, test, err):  # noqa: N802
        self.texts.append(self._exc_info_to_string(err, test))

    addError = addFailure  # noqa: N815

    def addSubTest(self, test, subtest, err):  # noqa: N802
        if err is not None:
            self.addFailure(subtest, err)

    def stopTest(self, test):  # noqa: N802
        super().stopTest(test)
        jax.config.update("jax_enable_x64", False)  # cases that fail leave it on
        missing = [reason for reason in self.reasons if reason.startswith(NOT_IN_JGD)]
        if missing:
            outcome = ("not in jgd", missing[0].removeprefix(NOT_IN_JGD))
        elif self.texts:
            outcome = ("failed", "\n".join(self.texts))
        elif self.reasons:
            outcome = ("skipped by optax", self.reasons[0])
        else:
            outcome = ("ran", "") if self.used_jgd else ("without a name to replace", "")
        self.outcomes[name_of(test)] = outcome


def name_of(case: unittest.TestCase) -> str:
    """`Class.test_name` with a space behind it, and the parameters of a parameterized case."""
    name = case.id().removeprefix(f"{type(case).__module__}.") + " "
    return re.sub(r" at 0x\w+", "", name)  # the same in every process


def run(suite: Suite, shard: int = 0, shards: int = 1, only: str = "") -> Run:
    """Runs the cases of a suite: `outcomes` has for each what became of it, with a text that says more."""
    result = Run(suite)
    unmodified = Run(dataclasses.replace(suite, instead=(), beside=()))
    loaded = unittest.defaultTestLoader.loadTestsFromModule(result.module)
    cases = {name_of(case): case for group in loaded for case in group if re.match(suite.cases, name_of(case))}
    for start in suite.excluded:
        assert any(name.startswith(start) for name in cases), f"optax has no case {start}"
    for name, case in cases.items():
        # A hash deals the cases out, since cases that take long are neighbors.
        if zlib.crc32(name.encode()) % shards != shard or only not in name:
            continue
        reason = [why for start, why in suite.excluded.items() if name.startswith(start)]
        if reason:
            result.outcomes[name] = ("excluded", reason[0])
            continue
        case.run(result)
        if result.outcomes[name][0] == "failed":
            getattr(unmodified.module, type(case).__name__)(case._testMethodName).run(unmodified)
            if unmodified.outcomes[name][0] == "failed":
                result.outcomes[name] = ("fails for optax too", result.outcomes[name][1])
    return result


def report(name: str, shard: int, shards: int, only: str) -> bool:
    """Runs one suite, prints what became of its cases, and says whether jgd passed."""
    suite, start = SUITES[name], time.perf_counter()
    result = run(suite, shard, shards, only)
    outcomes = result.outcomes
    for case, (outcome, text) in outcomes.items():
        if outcome == "failed":
            print(f"{outcome}: {case}\n{text}")
        elif outcome == "fails for optax too":
            print(f"{outcome}: {case}\n{next(reversed(re.findall(ERROR, text)), text)}")
    for cases, why in suite.excluded.items():
        print(f"excluded: {cases}: {why}")
    lacking = sorted({text for outcome, text in outcomes.values() if outcome == "not in jgd"})
    print(f"{name}: not in jgd: {', '.join(lacking) or 'none'}")
    print(f"{name}: optax's, beside jgd's: {', '.join(sorted(result.mixed_in)) or 'none'}")
    counts = collections.Counter(outcome for outcome, _ in outcomes.values())
    counted = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    print(f"{name}: {counted} in {time.perf_counter() - start:.0f} s", flush=True)
    if not only and counts["ran"] < suite.at_least:
        print(f"{name}: expected at least {suite.at_least} cases with a name of jgd's; ran {counts['ran']}")
        return False
    return not counts["failed"]


def main() -> int:
    """Runs suites; the exit status is 1 where jgd fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suites", nargs="+", choices=SUITES)
    parser.add_argument("--shard", default="0/1", help="which part of how many, such as 0/2")
    parser.add_argument("--only", default="", help="run the cases that have this in their name")
    given = parser.parse_args()
    flags.FLAGS.mark_as_parsed()
    shard, shards = map(int, given.shard.split("/"))
    # First the suite that asks for eight devices, which it can do until the first array is made.
    suites = sorted(given.suites, key=lambda name: name != "sharding")
    passed = [report(name, shard, shards, given.only) for name in suites]
    return int(not all(passed))


if __name__ == "__main__":
    sys.exit(main())
