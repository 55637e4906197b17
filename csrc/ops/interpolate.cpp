#include "kernels/interpolate.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/tensors.h"

namespace wgan_fast {
namespace {

Tensor interpolate_forward(const Tensor& real, const Tensor& fake, const Tensor& t) {
  check_batch(real, "real");
  check_same(fake, "fake", real, "real");
  check_row_values(t, "t", real, "real");
  const c10::DeviceGuard guard(real.device());
  const Tensor real_rows = dense_rows(real);
  const Tensor out = at::empty_like(real_rows);
  // real, fake and out must have the same strides.
  const Tensor fake_rows = fake.strides() == out.strides() ? fake : at::empty_like(out).copy_(fake);
  const Tensor t_dense = t.contiguous();
  if (out.numel() == 0) return out;
  const int64_t length = row_length(out);
  dispatch_dtype(real, [&](auto element) {
    using T = decltype(element);
    const T* x = data<T>(real_rows);
    const T* y = data<T>(fake_rows);
    const auto* t_data = data<Accumulate<T>>(t_dense);
    T* result = mutable_data<T>(out);
#ifdef WGAN_FAST_CUDA
    if (real.is_cuda()) {
      return interpolate_cuda(x, y, t_data, result, real.size(0), length, current_stream());
    }
#endif
    at::parallel_for(0, out.numel(), GRAIN,
                     [&](int64_t begin, int64_t end) { interpolate_cpu(x, y, t_data, result, length, begin, end); });
  });
  return out;
}

class Interpolate : public torch::autograd::Function<Interpolate> {
 public:
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& real, const Tensor& fake,
                        const Tensor& t) {
    static const auto op = find_operator<Tensor(const Tensor&, const Tensor&, const Tensor&)>("wgan_fast::interpolate");
    const at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({real, fake, t});
    return op.call(real, fake, t);
  }

  // Composed of PyTorch's operators, hence differentiable any number of times.
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto saved = context->get_saved_variables();
    const Tensor& real = saved[0];
    const Tensor& fake = saved[1];
    const Tensor& t = saved[2];
    std::vector<c10::SymInt> t_shape(real.dim(), 1);
    t_shape[0] = t.sym_size(0);
    const Tensor t_rows = t.view_symint(t_shape);
    const Tensor grad = grads[0].to(t.scalar_type());
    Tensor grad_real, grad_fake, grad_t;
    if (context->needs_input_grad(0)) grad_real = ((1 - t_rows) * grad).to(real.scalar_type());
    if (context->needs_input_grad(1)) grad_fake = (t_rows * grad).to(fake.scalar_type());
    if (context->needs_input_grad(2)) {
      grad_t =
          (grad * (fake.to(t.scalar_type()) - real.to(t.scalar_type()))).reshape_symint({t.sym_size(0), -1}).sum(1);
    }
    return {grad_real, grad_fake, grad_t};
  }
};

Tensor interpolate_autograd(const Tensor& real, const Tensor& fake, const Tensor& t) {
  return Interpolate::apply(real, fake, t);
}

}  // namespace

TORCH_LIBRARY_IMPL(wgan_fast, CPU, library) { library.impl("interpolate", interpolate_forward); }
#ifdef WGAN_FAST_CUDA
TORCH_LIBRARY_IMPL(wgan_fast, CUDA, library) { library.impl("interpolate", interpolate_forward); }
#endif
TORCH_LIBRARY_IMPL(wgan_fast, Autograd, library) { library.impl("interpolate", interpolate_autograd); }

}  // namespace wgan_fast
