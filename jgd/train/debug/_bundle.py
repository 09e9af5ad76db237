"""A training state and a batch in a folder, bit for bit, readable without the run's code."""

import importlib
import json
import os
import platform
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import PyTree
from jgd.train.checkpoints._paths import as_path, make_folder

FORMAT = 1


class Bundle(NamedTuple):
    """What `load_bundle` returns."""

    state: PyTree  # the training state from before the step
    batch: PyTree
    info: dict[str, Any]  # step, report, versions, options


def save_bundle(
    folder: str | Path, state: PyTree, batch: PyTree, info: Mapping[str, Any], files: Mapping[str, str]
) -> Path:
    """Writes a bundle: `arrays.npz`, `bundle.json` and text files. It appears complete or not at all.

    Args:
        folder: Where; if there is something, a number is put behind the name.
        state: A tree of arrays.
        batch: A tree of arrays and numbers.
        info: What JSON can hold.
        files: Text by file name.

    Returns:
        The folder's path.
    """
    target = as_path("debug_step", "folder", folder)
    if not target.name:
        raise ValueError(f"debug_step: folder={str(target)!r} is the root; expected the name of a new folder.")
    make_folder("debug_step", "folder", target.parent)
    arrays: dict[str, np.ndarray] = {}
    leaves: list[dict[str, Any]] = []
    trees = {"state": state, "batch": batch}
    for name, tree in trees.items():
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            data, described = _to_bytes(leaf)
            arrays[str(len(leaves))] = data
            leaves.append({"tree": name, "path": jax.tree_util.keystr(path)} | described)
    versions = {"jax": jax.__version__, "numpy": np.__version__, "python": platform.python_version()}
    document = {
        "format": FORMAT,
        "info": dict(info) | {"versions": versions, "x64": bool(jax.dtypes.canonicalize_dtype(float) == np.float64)},
        "structure": {name: _describe(tree) for name, tree in trees.items()},
        "leaves": leaves,
    }
    draft = Path(tempfile.mkdtemp(prefix=".bundle-", dir=target.parent))
    try:
        np.savez(draft / "arrays.npz", **arrays)  # type: ignore[arg-type]
        (draft / "bundle.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
        for name, text in files.items():
            (draft / name).write_text(text, encoding="utf-8")
        return _put_in_place(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def load_bundle(path: str | Path, like: tuple[PyTree, PyTree] | None = None) -> Bundle:
    """Reads what a failing step of `jgd.make_step(..., debug=True)`, or `jgd.debug_step`, has written.

    Args:
        path: The bundle's folder.
        like: `(state, batch)` of the same structure, for trees of classes that this function does not know how to
            make: it makes dicts, lists, tuples, named tuples and None.

    Returns:
        `(state, batch, info)`. The arrays are those of the failing step to the bit. `info` is a dict that holds
        `step`, `report`, `versions`, `x64` and the options of the step.

    Raises:
        FileNotFoundError: There is no bundle.
        ValueError: It is damaged, was written by a later format, or holds a class that `like` is needed for.
        TypeError: `path` is no path, or `like` no pair.

    Examples:
        >>> import jax.numpy as jnp, jgd, tempfile
        >>> optimizer = jgd.adam(0.1)
        >>> step = jgd.make_step(lambda w, batch: jnp.mean(jnp.log(w - batch["x"])), optimizer)
        >>> state = jgd.TrainState.create(jnp.ones(()), optimizer)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = jgd.debug_step(step, state, {"x": jnp.array([0.5, 1.0])}, folder=folder + "/bundle")
        ...     state, batch, info = jgd.load_bundle(report.bundle)
        >>> print(state.params, batch["x"], info["report"]["operation"], info["report"]["examples"])
        1.0 [0.5 1. ] log [1]
    """
    folder = as_path("load_bundle", "path", path)
    if like is not None and not (isinstance(like, tuple) and len(like) == 2):
        raise TypeError(f"load_bundle: like must be (state, batch), or None; got a {type(like).__name__}.")
    document, arrays = _contents(folder)
    if document["format"] > FORMAT:
        raise ValueError(f"{folder}: a bundle of format {document['format']}; this version reads up to {FORMAT}.")
    leaves: dict[str, dict[str, Any]] = {"state": {}, "batch": {}}
    for i, leaf in enumerate(document["leaves"]):
        leaves[leaf["tree"]][leaf["path"]] = _from_bytes(arrays[str(i)], leaf)
    trees = []
    for number, name in enumerate(("state", "batch")):
        if like is not None:
            named, treedef = jax.tree_util.tree_flatten_with_path(like[number])
            paths = [jax.tree_util.keystr(path) for path, _ in named]
            if set(paths) != set(leaves[name]):
                differ = sorted(set(paths) ^ set(leaves[name]))
                raise ValueError(f"{folder}: the {name} of the bundle and of like differ in {', '.join(differ)}.")
            trees.append(jax.tree.unflatten(treedef, [leaves[name][path] for path in paths]))
        else:
            trees.append(_build(document["structure"][name], "", leaves[name], folder))
    return Bundle(trees[0], trees[1], document["info"])


def _contents(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        document = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        with np.load(folder / "arrays.npz", allow_pickle=False) as file:
            arrays = dict(file)
    except (FileNotFoundError, NotADirectoryError) as error:
        expected = "expected a folder with bundle.json and arrays.npz"
        raise FileNotFoundError(f"no bundle at {folder}: {expected}.") from error
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"the bundle {folder} cannot be read: {error}.") from error
    if not isinstance(document, dict) or not {"format", "leaves", "structure", "info"} <= document.keys():
        raise ValueError(f"the bundle {folder} cannot be read: its bundle.json is not one that debug_step writes.")
    return document, arrays


def _to_bytes(leaf: Any) -> tuple[np.ndarray, dict[str, Any]]:
    kind: dict[str, Any] = {"kind": "jax" if isinstance(leaf, jax.Array) else "numpy"}
    if isinstance(leaf, bool | int | float | complex) and not isinstance(leaf, np.generic):
        kind = {"kind": type(leaf).__name__}
    elif isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        kind = {"kind": "key", "impl": str(jax.random.key_impl(leaf))}
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    raw = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
    return raw, kind | {"dtype": str(array.dtype), "shape": list(array.shape)}


def _from_bytes(raw: np.ndarray, leaf: Mapping[str, Any]) -> Any:
    array = np.frombuffer(raw.tobytes(), jnp.dtype(leaf["dtype"])).reshape(leaf["shape"]).copy()
    if leaf["kind"] == "numpy":
        return array
    if leaf["kind"] == "jax":
        with jax.enable_x64(True):  # else 64 bits would become 32
            return jnp.array(array)
    if leaf["kind"] == "key":
        return jax.random.wrap_key_data(jnp.array(array), impl=leaf["impl"])
    return array.item()


def _describe(tree: Any) -> Any:
    """The tree without its leaves, for JSON."""
    if tree is None:
        return {"is": "none"}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        fields: Any = getattr(tree, "_fields")  # noqa: B009
        parts = [[name, _describe(getattr(tree, name))] for name in fields]
        return {"is": "named tuple", "class": f"{type(tree).__module__}:{type(tree).__qualname__}", "parts": parts}
    if type(tree) in (list, tuple):
        return {"is": type(tree).__name__, "parts": [_describe(part) for part in tree]}
    if type(tree) is dict and all(isinstance(key, str) or type(key) is int for key in tree):
        return {"is": "dict", "parts": [[key, _describe(part)] for key, part in tree.items()]}
    if jax.tree_util.treedef_is_leaf(jax.tree.structure(tree)):
        return {"is": "leaf"}
    return {"is": "other", "class": type(tree).__name__}


def _build(node: Mapping[str, Any], path: str, leaves: Mapping[str, Any], folder: Path) -> Any:
    kind = node["is"]
    if kind == "none":
        return None
    if kind == "leaf":
        return leaves[path]
    if kind == "dict":
        return {key: _build(part, f"{path}[{key!r}]", leaves, folder) for key, part in node["parts"]}
    if kind in ("list", "tuple"):
        parts = [_build(part, f"{path}[{i}]", leaves, folder) for i, part in enumerate(node["parts"])]
        return parts if kind == "list" else tuple(parts)
    named_tuple = _named_tuple(node["class"]) if kind == "named tuple" else None
    if named_tuple is None:
        raise ValueError(
            f"{folder}: cannot make a {node['class']}, at {path or 'the root'}; pass like=(state, batch), of the same"
            " structure."
        )
    return named_tuple(**{name: _build(part, f"{path}.{name}", leaves, folder) for name, part in node["parts"]})


def _named_tuple(name: str) -> Any:
    module, _, qualified = name.partition(":")
    try:
        value: Any = importlib.import_module(module)
        for part in qualified.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError):
        return None
    return value if isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields") else None


def _put_in_place(draft: Path, target: Path) -> Path:
    """Gives the draft its name, or the next one that is free."""
    number = 0
    while True:
        place = target if number == 0 else target.with_name(f"{target.name}_{number}")
        if not place.exists():
            os.replace(draft, place)
            return place
        number += 1
