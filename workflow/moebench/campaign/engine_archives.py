"""Archives that bring vLLM to an offline machine: ``python3 -m moebench.campaign.engine_archives FOLDER``.

For Python 3.12 with torch 2.11 (cu130), Triton and transformers on an H100 or H200 (sm_90).  The wheel of vLLM 0.32.0
is for torch 2.13, but its main CUDA libraries are built on torch's stable ABI and load with 2.11.  Only what its
offline engine needs there is kept: eight libraries without the code of other GPUs, the Python files, and the packages
that such a machine lacks.  FlashInfer and DeepGEMM are left out; cuBLAS and similar libraries are the machine's own.

Needs pip and xz; standard library only.  51 MiB at the default preset, a quarter of an hour on one core.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

VLLM = "0.32.0"
PYTHON = "3.12"
SM = 90
"""Compute capability of the GPUs, times ten."""

LIBRARIES = (
    "_C_stable_libtorch.abi3.so",
    "_moe_C_stable_libtorch.abi3.so",
    "_flashmla_C.abi3.so",
    "_flashmla_extension_C.abi3.so",
    "cumem_allocator.abi3.so",
    "spinloop.abi3.so",
    "fs_io_C.abi3.so",
    "vllm_flash_attn/_vllm_fa3_C.abi3.so",
)
PACKAGES = """
annotated-types==0.8.0 apache-tvm-ffi==0.1.11 cachetools==8.0.1 cbor2==6.2.1 compressed-tensors==0.17.0 dill==0.4.1
dnspython==2.9.2 email-validator==2.4.0 fastapi==0.136.3 fastapi-cli==0.0.34 httpcore2==2.16.2 httpx2==2.16.2
jiter==0.19.0 llguidance==1.7.6 loguru==0.7.3 msgspec==0.22.0 openai==3.54.0 oss-harmony==0.0.11
opentelemetry-api==1.45.2 opentelemetry-exporter-otlp==1.45.2 opentelemetry-proto==1.45.2 opentelemetry-sdk==1.45.2
opentelemetry-semantic-conventions==0.66b2 opentelemetry-semantic-conventions-ai==0.5.1
partial-json-parser==0.2.1.1.post7 pybase64==1.5.1 pydantic==2.14.3 pydantic-core==2.50.4
pydantic-extra-types==2.11.1 pydantic-settings==2.16.3 python-multipart==0.0.34 pyzmq==27.3.0 sniffio==1.3.1
starlette==1.10.0 truststore==0.10.5 typing-inspection==0.4.5 xgrammar==0.2.8
"""
"""Packages that vLLM imports and the machine lacks."""

_FATBIN = struct.pack("<I", 0xBA55ED50)
_PTX, _CUBIN = 1, 2


def slim(data: bytearray, sm: int = SM) -> int:
    """Zero the device code in a shared library that a GPU of capability ``sm`` never loads; return the zeroed bytes.

    Per fatbin its cubins are kept; only where there is none, the newest PTX that it can compile.
    """
    zeroed = at = 0
    while (at := data.find(_FATBIN, at)) >= 0:
        entries = list(_entries(data, at))
        if not entries:
            at += 4
            continue
        cubins = [e for e in entries if e[:2] == (_CUBIN, sm)]
        newest = max((e for e in entries if e[0] == _PTX and e[1] <= sm), key=lambda e: e[1], default=None)
        keep = cubins or ([newest] if newest else [])
        for entry in entries:
            if entry not in keep:
                _, _, start, size = entry
                data[start : start + size] = bytes(size)
                zeroed += size
        at = entries[-1][2] + entries[-1][3]
    return zeroed


def _entries(data: bytearray, at: int) -> Iterator[tuple[int, int, int, int]]:
    """Kind, architecture, start and size of each piece of device code in the fatbin at a place; none if it is none."""
    if at + 16 > len(data):
        return
    _, version, header, size = struct.unpack_from("<IHHQ", data, at)
    if version != 1 or header != 16 or at + header + size > len(data):
        return
    place, end = at + header, at + header + size
    while place < end:
        kind, _, head, payload = struct.unpack_from("<HHIQ", data, place)
        (architecture,) = struct.unpack_from("<I", data, place + 28)
        yield kind, architecture, place + head, payload
        place += head + payload


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True)


def _archive(out: Path, folder: Path, preset: str, keep: Callable[[Path], bool]) -> None:
    """``OUT.tar.xz`` of the files of a folder."""
    tar = out.with_name(f"{out.name}.tar")
    with tarfile.open(tar, "w") as packed:
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and keep(p)):
            packed.add(path, path.relative_to(folder))
    subprocess.run(["xz", f"-{preset}", "-T1", "-f", str(tar)], check=True)
    print(f"{tar}.xz: {os.path.getsize(f'{tar}.xz') / 2**20:.1f} MiB", flush=True)


def make(out: Path, preset: str = "9e") -> None:
    """Make the archives in ``out``; what they are made of stays in ``out/work``.  Raises CalledProcessError."""
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    glibc = [f"manylinux_2_{minor}_x86_64" for minor in range(39, 16, -1)] + ["manylinux2014_x86_64"]
    platforms = [word for name in glibc for word in ("--platform", name)]
    target = ["--python-version", PYTHON, *platforms, "--only-binary", ":all:", "--no-deps"]
    _pip("download", "-q", *target, "-d", str(work / "wheels"), f"vllm=={VLLM}")
    with zipfile.ZipFile(next((work / "wheels").glob(f"vllm-{VLLM}-*.whl"))) as wheel:
        wheel.extractall(work / "whole")
    for library in LIBRARIES:
        data = bytearray((work / "whole" / "vllm" / library).read_bytes())
        zeroed = slim(data)
        print(f"{library}: {zeroed / 2**20:.0f} of {len(data) / 2**20:.0f} MiB are code of other GPUs", flush=True)
        target_file = work / "slim" / "vllm" / library
        target_file.parent.mkdir(parents=True, exist_ok=True)
        target_file.write_bytes(data)
    _archive(out / "libraries", work / "slim", preset, lambda path: True)
    kept = {".py", ".json", ".jinja", ".txt"}
    _archive(out / "python", work / "whole", preset, lambda p: p.suffix in kept or ".dist-info" in str(p))
    _pip("install", "-q", *target, "--target", str(work / "packages"), *PACKAGES.split())
    _archive(out / "packages", work / "packages", preset, lambda p: not {"__pycache__", "tests"} & set(p.parts))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python3 -m moebench.campaign.engine_archives", description=make.__doc__)
    parser.add_argument("folder", type=Path, help="folder for the archives")
    parser.add_argument("--preset", default="9e", help="of xz: 0 (quick, larger) to 9e (default)")
    options = parser.parse_args()
    if importlib.util.find_spec("pip") is None:
        parser.error(f"{sys.executable} has no pip; run this with another Python (the package on PYTHONPATH)")
    if shutil.which("xz") is None:
        parser.error("xz is not on PATH; install it")
    make(options.folder.absolute(), options.preset)


if __name__ == "__main__":
    main()
