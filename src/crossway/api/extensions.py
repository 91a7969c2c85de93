"""The extensions of the Networking API that are served; what is not there is not named."""

from __future__ import annotations

from crossway.control.collections import every

UPDATED = "2026-01-01T00:00:00-00:00"
# Those of all collections alike; each collection names its own.
COMMON = {
    "empty-string-filtering": "Empty String Filtering Extension",
    "filter-validation": "Filter parameters validation",
    "pagination": "Pagination support",
    "project-id": "project_id field enabled",
    "revision-if-match": "If-Match constraints based on revision_number",
    "sort-key-validation": "Sort keys validation",
    "sorting": "Sorting support",
    "standard-attr-description": "standard-attr-description",
    "standard-attr-revisions": "Resource revision numbers",
    "standard-attr-tag": "Tag support for resources with standard attribute",
    "standard-attr-timestamp": "Resource timestamps",
    "tag-creation": "Tag creation extension",
}
EXTENSIONS = dict(sorted({**COMMON, **{a: name for c in every() for a, name in c.aliases.items()}}.items()))


def listed() -> list[dict[str, object]]:
    return [
        {"alias": alias, "name": name, "description": name, "updated": UPDATED, "links": []}
        for alias, name in EXTENSIONS.items()
    ]
