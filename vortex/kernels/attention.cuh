// What the decode attention kernels share: their arguments, items of work, tensor-core fragments of 16-bit
// numbers, and how the parts of a row become one. DeviceStep (vortex/runtime/device.py) has the buffers.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cstdint>

struct Args {
  const void *q, *k, *v;
  void* out;
  float* accs;    // [parts * heads, group, values]
  float* stats;   // [2, room, group], room = parts * heads: largest logit, sum of weights
  int* tickets;   // [rows], zero before and after
  const int *n, *chosen, *seq_len, *table, *lists, *tokens, *parts, *part_count, *part_first;
  float scale;    // includes log2 e
  long q_row, q_head, out_row, out_head;              // elements
  long k_slot, k_head, v_slot, v_head;                // bytes
  long room;
  int table_row, list_row;
  int heads, share, block_shift, group;               // blocks of 1 << block_shift tokens
};

// A stretch of the block list of one row: tokens [start, end) of it.
struct Item {
  int part, head, request, row, start, end, begin, pieces;
  bool dense;
  const int *list, *table;  // of the row
};

__device__ __forceinline__ Item item_at(const Args& a, int index) {
  Item it;
  it.part = index / a.heads;
  it.head = index - it.part * a.heads;
  it.request = a.parts[it.part * 3];
  const int first = a.parts[it.part * 3 + 1], count = a.parts[it.part * 3 + 2];
  it.row = it.request * a.heads + it.head;
  it.list = a.lists + long(it.row) * a.list_row;
  it.table = a.table + long(it.row / a.share) * a.table_row;
  it.dense = a.chosen[it.request] == a.n[it.request];
  const int length = it.dense ? a.seq_len[it.request] : a.tokens[it.row];
  it.begin = a.part_first[it.request];
  it.pieces = a.part_first[it.request + 1] - it.begin;
  it.start = first << a.block_shift;
  it.end = min((first + count) << a.block_shift, length);
  return it;
}

// The entry of the list (dense: of the table) for a place, and the slot and head that it stands for.
__device__ __forceinline__ int entry(const Item& it, int place) {
  return __ldg((it.dense ? it.table : it.list) + place);
}

__device__ __forceinline__ void locate(const Args& a, const Item& it, int found, long& block, long& head) {
  if (it.dense) {
    block = found;
    head = it.row % a.share;
  } else {
    block = unsigned(found) / unsigned(a.share);
    head = unsigned(found) % unsigned(a.share);
  }
}

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// 16 bytes to shared memory, or zeros.
__device__ __forceinline__ void copy16(uint32_t to, const char* from, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from),
               "r"(valid ? 16 : 0));
}

__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }

template <int N>
__device__ __forceinline__ void wait_for_all_but() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}

__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

__device__ __forceinline__ void load_transposed(uint32_t (&r)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

__device__ __forceinline__ uint32_t transpose(uint32_t x) {
  uint32_t y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;\n" : "=r"(y) : "r"(x));
  return y;
}

template <class T>
__device__ __forceinline__ uint32_t pack(float low, float high);
template <>
__device__ __forceinline__ uint32_t pack<__nv_bfloat16>(float low, float high) {
  __nv_bfloat162 x = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<uint32_t*>(&x);
}
template <>
__device__ __forceinline__ uint32_t pack<__half>(float low, float high) {
  __half2 x = __floats2half2_rn(low, high);
  return *reinterpret_cast<uint32_t*>(&x);
}

__device__ __forceinline__ float2 unpack(__nv_bfloat162 x) { return __bfloat1622float2(x); }
__device__ __forceinline__ float2 unpack(__half2 x) { return __half22float2(x); }
template <class T>
struct Pair;
template <>
struct Pair<__nv_bfloat16> { using type = __nv_bfloat162; };
template <>
struct Pair<__half> { using type = __half2; };

// c [16, 8] += a [16, 16] b [16, 8]
template <class T>
__device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
__device__ __forceinline__ void multiply<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                        uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
               "{%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void multiply<__half>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                 uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
               "{%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ float power2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

// What a sum relative to m counts relative to `top`: nothing where there was no token.
__device__ __forceinline__ float weight(float m, float top) {
  return power2(m - (top == -INFINITY ? 0.f : top));
}

// Over the lanes that hold the same columns of a [16, 8] fragment.
__device__ __forceinline__ float column_max(float x) {
  for (int step = 4; step < 32; step *= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, step));
  return x;
}
__device__ __forceinline__ float column_sum(float x) {
  for (int step = 4; step < 32; step *= 2) x += __shfl_xor_sync(~0u, x, step);
  return x;
}

// Whether this program is the last one of its row; then the parts of all others can be read.
__device__ __forceinline__ bool last_of_row(int* ticket, int pieces, int* shared_flag) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    int taken;
    asm volatile("atom.add.acq_rel.gpu.global.s32 %0, [%1], 1;\n" : "=r"(taken) : "l"(ticket) : "memory");
    *shared_flag = taken == pieces - 1;
    if (taken == pieces - 1) *ticket = 0;
  }
  __syncthreads();
  const bool last = *shared_flag;
  if (last) __threadfence();
  return last;
}

// Adds up the parts of a row in their order, for `count` query heads from `head` on. `tops`, `norms`: room for
// a number a head in shared memory.
template <class T, int WIDTH>
__device__ __forceinline__ void merge_parts(const Args& a, const Item& it, int head, int count, float* tops,
                                            float* norms) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const long first = (long(it.begin) * a.heads + it.head) * a.group + head, step = long(a.heads) * a.group;
  const float *stats = a.stats + first, *masses = stats + a.room * a.group;
  for (int g = warp; g < count; g += warps) {
    float top = -INFINITY, mass = 0.f;
    for (int p = lane; p < it.pieces; p += 32) top = fmaxf(top, __ldcg(stats + p * step + g));
    for (int s = 1; s < 32; s *= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, s));
    for (int p = lane; p < it.pieces; p += 32)
      mass += __ldcg(masses + p * step + g) * weight(__ldcg(stats + p * step + g), top);
    for (int s = 1; s < 32; s *= 2) mass += __shfl_xor_sync(~0u, mass, s);
    if (lane == 0) tops[g] = top, norms[g] = mass > 0.f ? 1.f / mass : 0.f;
  }
  __syncthreads();
  constexpr int VECTORS = WIDTH / 4, AT_ONCE = 2;
  T* out = static_cast<T*>(a.out) + it.row * a.out_row + head * a.out_head;
  const float4* accs = reinterpret_cast<const float4*>(a.accs) + first * VECTORS;
  const int all = count * VECTORS;
  for (int start = threadIdx.x; start < all; start += AT_ONCE * blockDim.x) {
    float4 sum[AT_ONCE] = {};
#pragma unroll 4
    for (int p = 0; p < it.pieces; ++p) {
#pragma unroll
      for (int j = 0; j < AT_ONCE; ++j) {
        const int at = min(start + j * int(blockDim.x), all - 1), g = at / VECTORS;
        const float4 x = __ldcg(accs + p * step * VECTORS + at);
        const float w = weight(__ldcg(stats + p * step + g), tops[g]);
        sum[j].x += x.x * w, sum[j].y += x.y * w, sum[j].z += x.z * w, sum[j].w += x.w * w;
      }
    }
#pragma unroll
    for (int j = 0; j < AT_ONCE; ++j) {
      const int at = start + j * blockDim.x, g = at / VECTORS;
      if (at >= all) break;
      const float norm = norms[g];
      const uint2 packed = {pack<T>(sum[j].x * norm, sum[j].y * norm),
                            pack<T>(sum[j].z * norm, sum[j].w * norm)};
      *reinterpret_cast<uint2*>(out + g * a.out_head + at % VECTORS * 4) = packed;
    }
  }
}
