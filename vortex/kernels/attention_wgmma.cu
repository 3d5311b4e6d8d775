// Decode attention over latents (MLA) by warpgroup instructions, for Hopper: one key for all query heads, whose first
// VALUES columns are the value, in 16 bits. Compiled with QUERY (the type of q, out and the latents), DIM, VALUES,
// HEAD_TILES (of 8 query heads, up to 8) and STAGES.
//
// A block has a multiprocessor to itself and takes an item for a tile of query heads, in four warpgroups. One warp
// copies latents, 32 tokens at a time, into a ring of STAGES stages. A warpgroup computes logits q K^T [64, 64], of two
// stages that are neighbours or of one, and between the products for one tile the weights of the tile before. Two
// compute half of the columns each of the results P V [64, VALUES], kept in registers. Each goes on to the next item on
// its own. Rows beyond the query heads hold anything: no row of a product depends on another.
//
// In shared memory q, latents and weights are panels of 64 columns, a row 128 bytes, whose chunks of 16 bytes are
// exchanged: chunk c of row r is in place c ^ (r % 8). That is what tensor maps (cp.async.bulk.tensor) write and
// products (wgmma) read without conflicts of banks. A panel starts at a multiple of 1024 bytes.
#include "attention.cuh"
#include <cuda.h>
#include <type_traits>

constexpr int WARPGROUP = 128, THREADS = 4 * WARPGROUP, RESULT_THREADS = 2 * WARPGROUP;
constexpr int TOKENS = 32, LINE = 128;
constexpr int HEADS = 8 * HEAD_TILES, ROWS = 64;  // of q in memory; of a product
constexpr int STAGE = TOKENS * LINE;              // of a panel
constexpr int PANELS = DIM / 64, PANEL = STAGES * STAGE, Q_PANEL = HEADS * LINE;
constexpr int RING = PANELS * Q_PANEL, WEIGHTS = RING + PANELS * PANEL, WEIGHT_BYTES = ROWS * LINE;
constexpr int BUFFERS = WEIGHTS + 2 * WEIGHT_BYTES + 2048 <= 227 << 10 ? 2 : 1;  // of weights
constexpr int FADES = WEIGHTS + BUFFERS * WEIGHT_BYTES;
constexpr int NORMS = FADES + BUFFERS * ROWS * 4, FLAG = NORMS + BUFFERS * ROWS * 4, BARRIERS = FLAG + 16;
constexpr int SHARED = BARRIERS + 8 * (2 * STAGES + 2 * BUFFERS + 2);
static_assert(SHARED <= 227 << 10, "of a multiprocessor");
static_assert(DIM % 64 == 0 && VALUES == 512 && HEADS <= ROWS && STAGES > 1);

__device__ __forceinline__ int placed(int row, int chunk) { return row * LINE + ((chunk ^ row) & 7) * 16; }

// ---- Barriers in shared memory

__device__ __forceinline__ void make_barrier(uint32_t at, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(at), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void arrive(uint32_t at) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(at) : "memory");
}
__device__ __forceinline__ void arrive_expecting(uint32_t at, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(at), "r"(bytes) : "memory");
}
__device__ __forceinline__ void wait(uint32_t at, uint32_t parity) {
  uint32_t done;
  do {
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.b32 %0, 1, 0, p;\n}\n"
                 : "=r"(done) : "r"(at), "r"(parity) : "memory");
  } while (!done);
}
__device__ __forceinline__ bool arrived(uint32_t at, uint32_t parity) {
  uint32_t done;
  asm volatile("{\n.reg .pred p;\nmbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.b32 %0, 1, 0, p;\n}\n"
               : "=r"(done) : "r"(at), "r"(parity) : "memory");
  return __all_sync(~0u, done);
}
// What this thread wrote to shared memory can be read by copies and products.
__device__ __forceinline__ void publish() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }

__device__ __forceinline__ void sync(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(barrier), "r"(threads) : "memory");
}

// Whether all of a warpgroup see it so: products must be those of all its warps.
__device__ __forceinline__ bool agreed(bool mine) {
  uint32_t all;
  asm volatile("{\n.reg .pred p, q;\nsetp.ne.u32 q, %1, 0;\nbar.red.and.pred p, 2, 128, q;\nselp.b32 %0, 1, 0, p;\n}\n"
               : "=r"(all) : "r"(uint32_t(mine)) : "memory");
  return all;
}

// A place in a ring, and how often it has gone round.
template <int COUNT>
struct Place {
  int at = 0;
  uint32_t turn = 0;
  __device__ __forceinline__ void next() {
    if (++at == COUNT) at = 0, turn ^= 1;
  }
};

// Columns from a panel on, of what the tensor map says that `x` and `y` number. The `policy` is what becomes of it in
// the second level of the cache.
__device__ __forceinline__ void copy_box(uint32_t to, const CUtensorMap* map, uint32_t barrier, int x, int y,
                                         int panel, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4, %5, %6}], [%2], %7;\n"
      ::"r"(to), "l"(map), "r"(barrier), "r"(0), "r"(x), "r"(y), "r"(panel), "l"(policy) : "memory");
}
__device__ __forceinline__ uint64_t kept() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;\n" : "=l"(policy));
  return policy;
}
// What is read once makes room for what is read again.
__device__ __forceinline__ uint64_t dropped() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;\n" : "=l"(policy));
  return policy;
}

// ---- Products

// A product's operand of panels: `leading` bytes from one panel to the next, where columns are not what is summed
// over. All lanes have the same; that the compiler knows it keeps operands out of ordinary registers.
__device__ __forceinline__ uint32_t operand(uint32_t at, int leading = 16) {
  return __shfl_sync(~0u, leading >> 4 << 16 | (at & 0x3ffff) >> 4, 0);
}
// It starts `bytes` after the place that `first` describes.
__device__ __forceinline__ uint64_t operand_after(uint32_t first, int bytes) {
  uint64_t all;
  asm("mov.b64 %0, {%1, %2};\n" : "=l"(all) : "r"(first + (bytes >> 4)), "r"(1 << 30 | 8 * LINE >> 4));
  return all;
}
__device__ __forceinline__ void open_products() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
// Numbers of products are neither read nor written beyond this.
template <int N>
__device__ __forceinline__ void settle(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
__device__ __forceinline__ void close_products() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void finish_products() { asm volatile("wgmma.wait_group.sync.aligned 0;\n" ::: "memory"); }

#define FLOATS4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define FLOATS16(d, i) FLOATS4(d, i), FLOATS4(d, i + 4), FLOATS4(d, i + 8), FLOATS4(d, i + 12)
#define FLOATS64(d, i) FLOATS16(d, i), FLOATS16(d, i + 16), FLOATS16(d, i + 32), FLOATS16(d, i + 48)

// d [64, 64] (+)= a [64, 16] b [64, 16]^T.
#define MULTIPLY_64(TYPE)                                                                                        \
  asm volatile(                                                                                                  \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"                                                               \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE " "                                            \
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"                                                  \
      "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, %32, %33, p, 1, 1, 0, 0;\n}\n"          \
      : FLOATS16(d, 0), FLOATS16(d, 16) : "l"(a), "l"(b), "r"(int(add)))
__device__ __forceinline__ void multiply_64(float (&d)[32], uint64_t a, uint64_t b, bool add) {
  if constexpr (std::is_same_v<QUERY, __half>) MULTIPLY_64("f16"); else MULTIPLY_64("bf16");
}

// d [64, 128] += a [64, 16] b [16, 128], d from the thread's number AT on.
#define MULTIPLY_128(TYPE)                                                                                       \
  asm volatile(                                                                                                  \
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"                                                                 \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE " "                                           \
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"                                                  \
      "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"                                         \
      "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"                                         \
      "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, "                                       \
      "%64, %65, p, 1, 1, 0, 1;\n}\n"                                                                            \
      : FLOATS64(d, AT) : "l"(a), "l"(b))
template <int AT>
__device__ __forceinline__ void multiply_128(float (&d)[128], uint64_t a, uint64_t b) {
  if constexpr (std::is_same_v<QUERY, __half>) MULTIPLY_128("f16"); else MULTIPLY_128("bf16");
}

// Of all rows of q and the tokens of two stages, by a warpgroup. (Where one counts, the others are anything.) After
// each panel `between(panel)` is called: a warp waits where it adds a product and there are some already.
template <class Between>
__device__ __forceinline__ void logits(float (&s)[32], uint32_t queries, uint32_t stage, Between between) {
  const uint32_t q = operand(queries), k = operand(stage);
  settle(s);
  open_products();
#pragma unroll
  for (int p = 0; p < PANELS; ++p) {
#pragma unroll
    for (int step = 0; step < 4; ++step)
      multiply_64(s, operand_after(q, p * Q_PANEL + step * 32), operand_after(k, p * PANEL + step * 32), p + step > 0);
    between(p);
  }
  close_products();
  finish_products();
  settle(s);
}

// Adds half of the columns, of the tokens of a stage, by a warpgroup.
__device__ __forceinline__ void add_results(float (&acc)[128], uint32_t weights, uint32_t stage) {
  const uint32_t p = operand(weights), v = operand(stage, PANEL);
  settle(acc);
  open_products();
#pragma unroll
  for (int step = 0; step < TOKENS / 16; ++step) {
    const uint64_t a = operand_after(p, step * 32);
    multiply_128<0>(acc, a, operand_after(v, step * 16 * LINE));
    multiply_128<64>(acc, a, operand_after(v, step * 16 * LINE + 2 * PANEL));
  }
  close_products();
  finish_products();
  settle(acc);
}

// Writes what a warp has of weights [64, 64].
__device__ __forceinline__ void store_weights(uint32_t to, const float (&s)[32], int warp, int lane) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {  // 8 rows, 32 columns
    const int h = i % 2, first = i / 2 * 4;
    uint32_t x[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) x[j] = pack<QUERY>(s[(first + j) * 4 + h * 2], s[(first + j) * 4 + h * 2 + 1]);
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};\n"
                 ::"r"(to + placed(warp * 16 + h * 8 + lane % 8, first + lane / 8)),
                 "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]) : "memory");
  }
}

// ---- Work

// Calls `role(item, tile of heads, whether it is the last one)` for the items of this block. The plan is complete
// before any later kernel starts, so it is read before the previous one has ended. Places behind its last part hold
// anything.
template <class Role>
__device__ __forceinline__ void each_item(const Args& a, Role role) {
  const int head_tiles = (a.group + HEADS - 1) / HEADS, step = gridDim.x;
  const int items = fresh(a.part_count) * a.heads * head_tiles, most = int(a.room) * head_tiles - 1;
  int index = blockIdx.x;
  Item it = item_at(a, min(index, most) / head_tiles);
  if (index < items) complete(a, it);
  wait_for_previous_kernel();
  while (index < items) {
    limit(a, it);
    role(it, index % head_tiles, index + step >= items);
    index += step;
    if (index >= items) break;
    it = item_at(a, index / head_tiles);
    complete(a, it);
  }
}

// The tokens that are taken together: of one stage, or of two that are neighbours.
struct Tile {
  int at = 0;         // stage
  uint32_t turn = 0;  // of the ring
  int token, stages;

  __device__ __forceinline__ void begin(int first, int end) {
    token = first;
    stages = at + 1 < STAGES && end - token > TOKENS ? 2 : 1;
  }
  __device__ __forceinline__ void next(int end) {
    at += stages;
    if (at == STAGES) at = 0, turn ^= 1;
    begin(token + stages * TOKENS, end);
  }
};

// Adds up the parts of a row in their order, for `count` query heads from `head` on, by the warpgroups of results.
// `stats` holds pairs here, [room, group, 2].
__device__ __forceinline__ void merge_parts(const Args& a, const Item& it, Ticket* ticket, int head, int count,
                                            bool patient, unsigned* flag, int thread) {
  sync(1, RESULT_THREADS);
  if (thread == 0) *flag = slices_of(ticket, it.part - it.begin, it.pieces, patient);
  sync(1, RESULT_THREADS);
  unsigned before = 0;
  if (thread == 0) before = atomicAdd(&ticket->left, 1u);  // is on its way while slices are merged
  constexpr int VECTORS = VALUES / 4, MANY = HEADS > 32 ? 4 : 8, TOGETHER = 16 / MANY;
  const int step = a.heads * a.group;
  const long first = (long(it.begin) * a.heads + it.head) * a.group + head;
  QUERY* out = static_cast<QUERY*>(a.out) + it.row * a.out_row + head * a.out_head;
  const int all = count * VECTORS, parts = min(it.pieces, SLICES);
  for (unsigned slices = *flag; slices; slices &= slices - 1) {
    const int slice = __ffs(slices) - 1, beyond = all * (slice + 1) / parts;
    for (int at = all * slice / parts + thread; at < beyond; at += TOGETHER * RESULT_THREADS) {
      const float2* stats[TOGETHER];
      const float4* accs[TOGETHER];
      float top[TOGETHER], mass[TOGETHER] = {};
      float4 sum[TOGETHER] = {};
#pragma unroll
      for (int u = 0; u < TOGETHER; ++u) {
        const int mine = min(at + u * RESULT_THREADS, all - 1);
        stats[u] = reinterpret_cast<const float2*>(a.stats) + first + mine / VECTORS;
        accs[u] = reinterpret_cast<const float4*>(a.accs) + first * VECTORS + mine;
        top[u] = -INFINITY;
      }
      for (int left = it.pieces; left > 0; left -= MANY) {
        float2 s[TOGETHER][MANY];
        float4 x[TOGETHER][MANY];
#pragma unroll
        for (int u = 0; u < TOGETHER; ++u)
#pragma unroll
          for (int j = 0; j < MANY; ++j) {
            s[u][j] = {-INFINITY, 0.f}, x[u][j] = {};
            if (j < left && at + u * RESULT_THREADS < beyond) s[u][j] = __ldcg(stats[u]), x[u][j] = __ldcg(accs[u]);
            stats[u] += step, accs[u] += step * VECTORS;
          }
#pragma unroll
        for (int u = 0; u < TOGETHER; ++u) {
          float now = top[u];
#pragma unroll
          for (int j = 0; j < MANY; ++j) now = fmaxf(now, s[u][j].x);
          const float fade = weight(top[u], now);
          sum[u].x *= fade, sum[u].y *= fade, sum[u].z *= fade, sum[u].w *= fade, mass[u] *= fade, top[u] = now;
#pragma unroll
          for (int j = 0; j < MANY; ++j) {
            const float w = weight(s[u][j].x, now);
            mass[u] += s[u][j].y * w;
            const float4& y = x[u][j];
            sum[u].x += y.x * w, sum[u].y += y.y * w, sum[u].z += y.z * w, sum[u].w += y.w * w;
          }
        }
      }
#pragma unroll
      for (int u = 0; u < TOGETHER; ++u) {
        const int mine = at + u * RESULT_THREADS;
        const float norm = mass[u] > 0.f ? 1.f / mass[u] : 0.f;
        if (mine < beyond)
          *reinterpret_cast<uint2*>(out + mine / VECTORS * a.out_head + mine % VECTORS * 4) = {
              pack<QUERY>(sum[u].x * norm, sum[u].y * norm), pack<QUERY>(sum[u].z * norm, sum[u].w * norm)};
      }
    }
  }
  if (thread == 0 && before == it.pieces - 1) *ticket = {};
}

struct Barriers {
  uint32_t first;
  __device__ uint32_t full(int stage) const { return first + 8 * stage; }
  __device__ uint32_t empty(int stage) const { return first + 8 * (STAGES + stage); }
  __device__ uint32_t ready(int buffer) const { return first + 8 * (2 * STAGES + buffer); }
  __device__ uint32_t taken(int buffer) const { return first + 8 * (2 * STAGES + BUFFERS + buffer); }
  __device__ uint32_t asked() const { return first + 8 * (2 * STAGES + 2 * BUFFERS); }  // q is there
  __device__ uint32_t answered() const { return asked() + 8; }                          // and no longer needed
};

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    decode(const __grid_constant__ Args a, const __grid_constant__ CUtensorMap latents,
           const __grid_constant__ CUtensorMap queries) {
  extern __shared__ __align__(1024) char shared[];
  const uint32_t base = shared_address(shared);
  const Barriers barriers{base + BARRIERS};
  float *fades = reinterpret_cast<float*>(shared + FADES), *norms = reinterpret_cast<float*>(shared + NORMS);
  const int warpgroup = threadIdx.x / WARPGROUP, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    asm volatile("prefetch.tensormap [%0];\nprefetch.tensormap [%1];\n" ::"l"(&latents), "l"(&queries) : "memory");
    for (int s = 0; s < STAGES; ++s) make_barrier(barriers.full(s), 1), make_barrier(barriers.empty(s), 8);
    // All threads that write or read weights, fades and norms arrive.
    for (int b = 0; b < BUFFERS; ++b)
      make_barrier(barriers.ready(b), WARPGROUP), make_barrier(barriers.taken(b), RESULT_THREADS);
    make_barrier(barriers.asked(), 1), make_barrier(barriers.answered(), 4);
    asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
  }
  __syncthreads();
  Place<BUFFERS> buffer;
  Place<1> question;

  if (warpgroup == 0) {  // copies
    asm volatile("setmaxnreg.dec.sync.aligned.u32 56;\n");
    if (warp) return;
    Place<STAGES> stage;
    const uint64_t policy = a.group > HEADS ? kept() : dropped();  // other tiles of heads read them too
    each_item(a, [&](const Item& it, int tile, bool) {
      // Asks for q as soon as that of the item before is no longer needed; at the latest when `now`.
      bool asked = false;
      const auto ask = [&](bool now) {
        if (asked || !(arrived(barriers.answered(), question.turn ^ 1) || now)) return;
        wait(barriers.answered(), question.turn ^ 1);
        if (lane == 0) {
          arrive_expecting(barriers.asked(), PANELS * Q_PANEL);
          copy_box(base, &queries, barriers.asked(), it.head * a.group + tile * HEADS, it.request, 0, kept());
        }
        question.next();
        asked = true;
      };
      const int rows = min(1 << a.block_shift, TOKENS);  // of a box
      int batch = 0, found = entry(a, it, it.start + (lane << a.block_shift));
      int later = entry(a, it, it.start + (32 + lane << a.block_shift));
      for (int token = it.start; token < it.end; token += TOKENS) {
        ask(token == it.start + (STAGES - 1) * TOKENS);  // else the ring would wait for q
        const int boxes = min(TOKENS, it.end - token + rows - 1) / rows;
        wait(barriers.empty(stage.at), stage.turn ^ 1);
        if (lane == 0) arrive_expecting(barriers.full(stage.at), boxes * rows * DIM * 2);
        __syncwarp();
#pragma unroll 1
        for (int b = 0; b < boxes; ++b) {
          const int at = token + b * rows, place = (at >> a.block_shift) - it.first;
          if (place - batch == 32) {
            found = later, batch += 32;
            later = entry(a, it, it.start + (batch + 32 + lane << a.block_shift));
          }
          long block, head;
          locate(a, it, __shfl_sync(~0u, found, place - batch), block, head);
          const int slot = int(block << a.block_shift) + (at & ((1 << a.block_shift) - 1));
          if (lane < PANELS)
            copy_box(base + RING + stage.at * STAGE + lane * PANEL + b * rows * LINE, &latents, barriers.full(stage.at),
                     head, slot, lane, policy);
        }
        stage.next();
      }
      ask(true);
    });
  } else if (warpgroup == 1) {  // weights
    asm volatile("setmaxnreg.dec.sync.aligned.u32 104;\n");
    Tile tile;
    each_item(a, [&](const Item& it, int part_of_heads, bool) {
      const int thread = threadIdx.x % WARPGROUP, head = part_of_heads * HEADS, count = min(HEADS, a.group - head);
      wait(barriers.asked(), question.turn);
      question.next();
      const bool live = warp * 16 < count, alone = it.pieces == 1;
      const int row = warp * 16 + lane / 4;
      float top[2] = {-INFINITY, -INFINITY}, mass[2] = {}, ahead[32], s[32], now[2], fade[2];
      const bool empty = it.start >= it.end;
      const auto there = [&](const Tile& tile) {
        return agreed(arrived(barriers.full(tile.at), tile.turn) &&
                      (tile.stages == 1 || arrived(barriers.full(tile.at + 1), tile.turn)));
      };
      // What products have found for the tile becomes weights, in steps.
      const auto take = [&] {
        const int valid = min(tile.stages * TOKENS, it.end - tile.token);
#pragma unroll
        for (int j = 0; j < 32; ++j) s[j] = ahead[j] * a.scale;
        if (valid < 2 * TOKENS)
#pragma unroll
          for (int j = 0; j < 32; ++j)
            if (j / 4 * 8 + lane % 4 * 2 + j % 2 >= valid) s[j] = -INFINITY;
      };
      const auto largest = [&] {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          now[h] = fmaxf(s[h * 2], s[h * 2 + 1]);
#pragma unroll
          for (int j = 1; j < 8; ++j) now[h] = fmaxf(now[h], fmaxf(s[j * 4 + h * 2], s[j * 4 + h * 2 + 1]));
        }
      };
      const auto of_lanes = [&](int step) {
#pragma unroll
        for (int h = 0; h < 2; ++h) now[h] = fmaxf(now[h], __shfl_xor_sync(~0u, now[h], step));
      };
      const auto choose = [&] {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          // Weights up to 2^8 do no harm: results are scaled only where they would be larger.
          now[h] = now[h] - top[h] > 8.f ? now[h] : top[h];
          fade[h] = row + h * 8 < count ? weight(top[h], now[h]) : 1.f;
          top[h] = now[h];
          now[h] = now[h] == -INFINITY ? 0.f : now[h];
          mass[h] *= fade[h];
        }
      };
      const auto weigh = [&](int first, int beyond) {
#pragma unroll
        for (int j = first; j < beyond; ++j) {
          s[j] = power2(s[j] - now[j / 2 % 2]);
          mass[j / 2 % 2] += s[j];
        }
      };
      const auto store = [&] {
        if (live) {
          store_weights(base + WEIGHTS + buffer.at * WEIGHT_BYTES, s, warp, lane);
          if (lane % 4 == 0) fades[buffer.at * ROWS + row] = fade[0], fades[buffer.at * ROWS + row + 8] = fade[1];
        }
      };
      const auto hand_over = [&] {
        publish();
        __syncwarp();
        arrive(barriers.ready(buffer.at));
        buffer.next();
      };
      tile.begin(it.start, it.end);
      bool final = tile.token + tile.stages * TOKENS >= it.end;
      for (;;) {
        if (!empty) {
          wait(barriers.full(tile.at), tile.turn);
          if (tile.stages == 2) wait(barriers.full(tile.at + 1), tile.turn);
          logits(ahead, base, base + RING + tile.at * STAGE, [](int) {});
          take();
        }
        Tile next = tile;
        next.next(it.end);
        while (!final && there(next)) {  // its logits, beside the weights of this tile
          logits(ahead, base, base + RING + next.at * STAGE, [&](int panel) {
            if (panel == 0) largest();
            if (panel == 1) of_lanes(1);
            if (panel == 2) of_lanes(2);
            if (panel == 3) choose();
            if (panel == 4) weigh(0, 16);
            if (panel == 5) weigh(16, 32);
            if (panel == 6) wait(barriers.taken(buffer.at), buffer.turn ^ 1), store();
            if (panel == 7) hand_over();
          });
          tile = next;
          next.next(it.end);
          final = tile.token + tile.stages * TOKENS >= it.end;
          take();
        }
        const int valid_now = min(tile.stages * TOKENS, it.end - tile.token);
        if (!empty) {
          largest();
          of_lanes(1);
          of_lanes(2);
          choose();
          weigh(0, 32);
        }
        wait(barriers.taken(buffer.at), buffer.turn ^ 1);
        if (!empty) store();
        if (final) {
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            float sum = mass[h];
            sum += __shfl_xor_sync(~0u, sum, 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            const int mine = row + h * 8;
            if (lane % 4 == 0 && mine < count) {
              const long entry = (long(it.part) * a.heads + it.head) * a.group + head + mine;
              if (alone)
                norms[buffer.at * ROWS + mine] = sum > 0.f ? 1.f / sum : 0.f;
              else
                __stcg(reinterpret_cast<float2*>(a.stats) + entry, float2{top[h], sum});
            }
          }
          // Values that count nothing are zeros: they may not be numbers.
          if (!empty && valid_now < tile.stages * TOKENS)
            for (int at = thread; at < VALUES / 64 * (tile.stages * TOKENS - valid_now) * 8; at += WARPGROUP) {
              const int line = at / 8 / (VALUES / 64);
              *reinterpret_cast<uint4*>(shared + RING + tile.at * STAGE + at / 8 % (VALUES / 64) * PANEL +
                                        (valid_now + line) * LINE + at % 8 * 16) = {};
            }
        }
        hand_over();
        if (!empty) tile.next(it.end);
        if (final) break;
        final = tile.token + tile.stages * TOKENS >= it.end;
      }
      if (lane == 0) arrive(barriers.answered());
    });
  } else {  // results
    asm volatile("setmaxnreg.inc.sync.aligned.u32 176;\n");
    Tile tile;
    each_item(a, [&](const Item& it, int part_of_heads, bool last) {
      const int thread = threadIdx.x - 2 * WARPGROUP, head = part_of_heads * HEADS, count = min(HEADS, a.group - head);
      const bool live = warp * 16 < count, alone = it.pieces == 1, empty = it.start >= it.end;
      const int row = warp * 16 + lane / 4;
      const int first = (warpgroup - 2) * (VALUES / 2);
      float acc[128] = {}, norm[2] = {1.f, 1.f};
      bool final;
      tile.begin(it.start, it.end);
      do {
        final = tile.token + tile.stages * TOKENS >= it.end;
        wait(barriers.ready(buffer.at), buffer.turn);
        if (live && tile.token > it.start) {
          const float fade[2] = {fades[buffer.at * ROWS + row], fades[buffer.at * ROWS + row + 8]};
          if (__any_sync(~0u, fade[0] != 1.f || fade[1] != 1.f))
#pragma unroll
            for (int j = 0; j < 128; ++j) acc[j] *= fade[j / 2 % 2];
        }
        if (!empty) {
          const uint32_t weights = base + WEIGHTS + buffer.at * WEIGHT_BYTES;
          const uint32_t stages = base + RING + tile.at * STAGE + first / 64 * PANEL;
          for (int s = 0; s < tile.stages; ++s) {
            wait(barriers.full(tile.at + s), tile.turn);
            add_results(acc, weights + s * (LINE / 2), stages + s * STAGE);
          }
        }
        if (final && alone && live)
          norm[0] = norms[buffer.at * ROWS + row], norm[1] = norms[buffer.at * ROWS + row + 8];
        __syncwarp();
        arrive(barriers.taken(buffer.at));
        if (lane == 0 && !empty) {
          arrive(barriers.empty(tile.at));
          if (tile.stages == 2) arrive(barriers.empty(tile.at + 1));
        }
        buffer.next();
        if (!empty) tile.next(it.end);
      } while (!final);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int mine = row + h * 8, column = first + lane % 4 * 2;
        if (mine >= count) continue;
        if (alone) {
          QUERY* out = static_cast<QUERY*>(a.out) + it.row * a.out_row + (head + mine) * a.out_head + column;
#pragma unroll
          for (int j = 0; j < 32; ++j)
            *reinterpret_cast<uint32_t*>(out + j * 8) =
                pack<QUERY>(acc[j * 4 + h * 2] * norm[h], acc[j * 4 + h * 2 + 1] * norm[h]);
        } else {
          const long entry = (long(it.part) * a.heads + it.head) * a.group + head + mine;
          float* to = a.accs + entry * VALUES + column;
#pragma unroll
          for (int j = 0; j < 32; ++j)
            __stcg(reinterpret_cast<float2*>(to + j * 8), make_float2(acc[j * 4 + h * 2], acc[j * 4 + h * 2 + 1]));
        }
      }
      const int head_tiles = (a.group + HEADS - 1) / HEADS;
      if (!alone)
        merge_parts(a, it, reinterpret_cast<Ticket*>(a.tickets) + it.row * head_tiles + part_of_heads, head, count,
                    last, reinterpret_cast<unsigned*>(shared + FLAG), thread);
    });
  }
}

// ---- Host

// Rows of DIM numbers as panels of 64 columns, [panels, y, x, 64], of which boxes of `x_box` times `y_box` rows are
// copied, of `panels` panels. Strides in bytes.
static int describe(CUtensorMap* map, const void* rows, cuuint64_t x, cuuint64_t x_stride, cuuint64_t y_stride,
                    int x_box, int y_box, int panels) {
  using Encode = decltype(&cuTensorMapEncodeTiled);
  static const Encode encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult status;
    cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &status);
    return reinterpret_cast<Encode>(found);
  }();
  if (!encode) return cudaErrorNotSupported;
  constexpr cuuint64_t ENOUGH = cuuint64_t(1) << 31;  // nobody asks for a row that is not there
  const cuuint64_t sizes[4] = {64, x, ENOUGH, PANELS}, strides[3] = {x > 1 ? x_stride : y_stride, y_stride, LINE};
  const cuuint32_t box[4] = {64, cuuint32_t(x_box), cuuint32_t(y_box), cuuint32_t(panels)}, ones[4] = {1, 1, 1, 1};
  const auto type = std::is_same_v<QUERY, __half> ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  return encode(map, type, 4, const_cast<void*>(rows), sizes, strides, box, ones, CU_TENSOR_MAP_INTERLEAVE_NONE,
                CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

// Heads of slots, as many slots as a block and a stage have in common, of one panel.
static int describe_latents(CUtensorMap* map, const Args& a) {
  const int slots = min(1 << a.block_shift, TOKENS);
  return describe(map, a.k, a.share, a.k_head, a.k_slot, 1, slots, 1);
}

static int describe_queries(CUtensorMap* map, const Args& a) {
  return describe(map, a.q, a.heads * a.group, a.q_head * 2, a.q_request * 2, HEADS, 1, PANELS);
}

extern "C" int prepare(int* per_multiprocessor) {
  cudaFuncSetAttribute(decode, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(per_multiprocessor, decode, THREADS, SHARED);
  return cudaGetLastError();
}

extern "C" int attend(const Args* args, int programs, cudaStream_t stream) {
  CUtensorMap latents, queries;
  if (const int refused = describe_latents(&latents, *args)) return refused;
  if (const int refused = describe_queries(&queries, *args)) return refused;
  return start(decode, programs, THREADS, SHARED, stream, *args, latents, queries);
}
