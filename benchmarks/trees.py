"""The parameter trees that steps are timed on: shapes of real models, and some extremes."""

import json
import math
from collections.abc import Callable
from pathlib import Path

Shapes = dict[str, tuple[int, ...]]


def resnet50() -> Shapes:
    """ResNet-50: 161 leaves, 25.6 M parameters, kernels HWIO."""
    shapes: Shapes = {"stem/kernel": (7, 7, 3, 64), "stem/scale": (64,), "stem/bias": (64,)}

    def conv(name: str, size: int, fan_in: int, fan_out: int) -> None:
        shapes[f"{name}/kernel"] = (size, size, fan_in, fan_out)
        shapes[f"{name}/scale"] = shapes[f"{name}/bias"] = (fan_out,)

    channels = 64
    for stage, (width, blocks) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True)):
        for block in range(blocks):
            name = f"stage{stage}/block{block}"
            conv(f"{name}/conv1", 1, channels, width)
            conv(f"{name}/conv2", 3, width, width)
            conv(f"{name}/conv3", 1, width, 4 * width)
            if block == 0:
                conv(f"{name}/shortcut", 1, channels, 4 * width)
            channels = 4 * width
    return shapes | {"head/kernel": (2048, 1000), "head/bias": (1000,)}


def gpt2(layers: int, width: int, vocabulary: int, context: int) -> Shapes:
    """A GPT-2: twelve leaves a layer and four besides."""
    shapes: Shapes = {"wte": (vocabulary, width), "wpe": (context, width), "ln/scale": (width,), "ln/bias": (width,)}
    for layer in range(layers):
        for name, columns, rows in (
            ("attn/qkv", 3 * width, width),
            ("attn/out", width, width),
            ("mlp/up", 4 * width, width),
            ("mlp/down", width, 4 * width),
        ):
            shapes[f"h{layer}/{name}/kernel"] = (rows, columns)
            shapes[f"h{layer}/{name}/bias"] = (columns,)
        for name in ("ln1", "ln2"):
            shapes[f"h{layer}/{name}/scale"] = shapes[f"h{layer}/{name}/bias"] = (width,)
    return shapes


def yolo26n() -> Shapes:
    """Ultralytics' YOLO26n detector as it is trained: 366 leaves, 2.6 M parameters, kernels HWIO.

    The shapes were read off the model that the package builds and are kept in a file beside this one: 114 convolutions
    with batch norm, of which most are small, and 12 with a bias.
    """
    table = json.loads(Path(__file__).with_name("yolo26n.json").read_text(encoding="utf-8"))
    shapes: Shapes = {}
    for kind, vectors in (("conv_norm", ("scale", "bias")), ("conv_bias", ("bias",))):
        for name, kernel in table[kind].items():
            shapes[f"{name}/kernel"] = tuple(kernel)
            shapes |= {f"{name}/{vector}": (kernel[-1],) for vector in vectors}
    return shapes


def matrices(count: int, rows: int, columns: int) -> Shapes:
    """Nothing but matrices of one shape."""
    return {f"w{i:03d}": (rows, columns) for i in range(count)}


TREES: dict[str, Callable[[], Shapes]] = {
    "one25M": lambda: {"w": (5000, 5000)},
    "resnet50": resnet50,
    "gpt2s": lambda: gpt2(layers=12, width=768, vocabulary=50257, context=1024),
    "gpt2tiny": lambda: gpt2(layers=6, width=128, vocabulary=512, context=256),
    "small1000": lambda: {f"w{i:04d}": (64,) for i in range(1000)},
    "yolo26n": yolo26n,
    "muon200": lambda: matrices(200, 32, 64),
    "muon48": lambda: matrices(48, 128, 128),
}


def size(name: str) -> int:
    """Its parameters."""
    return sum(map(math.prod, TREES[name]().values()))


def describe(name: str) -> str:
    """Its leaves and parameters, in words."""
    return f"{name} ({len(TREES[name]()):,} leaves, {size(name) / 1e6:.1f} M)"
