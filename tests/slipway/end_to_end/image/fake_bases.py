"""Fake base images with the Python of this machine, so that tests pull nothing.

`runtime` contains Python and no other program. `builder` adds the tools of the Dockerfile's first stage: a shell, a few
programs, pip, and this machine's configuration of pip for certificates and mirrors.
"""

import importlib.util
import os
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Collection, Iterator
from io import BytesIO
from pathlib import Path

import docker

RUNTIME = "localhost/slipway-test-runtime:latest"
BUILDER = "localhost/slipway-test-builder:latest"
PYTHON = Path(sys.base_prefix).resolve() / f"bin/python{sys.version_info.major}.{sys.version_info.minor}"
STDLIB = Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix, "installed_base": sys.base_prefix}))
NOT_OF_STDLIB = {"site-packages", "dist-packages", "test", "tests", "idlelib", "turtledemo", "tkinter", "ensurepip"}
NOT_OF_STDLIB |= {"lib2to3", "__pycache__", Path(sysconfig.get_config_var("LIBPL")).name}
PROGRAMS = ("sh", "find", "rm", "strip", "touch")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def make_bases(client: docker.DockerClient) -> None:
    """Build both images in the engine."""
    build(client, RUNTIME, ["FROM scratch", "ADD root.tar /", "ENV PATH=/usr/bin:/bin"], runtime_files())
    build(client, BUILDER, [f"FROM {RUNTIME}", "ADD root.tar /", f"ENV PIP_CERT={CERTIFICATES}"], builder_files())


def build(
    client: docker.DockerClient, tag: str, dockerfile: list[str], files: Iterator[tuple[str, Path]] | None = None
) -> None:
    """Build an image from the lines of a Dockerfile, which can add the files as root.tar."""
    context = BytesIO()
    contents = {"Dockerfile": "\n".join(dockerfile).encode()}
    if files:
        contents["root.tar"] = archive(files)
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, BytesIO(content))
    context.seek(0)
    client.images.build(fileobj=context, custom_context=True, tag=tag)


def archive(files: Iterator[tuple[str, Path]]) -> bytes:
    """Return a tar archive of files at their places, readable by all users. Links are followed."""
    content = BytesIO()
    with tarfile.open(fileobj=content, mode="w", dereference=True) as tar:
        for place, file in files:
            entry = tar.gettarinfo(file, arcname=place.lstrip("/"))
            entry.uid = entry.gid = 0
            entry.mode |= 0o444
            with file.open("rb") as stream:
                tar.addfile(entry, stream)
        link = tarfile.TarInfo("usr/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, str(PYTHON)
        tar.addfile(link)
        temporary = tarfile.TarInfo("tmp")
        temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(temporary)
    return content.getvalue()


def runtime_files() -> Iterator[tuple[str, Path]]:
    """Yield Python with its modules (not compiled, as in the real images) and the libraries that wheels need."""
    modules = [path for path in STDLIB.rglob("*") if path.is_file() and not NOT_OF_STDLIB & set(path.parts)]
    yield from ((str(path), path) for path in modules)
    yield str(PYTHON), PYTHON
    binaries = [PYTHON, *(path for path in modules if ".so" in path.name)]
    yield from libraries(binaries, ["libstdc++.so.6", "libgcc_s.so.1", "librt.so.1", "libdl.so.2", "libpthread.so.0"])


def builder_files() -> Iterator[tuple[str, Path]]:
    programs = [Path(str(shutil.which(name))) for name in PROGRAMS]
    yield from ((f"/bin/{program.name}", program) for program in programs)
    yield from libraries(programs)
    spec = importlib.util.find_spec("pip")
    assert spec
    assert spec.origin
    pip = Path(spec.origin).parent
    yield from ((f"{STDLIB}/pip/{path.relative_to(pip)}", path) for path in pip.rglob("*") if path.is_file())
    authorities = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    if authorities and Path(authorities).is_file():
        yield CERTIFICATES, Path(authorities)
    for configuration in (Path("/etc/pip.conf"), Path.home() / ".config/pip/pip.conf", Path.home() / ".pip/pip.conf"):
        if configuration.is_file():
            yield "/etc/pip.conf", configuration


def libraries(binaries: list[Path], names: Collection[str] = ()) -> Iterator[tuple[str, Path]]:
    """Yield the libraries that the dynamic linker loads for binaries, and libraries by name."""
    linked = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=True).stdout
    known = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    paths = set(re.findall(r"^\t(?:\S+ => )?(/\S+) \(", linked, re.MULTILINE))
    paths |= {path for name, path in re.findall(r"^\t(\S+) .* => (/\S+)$", known, re.MULTILINE) if name in names}
    yield from ((path, Path(path)) for path in sorted(paths))
