"""What create_cache may not return, and lines at the top of a file that do not load."""

RETURNED = """
[("c", (1, head_dim))]
    - | create_cache must return a dict of field name to (rows, cols), got [
    | Write return {"name": (1, head_dim)}
None
    - | create_cache must return a dict of field name to (rows, cols), got None | Write return
{"k": (1, head_dim)}
    - | create_cache must not declare 'k' key | read cache['k'] and cache['v']
{"c": (1, 2), "v": (1, head_dim)}
    - | create_cache must not declare 'v' key | Remove it from the returned dict
{"c": (1, 2, 3)}
    - | field 'c' needs two dims, (rows, cols), got (1, 2, 3) | Write "c": (1, head_dim)
{"c": 5}
    - | field 'c' needs two dims, (rows, cols), got 5 | Write "c": (1, head_dim)
{"c": (0, head_dim)}
    - | the dims of field 'c' must be at least 1, got (0, head_dim) | Write sizes such as
{"c": (-head_dim, 1)}
    - | the dims of field 'c' must be at least 1, got (-head_dim, 1) | Write sizes such as
{"c": (1, head_dim / 2)}
    - | the dims of field 'c' must be integers, got (1, 64.0) | Divide sizes with //
{"c": (1, None)}
    - | the dims of field 'c' must be integers, got (1, None) | Write sizes such as
{"c": (True, 1)}
    - | the dims of field 'c' must be integers, got (True, 1) | Write sizes such as
{"a b": (1, 1)}
    - | a field name must be an identifier of at most 64 characters, got 'a b' | Use letters, digits and _
{3: (1, 1)}
    - | a field name must be an identifier of at most 64 characters, got 3 | Use letters, digits and _
{"c" * 65: (1, 1)}
    - | a field name must be an identifier of at most 64 characters | Use letters, digits and _
{"c": (10**12, 1)}
    - | the dims of field 'c' are larger than any real size | less than k of a block
{"c": (1, 10**5000)}
    - | the dims of field 'c' are larger than any real size | less than k of a block
{f"f{i}": (1, 1) for i in range(100)}
    - | a flow has at most 64 fields | one field of more rows
"""

FILES = """
from vortex_torch.cache import Sum
    - | Sum is an op of vortex.indexer, not of vortex.cache | Use Mean(dim)
from vortex_torch.cache import topK
    - | topK is an op of vortex.indexer, not of vortex.cache | at the end of forward_indexer
from vortex_torch.indexer import Fill
    - | Fill is an op of vortex.cache, not of vortex.indexer | Fill fields in forward_cache
from vortex_torch.indexer import Meen
    - | vortex.indexer: unknown op 'Meen' | did you mean 'Mean'
from vortex_torch.flow import vFlows
    - | vortex.flow: unknown name 'vFlows' | did you mean 'vFlow'
1 / 0
    - | ZeroDivisionError: division by zero | flow.py, line
weights = Meaan
    - | NameError: name 'Meaan' is not defined | Did you mean Mean?
def f(:
    - | SyntaxError: invalid syntax | flow.py, line
x = '\0'
    - | SyntaxError: source code string cannot contain null bytes | flow.py, line
"""
