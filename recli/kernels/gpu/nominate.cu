// Exact top-K lists, first half: products of halves nominate within a proven margin. Candidates wait for topk.cu.
//
// A user x is scaled by a power of two to x' (its largest entry is in [1, 2)), an item y to y' (|y'| is in [1, 2), but
// for the smallest), and both are rounded to float16, x^ and y^. Scores are compared in the user's units, x'.y' s: s =
// `scales` of an item, a power of two up to 1, 1 for the longest. With R columns, h = 2^-25 sqrt(R) and reach >= |y'|:
//
// - |x' - x^| <= 2^-11 |x'| + h (relative where float16 is normal, 2^-25 an entry below), as for y. So by
//   Cauchy-Schwarz |x'.y' - x^.y^| <= |x' - x^| |y'| + |x^| |y' - y^| <= (2^-10 + 2^-22) |x'| reach + 2 h (|x'| + reach
//   + h) (3 times h is taken, since h counts in what follows, too).
// - A tensor core's products are exact; of each 16 of them and the sum so far it may lose, from each, what is below
//   2^-23 of the largest (Fasi, Higham, Mikaitis, Pranesh 2021, "Numerical behavior of NVIDIA tensor cores"), and none
//   of these is larger than |x^| |y^| and what the sum begins with: 18 R / 16 2^-23 <= R 2^-22 of that in all.
// - Scores are ties, which the lower number wins, if they round to one float32: if they differ by at most 2^-23 of the
//   larger, or by 2^-149 among the smallest.
//
// margin >= the first two and 2^-21 |x'| reach (for ties, and the roundings here), extra >= 2^-147 in the user's units:
// a score is at most (x^.y^ + margin) s + extra, and at least that less 2 (margin s + extra). An item whose most is
// less than the least of k others is not among the best k. Rounding is monotone, so it makes no such comparison true
// that is not. Nothing overflows: |x'| and reach are at most 4 sqrt(R).

#define TILE 128      // users, and items, of a block's product
#define DEEP 64       // columns of them in shared memory at a time
#define PITCH 72      // halves: fragments are read from 32 different banks
#define WARPS 4       // of a block that makes users ready

// halves [m, width] = rows [m, row_width], each times its unit, zeros behind. A thread an entry.
extern "C" __global__ void __launch_bounds__(256)
round_items(const float* rows, long long row_width, const float* units, uint16_t* halves, long long m,
            long long width) {
  const long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= m * width) return;
  const long long row = at / width, column = at % width;
  halves[at] = column < row_width ? to_half(rows[row * row_width + column] * units[row]) : 0;
}

// Users rows [n, rank] get ready: halves [n, width], facts [n, FACTS], limits and counts. relative: of |x'| reach,
// rounding: h, of the margin above; exponent: of the items' scale 1. A warp a user.
extern "C" __global__ void __launch_bounds__(32 * WARPS)
begin(const float* rows, long long n, long long rank, long long width, float relative, float rounding, float reach,
      long long exponent, uint16_t* halves, float* facts, float* limits, int* counts, int* kept, int* again) {
  const long long user = (long long)blockIdx.x * WARPS + (threadIdx.x >> 5);
  const int lane = threadIdx.x & 31;
  if (user >= n) return;
  const float* row = rows + user * rank;
  float largest = 0.f, square = 0.f;
  for (long long k = lane; k < rank; k += 32) largest = fmaxf(largest, fabsf(row[k]));
  for (int away = 16; away; away >>= 1) largest = fmaxf(largest, __shfl_xor_sync(EVERY, largest, away));
  const int scale = max(-126, min(126, (int)(__float_as_uint(largest) >> 23) - 127));
  const float unit = __uint_as_float((uint32_t)(127 - scale) << 23);
  for (long long k = lane; k < width; k += 32) {
    const float value = k < rank ? row[k] * unit : 0.f;
    halves[user * width + k] = to_half(value);
    square += value * value;
  }
  const float norm = sqrtf(warp_sum(square)) * (1.f + 0x1p-24f * (float)(rank + 64));
  if (lane) return;
  const int tie = max(-126, min(60, -147 - scale - (int)exponent));
  facts[user * FACTS] = relative * norm * reach + 3.f * rounding * (norm + reach + rounding);
  facts[user * FACTS + 1] = __uint_as_float((uint32_t)(127 + tie) << 23);
  facts[user * FACTS + 2] = norm;
  facts[user * FACTS + 3] = unit;
  limits[user] = largest > 0.f ? -INFINITE : INFINITE;
  counts[user] = kept[user] = again[user] = 0;
}

// A thread's part of TILE rows (zeros after `count`) of columns start, ..., start + DEEP - 1 (zeros from `width` on):
// fetched, and put into shared memory.
__device__ __forceinline__ void fetch(uint4 (&part)[4], const uint16_t* rows, int count, int start, int width) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = (threadIdx.x >> 3) + i * 32, column = start + (threadIdx.x & 7) * 8;
    Vector<uint16_t> bits;
    bits.zero();
    if (row < count && column < width) bits.load(rows + row * width + column);
    part[i] = bits.bits;
  }
}
__device__ __forceinline__ void put(const uint4 (&part)[4], uint16_t* tile) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    *reinterpret_cast<uint4*>(tile + ((threadIdx.x >> 3) + i * 32) * PITCH + (threadIdx.x & 7) * 8) = part[i];
  }
}
__device__ __forceinline__ uint32_t two(const uint16_t* at) { return *reinterpret_cast<const uint32_t*>(at); }

// Items at places first, ..., behind - 1 that may reach a user's limit become its candidates: candidates [n, capacity]
// (OUT) from counts (IN/OUT) on, which go on counting where there is no room. Users x items: a block has TILE users and
// tiles_each tiles of items, and stops where none of its users can be reached by items of that norm, `norms` [m] in the
// units of scales. again: null, or which users take part. `resident`: chunks of DEEP columns of the users that shared
// memory holds, all or 1.
extern "C" __global__ void __launch_bounds__(256, 2)
nominate(const uint16_t* users, const float* facts, const float* limits, const int* again, long long n,
         const uint16_t* items, const float* scales, const float* norms, long long first, long long behind,
         long long wide, long long tiles_each, long long resident, long long capacity, int* counts,
         uint64_t* candidates) {
  SHARED(float, limit);                                              // [TILE], as the next two
  float *margin = limit + TILE, *extra = margin + TILE, *scale = extra + TILE;  // scale [2, TILE]
  float* scratch = scale + 2 * TILE;                                 // [32]
  uint16_t* x = reinterpret_cast<uint16_t*>(scratch + 32);           // [resident, TILE, PITCH]
  uint16_t* y = x + resident * TILE * PITCH;                         // [2, TILE, PITCH]
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, g = lane >> 2, q = lane & 3;
  const int up = warp / 4 * 64, over = warp % 4 * 32, width = (int)wide;
  const long long top = (long long)blockIdx.x * TILE, start = first + (long long)blockIdx.y * tiles_each * TILE;
  float least = INFINITE;  // of norms that count
  if (tid < TILE) {
    const long long user = top + tid;
    const bool there = user < n && (!again || again[user]);
    limit[tid] = there ? limits[user] : INFINITE;
    margin[tid] = there ? facts[user * FACTS] : 0.f;
    extra[tid] = there ? facts[user * FACTS + 1] : 0.f;
    if (there && limit[tid] < INFINITE) least = (limit[tid] - extra[tid]) / facts[user * FACTS + 2] * (1.f - 0x1p-16f);
  }
  for (int away = 16; away; away >>= 1) least = fminf(least, __shfl_xor_sync(EVERY, least, away));
  if (lane == 0) scratch[warp] = least;
  __syncthreads();
  for (int other = 0; other < 8; ++other) least = fminf(least, scratch[other]);
  int tiles = 0;
  while (tiles < tiles_each && start + tiles * TILE < behind && norms[start + tiles * TILE] >= least) ++tiles;
  if (!tiles) return;
  const int chunks = (width + DEEP - 1) / DEEP;
  const bool all = resident == chunks;
  const int rows_there = (int)min((long long)TILE, n - top);
  users += top * width, items += start * width, scales += start;
  int there = (int)min((long long)tiles * TILE, behind - start);  // items, from this tile on
  uint4 part[4];
  for (int chunk = 0; all && chunk < chunks; ++chunk) {
    fetch(part, users, rows_there, chunk * DEEP, width);
    put(part, x + chunk * TILE * PITCH);
  }
  const float never = __uint_as_float(0x7FC00000u);  // no number: no comparison with it is true
  float next_scale = never;
  if (tid < min(TILE, there)) next_scale = scales[tid];
  fetch(part, items, there, 0, width);
  put(part, y);
  if (tid < TILE) scale[tid] = next_scale;
  __syncthreads();
  int step = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    float c[4][4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int k = 0; k < 4; ++k) c[i][j][k] = margin[up + 16 * i + g + (k >> 1) * 8];
    for (int chunk = 0; chunk < chunks; ++chunk, ++step) {
      const bool last = chunk + 1 == chunks, more = !last || tile + 1 < tiles;
      if (!all) {
        fetch(part, users, rows_there, chunk * DEEP, width);
        put(part, x);
        __syncthreads();
      }
      if (more) {  // on their way while this chunk is worked with
        if (last) items += TILE * width, scales += TILE, there -= TILE;
        fetch(part, items, there, last ? 0 : (chunk + 1) * DEEP, width);
        if (last && tid < TILE) next_scale = tid < there ? scales[tid] : never;
      }
      const uint16_t* a = x + (all ? chunk * TILE * PITCH : 0) + (up + g) * PITCH + 2 * q;
      const uint16_t* b = y + (step & 1) * TILE * PITCH + (over + g) * PITCH + 2 * q;
      const int deep = min(DEEP, width - chunk * DEEP);
#pragma unroll 1
      for (int k = 0; k < deep; k += 16) {
        uint32_t bs[4][2];
#pragma unroll
        for (int j = 0; j < 4; ++j) bs[j][0] = two(b + j * 8 * PITCH + k), bs[j][1] = two(b + j * 8 * PITCH + k + 8);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const uint16_t* from = a + i * 16 * PITCH + k;
          const uint32_t as[4] = {two(from), two(from + 8 * PITCH), two(from + 8), two(from + 8 * PITCH + 8)};
#pragma unroll
          for (int j = 0; j < 4; ++j) mma_half(c[i][j], as, bs[j]);
        }
      }
      if (more) {
        put(part, y + (~step & 1) * TILE * PITCH);
        if (last && tid < TILE) scale[(~tile & 1) * TILE + tid] = next_scale;
      }
      if (last) {
        const int side = (int)start + tile * TILE + over + 2 * q;
        float s[4][2];
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
          for (int k = 0; k < 2; ++k) s[j][k] = scale[(tile & 1) * TILE + over + 8 * j + 2 * q + k];
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int half = 0; half < 2; ++half) {  // a row: 4 neighbouring lanes have 8 of its items each
            const int row = up + 16 * i + g + 8 * half;
            const float enough = limit[row], spare = extra[row];
            bool any = false;
#pragma unroll
            for (int k = 0; k < 8; ++k)
              any |= fmaf(c[i][k >> 1][2 * half + (k & 1)], s[k >> 1][k & 1], spare) >= enough;
            if (!__any_sync(EVERY, any)) continue;
            uint32_t bits = 0;
#pragma unroll
            for (int k = 0; k < 8; ++k)
              bits |= fmaf(c[i][k >> 1][2 * half + (k & 1)], s[k >> 1][k & 1], spare) >= enough ? 1u << k : 0u;
            uint32_t word = bits << 8 * q;
            word |= __shfl_xor_sync(EVERY, word, 1);
            word |= __shfl_xor_sync(EVERY, word, 2);
            int at = 0;
            if (q == 0 && word) at = atomicAdd(counts + top + row, __popc(word));
            at = __shfl_sync(EVERY, at, lane & ~3) + __popc(word & ((1u << 8 * q) - 1));
            uint64_t* to = candidates + (top + row) * capacity;
#pragma unroll
            for (int k = 0; k < 8; ++k) {
              const float most = fmaf(c[i][k >> 1][2 * half + (k & 1)], s[k >> 1][k & 1], spare);
              if (bits >> k & 1) {
                if (at < capacity) to[at] = candidate(most, side + 8 * (k >> 1) + (k & 1));
                ++at;
              }
            }
          }
      }
      __syncthreads();
    }
  }
}
