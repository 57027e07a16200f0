"""Lists of seeds as they are typed."""

import itertools
import re

from data.errors import UsageError

MOST = 10_000_000


def parse_seeds(flag: str, text: str, most: int = MOST) -> list[int]:
    """ "3,7,12-20" -> [3, 7, 12, ..., 20], in the order given; raises `UsageError` for anything else."""
    parts = [re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", part.strip()) for part in text.split(",")]
    if not all(parts):
        raise UsageError(f"{flag} {text}: is not a list of seeds", f"give numbers and ranges, as in {flag} 3,7,12-20")
    ranges = [range(int(part[1]), int(part[2] or part[1]) + 1) for part in parts if part]
    if any(not each for each in ranges):
        raise UsageError(f"{flag} {text}: has a range that ends before it begins", "give the smaller seed first")
    if sum(map(len, ranges)) > most:
        raise UsageError(f"{flag} {text}: holds more than {most:,} seeds", "give fewer")
    return list(itertools.chain(*ranges))
