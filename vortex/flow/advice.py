"""What to write instead of native Python or torch operations on the tensors of a flow."""

from __future__ import annotations

from vortex.errors import nearest

_REDUCE = "{0}(dim=1) reduces the rows and {0}(dim=2) the columns of each block"
_PRODUCT = "GeMM()(x, y, ctx=ctx) is y x^T: O[a, b] = sum_k y[a, k] x[b, k]"
_SHAPE = "Reshape(-1, rows, cols) changes the inner dims"
_SUBTRACT = "Add(alpha=1.0, beta=-1.0)(x, y, ctx=ctx) is x - y"
_DIVIDE = "Log(), Add_Mul(beta=-1.0) and Exp() give 1 / y; Add_Mul(beta=1 / c) divides by a number c"
_SLICE = "MaskSlice(start, end, dim) gives a mask to Multiply with"
_SELECT = "topK()(score, o, ctx=ctx) selects the blocks"
_JOIN = "Score each part, and join the scores with Add()(x, y, ctx=ctx) or Maximum()(x, y, ctx=ctx)"
_FILTER = "Conv1d(weight) is a causal filter along the blocks of a row"
_ANY = "Max(dim) and Min(dim) of zeros and ones say whether any and all are one"
_SPREAD = "Multiply()(x, x, ctx=ctx) and then Mean(dim) give the mean square"
_CHOICE = "A flow has no values while it is traced; express the choice with the Where ops"
_FLOAT32 = "All computation is in float32 already"
_VALUE = "Tensors are values here; use x as it is"
_ADVICE = {
    **{name: _REDUCE.format("Mean") for name in ("mean", "average")},
    **{name: _REDUCE.format("Sum") for name in ("sum",)},
    **{name: _REDUCE.format("Max") for name in ("max", "amax")},
    **{name: _REDUCE.format("Min") for name in ("min", "amin")},
    **{name: _REDUCE.format("L2Norm") for name in ("norm", "linalg", "vector_norm")},
    **dict.fromkeys(
        ("matmul", "mm", "bmm", "dot", "einsum", "inner", "linear", "@", "mv", "baddbmm"), _PRODUCT
    ),
    **dict.fromkeys(
        ("view", "reshape", "flatten", "squeeze", "unsqueeze", "unflatten", "repeat", "expand"), _SHAPE
    ),
    **dict.fromkeys(("t", "T", "mT", "transpose", "permute"), "Transpose()(x, ctx=ctx) swaps the inner dims"),
    **dict.fromkeys(
        ("*", "mul", "multiply", "square"), "Multiply()(x, y, ctx=ctx), or Add_Mul(beta=c) for a number c"
    ),
    **dict.fromkeys(("+", "add"), "Add()(x, y, ctx=ctx), or Add_Mul(alpha=c) for a number c"),
    **dict.fromkeys(("-", "sub", "subtract"), _SUBTRACT),
    **dict.fromkeys(("/", "//", "div", "divide", "true_divide"), _DIVIDE),
    **dict.fromkeys(("[]", "narrow", "index_select", "gather", "split", "chunk", "select"), _SLICE),
    **dict.fromkeys(("topk", "argsort", "sort", "argmax", "argmin", "kthvalue"), _SELECT),
    **dict.fromkeys(("cat", "concat", "concatenate", "stack", "vstack", "hstack"), _JOIN),
    **dict.fromkeys(("std", "var"), _SPREAD),
    **dict.fromkeys(("conv1d", "cumsum", "roll"), _FILTER),
    **dict.fromkeys(("any", "all"), _ANY),
    "softmax": "Softmax(dim=0, scale=1.0) is over the blocks of a row",
    "normalize": "Normalize(dim=0) is over the blocks of a row",
    "exp": "Exp()(x, ctx=ctx)",
    "log": "Log()(x, ctx=ctx)",
    "abs": "Abs()(x, ctx=ctx)",
    "neg": "Add_Mul(beta=-1.0)(x, ctx=ctx)",
    "relu": "Relu()(x, ctx=ctx)",
    "sigmoid": "Sigmoid(beta=-1.0)(x, ctx=ctx)",
    "tanh": "Sigmoid(beta=-2.0) and Add_Mul(alpha=-1.0, beta=2.0) give tanh",
    "silu": "Silu(beta=-1.0)(x, ctx=ctx)",
    "kron": "Kron(dim=(1, 2))(x, y, ctx=ctx)",
    "maximum": "Maximum()(x, y, ctx=ctx)",
    "minimum": "Minimum()(x, y, ctx=ctx)",
    "clamp": "Maximum()(x, y, ctx=ctx) and Minimum()(x, y, ctx=ctx)",
    "where": "WhereGreater()(x, y, ctx=ctx) and its kin give 0 or -1e30, to be added to a score",
    "==": "WhereEqual()(x, y, ctx=ctx)",
    "!=": "WhereNotEqual()(x, y, ctx=ctx)",
    "<": "WhereLess()(x, y, ctx=ctx), or Minimum()(x, y, ctx=ctx) for the smaller one",
    "<=": "WhereLessEqual()(x, y, ctx=ctx)",
    ">": "WhereGreater()(x, y, ctx=ctx), or Maximum()(x, y, ctx=ctx) for the larger one",
    ">=": "WhereGreaterEqual()(x, y, ctx=ctx)",
    **dict.fromkeys(
        ("**", "pow"), "Multiply()(x, x, ctx=ctx) squares; Log(), Add_Mul(beta=p) and Exp() give x^p"
    ),
    "zeros": "Fill(alpha=0.0)(field, loc=loc, ctx=ctx) in forward_cache",
    "ones": "Fill(alpha=1.0)(field, loc=loc, ctx=ctx) in forward_cache",
    "copy_": "Pass the field as the op's output in forward_cache",
    **dict.fromkeys(("clone", "detach", "contiguous", "cuda", "cpu", "requires_grad", "data", "pos"), _VALUE),
    **dict.fromkeys(("float", "to", "half", "bfloat16", "type", "double"), _FLOAT32),
    "=": "An op returns a new tensor: give it a name of its own",
    "()": "Tensors are not called: an op is created in __init__ and called with tensors, op(x, ctx=ctx)",
    "len": "Its sizes are x.shape[1] and x.shape[2]",
    "iter": "An op works on all rows of x at once: Sum(dim), Max(dim), Mean(dim) reduce them",
    "sqrt": "Log(), Add_Mul(beta=0.5) and Exp() give the root; L2Norm() includes one",
    **dict.fromkeys(("item", "tolist", "numpy"), _CHOICE),
}


def op_for(name: str) -> str:
    """The Vortex op that does what the attribute, function or operator `name` would."""
    found = _ADVICE.get(name) or _ADVICE.get(name.rstrip("_").lower())
    if found:
        return found
    from vortex.graph.model import Stage
    from vortex.ops import stage_ops

    close = nearest(name, stage_ops(Stage.INDEXER), cutoff=0.7)
    return (
        f"The nearest op is {close}"
        if close
        else "Use ops of vortex.indexer and vortex.cache only (docs/ops.md)"
    )
