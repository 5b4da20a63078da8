// Rows of tables: rounded, fetched by number, added, and stepped by an optimiser. A thread an
// entry; neighbouring threads have neighbouring columns.

__device__ __forceinline__ long long thread_number() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }

// halves [size] = the bits of float16 of scale times rows [size].
extern "C" __global__ void __launch_bounds__(256)
round_rows(const float* rows, float scale, uint16_t* halves, long long size) {
  const long long at = thread_number();
  if (at < size) halves[at] = to_half(rows[at] * scale);
}

// Parts of the sums of weight times a row's squares over n rows, block by block: sums [gridDim.x, width].
extern "C" __global__ void __launch_bounds__(256)
add_squares(const float* rows, const float* weights, long long n, long long width, double* sums) {
  for (long long k = threadIdx.x; k < width; k += blockDim.x) {
    double sum = 0;
    for (long long row = blockIdx.x; row < n; row += gridDim.x) {
      const float value = rows[row * width + k];
      sum += (double)weights[row] * (double)value * (double)value;
    }
    sums[blockIdx.x * width + k] = sum;
  }
}

// taken [n, width] = rows[nums], and changes[changed_at] added; changes may be null, and -1 takes or adds nothing.
extern "C" __global__ void __launch_bounds__(256)
take(const float* rows, const long long* nums, const float* changes, const long long* changed_at, float* taken,
     long long n, long long width) {
  const long long at = thread_number();
  if (at >= n * width) return;
  const long long row = at / width, column = at % width;
  float value = nums[row] >= 0 ? rows[nums[row] * width + column] : 0.f;
  if (changes && changed_at[row] >= 0) value += changes[changed_at[row] * width + column];
  taken[at] = value;
}

// table [n, width] (IN/OUT) += scale times rows[nums].
extern "C" __global__ void __launch_bounds__(256)
add_rows(float* table, const float* rows, const long long* nums, float scale, long long n, long long width) {
  const long long at = thread_number();
  if (at >= n * width) return;
  const long long num = nums[at / width];
  if (num >= 0) table[at] += scale * rows[num * width + at % width];
}

struct Settings {  // of spec.Rule; first_scale, second_scale: 1 / (1 - beta^step)
  float rate, beta1, beta2, epsilon, decay, shrink, l2, first_scale, second_scale, scale;
};

// One step of rows nums (null: all) of parameter and its moments [any, width] (IN/OUT) against gradient [n, width].
// kind: 0 sgd, 1 sgd with momentum, 2 adagrad, 3 adam.
extern "C" __global__ void __launch_bounds__(256)
step(long long kind, const float* settings, float* parameter, float* first, float* second, const long long* nums,
     const float* gradient, long long n, long long width) {
  const long long at = thread_number();
  if (at >= n * width) return;
  const Settings s = *reinterpret_cast<const Settings*>(settings);
  const long long place = nums ? nums[at / width] * width + at % width : at;
  float p = parameter[place];
  const float g = s.scale * gradient[at] + s.l2 * p;
  p *= 1.f - s.rate * s.decay;
  if (kind == 3) {
    const float m1 = s.beta1 * first[place] + (1.f - s.beta1) * g;
    const float m2 = s.beta2 * second[place] + (1.f - s.beta2) * g * g;
    first[place] = m1;
    second[place] = m2;
    p -= s.rate * (m1 * s.first_scale) / (sqrtf(m2 * s.second_scale) + s.epsilon);
  } else if (kind == 2) {
    const float m1 = first[place] + g * g;
    first[place] = m1;
    p -= s.rate * g / (sqrtf(m1) + s.epsilon);
  } else if (kind == 1) {
    const float m1 = s.beta1 * first[place] + g;
    first[place] = m1;
    p -= s.rate * m1;
  } else {
    p -= s.rate * g;
  }
  if (s.shrink > 0.f) p = copysignf(fmaxf(fabsf(p) - s.shrink, 0.f), p);
  parameter[place] = p;
}
