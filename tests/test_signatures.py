"""Signatures can be read: `help` shows types by their names, and tools find in them what the names stand for."""

import inspect
import pickle
import pydoc
import typing

import optax
import pytest

import jgd
from jgd.core import ArrayTree, LayoutLike, PyTree, Scalar, ScalarOrSchedule, StateDtype, meaning

FACTORIES = {
    name: value
    for name, value in vars(jgd).items()
    if inspect.isfunction(value) and inspect.signature(value).return_annotation is jgd.Optimizer
}
LONGEST = 75  # characters of a parameter and its type, without the default


def shown(annotation):
    """As `help` shows it."""
    return inspect.formatannotation(annotation)


def unreadable(function):
    """Parameters whose type takes more than a glance, and what comes back where that is so."""
    signature = inspect.signature(function)
    types = {name: shown(parameter.annotation) for name, parameter in signature.parameters.items()}
    types["->"] = shown(signature.return_annotation)
    return [
        f"{name}: {text}"
        for name, text in types.items()
        if "Union[" in text or "optax._" in text or "jgd.core._" in text or len(name) + len(text) + 2 > LONGEST
    ]


@pytest.mark.parametrize("name", FACTORIES)
def test_the_signature_of_a_factory_can_be_read(name):
    assert unreadable(FACTORIES[name]) == []


def test_an_unreadable_signature_is_found():
    def long(rate: optax.ScalarOrSchedule, state: jgd.OptState | None) -> jgd.Optimizer: ...

    assert [text.partition(":")[0] for text in unreadable(long)] == ["rate", "state"]


def test_help_of_adamw_fits_on_a_screen():
    text = pydoc.plain(pydoc.render_doc(jgd.adamw))
    signature = text.split("Adam with")[0]
    assert "learning_rate: ScalarOrSchedule, b1: ScalarOrSchedule = 0.9" in " ".join(signature.split())
    assert "mask: Mask = None" in signature
    assert "state_dtype: StateDtype | None = None" in signature
    assert "layout: LayoutLike = 'auto'" in signature
    assert "-> jgd.Optimizer" in signature
    assert len(signature) < 600


def test_an_alias_equals_what_it_stands_for():
    annotation = inspect.signature(jgd.adamw).parameters["learning_rate"].annotation
    assert annotation in (optax.ScalarOrSchedule, float)  # as optax's tests ask
    assert optax.ScalarOrSchedule in (annotation,)
    assert {optax.ScalarOrSchedule: 1}[annotation] == 1
    assert annotation != optax.Schedule
    assert PyTree == typing.Any
    assert meaning(annotation) is optax.ScalarOrSchedule
    assert meaning(float) is float


def test_an_alias_makes_unions():
    for alias, text in (
        (ScalarOrSchedule | None, "ScalarOrSchedule | None"),
        (None | Scalar, "None | Scalar"),
        (str | ArrayTree | jgd.Optimizer, "str | ArrayTree | jgd.Optimizer"),
        (LayoutLike | StateDtype, "LayoutLike | StateDtype"),
    ):
        assert shown(alias) == text
    assert ScalarOrSchedule | None == optax.ScalarOrSchedule | None


def test_an_optimizer_is_found_where_its_class_says_it_is():
    assert pickle.loads(pickle.dumps(jgd.Optimizer)) is jgd.Optimizer


def test_an_alias_can_be_copied():
    assert pickle.loads(pickle.dumps(LayoutLike)) == LayoutLike
