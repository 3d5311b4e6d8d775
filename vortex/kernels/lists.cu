// Block lists after the selection: as CSR, and how many blocks they hold.
#include <cuda_runtime.h>

namespace {

constexpr int THREADS = 256;

struct Step {
  const int *seq_len, *n, *chosen, *table, *lists, *tokens;
  int rows, heads, share, blocks, width, block_size;
};

// Tokens that row `row` reads.
__device__ int tokens_of(const Step &s, int row) {
  int request = row / s.heads;
  return s.chosen[request] < s.n[request] ? s.tokens[row] : s.seq_len[request];
}

__device__ int blocks_of(const Step &s, int row) { return (tokens_of(s, row) + s.block_size - 1) / s.block_size; }

// One block of threads: each sums a stretch of rows, and goes over it again when the sums before it are known.
__global__ void csr_rows(Step s, int *indptr, int *last_page_len) {
  __shared__ int sums[THREADS];
  int each = (s.rows + THREADS - 1) / THREADS;
  int first = min(s.rows, (int)threadIdx.x * each), last = min(s.rows, first + each), own = 0;
  for (int row = first; row < last; ++row) own += blocks_of(s, row);
  sums[threadIdx.x] = own;
  __syncthreads();
  int before = 0;
  for (int i = 0; i < (int)threadIdx.x; ++i) before += sums[i];
  if (threadIdx.x == 0) indptr[0] = 0;
  for (int row = first; row < last; ++row) {
    int tokens = tokens_of(s, row), blocks = (tokens + s.block_size - 1) / s.block_size;
    before += blocks;
    indptr[row + 1] = before;
    last_page_len[row] = tokens ? tokens - (blocks - 1) * s.block_size : 0;
  }
}

__global__ void csr_blocks(Step s, const int *indptr, int *indices) {
  int row = blockIdx.x, request = row / s.heads, count = indptr[row + 1] - indptr[row];
  bool sparse = s.chosen[request] < s.n[request];
  const int *list = s.lists + (long long)row * s.width;
  const int *table = s.table + (long long)(row / s.share) * s.blocks;
  int *to = indices + indptr[row];
  for (int i = blockIdx.y * THREADS + threadIdx.x; i < count; i += gridDim.y * THREADS)
    to[i] = sparse ? list[i] : table[i] * s.share + row % s.share;
}

__global__ void count_sparse(Step s, long long *count) {
  int own = 0;
  for (int row = blockIdx.x * THREADS + threadIdx.x; row < s.rows; row += gridDim.x * THREADS) {
    int request = row / s.heads;
    if (s.chosen[request] < s.n[request]) own += blocks_of(s, row);
  }
  for (int lanes = 16; lanes; lanes >>= 1) own += __shfl_xor_sync(~0u, own, lanes);
  if (threadIdx.x % 32 == 0 && own) atomicAdd(reinterpret_cast<unsigned long long *>(count), (unsigned long long)own);
}

}  // namespace

extern "C" int vortex_csr(const void *step, int *indptr, int *indices, int *last_page_len, cudaStream_t stream) {
  Step s = *static_cast<const Step *>(step);
  csr_rows<<<1, THREADS, 0, stream>>>(s, indptr, last_page_len);
  dim3 grid(s.rows, 1 + s.blocks / (8 * THREADS));
  csr_blocks<<<grid, THREADS, 0, stream>>>(s, indptr, indices);
  return cudaGetLastError();
}

extern "C" int vortex_count_sparse(const void *step, long long *count, cudaStream_t stream) {
  Step s = *static_cast<const Step *>(step);
  count_sparse<<<1 + s.rows / (8 * THREADS), THREADS, 0, stream>>>(s, count);
  return cudaGetLastError();
}
