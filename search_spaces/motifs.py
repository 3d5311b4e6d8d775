"""Idioms of block selection: what is worth keeping of a block, and how a query may be held against it.

Random generation and mutation draw from here often and from the untamed op table sometimes. An idiom is
only a draft: `grammar.py` keeps it if the ops' own rules type it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from search_spaces.expr import Apply, Expr, Given, Stored
from search_spaces.typed import op
from vortex.graph.model import Stage

Q, K, V = Given("q"), Given("k"), Given("v")

Draw = Callable[[random.Random], Expr]


def _c(name: str, *operands: Expr, **attrs: float) -> Apply:
    return op(Stage.CACHE, name, *operands, **attrs)


def _i(name: str, *operands: Expr, **attrs: float) -> Apply:
    return op(Stage.INDEXER, name, *operands, **attrs)


def weight(rng: random.Random) -> float:
    """A mixing weight with few digits: flows are read by people."""
    return rng.choice((0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0))


def scale(rng: random.Random) -> float:
    """A softmax temperature around 1/sqrt(head_dim)."""
    return rng.choice((0.02, 0.03, 0.05, 0.09, 0.125, 0.18, 0.25, 0.35, 0.5))


# One vector a block: values of the cache program, (1, head_dim).


def mean(rng: random.Random) -> Expr:
    """The centroid."""
    return _c("Mean", K, dim=1)


def upper(rng: random.Random) -> Expr:
    return _c("Max", K, dim=1)


def lower(rng: random.Random) -> Expr:
    return _c("Min", K, dim=1)


def midrange(rng: random.Random) -> Expr:
    """The centre of the block's bounding box: unlike the centroid it moves for a single token that stands
    out."""
    return _c("Add", upper(rng), lower(rng), alpha=0.5, beta=0.5)


def mean_and_midrange(rng: random.Random) -> Expr:
    share = weight(rng)
    return _c("Add", mean(rng), midrange(rng), alpha=round(1 - share, 2), beta=share)


def emphasised_mean(rng: random.Random) -> Expr:
    """The mean of k |k|: features weigh by their own size."""
    return _c("Mean", _c("Multiply", K, _c("Abs", K)), dim=1)


def deviation(rng: random.Random) -> Expr:
    """How far each token lies from the centroid: (block_size, 1)."""
    return _c("L2Norm", _c("Add", K, mean(rng), alpha=1.0, beta=-1.0), dim=2)


def token_weight(rng: random.Random) -> Expr:
    """How much a token says about its block, (block_size, 1): its distance from the centroid, that
    squared or as an exponent, or the norm of its key or value."""
    kind = rng.choice(("far", "far", "far squared", "far exponential", "far exponential", "key", "value"))
    if kind == "far squared":
        return _c("Multiply", deviation(rng), deviation(rng))
    if kind == "far exponential":
        return _c("Exp", deviation(rng), beta=rng.choice((0.1, 0.25, 0.5)))
    if kind in ("key", "value"):
        return _c("L2Norm", K if kind == "key" else V, dim=2)
    return deviation(rng)


def weighted_mean(rng: random.Random) -> Expr:
    """The mean of the tokens by weight: a token that stands out is not averaged away. One in three is
    divided by the mean weight; without that, blocks with more outstanding tokens also have longer
    vectors."""
    weights = token_weight(rng)
    total = _c("Mean", _c("Multiply", K, weights), dim=1)
    if rng.random() < 0.67:
        return total
    return _c("Multiply", total, _c("Exp", _c("Log", _c("Mean", weights, dim=1)), beta=-1.0))


def half_spread(rng: random.Random) -> Expr:
    """Half the extent of the bounding box in each feature."""
    return _c("Add", upper(rng), lower(rng), alpha=0.5, beta=-0.5)


def sub_blocks(rng: random.Random) -> Expr:
    """One vector for each group of tokens of a block: (block_size / tokens, head_dim)."""
    name = rng.choice(("MeanInterleave", "MeanInterleave", "MaxInterleave", "MinInterleave"))
    return _c(name, K, dim=1, k=rng.choice((2, 4, 8, 8)))


def sub_block_midrange(rng: random.Random) -> Expr:
    tokens = rng.choice((4, 8, 8))
    high = _c("MaxInterleave", K, dim=1, k=tokens)
    low = _c("MinInterleave", K, dim=1, k=tokens)
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


def radius(rng: random.Random) -> Expr:
    """The distance of the farthest (or the mean) token from the centroid."""
    return _c(rng.choice(("Max", "Max", "Mean")), deviation(rng), dim=1)


def box_size(rng: random.Random) -> Expr:
    return _c(rng.choice(("L2Norm", "Mean", "Max")), half_spread(rng), dim=2)


def key_norm(rng: random.Random) -> Expr:
    return _c(rng.choice(("Max", "Mean")), _c("L2Norm", K, dim=2), dim=1)


def value_norm(rng: random.Random) -> Expr:
    """How much a block can add to the output, whatever its keys say."""
    return _c(rng.choice(("Max", "Mean")), _c("L2Norm", V, dim=2), dim=1)


SCALARS: tuple[Draw, ...] = (radius, box_size, key_norm, value_norm)


# Scores of the indexer program, (sub-blocks, heads): to be reduced by `settled` of the grammar.


def pooled_query(rng: random.Random) -> Expr:
    return _i(rng.choice(("Mean", "Mean", "Sum", "Max")), Q, dim=1)


def dot(rng: random.Random, query: Expr, summary: Expr) -> Expr:
    """query . summary: (rows of the summary, rows of the query)."""
    return _i("GeMM", query, Stored(summary))


def head_softmax(rng: random.Random, score: Expr) -> Apply:
    """Each head's softmax over the blocks: heads that are sure count, heads that are flat do not."""
    return _i("Softmax", score, dim=0, scale=scale(rng))


def centroid_score(rng: random.Random) -> Expr:
    """A query, pooled or per head, times one summary, with or without a softmax over blocks."""
    query = pooled_query(rng) if rng.random() < 0.4 else Q
    score = dot(rng, query, rng.choice(CENTRES)(rng))
    return head_softmax(rng, score) if query is Q and rng.random() < 0.5 else score


def quest_score(rng: random.Random) -> Expr:
    """The largest product that any key inside the block's bounding box could have with each head's
    query."""
    query = Q if rng.random() < 0.75 else pooled_query(rng)
    high = _i("Multiply", query, Stored(upper(rng)))
    low = _i("Multiply", query, Stored(lower(rng)))
    return _i("Sum", _i("Maximum", high, low), dim=2)


def ball_score(rng: random.Random) -> Expr:
    """q . centre + alpha |q| radius: a bound like Quest's for one vector and one number a block."""
    size = _i("L2Norm", Q, dim=2) if rng.random() < 0.6 else _i("Sum", _i("Abs", Q), dim=2)
    centre = rng.choice((mean, midrange, mean_and_midrange, weighted_mean))(rng)
    extent = rng.choice((radius, box_size))(rng)
    correction = _i("GeMM", size, Stored(extent))
    return _i("Add", dot(rng, Q, centre), correction, alpha=1.0, beta=weight(rng))


def positive_score(rng: random.Random) -> Expr:
    """The positive part of the query against the upper bounds: half of Quest's bound for half of its
    bytes."""
    return _i("GeMM", _i("Relu", Q, alpha=0.0, beta=0.0), Stored(upper(rng)))


def spread_score(rng: random.Random) -> Expr:
    """q . centre + alpha |q| . half-spread: Quest's bound with a weight on how far it trusts the box."""
    correction = _i("GeMM", _i("Abs", Q), Stored(half_spread(rng)))
    return _i("Add", dot(rng, Q, rng.choice((mean, midrange))(rng)), correction, alpha=1.0, beta=weight(rng))


SCORES: tuple[Draw, ...] = (
    centroid_score,
    centroid_score,
    quest_score,
    ball_score,
    positive_score,
    spread_score,
)
