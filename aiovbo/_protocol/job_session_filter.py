"""Which job sessions are requested, and what each API version can filter.

No I/O. What the server does not filter is filtered here, row by row.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import cast
from uuid import UUID

from attrs import field, frozen
from attrs.converters import optional
from yarl import URL

from aiovbo._protocol.session_filter import (
    PAGE_SIZE,
    JustAfter,
    SessionBounds,
    TimeFilter,
    checked_page_size,
    id_or_none,
)
from aiovbo._resources.enums import JobSessionStatus
from aiovbo._settings.api_versions import ApiVersion, supports
from aiovbo.errors import ConfigError
from aiovbo.models import JobSession, utc_text

_LONGEST = timedelta(days=7)
"""Time for which a session is expected to run at most."""

_FILTERED_STATUSES = frozenset(
    {
        JobSessionStatus.STOPPED,
        JobSessionStatus.RUNNING,
        JobSessionStatus.FAILED,
        JobSessionStatus.WARNING,
    }
)
"""Statuses that the parameter can find: for Success, it has another word than the rows."""


def _statuses(value: str | Collection[str] | None) -> frozenset[JobSessionStatus]:
    if value is None:
        return frozenset()
    given: object = [value] if isinstance(value, str) else value
    several = list(cast("Collection[object]", given)) if isinstance(given, Collection) else []
    texts = [one for one in several if isinstance(one, str)]
    if len(texts) < len(several) or not texts:
        message = f"status is a text such as 'Failed', or several, not {value!r}"
        raise ConfigError(message)
    found = frozenset(map(JobSessionStatus, texts))
    unknown = sorted(one.value for one in found if not one.is_known)
    if unknown:
        known = ", ".join(one.value for one in JobSessionStatus)
        message = f"status is one or several of {known}, not {', '.join(unknown)}"
        raise ConfigError(message)
    return found


@frozen(kw_only=True)
class JobSessionFilter(TimeFilter):
    """Which job sessions are requested."""

    status: frozenset[JobSessionStatus] = field(default=None, converter=_statuses)
    job: UUID | None = field(default=None, converter=id_or_none)
    page_size: int | None = field(default=None, converter=optional(checked_page_size))

    def for_version(self, version: ApiVersion) -> "tuple[str, JobSessionCheck]":
        """Path and query that request them from a server of this version, and what checks the rows.

        `as_of` comes first.
        Source: operation JobSession_GetPage, v6 to v8, read 2026-11-27; help center, "Getting Backup Job
        Sessions", v4, and "/Jobs/{ID}/JobSessions", v2, read 2026-11-27.
        """
        path, query = "JobSessions", list[str]()
        if self.job is not None:
            if supports(version, "job filter"):
                query.append(f"jobId={self.job}")
            else:
                path = f"Jobs/{self.job}/JobSessions"
        if isinstance(self.ended_after, datetime) and supports(version, "job time filter"):
            # By its description, the parameter is about the creation time: a session that began earlier and
            # ended within the bounds must not be lost.
            query.append(f"endTimeLowerBound={utc_text(self.ended_after - _LONGEST)}")
        if isinstance(self.ended_before, datetime) and supports(version, "latest job time filter"):
            query.append(f"endTimeUpperBound={utc_text(self.ended_before)}")
        if len(self.status) == 1 and self.status <= _FILTERED_STATUSES:
            (status,) = self.status
            if supports(version, "job status filter"):
                query.append(f"status={status.value}")
        query.append(f"limit={self.page_size or PAGE_SIZE}")
        checks = JobSessionCheck(self.checks(), self.status, self.job)
        return f"/{version}/{path}?{'&'.join(query)}", checks


@frozen
class JobSessionCheck:
    """Removes the rows that were not requested."""

    times: SessionBounds | None
    status: frozenset[JobSessionStatus]
    job: UUID | None

    def __call__(
        self, sessions: Sequence[JobSession], url: URL, just_after: JustAfter
    ) -> tuple[Sequence[JobSession], bool]:
        """The sessions that were requested, and whether the page can be trusted to lack none."""
        is_trusted = True
        if self.times is not None:
            sessions, is_trusted = self.times(sessions, url, just_after)
        if self.status:
            sessions = [one for one in sessions if one.status in self.status]
        if self.job is not None:
            sessions = [one for one in sessions if self._is_of_the_job(one)]
        return sessions, is_trusted

    def _is_of_the_job(self, session: JobSession) -> bool:
        if session.job_id is not None:
            return session.job_id == self.job
        # Older versions name the job in a link, or not at all.
        link = session.links.get("job")
        return link is None or str(self.job) in link.href.lower()
