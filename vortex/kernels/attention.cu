// Decode attention for heads that share nothing (MHA, GQA): 16-bit or fp8 keys and values, up to 16 query
// heads a kv head. Compiled with QUERY (the type of q and out), KV_BYTES and E5M2, DIM, HEAD_TILES (of 8 query
// heads), WARPS and STAGES.
//
// A block takes an item; its warps take the item's tiles of 16 tokens in turn, each with its own ring of
// STAGES tiles in shared memory, and meet only at the end of the item. Logits are computed as K q^T and
// results as V^T P^T: the tokens, then the columns of V, fill the 16 rows of a tensor-core product, and the few
// query heads its 8 columns. fp8 is multiplied as fp16, where it is exact; q is brought into its range by a
// power of 2 a head.
#include "attention.cuh"

constexpr int TOKENS = 16;
constexpr int ROW = DIM * KV_BYTES, PITCH = ROW + 16;  // bytes; the pad keeps 8 rows in different banks
constexpr int CHUNKS = ROW / 16, TILE = TOKENS * PITCH, STAGE = 2 * TILE;
constexpr int HEADS = 8 * HEAD_TILES, ACC_PITCH = DIM + 4;
constexpr int Q_CHUNKS = DIM / 8, Q_PITCH = DIM * 2 + 16;
static_assert(HEADS * Q_PITCH <= STAGE);
constexpr int RING = WARPS * STAGES * STAGE, ACC = WARPS * HEADS * ACC_PITCH * 4;
constexpr int SHARED = (RING > ACC ? RING : ACC) + 4 * HEADS * (2 * WARPS + 2) + 16;
#if KV_BYTES == 1
using Number = __half;
#else
using Number = QUERY;
#endif

__device__ __forceinline__ uint32_t widened(uint32_t two) {
  uint32_t wide;
#if E5M2
  asm("cvt.rn.f16x2.e5m2x2 %0, %1;\n" : "=r"(wide) : "h"(static_cast<uint16_t>(two)));
#else
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;\n" : "=r"(wide) : "h"(static_cast<uint16_t>(two)));
#endif
  return wide;
}

struct Loader {
  const Args& a;
  const Item& it;
  uint32_t ring;
  int lane;

  // Of the two blocks of 8 tokens, or of the one block, that a tile is in.
  __device__ int2 entries(int token) const {
    const int one = entry(a, it, token);
    return {one, a.block_shift < 4 ? entry(a, it, token + 8) : one};
  }

  __device__ void load(int stage, int token, int2 found) const {
    const uint32_t to = ring + stage * STAGE;
    long block[2], head[2];
    locate(a, it, found.x, block[0], head[0]);
    block[1] = block[0], head[1] = head[0];
    if (found.y != found.x) locate(a, it, found.y, block[1], head[1]);
    const char *k[2], *v[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const long slot = (block[h] << a.block_shift) + ((token + 8 * h) & ((1 << a.block_shift) - 1));
      k[h] = static_cast<const char*>(a.k) + slot * a.k_slot + head[h] * a.k_head;
      v[h] = static_cast<const char*>(a.v) + slot * a.v_slot + head[h] * a.v_head;
    }
    const int left = it.end - token;
#pragma unroll
    for (int j = 0; j < (TOKENS * CHUNKS + 31) / 32; ++j) {
      const int at = lane + 32 * j, t = at / CHUNKS, c = at % CHUNKS;
      if (TOKENS * CHUNKS % 32 && at >= TOKENS * CHUNKS) break;
      const int h = t / 8;
      copy16(to + t * PITCH + c * 16, (h ? k[1] : k[0]) + (t % 8) * a.k_slot + c * 16, t < left);
    }
#pragma unroll
    for (int j = 0; j < (TOKENS * CHUNKS + 31) / 32; ++j) {
      const int at = lane + 32 * j, t = at / CHUNKS, c = at % CHUNKS;
      if (TOKENS * CHUNKS % 32 && at >= TOKENS * CHUNKS) break;
      const int h = t / 8;
      copy16(to + TILE + t * PITCH + c * 16, (h ? v[1] : v[0]) + (t % 8) * a.v_slot + c * 16, t < left);
    }
  }
};

// Logits [16 tokens, 8 heads] of one tile.
__device__ __forceinline__ void logits(float (&s)[HEAD_TILES][4], uint32_t keys,
                                       const uint32_t (&q)[DIM / 16][HEAD_TILES][2], int lane) {
  const uint32_t at = keys + (lane % 16) * PITCH + lane / 16 * 16;
#if KV_BYTES == 1
#pragma unroll
  for (int kk = 0; kk < DIM / 16; kk += 2) {
    uint32_t r[4];
    load_matrices(r, at + kk * 16);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t x = r[2 * half], y = r[2 * half + 1];
      const uint32_t a[4] = {widened(x), widened(y), widened(x >> 16), widened(y >> 16)};
#pragma unroll
      for (int n = 0; n < HEAD_TILES; ++n) multiply<Number>(s[n], a, q[kk + half][n][0], q[kk + half][n][1]);
    }
  }
#else
#pragma unroll
  for (int kk = 0; kk < DIM / 16; ++kk) {
    uint32_t a[4];
    load_matrices(a, at + kk * 32);
#pragma unroll
    for (int n = 0; n < HEAD_TILES; ++n) multiply<Number>(s[n], a, q[kk][n][0], q[kk][n][1]);
  }
#endif
}

// acc [DIM, 8 heads] += V^T [DIM, 16 tokens] P^T [16 tokens, 8 heads]
__device__ __forceinline__ void add_values(float (&acc)[DIM / 16][HEAD_TILES][4], uint32_t values,
                                           const uint32_t (&p)[HEAD_TILES][2], int lane) {
#if KV_BYTES == 1
  const uint32_t at = values + (lane % 16) * PITCH + lane / 16 * 16;
#pragma unroll
  for (int m = 0; m < DIM / 16; m += 2) {
    uint32_t r[4];
    load_transposed(r, at + m * 16);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t x = __byte_perm(r[2 * half], 0, 0x3120), y = __byte_perm(r[2 * half + 1], 0, 0x3120);
      const uint32_t a[4] = {widened(x), widened(x >> 16), widened(y), widened(y >> 16)};
#pragma unroll
      for (int n = 0; n < HEAD_TILES; ++n) multiply<Number>(acc[m + half][n], a, p[n][0], p[n][1]);
    }
  }
#else
  const uint32_t at = values + (lane % 8 + lane / 16 * 8) * PITCH + lane / 8 % 2 * 16;
#pragma unroll
  for (int m = 0; m < DIM / 16; ++m) {
    uint32_t a[4];
    load_transposed(a, at + m * 32);
#pragma unroll
    for (int n = 0; n < HEAD_TILES; ++n) multiply<Number>(acc[m][n], a, p[n][0], p[n][1]);
  }
#endif
}

// The column of V that an accumulator's row stands for: fp8 columns come in pairs.
__device__ __forceinline__ int column_of(int m, int lane, int upper) {
  return m * 16 + (KV_BYTES == 1 ? lane / 4 * 2 + upper : lane / 4 + 8 * upper);
}

extern "C" __global__ void __launch_bounds__(WARPS * 32, 1) decode(const __grid_constant__ Args a) {
  extern __shared__ __align__(128) char shared[];
  float* accs = reinterpret_cast<float*>(shared);
  float* stats = reinterpret_cast<float*>(shared + (RING > ACC ? RING : ACC));  // [2, WARPS, HEADS]
  float* tops = stats + 2 * WARPS * HEADS;
  float* norms = tops + HEADS;
  unsigned* flag = reinterpret_cast<unsigned*>(norms + HEADS);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int most = a.room - 1;
  const int items = fresh(a.part_count) * a.heads;
  bool waited = false;
  for (int index = blockIdx.x;; index += gridDim.x) {
    Item it = item_at(a, min(index, most));
    if (index >= items) break;
    const Loader loader{a, it, shared_address(shared) + warp * STAGES * STAGE, lane};
    const int first = it.start + warp * TOKENS;
    constexpr int STEP = WARPS * TOKENS;

    // Each warp brings q into the stage that is filled last.
    const QUERY* queries = queries_of<QUERY>(a, it);
    char* held = shared + (warp * STAGES + STAGES - 1) * STAGE;
#pragma unroll
    for (int at = lane; at < HEADS * Q_CHUNKS; at += 32) {
      const int head = at / Q_CHUNKS, chunk = at % Q_CHUNKS;
      const QUERY* from = queries + (head < a.group ? head : 0) * a.q_head + chunk * 8;
      copy16(shared_address(held) + head * Q_PITCH + chunk * 16, reinterpret_cast<const char*>(from),
             head < a.group);
    }
    commit();

    complete(a, it);
    if (!waited) wait_for_previous_kernel(), waited = true;
    int2 low[STAGES], high[STAGES];
#pragma unroll
    for (int s = 0; s < STAGES; ++s) {
      low[s] = high[s] = either_entry(a, it, first + s * STEP);
      if (a.block_shift < 4) high[s] = either_entry(a, it, first + s * STEP + 8);
    }
    limit(a, it);
    const int tiles = max(0, (it.end - it.start + TOKENS - 1) / TOKENS);
    const int mine = (tiles - warp + WARPS - 1) / WARPS;
    int2 ahead[STAGES];
#pragma unroll
    for (int s = 0; s < STAGES; ++s)
      ahead[s] = it.dense ? int2{low[s].y, high[s].y} : int2{low[s].x, high[s].x};
#pragma unroll
    for (int s = 0; s < STAGES - 1; ++s) {
      if (s < mine) loader.load(s, first + s * STEP, ahead[s]);
      commit();
    }
    int2 next = ahead[STAGES - 1];

    uint32_t q[DIM / 16][HEAD_TILES][2];
    float scale[HEAD_TILES][2];
    wait_for_all_but<STAGES - 1>();
    __syncwarp();
#pragma unroll
    for (int n = 0; n < HEAD_TILES; ++n) {
      const uint32_t* from = reinterpret_cast<const uint32_t*>(held + (n * 8 + lane / 4) * Q_PITCH);
#pragma unroll
      for (int kk = 0; kk < DIM / 16; ++kk) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int pair = kk * 8 + (KV_BYTES == 1 ? lane % 4 * 2 + half : lane % 4 + 4 * half);
          q[kk][n][half] = from[pair];
        }
      }
      scale[n][0] = scale[n][1] = a.scale;
#if KV_BYTES == 1
      using Two = Pair<QUERY>::type;
      float most = 0.f;
#pragma unroll
      for (int kk = 0; kk < DIM / 16; ++kk)
        for (int half = 0; half < 2; ++half) {
          const float2 x = unpack(*reinterpret_cast<Two*>(&q[kk][n][half]));
          most = fmaxf(most, fmaxf(fabsf(x.x), fabsf(x.y)));
        }
      most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
      most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
      int exponent = 0;
      if (most > 0.f && most < INFINITY) frexpf(most, &exponent);
      exponent = min(max(exponent, -100), 127);
#pragma unroll
      for (int kk = 0; kk < DIM / 16; ++kk)
        for (int half = 0; half < 2; ++half) {
          const float2 x = unpack(*reinterpret_cast<Two*>(&q[kk][n][half]));
          q[kk][n][half] = pack<Number>(ldexpf(x.x, -exponent), ldexpf(x.y, -exponent));
        }
      for (int j = 0; j < 2; ++j)
        scale[n][j] = ldexpf(a.scale, __shfl_sync(~0u, exponent, (lane % 4 * 2 + j) * 4));
#endif
    }

    float acc[DIM / 16][HEAD_TILES][4] = {}, top[HEAD_TILES][2], mass[HEAD_TILES][2] = {};
#pragma unroll
    for (int n = 0; n < HEAD_TILES; ++n) top[n][0] = top[n][1] = -INFINITY;

    int stage = 0, free = STAGES - 1;
    for (int i = 0; i < mine; ++i) {
      const int token = first + i * STEP;
      __syncwarp();
      if (i + STAGES - 1 < mine) loader.load(free, token + (STAGES - 1) * STEP, next);
      commit();
      if (i + STAGES < mine) next = loader.entries(token + STAGES * STEP);
      wait_for_all_but<STAGES - 1>();
      __syncwarp();

      const uint32_t keys = loader.ring + stage * STAGE;
      float s[HEAD_TILES][4] = {};
      logits(s, keys, q, lane);
      const bool low = token + lane / 4 < it.end, high = token + lane / 4 + 8 < it.end;
      uint32_t p[HEAD_TILES][2];
#pragma unroll
      for (int n = 0; n < HEAD_TILES; ++n) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const float x = low ? s[n][j] * scale[n][j] : -INFINITY;
          const float y = high ? s[n][2 + j] * scale[n][j] : -INFINITY;
          const float now = fmaxf(top[n][j], column_max(fmaxf(x, y)));
          const float fade = weight(top[n][j], now), base = now == -INFINITY ? 0.f : now;
          s[n][j] = power2(x - base);
          s[n][2 + j] = power2(y - base);
          mass[n][j] = mass[n][j] * fade + s[n][j] + s[n][2 + j];
          top[n][j] = now;
#pragma unroll
          for (int m = 0; m < DIM / 16; ++m) acc[m][n][j] *= fade, acc[m][n][2 + j] *= fade;
        }
        p[n][0] = transpose(pack<Number>(s[n][0], s[n][1]));
        p[n][1] = transpose(pack<Number>(s[n][2], s[n][3]));
      }
      add_values(acc, keys + TILE, p, lane);
      stage = stage + 1 == STAGES ? 0 : stage + 1;
      free = free + 1 == STAGES ? 0 : free + 1;
    }

    // The warps' results become one.
    wait_for_all_but<0>();
    __syncthreads();
#pragma unroll
    for (int n = 0; n < HEAD_TILES; ++n)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int head = n * 8 + lane % 4 * 2 + j;
        const float sum = column_sum(mass[n][j]);
        if (lane < 4) {
          stats[warp * HEADS + head] = top[n][j];
          stats[(WARPS + warp) * HEADS + head] = sum;
        }
        float* to = accs + (warp * HEADS + head) * ACC_PITCH;
#pragma unroll
        for (int m = 0; m < DIM / 16; ++m) {
          to[column_of(m, lane, 0)] = acc[m][n][j];
          to[column_of(m, lane, 1)] = acc[m][n][2 + j];
        }
      }
    __syncthreads();
    const long entry = (long(it.part) * a.heads + it.head) * a.group;
    QUERY* out = static_cast<QUERY*>(a.out) + it.row * a.out_row;
    for (int at = threadIdx.x; at < a.group * (DIM / 4); at += WARPS * 32) {
      const int head = at / (DIM / 4), column = at % (DIM / 4) * 4;
      float m = -INFINITY, total = 0.f;
      float4 sum = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
      for (int w = 0; w < WARPS; ++w) m = fmaxf(m, stats[w * HEADS + head]);
#pragma unroll
      for (int w = 0; w < WARPS; ++w) {
        const float gain = weight(stats[w * HEADS + head], m);
        const float4 x = *reinterpret_cast<float4*>(accs + (w * HEADS + head) * ACC_PITCH + column);
        total += stats[(WARPS + w) * HEADS + head] * gain;
        sum.x += x.x * gain, sum.y += x.y * gain, sum.z += x.z * gain, sum.w += x.w * gain;
      }
      if (it.pieces == 1) {
        const float norm = total > 0.f ? 1.f / total : 0.f;
        uint2 packed = {pack<QUERY>(sum.x * norm, sum.y * norm), pack<QUERY>(sum.z * norm, sum.w * norm)};
        *reinterpret_cast<uint2*>(out + head * a.out_head + column) = packed;
      } else {
        __stcg(reinterpret_cast<float4*>(a.accs + (entry + head) * DIM + column), sum);
        if (column == 0) {
          __stcg(a.stats + entry + head, m);
          __stcg(a.stats + a.room * a.group + entry + head, total);
        }
      }
    }
    if (it.pieces > 1)
      merge<QUERY, DIM>(a, it, reinterpret_cast<Ticket*>(a.tickets) + it.row, 0, a.group,
                        index + int(gridDim.x) >= items, tops, norms, flag);
    __syncthreads();
  }
  if (!waited) wait_for_previous_kernel();
}

extern "C" int prepare(int* per_multiprocessor) {
  cudaFuncSetAttribute(decode, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(per_multiprocessor, decode, WARPS * 32, SHARED);
  return cudaGetLastError();
}

extern "C" int attend(const Args* args, int programs, cudaStream_t stream) {
  return start(decode, programs, WARPS * 32, SHARED, stream, *args);
}
