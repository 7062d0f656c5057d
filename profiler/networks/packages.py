"""Networks of installed packages by their names there: random weights, nothing is downloaded."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.metadata
import inspect
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from joulemap import InputError
from joulemap.showable_text import showable

if TYPE_CHECKING:
    from torch import nn

# What a name begins with -> the package that is imported.
PACKAGES = {"timm": "timm", "torchvision": "torchvision", "hf": "transformers"}
# torchvision's import stops where its compiled operators do not load, as beside a torch for the CPU
# alone; only detectors call them.
OPERATORS = ("nms", "qnms")
# An ONNX graph holds no more; the default Llama has 27 GB.
MAX_BYTES = 2 << 30

# Operators are forgotten with the library that declares them.
_DECLARED: list[Any] = []


@dataclass(frozen=True)
class PackageNetwork:
    """A function without arguments that makes the network of a name like `timm:resnet50`.

    Attributes:
        scheme: `timm`, `torchvision` or `hf`.
        name: Of the architecture; of `hf`, the class of its configuration.
    """

    scheme: str
    name: str

    @classmethod
    def is_one(cls, text: str) -> bool:
        """Return whether a name or a source is a network of a package.

        Example:
            >>> PackageNetwork.is_one("hf:BertConfig"), PackageNetwork.is_one("own:net")
            (True, False)
        """
        return text.partition(":")[0] in PACKAGES and ":" in text

    @classmethod
    def named(cls, text: str) -> PackageNetwork:
        """Return the network of a name; nothing is imported.

        Raises:
            InputError: It names no network.
        """
        scheme, _, name = text.partition(":")
        if not name or not name.isprintable() or ":" in name:
            raise InputError(
                f"'{showable(text, 80)}' names no network; write timm:NAME, torchvision:NAME or "
                "hf:CONFIG_CLASS, such as timm:resnet50 or hf:BertConfig"
            )
        return cls(scheme, name)

    def __call__(self) -> nn.Module:
        """Return the network with random weights.

        Raises:
            InputError: The package is not there, or has no network of that name.
        """
        make = {"timm": _timm, "torchvision": _torchvision, "hf": _transformers}[self.scheme]
        package = self._package()
        with _offline():
            return make(package, self.name)

    def digest(self) -> str | None:
        """Return the SHA-256 of its name and its package's version; None if it is not installed."""
        package = PACKAGES[self.scheme]
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None
        return hashlib.sha256(f"{package} {version} {self.name}".encode()).hexdigest()

    def _package(self) -> Any:
        package = PACKAGES[self.scheme]
        text = showable(f"{self.scheme}:{self.name}", 80)
        try:
            # transformers does without, but not with one that does not load.
            with contextlib.suppress(*([ModuleNotFoundError] if self.scheme == "hf" else [])):
                _import_torchvision()
            return importlib.import_module(package)
        except ModuleNotFoundError as error:
            if error.name != package:
                raise InputError(
                    f"'{text}' needs the package {showable(error.name, 40)}, which is not installed: "
                    f"pip install {showable(error.name, 40)}"
                ) from error
            raise InputError(
                f"'{text}' is of the package {package}, which is not installed: pip install {package}"
            ) from error
        except Exception as error:
            raise InputError(
                f"the package {package} of '{text}' cannot be imported: {type(error).__name__}: "
                f"{showable(error, 120)}; install versions that belong to each other"
            ) from error


def _import_torchvision() -> None:
    """Import torchvision, without its compiled operators where they do not load."""
    import torch

    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        _DECLARED.append(library)
        for operator in OPERATORS:
            with contextlib.suppress(RuntimeError):  # It is known already.
                library.define(
                    f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )
        importlib.import_module("torchvision")


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Let no package fetch weights by itself, as some configurations ask for trained backbones."""
    try:
        constants: Any = importlib.import_module("huggingface_hub.constants")
    except ModuleNotFoundError:
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _timm(timm: Any, name: str) -> nn.Module:
    # A tag after a dot tells weights, which are not wanted; `hf-hub:` names would be downloaded.
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise _unknown("timm", name, timm.list_models())
    module: nn.Module = timm.create_model(architecture, pretrained=False)
    return module


def _torchvision(torchvision: Any, name: str) -> nn.Module:
    models = torchvision.models
    if name not in models.list_models():
        raise _unknown("torchvision", name, models.list_models())
    parameters = inspect.signature(models.get_model_builder(name)).parameters
    # Detectors would load a trained backbone otherwise.
    without = {key: None for key in ("weights", "weights_backbone") if key in parameters}
    module: nn.Module = models.get_model(name, **without)
    return module


def _transformers(transformers: Any, name: str) -> nn.Module:
    import torch

    base = transformers.PretrainedConfig
    kind = getattr(transformers, name, None) if name.isidentifier() else None
    if not (inspect.isclass(kind) and issubclass(kind, base)):
        known = [each for each in dir(transformers) if each.endswith("Config")]
        raise _unknown("hf", name, known)
    config = kind()
    if hasattr(config, "use_cache"):
        config.use_cache = False  # Outputs of one call; a cache is for the next one.
    if hasattr(config, "use_pretrained_backbone"):
        config.use_pretrained_backbone = False
    auto = transformers.AutoModel
    # On no device first: that costs nothing, and tells how large it is.
    with torch.device("meta"):
        size = sum(
            each.numel() * each.element_size() for each in auto.from_config(config).parameters()
        )
    if size > MAX_BYTES:
        raise InputError(
            f"'hf:{name}' has {size / 1e9:.0f} GB of parameters by default, and an ONNX graph holds 2 "
            "GB; write a function that returns a smaller one: AutoModel.from_config(...)"
        )
    module: nn.Module = auto.from_config(config, dtype=torch.float32)
    return module


def _unknown(scheme: str, name: str, known: Iterable[str]) -> InputError:
    near = difflib.get_close_matches(name, [*known], n=3, cutoff=0.5)
    advice = f"; similar names are {', '.join(near)}" if near else ""
    package = PACKAGES[scheme]
    return InputError(
        f"{package} has no network '{showable(name, 80)}'{advice}"
        if scheme != "hf"
        else f"{package} has no configuration class '{showable(name, 80)}'{advice}"
    )
