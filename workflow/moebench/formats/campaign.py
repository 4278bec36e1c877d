"""Files of a campaign: the archive's description, and the state kept on the machine."""

from __future__ import annotations

from typing import TypedDict


class SessionCell(TypedDict):
    """A cell of a session and its expected time."""

    cell: str
    run_s: float


class Session(TypedDict):
    """An engine configuration, the expected time of its load, and cells to be run in it, in this order."""

    engine: str
    load_s: float
    cells: list[SessionCell]


class CampaignStudy(TypedDict):
    """A study of a campaign.  plan: its file in the archive.  sessions: most informative first."""

    study: str
    plan: str
    plan_sha256: str
    digest: str
    sessions: list[Session]


class CampaignAbout(TypedDict):
    """``campaign.json`` of an archive.  stand_ins: folders of models whose files are not the model's own."""

    schema: int
    packed_at: str
    moebench: str
    git_commit: str | None
    git_dirty: bool | None
    gpus: int
    stand_ins: list[str]
    studies: list[CampaignStudy]


class Took(TypedDict):
    """Measured and expected time of a load or a cell.  kind: load, cell."""

    kind: str
    what: str
    expected_s: float
    took_s: float


class CampaignState(TypedDict):
    """State that a campaign keeps from one call to the next.  cut_off: time, s, that was too short for something."""

    began: str
    took: list[Took]
    cut_off: dict[str, float]


class ParcelAbout(TypedDict):
    """A parcel's description of its campaign.  studies: digest of the packed plan by study."""

    moebench: str
    git_commit: str | None
    git_dirty: bool | None
    packed_at: str
    began: str
    studies: dict[str, str]
