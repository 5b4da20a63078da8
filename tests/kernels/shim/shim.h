// Runs CUDA C++ kernels on a CPU, for what they compute, not for how fast: force-included in front of the same .cu
// source that a GPU gets. Each thread of a block is a fiber that runs until a barrier or a warp's collective, so a block
// is run by one thread of the CPU, in an order that is chosen: a missing barrier changes a result under some order.
// Found: divergent barriers, lanes that are missing, shared memory that was never written (it starts as NaN) or is
// written beyond its end, addresses out of bounds (what fake CuPy allocates ends at a page that may not be touched),
// arguments of another type. Not found: what depends on memory order, on bank conflicts or on the real units.
#pragma once
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#define RECLI_SHIM 1
#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define SHARED(T, name) T* name = reinterpret_cast<T*>(shim::now.shared)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

namespace shim {
enum State { READY, AT_BARRIER, AT_COLLECTIVE, DONE };
using Collective = void (*)(void* const* of_lane, uint32_t mask);

struct Fiber {
  ucontext_t context;
  jmp_buf place;
  bool started;
  State state;
  dim3 index;
  unsigned number;
  uint32_t mask;
  Collective action;
  void* argument;
  const char* where;
};

struct Now {
  dim3 grid, block, block_index;
  char* shared = nullptr;
  size_t shared_bytes = 0;
  std::vector<Fiber> fibers;
  std::vector<char*> stacks;
  jmp_buf scheduler;
  Fiber* fiber = nullptr;
  int order = 0;
  uint64_t random = 1;
  void (*body)(void*) = nullptr;
  void* body_argument = nullptr;
  std::string error;
};
inline Now now;
constexpr size_t STACK = 128 << 10, SHARED_LIMIT = 227 << 10, PAGE = 4096;

inline uint64_t draw() {
  now.random ^= now.random << 13, now.random ^= now.random >> 7, now.random ^= now.random << 17;
  return now.random;
}

// setjmp after the first entry: no system call to keep the signal mask
inline void leave() {
  if (!_setjmp(now.fiber->place)) _longjmp(now.scheduler, 1);
}
inline void resume(Fiber& fiber) {
  now.fiber = &fiber;
  if (_setjmp(now.scheduler)) return;
  if (fiber.started) _longjmp(fiber.place, 1);
  fiber.started = true;
  setcontext(&fiber.context);
}
inline void entry() {
  now.body(now.body_argument);
  now.fiber->state = DONE;
  leave();
  abort();
}
inline void barrier(const char* where) {
  now.fiber->state = AT_BARRIER, now.fiber->where = where;
  leave();
}
inline void collective(uint32_t mask, Collective action, void* argument, const char* where) {
  Fiber* me = now.fiber;
  if (!(mask >> (me->number & 31) & 1)) now.error = std::string(where) + ": the calling lane is not in the mask";
  me->state = AT_COLLECTIVE, me->mask = mask, me->action = action, me->argument = argument, me->where = where;
  leave();
}

// Lets go every group of lanes of a warp that have all arrived at the same collective.
inline void release(unsigned first) {
  const unsigned threads = now.fibers.size();
  for (unsigned lane = 0; lane < 32 && first + lane < threads; ++lane) {
    Fiber& one = now.fibers[first + lane];
    if (one.state != AT_COLLECTIVE) continue;
    const uint32_t there = threads - first >= 32 ? ~0u : (1u << (threads - first)) - 1, mask = one.mask & there;
    bool complete = true;
    void* arguments[32] = {};
    for (unsigned k = 0; k < 32 && complete; ++k)
      if (mask >> k & 1) {
        Fiber& other = now.fibers[first + k];
        complete = other.state == AT_COLLECTIVE && other.mask == one.mask && other.action == one.action;
        arguments[k] = other.argument;
      }
    if (!complete) continue;
    if (one.action) one.action(arguments, mask);
    for (unsigned k = 0; k < 32; ++k)
      if (mask >> k & 1) now.fibers[first + k].state = READY;
  }
}

inline jmp_buf fault;
inline void on_fault(int) { _longjmp(fault, 1); }
struct Guard {  // against faults, while a kernel runs: Python's own handlers come back behind it
  struct sigaction segv, bus;
  Guard() {
    static stack_t stack = [] {
      stack_t made{};
      made.ss_size = 64 << 10, made.ss_sp = malloc(made.ss_size);
      return made;
    }();
    sigaltstack(&stack, nullptr);
    struct sigaction action {};
    action.sa_handler = on_fault, action.sa_flags = SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &action, &segv), sigaction(SIGBUS, &action, &bus);
  }
  ~Guard() { sigaction(SIGSEGV, &segv, nullptr), sigaction(SIGBUS, &bus, nullptr); }
};

inline void run_block() {
  const unsigned threads = now.block.x, warps = (threads + 31) / 32;
  now.fibers.resize(threads);
  while (now.stacks.size() < threads)
    now.stacks.push_back((char*)mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = now.fibers[i];
    fiber.started = false, fiber.state = READY, fiber.number = i, fiber.where = nullptr;
    fiber.index = {i, 0, 0};
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = now.stacks[i], fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, entry, 0);
  }
  memset(now.shared, 0xFF, now.shared_bytes);         // NaN, or -1
  memset(now.shared + now.shared_bytes, 0xA5, PAGE);  // that nobody may write
  auto can_run = [&](unsigned warp) {
    for (unsigned i = warp * 32; i < threads && i < warp * 32 + 32; ++i)
      if (now.fibers[i].state == READY) return true;
    return false;
  };
  // A warp runs until it can go no further, the lowest first (order 0), the highest first (1), or warps and lanes drawn
  // for turns of random length (2): so one warp gets as far ahead of the others as barriers let it.
  unsigned turns = 0, picked = 0, lanes[32];
  for (;;) {
    unsigned warp = warps;
    if (now.order == 2 && turns && can_run(picked)) {
      --turns, warp = picked;
    } else {
      const unsigned start = now.order == 2 ? draw() % warps : 0;
      for (unsigned i = 0; i < warps && warp == warps; ++i) {
        const unsigned candidate = now.order == 1 ? warps - 1 - i : (start + i) % warps;
        if (can_run(candidate)) warp = picked = candidate, turns = draw() % 64;
      }
    }
    if (warp < warps) {
      for (unsigned i = 0; i < 32; ++i) lanes[i] = now.order == 1 ? 31 - i : i;
      if (now.order == 2)
        for (unsigned i = 32; i > 1; --i) std::swap(lanes[i - 1], lanes[draw() % i]);
      for (unsigned lane : lanes)
        if (warp * 32 + lane < threads && now.fibers[warp * 32 + lane].state == READY) {
          resume(now.fibers[warp * 32 + lane]);
          if (!now.error.empty()) return;
        }
      release(warp * 32);
      continue;
    }
    unsigned done = 0, waiting = 0;
    for (auto& fiber : now.fibers) done += fiber.state == DONE, waiting += fiber.state == AT_BARRIER;
    if (done == threads) break;
    const char* where = nullptr;
    bool together = done + waiting == threads && done == 0;  // a thread that is gone is one that a barrier waits for
    for (auto& fiber : now.fibers)
      if (fiber.state == AT_BARRIER) together = together && (!where || where == fiber.where), where = fiber.where;
    if (together) {
      for (auto& fiber : now.fibers) fiber.state = READY;
      continue;
    }
    now.error = "deadlock (a divergent barrier or a missing lane):";
    for (auto& fiber : now.fibers)
      if (fiber.state != DONE && now.error.size() < 200)
        now.error += " " + std::to_string(fiber.number) + "@" + (fiber.where ? fiber.where : "?");
    return;
  }
  for (size_t i = 0; i < PAGE; ++i)
    if ((unsigned char)now.shared[now.shared_bytes + i] != 0xA5) {
      now.error = "shared memory is written beyond its " + std::to_string(now.shared_bytes) + " bytes";
      return;
    }
}

inline const char* launch(dim3 grid, dim3 block, size_t shared, int order, uint64_t seed, void (*body)(void*),
                          void* argument) {
  now.error.clear();
  if (!block.x || block.x > 1024 || block.y != 1 || block.z != 1) return "invalid block";
  if (!grid.x || !grid.y || !grid.z || grid.x > 0x7FFFFFFF || grid.y > 65535 || grid.z > 65535) return "invalid grid";
  if (shared > SHARED_LIMIT) return "more than 227 KiB of shared memory";
  now.grid = grid, now.block = block, now.order = order, now.random = seed * 2 + 1;
  now.body = body, now.body_argument = argument, now.shared_bytes = shared;
  static char* pool = (char*)mmap(nullptr, SHARED_LIMIT + 2 * PAGE, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  now.shared = pool;
  Guard guard;
  const uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
  for (volatile uint64_t turn = 0; turn < blocks; turn = turn + 1) {
    const uint64_t block_number = order == 1 ? blocks - 1 - turn : turn;
    now.block_index = {unsigned(block_number % grid.x), unsigned(block_number / grid.x % grid.y),
                       unsigned(block_number / grid.x / grid.y)};
    if (_setjmp(fault))
      now.error = "invalid address in thread " + std::to_string(now.fiber ? now.fiber->number : 0);
    else
      run_block();
    if (!now.error.empty()) {
      now.error += " [block " + std::to_string(turn) + "]";
      return now.error.c_str();
    }
  }
  return nullptr;
}

// Arguments as cuLaunchKernel takes them, an array of pointers to values; and what a kernel's are, for a check.
template <class T>
std::string type_name() {
  if constexpr (std::is_pointer_v<T>)
    return "*" + type_name<std::remove_cv_t<std::remove_pointer_t<T>>>();
  else
    return (std::is_floating_point_v<T> ? "f" : std::is_signed_v<T> ? "i" : "u") + std::to_string(sizeof(T));
}
template <class... A>
struct Bound {
  void (*kernel)(A...);
  void** arguments;
};
template <class... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_cv_t<A>*>(arguments[I])...);
}
template <class... A>
const char* launch_kernel(void (*kernel)(A...), const unsigned* grid, const unsigned* block, size_t shared, int order,
                          uint64_t seed, void** arguments) {
  Bound<A...> bound{kernel, arguments};
  return launch({grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared, order, seed, [](void* of) {
    auto* it = static_cast<Bound<A...>*>(of);
    call(it->kernel, it->arguments, std::index_sequence_for<A...>{});
  }, &bound);
}
template <class... A>
const char* signature(void (*)(A...)) {
  static std::string names;
  names.clear();
  ((names += type_name<A>() + ","), ...);
  return names.c_str();
}

// `bytes` (rounded up to 16) that end at a page which may not be touched, as the one before them.
extern "C" __attribute__((used)) inline void* shim_allocate(size_t bytes) {
  const size_t body = (bytes + PAGE - 1) / PAGE * PAGE;
  char* at = (char*)mmap(nullptr, body + 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mprotect(at, PAGE, PROT_NONE), mprotect(at + PAGE + body, PAGE, PROT_NONE);
  return at + PAGE + body - (bytes + 15) / 16 * 16;
}
extern "C" __attribute__((used)) inline void shim_free(void* at, size_t bytes) {
  const size_t body = (bytes + PAGE - 1) / PAGE * PAGE;
  munmap((char*)at + (bytes + 15) / 16 * 16 - body - PAGE, body + 2 * PAGE);
}
}  // namespace shim

#define SHIM_EXPORT(kernel)                                                                                       \
  extern "C" const char* shim_launch_##kernel(const unsigned* grid, const unsigned* block, size_t shared, int order, \
                                              uint64_t seed, void** arguments) {                                   \
    return shim::launch_kernel(kernel, grid, block, shared, order, seed, arguments);                               \
  }                                                                                                                \
  extern "C" const char* shim_signature_##kernel() { return shim::signature(kernel); }

#define threadIdx (shim::now.fiber->index)
#define blockIdx (shim::now.block_index)
#define blockDim (shim::now.block)
#define gridDim (shim::now.grid)
#define SHIM_TEXT_(x) #x
#define SHIM_TEXT(x) SHIM_TEXT_(x)
#define __syncthreads() shim::barrier("line " SHIM_TEXT(__LINE__))

// ---- what a warp does together ----
inline void __syncwarp(uint32_t mask = ~0u) { shim::collective(mask, nullptr, nullptr, "syncwarp"); }
template <class T>
struct Shuffled {
  T in, out;
  int from;
};
template <class T>
T shim_shuffle(uint32_t mask, T value, int from) {
  Shuffled<T> mine{value, value, from};
  shim::collective(mask, [](void* const* lanes, uint32_t) {
    for (int lane = 0; lane < 32; ++lane)
      if (auto* to = (Shuffled<T>*)lanes[lane]) {
        if (auto* source = (Shuffled<T>*)lanes[to->from & 31])
          to->out = source->in;
        else
          memset(&to->out, 0xFF, sizeof(T));  // a lane that takes no part has nothing to give
      }
  }, &mine, "shuffle");
  return mine.out;
}
inline int shim_lane() { return shim::now.fiber->number & 31; }
template <class T>
T __shfl_sync(uint32_t mask, T value, int from) {
  return shim_shuffle(mask, value, from);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int across) {
  return shim_shuffle(mask, value, shim_lane() ^ across);
}
inline uint32_t __ballot_sync(uint32_t mask, int vote) {
  struct Vote {
    int vote;
    uint32_t all;
  } mine{vote != 0, 0};
  shim::collective(mask, [](void* const* lanes, uint32_t) {
    uint32_t all = 0;
    for (int lane = 0; lane < 32; ++lane)
      if (lanes[lane] && ((Vote*)lanes[lane])->vote) all |= 1u << lane;
    for (int lane = 0; lane < 32; ++lane)
      if (lanes[lane]) ((Vote*)lanes[lane])->all = all;
  }, &mine, "ballot");
  return mine.all;
}
inline int __any_sync(uint32_t mask, int vote) { return __ballot_sync(mask, vote) != 0; }

// ---- what a thread does ----
inline int __popc(uint32_t x) { return __builtin_popcount(x); }
inline int __ffs(uint32_t x) { return __builtin_ffs(x); }
inline float __uint_as_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
inline uint32_t __float_as_uint(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}
inline int __float_as_int(float value) { return (int)__float_as_uint(value); }
using std::max;
using std::min;
template <class T>  // a fiber is not interrupted, so what it does is atomic
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at = before + value;
  return before;
}
inline uint32_t atomicOr(uint32_t* at, uint32_t value) {
  const uint32_t before = *at;
  *at = before | value;
  return before;
}

struct Fragments {
  const uint32_t *a, *b;
  float* c;
};
// ---- the meaning of the primitives in prims.cuh ----
inline float to_float(uint16_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31, mantissa = bits & 0x3FF;
  if (exponent == 31) return __uint_as_float(sign | 0x7F800000u | mantissa << 13);
  const float size = exponent ? std::ldexp(1.f + mantissa / 1024.f, (int)exponent - 15) : std::ldexp((float)mantissa, -24);
  return sign ? -size : size;
}
inline uint16_t to_half(float value) {  // to nearest, ties to even
  const uint32_t bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u;
  const float size = std::fabs(value);
  if (size != size) return 0x7FFF;
  if (size >= 65520.f) return sign | 0x7C00;
  if (size < 6.103515625e-05f) return sign | (uint16_t)std::nearbyint(std::ldexp(size, 24));
  uint32_t whole = bits & 0x7FFFFFFFu;
  whole += 0xFFF + (whole >> 13 & 1);
  return sign | (uint16_t)((whole >> 13) - (112 << 10));
}
#ifndef TURING  // which prims.cuh brings its own for
inline uint32_t to_tf32(float value) {  // to nearest, ties away from zero
  const uint32_t bits = __float_as_uint(value);
  return (bits & 0x7F800000u) == 0x7F800000u ? bits : (bits + 0x1000u) & 0xFFFFE000u;
}
// The layouts of PTX ISA's mma.m16n8k8 (tf32) and mma.m16n8k16 (float16): g = lane / 4, t = lane mod 4.
inline void mma_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  Fragments mine{a, b, c};
  shim::collective(~0u, [](void* const* lanes, uint32_t) {
    float A[16][8], B[8][8];
    for (int lane = 0; lane < 32; ++lane) {
      auto* of = (Fragments*)lanes[lane];
      const int g = lane >> 2, t = lane & 3;
      for (int i = 0; i < 4; ++i) A[g + (i & 1) * 8][t + (i >> 1) * 4] = __uint_as_float(of->a[i] & 0xFFFFE000u);
      for (int i = 0; i < 2; ++i) B[t + i * 4][g] = __uint_as_float(of->b[i] & 0xFFFFE000u);
    }
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        float& sum = ((Fragments*)lanes[lane])->c[i];
        for (int k = 0; k < 8; ++k) sum += A[(lane >> 2) + (i >> 1) * 8][k] * B[k][(lane & 3) * 2 + (i & 1)];
      }
  }, &mine, "mma tf32");
}
#endif
inline void mma_half(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  Fragments mine{a, b, c};
  shim::collective(~0u, [](void* const* lanes, uint32_t) {
    float A[16][16], B[16][8];
    for (int lane = 0; lane < 32; ++lane) {
      auto* of = (Fragments*)lanes[lane];
      const int g = lane >> 2, t = lane & 3;
      for (int i = 0; i < 4; ++i)
        for (int half = 0; half < 2; ++half)
          A[g + (i & 1) * 8][t * 2 + half + (i >> 1) * 8] = to_float(of->a[i] >> (16 * half) & 0xFFFF);
      for (int i = 0; i < 2; ++i)
        for (int half = 0; half < 2; ++half) B[t * 2 + half + i * 8][g] = to_float(of->b[i] >> (16 * half) & 0xFFFF);
    }
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        float& sum = ((Fragments*)lanes[lane])->c[i];
        for (int k = 0; k < 16; ++k) sum += A[(lane >> 2) + (i >> 1) * 8][k] * B[k][(lane & 3) * 2 + (i & 1)];
      }
  }, &mine, "mma half");
}
