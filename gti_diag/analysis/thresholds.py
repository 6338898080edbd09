"""The numbers that a verdict compares with, each with the reason why it is that number."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Threshold:
    """A number that decides, and why it is that number."""

    value: float
    why: str


THRESHOLDS = {
    "dispersion_ratio": Threshold(
        0.01,
        "Spread of the new rows as a share of the vocabulary's. Draws of transformers' mean_resizing sit at 3e-5 "
        "(8e-5 after bf16 rounding); the least spread rows that still carried structure, 50 grounding steps after a "
        "mean start, at 0.07. 0.01 is far from both.",
    ),
    "tight": Threshold(
        0.1,
        "Spread, as a share of the vocabulary's, under which a healthy verdict warns. In one study rows started at 0.07 were "
        "learned no better than one point, and the same rows at 1.0 well; at 0.27 others were. The line lies somewhere between.",
    ),
    "twin_share": Threshold(
        0.1,
        "Share of rows with another row within rounding. Trained vocabularies have almost none outside padding; "
        "a tenth of the codes with a twin is already a tenth of the items confused. The same share of rows within 1 % of the "
        "vocabulary's spread of another: rows started from descriptions, the closest that still differ, keep 1.9 % apart.",
    ),
    "crowded_share": Threshold(
        0.9,
        "Share of the rows with another within 1 % of the vocabulary's spread, from which a tiny spread of the typical row means "
        "collapsed. A group with half of its rows at one point is degenerate; with all but one there, collapsed.",
    ),
    "effective_rank_share": Threshold(
        0.5,
        "Centred effective rank over the least of equally many text rows. Rows grounded for a few dozen steps reach "
        "0.7 or more; sixteen distinct rows repeated 64 times reach about 0.1.",
    ),
    "noise_rank_share": Threshold(
        0.99,
        "Centred effective rank over that of Gaussian noise of the same size. Independent draws reach 1.00; trained "
        "text rows, whose directions differ in weight, stay below.",
    ),
    "rsa_p_value": Threshold(
        0.01,
        "One group in a hundred without structure on half of its levels may pass by luck, not one in twenty. Of 300 groups of 64 "
        "tokens with structure on level 1 of 3 alone 1 passed, where 117 did by raw RSA over all codes and 0.05 on two levels.",
    ),
    "rsa": Threshold(
        0.05,
        "Least agreement that counts, on a level: with thousands of tokens an r of 0.01 is significant and still worthless.",
    ),
    "level_share": Threshold(
        0.5,
        "Share of the levels that must agree with the reference. Over all codes, agreement can come from the levels' own "
        "differences, or from level 1 alone; so what is left without the best levels must agree as well.",
    ),
    "tested_share": Threshold(
        0.5,
        "Share of the tokens, and of the levels, that must have been compared. A reference that is zero but for 8 of 48 "
        "tokens agreed at RSA 0.90 and says nothing of the other 40.",
    ),
}


Reason = dict[str, Any]


def reason(measure: str, value: Any, expected: str, text: str) -> Reason:
    """A number, what it should have been, and what that means, as a verdict lists it."""
    return {"measure": measure, "value": value, "expected": expected, "text": text}


def levels_needed(levels: int) -> int:
    """How many of so many levels must agree with the reference: half of them, rounded up."""
    return levels - int(levels * (1 - THRESHOLDS["level_share"].value))
