"""Files whose names come from outside are opened by one function; a test reads the code for it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("profiler", "device_agents", "models", "datasets", "compressors", "src/joulemap")
# What runs on the device reads the kernel's files, and stands alone; a simulated one writes such
# files into folders that it made.
ELSEWHERE = (
    "device_agents/onboard/",
    "device_agents/runtimes/",
    "device_agents/meters/",
    "device_agents/simulated/",
)
# Names that open, read, write or replace a file by its path, as functions or as methods.
BY_NAME = {
    *("open", "fdopen", "read_text", "read_bytes", "write_text", "write_bytes", "savefig"),
    *("read_csv", "read_parquet", "read_table", "write_table", "read_metadata", "ParquetFile"),
    *(
        "read_json",
        "read_excel",
        "read_feather",
        "read_pickle",
        "to_csv",
        "to_parquet",
        "to_pickle",
    ),
    *("to_excel", "loadtxt", "savetxt", "fromfile", "tofile", "genfromtxt", "memmap", "savez"),
    *("load_file", "save_file", "safe_open", "load_model", "save_model", "from_path", "from_file"),
    *("from_private_key_file", "load_host_keys", "NamedTemporaryFile", "mkstemp", "ZipFile"),
    *("rename", "copyfile", "copy2", "move", "link", "symlink", "mknod", "mkfifo"),
}
# Methods of modules that have harmless namesakes.
OF_MODULES = {
    ("json", "load"),
    ("tomllib", "load"),
    ("np", "load"),
    ("np", "save"),
    ("torch", "load"),
    ("torch", "save"),
    ("onnx", "load"),
    ("onnx", "save"),
    ("export", "load"),
    ("os", "replace"),
    ("os", "truncate"),
    ("gzip", "open"),
    ("io", "open"),
    ("tarfile", "open"),
}
# What is imported from these is the one function, or uses it.
OURS = ("regular_files", "parquet_file")
# Where such a call is right, with the reason.
ALLOWED = {
    ("src/joulemap/regular_files.py", "open"): "the one function",
    ("src/joulemap/regular_files.py", "read_bytes"): "the one function",
    ("src/joulemap/plug_ins.py", "read_text"): "what installed packages say of themselves",
    ("src/joulemap/interruption.py", "open"): "the device that swallows everything",
    ("device_agents/transports/ssh_authentication.py", "from_path"): "checked by the one function",
    ("profiler/command_line/demo.py", "savefig"): "into memory",
    ("src/joulemap/regular_files.py", "fdopen"): "a descriptor of the one function",
    ("datasets/journal.py", "mkstemp"): "a new file, which becomes the journal by `link`",
    ("datasets/journal.py", "fdopen"): "the same",
    ("datasets/journal.py", "link"): "fails where anything is there already",
    ("datasets/journal.py", "open"): "the folder, to write its entry to the disk",
    ("datasets/journal_lines.py", "fdopen"): "a descriptor of the one function",
    ("datasets/parquet_file.py", "ParquetFile"): "bytes that were read by the one function",
    ("datasets/parquet_file.py", "write_table"): "into memory",
    ("datasets/dataset_files.py", "open"): "the folder, for its lock",
    ("datasets/dataset_files.py", "NamedTemporaryFile"): "whether the folder can be written",
    ("datasets/public/readers.py", "read_csv"): "bytes that were read by the one function",
    ("profiler/command_line/tables.py", "read_csv"): "bytes that were read by the one function",
    ("profiler/networks/importing/onnx_child.py", "fdopen"): "its own standard output",
    ("profiler/networks/importing/onnx_child.py", "save_model"): "a folder made for the result",
    ("profiler/report/page.py", "read_text"): "joulemap's own style sheet",
    ("profiler/cache.py", "fdopen"): "descriptors of `private_folder.open_file`",
    ("profiler/cache.py", "rename"): "within a folder of this user's alone",
    ("profiler/networks/graph/shrunk_onnx.py", "write_bytes"): "into a folder made for it",
    ("profiler/command_line/standard_streams.py", "open"): "the device that swallows everything",
    ("device_agents/host/agent_archive.py", "read_bytes"): "joulemap's own modules",
    ("device_agents/host/agent_archive.py", "ZipFile"): "into memory",
    ("device_agents/transports/local.py", "fdopen"): "descriptors of `private_folder.open_file`",
    ("device_agents/transports/local.py", "rename"): "within a folder of this user's alone",
    ("device_agents/transports/openssh_client.py", "write_bytes"): "into a folder made for it",
    ("device_agents/transports/remote_files.py", "read_text"): "joulemap's own module",
}


def opened(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the calls in a module that open a file by its path, with their lines."""
    ours = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith(OURS)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(id=name):
                if name in BY_NAME and name not in ours:
                    yield name, node.lineno
            case ast.Attribute(attr=name, value=value):
                module = (
                    value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")
                )
                if name in BY_NAME or (module, name) in OF_MODULES:
                    yield name, node.lineno


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield every module that does not run on a device."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            is_link = folder == "src/joulemap" and path.parent != ROOT / folder
            if name.startswith(ELSEWHERE) or path.name == "testing.py" or is_link:
                continue
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def test_no_module_opens_a_file_of_a_users_by_itself() -> None:
    found = {
        (name, call): f"{name}:{line} calls {call}"
        for name, tree in modules()
        for call, line in opened(tree)
    }
    unknown = [text for key, text in sorted(found.items()) if key not in ALLOWED]
    assert not unknown, "open it by joulemap.regular_files, or say in ALLOWED why not"
    assert not set(ALLOWED) - set(found), "no longer needed in ALLOWED"


def test_every_way_of_opening_is_seen() -> None:
    code = "open(p); Path(p).read_text(); pd.read_csv(p); os.open(p, 0); json.load(f); pq.ParquetFile(p)"
    assert [name for name, _ in opened(ast.parse(code))] == [
        *("open", "read_text", "read_csv", "open", "load", "ParquetFile")
    ]
