"""Native Python and torch on the tensors of a flow, and errors of the author's own code."""

NATIVE = """
torch.topk(q, 3)
    - | torch.topk cannot be used in a flow | topK()(score, o, ctx=ctx) selects the blocks
    | q [1, group, head_dim]
torch.matmul(q, q)
    - | torch.matmul cannot be used in a flow | GeMM()(x, y, ctx=ctx)
    | q [1, group, head_dim]; q [1, group, head_dim]
q @ cache['k']
    - | the operator @ is not defined for tensors of a flow | GeMM()(x, y, ctx=ctx) | q [1, group, head_dim]
q + 1
    - | the operator + is not defined | Add()(x, y, ctx=ctx), or Add_Mul(alpha=c) | q [1, group, head_dim]
2 * q
    - | the operator * is not defined | Multiply()(x, y, ctx=ctx), or Add_Mul(beta=c) | q [1, group, head_dim]
q // 2
    - | the operator // is not defined | Add_Mul(beta=1 / c) divides | q [1, group, head_dim]
-q
    - | the operator - is not defined | Add_Mul(beta=-1.0) | q [1, group, head_dim]
if q > 0: pass
    - | the operator > is not defined | WhereGreater()(x, y, ctx=ctx) | q [1, group, head_dim]
if q: pass
    - | a truth value is not defined | express the choice with the Where ops | q [1, group, head_dim]
for x in q: pass
    - | iteration is not defined | Sum(dim), Max(dim), Mean(dim) | q [1, group, head_dim]
range(q)
    - | int() is not defined | Where ops | q [1, group, head_dim]
len(q)
    - | len() is not defined | x.shape[1] and x.shape[2] | q [1, group, head_dim]
float(q)
    - | float() is not defined | Where ops | q [1, group, head_dim]
f'{q:.3f}'
    - | a number format is not defined | Where ops | q [1, group, head_dim]
q[0]
    - | indexing is not defined | MaskSlice(start, end, dim) | q [1, group, head_dim]
cache['c'][:, :, :8]
    - | indexing is not defined | MaskSlice(start, end, dim) | cache['c'] [S, 1, head_dim]
q(1)
    - | a call is not defined | Tensors are not called | q [1, group, head_dim]
q.mean()
    - | .mean is not defined for tensors of a flow | Mean(dim=1) reduces the rows | q [1, group, head_dim]
q.std()
    - | .std is not defined | give the mean square | q [1, group, head_dim]
q.cuda()
    - | .cuda is not defined | use x as it is | q [1, group, head_dim]
q.scale = 1
    - | assignment to .scale is not defined | give it a name of its own | q [1, group, head_dim]
q.maximun(q)
    - | .maximun is not defined | The nearest op is Maximum | q [1, group, head_dim]
q.frobnicate()
    - | .frobnicate is not defined | Use ops of vortex.indexer and vortex.cache only | q [1, group, head_dim]
math.sqrt(q)
    - | float() is not defined | Where ops | q [1, group, head_dim]
o.copy_(q)
    - | .copy_ is not defined | Pass the field as the op's output | o [S, 1, 1]
cache.c
    - | cache has no attribute 'c' | Write cache["c"]
cache.get('centroid')
    - | unknown cache field 'centroid' | Declare it in create_cache
cache[0]
    - | cache[0] is no field | The fields are 'c', 'd'
cache['latent']
    - | unknown cache field 'latent' | read cache['k'] and cache['v']
cache['c'] = q
    - | cache['c'] cannot be assigned | Save()(x, cache[...], ctx=ctx)
ctx.page_size
    - | ctx.page_size cannot be used | kept on self by create_cache
ctx.scale = 1
    - | ctx.scale cannot be used | only passed on to ops
"""

PYTHON = """
assert q.shape[1] == 5, 'five heads'
    - | forward_indexer raised AssertionError: five heads | traced at block_size=16, head_dim=128, group=4
assert q.shape[1] == 5
    - | forward_indexer raised AssertionError. | traced at block_size=16, head_dim=128, group=4
gemm
    - | NameError: name 'gemm' is not defined | Did you mean GeMM?
undefined_name
    - | NameError: name 'undefined_name' is not defined | Define or import undefined_name
self.norm(q, ctx=ctx)
    - | 'Tested' object has no attribute 'norm' | Create self.norm in __init__
1 / q.shape[0]
    - | ZeroDivisionError: division by zero | x.shape[0] is 0 while a flow is traced
q.shape[3]
    - | IndexError: tuple index out of range | forward_indexer raised
{}['x']
    - | KeyError: 'x' | forward_indexer raised
'a' + 1
    - | TypeError: can only concatenate str | forward_indexer raised
raise ValueError(zip())
    - | ValueError: <zip object> | forward_indexer raised
raise NotImplementedError('later')
    - | NotImplementedError: later | forward_indexer raised
"""
