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
#include "kernels/nonfinite.h"
#include "kernels/normalization.h"
#include "kernels/piecewise_linear.h"
#include "kernels/rmsprop.h"
#include "kernels/smooth_activation.h"
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

// For each count: the value, the product with each slope, the double backward's two results, and the value in place.
template <class T>
void run_smooth_activation(char** arguments, int count) {
  const int64_t in_offset = std::atoll(arguments[0]), out_offset = std::atoll(arguments[1]);
  const SmoothActivation f{static_cast<SmoothKind>(std::atoi(arguments[2])), std::atof(arguments[3]),
                           std::atof(arguments[4]), std::atof(arguments[5])};
  for (int next = 6; next < count; ++next) {
    const int64_t size = std::atoll(arguments[next]);
    auto x = Buffer<T>(size, in_offset).read();
    auto grad = Buffer<T>(size, in_offset).read();
    auto grad_grad = Buffer<T>(size, in_offset).read();
    std::vector<Buffer<T>> results;
    for (int i = 0; i < 3 + SMOOTH_ORDERS; ++i) results.emplace_back(size, out_offset);
    smooth_activation_cuda<T>(x.data(), results[0].data(), f, size, nullptr);
    for (int order = 0; order < SMOOTH_ORDERS; ++order) {
      smooth_activation_backward_cuda<T>(grad.data(), x.data(), results[1 + order].data(), f, order, size, nullptr);
    }
    smooth_activation_double_backward_cuda<T>(grad_grad.data(), grad.data(), x.data(),
                                              results[1 + SMOOTH_ORDERS].data(), results[2 + SMOOTH_ORDERS].data(), f,
                                              size, nullptr);
    smooth_activation_cuda<T>(x.data(), x.data(), f, size, nullptr);
    for (auto& result : results) result.write();
    x.write();
  }
}

// The value and both derivatives, from the statistics that the value leaves; the sums for the parameters in parts.
template <class T>
void run_normalization(char** arguments) {
  using A = Accumulate<T>;
  const auto number = [&](int i) { return std::atoll(arguments[i]); };
  const int64_t samples = number(0), offset = number(5);
  const Rows rows{number(1), number(2), number(3), number(4) != 0};
  const bool weighted = number(6) != 0;
  const double eps = std::atof(arguments[7]);
  const int64_t count = samples * rows.groups, size = count * rows.length(), parameters = rows.groups * rows.channels;
  auto x = Buffer<T>(size, offset).read();
  auto grad = Buffer<T>(size, offset).read();
  auto grad_grad = Buffer<T>(size, offset).read();
  auto weight = Buffer<T>(weighted ? parameters : 0, offset).read();
  auto bias = Buffer<T>(weighted ? parameters : 0, offset).read();
  const T *w = weighted ? weight.data() : nullptr, *b = weighted ? bias.data() : nullptr;
  Buffer<T> y(size, offset), grad_x(size, offset), grad_grad_out(size, offset), second_x(size, offset);
  Buffer<RowStatistics<A>> statistics(count);
  const int64_t sums = normalization_parts_cuda(rows, count) * rows.groups * rows.length();
  Buffer<A> of_weight(sums), of_bias(sums), second_weight(sums), means(2 * count);
  normalization_cuda<T>(x.data(), w, b, y.data(), statistics.data(), rows, eps, count, nullptr);
  normalization_backward_cuda<T>(grad.data(), x.data(), statistics.data(), w, grad_x.data(), of_weight.data(),
                                 of_bias.data(), rows, count, nullptr);
  normalization_double_backward_cuda<T>(grad_grad.data(), grad.data(), x.data(), statistics.data(), w,
                                        grad_grad_out.data(), second_x.data(), second_weight.data(), means.data(), rows,
                                        count, nullptr);
  for (auto* result : {&y, &grad_x, &grad_grad_out, &second_x}) result->write();
  statistics.write();
  for (auto* result : {&of_weight, &of_bias, &second_weight}) result->write();
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

// Each tensor: its type, offset in elements, number of elements.
void run_nonfinite(char** arguments, int count) {
  std::vector<Buffer<char>> buffers;
  std::vector<Numbers> list;
  for (int next = 0; next < count;) {
    const auto number = [&] { return std::atoll(arguments[next++]); };
    Numbers numbers{};
    numbers.dtype = static_cast<Dtype>(number());
    const int64_t offset = number();
    numbers.numel = number();
    dispatch_dtype(numbers.dtype, [&](auto element) {
      constexpr int64_t size = sizeof(element);
      buffers.push_back(Buffer<char>(numbers.numel * size, offset * size).read());
    });
    numbers.data = buffers.back().data();
    list.push_back(numbers);
  }
  Buffer<float> found(1);
  *found.data() = 0;
  nonfinite_cuda(list.data(), static_cast<int64_t>(list.size()), found.data(), nullptr);
  found.write();
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
  float found = 0;
  const Numbers numbers{b, count, Scalar<T>::dtype};
  nonfinite_cuda(&numbers, 1, &found, nullptr);
  expect("finite", found, 0);
  const T kept = std::exchange(b[last], narrow<T>(INFINITY));
  nonfinite_cuda(&numbers, 1, &found, nullptr);
  expect("nonfinite", found, 1);
  b[last] = kept;

  c[last] = narrow<T>(0.0f);
  cuda_on_host::only_block = last / (CHUNK * BLOCK * 2 * FULL_WIDTH<T>) % MAX_BLOCKS;
  const RmspropStep step{{0.5, nullptr, false}, {1, nullptr, false}, {0, nullptr, false}, 0.75, 0, 0, INFINITY, false};
  const Parameter parameter{a, b, c, count, Scalar<T>::dtype};
  rmsprop_cuda(&parameter, 1, step, nullptr);
  expect("rmsprop", widen(a[last]), 1);
  expect("square_average", widen(c[last]), 6.25);
}

// The last of several launches for more than 2^30 elements one by one, and the last of the rows.
void run_far_and_curved(char** arguments) {
  using T = BFloat16;
  const int64_t rows = std::atoll(arguments[0]), length = std::atoll(arguments[1]), offset = std::atoll(arguments[2]);
  const int64_t count = rows * length, last = count - 1, width = offset == 0 ? FULL_WIDTH<T> : 1;
  Sparse<T> x(count + offset), y(count + offset), z(count + offset), p(count + offset), q(count + offset);
  T *a = x.data() + offset, *b = y.data() + offset, *c = z.data() + offset;
  T *d = p.data() + offset, *e = q.data() + offset;
  a[last] = narrow<T>(3.0f);
  b[last] = narrow<T>(5.0f);
  c[last] = narrow<T>(7.0f);

  const auto run_last_block = [&](int64_t together) {
    const int64_t vectors = count / width % (int64_t{1} << 30);
    cuda_on_host::only_block = (vectors - 1) / (BLOCK * together) % MAX_BLOCKS;
  };
  const SmoothActivation softsign{SmoothKind::softsign, 0, 0, 0};
  run_last_block(2);
  smooth_activation_cuda<T>(a, d, softsign, count, nullptr);
  expect("smooth_activation", widen(d[last]), 0.75);
  run_last_block(width == 1 ? 2 : 1);
  smooth_activation_backward_cuda<T>(b, a, d, softsign, 0, count, nullptr);
  expect("smooth_activation_backward", widen(d[last]), 5. / 16);
  smooth_activation_double_backward_cuda<T>(c, b, a, d, e, softsign, count, nullptr);
  expect("smooth_activation_double_backward", widen(d[last]), 7. / 16);
  expect("smooth_activation_double_backward", widen(e[last]), -35. / 32);

  const Rows layer{1, length, 1, false};
  Sparse<RowStatistics<float>> statistics(rows);
  Sparse<float> means(2 * rows);
  const int64_t sums = normalization_parts_cuda(layer, rows) * length;
  Sparse<float> of_weight(sums), of_bias(sums);
  cuda_on_host::only_block = (rows - 1) % MAX_BLOCKS;
  normalization_cuda<T>(a, nullptr, nullptr, d, statistics.data(), layer, 1e-12, rows, nullptr);
  const double root = std::sqrt(static_cast<double>(length));
  expect("normalization", widen(d[last]) / root, 1);
  expect("statistics", 3 * statistics.data()[rows - 1].r / root, 1);
  statistics.data()[rows - 1] = {0, 0, 1};
  normalization_backward_cuda<T>(b, a, statistics.data(), nullptr, d, nullptr, nullptr, layer, rows, nullptr);
  expect("normalization_backward", widen(d[last]), 5);
  normalization_double_backward_cuda<T>(c, b, a, statistics.data(), nullptr, d, e, nullptr, means.data(), layer, rows,
                                        nullptr);
  expect("normalization_double_backward", widen(d[last]), 7);

  const int64_t width_of_sums = length % width == 0 ? width : 1;
  const int64_t tiles = (length / width_of_sums + WARP - 1) / WARP;
  cuda_on_host::only_block = (tiles * normalization_parts_cuda(layer, rows) - 1) % MAX_BLOCKS;
  normalization_backward_cuda<T>(b, a, statistics.data(), nullptr, nullptr, of_weight.data(), of_bias.data(), layer,
                                 rows, nullptr);
  expect("weight", of_weight.data()[sums - 1], 15);
  expect("bias", of_bias.data()[sums - 1], 5);
}

template <class T>
void run(const std::string& operation, char** arguments, int count) {
  if (operation == "piecewise_linear") return run_piecewise_linear<T>(arguments, count);
  if (operation == "smooth_activation") return run_smooth_activation<T>(arguments, count);
  if (operation == "normalization") return run_normalization<T>(arguments);
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
  if (operation == "nonfinite") {
    run_nonfinite(argv + 2, argc - 2);
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
  if (operation == "far and curved") {
    run_far_and_curved(argv + 2);
    return 0;
  }
  const std::string dtype = argc > 2 ? argv[2] : "";
  if (dtype == "float16") run<Half>(operation, argv + 3, argc - 3);
  if (dtype == "bfloat16") run<BFloat16>(operation, argv + 3, argc - 3);
  if (dtype == "float32") run<float>(operation, argv + 3, argc - 3);
  if (dtype == "float64") run<double>(operation, argv + 3, argc - 3);
}
