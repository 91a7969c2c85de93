"""What a host does with a rule that it is told alone."""

from __future__ import annotations

from typing import Any


def take_rule(objects: dict[tuple[str, str], Any], told: dict[str, Any]) -> None:
    """Put one rule into its group, or take it out."""
    for (kind, id), group in objects.items():
        if kind == "group":
            left = [rule for rule in group["rules"] if rule["id"] != told["id"]]
            if told["object"] and told["object"]["group_id"] == id:
                left.append({name: value for name, value in told["object"].items() if name != "group_id"})
            group["rules"] = left
