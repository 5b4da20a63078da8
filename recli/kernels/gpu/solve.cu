// Rows of a half-sweep with few entries, each by one block: preconditioned conjugate gradients in the eigenbasis of the
// Gram matrix, as the CPU's (kernels/cpu/half_sweep.py), step by step. A pass over a row's entries takes dot products of
// the fixed rows with a vector, a group of lanes an entry, then sums the fixed rows times coefficients, a thread two
// columns. Rows that fit stay in shared memory between passes. Rows of many entries are in gram.cu.

#define BATCH 256  // entries between two barriers
#ifdef TURING      // whose compiler leaves too few registers, so that two blocks of 512 threads fit
#define BOUNDS 512, 1
#else
#define BOUNDS 512
#endif

struct Entries {  // of one row; e counts from `origin` in the arrays
  const int* indices;
  const float* weights;
  const float* targets;
};

// What shared memory holds, in floats: see half_sweep.py, which reserves it.
struct Scratch {
  float *x, *residual, *p, *q, *inverse, *sums, *coefficients, *reduced;
  double* terms;
  int* at;
};

__device__ __forceinline__ Scratch scratch_of(float* shared, int width, int groups) {
  Scratch s;
  s.terms = reinterpret_cast<double*>(shared);
  s.reduced = shared + 64;
  s.coefficients = s.reduced + 32;
  s.at = reinterpret_cast<int*>(s.coefficients + BATCH);
  s.x = s.coefficients + 2 * BATCH;
  s.residual = s.x + width;
  s.p = s.residual + width;
  s.q = s.p + width;
  s.inverse = s.q + width;
  s.sums = s.inverse + width;
  return s;
}

// Where entry first + j of a batch's rows is; KEPT: those that stay have come to their place.
template <bool KEPT, typename T>
__device__ __forceinline__ const T* row_of(const T* Y, const int* at, const T* kept, bool keep, int first, int j,
                                           int width) {
  return KEPT && keep ? kept + (long long)(first + j) * width : Y + (long long)at[j] * width;
}

// SIZE neighbouring numbers, at a multiple of 16 bytes.
template <int SIZE>
__device__ __forceinline__ void read_vector(const float* from, float (&to)[SIZE]) {
#pragma unroll
  for (int i = 0; i < SIZE; i += 4) {
    const float4 four = *reinterpret_cast<const float4*>(from + i);
    to[i] = four.x, to[i + 1] = four.y, to[i + 2] = four.z, to[i + 3] = four.w;
  }
}

// sums[k] over entries of coefficient y_k goes to out[k]. FIRST: with vector x, coefficients are t - w s and the terms
// w s^2 - 2 t s are returned, a part by each thread; else they are w s. A barrier must come before the next pass.
template <bool FIRST, typename T>
__device__ double pass(const T* Y, float scale, const Entries& entries, int n, int width, bool keep, T* kept,
                       const float* vector, float* out, const Scratch& scratch, int lanes, int groups) {
  typedef Vector<T> V;
  const int threads = blockDim.x, tid = threadIdx.x, pairs = width / 2;
  const int lane = tid % lanes, group = tid / lanes, step = threads / lanes;
  const int share = tid / pairs, own = tid % pairs;  // of the sums, where a block has threads for all columns
  double data = 0;
  float mine[V::size];  // columns of the vector that stay with a lane: all of them, unless rows are long
  if (lane * V::size < width) read_vector(vector + lane * V::size, mine);
  for (int k = tid; k < groups * width; k += threads) scratch.sums[k] = 0.f;
  __syncthreads();  // without entries there is no other before the sums are taken
  for (int first = 0; first < n; first += BATCH) {
    const int count = min(BATCH, n - first);
    for (int j = tid; j < count; j += threads) scratch.at[j] = entries.indices[first + j];
    __syncthreads();
    for (int j = group; j < (count + step - 1) / step * step; j += 2 * step) {  // two entries a turn: loads overlap
      const int at[2] = {j, j + step};
      float dot[2] = {0.f, 0.f};
      for (int c = lane * V::size; c < width; c += lanes * V::size) {
        V bits[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          bits[e].zero();
          if (at[e] < count) bits[e].load(row_of<!FIRST>(Y, scratch.at, kept, keep, first, at[e], width) + c);
        }
        float other[V::size];
        if (c != lane * V::size) read_vector(vector + c, other);
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          if (FIRST && keep && at[e] < count) bits[e].store(kept + (long long)(first + at[e]) * width + c);
          float y[V::size];
          bits[e].read(y);
#pragma unroll
          for (int i = 0; i < V::size; ++i) dot[e] += y[i] * (c == lane * V::size ? mine[i] : other[i]);
        }
      }
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        for (int away = lanes / 2; away; away >>= 1) dot[e] += __shfl_xor_sync(EVERY, dot[e], away);
        if (at[e] < count && lane == 0) {
          const float w = entries.weights[first + at[e]], s = dot[e] * scale;
          float coefficient = w * s;
          if (FIRST) {
            const float t = entries.targets[first + at[e]];
            data += (double)((w * s - 2.f * t) * s);
            coefficient = t - w * s;
          }
          scratch.coefficients[at[e]] = coefficient * scale;
        }
      }
    }
    __syncthreads();
    for (int c = own; c < pairs; c += threads) {
      float2 sum = make_float2(0.f, 0.f);
      if (share < groups)
#pragma unroll 4
        for (int j = share; j < count; j += groups) {
          const float2 y = load_pair(row_of<true>(Y, scratch.at, kept, keep, first, j, width) + 2 * c);
          sum.x += scratch.coefficients[j] * y.x;
          sum.y += scratch.coefficients[j] * y.y;
        }
      if (share < groups) {
        scratch.sums[share * width + 2 * c] += sum.x;
        scratch.sums[share * width + 2 * c + 1] += sum.y;
      }
    }
    __syncthreads();
  }
  for (int k = tid; k < width; k += threads) {  // whose thread it is in all that follows, too
    float sum = 0.f;
    for (int g = 0; g < groups; ++g) sum += scratch.sums[g * width + k];
    out[k] = sum;
  }
  return data;
}

template <typename T>
__device__ void solve(const long long* indptr, long long origin, const int* indices, const float* weights,
                      const float* targets, const int* rows, float* X, const T* Y, float scale,
                      const float* gram_diagonal, const float* regularization, const float* spread,
                      const unsigned char* frozen, int width, int steps, float tolerance, float relaxation, bool keep,
                      int lanes, int groups, double* terms) {
  SHARED(float, shared);
  const Scratch s = scratch_of(shared, width, groups);
  T* kept = reinterpret_cast<T*>(s.sums + groups * width);
  const int tid = threadIdx.x, threads = blockDim.x, row = rows[blockIdx.x];
  const long long start = indptr[row];
  const int n = (int)(indptr[row + 1] - start);
  const Entries entries = {indices + (start - origin), weights + (start - origin), targets + (start - origin)};
  float* x = X + (long long)row * width;
  const float reg = regularization[row];
  float norm = 0.f, quadratic = 0.f;
  for (int k = tid; k < width; k += threads) {
    const float value = x[k], diagonal = gram_diagonal[k] + reg;
    s.x[k] = value;
    s.inverse[k] = frozen[k] ? 0.f : 1.f / (diagonal + n * spread[k]);
    norm += frozen[k] ? 0.f : value * value;
    quadratic += value * gram_diagonal[k] * value;
  }
  __syncthreads();
  double data = (double)quadratic;
  const double before = (double)reg * (double)norm;
  data += pass<true>(Y, scale, entries, n, width, keep, kept, s.x, s.q, s, lanes, groups);
  float part = 0.f;
  for (int k = tid; k < width; k += threads) {
    const float residual = s.q[k] - (gram_diagonal[k] + reg) * s.x[k];
    s.residual[k] = residual;
    s.p[k] = residual * s.inverse[k];
    part += residual * s.p[k];
  }
  float rz = block_sum(part, s.reduced);
  const float least = fmaxf(1e-30f, tolerance * rz);  // as CONVERGED of the CPU's
  for (int step = 0; step < steps && !(rz < least) && n; ++step) {
    pass<false>(Y, scale, entries, n, width, keep, kept, s.p, s.q, s, lanes, groups);
    part = 0.f;
    for (int k = tid; k < width; k += threads) {
      s.q[k] += (gram_diagonal[k] + reg) * s.p[k];
      part += s.p[k] * s.q[k];
    }
    const float length = rz / block_sum(part, s.reduced);
    part = 0.f;
    for (int k = tid; k < width; k += threads) {
      s.x[k] += relaxation * length * s.p[k];
      s.residual[k] -= length * s.q[k];
      part += s.residual[k] * s.residual[k] * s.inverse[k];
    }
    const float next = block_sum(part, s.reduced), beta = next / rz;
    rz = next;
    for (int k = tid; k < width; k += threads) s.p[k] = s.residual[k] * s.inverse[k] + beta * s.p[k];
    __syncthreads();
  }
  part = 0.f;
  for (int k = tid; k < width; k += threads) {
    const float value = n || frozen[k] ? s.x[k] : 0.f;
    x[k] = value;
    part += frozen[k] ? 0.f : value * value;
  }
  const double sums[3] = {data, before, (double)reg * (double)part};
  for (int term = 0; term < 3; ++term) {
    const double sum = block_sum(sums[term], s.terms);
    if (tid == 0) terms[3ll * row + term] = sum;
  }
}

#define SOLVE(name, T)                                                                                                 \
  extern "C" __global__ void __launch_bounds__(BOUNDS)                                                                 \
  name(const long long* indptr, long long origin, const int* indices, const float* weights, const float* targets,      \
       const int* rows, float* X, const T* Y, float scale, const float* gram_diagonal, const float* regularization,    \
       const float* spread, const unsigned char* frozen, long long width, long long steps, float tolerance,            \
       float relaxation, long long keep, long long lanes, long long groups, double* terms) {                           \
    solve<T>(indptr, origin, indices, weights, targets, rows, X, Y, scale, gram_diagonal, regularization, spread,      \
             frozen, (int)width, (int)steps, tolerance, relaxation, keep != 0, (int)lanes, (int)groups, terms);        \
  }

SOLVE(solve_rows, float)
SOLVE(solve_rows_half, uint16_t)
