"""What the rules of ops refuse, by stage. `read` in program.py says how a table is read."""

INDEXER = """
GeMM()(q, cache['n'], ctx=ctx)
    GeMM | last dimension mismatch: head_dim and 2 | contracts the last dims
    | x [1, group, head_dim]; y [S, 1, 2]
GeMM()(q, Transpose()(cache['c'], ctx=ctx), ctx=ctx)
    GeMM | last dimension mismatch | Transpose() y first | x [1, group, head_dim]; y [S, head_dim, 1]
GeMM()(Transpose()(q, ctx=ctx), cache['c'], ctx=ctx)
    GeMM | last dimension mismatch | Transpose() x first | x [1, head_dim, group]; y [S, 1, head_dim]
GeMM()(cache['c'], Parameter([[1.0] * 128]), ctx=ctx)
    GeMM | multiplies BATCHED operands only | Apply it to q | x [S, 1, head_dim]; y [1, 1, 128]
GeMM()(q, Parameter([[1.0] * 7]), ctx=ctx)
    GeMM | last dimension mismatch: head_dim and 7 | contracts the last dims
    | x [1, group, head_dim]; y [1, 1, 7]
GeMV()(q, cache['c'], ctx=ctx)
    GeMV | must be vectors | or use GeMM | x [1, group, head_dim]; y [S, 1, head_dim]
GeMV()(mean, cache['n'], ctx=ctx)
    GeMV | last dimension mismatch: head_dim and 2 | contracts the last dims | x [1, 1, head_dim]; y [S, 1, 2]
GeMV()(cache['c'], mean, ctx=ctx)
    GeMV | x must be BATCHED | Use GeMM for other formats | x [S, 1, head_dim]; y [1, 1, head_dim]
Kron(dim=(1,))(q, heads, ctx=ctx)
    Kron | not broadcastable over axis 2 | Name axis 2 in dim | x [1, group, head_dim]; y [S, 1, group]
Kron(dim=0)
    Kron | dim must be | (1, 2), (1,) or (2,)

Add()(q, cache['k'], ctx=ctx)
    Add | group and block_size are not broadcastable | reduce one over that dim
    | x [1, group, head_dim]; y [S, block_size, head_dim]
Multiply()(q, cache['n'], ctx=ctx)
    Multiply | head_dim and 2 are not broadcastable | equal or 1 | x [1, group, head_dim]; y [S, 1, 2]
WhereGreater()(heads, loaded, ctx=ctx)
    WhereGreater | group and head_dim are not broadcastable | equal or 1 | x [S, 1, group]; y [S, 1, head_dim]
Maximum()(cache['k'], q, ctx=ctx)
    Maximum | not broadcastable | equal or 1 | x [S, block_size, head_dim]; y [1, group, head_dim]

Parameter([[1.0]])(q, ctx=ctx)
    Parameter | is not called | as an operand
Parameter([1.0, 2.0])
    Parameter | value has the shape [2] | Give it as [L, N, K] or [N, K]
Parameter([[1.0, 2.0], [3.0]])
    Parameter | nested lists of equal lengths | Give it as
Parameter([[float('nan')]])
    Parameter | finite float32 numbers | Give it as
Parameter(None)
    Parameter | must be numbers, found None | Give it as
Parameter([[1.0]], layer_lookup='all')
    Parameter | layer_lookup must be a dict of layer to row, or a list | got 'all'
Parameter([[1.0]], layer_lookup={-1: 0})
    Parameter | both from 0 | got {-1: 0}
Parameter([[1.0]], layer_lookup={i: 0 for i in range(2000)})
    Parameter | layer_lookup has 2000 layers | at most 1024
GeMM()(q, Parameter([[[1.0] * 128]], layer_lookup={3: 1}), ctx=ctx)
    Parameter | gives layer 3 row 1 of 1 | Rows are 0 to 0
GeMM()(Parameter([[1.0]]), Parameter([[1.0]]), ctx=ctx)
    GeMM | combines constants only | before they become a Parameter
Abs()(Parameter([[1.0]]), ctx=ctx)
    Abs | combines constants only | Compute with constants in Python
LearnedQuery(Wq=[[[[1.0] * 2] * 128] * 3])(q, ctx=ctx)
    LearnedQuery | Wq is for 3 heads of 128 features | [L, group=4, head_dim=128, r] | q [1, group, head_dim]
LearnedQuery(Wk=[[[[1.0] * 2] * 64] * 4])(q, ctx=ctx)
    LearnedQuery | Wk is for 4 heads of 64 features | [L, group=4, head_dim=128, r] | q [1, group, head_dim]
LearnedQuery(Wq=[[[[1.0] * 2] * 128] * 4])(q, ctx=ctx)
    LearnedQuery | Wq alone must be square, got 128 x 2 | or Wk too | q [1, group, head_dim]
LearnedQuery(Wq=[[[[1.0] * 2] * 128] * 4], Wk=[[[[1.0] * 3] * 128] * 4])(q, ctx=ctx)
    LearnedQuery | Wq [1, 4, 128, 2] and Wk [1, 4, 128, 3] differ | the same L and r | q [1, group, head_dim]
LearnedQuery(Wq=[[1.0]])
    LearnedQuery | Wq has the shape [1, 1] | Give it as [L, H, d, r]
LearnedQuery()(loaded, ctx=ctx)
    LearnedQuery | this operand has blocks | Apply it to q | q [S, 1, head_dim]
LearnedQuery(layer_lookup={0: 0})(q, ctx=ctx)
    LearnedQuery | row 0 of 0 | Give Wq or Wk | q [1, group, head_dim]
Conv1d([[[1.0, 2.0]]])(loaded, ctx=ctx)
    Conv1d | weight has the inner dims 1 x 2 | [K, 1, head_dim=128] | x [S, 1, head_dim]
Conv1d([[[1.0]]], dim=1)
    Conv1d | dim must be 0, got 1 | Dim 0 is the blocks of a row
Conv1d([[[1.0], [2.0, 3.0]]])
    Conv1d | nested lists of equal lengths | Give it as [K, D0, D1]
Conv1d([[[float('nan')]]])
    Conv1d | finite float32 numbers | Give it as [K, D0, D1]
Conv1d([[1.0]])
    Conv1d | weight has the shape [1, 1] | Give it as [K, D0, D1]
Conv1d([[[1.0]]], dtype='int8')
    Conv1d | dtype must be one of | bfloat16, float16, float32
Conv1d()
    Conv1d | needs the constructor argument 'weight' | Write Conv1d(weight, dim=0
Conv1d([[[1.0] * 128]])(cache['c'], ctx=ctx)
    Conv1d | cannot read a cache field directly | Load() the field first | x [S, 1, head_dim]
Conv1d([[[1.0] * 128] * 4])(q, ctx=ctx)
    Conv1d | its operand has none | Combine it with a cache field first | x [1, group, head_dim]

Softmax()(q, ctx=ctx)
    Softmax | its operand has none | Combine it with a cache field first | x [1, group, head_dim]
Softmax()(cache['c'], ctx=ctx)
    Softmax | cannot read a cache field directly | Load() the field first | x [S, 1, head_dim]
Softmax()(cache['r'], ctx=ctx)
    Softmax | its operand has none | Combine it with a cache field first | x [1, 1, head_dim]
Softmax(dim=2)
    Softmax | dim must be 0, got 2 | Dim 0 is the blocks of a row
Normalize()(mean, ctx=ctx)
    Normalize | its operand has none | Combine it with a cache field first | x [1, 1, head_dim]
Normalize()(cache['c'], ctx=ctx)
    Normalize | cannot read a cache field directly | Load() the field first | x [S, 1, head_dim]
Mean(dim=0)(cache['c'], ctx=ctx)
    Mean | cannot read a cache field directly | Load() the field first | x [S, 1, head_dim]
Max(dim=0)(q, ctx=ctx)
    Max | works over the blocks of a row | Combine it with a cache field first | x [1, group, head_dim]
Sum(dim=-1)
    Sum | dim must be one of 0, 1, 2, got -1 | 1 the rows and 2 the columns
Mean(dim='1')
    Mean | dim must be one of 0, 1, 2, got '1' | 1 the rows and 2 the columns

Reshape(-1, 7, 9)(q, ctx=ctx)
    Reshape | cannot reshape group x head_dim = 512 elements to 7 x 9 | must stay the same
    | x [1, group, head_dim]
Reshape(2, 4, 128)(q, ctx=ctx)
    Reshape | the leading axis cannot be reshaped | Write Reshape(-1, 4, 128) | x [1, group, head_dim]
Reshape(q.shape[0], q.shape[1], q.shape[2])(q, ctx=ctx)
    Reshape | the leading axis cannot be reshaped | Write Reshape(-1, group, head_dim)
    | x [1, group, head_dim]
Reshape(-1, q.shape[0], 128)
    Reshape | rows must be at least 1, got 0 | x.shape[0] is 0 in a trace
Reshape(4, 128)
    Reshape | needs the constructor argument 'cols' | Write Reshape(-1, rows, cols)
MaskSlice(0, 200, 2)(q, ctx=ctx)
    MaskSlice | [0, 200) is out of bounds for dim 2 of size head_dim | <= head_dim=128
    | x [1, group, head_dim]
MaskSlice(5, 3, 1)(q, ctx=ctx)
    MaskSlice | [5, 3) is out of bounds for dim 1 of size group | start <= end <= group=4
    | x [1, group, head_dim]
MaskSlice(-1, 3, 2)
    MaskSlice | start must be at least 0 | got -1
MaskSlice(0, 3, 0)
    MaskSlice | dim must be 1 or 2, got 0 | 1 the rows and 2 the columns
MaskSlice(0, 8)
    MaskSlice | needs the constructor argument 'dim' | Write MaskSlice(start, end, dim

Load()(q, ctx=ctx)
    Load | copies a cache field, and this is none | without Load | field [1, group, head_dim]
Load()(loaded, ctx=ctx)
    Load | copies a cache field, and this is none | without Load | field [S, 1, head_dim]
Save()(mean, cache['c'], ctx=ctx)
    Save | cannot write x, BATCHED, to a field with one entry per block | create_request_cache
    | x [1, 1, head_dim]
Save()(loaded, cache['r'], ctx=ctx)
    Save | cannot write x, RAGGED, to a field with one entry per row | over the blocks (dim=0)
    | x [S, 1, head_dim]
Save()(cache['c'], cache['c'], ctx=ctx)
    Save | cannot write x, PAGED | Load() the field x first | x [S, 1, head_dim]
Save()(loaded, loaded, ctx=ctx)
    Save | must be a cache field, got Load of line | Write cache["name"]
Save()(loaded, 'c', ctx=ctx)
    Save | must be a cache field, got 'c' | Write cache["name"]
Save()(loaded, cache['nope'], ctx=ctx)
    - | unknown cache field 'nope' (known: c, d, k, n, r, s, v) | Declare it in create_cache
Save()(loaded, cache['k'], ctx=ctx)
    Save | 'k' belongs to the engine | Declare a field in create_cache | x [S, 1, head_dim]
Save()(loaded, cache['d'], ctx=ctx)
    Save | [S, 1, head_dim] does not fit the field [S, 2, head_dim] | as (1, head_dim) in create_cache
    | x [S, 1, head_dim]
Save()(q, cache['r'], ctx=ctx)
    Save | [1, group, head_dim] does not fit the field [1, 1, head_dim] | Reduce it to (1, head_dim)
    | x [1, group, head_dim]
Save()(loaded, cache['c'], ctx=ctx); Save()(loaded, cache['c'], ctx=ctx)
    Save | the field 'c' is already written by Save in line | declare a second field | x [S, 1, head_dim]
Save()(loaded, ctx=ctx)
    Save | takes 2 arguments (x, field), got 1 | op(x, field, ctx=ctx)

topK()(heads, o, ctx=ctx)
    topK | needs one score per block, [S, 1, 1] | Reduce dim 2 (group) with Max | score [S, 1, group]
topK()(cache['k'], o, ctx=ctx)
    topK | needs one score per block | dim 1 (block_size) and dim 2 (head_dim)
    | score [S, block_size, head_dim]
topK()(Sum(dim=2)(mean, ctx=ctx), o, ctx=ctx)
    topK | this one is the same for all | Combine q with a cache field | score [1, 1, 1]
topK()(Sum(dim=2)(cache['r'], ctx=ctx), o, ctx=ctx)
    topK | this one is the same for all | Combine q with a cache field | score [1, 1, 1]
topK()(cache['s'], o, ctx=ctx)
    topK | cannot read a cache field directly | Load() the field first | score [S, 1, 1]
topK()(score, ctx=ctx)
    topK | takes 2 arguments (score, o), got 1 | op(score, o, ctx=ctx)
topK()(score, (o,), ctx=ctx)
    topK | must be given o | op(score, o, ctx=ctx)
topK()(score, output=o, ctx=ctx)
    topK | takes no argument 'output' | op(score, o, ctx=ctx)
topK()(o, score, ctx=ctx)
    topK | o cannot be the operand score | as its last argument
topK(8)
    topK | takes no constructor arguments, got 1 | Write topK(); how many blocks it selects is the plan's
topK()(first, o, ctx=ctx)
    topK | the operand score is a selection of TopK | Union()
GeMM()(q, first, ctx=ctx)
    GeMM | the operand y is a selection of TopK | Union()
Mean()(first[0], ctx=ctx)
    Mean | the operand x is a selection of TopK | Union()
Mean()(o, ctx=ctx)
    Mean | o cannot be the operand x | topK, approxTopK or Union
Mean()(q, o, ctx=ctx)
    Mean | takes 1 argument (x), got 2 | o goes to the op that ends the flow
TopK(8)(score, o, ctx=ctx)
    TopK | takes 1 argument (score), got 2 | topK, approxTopK or Union
TopK(0)
    TopK | k must be at least 1 | got 0
TopK(0.1)
    TopK | k must be an integer | got 0.1
TopK(8)(heads, ctx=ctx)
    TopK | needs one score per block | Reduce dim 2 (group) | score [S, 1, group]
approxTopK(1.5)
    approxTopK | tolerate_ratio must be in [0, 1] | got 1.5
approxTopK('0.1')
    approxTopK | tolerate_ratio must be a number | got '0.1'
Union()(first, o, ctx=ctx)
    Union | takes 3 arguments (first, second, o), got 2 | (block_table_1, seqlens_1), o, ctx=ctx)
Union()(first, second, ctx=ctx)
    Union | takes 3 arguments (first, second, o), got 2 | (block_table_1, seqlens_1), o, ctx=ctx)
Union()((first[0], second[1]), second, o, ctx=ctx)
    Union | block_table and seqlens of first are of different TopK ops | what one TopK(k)(score) returned
Union()(first, (second[1], second[0]), o, ctx=ctx)
    Union | second must be a pair (block_table, seqlens) | what TopK(k)(score) returned
Union()(first, score, o, ctx=ctx)
    Union | second must be a pair (block_table, seqlens) | what TopK(k)(score) returned
Union()(first[0], first[1], second[0], second[1], o, ctx=ctx)
    Union | takes 3 arguments (first, second, o), got 5 | (block_table_1, seqlens_1), o, ctx=ctx)

C.Mean()(cache['k'], ctx=ctx)
    Mean | is an op of vortex.cache, called in forward_indexer | Import the one of vortex.indexer
C.Fill()(cache['c'], ctx=ctx)
    Fill | is an op of vortex.cache, called in forward_indexer | Fill fields in forward_cache
C.MaxInterleave(dim=1, k=2)(cache['k'], ctx=ctx)
    MaxInterleave | is an op of vortex.cache, called in forward_indexer | Reshape first
Add()(q, 1.0, ctx=ctx)
    Add | must be a tensor of the flow, got 1.0 | Add_Mul(alpha=..., beta=...)
Add()(q, ctx=ctx)
    Add | takes 2 arguments (x, y), got 1 | op(x, y, ctx=ctx)
Add()(q, q, cache['c'], ctx=ctx)
    Add | takes 2 arguments (x, y), got 3 | Write fields in forward_cache, or with Save()
Mean()(None, ctx=ctx)
    Mean | got None | op(x, ctx=ctx)
GeMM()(q, [[1.0]], ctx=ctx)
    GeMM | the operand y must be a tensor of the flow, got a list | Parameter(value)
GeMM()(q, Mean(), ctx=ctx)
    GeMM | got the op Mean | the result of its call
GeMM()(q, Mean, ctx=ctx)
    GeMM | got the op Mean | the result of its call
Mean()(x=q, ctx=ctx)
    Mean | takes no argument 'x' | op(x, ctx=ctx)
Mean()(q, dim=1, ctx=ctx)
    Mean | dim is given in the call | Write it in __init__: Mean(dim=1)
Mean(q, ctx=ctx)
    Mean | the constructor takes no tensors | call it here as op(x, ctx=ctx)
Mean(axis=1)
    Mean | unknown constructor argument 'axis' | Write Mean(dim=1)
Mean(1, 2)
    Mean | takes at most 1 constructor arguments, got 2 | Write Mean(dim=1)
Mean(1, dim=2)
    Mean | constructor argument 'dim' is given twice | Write Mean(dim=1)
Add_Mul(alpha='x')
    Add_Mul | alpha must be a number | got 'x'
Add_Mul(alpha=float('inf'))
    Add_Mul | alpha must be a finite float32 number | use -1e30
Add_Mul(beta=True)
    Add_Mul | beta must be a number | got True
m = Mean(); m(q, ctx=ctx); m(q, ctx=ctx)
    Mean | this instance is called twice (first in line | one instance per call site in __init__
self.norms = Max(); [self.norms(x, ctx=ctx) for x in (q, mean)]
    Max | this instance is called twice | one instance per call site in __init__
"""

CACHE = """
C.Mean(dim=0)(cache['k'], loc=loc, ctx=ctx)
    Mean | dim must be 1 or 2, got 0 | reduce over blocks in forward_indexer, after vortex.indexer.Load
C.MaxInterleave(dim=0, k=2)(cache['k'], loc=loc, ctx=ctx)
    MaxInterleave | dim must be 1 or 2, got 0 | in forward_indexer
C.Sum()(cache['k'], cache['c'], loc=loc, ctx=ctx)
    Sum | Sum is an op of vortex.indexer, not of vortex.cache | Use Mean(dim)
C.Softmax()(cache['k'], loc=loc, ctx=ctx)
    Softmax | Softmax is an op of vortex.indexer | apply it in forward_indexer
C.Normalize()(cache['k'], loc=loc, ctx=ctx)
    Normalize | Normalize is an op of vortex.indexer | apply it in forward_indexer
C.Conv1d([[[1.0]]])(cache['k'], loc=loc, ctx=ctx)
    Conv1d | Conv1d is an op of vortex.indexer | apply it in forward_indexer
C.Transpose()(cache['k'], loc=loc, ctx=ctx)
    Transpose | Transpose is an op of vortex.indexer | Transpose in the indexer
C.Kron()(cache['k'], cache['v'], loc=loc, ctx=ctx)
    Kron | Kron is an op of vortex.indexer | Multiply operands that broadcast
C.Load()(cache['k'], loc=loc, ctx=ctx)
    Load | Load is an op of vortex.indexer | reads fields directly
C.Save()(cache['k'], cache['c'], loc=loc, ctx=ctx)
    Save | Save is an op of vortex.indexer | the field as its output
C.topK()(cache['k'], loc=loc, ctx=ctx)
    topK | topK is an op of vortex.indexer | at the end of forward_indexer
C.Mena()(cache['k'], loc=loc, ctx=ctx)
    Mena | unknown op 'Mena' | did you mean 'Mean'
Mean()(cache['k'], loc=loc, ctx=ctx)
    Mean | is an op of vortex.indexer, called in forward_cache | Import the one of vortex.cache
Save()(cache['k'], cache['d'], ctx=ctx)
    Save | is an op of vortex.indexer, called in forward_cache | the field as its output
C.Mean()(cache['k'], cache['c'], loc=loc, ctx=ctx)
    Mean | the field 'c' is already written by Mean in line | declare a second field
    | x [1, block_size, head_dim]
C.Max()(cache['k'], cache['v'], loc=loc, ctx=ctx)
    Max | the field 'v' belongs to the engine | Declare a field in create_cache | x [1, block_size, head_dim]
C.Fill()(cache['k'], loc=loc, ctx=ctx)
    Fill | the field 'k' belongs to the engine | Declare a field in create_cache
C.Max(dim=2)(cache['k'], cache['d'], loc=loc, ctx=ctx)
    Max | [1, block_size, 1] does not fit the field [1, 2, head_dim] | Declare the field as (block_size, 1)
    | x [1, block_size, head_dim]
C.Max()(cache['k'], cache['nope'], loc=loc, ctx=ctx)
    - | unknown cache field 'nope' | Declare it in create_cache
C.Max()(cache['k'], C.Min()(cache['k'], loc=loc, ctx=ctx), loc=loc, ctx=ctx)
    Max | the output must be a cache field, got Min of line | Write cache["name"]
C.Max()(cache['k'], 'd', loc=loc, ctx=ctx)
    Max | the output must be a cache field, got 'd' | Write cache["name"]
C.Max()(cache['k'], cache['d'], output=cache['d'], loc=loc, ctx=ctx)
    Max | the output is given twice | op(x, output, loc=loc, ctx=ctx)
C.Max()(cache['k'], out=cache['d'], loc=loc, ctx=ctx)
    Max | takes no argument 'out' | op(x, output, loc=loc, ctx=ctx)
C.Max()(cache['k'], cache['v'], cache['d'], loc=loc, ctx=ctx)
    Max | takes 2 arguments (x, output), got 3 | op(x, output, loc=loc, ctx=ctx)
C.Fill()(loc=loc, ctx=ctx)
    Fill | needs the field that it writes | op(dest, loc=loc, ctx=ctx)
C.Fill()(0.0, loc=loc, ctx=ctx)
    Fill | the output must be a cache field, got 0.0 | Write cache["name"]
C.MaxInterleave(dim=1, k=3)(cache['k'], loc=loc, ctx=ctx)
    MaxInterleave | block_size is not divisible by k=3 | divides block_size=16 | x [1, block_size, head_dim]
C.MeanInterleave(dim=2, k=3)(cache['k'], loc=loc, ctx=ctx)
    MeanInterleave | head_dim is not divisible by k=3 | divides head_dim=128 | x [1, block_size, head_dim]
C.L2NormInterleave(dim=1, k=0)
    L2NormInterleave | k must be at least 1 | got 0
C.GeMM()(cache['k'], C.MeanInterleave(dim=2)(cache['v'], loc=loc, ctx=ctx), loc=loc, ctx=ctx)
    GeMM | last dimension mismatch: head_dim and head_dim//2 | contracts the last dims
    | x [1, block_size, head_dim]; y [1, block_size, head_dim//2]
C.Add()(cache['k'], C.MaxInterleave()(cache['k'], loc=loc, ctx=ctx), loc=loc, ctx=ctx)
    Add | block_size and block_size//2 are not broadcastable | equal or 1
    | x [1, block_size, head_dim]; y [1, block_size//2, head_dim]
C.Reshape(-1, 3, 128)(cache['k'], loc=loc, ctx=ctx)
    Reshape | cannot reshape block_size x head_dim = 2048 elements to 3 x 128 | must stay the same
    | x [1, block_size, head_dim]
C.MaskSlice(0, 17, 1)(cache['k'], loc=loc, ctx=ctx)
    MaskSlice | [0, 17) is out of bounds for dim 1 | <= block_size=16 | x [1, block_size, head_dim]
C.Max()(cache['r'], loc=loc, ctx=ctx)
    - | the request field 'r' cannot be used in the cache stage | Read it in forward_indexer
C.Max()(cache['k'], cache['r'], loc=loc, ctx=ctx)
    - | the request field 'r' cannot be used in the cache stage | write it there with Save()
C.Mean()(loc, cache['d'], ctx=ctx)
    Mean | must be a tensor of the flow, got loc | op(x, output, loc=loc, ctx=ctx)
cache['c'] = cache['k']
    - | cache['c'] cannot be assigned | Give the op the field as its output
del cache['c']
    - | cache['c'] cannot be deleted | Leave it out of what create_cache returns
loc.shape
    - | loc.shape cannot be used: loc is only passed on to ops | loc=loc, ctx=ctx
loc + 1
    - | the operator + cannot be used: loc is only passed on to ops | loc=loc, ctx=ctx
ctx.block_size
    - | ctx.block_size cannot be used: ctx is only passed on to ops | kept on self by create_cache
"""
