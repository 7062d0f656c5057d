"""Runs the code of networks that users bring: only what they named, and errors with their line.

A source in a spec says what builds it, and specs come out of files. A name in a file is not enough
to run code: it is run once the user has typed it in this process, or has allowed it.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import inspect
import os
import sys
import types
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from traceback import walk_tb
from typing import Any, TypeAlias

from joulemap import InputError, JoulemapError
from joulemap.regular_files import read_bytes

from .definition import ModuleDefinition, NetworkDefinition
from .packages import PackageNetwork

# Returns a NetworkDefinition, a torch module, or a torch module and its example inputs.
Factory: TypeAlias = Callable[..., Any]

MODULE, FILE = "factory:", "file:"
FORMS = "module:function or FILE.py:function"
MAX_SHOWN = 80
MAX_FILE_BYTES = 1 << 24

# Source -> factory, of all that users of this process have named.
_named: dict[str, Factory] = {}


def is_outside(source: str) -> bool:
    """Return whether a spec's source is code that is not joulemap's."""
    return source.startswith((MODULE, FILE)) or PackageNetwork.is_one(source)


def is_named(source: str) -> bool:
    """Return whether this process has been told to run a source."""
    return source in _named


def name_factory(name: str | Factory) -> str:
    """Return the source of a factory that the user names; from now on specs with it are built.

    Args:
        name: `module:function`, `FILE.py:function`, `timm:NAME`, `torchvision:NAME`, `hf:CLASS`, or
            a function itself.

    Raises:
        InputError: There is none, or its module fails when it is imported.
    """
    if not isinstance(name, str):
        if not callable(name):
            raise InputError(
                f"a network is a name, a spec or a function, not a {type(name).__name__}"
            )
        module = getattr(name, "__module__", None) or "__main__"
        function = getattr(name, "__qualname__", type(name).__qualname__)
        source, factory = f"{MODULE}{module}:{function}", name
    elif PackageNetwork.is_one(name):
        source, factory = name, PackageNetwork.named(name)
    elif _is_file(name.rpartition(":")[0] or name):
        source, factory = _in_file(name)
    else:
        source, factory = f"{MODULE}{name}", _in_module(name)
    _named[source] = factory
    return source


def allow(source: str) -> None:
    """Let a source of a file be built, as if its name had been typed.

    Raises:
        InputError: It cannot be found here, or is not the file that it was.
    """
    if not is_outside(source) or source in _named:
        return
    if not source.startswith(FILE):
        name_factory(source.removeprefix(MODULE))
        return
    name, _, digest = source.removeprefix(FILE).rpartition("@")
    path = f".{os.sep}{name.rpartition(':')[0]}"
    # Compared before anything of it is run.
    if hashlib.sha256(_content(Path(path), name)).hexdigest() != digest:
        raise InputError(
            f"{_shown(path)} is not the file that the spec was made of (SHA-256 {digest[:12]}...); "
            "name the network yourself to use it as it is now"
        )
    name_factory(f".{os.sep}{name}")


def factory_of(source: str) -> Factory:
    """Return the factory of a source that the user has named.

    Raises:
        InputError: It was only read from a file.
    """
    if source in _named:
        return _named[source]
    name = _typed(source)
    raise InputError(
        f"this spec comes from a file and names code of its own, '{_shown(name)}'; to run it, name "
        f"the network yourself ('{_shown(name)}' in place of the spec), or write allow_code=True"
    )


def call_factory(factory: Factory, source: str, **arguments: Any) -> NetworkDefinition:
    """Return what the factory of a network with a spec returns, checked.

    Raises:
        InputError: It needs other arguments, fails, or returns something else.
    """
    made = _made(factory, source, arguments)
    if not isinstance(made, NetworkDefinition):
        raise InputError(
            f"'{_shown(_typed(source))}' returned a {_shown(type(made).__name__)}; a network factory "
            "returns a joulemap.profiler.networks.NetworkDefinition(spec, build)"
        )
    return made


def call_any_factory(
    factory: Factory, source: str, **arguments: Any
) -> NetworkDefinition | ModuleDefinition:
    """Return what a factory returns: a network with a spec, or a torch module without one.

    Raises:
        InputError: It needs other arguments, fails, or returns something else.
    """
    from torch import nn

    made = _made(factory, source, arguments)
    if isinstance(made, NetworkDefinition):
        return made
    if isinstance(made, nn.Module):
        return ModuleDefinition(made)
    if isinstance(made, tuple | list) and len(made) == 2 and isinstance(made[0], nn.Module):
        return ModuleDefinition(made[0], made[1])
    raise InputError(
        f"'{_shown(_typed(source))}' returned a {_shown(type(made).__name__)}; a network factory "
        "returns a torch module, a tuple (module, example inputs), or a NetworkDefinition(spec, build)"
    )


def _made(factory: Factory, source: str, arguments: dict[str, Any]) -> object:
    name = _shown(_typed(source))
    if inspect.isbuiltin(factory):
        raise InputError(
            f"'{name}' is a function of Python itself; a network factory is a function of yours "
            "that returns a joulemap.profiler.networks.NetworkDefinition(spec, build)"
        )
    if needed := _needed(factory, arguments):
        raise InputError(
            f"'{name}' cannot be called without its arguments {_shown(', '.join(needed))}; a "
            "network factory needs none: give them defaults, or write a function that calls it"
        )
    with users_code(f"the network '{name}'"):
        return factory(**arguments)


def _typed(source: str) -> str:
    """Return a source as its user typed it, but for the folder of a file."""
    if PackageNetwork.is_one(source):
        return source
    return source.partition(":")[2].partition("@")[0]


def _needed(factory: Factory, arguments: Collection[str]) -> list[str]:
    """Return the arguments without which a function cannot be called, beside those given."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:
        return []
    return [
        item.name
        for item in parameters
        if item.default is item.empty
        and item.kind not in (item.VAR_POSITIONAL, item.VAR_KEYWORD)
        and item.name not in arguments
    ]


@contextlib.contextmanager
def users_code(what: str) -> Iterator[None]:
    """Run a user's code: what it prints goes to standard error, what fails is one sentence.

    Args:
        what: What is run, for the sentence.

    Raises:
        InputError: The code raised something, or left by `sys.exit`.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except JoulemapError as error:
        place = _place(error)
        if not place or place in str(error):
            raise
        raise InputError(f"{error}{place}") from error
    except (Exception, SystemExit) as error:
        kind = type(error).__name__
        said = _shown(" ".join(str(getattr(error, "msg", error) or "").split()))
        if isinstance(error, SystemExit):
            kind, said = "sys.exit", f"it ends the program with {_shown(str(error.code))!r}"
        raise InputError(
            f"{_shown(what)} fails: {kind}{f': {said}' if said else ''}{_place(error)}"
        ) from error


def code_digest(factory: Factory) -> str | None:
    """Return the SHA-256 of the files that build a factory's network; None if it has no file.

    These are the factory's own and, of an outside factory, all that are imported from its folder. Of
    an installed package's network it is that of its name and the package's version.
    """
    if isinstance(factory, PackageNetwork):
        return factory.digest()
    try:
        named = inspect.getsourcefile(inspect.unwrap(factory)) or ""
        file = Path(named).resolve()
        digest = hashlib.sha256(read_bytes(file, MAX_FILE_BYTES))
    except (TypeError, OSError):
        return None
    if not (getattr(factory, "__module__", None) or "").startswith("joulemap."):
        for other in sorted(_beside(file, Path(named).parent) - {file}):
            with contextlib.suppress(OSError):
                digest.update(hashlib.sha256(read_bytes(other, MAX_FILE_BYTES)).digest())
    return digest.hexdigest()


def _beside(file: Path, folder: Path) -> set[Path]:
    """Return the source files of modules that are imported from a file's folder."""
    folders = (f"{file.parent}{os.sep}", f"{folder}{os.sep}")
    found = set()
    for module in list(sys.modules.values()):
        origin = getattr(module, "__file__", None)
        if not (isinstance(origin, str) and origin.startswith(folders) and origin.endswith(".py")):
            continue
        if not _is_installed(origin, module.__name__):
            found.add(Path(origin).resolve())
    return found


# -- finding ---------------------------------------------------------------------------------------


def _is_file(path: str) -> bool:
    return path.endswith(".py") or os.sep in path


def _in_module(name: str) -> Factory:
    """Return the factory `module:function`, the current folder looked through last."""
    module_name, _, function = name.partition(":")
    if not module_name or not function:
        raise InputError(f"'{_shown(name)}' is no network factory; write {FORMS}")
    here = str(Path.cwd())
    # Console scripts, and Python with PYTHONSAFEPATH, do not look here by themselves.
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        with users_code(f"the module '{_shown(module_name)}'"):
            module = importlib.import_module(module_name)
    except InputError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name in _packages(module_name):
            raise InputError(
                f"the module '{_shown(module_name)}' cannot be imported: there is none of that "
                f"name in {_shown(here)} or on Python's path; write PATH/FILE.py:function for a "
                "file that lies elsewhere"
            ) from error
        raise InputError(
            f"the module of the network '{_shown(name)}' cannot be imported: {error}"
        ) from error
    return _member(module, function, f"the module '{_shown(module_name)}'")


def _packages(module_name: str) -> set[str]:
    parts = module_name.split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts) + 1)}


def _in_file(name: str) -> tuple[str, Factory]:
    """Return the source and the factory of `FILE.py:function`."""
    path, _, function = name.rpartition(":")
    if not path or not function or function.endswith(".py"):
        raise InputError(
            f"'{_shown(name)}' names no function; write FILE.py:function{_functions(name)}"
        )
    file = Path(path).expanduser()
    content = _content(file, name)
    digest = hashlib.sha256(content).hexdigest()
    module = _loaded(file.resolve(), content, digest, name)
    factory = _member(module, function, f"the file {_shown(path)}")
    return f"{FILE}{file.name}:{function}@{digest}", factory


def _content(file: Path, name: str) -> bytes:
    try:
        if not file.is_file():
            what = "is no regular file" if file.exists() else f"is not there (from {Path.cwd()})"
            raise InputError(f"the file {_shown(str(file))} of the network {what[:150]}")
        if file.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{_shown(str(file))} is no Python file: it is too large")
        return read_bytes(file, MAX_FILE_BYTES)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read the network '{_shown(name)}': {error}"[:300]) from error


def _loaded(file: Path, content: bytes, digest: str, name: str) -> types.ModuleType:
    """Return the module of a file's content, run once."""
    title = f"{file.stem}_{digest[:16]}"
    known = sys.modules.get(title)
    if known is not None and known.__file__ == str(file):
        return known
    module = types.ModuleType(title)
    module.__file__ = str(file)
    # What lies beside the file is found, after all that is installed.
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    importlib.invalidate_caches()
    sys.modules[title] = module
    try:
        with users_code(f"the file of the network '{_shown(name)}'"):
            exec(compile(content, str(file), "exec"), vars(module))  # noqa: S102 - the user named it
    except BaseException:
        del sys.modules[title]
        raise
    return module


def _member(module: types.ModuleType, function: str, where: str) -> Factory:
    found: Any = module
    for part in function.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        origin = getattr(module, "__file__", None)
        advice = _functions(str(origin)) if origin else ""
        raise InputError(f"{where} has no function '{_shown(function)}'{advice}")
    factory: Factory = found
    return factory


def _functions(file: str) -> str:
    """Return the functions of a file that take no arguments, as advice; nothing of it is run."""
    try:
        content = read_bytes(file, MAX_FILE_BYTES)
        names = [
            item.name
            for item in ast.parse(content).body
            if isinstance(item, ast.FunctionDef)
            and len(item.args.defaults) == len(item.args.args) + len(item.args.posonlyargs)
            and not item.name.startswith("_")
        ]
    except (OSError, ValueError, SyntaxError, RecursionError):
        return ""
    return f"; it defines {_shown(', '.join(names))}" if names else ""


def _place(error: BaseException) -> str:
    """Return the line of the user's file where something went wrong, as the end of a sentence."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({Path(error.filename).name}, line {error.lineno})"
    places = [
        (Path(frame.f_code.co_filename), line)
        for frame, line in walk_tb(error.__traceback__)
        if not _is_installed(frame.f_code.co_filename, frame.f_globals.get("__name__"))
    ]
    if not places:
        return ""
    file, line = places[-1]
    return f" ({_shown(file.name)}, line {line})"


def _is_installed(file: str, module: object) -> bool:
    """Return whether code is joulemap's, Python's or of an installed package."""
    path = Path(file).resolve()
    return (
        file.startswith("<")
        or str(module).startswith("joulemap.")
        or not {"site-packages", "dist-packages"}.isdisjoint(path.parts)
        or path.is_relative_to(Path(os.__file__).resolve().parent)
    )


def _shown(text: str) -> str:
    text = "".join(each if each.isprintable() else "?" for each in text)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
