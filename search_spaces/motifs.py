"""Idioms of block selection: what is worth keeping of a block, and how a query may be held against it.

Random generation and mutation draw from here often and from the untamed op table sometimes. An idiom is
only a draft: `grammar.py` keeps it if the ops' own rules type it. Every idiom is made of the `Leaves` of one
kind of flow.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from search_spaces.expr import Apply, Expr, Given, Stored
from search_spaces.typed import TRACED, op
from vortex.graph.build import symbols
from vortex.graph.model import Attr, Stage
from vortex.weights import Weight


@dataclass(frozen=True)
class Leaves:
    """What the idioms of a kind of flow start from: the query, a block's keys, and a block's values."""

    kind: str
    q: Expr
    k: Expr
    v: Expr


Draw = Callable[[random.Random, Leaves], Expr]


def _c(name: str, *operands: Expr, **attrs: Attr) -> Apply:
    return op(Stage.CACHE, name, *operands, **attrs)


def _i(name: str, *operands: Expr, **attrs: Attr) -> Apply:
    return op(Stage.INDEXER, name, *operands, **attrs)


RANK = symbols("mla", TRACED["mla"])["kv_lora_rank"]
"""Features of a latent that are its content; the rest is its position."""
_LATENT = Given("latent", "mla")
_CONTENT = _c("Multiply", _LATENT, _c("MaskSlice", _LATENT, start=0, end=RANK, dim=2))
LEAVES = {
    "gqa": Leaves("gqa", Given("q"), Given("k"), Given("v")),
    "mla": Leaves("mla", Given("q", "mla"), _LATENT, _CONTENT),
}


def weight(rng: random.Random) -> float:
    """A mixing weight with few digits: flows are read by people."""
    return rng.choice((0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0))


def scale(rng: random.Random) -> float:
    """A softmax temperature around 1/sqrt(head_dim)."""
    return rng.choice((0.02, 0.03, 0.05, 0.09, 0.125, 0.18, 0.25, 0.35, 0.5))


# One vector a block: values of the cache program, (1, features).


def mean(rng: random.Random, of: Leaves) -> Expr:
    """The centroid."""
    return _c("Mean", of.k, dim=1)


def upper(rng: random.Random, of: Leaves) -> Expr:
    return _c("Max", of.k, dim=1)


def lower(rng: random.Random, of: Leaves) -> Expr:
    return _c("Min", of.k, dim=1)


def midrange(rng: random.Random, of: Leaves) -> Expr:
    """The centre of the block's bounding box: unlike the centroid it moves for a single token that stands
    out."""
    return _c("Add", upper(rng, of), lower(rng, of), alpha=0.5, beta=0.5)


def mean_and_midrange(rng: random.Random, of: Leaves) -> Expr:
    share = weight(rng)
    return _c("Add", mean(rng, of), midrange(rng, of), alpha=round(1 - share, 2), beta=share)


def emphasised_mean(rng: random.Random, of: Leaves) -> Expr:
    """The mean of k |k|: features weigh by their own size."""
    return _c("Mean", _c("Multiply", of.k, _c("Abs", of.k)), dim=1)


def deviation(rng: random.Random, of: Leaves) -> Expr:
    """How far each token lies from the centroid: (block_size, 1)."""
    return _c("L2Norm", _c("Add", of.k, mean(rng, of), alpha=1.0, beta=-1.0), dim=2)


def token_weight(rng: random.Random, of: Leaves) -> Expr:
    """How much a token says about its block, (block_size, 1): its distance from the centroid, that
    squared or as an exponent, or the norm of its key or value."""
    kind = rng.choice(("far", "far", "far squared", "far exponential", "far exponential", "key", "value"))
    if kind == "far squared":
        return _c("Multiply", deviation(rng, of), deviation(rng, of))
    if kind == "far exponential":
        return _c("Exp", deviation(rng, of), beta=rng.choice((0.1, 0.25, 0.5)))
    if kind in ("key", "value"):
        return _c("L2Norm", of.k if kind == "key" else of.v, dim=2)
    return deviation(rng, of)


def weighted_mean(rng: random.Random, of: Leaves) -> Expr:
    """The mean of the tokens by weight: a token that stands out is not averaged away. One in three is
    divided by the mean weight; without that, blocks with more outstanding tokens also have longer
    vectors."""
    weights = token_weight(rng, of)
    total = _c("Mean", _c("Multiply", of.k, weights), dim=1)
    if rng.random() < 0.67:
        return total
    return _c("Multiply", total, _c("Exp", _c("Log", _c("Mean", weights, dim=1)), beta=-1.0))


def half_spread(rng: random.Random, of: Leaves) -> Expr:
    """Half the extent of the bounding box in each feature."""
    return _c("Add", upper(rng, of), lower(rng, of), alpha=0.5, beta=-0.5)


def sub_blocks(rng: random.Random, of: Leaves) -> Expr:
    """One vector for each group of tokens of a block: (block_size / tokens, features)."""
    name = rng.choice(("MeanInterleave", "MeanInterleave", "MaxInterleave", "MinInterleave"))
    return _c(name, of.k, dim=1, k=rng.choice((2, 4, 8, 8)))


def sub_block_midrange(rng: random.Random, of: Leaves) -> Expr:
    tokens = rng.choice((4, 8, 8))
    high = _c("MaxInterleave", of.k, dim=1, k=tokens)
    low = _c("MinInterleave", of.k, dim=1, k=tokens)
    return _c("Add", high, low, alpha=0.5, beta=0.5)


CENTRES: tuple[Draw, ...] = (
    mean,
    midrange,
    mean_and_midrange,
    emphasised_mean,
    weighted_mean,
    weighted_mean,
    weighted_mean,
    weighted_mean,
    sub_blocks,
    sub_block_midrange,
    upper,
)
"""Summaries that a query is multiplied with."""


# One number a block: values of the cache program, (1, 1).


def radius(rng: random.Random, of: Leaves) -> Expr:
    """The distance of the farthest (or the mean) token from the centroid."""
    return _c(rng.choice(("Max", "Max", "Mean")), deviation(rng, of), dim=1)


def box_size(rng: random.Random, of: Leaves) -> Expr:
    return _c(rng.choice(("L2Norm", "Mean", "Max")), half_spread(rng, of), dim=2)


def key_norm(rng: random.Random, of: Leaves) -> Expr:
    return _c(rng.choice(("Max", "Mean")), _c("L2Norm", of.k, dim=2), dim=1)


def value_norm(rng: random.Random, of: Leaves) -> Expr:
    """How much a block can add to the output, whatever its keys say."""
    return _c(rng.choice(("Max", "Mean")), _c("L2Norm", of.v, dim=2), dim=1)


SCALARS: tuple[Draw, ...] = (radius, box_size, key_norm, value_norm)


# Scores of the indexer program, (sub-blocks, heads): to be reduced by `settled` of the grammar.


def query(rng: random.Random, of: Leaves) -> Expr:
    """Every head's query; in MLA half of the time with content and position weighted apart."""
    return parts_weighted(rng, of.q) if of.kind == "mla" and rng.random() < 0.5 else of.q


def parts_weighted(rng: random.Random, queries: Expr) -> Expr:
    """An absorbed query whose product with a latent is A (content) + B (position): RoPE makes the second
    depend on the distance, and B = 0 leaves it out."""
    content, position = rng.choice(
        ((1.0, 0.0), (1.0, 0.0), (0.9, 0.1), (0.75, 0.25), (0.5, 1.0), (0.25, 0.75))
    )
    mask = _i("MaskSlice", queries, start=0, end=RANK, dim=2, alpha=content, beta=position)
    return _i("Multiply", queries, mask)


def pooled_query(rng: random.Random, of: Leaves) -> Expr:
    return _i(rng.choice(("Mean", "Mean", "Sum", "Max")), query(rng, of), dim=1)


def dot(queries: Expr, summary: Expr) -> Expr:
    """query . summary: (rows of the summary, rows of the query)."""
    return _i("GeMM", queries, Stored(summary))


def head_softmax(rng: random.Random, score: Expr) -> Apply:
    """Each head's softmax over the blocks: heads that are sure count, heads that are flat do not."""
    return _i("Softmax", score, dim=0, scale=scale(rng))


def centroid_score(rng: random.Random, of: Leaves) -> Expr:
    """A query, pooled or per head, times one summary, with or without a softmax over blocks."""
    pooled = rng.random() < 0.4
    queries = pooled_query(rng, of) if pooled else query(rng, of)
    score = dot(queries, rng.choice(CENTRES)(rng, of))
    return head_softmax(rng, score) if not pooled and rng.random() < 0.5 else score


def quest_score(rng: random.Random, of: Leaves) -> Expr:
    """The largest product that any key inside the block's bounding box could have with each head's
    query."""
    queries = query(rng, of) if rng.random() < 0.75 else pooled_query(rng, of)
    high = _i("Multiply", queries, Stored(upper(rng, of)))
    low = _i("Multiply", queries, Stored(lower(rng, of)))
    return _i("Sum", _i("Maximum", high, low), dim=2)


def ball_score(rng: random.Random, of: Leaves) -> Expr:
    """q . centre + alpha |q| radius: a bound like Quest's for one vector and one number a block."""
    queries = query(rng, of)
    size = _i("L2Norm", queries, dim=2) if rng.random() < 0.6 else _i("Sum", _i("Abs", queries), dim=2)
    centre = rng.choice((mean, midrange, mean_and_midrange, weighted_mean))(rng, of)
    extent = rng.choice((radius, box_size))(rng, of)
    correction = _i("GeMM", size, Stored(extent))
    return _i("Add", dot(queries, centre), correction, alpha=1.0, beta=weight(rng))


def positive_score(rng: random.Random, of: Leaves) -> Expr:
    """The positive part of the query against the upper bounds: half of Quest's bound for half of its
    bytes."""
    return _i("GeMM", _i("Relu", query(rng, of), alpha=0.0, beta=0.0), Stored(upper(rng, of)))


def spread_score(rng: random.Random, of: Leaves) -> Expr:
    """q . centre + alpha |q| . half-spread: Quest's bound with a weight on how far it trusts the box."""
    queries = query(rng, of)
    correction = _i("GeMM", _i("Abs", queries), Stored(half_spread(rng, of)))
    centre = rng.choice((mean, midrange))(rng, of)
    return _i("Add", dot(queries, centre), correction, alpha=1.0, beta=weight(rng))


SCORES: tuple[Draw, ...] = (
    centroid_score,
    centroid_score,
    quest_score,
    ball_score,
    positive_score,
    spread_score,
)


# What a second glance at the scores may add.

_TAPS = ((0.75, 0.25), (0.5, 0.5), (1.0, 0.5), (0.5, 0.25, 0.25))


def smoothed(rng: random.Random, score: Expr) -> Expr:
    """A share of the block before (and the one before that): what begins at the end of a block goes on in the
    next one, whose own summary may not show it."""
    taps = [[[tap]] for tap in rng.choice(_TAPS)]
    return _i("Conv1d", score, weight=Weight.of(taps))
