"""Snakemake's logger plugin ``moebench``: phases instead of Snakemake's own messages (``--logger moebench``).

Snakemake finds it by its name on the Python path.  Its full log stays in ``.snakemake/log``.  With ``--dry-run`` and
``--verbose`` the messages are Snakemake's own.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from moebench import progress

NOTHING = "Nothing to be done"
STOPPED = ("Terminating processes on user request", "Cancelling snakemake on user request")
KEPT = ("Unlocking", "Will exit after finishing")
"""Messages of level INFO that are shown; of the others only what they say of jobs is."""
REPEATED = ("Exiting because a job execution failed", "WorkflowError:\nAt least one job did not complete",
            "Cannot restore", "Restored previous version")  # fmt: skip
"""Errors that say only that a job failed, which was shown already."""


class LogHandler(LogHandlerBase):
    """Feeds the run with what Snakemake logs."""

    def __post_init__(self) -> None:
        self.plain = self._plain()
        self.run = progress.Run()
        if self.plain is None:
            progress.current = self.run

    def _plain(self) -> logging.Handler | None:
        """Snakemake's own handler, where what it prints was requested."""
        asked = self.common_settings
        if not (asked.dryrun or asked.verbose or asked.debug_dag):
            return None
        from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter

        handler = ColorizingTextHandler(asked.nocolor, sys.stdout if asked.stdout else sys.stderr)
        handler.setFormatter(DefaultFormatter(asked.quiet, asked.show_failed_logs))
        flags = asked.debug_dag, asked.verbose, asked.dryrun, asked.printshellcmds
        handler.addFilter(DefaultFilter(asked.quiet, *flags))  # type: ignore[arg-type]
        return handler

    def emit(self, record: logging.LogRecord) -> None:
        """Take one message."""
        if self.plain is not None:
            self.plain.handle(record)
            return
        try:
            self._take(record)
        except Exception:
            self.handleError(record)

    def _take(self, record: logging.LogRecord) -> None:
        event, about = getattr(record, "event", None), record.__dict__
        text = str(record.msg or "")
        if event == LogEvent.JOB_INFO:
            self.run.job_started(about["jobid"], list(about["log"]))
        elif event == LogEvent.JOB_FINISHED:
            self.run.job_finished(about["job_id"])
        elif event == LogEvent.JOB_ERROR:
            self.run.job_failed(about["jobid"], about["rule_name"], list(about["log"]))
        elif text.startswith(NOTHING):
            self.run.idle = True
        elif text.startswith(STOPPED):
            self.run.interrupted = True
        elif text.startswith(KEPT) or (record.levelno >= logging.WARNING and not self._repeated(about, text)):
            self.run.note(text.strip())

    def _repeated(self, about: dict[str, object], text: str) -> bool:
        return text.startswith(REPEATED) or (bool(self.run.jobs) and about.get("exception") == "RuleException")

    def close(self) -> None:
        """Show the end.  After Ctrl-C the exit code is 130, where Snakemake's own would be 1."""
        if self.plain is None and progress.current is self.run:
            self.run.close()
            progress.current = None
            if self.run.interrupted:
                atexit.register(os._exit, 130)
        super().close()

    @property
    def writes_to_stream(self) -> bool:
        """It takes the place of Snakemake's messages."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """It keeps no log."""
        return False

    @property
    def has_filter(self) -> bool:
        """It chooses itself."""
        return True

    @property
    def has_formatter(self) -> bool:
        """It has its own words."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """It does not."""
        return False
