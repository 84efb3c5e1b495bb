"""Schedules that a method's authors published, by name: counts per block of one model with one number of tokens.

DiffRate's, as `compression_rate.json` of its repository has them (github.com/OpenGVLab/DiffRate at 91ae3e3): the
numbers of tokens that it keeps there are turned into the numbers that are dropped and merged. Each is named after its
model and the GMACs on its label; `mae_h-93.2` has 92.107 in truth.
"""

from dataclasses import dataclass

from exporter.errors import UsageError, nearest


@dataclass(frozen=True, kw_only=True)
class Published:
    """A schedule for a model with this many tokens.

    Attributes:
        name: model and GMACs.
        dropped: tokens dropped in each block.
        merged: tokens merged in each block.
    """

    name: str
    dropped: tuple[int, ...]
    merged: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens that enter the first block of the model that it was made for: patches of 16 pixels, of 14 in ViT-H."""
        return 257 if self.name.startswith("mae_h") else 197


# name dropped merged
_DIFFRATE = """
deit_ti-0.6 0,1,7,10,9,7,4,3,3,6,5,34 0,9,13,18,16,17,10,7,6,6,3,0
deit_ti-0.7 0,1,2,12,8,10,5,6,4,4,6,46 0,0,2,22,17,20,10,10,4,2,3,0
deit_ti-0.8 0,0,0,4,6,7,8,4,4,4,4,67 0,1,6,14,12,22,10,7,8,2,4,0
deit_ti-0.9 0,0,0,4,6,6,6,4,2,2,4,93 0,1,2,2,10,19,12,10,6,2,3,0
deit_ti-1.0 0,0,1,2,2,2,0,0,0,8,6,104 0,0,0,4,2,30,6,0,3,2,4,0
deit_s-2.3 0,5,12,13,6,4,6,6,4,7,4,28 0,12,12,16,12,7,12,8,10,8,2,0
deit_s-2.5 0,5,12,4,2,4,0,0,6,16,4,34 0,6,14,23,12,8,11,14,10,7,2,0
deit_s-2.7 0,1,6,10,6,4,4,4,8,10,5,42 0,8,12,13,10,8,6,9,12,12,4,0
deit_s-2.9 0,1,4,8,6,2,4,4,8,10,6,53 0,2,14,12,9,6,8,10,11,14,2,0
deit_s-3.1 0,0,2,6,4,3,4,4,6,11,2,65 0,1,8,16,10,6,4,8,12,14,8,0
deit_b-8.7 0,5,6,6,10,8,6,6,4,14,4,10 0,14,10,15,16,11,12,12,9,12,4,0
deit_b-10.0 0,3,4,6,8,8,4,4,8,17,6,16 0,8,8,12,11,12,8,11,16,18,6,0
deit_b-10.4 0,1,2,10,8,4,10,4,4,16,6,18 0,6,4,10,11,10,14,9,16,27,4,0
deit_b-11.5 0,0,0,4,8,4,6,4,4,22,7,32 0,0,5,10,12,9,12,12,13,22,8,0
deit_b-12.5 0,0,0,2,6,6,6,6,2,21,10,44 0,1,2,2,8,10,9,8,14,26,11,0
mae_b-8.7 0,5,10,7,8,4,6,4,4,4,4,0 0,16,16,16,12,11,10,14,7,2,14,0
mae_b-10.0 0,3,8,6,6,2,8,3,4,3,8,0 0,13,13,13,13,4,13,12,9,4,12,0
mae_b-10.4 0,2,8,7,5,3,4,2,8,4,8,0 0,8,13,14,15,13,3,3,14,7,11,0
mae_b-11.5 0,1,10,6,2,3,2,6,0,2,12,0 0,4,4,8,12,14,16,8,5,12,21,0
mae_l-31.0 0,2,3,5,4,4,5,2,4,4,6,4,3,4,4,2,3,1,3,5,0,1,2,0 0,4,4,7,7,6,1,8,6,4,5,6,4,5,4,6,7,3,7,8,0,3,7,0
mae_l-34.7 0,2,1,1,4,3,3,0,5,2,9,3,2,8,4,0,3,0,3,4,5,0,3,0 0,2,2,4,8,6,2,5,7,3,7,7,6,0,9,6,6,6,0,6,8,3,11,0
mae_l-38.5 0,0,1,3,2,0,1,4,3,2,7,8,0,6,4,8,1,2,7,8,0,0,2,0 0,1,2,1,4,3,4,4,3,1,0,9,14,4,9,0,1,2,11,10,0,13,8,0
mae_l-42.3 0,0,0,1,0,0,1,0,1,1,0,5,4,3,2,2,3,0,7,0,0,4,1,0 0,0,1,1,1,1,4,4,1,7,19,3,5,7,2,7,6,7,4,12,32,0,6,0
mae_l-46.1 0,0,0,0,1,1,0,1,2,2,6,5,1,2,2,0,5,2,7,4,3,3,2,0 0,0,1,1,1,1,2,1,2,5,8,2,6,1,4,6,1,7,7,5,6,12,9,0
mae_h-83.7 0,2,6,13,12,8,4,1,4,3,2,0,4,0,0,2,1,3,0,0,0,0,0,3,0,0,1,5,4,0,3,0 \
0,3,6,15,14,6,8,0,7,3,2,6,10,4,3,1,4,0,0,0,0,0,0,0,1,0,0,4,3,2,18,0
mae_h-93.2 0,0,0,0,1,0,1,0,0,0,43,0,1,13,0,1,0,0,0,0,4,0,0,0,0,0,0,0,2,0,2,0 \
0,0,0,8,6,1,1,10,20,6,1,9,25,4,0,5,1,0,0,11,0,0,0,0,0,0,0,2,3,0,1,0
mae_h-103.4 0,1,1,2,2,3,7,4,1,4,0,2,2,2,2,6,0,2,0,1,0,1,2,2,1,0,1,1,0,5,8,0 \
0,0,2,4,7,24,3,2,1,4,6,6,7,6,2,0,3,1,1,1,1,0,1,1,1,0,2,7,13,6,29,0
mae_h-124.5 0,1,2,3,6,1,3,6,5,8,0,0,0,1,0,0,0,1,0,1,0,0,0,1,0,0,0,0,0,0,0,0 \
0,2,1,4,0,14,0,11,4,0,0,0,0,1,0,0,0,0,0,0,0,0,0,0,0,0,2,12,0,34,0,0
"""


def _published(row: str) -> Published:
    name, dropped, merged = row.split()
    return Published(name=name, dropped=_counts(dropped), merged=_counts(merged))


def _counts(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


PUBLISHED = {each.name: each for each in map(_published, _DIFFRATE.strip().splitlines())}


def published(name: str) -> Published:
    """The schedule of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in PUBLISHED:
        raise UsageError(
            f"schedule: published: expected one of {', '.join(PUBLISHED)}, got {name}.{nearest(name, PUBLISHED)}"
        )
    return PUBLISHED[name]
