// What the kernels are written in: the only file with inline PTX, in front of every .cu file when that is compiled.
// Whole numbers are passed to kernels as long long, numbers as float (see cuda.py). Half precision travels as the bits
// of float16, so that no header of CUDA's is needed. A build for the CPU (tests/kernels/shim) brings its own meaning of
// what is under RECLI_SHIM.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define TURING
#endif
#define EVERY 0xFFFFFFFFu  // lanes
#define INFINITE __uint_as_float(0x7F800000u)

#ifndef RECLI_SHIM
typedef unsigned int uint32_t;
typedef unsigned short uint16_t;
typedef unsigned long long uint64_t;
extern __shared__ __align__(16) unsigned char shared_bytes[];
#define SHARED(T, name) T* name = reinterpret_cast<T*>(shared_bytes)

__device__ __forceinline__ float to_float(uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

__device__ __forceinline__ uint16_t to_half(float value) {
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

#ifndef TURING
__device__ __forceinline__ uint32_t to_tf32(float value) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}

// c += a b for fragments of a [16, 8] and b [8, 8] of tf32 (PTX ISA, mma.m16n8k8).
__device__ __forceinline__ void mma_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// c += a b for fragments of a [16, 16] and b [16, 8] of float16, two in a register (PTX ISA, mma.m16n8k16).
__device__ __forceinline__ void mma_half(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#else  // in two steps of 8 columns
__device__ __forceinline__ void mma_half(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#pragma unroll
  for (int k = 0; k < 2; ++k)
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]));
}
#endif
#endif  // RECLI_SHIM

#ifdef TURING  // has no tf32: the same fragments in float32, by shuffles, in little code
__device__ __forceinline__ uint32_t to_tf32(float value) { return __float_as_uint(value); }

__device__ __forceinline__ void mma_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
#pragma unroll 1
  for (int k = 0; k < 8; ++k) {  // a[r, k] is in lane 4 (r mod 8) + k mod 4, b[k, n] in lane 4 n + k mod 4
    const int row = g * 4 + (k & 3), column = t * 8 + (k & 3);
    const uint32_t mine = k < 4 ? b[0] : b[1];
    const float a0 = __uint_as_float(__shfl_sync(EVERY, k < 4 ? a[0] : a[2], row));
    const float a1 = __uint_as_float(__shfl_sync(EVERY, k < 4 ? a[1] : a[3], row));
    const float b0 = __uint_as_float(__shfl_sync(EVERY, mine, column));
    const float b1 = __uint_as_float(__shfl_sync(EVERY, mine, column + 4));
    c[0] += a0 * b0;
    c[1] += a0 * b1;
    c[2] += a1 * b0;
    c[3] += a1 * b1;
  }
}
#endif

// A number as a tf32 and the tf32 of what that leaves: three products of such halves are good to about 2^-21.
__device__ __forceinline__ void split_tf32(float value, uint32_t& high, uint32_t& low) {
  high = to_tf32(value);
  low = to_tf32(value - __uint_as_float(high));
}

// c += a b with both in halves. On Turing the high ones are all there is.
__device__ __forceinline__ void mma_split(float (&c)[4], const uint32_t (&ah)[4], const uint32_t (&al)[4],
                                          const uint32_t (&bh)[2], const uint32_t (&bl)[2]) {
#ifndef TURING
  mma_tf32(c, al, bh);
  mma_tf32(c, ah, bl);
#endif
  mma_tf32(c, ah, bh);
}

template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
  for (int away = 16; away; away >>= 1) value += __shfl_xor_sync(EVERY, value, away);
  return value;
}

// The sum over a block, for all its threads, in a fixed order; scratch: 32 values in shared memory.
template <typename T>
__device__ __forceinline__ T block_sum(T value, T* scratch) {
  value = warp_sum(value);
  if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = value;
  __syncthreads();
  T sum = 0;
  for (int warp = 0; warp < (int)(blockDim.x >> 5); ++warp) sum += scratch[warp];
  __syncthreads();
  return sum;
}

// Neighbouring columns of a row, `VECTOR` at a time: 16 bytes.
template <typename T>
struct Vector;

template <>
struct Vector<float> {
  static constexpr int size = 4;
  float4 bits;
  __device__ __forceinline__ void load(const float* from) { bits = *reinterpret_cast<const float4*>(from); }
  __device__ __forceinline__ void store(float* to) const { *reinterpret_cast<float4*>(to) = bits; }
  __device__ __forceinline__ void zero() { bits = make_float4(0.f, 0.f, 0.f, 0.f); }
  __device__ __forceinline__ void read(float (&v)[4]) const { v[0] = bits.x, v[1] = bits.y, v[2] = bits.z, v[3] = bits.w; }
};

template <>
struct Vector<uint16_t> {
  static constexpr int size = 8;
  uint4 bits;
  __device__ __forceinline__ void load(const uint16_t* from) { bits = *reinterpret_cast<const uint4*>(from); }
  __device__ __forceinline__ void store(uint16_t* to) const { *reinterpret_cast<uint4*>(to) = bits; }
  __device__ __forceinline__ void zero() { bits = make_uint4(0u, 0u, 0u, 0u); }
  __device__ __forceinline__ void read(float (&v)[8]) const {
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) v[2 * i] = to_float(words[i] & 0xFFFF), v[2 * i + 1] = to_float(words[i] >> 16);
  }
};

__device__ __forceinline__ float2 load_pair(const float* from) { return *reinterpret_cast<const float2*>(from); }
__device__ __forceinline__ float2 load_pair(const uint16_t* from) {
  const uint32_t word = *reinterpret_cast<const uint32_t*>(from);
  return make_float2(to_float(word & 0xFFFF), to_float(word >> 16));
}

// The score of two rows, exactly as spec.py defines it, by 8 neighbouring lanes, for all of them; the warp's other lanes
// must take part, with rows of their own.
__device__ __forceinline__ float exact_score(const float* x, const float* y, long long rank) {
  double sum = 0;
  for (long long k = threadIdx.x & 7; k < rank; k += 8) sum += (double)x[k] * (double)y[k];  // exact products
  for (int away = 4; away; away >>= 1) sum += __shfl_xor_sync(EVERY, sum, away);
  return (float)sum + 0.f;  // turns -0 into +0
}

// Numbers in the order of floats.
__device__ __forceinline__ uint32_t ordered(float value) {
  const uint32_t bits = __float_as_uint(value);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float from_ordered(uint32_t bits) {
  return __uint_as_float(bits >> 31 ? bits & 0x7FFFFFFFu : ~bits);
}

// A candidate: what it reaches at most, and its place in the index. A found one: its score, and its number, the higher
// key the better.
__device__ __forceinline__ uint64_t candidate(float most, int place) {
  return (uint64_t)ordered(most) << 32 | (uint32_t)place;
}
__device__ __forceinline__ uint64_t found(float score, int num) {
  return (uint64_t)ordered(score) << 32 | ~(uint32_t)num;
}

// Of a user in a search for the best items: margin, extra, |x'| or a hair more (0: all scores are 0), 1 / its scale; see
// nominate.cu.
#define FACTS 4
