// Pairs of rows: dot products, exact scores, and what rows gain by their pairs.

// dots[n] of rows user_at, item_at of two tables [any, width]: a warp a pair.
extern "C" __global__ void __launch_bounds__(128)
pair_dots(const float* users, const float* items, const int* user_at, const int* item_at, float* dots, long long n,
          long long width) {
  const long long pair = (long long)blockIdx.x * 4 + (threadIdx.x >> 5);
  if (pair >= n) return;
  const float *x = users + user_at[pair] * width, *y = items + item_at[pair] * width;
  float dot = 0.f;
  for (long long k = threadIdx.x & 31; k < width; k += 32) dot += x[k] * y[k];
  dot = warp_sum(dot);
  if ((threadIdx.x & 31) == 0) dots[pair] = dot;
}

// Row r of sums [rows, width]: over its pairs, order[indptr[r]], ..., of slope times the other side's row other_at.
extern "C" __global__ void __launch_bounds__(256)
pair_sums(const long long* indptr, const int* order, const int* other_at, const float* slopes, const float* others,
          float* sums, long long rows, long long width) {
  const long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= rows * width) return;
  const long long row = at / width, column = at % width;
  float sum = 0.f;
  for (long long place = indptr[row]; place < indptr[row + 1]; ++place) {
    const int pair = order[place];
    sum += slopes[pair] * others[other_at[pair] * width + column];
  }
  sums[at] = sum;
}

// Scores, exactly as spec.py defines them, of rows user_nums, item_nums [n] of tables [any, rank]: 8 threads a pair.
extern "C" __global__ void __launch_bounds__(256)
score_pairs(const float* users, const float* items, const long long* user_nums, const long long* item_nums,
            float* scores, long long n, long long rank) {
  const long long pair = (long long)blockIdx.x * 32 + (threadIdx.x >> 3);
  const long long there = pair < n ? pair : n - 1;  // all lanes of a warp take part
  const float score = exact_score(users + user_nums[there] * rank, items + item_nums[there] * rank, rank);
  if (pair < n && (threadIdx.x & 7) == 0) scores[pair] = score;
}
