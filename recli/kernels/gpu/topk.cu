// Exact top-K lists: products of halves nominate within a proven margin, candidates wait, few are scored exactly.
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

#define TILE 128   // users, and items, of a block's product
#define DEEP 64    // columns of them in shared memory at a time
#define PITCH 72   // halves: fragments are read from 32 different banks
#define THREADS 128  // of the kernels with a block a user
#define GROUPS 16  // of 8 lanes: pairs that a block scores at a time
#define ROUND 64   // pairs that a block scores between barriers
#define BINS 256
#define FACTS 4    // of a user: margin, extra, |x'| or a hair more (0: all scores are 0), 1 / its scale

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
extern "C" __global__ void __launch_bounds__(THREADS)
begin(const float* rows, long long n, long long rank, long long width, float relative, float rounding, float reach,
      long long exponent, uint16_t* halves, float* facts, float* limits, int* counts, int* kept, int* again) {
  const long long user = (long long)blockIdx.x * (THREADS / 32) + (threadIdx.x >> 5);
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

// Whether num is in a list, ascending.
__device__ __forceinline__ bool listed(int num, const int* list, int length) {
  int low = 0, high = length;
  while (low < high) {
    const int middle = (low + high) >> 1;
    if (list[middle] < num)
      low = middle + 1;
    else
      high = middle;
  }
  return low < length && list[low] == num;
}

// Sorts keys [size], a power of two, the highest first (a bitonic network), by a block; ends with a barrier.
__device__ __forceinline__ void sort_down(uint64_t* keys, int size) {
  for (int width = 2; width <= size; width <<= 1)
    for (int away = width >> 1; away; away >>= 1) {
      for (int i = threadIdx.x; i < size >> 1; i += THREADS) {
        const int low = 2 * i - (i & (away - 1)), high = low + away;
        const uint64_t a = keys[low], b = keys[high];
        if ((a < b) == !(low & width)) keys[low] = b, keys[high] = a;
      }
      __syncthreads();
    }
}

// Sorts any number of keys, in the room of the next power of two; begins and ends with a barrier.
__device__ __forceinline__ void sort_found(uint64_t* keys, int count) {
  int size = 1;
  while (size < count) size <<= 1;
  for (int i = count + threadIdx.x; i < size; i += THREADS) keys[i] = 0;
  __syncthreads();
  sort_down(keys, size);
}

struct Pairs {  // what scores are made of: the user's row, and the items [m, width] with their numbers
  const float *x, *items;
  long long rank, width;
  const int* order;
};

// Found ones in place of candidates, from keys [count] to `to`, which may be keys itself.
__device__ __forceinline__ void score_all(const Pairs& pairs, const uint64_t* keys, int count, uint64_t* to) {
  for (int base = 0; base < count; base += GROUPS) {
    const int at = base + (threadIdx.x >> 3);
    const int place = at < count ? (int)(uint32_t)keys[at] : 0;
    const float score = exact_score(pairs.x, pairs.items + place * pairs.width, pairs.rank);
    if (at < count && (threadIdx.x & 7) == 0) to[at] = found(score, pairs.order[place]);
  }
}

// Where there was no room for all candidates: the best k of those kept, keys [count], and of all items at places first,
// ..., behind - 1 that are not in `list`, as found ones, sorted; returns how many. state: an int in shared memory.
__device__ __forceinline__ int search_all(const Pairs& pairs, uint64_t* keys, int count, int capacity, int k,
                                          long long first, long long behind, const int* list, int length, int* state) {
  uint64_t enough = 0;
  score_all(pairs, keys, count, keys);
  if (threadIdx.x == 0) *state = count;
  for (long long start = first;; start += ROUND) {
    __syncthreads();
    count = *state;
    __syncthreads();
    if (start >= behind || count > capacity - ROUND) {
      sort_found(keys, count);
      count = min(count, k);
      enough = count == k ? keys[k - 1] : 0;
      if (threadIdx.x == 0) *state = count;
      __syncthreads();
    }
    if (start >= behind) return count;
    for (int base = 0; base < ROUND; base += GROUPS) {
      const long long at = start + base + (threadIdx.x >> 3), place = at < behind ? at : first;
      const float score = exact_score(pairs.x, pairs.items + place * pairs.width, pairs.rank);
      if ((threadIdx.x & 7) || at >= behind) continue;
      const int num = pairs.order[place];
      const uint64_t key = found(score, num);
      if (key > enough && !listed(num, list, length)) keys[atomicAdd(state, 1)] = key;
    }
    __syncwarp();
  }
}

// The lowest and the highest number of a block, for all its threads; scratch: 64 values.
__device__ __forceinline__ void block_extremes(float& low, float& high, float* scratch) {
  for (int away = 16; away; away >>= 1) {
    low = fminf(low, __shfl_xor_sync(EVERY, low, away));
    high = fmaxf(high, __shfl_xor_sync(EVERY, high, away));
  }
  if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = low, scratch[32 + (threadIdx.x >> 5)] = high;
  __syncthreads();
  for (int warp = 0; warp < THREADS / 32; ++warp) {
    low = fminf(low, scratch[warp]);
    high = fmaxf(high, scratch[32 + warp]);
  }
  __syncthreads();
}

__device__ __forceinline__ int bin_of(float value, float low, float per_bin) {
  return min(BINS - 1, (int)((value - low) * per_bin));
}

// A number that at least `need` of values [count] reach, and hardly more: from `low` to `high` there are at least so
// many, and none is above. bins [BINS] and state [2] in shared memory.
__device__ __forceinline__ float near_largest(const float* values, int count, int need, float low, float high,
                                              int* bins, int* state, float* scratch) {
  for (int level = 0; level < 2 && low < high; ++level) {
    const float per_bin = fminf((BINS - 1) / (high - low), 3e38f);
    for (int i = threadIdx.x; i < BINS; i += THREADS) bins[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += THREADS)
      if (values[i] >= low && values[i] <= high) atomicAdd(bins + bin_of(values[i], low, per_bin), 1);
    __syncthreads();
    if (threadIdx.x < 32) {  // 8 bins a lane, from the highest on
      const int lane = threadIdx.x, from = BINS - 1 - lane * (BINS / 32);
      int sum = 0;
      for (int i = 0; i < BINS / 32; ++i) sum += bins[from - i];
      int reach = sum;
      for (int away = 1; away < 32; away <<= 1) {
        const int before = __shfl_sync(EVERY, reach, lane - away);
        if (lane >= away) reach += before;
      }
      int above = reach - sum;
      if (above < need && need <= reach) {
        int bin = from;
        while (above + bins[bin] < need) above += bins[bin--];
        state[0] = bin, state[1] = need - above;
      }
    }
    __syncthreads();
    const int bin = state[0];
    need = state[1];
    float lowest = INFINITE, highest = -INFINITE;
    for (int i = threadIdx.x; i < count; i += THREADS)
      if (values[i] >= low && values[i] <= high && bin_of(values[i], low, per_bin) == bin)
        lowest = fminf(lowest, values[i]), highest = fmaxf(highest, values[i]);
    block_extremes(lowest, highest, scratch);
    low = lowest, high = highest;
  }
  return low;
}

// After a span: a block's user lets candidates go that are excluded or cannot be among the best k, and its limit rises
// to the least that k of them have. Where there was no room for all, `again` is set, those of this span go, and the
// span is gone through once more with the higher limit; where there is no room then (second), it is searched exactly.
// Row u's exclusions are indices[indptr[u] - origin], ...; places [m]: of items. lows: null (then in shared memory), or
// room for [n, capacity].
extern "C" __global__ void __launch_bounds__(THREADS, 8)
compress(uint64_t* candidates, long long capacity, int* counts, int* kept, int* again, float* limits,
         const float* facts, long long second, long long k, const float* scales, long long first, long long behind,
         const float* users, long long rank, const float* items, long long width, const int* order, const int* places,
         float unit, const long long* indptr, long long origin, const int* indices, float* lows) {
  SHARED(int, bins);             // [BINS]
  int* state = bins + BINS;      // [4]
  float* scratch = reinterpret_cast<float*>(state + 4);                    // [64]
  uint32_t* filter = reinterpret_cast<uint32_t*>(scratch + 64);            // [BINS / 2]
  const long long user = blockIdx.x;
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
  const int old = kept[user], count = counts[user];
  if (count == old || (second && !again[user])) return;  // with nothing new, `again` does no harm
  lows = lows ? lows + user * capacity : reinterpret_cast<float*>(filter + BINS / 2);
  uint64_t* keys = candidates + user * capacity;
  const float margin = facts[user * FACTS], extra = facts[user * FACTS + 1];
  const int* list = indptr ? indices + (indptr[user] - origin) : nullptr;
  const int length = indptr ? (int)(indptr[user + 1] - indptr[user]) : 0;
  const bool over = count > capacity;
  int there = (int)min((long long)count, capacity), fresh = old;
  if (over && second) {
    const Pairs pairs = {users + user * rank, items, rank, width, order};
    there = search_all(pairs, keys, old, (int)capacity, (int)k, first, behind, list, length, state);
    for (int i = tid; i < there; i += THREADS) {  // candidates again
      const int place = places[~(uint32_t)keys[i]];
      const double score = (double)from_ordered((uint32_t)(keys[i] >> 32));
      const double here = score * (double)facts[user * FACTS + 3] * (double)unit;  // in the user's units
      keys[i] = candidate((float)here + (margin * scales[place] + extra), place);
    }
    fresh = there;
    __syncthreads();
  }
  if (length && fresh < there) {  // what is not in the filter is not in the list
    filter[tid] = 0;
    __syncthreads();
    for (int i = tid; i < length; i += THREADS)
      atomicOr(filter + (list[i] >> 5 & (BINS / 2 - 1)), 1u << (list[i] & 31));
    __syncthreads();
  }
  float low = INFINITE, high = -INFINITE;
  int valid = 0;
  for (int i = tid; i < there; i += THREADS) {
    const uint64_t key = keys[i];
    const int place = (int)(uint32_t)key;
    bool out = false;
    if (length && i >= fresh) {
      const int num = order[place];
      out = (filter[num >> 5 & (BINS / 2 - 1)] >> (num & 31) & 1) && listed(num, list, length);
    }
    if (out) {
      keys[i] = 0;  // below any limit
      lows[i] = -INFINITE;
    } else {
      lows[i] = from_ordered((uint32_t)(key >> 32)) - 2.f * (margin * scales[place] + extra);
      low = fminf(low, lows[i]), high = fmaxf(high, lows[i]);
      ++valid;
    }
  }
  block_extremes(low, high, scratch);
  valid = block_sum(valid, reinterpret_cast<int*>(scratch));
  float limit = limits[user];
  if (valid >= k) limit = fmaxf(limit, near_largest(lows, there, (int)k, low, high, bins, state, scratch));
  const uint32_t enough = ordered(limit);
  const int end = over && !second ? old : there;
  int left = 0;
  for (int base = 0, turn = 0; base < end; base += THREADS, turn ^= 1) {
    const uint64_t key = base + tid < end ? keys[base + tid] : 0;
    const bool stays = (uint32_t)(key >> 32) >= enough;
    const uint32_t vote = __ballot_sync(EVERY, stays);
    if (lane == 0) bins[turn * 4 + warp] = __popc(vote);
    __syncthreads();  // all have read theirs; places written are not above those read
    int at = left + __popc(vote & ((1u << lane) - 1));
    for (int other = 0; other < THREADS / 32; ++other) {
      if (other < warp) at += bins[turn * 4 + other];
      left += bins[turn * 4 + other];
    }
    if (stays) keys[at] = key;
  }
  if (tid == 0) {
    counts[user] = kept[user] = left;
    limits[user] = limit;
    again[user] = over && !second;
  }
}

// Lists nums, scores [n, k] of the candidates that are left, best first; -1 and -inf behind. A user of zeros gets the
// lowest numbers of m that are not excluded. fits: whether `capacity` keys are in shared memory, else they are sorted
// where they are.
extern "C" __global__ void __launch_bounds__(THREADS)
finish(uint64_t* candidates, long long capacity, long long fits, const int* counts, const float* facts, long long k,
       const float* users, long long rank, const float* items, long long m, long long width, const int* order,
       const long long* indptr, long long origin, const int* indices, int* nums, float* scores) {
  SHARED(uint64_t, shared);
  const long long user = blockIdx.x;
  if (facts[user * FACTS + 2] == 0.f) {
    const int* list = indptr ? indices + (indptr[user] - origin) : nullptr;
    const int length = indptr ? (int)(indptr[user + 1] - indptr[user]) : 0;
    for (long long i = threadIdx.x; i < k; i += THREADS) {
      int low = 0, high = length;  // as many of the list come before the i-th
      while (low < high) {
        const int middle = (low + high) >> 1;
        if (list[middle] - middle <= i)
          low = middle + 1;
        else
          high = middle;
      }
      const bool there = i + low < m;
      nums[user * k + i] = there ? (int)(i + low) : -1;
      scores[user * k + i] = there ? 0.f : -INFINITE;
    }
    return;
  }
  const int count = counts[user];
  uint64_t* keys = candidates + user * capacity;
  const Pairs pairs = {users + user * rank, items, rank, width, order};
  uint64_t* sorted = fits ? shared : keys;
  score_all(pairs, keys, count, sorted);
  sort_found(sorted, count);
  for (long long i = threadIdx.x; i < k; i += THREADS) {
    const uint64_t key = i < count ? sorted[i] : 0;
    nums[user * k + i] = i < count ? (int)~(uint32_t)key : -1;
    scores[user * k + i] = i < count ? from_ordered((uint32_t)(key >> 32)) : -INFINITE;
  }
}
