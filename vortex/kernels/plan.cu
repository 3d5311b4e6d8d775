// The plan of a decode step. Before this text stand the limits and counters of plan_count.py and the policy,
// `int schedule_policy(int, int, float, int, int)`. `plan_cpu.py` is the same in numpy.
//
// Block 0 makes the counts and the attention work. Each other block has a share of one request: it copies that
// of the block table, finds out how much scoring work lies before the request, and writes that of its share.
//
// Later kernels may read what stands here before they wait for the kernel in front of them
// (griddepcontrol.wait): the plan is complete when any kernel after it starts. Therefore it is launched like
// any other kernel, when all before it is complete, and never lets its dependents start early
// (griddepcontrol.launch_dependents): they start when all of its threads have ended, and a fence is the last
// thing that these do, so that a kernel that does not wait sees what they wrote. So it is with the summaries of
// prompts, which are made before the plan. What is newer, the query and the new tokens, needs more: a kernel waits
// before it lets its dependents start early, so that these find all done but that kernel. The prologue alone may
// start the scores at once, and they wait before they read such.
#include <cuda_runtime.h>

namespace {

constexpr int THREADS = 1024, WARPS = THREADS / 32, HELD = 2, PLACES = HELD * THREADS;
static_assert(WARPS == 32, "a warp adds up what the warps found");

struct Plan {
  const void *seq_len, *requests;
  const int *req_to_token;
  int *length, *n, *chosen, *owner, *table, *chunks, *chunk_count, *parts, *part_first, *part_count;
  long long *counts;
  long long context;  // entries of a row of req_to_token
  int numbers;        // its rows
  int batch, wide_lengths, wide_requests;
  // The largest step.
  int size, heads, blocks, width, block_shift, chunk_shift, bos, eos, share, programs, room;
  // The budget; no limit: -1.
  int topk_val, max_topk_val, listed;
  float topk_ratio;
  int crossover;
  float dense, dense_block, sparse, score_block, chosen_block;
};

struct Budget {
  int length, n, chosen;
  __device__ bool sparse() const { return chosen < n; }
};

__device__ long long entry(const void *data, int wide, int place) {
  return wide ? static_cast<const long long *>(data)[place] : static_cast<const int *>(data)[place];
}

__device__ int length_of(const Plan &p, int request) {
  if (request >= p.batch) return 0;
  long long most = (long long)p.blocks << p.block_shift;
  long long length = entry(p.seq_len, p.wide_lengths, request);
  return (int)(length < 0 ? 0 : length > most ? most : length);
}

__device__ int blocks_of(const Plan &p, int length) {
  return (int)(((long long)length + (1 << p.block_shift) - 1) >> p.block_shift);
}

// Not inlined: the policy would be compiled for each of its uses.
__device__ __noinline__ Budget budget(const Plan &p, int request) {
  int length = length_of(p, request), n = blocks_of(p, length);
  if (n == 0) return {length, 0, 0};
  int reserved = p.bos + p.eos, chosen = schedule_policy(n, p.topk_val, p.topk_ratio, p.bos, p.eos);
  if (p.max_topk_val >= 0 && chosen > p.max_topk_val + reserved) chosen = p.max_topk_val + reserved;
  if (chosen < reserved + 1) chosen = reserved + 1;
  if (chosen >= n) return {length, n, n};
  return {length, n, p.listed < 0 && chosen > p.width ? p.width : chosen};
}

// Blocks that are scored, pieces of work that they make, and blocks in the list (of a Union: at most).
__device__ int scored(const Plan &p, Budget b) { return b.sparse() ? b.n - p.bos - p.eos : 0; }
__device__ int pieces(const Plan &p, Budget b) {
  return (scored(p, b) + (1 << p.chunk_shift) - 1) >> p.chunk_shift;
}
__device__ int listed(const Plan &p, Budget b) {
  return !b.sparse() || p.listed < 0 ? b.chosen : p.listed < b.n ? p.listed : b.n;
}

// a >= 0, b > 0, both below 2^24.
__device__ int ceil_div(int a, int b) {
  int q = (int)__fdividef((float)a, (float)b);
  q -= q * b > a;
  q -= q * b > a;
  q += q * b < a;
  q += q * b < a;
  return q;
}

// The sums over all threads.
template <int COUNT>
__device__ void block_sums(int (&values)[COUNT]) {
  __shared__ int sums[COUNT][WARPS];
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < COUNT; ++i) {
    int own = __reduce_add_sync(~0u, values[i]);
    if (lane == 0) sums[i][warp] = own;
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < COUNT; ++i) values[i] = __reduce_add_sync(~0u, sums[i][lane]);
}

// values[i] becomes the sum of those before it; returns the sum of all. All threads, any count.
__device__ int exclusive_sums(int *values, int count) {
  __shared__ int sums[WARPS];
  int each = (count + THREADS - 1) / THREADS, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int first = min(count, (int)threadIdx.x * each), last = min(count, first + each), own = 0;
  __syncthreads();
  for (int i = first; i < last; ++i) own += values[i];
  int before = own;
  for (int lanes = 1; lanes < 32; lanes <<= 1) {
    int left = __shfl_up_sync(~0u, before, lanes);
    if (lane >= lanes) before += left;
  }
  if (lane == 31) sums[warp] = before;
  __syncthreads();
  int total = __reduce_add_sync(~0u, sums[lane]);
  before += __reduce_add_sync(~0u, lane < warp ? sums[lane] : 0) - own;
  for (int i = first; i < last; ++i) {
    int value = values[i];
    values[i] = before;
    before += value;
  }
  __syncthreads();
  return total;
}

// Whether all of the step is read, because that is faster. All threads.
__device__ bool crossed(const Plan &p) {
  if (!p.crossover) return false;
  int sums[3] = {};  // blocks, those to score, those to read
  for (int i = threadIdx.x; i < p.batch; i += THREADS) {
    Budget b = budget(p, i);
    sums[0] += b.n;
    sums[1] += scored(p, b);
    sums[2] += listed(p, b);
  }
  block_sums(sums);
  float dense = __fadd_rn(p.dense, __fmul_rn(p.dense_block, (float)sums[0]));
  float sparse = __fadd_rn(__fadd_rn(p.sparse, __fmul_rn(p.score_block, (float)sums[1])),
                           __fmul_rn(p.chosen_block, (float)sums[2]));
  return sums[1] > 0 && dense <= sparse;
}

// The length of a part, the `cut`-th that is compared.
__device__ int part_length(const Plan &p, int share, int cut) {
  long long wanted = ((long long)share * (cut + 1) + 7) >> 3;
  int least = max(1, PART_TOKENS >> p.block_shift);
  return wanted > p.blocks ? p.blocks + least : max(least, (int)wanted);
}

// The best length of a part, for `lists [batch]` blocks in each list, `total` in all. A warp for each length
// that is compared.
__device__ int best_length(const Plan &p, const int *lists, int total) {
  static_assert(CUTS == WARPS, "every warp compares one length");
  __shared__ long long keys[CUTS];
  int share = (total + p.programs - 1) / p.programs, lane = threadIdx.x % 32, cut = threadIdx.x / 32;
  int length = part_length(p, share, cut), count = 0, longest = 0;
  for (int i = lane; i < p.batch; i += 32) {
    int own = ceil_div(lists[i], length);
    count += own;
    longest = max(longest, own ? ceil_div(lists[i], own) : 0);
  }
  count = __reduce_add_sync(~0u, count);
  longest = __reduce_max_sync(~0u, longest);
  if (lane == 0) {
    int turns = (count + p.programs - 1) / p.programs;
    long long busy = turns * (((long long)longest << p.block_shift) + PART_COST);
    keys[cut] = count > p.room ? 1ll << 62 : busy << 6 | (CUTS - 1 - cut);
  }
  __syncthreads();
  long long best = keys[lane];
  for (int lanes = 16; lanes; lanes >>= 1) best = min(best, __shfl_xor_sync(~0u, best, lanes));
  return part_length(p, share, CUTS - 1 - (int)(best & 63));
}

// Counts, attention work, and what is counted over steps. `lists [size]`, `first [size + 1]`.
__device__ void plan_requests(const Plan &p, int *lists, int *first) {
  bool dense = crossed(p);
  enum { ALL, READ, LISTED, CHUNK, SPARSE, DENSE, FINISHED, SUMS };
  int sums[SUMS] = {};
  for (int i = threadIdx.x; i < p.size; i += THREADS) {
    Budget b = budget(p, i);
    if (dense) b.chosen = b.n;
    p.length[i] = b.length;
    p.n[i] = b.n;
    p.chosen[i] = b.chosen;
    p.owner[i] = !p.requests ? i : i < p.batch ? (int)entry(p.requests, p.wide_requests, i) : 0;
    lists[i] = listed(p, b);
    sums[ALL] += b.n;
    sums[READ] += b.sparse() && p.listed >= 0 ? 0 : b.chosen;
    sums[LISTED] += lists[i];
    sums[CHUNK] += pieces(p, b);
    sums[SPARSE] += b.sparse();
    sums[DENSE] += !b.sparse() && b.n > 0;
    sums[FINISHED] += b.length > 0 && b.length % (1 << p.block_shift) == 0;
  }
  block_sums(sums);

  int length = best_length(p, lists, sums[LISTED]);
  for (int i = threadIdx.x; i < p.batch; i += THREADS) first[i] = ceil_div(lists[i], length);
  int total = exclusive_sums(first, p.batch);
  if (threadIdx.x == 0) first[p.batch] = total;
  __syncthreads();
  for (int i = threadIdx.x; i <= p.size; i += THREADS) p.part_first[i] = first[min(i, p.batch)];
  for (int part = threadIdx.x; part < total; part += THREADS) {
    int low = 0, high = p.batch - 1;  // the last request that starts at `part` or before
    while (low < high) {
      int middle = (low + high + 1) / 2;
      if (first[middle] <= part) low = middle; else high = middle - 1;
    }
    int own = first[low + 1] - first[low], number = part - first[low];
    int start = number * lists[low] / own, end = (number + 1) * lists[low] / own;
    p.parts[3 * part] = low;
    p.parts[3 * part + 1] = start;
    p.parts[3 * part + 2] = end - start;
  }
  if (threadIdx.x != 0) return;
  *p.part_count = total;
  *p.chunk_count = sums[CHUNK];
  p.counts[STEPS] += 1;
  p.counts[CROSSOVER_STEPS] += dense;
  p.counts[BLOCKS_FINISHED] += (long long)sums[FINISHED] * p.heads;
  if (sums[SPARSE] == 0) return;
  p.counts[SPARSE_STEPS] += 1;
  p.counts[ROWS_SPARSE] += (long long)sums[SPARSE] * p.heads;
  p.counts[ROWS_DENSE] += (long long)sums[DENSE] * p.heads;
  p.counts[BLOCKS_READ] += (long long)sums[READ] * p.heads;
  p.counts[BLOCKS_TOTAL] += (long long)sums[ALL] * p.heads;
  p.counts[CHUNKS] += (long long)sums[CHUNK] * p.heads;
}

// `PLACES` places of the table of one request, from `first` on.
__device__ void copy_table(const Plan &p, int request, int first) {
  int n = blocks_of(p, length_of(p, request));
  if (first >= n) return;
  long long number = p.requests ? entry(p.requests, p.wide_requests, request) : request;
  number = number < 0 ? 0 : number >= p.numbers ? p.numbers - 1 : number;
  const int *slots = p.req_to_token + number * p.context;
  int found[HELD];
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    long long place = first + i * THREADS + threadIdx.x, token = place << p.block_shift;
    found[i] = place < n && token < p.context ? __ldg(slots + token) >> p.block_shift : -1;
  }
  int rows = p.heads / p.share;
  for (int row = request * rows; row < (request + 1) * rows; ++row) {
#pragma unroll
    for (int i = 0; i < HELD; ++i)
      if (found[i] >= 0) p.table[(long long)row * p.blocks + first + i * THREADS + threadIdx.x] = found[i];
  }
}

// The chunks of a request, every `shares`-th stretch of them.
__device__ void write_chunks(const Plan &p, int request, int share, int shares) {
  if (crossed(p)) return;
  int before[1] = {};
  for (int i = threadIdx.x; i < request; i += THREADS) before[0] += pieces(p, budget(p, i));
  block_sums(before);
  int own = pieces(p, budget(p, request));
  int2 *chunks = reinterpret_cast<int2 *>(p.chunks) + before[0];
  for (int i = share * THREADS + threadIdx.x; i < own; i += shares * THREADS)
    chunks[i] = {request, p.bos + (i << p.chunk_shift)};
}

// One share of the table and of the scoring work of a request.
__device__ void plan_share(const Plan &p, int block) {
  int shares = (gridDim.x - 1) / p.batch, request = block % p.batch, share = block / p.batch;
  if (p.req_to_token)
    for (int first = share * PLACES; first < p.blocks; first += shares * PLACES)
      copy_table(p, request, first);
  write_chunks(p, request, share, shares);
}

__global__ void __launch_bounds__(THREADS, 2) plan(const __grid_constant__ Plan p) {
  extern __shared__ int work[];
  if (blockIdx.x == 0) plan_requests(p, work, work + p.size);
  else plan_share(p, blockIdx.x - 1);
  __threadfence();  // see the top of the file
}

}  // namespace

extern "C" int vortex_plan(const void *what, int multiprocessors, cudaStream_t stream) {
  const Plan *p = static_cast<const Plan *>(what);
  int shares = 1;
  while (2 * shares * p->batch <= 2 * multiprocessors && shares * PLACES < p->blocks) shares *= 2;
  plan<<<1 + shares * p->batch, THREADS, (2 * p->size + 1) * sizeof(int), stream>>>(*p);
  return cudaGetLastError();
}
