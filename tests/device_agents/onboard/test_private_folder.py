"""Folders that nobody else can change, however others prepared the way to them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap.device_agents.onboard import private_folder
from joulemap.device_agents.onboard.private_folder import UnsafeError, open_file, open_folder

NOBODY = 65534
OWN = ("agents", "more")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def opened(path: Path, own: tuple[str, ...] = OWN, *, make: bool = True) -> Path:
    """Return the path of the folder that is really opened."""
    fd = open_folder(str(path), own, make=make)
    try:
        return Path(f"/proc/self/fd/{fd}").readlink()
    finally:
        os.close(fd)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o177])
def test_what_is_made_is_this_users_alone(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        assert opened(tmp_path / "a/b") == tmp_path / "a/b/agents/more"
    finally:
        os.umask(before)
    made = [tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/agents", tmp_path / "a/b/agents/more"]
    assert {mode_of(path) & 0o077 for path in made} == {0}


def test_nothing_is_made_where_it_is_only_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "a", make=False)
    assert not list(tmp_path.iterdir())


def _foreign(path: Path) -> None:
    path.mkdir()
    os.chown(path, NOBODY, NOBODY)


def _open_to_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def _open_to_a_group(path: Path) -> None:
    path.mkdir()
    # Of the group `nogroup`, in which others are.
    os.chown(path, os.geteuid(), NOBODY)
    path.chmod(0o770)


def _foreign_link(path: Path) -> None:
    path.with_name("elsewhere").mkdir()
    path.symlink_to("elsewhere")
    os.lchown(path, NOBODY, NOBODY)


@pytest.mark.parametrize("prepare", [_foreign, _open_to_all, _open_to_a_group, _foreign_link])
@pytest.mark.parametrize("place", ["way", "way/base"])
def test_no_folder_on_the_way_may_be_others_to_change(
    tmp_path: Path, prepare: Callable[[Path], None], place: str
) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    prepare(tmp_path / place)
    with pytest.raises(UnsafeError, match=r"belongs to another user|can be written by other"):
        opened(tmp_path / "way/base")
    assert not list(tmp_path.rglob("agents"))


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("kind", ["folder", "link", "file", "pipe", "socket"])
def test_in_a_shared_folder_nobody_can_plant_what_is_joulemaps(
    tmp_path: Path, name: str, kind: str
) -> None:
    shared, victim = tmp_path / "shared", tmp_path / "victim"
    shared.mkdir()
    shared.chmod(0o1777)
    victim.mkdir()
    base = shared if name == OWN[0] else shared / OWN[0]
    base.mkdir(mode=0o700, exist_ok=True)
    planted = base / name
    if kind == "folder":
        planted.mkdir(mode=0o777)
    elif kind == "link":
        planted.symlink_to(victim)
    elif kind == "file":
        planted.write_text("")
    elif kind == "pipe":
        os.mkfifo(planted)
    else:
        os.mknod(planted, stat.S_IFSOCK | 0o777)
    os.lchown(planted, NOBODY, NOBODY)
    with pytest.raises(UnsafeError, match="belongs to another user"):
        opened(shared)
    assert not list(victim.iterdir())


def test_own_folders_that_an_umask_left_open_are_closed(tmp_path: Path) -> None:
    (tmp_path / "base/agents/more").mkdir(parents=True)
    for path in (tmp_path / "base/agents", tmp_path / "base/agents/more"):
        path.chmod(0o777)
    opened(tmp_path / "base")
    assert mode_of(tmp_path / "base/agents") == mode_of(tmp_path / "base/agents/more") == 0o700


def test_links_of_this_user_are_followed_and_what_they_lead_to_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.cache").symlink_to("../disk")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "far").symlink_to(tmp_path / "home/.cache")
    assert opened(tmp_path / "far", ()) == tmp_path / "disk"
    assert opened(tmp_path / "home/./.cache/new", ()) == tmp_path / "disk/new"
    with pytest.raises(OSError, match="Too many levels"):
        opened(tmp_path / "round")
    os.chown(tmp_path / "disk", NOBODY, NOBODY)
    with pytest.raises(UnsafeError, match=r"disk belongs to another user"):
        opened(tmp_path / "far", ())


def test_a_private_group_is_no_other_user(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base").chmod(0o775)
    assert private_folder.is_own_group(os.getegid(), os.geteuid())
    opened(tmp_path / "base")
    # A list of further users shows as rights of the group.
    further_users = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x07\0\xfe\xff\0\0" + (
        b"\x04\0\x05\0\xff\xff\xff\xff\x10\0\x07\0\xff\xff\xff\xff\x20\0\x05\0\xff\xff\xff\xff"
    )
    os.setxattr(tmp_path / "base", "system.posix_acl_access", further_users)
    with pytest.raises(UnsafeError, match="can be written by other users"):
        opened(tmp_path / "base")


def _link_to(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def _hard_link_to(path: Path, victim: Path) -> None:
    os.link(victim, path)


def _pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def _others_file(path: Path, _: Path) -> None:
    path.write_text("theirs")
    os.chown(path, NOBODY, NOBODY)


@pytest.mark.parametrize("plant", [_link_to, _hard_link_to, _pipe, _others_file])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR | os.O_CREAT | os.O_TRUNC])
def test_a_planted_file_is_neither_read_nor_cut(
    tmp_path: Path, plant: Callable[[Path, Path], None], flags: int
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("secret")
    plant(tmp_path / "lock", victim)
    with pytest.raises(UnsafeError):
        open_file(str(tmp_path / "lock"), flags)
    assert victim.read_text() == "secret"


@pytest.mark.parametrize(
    ("folders", "user"),
    [
        # As Android lays them out: the system's, which apps and the shell may pass but not change.
        ({"data": (1000, 0o771), "data/local": (0, 0o751), "data/local/tmp": (2000, 0o771)}, 2000),
        ({"data": (1000, 0o771), "data/local": (0, 0o751), "data/local/tmp": (2000, 0o771)}, 0),
        (
            {
                "data": (1000, 0o771),
                "data/data": (1000, 0o771),
                "data/data/com.termux": (10123, 0o700),
                "data/data/com.termux/files": (10123, 0o700),
            },
            10123,
        ),
    ],
)
def test_androids_folders_pass_and_only_on_android(
    tmp_path: Path, folders: dict[str, tuple[int, int]], user: int
) -> None:
    for name, (owner, mode) in folders.items():
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, owner, owner)
        (tmp_path / name).chmod(mode)
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(mode_of(folder) | 0o011)
    cache = tmp_path / list(folders)[-1] / "joulemap"
    program = (
        "import grp, os, pwd; from joulemap.device_agents.onboard import private_folder as p\n"
        f"os.setgid({user}); os.setuid({user})\n"
        f"os.close(p.open_folder({str(cache)!r}, ('agents',)))"
    )

    def run(**variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program],
            env={"PATH": os.environ["PATH"], **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    assert "belongs to another user" in run().stderr
    assert run(ANDROID_ROOT="/system").stderr == ""
    assert mode_of(cache / "agents") == 0o700
    assert (cache / "agents").stat().st_uid == user


# Becomes user 1000 in a name space that knows him only, under the number 0, and looks at a folder.
IN_A_NAME_SPACE = """
import ctypes, grp, os, pwd, sys
from joulemap.device_agents.onboard import private_folder
(told, tell), (done, do) = os.pipe(), os.pipe()
child = os.fork()
if child:
    os.read(told, 1)
    for name, text in (("setgroups", "deny"), ("uid_map", "0 1000 1"), ("gid_map", "0 1000 1")):
        with open(f"/proc/{child}/{name}", "w") as file:
            file.write(text)
    os.write(do, b".")
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert ctypes.CDLL(None).unshare(0x10000000) == 0
os.write(tell, b".")
os.read(done, 1)
os.setresgid(0, 0, 0)
os.setresuid(0, 0, 0)
assert os.stat("/").st_uid == 65534
try:
    os.close(private_folder.open_folder(sys.argv[1], ("agents",)))
except private_folder.UnsafeError as error:
    print(error.reason)
"""


@pytest.fixture
def far_from_shared_folders() -> Iterator[Path]:
    """A folder on whose way nobody but root may make anything."""
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_root_outside_of_a_container_has_no_number_and_is_no_other_user(
    far_from_shared_folders: Path,
) -> None:
    mine, shared = far_from_shared_folders / "mine", far_from_shared_folders / "shared"
    for folder in (mine, shared):
        folder.mkdir()
        os.chown(folder, 1000, 1000)
    shared.chmod(0o1777)
    (shared / "agents").mkdir()
    os.chown(shared / "agents", NOBODY, NOBODY)

    def run(path: Path) -> str:
        command = [sys.executable, "-c", IN_A_NAME_SPACE, str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert run(mine) == ""
    # Where everybody may make something, who has no number may be anybody.
    assert "belongs to another user" in run(shared)


@given(
    st.lists(
        st.tuples(st.sampled_from([0, NOBODY, 1000]), st.integers(0, 0o1777)),
        min_size=1,
        max_size=4,
    )
)
def test_a_path_is_taken_exactly_if_no_other_user_could_change_it(
    tmp_path_factory: pytest.TempPathFactory, levels: list[tuple[int, int]]
) -> None:
    root = tmp_path_factory.mktemp("levels")
    path = root
    for number, (owner, mode) in enumerate(levels):
        path = path / str(number)
        path.mkdir()
        os.chown(path, owner, owner)
        path.chmod(mode)
    # Group 0 is root's own.
    is_safe = all(owner == 0 and (mode & 0o1000 or not mode & 0o002) for owner, mode in levels)
    try:
        fd = open_folder(str(path), ("agents",))
    except UnsafeError:
        assert not is_safe
    else:
        os.close(fd)
        assert is_safe
