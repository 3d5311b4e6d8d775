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
  int* tickets;   // [rows, tiles of query heads, 4]: a Ticket each, zero before and after
  const int *n, *chosen, *seq_len, *table, *lists, *tokens, *parts, *part_count, *part_first;
  float scale;    // includes log2 e
  long q_request, q_head, out_row, out_head;          // elements
  long k_slot, k_head, v_slot, v_head;                // bytes
  long room;
  int table_row, list_row;
  int heads, share, block_shift, group;               // blocks of 1 << block_shift tokens
};

// A stretch of the block list of one row: tokens [start, end) of it, in the places [first, beyond).
struct Item {
  int part, head, request, row, first, beyond, start, end, begin, pieces;
  bool dense;
  const int *list, *table;  // of the row
};

// From the second level of the cache: what another kernel may have written while this one was there already.
__device__ __forceinline__ int fresh(const int* p) {
  int x;
  asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];\n" : "=r"(x) : "l"(p) : "memory");
  return x;
}

// What does not depend on anything but the plan's parts.
__device__ __forceinline__ Item item_at(const Args& a, int index) {
  Item it;
  it.part = index / a.heads;
  it.head = index - it.part * a.heads;
  it.request = fresh(a.parts + it.part * 3);
  it.first = fresh(a.parts + it.part * 3 + 1);
  it.beyond = it.first + fresh(a.parts + it.part * 3 + 2);
  it.row = it.request * a.heads + it.head;
  it.list = a.lists + long(it.row) * a.list_row;
  it.table = a.table + long(it.row / a.share) * a.table_row;
  it.start = it.first << a.block_shift;
  return it;
}

// The rest of what the plan says. Of a sparse row, where the tokens end is missing.
__device__ __forceinline__ void complete(const Args& a, Item& it) {
  const int chosen = fresh(a.chosen + it.request), n = fresh(a.n + it.request);
  const int all = fresh(a.seq_len + it.request);
  const int begin = fresh(a.part_first + it.request), next = fresh(a.part_first + it.request + 1);
  it.dense = chosen == n;
  it.end = all;
  it.begin = begin;
  it.pieces = next - begin;
}

// Where the tokens end; after the previous kernel.
__device__ __forceinline__ void limit(const Args& a, Item& it) {
  const int listed = fresh(a.tokens + it.row);
  it.end = min(it.beyond << a.block_shift, it.dense ? it.end : listed);
}

// The entry of the list and of the table for the place of a token; before it is known which of them counts.
__device__ __forceinline__ int2 either_entry(const Args& a, const Item& it, int token) {
  const int place = max(0, min(token >> a.block_shift, it.beyond - 1));
  return {fresh(it.list + min(place, a.list_row - 1)), fresh(it.table + place)};
}

__device__ __forceinline__ int entry(const Args& a, const Item& it, int token) {
  const int place = max(0, min(token >> a.block_shift, it.beyond - 1));
  return fresh((it.dense ? it.table : it.list) + place);
}

// The first query head of a row.
template <class Query>
__device__ __forceinline__ const Query* queries_of(const Args& a, const Item& it) {
  return static_cast<const Query*>(a.q) + it.request * a.q_request + it.head * a.group * a.q_head;
}

// The block of slots and the head that an entry stands for.
__device__ __forceinline__ void locate(const Args& a, const Item& it, int found, long& block, long& head) {
  if (it.dense) {
    block = found;
    head = it.row % a.share;
  } else {
    block = unsigned(found) / unsigned(a.share);
    head = unsigned(found) % unsigned(a.share);
  }
}

// Programmatic dependent launch: this grid starts while the one before it ends. What that one writes may be read
// after this, and nothing may be written before. What older kernels wrote is there from the start (the plan, the
// table, q, keys and values): the one before this one waited before it let this one start, for a kernel that came
// after them. plan.cu says more.
__device__ __forceinline__ void wait_for_previous_kernel() {
  asm volatile("griddepcontrol.wait;\ngriddepcontrol.launch_dependents;\n" ::: "memory");
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
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
               "{%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void multiply<__half>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                 uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
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

// How the parts of a row are merged. Each is written, then announced: `state` counts announcements in its low
// half. Columns are cut into slices, the first ones of a row's parts are responsible for one each. A part that
// cannot wait until all have been announced sets its bit in the high half, and the last one to be announced
// takes over its slice: nobody depends on a program that may not be running. `left` counts those who know their
// slices; the last one clears the ticket.
struct Ticket {
  unsigned long long state;
  unsigned left, unused;
};
constexpr int SLICES = 31;
constexpr long long PATIENCE = 60000;  // cycles

__device__ __forceinline__ unsigned long long announce(Ticket* ticket, unsigned long long what) {
  unsigned long long before;
  asm volatile("atom.add.acq_rel.gpu.global.u64 %0, [%1], %2;\n"
               : "=l"(before) : "l"(&ticket->state), "l"(what) : "memory");
  return before;
}

// The slices that this program merges, as bits.
__device__ __forceinline__ unsigned slices_of(Ticket* ticket, int part, int pieces, bool patient) {
  const unsigned mine = part < SLICES ? 1u << part : 0u;
  const unsigned long long declined = static_cast<unsigned long long>(mine) << 32;
  const unsigned long long before = announce(ticket, patient ? 1 : 1 + declined);
  if (static_cast<unsigned>(before) == pieces - 1) return mine | static_cast<unsigned>(before >> 32);
  if (!patient || !mine) return 0;
  const long long start = clock64();
  while (clock64() - start < PATIENCE) {
    unsigned long long now;
    asm volatile("ld.acquire.gpu.global.u64 %0, [%1];\n" : "=l"(now) : "l"(&ticket->state) : "memory");
    if (static_cast<unsigned>(now) == pieces) return mine;
  }
  return static_cast<unsigned>(announce(ticket, declined)) == pieces ? mine : 0;
}

// Adds up the parts of a row in their order, for `count` query heads from `head` on. All threads have written
// what they have of this part. `patient`: this program has nothing else to do. `tops`, `norms`: room for a
// number a head in shared memory.
template <class T, int WIDTH>
__device__ __forceinline__ void merge(const Args& a, const Item& it, Ticket* ticket, int head, int count,
                                      bool patient, float* tops, float* norms, unsigned* flag) {
  __syncthreads();
  if (threadIdx.x == 0) *flag = slices_of(ticket, it.part - it.begin, it.pieces, patient);
  __syncthreads();
  unsigned slices = *flag, before = 0;
  if (threadIdx.x == 0) before = atomicAdd(&ticket->left, 1u);  // is on its way while slices are merged
  if (slices) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const long first = (long(it.begin) * a.heads + it.head) * a.group + head, step = long(a.heads) * a.group;
    const float *stats = a.stats + first, *masses = stats + a.room * a.group;
    for (int g = warp; g < count; g += warps) {
      float top = -INFINITY, mass = 0.f;
      for (int p = lane; p < it.pieces; p += 32) {
        const float m = __ldcg(stats + p * step + g), l = __ldcg(masses + p * step + g);
        const float now = fmaxf(top, m);
        mass = mass * weight(top, now) + l * weight(m, now);
        top = now;
      }
      for (int s = 1; s < 32; s *= 2) {
        const float m = __shfl_xor_sync(~0u, top, s), l = __shfl_xor_sync(~0u, mass, s);
        const float now = fmaxf(top, m);
        mass = mass * weight(top, now) + l * weight(m, now);
        top = now;
      }
      if (lane == 0) tops[g] = top, norms[g] = mass > 0.f ? 1.f / mass : 0.f;
    }
    __syncthreads();
    constexpr int VECTORS = WIDTH / 4;
    T* out = static_cast<T*>(a.out) + it.row * a.out_row + head * a.out_head;
    const float4* accs = reinterpret_cast<const float4*>(a.accs) + first * VECTORS;
    const int all = count * VECTORS, parts = min(it.pieces, SLICES);
    for (; slices; slices &= slices - 1) {
      const int slice = __ffs(slices) - 1, beyond = all * (slice + 1) / parts;
      for (int at = all * slice / parts + threadIdx.x; at < beyond; at += blockDim.x) {
        const int g = at / VECTORS;
        const float top = tops[g], norm = norms[g];
        float4 sum = {0.f, 0.f, 0.f, 0.f};
#pragma unroll 8
        for (int p = 0; p < it.pieces; ++p) {
          const float4 x = __ldcg(accs + p * step * VECTORS + at);
          const float w = weight(__ldcg(stats + p * step + g), top);
          sum.x += x.x * w, sum.y += x.y * w, sum.z += x.z * w, sum.w += x.w * w;
        }
        const uint2 packed = {pack<T>(sum.x * norm, sum.y * norm), pack<T>(sum.z * norm, sum.w * norm)};
        *reinterpret_cast<uint2*>(out + g * a.out_head + at % VECTORS * 4) = packed;
      }
    }
  }
  __syncthreads();
  if (threadIdx.x == 0 && before == it.pieces - 1) *ticket = {};
}

template <class Kernel, class... Given>
int start(Kernel kernel, int programs, int threads, int shared, cudaStream_t stream, const Given&... given) {
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = programs, config.blockDim = threads, config.dynamicSmemBytes = shared;
  config.stream = stream, config.attrs = &early, config.numAttrs = 1;
  cudaLaunchKernelEx(&config, kernel, given...);
  return cudaGetLastError();
}
