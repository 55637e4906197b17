// Runs the CUDA launchers of one operation on the host. Parameters on the command line, tensors as raw bytes on
// standard input, results as raw bytes on standard output. Every buffer has its exact size, so that the address
// sanitizer sees each step outside.
#include <sys/mman.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "kernels/clip_weights.h"
#include "kernels/gradient_norm_penalty.h"
#include "kernels/interpolate.h"
#include "kernels/piecewise_linear.h"
#include "kernels/rmsprop.h"
#include "kernels/tensor_list.cuh"

using namespace wgan_fast;

template <class T>
class Buffer {
 public:
  // `offset` elements past a 16-byte boundary; poisoned, until something is written.
  explicit Buffer(int64_t count, int64_t offset = 0)
      : count_(count), offset_(offset), memory_(static_cast<T*>(std::malloc((count + offset) * sizeof(T)))) {
    std::memset(static_cast<void*>(memory_), 0xff, (count + offset) * sizeof(T));
  }
  ~Buffer() { std::free(memory_); }
  Buffer(Buffer&& other)
      : count_(other.count_), offset_(other.offset_), memory_(std::exchange(other.memory_, nullptr)) {}

  T* data() { return memory_ + offset_; }
  Buffer&& read() {
    if (std::fread(data(), sizeof(T), count_, stdin) != static_cast<size_t>(count_)) std::exit(3);
    return std::move(*this);
  }
  void write() { std::fwrite(data(), sizeof(T), count_, stdout); }

 private:
  int64_t count_, offset_;
  T* memory_;
};

template <class T>
void run_interpolate(char** arguments) {
  const int64_t rows = std::atoll(arguments[0]), length = std::atoll(arguments[1]), offset = std::atoll(arguments[2]);
  auto real = Buffer<T>(rows * length, offset).read();
  auto fake = Buffer<T>(rows * length, offset).read();
  auto t = Buffer<Accumulate<T>>(rows).read();
  Buffer<T> out(rows * length, offset);
  interpolate_cuda<T>(real.data(), fake.data(), t.data(), out.data(), rows, length, nullptr);
  out.write();
}

template <class T>
void run_gradient_norm_penalty(char** arguments) {
  const int64_t rows = std::atoll(arguments[0]), length = std::atoll(arguments[1]), offset = std::atoll(arguments[2]);
  const NormPenalty formula{std::atof(arguments[3]), std::atof(arguments[4]), std::atof(arguments[5]),
                            std::atoi(arguments[6]) != 0};
  auto gradient = Buffer<T>(rows * length, offset).read();
  auto grad_penalty = Buffer<Accumulate<T>>(1).read();
  const Segments segments = segments_cuda(rows, length);
  Buffer<Accumulate<T>> workspace(workspace_size_cuda(segments)), norms(rows), penalty(1);
  Buffer<T> out(rows * length, offset);
  gradient_norm_penalty_cuda<T>(gradient.data(), workspace.data(), norms.data(), penalty.data(), segments, formula,
                                nullptr);
  gradient_norm_penalty_backward_cuda<T>(grad_penalty.data(), gradient.data(), norms.data(), out.data(), rows, length,
                                         formula, nullptr);
  penalty.write();
  norms.write();
  out.write();
}

// For each count: piecewise_linear out of place, apply_mask, then piecewise_linear in place.
template <class T>
void run_piecewise_linear(char** arguments, int count) {
  const int64_t in_offset = std::atoll(arguments[0]), out_offset = std::atoll(arguments[1]);
  const int64_t mask_offset = std::atoll(arguments[2]);
  const PiecewiseLinear<Accumulate<T>> formula{static_cast<Accumulate<T>>(std::atof(arguments[3])),
                                               static_cast<Accumulate<T>>(std::atof(arguments[4])),
                                               static_cast<Accumulate<T>>(std::atof(arguments[5]))};
  for (int next = 6; next < count; ++next) {
    const int64_t size = std::atoll(arguments[next]);
    auto x = Buffer<T>(size, in_offset).read();
    auto grad = Buffer<T>(size, in_offset).read();
    Buffer<T> y(size, out_offset), masked(size, out_offset);
    Buffer<uint8_t> mask(mask_bytes(size), mask_offset), mask_in_place(mask_bytes(size));
    piecewise_linear_cuda<T>(x.data(), y.data(), mask.data(), formula, size, nullptr);
    apply_mask_cuda<T>(grad.data(), mask.data(), masked.data(), formula.negative_slope, size, nullptr);
    piecewise_linear_cuda<T>(x.data(), x.data(), mask_in_place.data(), formula, size, nullptr);
    y.write();
    mask.write();
    masked.write();
    x.write();
    mask_in_place.write();
  }
}

// Each tensor: its type, offset in bytes, bytes of memory, number of elements, dimensions, sizes and strides.
void run_clip_weights(char** arguments, int count) {
  const double bound = std::atof(arguments[0]);
  std::vector<Buffer<char>> buffers;
  std::vector<Weights> list;
  for (int next = 1; next < count;) {
    const auto number = [&] { return std::atoll(arguments[next++]); };
    Weights weights{};
    weights.dtype = static_cast<Dtype>(number());
    const int64_t offset = number(), bytes = number();
    weights.numel = number();
    weights.layout.dims = static_cast<int>(number());
    for (int d = 0; d < weights.layout.dims; ++d) weights.layout.size[d] = number();
    for (int d = 0; d < weights.layout.dims; ++d) weights.layout.stride[d] = number();
    buffers.push_back(Buffer<char>(bytes, offset).read());
    weights.data = buffers.back().data();
    list.push_back(weights);
  }
  clip_weights_cuda(list.data(), static_cast<int64_t>(list.size()), bound, nullptr);
  for (auto& buffer : buffers) buffer.write();
}

// The numbers of the step, three of them as on a device; then each parameter: its type, the offsets of its three arrays
// in elements, its number of elements. The gradients are written too: they must be what they were.
void run_rmsprop(char** arguments, int count) {
  auto learning_rate = Buffer<double>(1).read();
  auto grad_scale = Buffer<float>(1).read(), found_inf = Buffer<float>(1).read();
  const RmspropStep step{{0, learning_rate.data(), true}, {0, grad_scale.data(), false}, {0, found_inf.data(), false},
                         std::atof(arguments[0]),         std::atof(arguments[1]),       std::atof(arguments[2]),
                         std::atof(arguments[3]),         std::atoi(arguments[4]) != 0};
  std::vector<Buffer<char>> buffers;
  std::vector<Parameter> list;
  for (int next = 5; next < count;) {
    const auto number = [&] { return std::atoll(arguments[next++]); };
    Parameter parameter{};
    parameter.dtype = static_cast<Dtype>(number());
    const int64_t offsets[] = {number(), number(), number()};
    parameter.numel = number();
    dispatch_dtype(parameter.dtype, [&](auto element) {
      constexpr int64_t size = sizeof(element);
      for (const int64_t offset : offsets) {
        buffers.push_back(Buffer<char>(parameter.numel * size, offset * size).read());
      }
    });
    void* arrays[3];
    for (int k = 0; k < 3; ++k) arrays[k] = buffers[buffers.size() - 3 + k].data();
    parameter.weight = arrays[0];
    parameter.gradient = arrays[1];
    parameter.square_average = arrays[2];
    list.push_back(parameter);
  }
  rmsprop_cuda(list.data(), static_cast<int64_t>(list.size()), step, nullptr);
  for (auto& buffer : buffers) buffer.write();
}

// The name of the policy that the host chooses, without touching memory.
template <class Vectors>
std::string name(const Vectors&) {
  using Index = typename Vectors::Index;
  return (sizeof(Index) == 4 ? "whole " : "any ") + std::to_string(Vectors::WIDTH);
}

template <class T>
void print_policies(char** arguments) {
  const bool aligned = std::atoi(arguments[0]) != 0;
  const int64_t rows = std::atoll(arguments[1]), length = std::atoll(arguments[2]);
  with_rows<T>(aligned, rows, length, [](auto walk) { std::puts(name(walk).c_str()); });
  with_masked_vectors<T>(aligned, rows * length, [](auto walk) { std::puts(name(walk).c_str()); });
}

// The first pair of a number and a divisor whose quotient is wrong, among those close to where one may be.
void check_quotients() {
  std::vector<uint32_t> numbers;
  for (int bit = 0; bit <= 31; ++bit) {
    for (int64_t near = -3; near <= 3; ++near) {
      const int64_t number = (int64_t{1} << bit) + near;
      if (number > 0 && number < int64_t{1} << 31) numbers.push_back(static_cast<uint32_t>(number));
    }
  }
  for (uint32_t i = 0; i < 500; ++i) numbers.push_back(i * 2654435761u >> 1 | 1u);
  for (const uint32_t divisor : numbers) {
    const Divisor fast(divisor);
    for (const uint32_t number : numbers) {
      for (const uint32_t close : {number, number / divisor * divisor, number / divisor * divisor - 1}) {
        if (close >> 31 == 0 && fast.quotient(close) != close / divisor) {
          std::printf("%u / %u\n", close, divisor);
          return;
        }
      }
    }
  }
}

// An array of zeros that takes memory where it is written alone.
template <class T>
class Sparse {
 public:
  explicit Sparse(int64_t count) : bytes_(static_cast<size_t>(count) * sizeof(T)) {
    memory_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory_ == MAP_FAILED) std::exit(77);
  }
  ~Sparse() { munmap(memory_, bytes_); }
  Sparse(const Sparse&) = delete;
  T* data() { return static_cast<T*>(memory_); }

 private:
  size_t bytes_;
  void* memory_;
};

void expect(const char* what, double value, double wanted) {
  if (!(std::abs(value - wanted) <= 1e-2)) std::printf("%s: %g instead of %g\n", what, value, wanted);
}

// Of arrays of more than 2^32 elements the block runs that has the last ones.
void run_far(char** arguments) {
  using T = BFloat16;
  const int64_t rows = std::atoll(arguments[0]), length = std::atoll(arguments[1]), offset = std::atoll(arguments[2]);
  const int64_t count = rows * length, last = count - 1;
  Sparse<T> x(count + offset), y(count + offset), z(count + offset);
  Sparse<uint8_t> mask(mask_bytes(count));
  Sparse<float> of_row(rows), sums(rows);
  T *a = x.data() + offset, *b = y.data() + offset, *c = z.data() + offset;
  const auto run_last_block_of = [](const auto& walk) {
    cuda_on_host::only_block = (int64_t{walk.vectors} - 1) / TILE<std::decay_t<decltype(walk)>> % MAX_BLOCKS;
  };

  a[last] = narrow<T>(3.0f);
  b[last] = narrow<T>(5.0f);
  of_row.data()[rows - 1] = 0.25f;
  with_rows<T>(offset == 0, rows, length, run_last_block_of);
  interpolate_cuda<T>(a, b, of_row.data(), c, rows, length, nullptr);
  expect("interpolate", widen(c[last]), 3.5);

  float one = 1, penalty = 0;
  of_row.data()[rows - 1] = 2;
  const NormPenalty formula{static_cast<double>(rows), 1, 2, false};
  gradient_norm_penalty_backward_cuda<T>(&one, a, of_row.data(), c, rows, length, formula, nullptr);
  expect("gradient_norm_penalty_backward", widen(c[last]), 3);

  with_masked_vectors<T>(offset == 0, count, run_last_block_of);
  piecewise_linear_cuda<T>(a, c, mask.data(), {0.5f, 4, NAN}, count, nullptr);
  expect("piecewise_linear", widen(c[last]), 3.5);
  piecewise_linear_cuda<T>(b, c, mask.data(), {0.5f, 4, NAN}, count, nullptr);
  expect("mask", mask.data()[last / 8] >> last % 8, 1);
  mask.data()[last / 8] = 0;
  apply_mask_cuda<T>(a, mask.data(), c, 0.5f, count, nullptr);
  expect("apply_mask", widen(c[last]), 1.5);

  // Blocks take turns with the rows, and with the chunks of a list.
  const Segments segments = segments_cuda(rows, length);
  std::vector<float> workspace(workspace_size_cuda(segments));
  cuda_on_host::only_block = (rows - 1) % static_cast<int64_t>(workspace.size());
  gradient_norm_penalty_cuda<T>(a, workspace.data(), sums.data(), &penalty, segments, formula, nullptr);
  expect("norm", sums.data()[rows - 1], 3);

  constexpr int64_t CHUNK = MAX_TILES;  // of every long list
  cuda_on_host::only_block = last / (CHUNK * BLOCK * UNROLL * FULL_WIDTH<T>) % MAX_BLOCKS;
  const Weights weights{a, count, Scalar<T>::dtype, Layout{1, {count}, {1}}};
  clip_weights_cuda(&weights, 1, 2, nullptr);
  expect("clip_weights", widen(a[last]), 2);

  c[last] = narrow<T>(0.0f);
  cuda_on_host::only_block = last / (CHUNK * BLOCK * 2 * FULL_WIDTH<T>) % MAX_BLOCKS;
  const RmspropStep step{{0.5, nullptr, false}, {1, nullptr, false}, {0, nullptr, false}, 0.75, 0, 0, INFINITY, false};
  const Parameter parameter{a, b, c, count, Scalar<T>::dtype};
  rmsprop_cuda(&parameter, 1, step, nullptr);
  expect("rmsprop", widen(a[last]), 1);
  expect("square_average", widen(c[last]), 6.25);
}

template <class T>
void run(const std::string& operation, char** arguments, int count) {
  if (operation == "piecewise_linear") return run_piecewise_linear<T>(arguments, count);
  if (operation == "interpolate") return run_interpolate<T>(arguments);
  if (operation == "policies") return print_policies<T>(arguments);
  if (operation == "gradient_norm_penalty") return run_gradient_norm_penalty<T>(arguments);
  std::exit(2);
}

int main(int argc, char** argv) {
  const std::string operation = argc > 2 ? argv[1] : "";
  if (operation == "clip_weights") {
    run_clip_weights(argv + 2, argc - 2);
    return 0;
  }
  if (operation == "rmsprop") {
    run_rmsprop(argv + 2, argc - 2);
    return 0;
  }
  if (operation == "quotients") {
    check_quotients();
    return 0;
  }
  if (operation == "far") {
    run_far(argv + 2);
    return 0;
  }
  const std::string dtype = argc > 2 ? argv[2] : "";
  if (dtype == "float16") run<Half>(operation, argv + 3, argc - 3);
  if (dtype == "bfloat16") run<BFloat16>(operation, argv + 3, argc - 3);
  if (dtype == "float32") run<float>(operation, argv + 3, argc - 3);
  if (dtype == "float64") run<double>(operation, argv + 3, argc - 3);
}
