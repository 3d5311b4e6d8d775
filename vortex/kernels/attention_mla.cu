// Decode attention over latents (MLA): one key for all query heads, whose first VALUES columns are the value, in
// 16 bits. Compiled with QUERY (the type of q, out and the latents), DIM, VALUES, HEAD_TILES (of 8 query heads)
// and STAGES.
//
// A block has a multiprocessor to itself and takes an item for a tile of query heads: its 16 warps go through
// the item together, 64 tokens at a time, in a ring of STAGES times 32 tokens in shared memory; each latent is
// read once. Logits K q^T: a warp has 16 tokens and a quarter of the columns of the key, with its part of q in
// registers; the quarters are added in shared memory. Softmax: a warp has some heads, a lane two tokens.
// Results V^T P^T: a warp has a sixteenth of the columns of the value. Many warps, because each waits often.
#include "attention.cuh"

constexpr int WARPS = 16, THREADS = WARPS * 32, QUARTERS = 4;
constexpr int TOKENS = 64, HALF = 32;
constexpr int ROW = DIM * 2, PITCH = ROW + 16, STAGE = HALF * PITCH;  // bytes
constexpr int CHUNKS = ROW / 16;
constexpr int HEADS = 8 * HEAD_TILES, STEPS = DIM / QUARTERS / 16, COLUMNS = VALUES / WARPS / 16;
constexpr int OWN = (HEADS + WARPS - 1) / WARPS;  // heads of a warp in the softmax
constexpr int S_PITCH = TOKENS + 4, P_PITCH = TOKENS * 2 + 16;  // floats; bytes
constexpr int RING = STAGES * STAGE, LOGITS = QUARTERS * HEADS * S_PITCH * 4, PROBABILITIES = HEADS * P_PITCH;
constexpr int SHARED = RING + LOGITS + PROBABILITIES + 3 * HEADS * 4 + 16;
static_assert(SHARED <= 227 << 10, "of a multiprocessor");
static_assert(HEADS <= HALF && HEADS * (VALUES + 4) * 4 <= RING);
static_assert(PITCH / 16 % 2 == 1 && DIM % (QUARTERS * 16) == 0 && VALUES % (WARPS * 16) == 0 && STAGES > 3);

// Loads 32 tokens: lane l of each warp knows where tokens 8 (l % 4) to 8 (l % 4) + 7 are, warp w loads
// tokens w and w + 16.
struct Loader {
  const Args& a;
  const Item& it;
  uint32_t ring;
  int warp, lane;

  // The token that decides where this lane's 8 tokens are.
  __device__ int eighth(int token) const { return token + 8 * (lane % 4); }

  __device__ void load(int stage, int token, int found) const {
    long block, head;
    locate(a, it, found, block, head);
    const int within = eighth(token) & ((1 << a.block_shift) - 1);
    const long mine = ((block << a.block_shift) + within + warp % 8) * a.k_slot + head * a.k_head;
    const uint32_t to = ring + stage * STAGE + warp * PITCH + lane * 16;
#pragma unroll
    for (int j = 0; j < HALF / WARPS; ++j) {
      const bool valid = token + WARPS * j + warp < it.end;
      const char* from = static_cast<const char*>(a.k) + __shfl_sync(~0u, mine, warp / 8 + WARPS / 8 * j) + lane * 16;
#pragma unroll
      for (int c = 0; c < CHUNKS; c += 32)
        if (CHUNKS - c >= 32 || lane < CHUNKS - c) copy16(to + j * WARPS * PITCH + c * 16, from + c * 16, valid);
    }
  }
};

extern "C" __global__ void __launch_bounds__(THREADS, 1) decode(const __grid_constant__ Args a) {
  extern __shared__ __align__(128) char shared[];
  float* logits = reinterpret_cast<float*>(shared + RING);  // [QUARTERS, HEADS, S_PITCH]
  char* probabilities = shared + RING + LOGITS;             // [HEADS, P_PITCH]
  float* fades = reinterpret_cast<float*>(probabilities + PROBABILITIES);
  float *tops = fades + HEADS, *norms = tops + HEADS;
  unsigned* flag = reinterpret_cast<unsigned*>(norms + HEADS);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int quarter = warp / 4, sixteen = warp % 4;
  const int head_tiles = (a.group + HEADS - 1) / HEADS;
  const int most = a.room * head_tiles - 1;
  wait_for_previous_kernel();
  const int items = fresh(a.part_count) * a.heads * head_tiles;
  for (int index = blockIdx.x;; index += gridDim.x) {
    Item it = item_at(a, min(index, most) / head_tiles);
    if (index >= items) break;
    const int tile = index % head_tiles, head = tile * HEADS, count = min(HEADS, a.group - head);
    const Loader loader{a, it, shared_address(shared), warp, lane};

    // q goes into the stage that is filled last.
    const QUERY* queries = queries_of<QUERY>(a, it) + head * a.q_head;
    char* held = shared + (STAGES - 1) * STAGE;
    for (int at = threadIdx.x; at < HEADS * CHUNKS; at += THREADS) {
      const int mine = at / CHUNKS, chunk = at % CHUNKS;
      const QUERY* from = queries + (mine < count ? mine : 0) * a.q_head + chunk * 8;
      copy16(shared_address(held) + mine * PITCH + chunk * 16, reinterpret_cast<const char*>(from), mine < count);
    }
    commit();
    int2 ahead[STAGES];
#pragma unroll
    for (int s = 0; s < STAGES; ++s) ahead[s] = either_entry(a, it, loader.eighth(it.start + s * HALF));
    complete(a, it);
    limit(a, it);
    const int tiles = max(0, (it.end - it.start + TOKENS - 1) / TOKENS);
#pragma unroll
    for (int s = 0; s < STAGES - 2; ++s) {
      if (s < 2 * tiles) loader.load(s, it.start + s * HALF, it.dense ? ahead[s].y : ahead[s].x);
      commit();
    }
    int next[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) next[h] = it.dense ? ahead[STAGES - 2 + h].y : ahead[STAGES - 2 + h].x;

    uint32_t q[STEPS][HEAD_TILES][2];
    wait_for_all_but<STAGES - 2>();
    __syncthreads();
#pragma unroll
    for (int n = 0; n < HEAD_TILES; ++n) {
      const uint32_t* from = reinterpret_cast<const uint32_t*>(held + (n * 8 + lane / 4) * PITCH);
#pragma unroll
      for (int kk = 0; kk < STEPS; ++kk)
#pragma unroll
        for (int j = 0; j < 2; ++j) q[kk][n][j] = from[(quarter * STEPS + kk) * 8 + lane % 4 + 4 * j];
    }

    float acc[COLUMNS][HEAD_TILES][4] = {}, top[OWN], mass[OWN] = {};
#pragma unroll
    for (int n = 0; n < OWN; ++n) top[n] = -INFINITY;
    int stage = 0;
    for (int i = 0; i < tiles; ++i) {
      const int token = it.start + i * TOKENS;
      const int stages[2] = {stage, (stage + 1) % STAGES};
      wait_for_all_but<STAGES - 4>();
      __syncthreads();
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int later = token + (STAGES - 2 + h) * HALF;
        if (later < it.start + tiles * TOKENS) loader.load((stage + STAGES - 2 + h) % STAGES, later, next[h]);
        commit();
        next[h] = entry(a, it, loader.eighth(later + TOKENS));
      }

      float s[HEAD_TILES][4] = {};
      const uint32_t keys = loader.ring + (sixteen < 2 ? stages[0] : stages[1]) * STAGE +
                            (sixteen % 2 * 16 + lane % 16) * PITCH + quarter * STEPS * 32 + lane / 16 * 16;
#pragma unroll
      for (int kk = 0; kk < STEPS; ++kk) {
        uint32_t k[4];
        load_matrices(k, keys + kk * 32);
#pragma unroll
        for (int n = 0; n < HEAD_TILES; ++n) multiply<QUERY>(s[n], k, q[kk][n][0], q[kk][n][1]);
      }
#pragma unroll
      for (int n = 0; n < HEAD_TILES; ++n)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int row = quarter * HEADS + n * 8 + lane % 4 * 2 + j % 2;
          logits[row * S_PITCH + sixteen * 16 + lane / 4 + j / 2 * 8] = s[n][j];
        }
      __syncthreads();

#pragma unroll
      for (int n = 0; n < OWN; ++n) {
        const int mine = n * WARPS + warp;
        if (mine >= HEADS) break;
        float x[2] = {};
#pragma unroll
        for (int part = 0; part < QUARTERS; ++part)
#pragma unroll
          for (int h = 0; h < 2; ++h) x[h] += logits[(part * HEADS + mine) * S_PITCH + h * HALF + lane];
#pragma unroll
        for (int h = 0; h < 2; ++h) x[h] = token + h * HALF + lane < it.end ? x[h] * a.scale : -INFINITY;
        float now = fmaxf(x[0], x[1]);
        for (int step = 1; step < 32; step *= 2) now = fmaxf(now, __shfl_xor_sync(~0u, now, step));
        now = fmaxf(now, top[n]);
        const float fade = weight(top[n], now), p[2] = {weight(x[0], now), weight(x[1], now)};
        mass[n] = mass[n] * fade + p[0] + p[1];
        top[n] = now;
        QUERY* to = reinterpret_cast<QUERY*>(probabilities + mine * P_PITCH);
        to[lane] = QUERY(p[0]), to[HALF + lane] = QUERY(p[1]);
        if (lane == 0) fades[mine] = fade;
      }
      __syncthreads();

#pragma unroll
      for (int n = 0; n < HEAD_TILES; ++n)
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const float fade = fades[n * 8 + lane % 4 * 2 + j];
#pragma unroll
          for (int m = 0; m < COLUMNS; ++m) acc[m][n][j] *= fade, acc[m][n][2 + j] *= fade;
        }
#pragma unroll
      for (int kk = 0; kk < TOKENS / 16; ++kk) {
        const uint32_t values = loader.ring + stages[kk / 2] * STAGE +
                                (kk % 2 * 16 + lane % 8 + lane / 16 * 8) * PITCH + warp * COLUMNS * 32 +
                                lane / 8 % 2 * 16;
        uint32_t p[HEAD_TILES][2];
#pragma unroll
        for (int n = 0; n < HEAD_TILES; ++n) {
          const auto* from = reinterpret_cast<uint32_t*>(probabilities + (n * 8 + lane / 4) * P_PITCH);
          p[n][0] = from[kk * 8 + lane % 4], p[n][1] = from[kk * 8 + lane % 4 + 4];
        }
#pragma unroll
        for (int m = 0; m < COLUMNS; ++m) {
          uint32_t v[4];
          load_transposed(v, values + m * 32);
#pragma unroll
          for (int n = 0; n < HEAD_TILES; ++n) multiply<QUERY>(acc[m][n], v, p[n][0], p[n][1]);
        }
      }
      stage = (stage + 2) % STAGES;
    }

    // What was found for each head, as rows.
    wait_for_all_but<0>();
    __syncthreads();
    constexpr int A_PITCH = VALUES + 4;
    float* found = reinterpret_cast<float*>(shared);
#pragma unroll
    for (int n = 0; n < HEAD_TILES; ++n)
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int m = 0; m < COLUMNS; ++m)
          found[(n * 8 + lane % 4 * 2 + j % 2) * A_PITCH + (warp * COLUMNS + m) * 16 + j / 2 * 8 + lane / 4] =
              acc[m][n][j];
    const bool alone = it.pieces == 1;
    const long entry = (long(it.part) * a.heads + it.head) * a.group + head;
#pragma unroll
    for (int n = 0; n < OWN; ++n) {
      const int mine = n * WARPS + warp;
      if (mine >= HEADS) break;
      float sum = mass[n];
      for (int step = 1; step < 32; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
      if (lane == 0) {
        norms[mine] = sum > 0.f ? 1.f / sum : 0.f;
        if (!alone && mine < count) {
          __stcg(a.stats + entry + mine, top[n]);
          __stcg(a.stats + a.room * a.group + entry + mine, sum);
        }
      }
    }
    __syncthreads();
    QUERY* out = static_cast<QUERY*>(a.out) + it.row * a.out_row + head * a.out_head;
#pragma unroll 4
    for (int at = threadIdx.x; at < count * (VALUES / 4); at += THREADS) {
      const int mine = at / (VALUES / 4), column = at % (VALUES / 4) * 4;
      const float4 x = *reinterpret_cast<float4*>(found + mine * A_PITCH + column);
      if (alone) {
        const float norm = norms[mine];
        const uint2 packed = {pack<QUERY>(x.x * norm, x.y * norm), pack<QUERY>(x.z * norm, x.w * norm)};
        *reinterpret_cast<uint2*>(out + mine * a.out_head + column) = packed;
      } else {
        __stcg(reinterpret_cast<float4*>(a.accs + (entry + mine) * VALUES + column), x);
      }
    }
    if (!alone)
      merge<QUERY, VALUES>(a, it, reinterpret_cast<Ticket*>(a.tickets) + it.row * head_tiles + tile, head, count,
                           index + int(gridDim.x) >= items, tops, norms, flag);
    __syncthreads();
  }
}

extern "C" int prepare(int* per_multiprocessor) {
  cudaFuncSetAttribute(decode, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(per_multiprocessor, decode, THREADS, SHARED);
  return cudaGetLastError();
}

extern "C" int attend(const Args* args, int programs, cudaStream_t stream) {
  return start(decode, programs, THREADS, SHARED, stream, *args);
}
