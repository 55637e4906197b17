// Runs the CUDA launchers of one operation on the host. Parameters on the command line, tensors as raw bytes on
// standard input, results as raw bytes on standard output. Every buffer has its exact size, so that the address
// sanitizer sees each step outside.
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
  const PiecewiseLinear<Accumulate<T>> formula{static_cast<Accumulate<T>>(std::atof(arguments[2])),
                                               static_cast<Accumulate<T>>(std::atof(arguments[3])),
                                               static_cast<Accumulate<T>>(std::atof(arguments[4]))};
  for (int next = 5; next < count; ++next) {
    const int64_t size = std::atoll(arguments[next]);
    auto x = Buffer<T>(size, in_offset).read();
    auto grad = Buffer<T>(size, in_offset).read();
    Buffer<T> y(size, out_offset), masked(size, out_offset);
    Buffer<uint8_t> mask(mask_bytes(size)), mask_in_place(mask_bytes(size));
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

template <class T>
void run(const std::string& operation, char** arguments, int count) {
  if (operation == "piecewise_linear") return run_piecewise_linear<T>(arguments, count);
  if (operation == "interpolate") return run_interpolate<T>(arguments);
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
  const std::string dtype = argc > 2 ? argv[2] : "";
  if (dtype == "float16") run<Half>(operation, argv + 3, argc - 3);
  if (dtype == "bfloat16") run<BFloat16>(operation, argv + 3, argc - 3);
  if (dtype == "float32") run<float>(operation, argv + 3, argc - 3);
  if (dtype == "float64") run<double>(operation, argv + 3, argc - 3);
}
