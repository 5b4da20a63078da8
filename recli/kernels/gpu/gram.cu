// Weighted Gram matrices sum_e w_e y_e y_e^T of many rows, on tensor cores, tile by tile: of a long row's entries for a
// half-sweep, and of whole tables. Then the conjugate gradients of solve.cu with a row's matrix at hand, a step of which
// costs width^2 whatever the number of entries.

#define DEEP 32  // rows of the tables that are in shared memory at a time

// A tile [TILE, TILE] of one slot's sum over rows first[slot], ..., behind[slot] - 1 of left_e^T w_e right_e. Rows are
// numbered by `indices` less `origin`, or by themselves where that is null; weights may be null for ones. Tiles are all
// of [left_width, right_width], or where left is right the lower ones, which are written twice. sums (where targets
// are): sum t_e left_e. EXACT: products of tf32 halves, good to about 2^-21, else of tf32, to 2^-11.
template <int TILE, bool EXACT, typename T>
__device__ void gram(const T* left, const T* right, long long left_width, long long right_width, float scale,
                     const long long* first, const long long* behind, long long origin, const int* indices,
                     const float* weights, const float* targets, float* products, float* sums) {
  typedef Vector<T> V;
  constexpr int PITCH = TILE + 8;  // fragments are read from 32 different banks
  constexpr int WARPS = TILE == 128 ? 8 : 4, HIGH = TILE * TILE / WARPS / 32 / 16, THREADS = 32 * WARPS;
  SHARED(float, shared);
  float* a = shared;                  // [DEEP, PITCH], as b
  float* w = a + DEEP * PITCH;        // [DEEP]
  float* t = w + DEEP;                // [DEEP]
  float* b = t + DEEP;
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, g = lane >> 2, q = lane & 3;
  const int slot = blockIdx.x, up = (warp / (TILE / 32)) * 16 * HIGH, over = (warp % (TILE / 32)) * 32;
  const bool square = left == right;
  int ti = 0, tj = blockIdx.y;
  if (square) {
    while (tj > ti) tj -= ++ti;
  } else {
    const int across = (int)((right_width + TILE - 1) / TILE);
    ti = tj / across, tj = tj % across;
  }
  const bool alike = square && ti == tj;
  if (alike) b = a;
  float sum = 0.f, c[HIGH][4][4];
#pragma unroll
  for (int i = 0; i < HIGH; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int k = 0; k < 4; ++k) c[i][j][k] = 0.f;
  for (long long start = first[slot]; start < behind[slot]; start += DEEP) {
    const int count = (int)min((long long)DEEP, behind[slot] - start);
    for (int part = 0; part < (alike ? 1 : 2); ++part) {
      const T* table = part ? right : left;
      const long long width = part ? right_width : left_width;
      float* panel = part ? b : a;
      for (int at = tid; at < DEEP * (TILE / V::size); at += THREADS) {
        const int k = at / (TILE / V::size), column = at % (TILE / V::size) * V::size;
        const long long from = (long long)(part ? tj : ti) * TILE + column;
        V bits;
        bits.zero();
        if (k < count && from < width) {
          const long long row = indices ? (long long)indices[start - origin + k] : start + k;
          bits.load(table + row * width + from);
        }
        float y[V::size];
        bits.read(y);
#pragma unroll
        for (int i = 0; i < V::size; i += 4)
          *reinterpret_cast<float4*>(panel + k * PITCH + column + i) =
              make_float4(y[i] * scale, y[i + 1] * scale, y[i + 2] * scale, y[i + 3] * scale);
      }
    }
    if (tid < DEEP) {
      w[tid] = tid < count ? (weights ? weights[start - origin + tid] : 1.f) : 0.f;
      t[tid] = targets && tid < count ? targets[start - origin + tid] : 0.f;
    }
    __syncthreads();
    if (targets && alike && tid < TILE)
      for (int k = 0; k < count; ++k) sum += t[k] * a[k * PITCH + tid];
#pragma unroll 1
    for (int k = 0; k < DEEP; k += 8) {
      uint32_t bh[4][2], bl[4][2];
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float value = b[(k + q + 4 * i) * PITCH + over + 8 * j + g];
          if (EXACT)
            split_tf32(value, bh[j][i], bl[j][i]);
          else
            bh[j][i] = to_tf32(value);
        }
#pragma unroll
      for (int i = 0; i < HIGH; ++i) {
        uint32_t ah[4], al[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int deep = k + q + (j >> 1) * 4;
          const float value = a[deep * PITCH + up + 16 * i + g + (j & 1) * 8] * w[deep];
          if (EXACT)
            split_tf32(value, ah[j], al[j]);
          else
            ah[j] = to_tf32(value);
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          if (EXACT)
            mma_split(c[i][j], ah, al, bh[j], bl[j]);
          else
            mma_tf32(c[i][j], ah, bh[j]);
        }
      }
    }
    __syncthreads();
  }
  float* product = products + (long long)slot * left_width * right_width;
#pragma unroll
  for (int i = 0; i < HIGH; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const long long row = (long long)ti * TILE + up + 16 * i + g + (k >> 1) * 8;
        const long long column = (long long)tj * TILE + over + 8 * j + 2 * q + (k & 1);
        if (row < left_width && column < right_width) {
          product[row * right_width + column] = c[i][j][k];
          if (square && !alike) product[column * right_width + row] = c[i][j][k];
        }
      }
  const long long column = (long long)ti * TILE + tid;
  if (targets && alike && tid < TILE && column < left_width) sums[slot * left_width + column] = sum;
}

#define GRAM(name, TILE, EXACT, T)                                                                                     \
  extern "C" __global__ void __launch_bounds__(2 * TILE)                                                               \
  name(const T* left, const T* right, long long left_width, long long right_width, float scale,                        \
       const long long* first, const long long* behind, long long origin, const int* indices, const float* weights,    \
       const float* targets, float* products, float* sums) {                                                           \
    gram<TILE, EXACT, T>(left, right, left_width, right_width, scale, first, behind, origin, indices, weights,         \
                         targets, products, sums);                                                                     \
  }

GRAM(gram_64, 64, true, float)
GRAM(gram_128, 128, true, float)
GRAM(gram_64_half, 64, false, uint16_t)
GRAM(gram_128_half, 128, false, uint16_t)

// total [size] (IN/OUT) += the sum of `count` products [size], in order.
extern "C" __global__ void __launch_bounds__(256)
add_products(const float* products, long long count, long long size, double* total) {
  const long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= size) return;
  double sum = total[at];
  for (long long n = 0; n < count; ++n) sum += (double)products[n * size + at];
  total[at] = sum;
}

// out = A p for A [width, width] symmetric, a warp a row of it; ends with a barrier.
__device__ __forceinline__ void multiply(const float* A, const float* p, float* out, int width) {
  const int lane = threadIdx.x & 31;
  for (int i = threadIdx.x >> 5; i < width; i += blockDim.x >> 5) {
    float dot = 0.f;
    for (int k = lane; k < width; k += 32) dot += A[(long long)i * width + k] * p[k];
    dot = warp_sum(dot);
    if (lane == 0) out[i] = dot;
  }
  __syncthreads();
}

// Rows of X with many entries, each by one block. Row rows[i]'s products and sums are those of slots slot[i], ...,
// slot[i + 1] - 1, which it adds up in the first of them.
extern "C" __global__ void __launch_bounds__(512, 1)
solve_dense(const int* rows, const int* slots, float* products, float* sums, const long long* indptr, float* X,
            const float* gram_diagonal, const float* regularization, const float* spread, const unsigned char* frozen,
            long long wide, long long steps, float tolerance, float relaxation, double* terms) {
  SHARED(float, shared);
  const int width = (int)wide, tid = threadIdx.x, threads = blockDim.x, row = rows[blockIdx.x];
  double* double_scratch = reinterpret_cast<double*>(shared);
  float *scratch = shared + 64, *sx = scratch + 32, *residual = sx + width, *p = residual + width, *q = p + width;
  float* inverse = q + width;
  const long long size = (long long)width * width;
  const int slot = slots[blockIdx.x], behind = slots[blockIdx.x + 1];
  float *A = products + slot * size, *b = sums + (long long)slot * width, *x = X + (long long)row * width;
  for (long long at = tid; at < size; at += threads) {
    float sum = A[at];
    for (long long other = 1; other < behind - slot; ++other) sum += A[other * size + at];
    A[at] = sum;
  }
  const float reg = regularization[row], n = (float)(indptr[row + 1] - indptr[row]);
  float norm = 0.f;
  double data = 0;
  for (int k = tid; k < width; k += threads) {
    float sum = b[k];
    for (int other = 1; other < behind - slot; ++other) sum += b[(long long)other * width + k];
    residual[k] = sum;
    sx[k] = x[k];
    inverse[k] = frozen[k] ? 0.f : 1.f / (gram_diagonal[k] + reg + n * spread[k]);
    norm += frozen[k] ? 0.f : sx[k] * sx[k];
  }
  __syncthreads();
  multiply(A, sx, q, width);
  float part = 0.f;
  for (int k = tid; k < width; k += threads) {
    data += (double)sx[k] * ((double)q[k] + (double)gram_diagonal[k] * sx[k] - 2.0 * residual[k]);
    residual[k] -= q[k] + (gram_diagonal[k] + reg) * sx[k];
    p[k] = residual[k] * inverse[k];
    part += residual[k] * p[k];
  }
  float rz = block_sum(part, scratch);
  const float least = fmaxf(1e-30f, tolerance * rz);
  for (int step = 0; step < steps && !(rz < least); ++step) {
    multiply(A, p, q, width);
    part = 0.f;
    for (int k = tid; k < width; k += threads) {
      q[k] += (gram_diagonal[k] + reg) * p[k];
      part += p[k] * q[k];
    }
    const float length = rz / block_sum(part, scratch);
    part = 0.f;
    for (int k = tid; k < width; k += threads) {
      sx[k] += relaxation * length * p[k];
      residual[k] -= length * q[k];
      part += residual[k] * residual[k] * inverse[k];
    }
    const float next = block_sum(part, scratch), beta = next / rz;
    rz = next;
    for (int k = tid; k < width; k += threads) p[k] = residual[k] * inverse[k] + beta * p[k];
    __syncthreads();
  }
  part = 0.f;
  for (int k = tid; k < width; k += threads) {
    x[k] = sx[k];
    part += frozen[k] ? 0.f : sx[k] * sx[k];
  }
  const double before = (double)reg * (double)norm;
  const double all[3] = {data, before, (double)reg * (double)part};
  for (int term = 0; term < 3; ++term) {
    const double sum = block_sum(all[term], double_scratch);
    if (tid == 0) terms[3ll * row + term] = sum;
  }
}

// sums (IN/OUT) += those of terms [rows, 3], in one block.
extern "C" __global__ void __launch_bounds__(1024) add_terms(const double* terms, long long rows, double* sums) {
  SHARED(double, scratch);
  for (int term = 0; term < 3; ++term) {
    double part = 0;
    for (long long row = threadIdx.x; row < rows; row += blockDim.x) part += terms[3 * row + term];
    part = block_sum(part, scratch);
    if (threadIdx.x == 0) sums[term] += part;
  }
}
