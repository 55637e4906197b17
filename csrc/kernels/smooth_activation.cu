#include <algorithm>
#include <type_traits>

#include "launch.cuh"
#include "smooth_activation.h"

namespace wgan_fast {
namespace {

// Results of one element. Each takes and returns one number for each array.
struct Value {
  static constexpr int INPUTS = 1, OUTPUTS = 1;
  template <class Formula, class A>
  __device__ static void compute(const Formula& f, const A (&in)[1], A (&out)[1]) {
    out[0] = f.value(in[0]);
  }
};

template <int ORDER>
struct Backward {
  static constexpr int INPUTS = 2, OUTPUTS = 1;
  template <class Formula, class A>
  __device__ static void compute(const Formula& f, const A (&in)[2], A (&out)[1]) {
    out[0] = in[0] * f.template slope<ORDER>(in[1]);
  }
};

struct DoubleBackward {
  static constexpr int INPUTS = 3, OUTPUTS = 2;
  template <class Formula, class A>
  __device__ static void compute(const Formula& f, const A (&in)[3], A (&out)[2]) {
    out[0] = in[0] * f.template slope<0>(in[2]);
    out[1] = (in[0] * in[1]) * f.template slope<1>(in[2]);
  }
};

template <class T, int COUNT>
struct Arrays {
  T* at[COUNT];
};

// The kind is the same in every thread, and known where the kernel is launched: a version for each would take as much
// code in ten times as many kernels.
template <class Work, class Vectors, class T>
__global__ void __launch_bounds__(BLOCK, Vectors::MIN_BLOCKS)
    smooth_activation_kernel(Arrays<const T, Work::INPUTS> in, Arrays<T, Work::OUTPUTS> out,
                             SmoothParameters<Accumulate<T>> f, Vectors vectors) {
  using A = Accumulate<T>;
  constexpr int WIDTH = Vectors::WIDTH;
  for_each_tile(vectors, [&](auto tile) {
    Packed<T, WIDTH> loaded[Vectors::TOGETHER][Work::INPUTS];
    for_each_vector(vectors, tile, [&](int u, int64_t i) {
      for (int a = 0; a < Work::INPUTS; ++a) {
        loaded[u][a] = Vectors::template load<WIDTH>(in.at[a], i, vectors.count());
      }
    });
    dispatch_kind<A>(f, [&](auto formula) {
      for_each_vector(vectors, tile, [&](int u, int64_t i) {
        Vector<T, WIDTH> given[Work::INPUTS], results[Work::OUTPUTS];
        for (int a = 0; a < Work::INPUTS; ++a) given[a] = loaded[u][a].unpack();
        for (int k = 0; k < WIDTH; ++k) {
          A numbers[Work::INPUTS], found[Work::OUTPUTS];
          for (int a = 0; a < Work::INPUTS; ++a) numbers[a] = widen(given[a].at[k]);
          Work::compute(formula, numbers, found);
          for (int a = 0; a < Work::OUTPUTS; ++a) results[a].at[k] = narrow<T>(found[a]);
        }
        for (int a = 0; a < Work::OUTPUTS; ++a) Vectors::store(out.at[a], i, vectors.count(), results[a]);
      });
    });
  });
}

// Indices have 32 bits: of larger arrays each launch takes a part. Tests lower the bound.
#ifndef WGAN_FAST_MAX_VECTORS
#define WGAN_FAST_MAX_VECTORS 1 << 30
#endif
constexpr int64_t MAX_VECTORS = WGAN_FAST_MAX_VECTORS;

// Elements [begin, end), in vectors of WIDTH.
template <class Work, int WIDTH, class T>
void run_vectors(Arrays<const T, Work::INPUTS> in, Arrays<T, Work::OUTPUTS> out, const SmoothActivation& f,
                 int64_t begin, int64_t end, cudaStream_t stream) {
  // At least two loads in flight. float64 has long formulas: their code alone is a reason for one element at a time.
  constexpr int TOGETHER = std::is_same_v<T, double> || (WIDTH > 1 && Work::INPUTS > 1) ? 1 : 2;
  using Vectors = WholeVectors<WIDTH, TOGETHER>;
  while (begin < end) {
    const int64_t count = std::min(end - begin, MAX_VECTORS * WIDTH);
    Arrays<const T, Work::INPUTS> from = in;
    Arrays<T, Work::OUTPUTS> to = out;
    for (auto& array : from.at) array += begin;
    for (auto& array : to.at) array += begin;
    const Vectors vectors(count);
    launch(smooth_activation_kernel<Work, Vectors, T>, blocks_for_vectors(vectors), stream, from, to,
           f.cast<Accumulate<T>>(), vectors);
    begin += count;
  }
}

// A few elements beyond the last whole vector take a launch of their own.
template <class Work, class T>
void run(Arrays<const T, Work::INPUTS> in, Arrays<T, Work::OUTPUTS> out, const SmoothActivation& f, int64_t count,
         cudaStream_t stream) {
  int64_t in_vectors = 0;
  if constexpr (!std::is_same_v<T, double>) {
    constexpr int WIDTH = FULL_WIDTH<T>;
    const bool all_aligned = std::all_of(std::begin(in.at), std::end(in.at), aligned<T>) &&
                             std::all_of(std::begin(out.at), std::end(out.at), aligned<T>);
    if (all_aligned) in_vectors = count / WIDTH * WIDTH;
    run_vectors<Work, WIDTH, T>(in, out, f, 0, in_vectors, stream);
  }
  run_vectors<Work, 1, T>(in, out, f, in_vectors, count, stream);
}

}  // namespace

template <class T>
void smooth_activation_cuda(const T* x, T* y, SmoothActivation f, int64_t count, cudaStream_t stream) {
  run<Value, T>({{x}}, {{y}}, f, count, stream);
}

template <class T>
void smooth_activation_backward_cuda(const T* grad, const T* z, T* out, SmoothActivation f, int order, int64_t count,
                                     cudaStream_t stream) {
  void (*const of_order[SMOOTH_ORDERS])(Arrays<const T, 2>, Arrays<T, 1>, const SmoothActivation&, int64_t,
                                        cudaStream_t) = {run<Backward<0>, T>, run<Backward<1>, T>, run<Backward<2>, T>};
  of_order[order]({{grad, z}}, {{out}}, f, count, stream);
}

template <class T>
void smooth_activation_double_backward_cuda(const T* grad_grad, const T* grad, const T* z, T* grad_out, T* z_out,
                                            SmoothActivation f, int64_t count, cudaStream_t stream) {
  run<DoubleBackward, T>({{grad_grad, grad, z}}, {{grad_out, z_out}}, f, count, stream);
}

#define INSTANTIATE(T)                                                                                            \
  template void smooth_activation_cuda<T>(const T*, T*, SmoothActivation, int64_t, cudaStream_t);                 \
  template void smooth_activation_backward_cuda<T>(const T*, const T*, T*, SmoothActivation, int, int64_t,        \
                                                   cudaStream_t);                                                 \
  template void smooth_activation_double_backward_cuda<T>(const T*, const T*, const T*, T*, T*, SmoothActivation, \
                                                          int64_t, cudaStream_t);
INSTANTIATE(Half)
INSTANTIATE(BFloat16)
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace wgan_fast
