// Block selection: for every sparse row the k best scores of the places [bos, n - eos), as a list of block
// ids in ascending place order between the reserved blocks. Exact radix selection: ties go to the lower
// place, NaN comes last.
//
// Scores become integer keys of the same order. A first pass counts keys in bins that end at the row's
// largest key and are fine enough to decide most rows; further passes split the bin that holds the k-th
// key, unless so few of it are wanted that an approximate selection may take any. Then one pass in place
// order makes the list. A block of threads, or a cluster of them for a long row, holds the keys of a row in
// registers, so that scores are read once; a row that does not fit is read again in every pass.
//
// Compiled once per kind of scores, with SCORE (float, __half or __nv_bfloat16) and SELECTIONS (1, or 2
// whose union is listed) defined.

#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

// What a launch works on. Without a table, places are listed, without the reserved ones, and `chosen` is k.
struct Step {
    const int *seq_len, *n, *chosen, *table;
    int *lists, *tokens;
    int rows, heads, share, blocks, table_width, list_width, block_size, bos, eos;
    int quotas[2];     // blocks of each selection; -1: as many as the plan says
    int ahead;         // whether scores are loaded before their number is known
    double tolerance;  // share of a selection that may be wrong
};

namespace {

namespace cg = cooperative_groups;
using u32 = unsigned;
using u64 = unsigned long long;

constexpr u32 ALL = 0xFFFFFFFFu;
constexpr int DIGIT = 11, BINS = 1 << DIGIT;

// What one load brings.
template <int WORDS> struct alignas(WORDS * sizeof(u32)) Words {
    u32 at[WORDS];
};

// Keys in a word. A larger key is a better score, 1 is NaN, 0 is no score.
template <typename Score> struct Keys;

template <> struct Keys<float> {
    static constexpr int BITS = 32, IN_WORD = 1;
    static constexpr int COARSE = 15;  // low bits that the first pass leaves out: its bins span 8 binades
    static __device__ u32 word(u32 bits) {
        bits = __float_as_uint(__uint_as_float(bits) + 0.0f);  // -0.0 to 0.0, any NaN to 0x7FFFFFFF
        return (bits ^ (u32(int(bits) >> 31) | 0x80000000u)) + 2;
    }
    static __device__ u32 get(u32 keys, int) { return keys; }
    static __device__ u32 larger(u32 keys, u32 others) { return max(keys, others); }
    static __device__ u32 largest(u32 keys) { return keys; }
    static __device__ void put(u32& bits, int, float score) { bits = __float_as_uint(score); }
    static __device__ void drop(u32& keys, int) { keys = 0; }
};

// 16-bit keys, two in a word.
template <u32 (*WithoutSignOfZero)(u32)> struct PairKeys {
    static constexpr int BITS = 16, IN_WORD = 2, COARSE = 0;
    static __device__ u32 word(u32 bits) {
        bits = WithoutSignOfZero(bits);
        u32 negative;
        asm("prmt.b32 %0, %1, %1, 0xBB99;" : "=r"(negative) : "r"(bits));
        return __vadd2(bits ^ (negative | 0x80008000u), 0x00020002u);
    }
    static __device__ u32 get(u32 keys, int i) { return keys >> i * 16 & 0xFFFF; }
    static __device__ u32 larger(u32 keys, u32 others) { return __vmaxu2(keys, others); }
    static __device__ u32 largest(u32 keys) { return max(keys >> 16, keys & 0xFFFF); }
    template <typename Score> static __device__ void put(u32& bits, int i, Score score) {
        bits |= u32(*reinterpret_cast<unsigned short*>(&score)) << i * 16;
    }
    static __device__ void drop(u32& keys, int i) { keys &= i ? 0xFFFF : 0xFFFF0000; }
};

__device__ u32 plus_zero_bf16(u32 bits) {
    asm("{.reg .b32 zero; mov.b32 zero, 0; add.rn.bf16x2 %0, %0, zero;}" : "+r"(bits));
    return bits;
}

__device__ u32 plus_zero_half(u32 bits) {
    asm("{.reg .b32 zero; mov.b32 zero, 0; add.rn.f16x2 %0, %0, zero;}" : "+r"(bits));
    return bits;
}

template <> struct Keys<__nv_bfloat16> : PairKeys<plus_zero_bf16> {};
template <> struct Keys<__half> : PairKeys<plus_zero_half> {};

using K = Keys<SCORE>;

template <int WORDS> __device__ u32 key(const Words<WORDS>& keys, int i) {
    return K::get(keys.at[i / K::IN_WORD], i % K::IN_WORD);
}

template <int WORDS> __device__ u32 largest_key(const Words<WORDS>& keys) {
    u32 most = keys.at[0];
#pragma unroll
    for (int w = 1; w < WORDS; ++w) most = K::larger(most, keys.at[w]);
    return K::largest(most);
}

// The scores of a row, `width` of them allocated, dealt out so that a warp has a run of places: vector j of a
// lane is 32 j after its first, `start`. `count` are worth loading.
template <int HELD, int WORDS> struct Row {
    using Vector = Words<WORDS>;
    static constexpr int COUNT = WORDS * K::IN_WORD;  // of scores of a vector
    const SCORE* scores;
    int width, count, start, vectors;
    int first = 0, last = 0;  // places that may be chosen
    Vector held[HELD ? HELD : 1];

    __device__ Row(const SCORE* scores, int width, int count, int start, int vectors)
        : scores(scores), width(width), count(count), start(start), vectors(vectors) {
#pragma unroll
        for (int j = 0; j < HELD; ++j) held[j] = load(j);
    }

    __device__ int place(int j) const { return (start + 32 * j) * COUNT; }

    __device__ Vector load(int j) const {
        const int at = place(j);
        Vector bits = {};
        if (at >= count) return bits;
        if (reinterpret_cast<size_t>(scores) % sizeof(Vector) == 0 && at + COUNT <= width)
            return *reinterpret_cast<const Vector*>(scores + at);
#pragma unroll
        for (int i = 0; i < COUNT; ++i)
            if (at + i < width) K::put(bits.at[i / K::IN_WORD], i % K::IN_WORD, scores[at + i]);
        return bits;
    }

    __device__ Vector keys(Vector bits, int j) const {
        const int at = place(j);
        if (at >= last || at + COUNT <= first) return {};
#pragma unroll
        for (int w = 0; w < WORDS; ++w) bits.at[w] = K::word(bits.at[w]);
        if (at < first || at + COUNT > last) {
#pragma unroll
            for (int i = 0; i < COUNT; ++i)
                if (at + i < first || at + i >= last) K::drop(bits.at[i / K::IN_WORD], i % K::IN_WORD);
        }
        return bits;
    }

    // From here on places outside of [first, last) have no score.
    __device__ void limit(int from, int to) {
        first = from, last = to;
#pragma unroll
        for (int j = 0; j < HELD; ++j) held[j] = keys(held[j], j);
    }

    __device__ Vector vector(int j) const {
        if constexpr (HELD > 0) return held[j];
        return keys(load(j), j);
    }
};

// f(j) for every vector of a lane.
template <int HELD, typename F> __device__ void for_vectors(int vectors, F f) {
    if constexpr (HELD > 0) {
#pragma unroll
        for (int j = 0; j < HELD; ++j) f(j);
    } else {
        for (int j = 0; j < vectors; ++j) f(j);
    }
}

// f(key) for the keys of a lane's vectors that have one from `least` on.
template <int HELD, int WORDS, typename F>
__device__ void for_keys(const Row<HELD, WORDS>& row, u32 least, F f) {
    for_vectors<HELD>(row.vectors, [&](int j) {
        const Words<WORDS> keys = row.vector(j);
        if (largest_key(keys) < least) return;
#pragma unroll
        for (int i = 0; i < row.COUNT; ++i) f(key(keys, i));
    });
}

// The bin that holds the k-th key: which, how many of it are wanted, how many it has (0: no such bin).
struct Bin {
    u32 index, need, size;
};

struct Shared {
    u32 bins[2][BINS];
    u32 largest[32], totals[32];
    uint2 counts[32];
    Bin found;
    int until;
};

// Keys above `upper` are chosen, and `need` of those from `lower` to `upper`, by place; or of a union, those
// at places before `until`.
struct Threshold {
    u32 lower, upper, need;
    int until;
};

// The threads that share a row: a block, or a cluster of blocks.
template <int THREADS, bool CLUSTER> struct Team {
    static constexpr int THREADS_A_BLOCK = THREADS, WARPS = THREADS / 32, OWN = BINS / THREADS;
    Shared& shared;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int rank = 0, ranks = 1;
    int turn = 0;  // which bins are being filled; the others are all zero or about to be

    __device__ Team(Shared& shared) : shared(shared) {
        if constexpr (CLUSTER) rank = cg::this_cluster().block_rank(), ranks = cg::this_cluster().num_blocks();
#pragma unroll
        for (int i = 0; i < OWN; ++i) shared.bins[0][threadIdx.x + i * THREADS] = 0;
    }

    __device__ void sync() const {
        if constexpr (CLUSTER) cg::this_cluster().sync();
        else __syncthreads();
    }

    __device__ Shared& peer(int other) const {
        if constexpr (CLUSTER) return *cg::this_cluster().map_shared_rank(&shared, other);
        return shared;
    }

    __device__ u32 largest(u32 mine) const {
        mine = __reduce_max_sync(ALL, mine);
        if (lane == 0) shared.largest[warp] = mine;
        sync();
        u32 most = 0;
        for (int r = 0; r < ranks; ++r) most = max(most, lane < WARPS ? peer(r).largest[lane] : 0);
        return __reduce_max_sync(ALL, most);
    }

    __device__ u32 bin(u32 index) const {
        return u32(__cvta_generic_to_shared(&shared.bins[turn][0])) + index * sizeof(u32);
    }

    // Adds one at `bin(index)` where `key` is at least `least`.
    static __device__ void count(u32 bin, u32 key, u32 least) {
        asm volatile("{.reg .pred p; setp.ge.u32 p, %1, %2; @p red.shared.add.u32 [%0], 1;}"
                     ::"r"(bin), "r"(key), "r"(least) : "memory");
    }

    // Where counting from the highest bin down reaches `need`, in this block alone or in all of the team's.
    // Ends the filling of these bins.
    template <bool ALONE = false> __device__ Bin search(u32 need) {
        ALONE ? __syncthreads() : sync();
        if (threadIdx.x == 0) shared.found.size = 0;
        u32 own[OWN], sum = 0;
#pragma unroll
        for (int i = 0; i < OWN; ++i) own[i] = 0;
        for (int r = ALONE ? rank : 0; r < (ALONE ? rank + 1 : ranks); ++r) {
            const u32* bins = (ALONE ? shared : peer(r)).bins[turn] + threadIdx.x * OWN;
#pragma unroll
            for (int i = 0; i < OWN; ++i) own[i] += bins[i];
        }
        turn ^= 1;
#pragma unroll
        for (int i = 0; i < OWN; ++i) sum += own[i], shared.bins[turn][threadIdx.x * OWN + i] = 0;
        const u32 total = __reduce_add_sync(ALL, sum);
        if (lane == 0) shared.totals[warp] = total;
        __syncthreads();
        u32 above = __reduce_add_sync(ALL, lane > warp && lane < WARPS ? shared.totals[lane] : 0);
        if (above < need && need <= above + total) {
            u32 up = sum;
            for (int d = 1; d < 32; d *= 2) {
                const u32 other = __shfl_down_sync(ALL, up, d);
                if (lane + d < 32) up += other;
            }
            above += up - sum;
#pragma unroll
            for (int i = OWN - 1; i >= 0; --i) {
                if (above < need && need <= above + own[i])
                    shared.found = {threadIdx.x * OWN + i, need - above, own[i]};
                above += own[i];
            }
        }
        __syncthreads();
        return shared.found;
    }

    // Sums of two numbers: over the blocks before this one, this block's warps before this one, this block,
    // and all blocks.
    struct Sums {
        uint2 blocks, warps, own, all;
    };
    __device__ Sums sums(u32 x, u32 y) const {
        x = __reduce_add_sync(ALL, x), y = __reduce_add_sync(ALL, y);
        if (lane == 0) shared.counts[warp] = {x, y};
        sync();
        const uint2 none = {0, 0}, own = lane < WARPS ? shared.counts[lane] : none;
        Sums out = {none, reduced(lane < warp ? own : none), reduced(own), none};
        out.all = out.own;
        if constexpr (CLUSTER) {
            uint2 before = none, all = none;
            for (int r = 0; r < ranks; ++r) {
                const uint2 part = lane < WARPS ? peer(r).counts[lane] : none;
                all.x += part.x, all.y += part.y;
                if (r < rank) before.x += part.x, before.y += part.y;
            }
            out.blocks = reduced(before), out.all = reduced(all);
        }
        return out;
    }

    static __device__ uint2 reduced(uint2 part) {
        return {__reduce_add_sync(ALL, part.x), __reduce_add_sync(ALL, part.y)};
    }

    // The same in a block alone, of numbers of 16 bits in the halves of a word that each warp has a total of.
    struct Halves {
        u32 warps, own;
    };
    __device__ Halves halves(u32 total) const {
        if (lane == 0) shared.totals[warp] = total;
        __syncthreads();
        const u32 own = lane < WARPS ? shared.totals[lane] : 0;
        return {__reduce_add_sync(ALL, lane < warp ? own : 0), __reduce_add_sync(ALL, own)};
    }
};

__device__ u32 scan(u32 value, int lane) {
    for (int d = 1; d < 32; d *= 2) {
        const u32 other = __shfl_up_sync(ALL, value, d);
        if (lane >= d) value += other;
    }
    return value;
}

// Marked bits of the lanes before this one and of all, each half of a word by itself; `COUNT` bits a half.
template <int COUNT> __device__ uint2 counted(u32 marks, int lane) {
    uint2 out = {0, 0};
    if constexpr (COUNT <= 2) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            const u32 low = __ballot_sync(ALL, marks >> i & 1), high = __ballot_sync(ALL, marks >> (16 + i) & 1);
            const u32 below = (1u << lane) - 1;
            out.x += __popc(low & below) | __popc(high & below) << 16;
            out.y += __popc(low) | __popc(high) << 16;
        }
    } else {
        const u32 own = __popc(marks & 0xFFFF) | __popc(marks >> 16) << 16, through = scan(own, lane);
        out = {through - own, __shfl_sync(ALL, through, 31)};
    }
    return out;
}

// The threshold of the k best keys; of them `allowed` may be others of the k-th key's bin.
template <int HELD, int WORDS, typename T>
__device__ Threshold find(T& team, const Row<HELD, WORDS>& row, u32 k, u32 allowed) {
    if (k == 0) return {ALL, ALL, 0, 0};
    u32 best = 0;
    for_vectors<HELD>(row.vectors, [&](int j) { best = max(best, largest_key(row.vector(j))); });
    const u32 high = team.largest(best) >> K::COARSE;
    const u32 base = high < BINS ? 0 : high - (BINS - 1);
    u32 least = max(base << K::COARSE, 1);
    if (HELD != 1 && 2 * k <= T::THREADS_A_BLOCK) {
        // The k-th best of the threads' best keys is no better than the k-th best key: fewer keys to count.
        team.count(team.bin((best >> K::COARSE) - base), best, least);
        const Bin bound = team.template search<true>(k);
        if (bound.size > 0) least = max(base + bound.index << K::COARSE, 1);
    }
    const u32 origin = team.bin(-base);
    for_keys(row, least, [&](u32 key) { team.count(origin + (key >> K::COARSE) * sizeof(u32), key, least); });
    Bin bin = team.search(k);
    u32 prefix = base + bin.index;
    int shift = K::COARSE;
    if (bin.size == 0) prefix = 0, shift = K::BITS, bin = {0, k, ALL};  // the k-th key is below all bins
    while (shift > 0 && min(bin.need, bin.size - bin.need) > allowed) {
        const int digit = min(DIGIT, shift), rest = shift - digit;
        const u32 from = max(u32(u64(prefix) << shift), 1);
        for_keys(row, from, [&](u32 key) {
            if (__funnelshift_rc(key, 0, shift) == prefix)
                team.count(team.bin(key >> rest & ((1 << digit) - 1)), key, from);
        });
        bin = team.search(bin.need);
        prefix = prefix << digit | bin.index;
        shift = rest;
    }
    const u32 lower = max(u32(u64(prefix) << shift), 1), upper = (u64(prefix + 1) << shift) - 1;
    if (bin.need == bin.size) return {lower, lower - 1, 0, 0};
    return {lower, upper, bin.need, 0};
}

// Bits of the keys of a vector: chosen in the low half, undecided in the high half.
template <int WORDS> __device__ u32 marks(const Words<WORDS>& keys, const Threshold& t) {
    u32 bits = 0;
    if (largest_key(keys) < t.lower) return 0;
#pragma unroll
    for (int i = 0; i < WORDS * K::IN_WORD; ++i) {
        const u32 score = key(keys, i);
        if (score >= t.lower) bits |= score > t.upper ? 1u << i : 0x10000u << i;
    }
    return bits;
}

// Finds the place before which undecided keys are chosen.
template <int HELD, int WORDS, typename T>
__device__ void settle(T& team, const Row<HELD, WORDS>& row, Threshold& t) {
    if (t.need == 0) return;
    u32 ties = 0;
    for_vectors<HELD>(row.vectors, [&](int j) { ties += __popc(marks(row.vector(j), t) >> 16); });
    const auto sums = team.sums(0, ties);
    u32 before = sums.blocks.y + sums.warps.y;
    for_vectors<HELD>(row.vectors, [&](int j) {
        const u32 bits = marks(row.vector(j), t) >> 16;
        const u32 through = scan(__popc(bits), team.lane);
        u32 rank = before + through - __popc(bits);
        for (u32 left = bits; left; left &= left - 1)
            if (++rank == t.need)
                for (int r = 0; r < team.ranks; ++r) team.peer(r).until = row.place(j) + __ffs(left);
        before += __shfl_sync(ALL, through, 31);
    });
    team.sync();
    t.until = team.shared.until;
}

// Moves the undecided of a vector to the chosen where they stand before `until`.
__device__ u32 settled(u32 marks, int place, int until) {
    const int inside = min(max(until - place, 0), 16);
    return (marks & 0xFFFF) | (marks >> 16 & ((1u << inside) - 1));
}

// Programmatic dependent launch: this grid starts while the kernel before it ends, and the next one may start
// when all blocks of this one are past this point. The plan and the table are older: they are there before it.
__device__ void wait_for_previous_kernel() {
    asm volatile("griddepcontrol.wait;\ngriddepcontrol.launch_dependents;" ::: "memory");
}

// From the second level of the cache: what an older kernel may have written while this one was there already.
__device__ int read(const int* p) {
    int x;
    asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(x) : "l"(p) : "memory");
    return x;
}

__device__ int4 read(const int4* p) {
    int4 x;
    asm volatile("ld.relaxed.gpu.global.v4.s32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "l"(p) : "memory");
    return x;
}

// Blocks of a multiprocessor, which limits their registers: many rows should be in work at once. Two selections
// would not fit: 0 sets no limit.
constexpr int resident(int threads, int held) {
    return SELECTIONS > 1 ? 0 : threads == 256 && held == 1 ? 5 : 1024 / threads;
}

template <int THREADS, int HELD, int WORDS, bool CLUSTER>
__global__ void __launch_bounds__(THREADS, resident(THREADS, HELD)) select(const SCORE* scores, Step step) {
    __shared__ Shared shared;
    Team<THREADS, CLUSTER> team(shared);
    constexpr int COUNT = Row<HELD, WORDS>::COUNT;
    const int index = blockIdx.x / team.ranks, request = index / step.heads, bos = step.bos;
    const int page = index / step.share, head = index % step.share;
    const bool listing = step.table != nullptr;
    const int threads = THREADS * team.ranks;
    const int vectors = HELD > 0 ? HELD : (step.blocks + COUNT * threads - 1) / (COUNT * threads);
    const int start = (team.rank * team.WARPS + team.warp) * 32 * vectors + team.lane;
    scores += size_t(index) * step.blocks;

    // A plain selection may come right after the kernel that made its n.
    if (!listing) wait_for_previous_kernel();
    const int n = read(step.n + request), chosen = read(step.chosen + request);
    const int tokens = listing ? read(step.seq_len + request) : 0;
    const int last = n - step.eos, planned = listing ? chosen - bos - step.eos : chosen;
    const int* table = step.table + size_t(page) * step.table_width;
    int* list = step.lists + size_t(index) * step.list_width;
    auto id = [&](int place) { return listing ? read(table + place) * step.share + head : place; };
    auto put = [&](int to, int id) {
        if (to < step.list_width) list[to] = id;
    };
    const int reserved = listing && team.rank == 0 ? bos + step.eos : 0;
    auto reserved_place = [&](int i) { return i < bos ? i : last - bos + i; };
    // Where a thread keeps one load of scores, the ids of their places.
    constexpr int OWN_IDS = HELD == 1 && !CLUSTER ? COUNT : 0;
    int ids[OWN_IDS + 1];
    const int own = start * COUNT;
    if (OWN_IDS >= 4 && listing && reinterpret_cast<size_t>(table) % sizeof(int4) == 0 &&
        own + OWN_IDS <= step.table_width) {
#pragma unroll
        for (int i = 0; i < OWN_IDS / 4 * 4; i += 4) {
            const int4 x = read(reinterpret_cast<const int4*>(table + own + i));
            ids[i] = x.x, ids[i + 1] = x.y, ids[i + 2] = x.z, ids[i + 3] = x.w;
        }
#pragma unroll
        for (int i = 0; i < OWN_IDS; ++i) ids[i] = ids[i] * step.share + head;
    } else {
#pragma unroll
        for (int i = 0; i < OWN_IDS; ++i) ids[i] = own + i < n ? id(own + i) : 0;
    }
    const bool works = chosen > 0 && !(listing && chosen >= n);
    const int early = works && threadIdx.x < reserved ? id(reserved_place(threadIdx.x)) : 0;
    if (listing) wait_for_previous_kernel();
    if (!works) return;

    const int worth = step.ahead ? step.blocks : n;
    Row<HELD, WORDS> rows[SELECTIONS] = {
        {scores, step.blocks, worth, start, vectors},
#if SELECTIONS == 2
        {scores + size_t(step.rows) * step.blocks, step.blocks, worth, start, vectors},
#endif
    };

    Threshold thresholds[SELECTIONS];
#pragma unroll
    for (int s = 0; s < SELECTIONS; ++s) {
        rows[s].limit(bos, last);
        const u32 k = max(min(step.quotas[s] < 0 ? planned : step.quotas[s], last - bos), 0);
        thresholds[s] = find(team, rows[s], k, u32(step.tolerance * k));
        if constexpr (SELECTIONS > 1) settle(team, rows[s], thresholds[s]);
    }
    auto marked = [&](int j) {
        if constexpr (SELECTIONS == 1) return marks(rows[0].vector(j), thresholds[0]);
        u32 bits = 0;
#pragma unroll
        for (int s = 0; s < SELECTIONS; ++s)
            bits |= settled(marks(rows[s].vector(j), thresholds[s]), rows[s].place(j), thresholds[s].until);
        return bits;
    };
    const u32 need = SELECTIONS > 1 ? 0 : thresholds[0].need, front = listing ? bos : 0;
    int count = 0;  // of chosen blocks
    if constexpr (OWN_IDS > 0) {
        const u32 bits = marked(0);
        const uint2 lanes = counted<COUNT>(bits, team.lane);
        const auto sums = team.halves(lanes.y);
        u32 x = (lanes.x + sums.warps) & 0xFFFF, y = (lanes.x + sums.warps) >> 16;
        auto list_own = [&](int i) {  // the chosen or undecided place i
            const u32 rank = x + min(y, need);
            if (bits >> i & 1) ++x;
            else if (y++ >= need) return;
            int id = ids[0];
#pragma unroll
            for (int other = 1; other < COUNT; ++other) id = other == i ? ids[other] : id;
            put(front + rank, id);
        };
        if constexpr (COUNT <= 2) {
#pragma unroll
            for (int i = 0; i < COUNT; ++i)
                if (bits >> i & 0x10001) list_own(i);
        } else {
            for (u32 left = (bits | bits >> 16) & 0xFFFF; left; left &= left - 1) list_own(__ffs(left) - 1);
        }
        count = (sums.own & 0xFFFF) + min(sums.own >> 16, need);
    } else {
        u32 above = 0, ties = 0;
        for_vectors<HELD>(vectors, [&](int j) {
            const u32 bits = marked(j);
            above += __popc(bits & 0xFFFF), ties += __popc(bits >> 16);
        });
        const auto sums = team.sums(above, ties);
        // The chosen places, by rank; those of this block begin at `from`. The bins are free to hold them.
        const u32 from = sums.blocks.x + min(sums.blocks.y, need);
        const u32 to = sums.blocks.x + sums.own.x + min(sums.blocks.y + sums.own.y, need);
        constexpr bool ALL_STAGED = HELD > 0 && THREADS * HELD * COUNT <= 2 * BINS;
        u32* staged = shared.bins[0];
        uint2 before = {sums.blocks.x + sums.warps.x, sums.blocks.y + sums.warps.y};
        for_vectors<HELD>(vectors, [&](int j) {
            const u32 bits = marked(j);
            if (!__any_sync(ALL, bits)) return;
            const uint2 lanes = counted<COUNT>(bits, team.lane);
            u32 x = before.x + (lanes.x & 0xFFFF), y = before.y + (lanes.x >> 16);
            for (u32 left = (bits | bits >> 16) & 0xFFFF; left; left &= left - 1) {
                const int i = __ffs(left) - 1, place = rows[0].place(j) + i;
                const u32 rank = x + min(y, need);
                if (bits >> i & 1) ++x;
                else if (y++ >= need) continue;
                if (ALL_STAGED || rank - from < 2 * BINS) staged[rank - from] = place;
                else put(front + rank, id(place));
            }
            before.x += lanes.y & 0xFFFF, before.y += lanes.y >> 16;
        });
        __syncthreads();
        for (u32 i = threadIdx.x; i < min(to - from, 2 * BINS); i += THREADS)
            put(front + from + i, id(staged[i]));
        count = sums.all.x + need;
    }
    for (int i = threadIdx.x; i < reserved; i += THREADS)
        put(i < bos ? i : i + count, i < THREADS ? early : id(reserved_place(i)));
    if (reserved > 0 && threadIdx.x == 0)
        step.tokens[index] = tokens - (last - bos - count) * step.block_size;
    if constexpr (CLUSTER) team.sync();  // others read this block's sums
}

template <int THREADS, int HELD, int WORDS, bool CLUSTER>
cudaError_t launch(const void* scores, const Step& step, int ranks, cudaStream_t stream) {
    cudaLaunchAttribute attributes[2] = {};
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = 1;
    attributes[1].id = cudaLaunchAttributeClusterDimension;
    attributes[1].val.clusterDim = {unsigned(ranks), 1, 1};
    cudaLaunchConfig_t config = {};
    config.gridDim = step.rows * ranks;
    config.blockDim = THREADS;
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = CLUSTER ? 2 : 1;
    return cudaLaunchKernelEx(
        &config, select<THREADS, HELD, WORDS, CLUSTER>, static_cast<const SCORE*>(scores), step);
}

}  // namespace

// `held` vectors of `words` words of a row are kept by each of `threads` threads in each of `ranks` blocks; 0: any
// number is read again in every pass.
extern "C" int topk(const void* scores, const void* given, int threads, int held, int words, int ranks,
                    cudaStream_t stream) {
    const Step* step = static_cast<const Step*>(given);  // whose type is this file's own
#define SHAPE(THREADS, HELD, WORDS, CLUSTER)                                                  \
    if (threads == THREADS && held == HELD && words == WORDS && (ranks > 1) == CLUSTER)       \
        return launch<THREADS, HELD, WORDS, CLUSTER>(scores, *step, ranks, stream)
    SHAPE(512, 1, 1, false);
    SHAPE(1024, 1, 1, false);
    SHAPE(256, 1, 4, false);
    SHAPE(256, 4, 4, false);
    SHAPE(512, 1, 4, false);
    SHAPE(512, 4, 4, false);
    SHAPE(1024, 1, 4, false);
    SHAPE(1024, 2, 4, false);
    SHAPE(1024, 4, 4, false);
    SHAPE(1024, 0, 4, false);
    SHAPE(1024, 4, 4, true);
    SHAPE(1024, 0, 4, true);
    return cudaErrorInvalidConfiguration;
}
