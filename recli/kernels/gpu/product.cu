// Tables times small matrices and sparse matrices times tables.

#define HIGH 128  // of a tile of the product
#define WIDE 64
#define DEEP 32

// product [n, s_width] (OUT, or where `add` IN/OUT) = left [n, r] times right [r, s_width], float32, by three products
// of tf32 halves (good to about 2^-21); left's rows are left_pitch apart. A block of 256 threads makes a tile.
extern "C" __global__ void __launch_bounds__(256)
multiply(const float* left, long long left_pitch, const float* right, long long n, long long r, long long s_width,
         long long add, float* product) {
  constexpr int LEFT_PITCH = DEEP + 4, RIGHT_PITCH = WIDE + 8;  // fragments are read from 32 different banks
  SHARED(float, a);                       // [HIGH, LEFT_PITCH]
  float* b = a + HIGH * LEFT_PITCH;       // [DEEP, RIGHT_PITCH]
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, g = lane >> 2, q = lane & 3;
  const long long top = (long long)blockIdx.x * HIGH, side = (long long)blockIdx.y * WIDE;
  const int up = warp / 2 * 32, over = warp % 2 * 32;
  float c[2][4][4];
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int k = 0; k < 4; ++k) c[i][j][k] = 0.f;
  for (long long start = 0; start < r; start += DEEP) {
    for (int at = tid; at < HIGH * DEEP; at += 256) {
      const int i = at / DEEP, k = at % DEEP;
      a[i * LEFT_PITCH + k] = top + i < n && start + k < r ? left[(top + i) * left_pitch + start + k] : 0.f;
    }
    for (int at = tid; at < DEEP * WIDE; at += 256) {
      const int k = at / WIDE, j = at % WIDE;
      b[k * RIGHT_PITCH + j] = start + k < r && side + j < s_width ? right[(start + k) * s_width + side + j] : 0.f;
    }
    __syncthreads();
#pragma unroll 1
    for (int k = 0; k < DEEP; k += 8) {
      uint32_t bh[4][2], bl[4][2];
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int i = 0; i < 2; ++i)
          split_tf32(b[(k + q + 4 * i) * RIGHT_PITCH + over + 8 * j + g], bh[j][i], bl[j][i]);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        uint32_t ah[4], al[4];
#pragma unroll
        for (int j = 0; j < 4; ++j)
          split_tf32(a[(up + 16 * i + g + (j & 1) * 8) * LEFT_PITCH + k + q + (j >> 1) * 4], ah[j], al[j]);
#pragma unroll
        for (int j = 0; j < 4; ++j) mma_split(c[i][j], ah, al, bh[j], bl[j]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const long long row = top + up + 16 * i + g + (k >> 1) * 8, column = side + over + 8 * j + 2 * q + (k & 1);
        if (row < n && column < s_width) {
          float* at = product + row * s_width + column;
          *at = add ? *at + c[i][j][k] : c[i][j][k];
        }
      }
}

// Sums over segments of a sparse matrix's entries: segment i's, first[i], ..., behind[i] - 1 (counted from origin), of
// value times the table's row go to row out[i] of sums [any, width]. A warp a segment and 128 columns.
extern "C" __global__ void __launch_bounds__(128)
sum_segments(const long long* first, const long long* behind, const int* out, long long segments, long long origin,
             const int* indices, const float* values, const float* table, long long width, float* sums) {
  const long long segment = (long long)blockIdx.x * 4 + (threadIdx.x >> 5);
  const long long column = (long long)blockIdx.y * 128 + (threadIdx.x & 31) * 4;
  if (segment >= segments || column >= width) return;
  float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll 4
  for (long long e = first[segment] - origin; e < behind[segment] - origin; ++e) {
    const float value = values[e];
    const float4 row = *reinterpret_cast<const float4*>(table + indices[e] * width + column);
    sum.x += value * row.x;
    sum.y += value * row.y;
    sum.z += value * row.z;
    sum.w += value * row.w;
  }
  *reinterpret_cast<float4*>(sums + out[segment] * width + column) = sum;
}

// Row rows[i] of product [any, width] becomes the sum of rows first[i], ..., first[i + 1] - 1 of parts, in order.
extern "C" __global__ void __launch_bounds__(256)
add_parts(const int* rows, const long long* first, const float* parts, long long width, float* product) {
  for (long long k = threadIdx.x; k < width; k += blockDim.x) {
    float sum = 0.f;
    for (long long part = first[blockIdx.x]; part < first[blockIdx.x + 1]; ++part) sum += parts[part * width + k];
    product[rows[blockIdx.x] * width + k] = sum;
  }
}
