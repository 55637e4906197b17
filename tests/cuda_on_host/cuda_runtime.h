// Stands in for the CUDA runtime, so that a C++ compiler builds csrc/kernels/*.cu for the CPU and its sanitizers watch
// them run. Blocks run one after the other; the threads of a block are real threads that meet at barriers, shared
// memory is static storage, and a shuffle exchanges values through one slot per thread. Small and slow: it is a test.
// With CUDA_ON_HOST_FIBERS the threads of a block are fibers.
#pragma once

#include <algorithm>
#include <barrier>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

using cudaStream_t = struct CUstream_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9 };

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

// The stand-in of tests/cuda_stand_in/ puts a launch in order with other work, and into a graph under capture. Without
// it kernels run at once.
extern "C" __attribute__((weak)) cudaError_t cuda_stand_in_launch(const cudaLaunchConfig_t* config, const void* kernel,
                                                                  const void* arguments, size_t bytes,
                                                                  const std::function<void()>* run);

#ifdef CUDA_ON_HOST_FIBERS
extern "C" const char* cudaGetErrorString(cudaError_t error);  // the stand-in's
inline dim3 threadIdx, blockIdx, blockDim, gridDim;
#include "fibers.h"
#else
inline const char* cudaGetErrorString(cudaError_t) { return "invalid configuration argument"; }
inline thread_local dim3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace cuda_on_host {

using Barrier = std::barrier<>;

// They stay for the next launch: under a sanitizer, starting a thread takes longer than most kernels.
class Threads {
 public:
  explicit Threads(unsigned count) : start_(count + 1), end_(count + 1) {
    for (unsigned i = 0; i < count; ++i) {
      threads_.emplace_back([this, i] {
        threadIdx.x = i;
        for (start_.arrive_and_wait(); work_; start_.arrive_and_wait()) {
          work_();
          end_.arrive_and_wait();
        }
      });
    }
  }
  ~Threads() {
    work_ = nullptr;
    start_.arrive_and_wait();
    for (auto& thread : threads_) thread.join();
  }

  unsigned count() const { return static_cast<unsigned>(threads_.size()); }
  void run(std::function<void()> work) {
    work_ = std::move(work);
    start_.arrive_and_wait();
    end_.arrive_and_wait();
  }

 private:
  std::barrier<> start_, end_;
  std::function<void()> work_;
  std::vector<std::thread> threads_;
};

}  // namespace cuda_on_host
#endif

namespace cuda_on_host {

constexpr unsigned WARP = 32;

struct Block {
  explicit Block(unsigned threads) : threads(threads), finished(threads), syncthreads(threads), slots(threads) {
    for (unsigned warp = 0; warp < threads / WARP; ++warp) warps.emplace_back(new Barrier(WARP));
  }
  ~Block() {
    for (auto* warp : warps) delete warp;
  }

  unsigned threads;
  Barrier finished;     // the whole block, before the next one begins
  Barrier syncthreads;  // another one: a thread that left early must not pass for one that waits
  std::vector<Barrier*> warps;
  struct Slot {
    alignas(16) std::byte bytes[16];
  };
  std::vector<Slot> slots;
};

inline Block* block = nullptr;

// Where it is not negative, a launch runs one block alone: this one, or the last of a smaller grid.
inline int64_t only_block = -1;

inline Threads& threads(unsigned count) {
  static Threads threads(count);
  return threads;
}

}  // namespace cuda_on_host

inline void __syncthreads() { cuda_on_host::block->syncthreads.arrive_and_wait(); }

template <class T>
T __shfl_xor_sync(unsigned /*mask: all take part*/, T value, int lane_mask) {
  static_assert(sizeof(T) <= 16);
  auto* block = cuda_on_host::block;
  auto& warp = *block->warps[threadIdx.x / cuda_on_host::WARP];
  std::memcpy(block->slots[threadIdx.x].bytes, &value, sizeof value);
  warp.arrive_and_wait();
  std::memcpy(&value, block->slots[threadIdx.x ^ static_cast<unsigned>(lane_mask)].bytes, sizeof value);
  warp.arrive_and_wait();
  return value;
}

namespace cuda_on_host {

template <class... Parameters>
void run(const cudaLaunchConfig_t& config, void (*kernel)(Parameters...), const std::tuple<Parameters...>& arguments) {
  blockDim = config.blockDim;
  gridDim = config.gridDim;
  Block this_block(blockDim.x);
  block = &this_block;
  threads(blockDim.x).run([&] {
    const auto last = static_cast<int64_t>(gridDim.x) - 1;
    const int64_t first = only_block < 0 ? 0 : std::min(only_block, last);
    for (int64_t b = first; b <= (only_block < 0 ? last : first); ++b) {
      blockIdx.x = static_cast<unsigned>(b);
      std::apply(kernel, arguments);
      this_block.finished.arrive_and_wait();
    }
  });
}

}  // namespace cuda_on_host

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const bool whole_warps = config->blockDim.x % cuda_on_host::WARP == 0;
  if (config->gridDim.x == 0 || !whole_warps ||
      config->blockDim.x != cuda_on_host::threads(config->blockDim.x).count()) {
    return cudaErrorInvalidConfiguration;
  }
  std::tuple<Parameters...> values(std::forward<Arguments>(arguments)...);
  __builtin_clear_padding(&values);  // what the stack held before may look like an address to the stand-in
  if (!cuda_stand_in_launch) {
    cuda_on_host::run(*config, kernel, values);
    return cudaSuccess;
  }
  const std::function<void()> run = [config = *config, kernel, values] { cuda_on_host::run(config, kernel, values); };
  return cuda_stand_in_launch(config, reinterpret_cast<const void*>(kernel), &values, sizeof values, &run);
}
