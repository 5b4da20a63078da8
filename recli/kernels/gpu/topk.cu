// Exact top-K lists, second half: of the candidates that nominate.cu left, which says what bounds hold, those go that
// cannot be among a user's best k, and what is left in the end is scored exactly.

#define THREADS 128  // of a block, which has one user
#define GROUPS 16    // of 8 lanes: pairs that a block scores at a time
#define ROUND 64     // pairs that a block scores between barriers
#define BINS 256     // of a histogram

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
    __syncthreads();  // before any warp adds to it
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
