"""Marks the commits of the project, so that they can be told from those of others."""

from __future__ import annotations

import json

from deltalake import CommitProperties

MARK = "lakehouse"
"""Key under which a writer of ours names itself in a commit that carries neither a batch nor a transaction id of ours."""
APP_IDS = "lakehouse-"
"""How transaction ids of ours begin (see `Marker.app_id`)."""

LOST_FILES = "has_lost_files"
"""Key below `rebuild` in a commit that replaced files which cannot be read: nobody can follow the change feed over it."""


def marked(writer: str) -> CommitProperties:
    """The mark of a commit that `writer`, a part of this project, makes by deltalake."""
    return CommitProperties(custom_metadata={"userMetadata": json.dumps({MARK: writer})})
