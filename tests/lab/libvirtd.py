"""A libvirtd of one host of a lab, beside those of others: its directories, its name and its domains are its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import uuid
from pathlib import Path

from crossway.cli.libvirt import install_hook
from crossway.lab import process
from crossway.lab.guest import Shell
from crossway.lab.lab import Host
from lab.stories import wait_for

TOP = Path(__file__).parents[2]
IMAGE = TOP / "build" / "guest"

QEMU = """
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
remember_owner = 0
"""
ROW = {"passwd": "libvirt-qemu:x:64055:64055::/var/lib:/usr/sbin/nologin\n", "group": "libvirt-qemu:x:64055:\n"}
PLACES = {
    "etc": "/etc/libvirt", "run": "/run/libvirt", "lib": "/var/lib", "cache": "/var/cache", "log": "/var/log",
    "passwd": "/etc/passwd", "group": "/etc/group",
}  # fmt: skip
CACHE = TOP / "build" / "libvirt"  # what each has to find out of QEMU at its first start, 5 s long


class Libvirtd:
    """The daemon; what it has outlives its restart."""

    def __init__(self, host: Host, root: Path, *, optional: bool = False) -> None:
        self.host, self.root = host, root
        for name in ("etc", "run", "lib", "log"):
            (root / name).mkdir(parents=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        (root / "cache").symlink_to(CACHE)
        (root / "etc" / "qemu.conf").write_text(QEMU)
        (root / "etc" / "libvirtd.conf").write_text(f'host_uuid = "{uuid.uuid4()}"\n')
        # QEMU runs as root here, but the daemon does not begin without a user that its package would make.
        for name in ("passwd", "group"):
            had = Path("/etc", name).read_text()
            (root / name).write_text(had + ("" if "\nlibvirt-qemu:" in had else ROW[name]))
        install_hook(root / "hook", optional=optional)
        self.hooks()
        self.mounts = f"mkdir -p /etc/libvirt /run/libvirt\n{self.bind('etc', 'run')}"  # for who speaks to it as well
        self.uri = f"qemu+unix:///system?socket={root}/run/libvirt-sock"
        self.start()

    def bind(self, *names: str) -> str:
        """Return commands that put what is its own in its places."""
        return "\n".join(f"mount --bind {self.root / name} {PLACES[name]}" for name in names)

    def hooks(self) -> None:
        """Give it the hook that was installed."""
        shutil.copytree(
            self.root / "hook" / "etc" / "libvirt" / "hooks", self.root / "etc" / "hooks", dirs_exist_ok=True
        )

    def start(self) -> None:
        """Start it."""
        # A name of its own, for whoever asks, as migration does: two hosts are not to have the same.
        script = "\n".join(
            [
                self.mounts,
                self.bind("lib", "log", "cache", "passwd", "group"),
                "mkdir -p /run/crossway",
                f"mount --bind {self.host.run} /run/crossway",
                f"hostname {self.host.name}",
                f"exec libvirtd --pid-file {self.root}/pid",
            ]
        )
        command = self.host.command("unshare", "--mount", "--uts", "--propagation", "private", "sh", "-e", "-c", script)
        self.process = process.start(command, log=self.root / "said")

    def ready(self) -> None:
        """Wait until it answers."""
        assert wait_for(lambda: self.virsh("version", check=False).returncode == 0, 30), self.words()

    def kill(self) -> None:
        """End it as a power cut would, but for its guests."""
        self.process.signal(9)
        self.process.ended(5)

    def stop(self) -> None:
        """End it, and its guests."""
        for domain in self.virsh("list", "--name", check=False).stdout.split():
            self.virsh("destroy", domain, check=False)
        process.stop([self.process], seconds=10)

    def words(self) -> str:
        """Return what it said last."""
        return process.last_words(self.root / "said")

    def virsh(self, *words: str, check: bool = True, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Say something to it."""
        done = subprocess.run(
            ["virsh", "-q", "-c", self.uri, *words], capture_output=True, text=True, check=False, timeout=seconds
        )
        assert done.returncode == 0 or not check, f"{' '.join(words)}: {done.stdout}{done.stderr}\n{self.words()}"
        return done

    def define(self, name: str, metadata: str, *interfaces: str) -> str:
        """Define a domain that boots the lab's guest; return its UUID."""
        path = self.root / f"{name}.xml"
        path.write_text(domain(name, metadata, interfaces))
        self.virsh("define", str(path))
        return self.virsh("domuuid", name).stdout.strip()

    def guest(self, name: str) -> Shell:
        """Return the shell of a domain's guest, once it runs."""
        log = self.root / "lib" / f"{name}.log"
        assert wait_for(lambda: log.exists() and "guest: ready" in log.read_text(errors="replace"), 60), self.words()
        return self.shell(name)

    def shell(self, name: str) -> Shell:
        """Return the shell of a guest that runs."""
        line = socket.socket(socket.AF_UNIX)
        line.connect(str(self.root / "lib" / f"{name}.line"))
        return Shell(line, self.host.name)


def domain(name: str, metadata: str, interfaces: tuple[str, ...]) -> str:
    """Return the description of a domain without hardware help; its second serial line is a shell."""
    return f"""
<domain type='qemu'>
  <name>{name}</name>
  <metadata>{metadata}</metadata>
  <memory unit='MiB'>128</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{IMAGE}/vmlinuz</kernel>
    <initrd>{IMAGE}/initrd</initrd>
    <cmdline>console=ttyS0 quiet mitigations=off random.trust_cpu=on</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {"".join(interfaces)}
    <serial type='file'><source path='/var/lib/{name}.log' append='on'/></serial>
    <serial type='unix'><source mode='bind' path='/var/lib/{name}.line'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>"""
