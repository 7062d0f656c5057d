"""Prints the folder of a stand-in's root file system; `build` makes it first where it is missing.

    python tests/board/roots.py build phone    # ten seconds: Debian's adbd for this machine
    python tests/board/roots.py build board    # a minute: an arm64 Debian with a kernel
    python tests/board/roots.py build sensors  # a kernel with drivers of batteries and power meters
    python tests/board/roots.py path phone     # fails where it has not been made

They are made once, from the mirror in this machine's own apt sources and from the Python package
index that pip uses, without running a program of another processor, and kept in the user's cache
folder under a name that holds a hash of this file: a changed recipe makes them anew.
"""

from __future__ import annotations

import argparse
import fcntl
import gzip
import hashlib
import lzma
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SUITE = "trixie"
PYTHON = "3.13"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGES = ("adbd", "base-files", "base-passwd", "busybox-static", "procps", "python3")
BOARD_PACKAGES = ("iproute2", "openssh-server", "openssh-sftp-server")
WHEELS = ("numpy==2.4.6", "onnxruntime==1.31.1", "flatbuffers", "protobuf", "packaging")
BOARD_WHEELS = (
    "ai-edge-litert==2.3.0",
    "backports.strenum",
    "tqdm",
    "typing_extensions",
)
# Kernel modules; what they depend on is found.
BOARD_MODULES = (
    "9p",
    "9pnet_virtio",
    "crc32c_generic",
    "ext4",
    "sch_netem",
    "virtio_blk",
    "virtio_net",
)
SENSOR_MODULES = (
    "9p",
    "9pnet_virtio",
    "i2c_dev",
    "i2c_stub",
    "sbs_battery",
    "ina2xx_adc",
)
APPLETS = (
    *("cat", "chmod", "chroot", "cp", "hostname", "insmod", "ip", "mkdir", "mount", "poweroff"),
    *("sh", "sync"),
)
BOARD_INIT = """#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for module in {modules}; do insmod /modules/$module.ko; done
mkdir -p /lower /upper
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro root /lower
mount -t ext4 /dev/vda /upper
root=/lower
mount -t tmpfs tmpfs $root/run; mkdir -p $root/run/sshd
mount -t devtmpfs dev $root/dev; mkdir -p $root/dev/pts $root/dev/shm
mount -t devpts devpts $root/dev/pts; mount -t tmpfs tmpfs $root/dev/shm
mount -t proc proc $root/proc; mount -t sysfs sysfs $root/sys
mount -t tmpfs tmpfs $root/tmp
mkdir -p /upper/root /upper/tmp /upper/root/.ssh; chmod 1777 /upper/tmp; chmod 700 /upper/root
cp /upper/authorized_keys /upper/root/.ssh/; chmod -R go-rwx /upper/root/.ssh
mount -o bind /upper/root $root/root; mount -o bind /upper/tmp $root/data/local/tmp
mount -o bind /upper/keys $root/etc/ssh/keys
ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
hostname board
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root
chroot $root /usr/sbin/adbd >/dev/null 2>&1 &
exec chroot $root /usr/sbin/sshd -D -e
"""
# A smart battery at 0x0b and an INA219 at 0x40 of a bus without wires; runs one program, ends.
SENSOR_INIT = """#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for module in {modules}; do
  case $module in i2c_stub) options=chip_addr=0x0b,0x40;; *) options=;; esac
  insmod /modules/$module.ko $options
done
mkdir -p /lower
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro root /lower
root=/lower
mount -t devtmpfs dev $root/dev; mount -t proc proc $root/proc; mount -t sysfs sysfs $root/sys
mount -t tmpfs tmpfs $root/tmp; mount -t tmpfs tmpfs $root/root
mkdir $root/tmp/job
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 job $root/tmp/job
export PATH=/usr/local/bin:/usr/sbin:/usr/bin HOME=/root
chroot $root /usr/bin/python3 -B /tmp/job/main.py
sync; poweroff -f
"""
SSHD_CONFIG = """Port 22
HostKey /etc/ssh/keys/host
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PerSourcePenalties no
MaxStartups 100
Subsystem sftp internal-sftp
"""
# What Android answers; the rest of its userland is not there.
GETPROP = """#!/bin/sh
case "$1" in
  ro.product.model) echo "Stand-in";;
  ro.build.version.release) echo 13;;
  ro.build.fingerprint) echo "joulemap/standin/standin:13/TEST/1:user/test-keys";;
esac
"""


def main() -> None:
    """Read the command line; print a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("build", "path"))
    parser.add_argument("name", choices=tuple(MAKERS))
    arguments = parser.parse_args()
    folder = cache() / f"{arguments.name}-{recipe()}"
    if arguments.action == "build":
        build(arguments.name, folder)
    if not (folder / "complete").is_file():
        target = "test-roots" if arguments.name == "phone" else "test-board"
        sys.exit(f"the root file system '{arguments.name}' is missing; run: make {target}")
    print(folder)


def cache() -> Path:
    """Return the folder that holds the roots."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "joulemap-tests"


def recipe() -> str:
    """Return what changes when this file does."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]


def build(name: str, folder: Path) -> None:
    """Make a root in a folder beside its place and move it there when it is complete."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "complete").is_file():
            return
        for old in cache().glob(f"{name}-*"):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=cache()) as work:
            made = Path(work) / "made"
            made.mkdir()
            MAKERS[name](made)
            (made / "complete").touch()
            made.rename(folder)


def make_phone(folder: Path) -> None:
    """A Debian for this machine's processor, in which adbd runs in a change of root."""
    arch = run("dpkg", "--print-architecture").strip()
    root = folder / "root"
    extract(root, arch, PACKAGES)
    install_wheels(root, platform.machine(), WHEELS)
    compile_python(root, root)
    write(root / "usr/local/bin/getprop", GETPROP, 0o755)


def make_board(folder: Path) -> None:
    """An arm64 Debian, its kernel, and what starts them both."""
    root = folder / "root"
    extract(root, "arm64", (*PACKAGES, *BOARD_PACKAGES))
    with (root / "etc/passwd").open("a") as file:
        file.write("sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n")
    write(root / "etc/ssh/sshd_config", SSHD_CONFIG, 0o644)
    (root / "etc/ssh/keys").mkdir()
    install_wheels(root, "aarch64", (*WHEELS, *BOARD_WHEELS))
    # Needs instructions that this processor, and a Raspberry Pi 4, does not have.
    for accelerator in root.rglob("libLiteRtWebGpuAccelerator.so"):
        accelerator.unlink()
    phone = cache() / f"phone-{recipe()}"
    build("phone", phone)
    compile_python(root, phone / "root")
    make_kernel(folder, root, "arm64", BOARD_MODULES, BOARD_INIT)


def make_sensors(folder: Path) -> None:
    """A Debian for 64-bit PCs that has Python, and a kernel with drivers of sensors."""
    root = folder / "root"
    extract(root, "amd64", ("base-files", "base-passwd", "busybox-static", "python3"))
    make_kernel(folder, root, "amd64", SENSOR_MODULES, SENSOR_INIT)


def extract(root: Path, arch: str, packages: Sequence[str]) -> None:
    """Unpack Debian packages with all that they need; none of their programs is run."""
    run(
        "mmdebstrap",
        "--quiet",
        "--mode=root" if os.geteuid() == 0 else "--mode=chrootless",
        f"--arch={arch}",
        "--variant=extract",
        "--skip=check/qemu",
        f"--keyring={KEYRING}",
        "--include=?essential",
        f"--include={','.join(packages)}",
        SUITE,
        str(root),
        mirror(),
    )
    for name in ("data/local/tmp", "dev", "home", "opt", "proc", "root", "run", "sys", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "root").chmod(0o700)
    masters = root / "usr/share/base-passwd"
    passwd = (masters / "passwd.master").read_text().replace("root:*:", "root:x:", 1)
    write(root / "etc/passwd", passwd, 0o644)
    write(root / "etc/group", (masters / "group.master").read_text(), 0o644)
    write(root / "etc/shadow", "root:*:19000:0:99999:7:::\n", 0o600)
    for name in ("doc", "man", "locale"):
        shutil.rmtree(root / "usr/share" / name, ignore_errors=True)
    shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)
    for name in ("test", "idlelib"):
        shutil.rmtree(root / f"usr/lib/python{PYTHON}" / name, ignore_errors=True)


def install_wheels(root: Path, machine: str, wheels: Sequence[str]) -> None:
    """Put Python packages where Debian's Python looks by itself."""
    manylinux = ("manylinux_2_28", "manylinux_2_27", "manylinux2014", "manylinux_2_17")
    target = root / f"usr/local/lib/python{PYTHON}/dist-packages"
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"),
        *("--disable-pip-version-check", "--target", str(target), "--only-binary=:all:"),
        *(f"--platform={name}_{machine}" for name in manylinux),
        *("--implementation=cp", f"--python-version={PYTHON}"),
        *wheels,
    )


def compile_python(root: Path, native: Path) -> None:
    """Compile all Python code with the same version's interpreter of a root for this machine.

    An emulated processor needs most of a minute for what one run of the agent imports.
    """
    (loader,) = native.glob("usr/lib/*/ld-linux*.so.*")
    run(
        *(str(loader), "--library-path", str(loader.parent)),
        *(str(native / f"usr/bin/python{PYTHON}"), "-I", "-m", "compileall", "-q"),
        *("--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", "/"),
        *(str(root / f"usr/lib/python{PYTHON}"), str(root / f"usr/local/lib/python{PYTHON}")),
    )


def make_kernel(folder: Path, root: Path, arch: str, modules: Sequence[str], init: str) -> None:
    """Download the suite's kernel; write `vmlinuz` and `initrd.gz` with modules and a start."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        apt = Path(work) / "apt"
        for name in ("lists/partial", "archives/partial"):
            (apt / name).mkdir(parents=True)
        source = f"deb [signed-by={KEYRING} arch={arch}] {mirror()} {SUITE} main\n"
        write(apt / "sources.list", source, 0o644)
        settings = {
            "Dir::Etc::sourcelist": apt / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": apt / "lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache::archives": apt / "archives",
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "APT::Sandbox::User": "root",
            "APT::Architecture": arch,
            "APT::Architectures": arch,
        }
        options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
        run("apt-get", "-qq", *options, "update")
        depends = run("apt-cache", *options, "depends", f"linux-image-{arch}")
        package = next(
            line.split()[-1] for line in depends.splitlines() if "Depends: linux-image" in line
        )
        run("apt-get", "-qq", *options, "download", package, cwd=Path(work))
        (archive,) = Path(work).glob("*.deb")
        kernel = Path(work) / "kernel"
        run("dpkg", "-x", str(archive), str(kernel))
        (image,) = kernel.glob("boot/vmlinuz-*")
        shutil.copyfile(image, folder / "vmlinuz")

        tree = Path(work) / "initrd"
        for name in ("bin", "dev", "modules", "proc", "sys"):
            (tree / name).mkdir(parents=True)
        shutil.copy(root / "usr/bin/busybox", tree / "bin/busybox")
        for name in APPLETS:
            (tree / "bin" / name).symlink_to("busybox")
        names = load_order(kernel, modules)
        for name in names:
            (tree / f"modules/{name}.ko").write_bytes(module(kernel, name))
        write(tree / "init", init.format(modules=" ".join(names)), 0o755)
        items = "\n".join(str(item.relative_to(tree)) for item in sorted(tree.rglob("*")))
        archive_file = Path(work) / "initrd.cpio"
        run("cpio", "--quiet", "-o", "-H", "newc", "-F", str(archive_file), cwd=tree, given=items)
        (folder / "initrd.gz").write_bytes(gzip.compress(archive_file.read_bytes(), 1))


def module(kernel: Path, name: str) -> bytes:
    """Return a kernel module, unpacked; in its name hyphens and underscores are the same."""
    pattern = f"{name.replace('_', '[-_]')}.ko.xz"
    found = list(kernel.rglob(pattern))
    if len(found) != 1:
        sys.exit(f"the kernel has {len(found)} modules {name}")
    (packed,) = found
    return lzma.decompress(packed.read_bytes())


def load_order(kernel: Path, modules: Sequence[str]) -> list[str]:
    """Return the modules and what they depend on, in an order in which they can be loaded."""
    order: list[str] = []

    def add(name: str) -> None:
        found = re.search(rb"\0depends=([^\0]*)\0", module(kernel, name))
        needed = found[1].decode().split(",") if found else []
        for other in [*needed, name]:
            if other and other not in order:
                if other == name:
                    order.append(name)
                else:
                    add(other)

    for name in modules:
        add(name)
    return order


def mirror() -> str:
    """Return the first Debian mirror of this machine's apt sources."""
    lines = run(
        *("apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)"),
        "Created-By: Packages",
    )
    for line in lines.splitlines():
        address, origin, label = (*line.split(), "", "", "")[:3]
        if (origin, label) == ("Debian", "Debian"):
            return address
    sys.exit("this machine's apt sources name no Debian mirror; run: apt-get update")


def write(path: Path, text: str, mode: int) -> None:
    """Write a file with its mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def run(*command: str, cwd: Path | None = None, given: str = "") -> str:
    """Return what a program printed; leave with its last words where it fails."""
    done = subprocess.run(
        command, cwd=cwd, check=False, capture_output=True, text=True, input=given
    )
    if done.returncode:
        last = done.stderr.strip()[-2000:]
        sys.exit(f"{command[0]} failed with code {done.returncode}:\n{last}")
    return done.stdout


MAKERS = {"phone": make_phone, "board": make_board, "sensors": make_sensors}

if __name__ == "__main__":
    main()
