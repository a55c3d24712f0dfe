"""The small vocabulary most tests write their passages in."""

WORDS = [
    "otter",
    "beaver",
    "heron",
    "salmon",
    "willow",
    "river",
    "stone",
    "bridge",
    "mill",
    "barge",
    "canal",
    "lock",
    "reed",
    "eel",
    "frost",
]
