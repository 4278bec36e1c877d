"""The archive of a study: one zip with everything that the report is built from, and rebuilding the report from it.

Inside, the layout is that of the project (``reports/``, ``results/``, ``config/``, ``envs/``), so that the links of the
report work when the zip is unpacked.  Before packing, tables, figures and report are rebuilt from the records; an
archive whose report does not follow from its records is never written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import cast

import pandas as pd

import moebench
from moebench import accuracy, figures
from moebench.claims import collect, imported
from moebench.errors import StorageError
from moebench.formats.manifest import ArchiveAbout
from moebench.formats.plan import Plan
from moebench.measure import provenance
from moebench.plan.file import read_plan
from moebench.report import build, scripts
from moebench.storage import project
from moebench.tables import derived_checkpoints, parquet

Say = Callable[[str], None]
"""Callback that reports progress."""


def _quiet(step: str) -> None:
    """No progress output."""


FORMAT = 1
MOST_NAMED = 20
"""Maximum number of altered files named in one line."""
_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can store: the same content has the same bytes
_RESULTS = "results"
_SUMS = "SHA256SUMS"
_ABOUT = "archive.json"


@dataclass(frozen=True)
class Layout:
    """Paths below the root of an archive (or of the project)."""

    root: Path
    study: str

    @property
    def plan(self) -> Path:
        """The plan's file."""
        return self.root / _RESULTS / "plan" / f"{self.study}.json"

    @property
    def tables(self) -> Path:
        """The folder of tables."""
        return self.root / _RESULTS / "tables" / self.study

    @property
    def report(self) -> Path:
        """The folder of the report."""
        return self.root / "reports" / self.study

    def make(self, say: Say = _quiet) -> Path:
        """Build tables from records, then figures, then the report; return the report's path."""
        say("tables from the records")
        collect.collect(self.plan, self.root / _RESULTS, self.tables, results_name=_RESULTS)
        figures.render_all(read_plan(self.plan), self.tables, self.report / "figures", say)
        say("the report")
        return build(self.plan, self.tables, self.report / "figures", self.report / "report.html")


# -------------------------------------------------------------------------------------------- pack


def archive(
    plan: Path, results: Path, tables_dir: Path, report: Path, config: Path, out: Path, say: Say = _quiet
) -> Path:
    """Pack a study into the zip file ``out`` and return it; the same study gives the same bytes.

    Args:
        plan: the plan's file.
        results: the results folder.
        tables_dir: the study's tables; refused if the records give other ones.
        report: the folder of the report; refused if the tables give another one.
        config: the configuration folder.
        say: called with each step.

    Raises StorageError.
    """
    made = read_plan(plan)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".archive-", dir=out.parent) as folder:
            layout = Layout(Path(folder), made["study"])
            layout.plan.parent.mkdir(parents=True)
            shutil.copyfile(plan, layout.plan)
            for name in (
                "cells",
                "jobs",
                "accuracy",
                "machines",
                "canary",
                "imported",
            ):  # links, not copies: there may be very many records
                (layout.root / _RESULTS / name).symlink_to(os.path.abspath(results / name))
            try:
                derived = derived_checkpoints.keep(made, layout.root / _RESULTS)
                page = layout.make(say)
            except StorageError as error:  # it names a temporary folder
                raise StorageError(str(error).replace(f"{layout.root}/", f"{out}: ")) from None
            _refuse_stale(made, layout, page, results, tables_dir, report)
            _write_about(layout)
            files = dict(_files(made, layout, results, config))
            files |= {path.relative_to(layout.root).as_posix(): path for path in derived.values()}
            say(f"checksums of {len(files):,} files")
            _write_crate(made, layout, files)
            draft = out.with_name(f".{out.name}.{os.getpid()}.tmp")
            try:
                _zip(files, draft, say)
                os.replace(draft, out)
            finally:
                draft.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{out}: cannot be written ({error.strerror or error}); free space, run again") from None
    return out


def _refuse_stale(plan: Plan, layout: Layout, page: Path, results: Path, tables_dir: Path, report: Path) -> None:
    """Raise StorageError if the existing tables or report do not match the records."""
    for name in ("measurements", "failures", "accuracy"):
        ours = parquet.read(layout.tables, name).drop(columns="rerun", errors="ignore")
        if not ours.equals(parquet.read(tables_dir, name).drop(columns="rerun", errors="ignore")):
            raise StorageError(
                f"{tables_dir}: records or moebench changed since these tables were built; run snakemake (or `moebench "
                "collect`, `figures`, `report`) again"
            )
    there = report / "report.html"
    usual = (
        os.path.relpath(os.path.abspath(results), os.path.abspath(report)) == f"../../{_RESULTS}"
        and not results.is_absolute()
    )
    # With folders of other names its links differ from those in an archive, and there is nothing to compare.
    if usual and there.exists() and there.read_bytes() != page.read_bytes():
        raise StorageError(
            f"{there}: does not match the tables (built by another version?); run `moebench report` again"
        )


def _files(plan: Plan, layout: Layout, results: Path, config: Path) -> Iterator[tuple[str, Path]]:
    """Path in the archive and file, for everything except the crate and the checksums."""
    for folder in (layout.tables, layout.report):
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            yield path.relative_to(layout.root).as_posix(), path
    yield layout.plan.relative_to(layout.root).as_posix(), layout.plan
    yield _ABOUT, layout.root / _ABOUT
    for key in plan["cells"]:
        path = results / "cells" / f"{key}.json"
        if path.is_file():
            yield f"{_RESULTS}/cells/{key}.json", path
    for job in plan["jobs"]:
        path = results / "jobs" / f"{job}.json"
        if path.is_file():
            yield f"{_RESULTS}/jobs/{job}.json", path
    for path in sorted([*(results / "machines").glob("*.json"), *(results / "canary").glob("*.json")]):
        yield f"{_RESULTS}/{path.relative_to(results).as_posix()}", path
    for tables in imported.tables(results):  # what other machines measured is kept as the table that is read
        path = parquet.path_of(tables, "measurements")
        yield f"{_RESULTS}/{path.relative_to(results).as_posix()}", path
    for _, part, folder in accuracy.views(plan, results):
        kept = [folder / "cells" / f"{key}.json" for key in part["cells"]]
        kept += [folder / "samples" / f"{key}.jsonl.gz" for key in part["cells"]]
        kept += [folder / "jobs" / f"{job}.json" for job in part["jobs"]]
        for path in filter(Path.is_file, kept):
            yield f"{_RESULTS}/{path.relative_to(results).as_posix()}", path
    for path in sorted(p for p in config.rglob("*") if p.is_file() and not p.name.startswith(".")):
        yield f"config/{path.relative_to(config).as_posix()}", path
    for pattern in ("envs/*.lock", "envs/*.in", "LICENSE"):
        for path in sorted(project.ROOT.glob(pattern)):
            yield path.relative_to(project.ROOT).as_posix(), path
    yield "licenses/observable-plot.txt", scripts.LICENSES  # of what the page carries


def _write_about(layout: Layout) -> None:
    about = {"format": FORMAT, "study": layout.study, "moebench": moebench.__version__, **provenance.code_revision()}
    (layout.root / _ABOUT).write_text(json.dumps(about, indent=1) + "\n")


def _write_crate(plan: Plan, layout: Layout, files: dict[str, Path]) -> None:
    """Add the RO-Crate metadata and the checksums to ``files``."""
    from moebench.report import crate

    started = parquet.read(layout.tables, "measurements")["started_at"].dropna()
    day = started.max()[:10] if len(started) else "1970-01-01"  # nothing measured: no day to give
    sizes = {name: path.stat().st_size for name, path in files.items()}
    text = crate.metadata(plan, sizes, day, provenance.code_revision()["git_commit"])
    files["ro-crate-metadata.json"] = layout.root / "ro-crate-metadata.json"
    files["ro-crate-metadata.json"].write_text(text, encoding="utf-8")
    sums = "".join(f"{_sha256(path)}  {name}\n" for name, path in sorted(files.items()))
    files[_SUMS] = layout.root / _SUMS
    files[_SUMS].write_text(sums, encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _zip(files: dict[str, Path], out: Path, say: Say = _quiet) -> None:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as packed:
        for number, (name, path) in enumerate(sorted(files.items()), start=1):
            say(f"packing file {number:,} of {len(files):,}")
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            with path.open("rb") as source, packed.open(entry, "w", force_zip64=path.stat().st_size > 2**31) as target:
                shutil.copyfileobj(source, target, 1 << 20)


# ------------------------------------------------------------------------------------------ unpack


@dataclass(frozen=True)
class Rebuilt:
    """A report rebuilt from an archive."""

    report: Path
    same_numbers: bool
    """Whether the numbers in the archive's tables match its records."""
    identical: bool
    """Whether the report is byte-identical to the archived one."""
    about: ArchiveAbout

    @property
    def verdict(self) -> str:
        """Comparison of the report with the archived one, as text."""
        if self.identical and self.same_numbers:
            return "identical to the one in the archive"
        made_by = f"moebench {self.about['moebench']}, commit {self.about.get('git_commit') or 'unknown'}"
        numbers = "but the numbers are the same" if self.same_numbers else "AND SO DO THE NUMBERS"
        return (
            f"differs from the one in the archive, {numbers}; that one was built by {made_by}, this one by moebench "
            f"{moebench.__version__}, perhaps with other libraries (each page lists its own under Provenance)"
        )

    def __str__(self) -> str:
        return f"{self.report}: {self.verdict}"


class AlteredError(StorageError):
    """An archive was changed after packing; ``files`` describes the changes, one line per file."""

    def __init__(self, archive: Path, files: list[str]):
        self.files = files
        more = [f"and {len(files) - MOST_NAMED} more"] * (len(files) > MOST_NAMED)
        super().__init__(f"{archive}: the archive was changed or damaged: {'; '.join([*files[:MOST_NAMED], *more])}")


def _altered(packed: zipfile.ZipFile, names: list[str], say: Say) -> list[str]:
    """Differences from the packed state, one line per file: changed, damaged, missing or added."""
    lines = packed.read(_SUMS).decode("utf-8", "replace").splitlines()
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = []
    for number, name in enumerate(names, start=1):
        say(f"checking file {number:,} of {len(names):,}")
        if name != _SUMS and (what := _wrong(packed, name, sums.get(name))):
            found.append(f"{name}: {what}")
    found += [f"{name}: occurs {n} times" for name, n in Counter(names).items() if n > 1]
    return found + [f"{name}: missing" for name in sorted(set(sums) - set(names))]


def _wrong(packed: zipfile.ZipFile, name: str, digest: str | None) -> str:
    """Problem with a file of an archive; empty if it is unchanged."""
    if digest is None:
        return f"added; {_SUMS} does not list it"
    try:
        with packed.open(name) as stream:
            same = hashlib.file_digest(stream, "sha256").hexdigest() == digest  # type: ignore[arg-type]
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return "damaged; it cannot be unpacked"
    return "" if same else "changed; its checksum differs"


def verify(archive: Path, say: Say = _quiet) -> Rebuilt:
    """Check the files of an archive against its checksums, and its tables and report against its records.

    Works in a temporary folder.  Raises StorageError as ``rebuild`` does.
    """
    with tempfile.TemporaryDirectory() as folder:
        return rebuild(archive, Path(folder) / "archive", say)


def rebuild(archive: Path, out_dir: Path, say: Say = _quiet) -> Rebuilt:
    """Unpack an archive into ``out_dir`` (new or empty), check it, and rebuild its report from its records.

    Raises StorageError if it is not such an archive, or was changed.
    """
    if out_dir.exists() and any(out_dir.iterdir()):
        raise StorageError(f"{out_dir}: not empty; give another folder with --out")
    try:
        with zipfile.ZipFile(archive) as packed:
            names = packed.namelist()
            _refuse_odd_paths(archive, names)
            if _SUMS not in names or _ABOUT not in names:
                raise StorageError(f"{archive}: not an archive of moebench ({_SUMS} or {_ABOUT} is missing)")
            _refuse_newer(archive, packed)
            if wrong := _altered(packed, names, say):
                raise AlteredError(archive, wrong)
            say(f"unpacking {len(names):,} files")
            out_dir.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{out_dir.name}.", dir=out_dir.parent) as beside:
                folder = Path(beside) / "whole"  # a refused archive leaves nothing behind
                packed.extractall(folder)
                about = cast(ArchiveAbout, json.loads((folder / _ABOUT).read_text()))
                os.replace(folder, out_dir)
    except FileNotFoundError:
        raise StorageError(f"{archive}: no such archive") from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise StorageError(f"{archive}: cannot be read ({error})") from None
    except OSError as error:
        raise StorageError(f"{out_dir}: cannot be written ({error.strerror or error})") from None
    layout = Layout(out_dir, about["study"])
    numbers, digest = _numbers(layout.tables), _sha256(layout.report / "report.html")
    page = layout.make(say)
    same = all(_same(frame, parquet.read(layout.tables, name)) for name, frame in numbers.items())
    return Rebuilt(page, same, _sha256(page) == digest, about)


def _numbers(folder: Path) -> dict[str, pd.DataFrame]:
    """Tables of an archive that contain measurements, without empty columns; older versions wrote fewer of both."""
    there = [name for name in ("measurements", "accuracy") if parquet.path_of(folder, name).exists()]
    frames = {name: parquet.read(folder, name).drop(columns="rerun", errors="ignore") for name in there}
    return {name: frame.dropna(axis="columns", how="all") for name, frame in frames.items()}


def _same(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether two tables agree where they have the same columns; the last digits may depend on the processor."""
    shared = one.columns.intersection(other.columns)
    try:
        pd.testing.assert_frame_equal(one[shared], other[shared], check_dtype=False, rtol=1e-9, atol=0)
    except AssertionError:
        return False
    return True


def _refuse_newer(archive: Path, packed: zipfile.ZipFile) -> None:
    try:
        version = json.loads(packed.read(_ABOUT))["format"]
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError):
        return  # damaged: the checksums say so
    if version > FORMAT:
        raise StorageError(
            f"{archive}: archive of format {version}, this version reads up to {FORMAT}; update moebench"
        )


def _refuse_odd_paths(archive: Path, names: list[str]) -> None:
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise StorageError(f"{archive}: contains {name!r}, a path outside the archive; not unpacked")
