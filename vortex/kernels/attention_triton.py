# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Decode attention over block lists as one Triton kernel, for every shape and number format.

A program takes items (part, tile of query heads, kv head), kv heads fastest. An item is a stretch of a row's
block list: a pass over its tokens in tiles, with the softmax kept as largest logit m, sum of weights (mass)
and weighted values (acc) in float32. A row of one part is finished at once; otherwise the item that takes the
last ticket of its row adds the parts up, in their order.

Keys have the columns [0, A) and [A, A + B), the widths rounded up to WA and WB (0: no second segment). Values
have the same, or for a latent the first A columns of the key.
"""

from vortex.kernels.triton_setup import tl, triton


@triton.jit
def _columns(base, rows, stride, first: tl.constexpr, count: tl.constexpr, width: tl.constexpr, valid):
    """`[rows, width]`: `count` columns from `first` on of the rows at `rows * stride`; 0 where not valid."""
    columns = tl.arange(0, width)
    mask = valid[:, None]
    if count != width:
        mask = mask & (columns < count)[None, :]
    return tl.load(base + (rows * stride)[:, None] + (first + columns)[None, :], mask=mask, other=0.0)


@triton.jit
def _keep(base, rows, stride, first: tl.constexpr, count: tl.constexpr, width: tl.constexpr, valid, values):
    columns = tl.arange(0, width)
    mask = valid[:, None] & (columns < count)[None, :]
    tl.store(base + (rows * stride)[:, None] + (first + columns)[None, :], values, mask=mask)


@triton.jit
def _weight(m, top):
    """What a sum relative to `m` counts relative to `top`; nothing where there was no token."""
    return tl.exp2(m - tl.where(top == float("-inf"), 0.0, top))


@triton.jit
def decode(
    q, k, v, out, accs, stats, tickets,
    n, chosen, seq_len, table, lists, tokens, parts, part_count, part_first,
    scale, q_request, q_head, k_slot, k_head, v_slot, v_head, out_row, out_head, table_row, list_row,
    HEADS: tl.constexpr, SHARE: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr,
    A: tl.constexpr, WA: tl.constexpr, B: tl.constexpr, WB: tl.constexpr, LATENT: tl.constexpr,
    HEAD_TILE: tl.constexpr, TOKEN_TILE: tl.constexpr, STAGES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`q [rows, GROUP, A + B]`, `out [rows, GROUP, values]`, `accs [parts * HEADS, GROUP, values]`,
    `stats [2, parts * HEADS, GROUP]`, `tickets [rows, tiles]`, zero before and after; the rest as DeviceStep.
    `scale` includes log2 e."""
    VALUES: tl.constexpr = A if LATENT else A + B
    TILES: tl.constexpr = (GROUP + HEAD_TILE - 1) // HEAD_TILE
    ROW_ITEMS: tl.constexpr = HEADS * TILES
    total = tl.load(part_count)
    for item in range(tl.program_id(0), total * ROW_ITEMS, tl.num_programs(0)):
        part = item // ROW_ITEMS
        head = item % HEADS
        tile = item % ROW_ITEMS // HEADS
        request = tl.load(parts + part * 3)
        first = tl.load(parts + part * 3 + 1)
        count = tl.load(parts + part * 3 + 2)
        row = request * HEADS + head
        dense = tl.load(chosen + request) == tl.load(n + request)
        length = tl.where(dense, tl.load(seq_len + request), tl.load(tokens + row))
        end = tl.minimum((first + count) * BLOCK, length)
        ids = lists + row.to(tl.int64) * list_row
        shift = 0  # from an entry of the table to a block id
        spread = 1
        if dense:
            ids = table + (row // SHARE).to(tl.int64) * table_row
            spread = SHARE
            shift = row % SHARE

        heads = tile * HEAD_TILE + tl.arange(0, HEAD_TILE)
        live = heads < GROUP
        q_base = q + request.to(tl.int64) * q_request + head * GROUP * q_head
        qa = _columns(q_base, heads, q_head, 0, A, WA, live)
        if WB:
            qb = _columns(q_base, heads, q_head, A, B, WB, live)
        m = tl.full([HEAD_TILE], float("-inf"), tl.float32)
        mass = tl.zeros([HEAD_TILE], tl.float32)
        acc_a = tl.zeros([HEAD_TILE, WA], tl.float32)
        if WB and not LATENT:
            acc_b = tl.zeros([HEAD_TILE, WB], tl.float32)
        for start in tl.range(first * BLOCK, end, TOKEN_TILE, num_stages=STAGES):
            at = start + tl.arange(0, TOKEN_TILE)
            valid = at < end
            block = tl.load(ids + at // BLOCK, mask=valid, other=0) * spread + shift
            slots = (block // SHARE).to(tl.int64) * BLOCK + at % BLOCK
            lanes = (block % SHARE).to(tl.int64)
            k_rows = slots * k_slot + lanes * k_head
            ka = _columns(k, k_rows, 1, 0, A, WA, valid).to(q.dtype.element_ty)
            logits = tl.dot(qa, tl.trans(ka), input_precision=PRECISION)
            if WB:
                kb = _columns(k, k_rows, 1, A, B, WB, valid).to(q.dtype.element_ty)
                logits = tl.dot(qb, tl.trans(kb), logits, input_precision=PRECISION)
            logits = tl.where(valid[None, :], logits * scale, float("-inf"))
            top = tl.maximum(m, tl.max(logits, 1))
            weights = tl.exp2(logits - top[:, None])
            fade = _weight(m, top)
            mass = mass * fade + tl.sum(weights, 1)
            m = top
            weights = weights.to(q.dtype.element_ty)
            if LATENT:
                acc_a = tl.dot(weights, ka, acc_a * fade[:, None], input_precision=PRECISION)
            else:
                v_rows = slots * v_slot + lanes * v_head
                va = _columns(v, v_rows, 1, 0, A, WA, valid).to(q.dtype.element_ty)
                acc_a = tl.dot(weights, va, acc_a * fade[:, None], input_precision=PRECISION)
                if WB:
                    vb = _columns(v, v_rows, 1, A, B, WB, valid).to(q.dtype.element_ty)
                    acc_b = tl.dot(weights, vb, acc_b * fade[:, None], input_precision=PRECISION)

        begin = tl.load(part_first + request)
        pieces = tl.load(part_first + request + 1) - begin
        last = pieces == 1
        if pieces > 1:
            at_part = (part * HEADS + head).to(tl.int64) * GROUP + heads
            tl.store(stats + at_part, m, mask=live)
            tl.store(stats + total * HEADS * GROUP + at_part, mass, mask=live)
            _keep(accs, at_part, VALUES, 0, A, WA, live, acc_a)
            if WB and not LATENT:
                _keep(accs, at_part, VALUES, A, B, WB, live, acc_b)
            tl.debug_barrier()  # every thread's part is written before one thread takes the ticket
            ticket = tl.atomic_add(tickets + row * TILES + tile, 1, sem="acq_rel")
            last = ticket == pieces - 1
            if last:
                tl.store(tickets + row * TILES + tile, 0)
                m = tl.full([HEAD_TILE], float("-inf"), tl.float32)
                mass = tl.zeros([HEAD_TILE], tl.float32)
                acc_a = tl.zeros([HEAD_TILE, WA], tl.float32)
                if WB and not LATENT:
                    acc_b = tl.zeros([HEAD_TILE, WB], tl.float32)
                for piece in range(begin, begin + pieces):
                    at_piece = (piece * HEADS + head).to(tl.int64) * GROUP + heads
                    m_piece = tl.load(stats + at_piece, mask=live, other=float("-inf"))
                    mass_piece = tl.load(stats + total * HEADS * GROUP + at_piece, mask=live, other=0.0)
                    top = tl.maximum(m, m_piece)
                    fade = _weight(m, top)
                    gain = _weight(m_piece, top)
                    mass = mass * fade + mass_piece * gain
                    m = top
                    found = _columns(accs, at_piece, VALUES, 0, A, WA, live)
                    acc_a = acc_a * fade[:, None] + found * gain[:, None]
                    if WB and not LATENT:
                        found_b = _columns(accs, at_piece, VALUES, A, B, WB, live)
                        acc_b = acc_b * fade[:, None] + found_b * gain[:, None]
        if last:
            norm = 1.0 / tl.where(mass > 0, mass, 1.0)[:, None]
            out_base = out + row.to(tl.int64) * out_row
            kind = out.dtype.element_ty
            _keep(out_base, heads, out_head, 0, A, WA, live, (acc_a * norm).to(kind))
            if WB and not LATENT:
                _keep(out_base, heads, out_head, A, B, WB, live, (acc_b * norm).to(kind))
