"""crossway libvirt: libvirt's hook, put in place, and what a domain's description says of a port."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from crossway import settings
from crossway.cli.options import LabName, Run, Server, client
from crossway.errors import Forbidden, Invalid, NotFound

app = typer.Typer(help="libvirt: its domains have ports.", no_args_is_help=True)

HOOKS = "etc/libvirt/hooks"
Root = Annotated[
    Path, typer.Option("--root", metavar="DIRECTORY", help="Where the file system begins to which that is done.")
]


@app.command("install")
def install_hook(
    root: Root = Path("/"),
    optional: Annotated[bool, typer.Option("--optional", help="Have domains start also while the agent does not "
                                           "answer, their ports without a tap.")] = False,
    run: Run = None,
) -> None:  # fmt: skip
    """Put libvirt's hook in place, beside those that are there; the same again changes nothing.

    A libvirtd that ran without any hook finds it once it is started anew.
    """
    import crossway.plugins

    program = Path(crossway.plugins.__file__).with_name("crossway-libvirt")
    if not program.exists():
        raise NotFound("program", f"{program}; make it with `make libvirt`")
    socket = f"{run or settings.RUN.default}/agent.sock"
    if not socket.startswith("/"):
        raise Invalid(f"--run {run} should be a path from the root")
    how = "optional" if optional else "required"
    # libvirtd runs what is in qemu.d after its one hook `qemu`, in the order of names.
    _put(root / HOOKS / "crossway-libvirt", program.read_bytes())
    script = (
        "#!/bin/sh\n# Crossway's hook, by `crossway libvirt install`: domains that name no port of its are let be.\n"
        f'exec /{HOOKS}/crossway-libvirt {shlex.quote(socket)} {how} "$@"\n'
    )
    _put(root / HOOKS / "qemu.d" / "crossway", script.encode())


@app.command("remove")
def remove_hook(root: Root = Path("/")) -> None:
    """Take libvirt's hook away; those of others stay."""
    for name in ("qemu.d/crossway", "crossway-libvirt"):
        (root / HOOKS / name).unlink(missing_ok=True)


@app.command("interface")
def show_interface(
    port: Annotated[str, typer.Argument(metavar="PORT", help="Its name or id.")],
    dev: Annotated[str | None, typer.Option(help="What its tap is called; made of the port's id if not said.")] = None,
    queues: Annotated[int, typer.Option(help="How many queues it has.", min=1)] = 1,
    server: Server = None,
    lab: LabName = None,
) -> None:
    """Print a port as an interface of a domain, in libvirt's XML."""
    ask = client(server, lab)
    found = ask.find("port", port)
    mtu = ask.show("network", found["network_id"])["mtu"]
    name = dev or "tap" + found["id"].replace("-", "")[:11]
    if len(name.encode()) > 15 or not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise Invalid(f"--dev {name} is no name of a tap: at most 15 letters, digits, '_', '.' and '-'")
    driver = f"  <driver name='qemu' queues='{queues}'/>\n" if queues > 1 else ""
    print(
        f"<interface type='ethernet'>\n  <mac address='{found['mac_address']}'/>\n"
        f"  <target dev='{name}' managed='no'/>\n  <model type='virtio'/>\n{driver}  <mtu size='{mtu}'/>\n</interface>"
    )


def _put(path: Path, content: bytes) -> None:
    """Write an executable file; who starts it meanwhile gets the old one or the new one."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if path.exists() and path.read_bytes() == content and os.access(path, os.X_OK):
            return
        part.write_bytes(content)
        part.chmod(0o755)
        part.replace(path)
    except OSError as fault:
        raise Forbidden(f"cannot write {path}: {fault.strerror}") from None
