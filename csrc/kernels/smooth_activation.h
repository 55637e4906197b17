// Smooth activations y = f(x), and products of a gradient with their derivatives. Derivatives are functions of one
// saved tensor z, which is the output y where f' is a function of y, else the input x:
//   slope<k>(z) = k-th derivative of s with respect to z, where s(z) = f'(x)
#pragma once

#include "elementary.h"
#include "scalar.h"

namespace wgan_fast {

enum class SmoothKind : int8_t { silu, gelu, gelu_tanh, tanh, sigmoid, softplus, elu, mish, logsigmoid, softsign };

// On CUDA the numbers have the arithmetic's type: float64 is slow on most GPUs.
template <class A>
struct SmoothParameters {
  SmoothKind kind;
  A a, b, c;  // softplus: beta, threshold; elu: alpha scale, scale, input scale; else unused

  template <class To>
  SmoothParameters<To> cast() const {
    return {kind, static_cast<To>(a), static_cast<To>(b), static_cast<To>(c)};
  }
};
using SmoothActivation = SmoothParameters<double>;

// Whether z is the output.
inline bool saves_output(SmoothKind kind) {
  return kind == SmoothKind::tanh || kind == SmoothKind::sigmoid || kind == SmoothKind::elu;
}

constexpr int SMOOTH_ORDERS = 3;  // slope<0>, slope<1>, slope<2>

// The logistic function and its derivatives, without cancellation in either tail.
template <class A>
struct Logistic {
  A s, s1, s2, s3;
  HOST_DEVICE explicit Logistic(A x) {
    const A e = exponential(-std::abs(x)), q = A(1) / (A(1) + e);
    s = x > A(0) ? q : e * q;
    s1 = (e * q) * q;
    s2 = s1 * (A(1) - A(2) * s);
    s3 = s1 * (A(1) - A(6) * s1);
  }
};

// The third derivatives are by Leibniz' rule: (x g)''' = 3 g'' + x g'''.
template <class A>
struct Silu {  // x s, with the logistic function s
  template <class P>
  HOST_DEVICE explicit Silu(const SmoothParameters<P>&) {}
  HOST_DEVICE A value(A x) const { return x / (A(1) + exponential(-x)); }
  template <int K>
  HOST_DEVICE A slope(A x) const {
    const Logistic<A> l(x);
    if constexpr (K == 0) return l.s + x * l.s1;
    if constexpr (K == 1) return A(2) * l.s1 + x * l.s2;
    if constexpr (K == 2) return A(3) * l.s2 + x * l.s3;
  }
};

template <class A>
struct Gelu {  // x P, with the normal distribution P and its density p; p' = -x p
  template <class P>
  HOST_DEVICE explicit Gelu(const SmoothParameters<P>&) {}
  HOST_DEVICE A value(A x) const { return x * normal_distribution(x); }
  template <int K>
  HOST_DEVICE A slope(A x) const {
    const A p = normal_density(x);
    if constexpr (K == 0) return normal_distribution(x) + x * p;
    if constexpr (K == 1) return p * (A(2) - x * x);
    if constexpr (K == 2) return p * (x * (x * x - A(4)));
  }
};

template <class A>
struct GeluTanh {  // x (1 + t) / 2, with t = tanh(u) and u = k (x + c x^3)
  static constexpr A k = A(0.797884560802865355879892), c = A(0.044715);
  template <class P>
  HOST_DEVICE explicit GeluTanh(const SmoothParameters<P>&) {}
  HOST_DEVICE A value(A x) const { return x * logistic(A(2) * inner(x)); }  // (1 + tanh u) / 2 = logistic(2 u)
  template <int K>
  HOST_DEVICE A slope(A x) const {
    const Logistic<A> l(A(2) * inner(x));
    const A t = A(2) * l.s - A(1), d = A(4) * l.s1;  // t' = d u'
    const A u1 = k * (A(1) + A(3) * c * (x * x)), u2 = A(6) * k * c * x, u3 = A(6) * k * c;
    const A t1 = d * u1;
    if constexpr (K == 0) return l.s + A(0.5) * (x * t1);
    const A v = u2 - A(2) * t * (u1 * u1), t2 = d * v;
    if constexpr (K == 1) return t1 + A(0.5) * (x * t2);
    const A v1 = u3 - A(2) * t1 * (u1 * u1) - A(4) * t * (u1 * u2), t3 = d * (v1 - A(2) * t * (u1 * v));
    if constexpr (K == 2) return A(1.5) * t2 + A(0.5) * (x * t3);
  }

 private:
  HOST_DEVICE static A inner(A x) { return k * (x + c * (x * x * x)); }
};

template <class A>
struct Tanh {  // of the output y
  template <class P>
  HOST_DEVICE explicit Tanh(const SmoothParameters<P>&) {}
  HOST_DEVICE A value(A x) const { return hyperbolic_tangent(x); }
  template <int K>
  HOST_DEVICE A slope(A y) const {
    if constexpr (K == 0) return A(1) - y * y;
    if constexpr (K == 1) return A(-2) * y;
    if constexpr (K == 2) return A(-2);
  }
};

template <class A>
struct Sigmoid {  // of the output y
  template <class P>
  HOST_DEVICE explicit Sigmoid(const SmoothParameters<P>&) {}
  HOST_DEVICE A value(A x) const { return logistic(x); }
  template <int K>
  HOST_DEVICE A slope(A y) const {
    if constexpr (K == 0) return y * (A(1) - y);
    if constexpr (K == 1) return A(1) - A(2) * y;
    if constexpr (K == 2) return A(-2);
  }
};

template <class A>
struct Softplus {  // log(1 + e^(beta x)) / beta; x where beta x is above the threshold
  A beta, threshold;
  template <class P>
  HOST_DEVICE explicit Softplus(const SmoothParameters<P>& f)
      : beta(static_cast<A>(f.a)), threshold(static_cast<A>(f.b)) {}
  HOST_DEVICE A value(A x) const {
    const A y = log_1_plus_exponential(beta * x) / beta;
    return beta * x > threshold ? x : y;
  }
  template <int K>
  HOST_DEVICE A slope(A x) const {
    const Logistic<A> l(beta * x);
    const bool is_linear = beta * x > threshold;
    if constexpr (K == 0) return is_linear ? A(1) : l.s;
    if constexpr (K == 1) return is_linear ? A(0) : beta * l.s1;
    if constexpr (K == 2) return is_linear ? A(0) : beta * beta * l.s2;
  }
};

template <class A>
struct Elu {  // scale x, for x <= 0 scale alpha (e^(rate x) - 1). ELU, SELU and CELU. Of the output y.
  A height, scale, rate;
  template <class P>
  HOST_DEVICE explicit Elu(const SmoothParameters<P>& f)
      : height(static_cast<A>(f.a)), scale(static_cast<A>(f.b)), rate(static_cast<A>(f.c)) {}
  HOST_DEVICE A value(A x) const {
    const A below = height * exponential_minus_1(rate * x), above = scale * x;
    return x > A(0) ? above : below;
  }
  template <int K>
  HOST_DEVICE A slope(A y) const {
    if constexpr (K == 0) return y > A(0) ? scale : rate * (y + height);
    if constexpr (K == 1) return y > A(0) ? A(0) : rate;
    if constexpr (K == 2) return A(0);
  }
};

template <class A>
struct Mish {  // x t, with t = tanh(log(1 + e^x)) = n / (n + 2) and n = e^x (e^x + 2)
  template <class P>
  HOST_DEVICE explicit Mish(const SmoothParameters<P>&) {}
  HOST_DEVICE A value(A x) const {
    const A n = numerator(bounded_exponential(x));
    return x * (n / (n + A(2)));
  }
  template <int K>
  HOST_DEVICE A slope(A x) const {
    const A e = bounded_exponential(x), n = numerator(e), q = A(1) / (n + A(2)), p = A(1) / (A(1) + e);
    const A t = n * q, w = (A(4) * q) * ((n + A(1)) * q);  // w = 1 - t^2; t' = w s, with the logistic function s
    const A s = e * p, s1 = s * p;
    const A t1 = w * s, w1 = A(-2) * t * t1, t2 = w1 * s + w * s1;
    if constexpr (K == 0) return t + x * t1;
    if constexpr (K == 1) return A(2) * t1 + x * t2;
    const A w2 = A(-2) * (t1 * t1 + t * t2), t3 = w2 * s + A(2) * w1 * s1 + w * (s1 * (A(1) - A(2) * s));
    if constexpr (K == 2) return A(3) * t2 + x * t3;
  }

 private:
  HOST_DEVICE static A bounded_exponential(A x) { return exponential(x, A(40)); }  // beyond, t and s round to 1
  HOST_DEVICE static A numerator(A e) { return e * (e + A(2)); }
};

template <class A>
struct LogSigmoid {
  template <class P>
  HOST_DEVICE explicit LogSigmoid(const SmoothParameters<P>&) {}
  HOST_DEVICE A value(A x) const { return -log_1_plus_exponential(-x); }
  template <int K>
  HOST_DEVICE A slope(A x) const {
    const Logistic<A> l(-x);
    if constexpr (K == 0) return l.s;
    if constexpr (K == 1) return -l.s1;
    if constexpr (K == 2) return l.s2;
  }
};

template <class A>
struct Softsign {  // x / (1 + |x|)
  template <class P>
  HOST_DEVICE explicit Softsign(const SmoothParameters<P>&) {}
  HOST_DEVICE A value(A x) const { return x / (A(1) + std::abs(x)); }
  template <int K>
  HOST_DEVICE A slope(A x) const {
    const A q = A(1) / (A(1) + std::abs(x)), sign = x > A(0) ? A(1) : x < A(0) ? A(-1) : A(0);
    if constexpr (K == 0) return q * q;
    if constexpr (K == 1) return A(-2) * sign * (q * q * q);
    if constexpr (K == 2) return A(6) * (sign * sign) * ((q * q) * (q * q));  // 0 at 0, as in PyTorch
  }
};

// Calls use(formula) with the formulas of this kind, on the host and inside kernels.
#ifdef __CUDACC__
#pragma nv_exec_check_disable  // `use` may be a device-only function
#endif
template <class A, class P, class Use>
__attribute__((always_inline)) HOST_DEVICE inline void dispatch_kind(const SmoothParameters<P>& f, Use&& use) {
  switch (f.kind) {
    case SmoothKind::silu:
      return use(Silu<A>(f));
    case SmoothKind::gelu:
      return use(Gelu<A>(f));
    case SmoothKind::gelu_tanh:
      return use(GeluTanh<A>(f));
    case SmoothKind::tanh:
      return use(Tanh<A>(f));
    case SmoothKind::sigmoid:
      return use(Sigmoid<A>(f));
    case SmoothKind::softplus:
      return use(Softplus<A>(f));
    case SmoothKind::elu:
      return use(Elu<A>(f));
    case SmoothKind::mish:
      return use(Mish<A>(f));
    case SmoothKind::logsigmoid:
      return use(LogSigmoid<A>(f));
    case SmoothKind::softsign:
      return use(Softsign<A>(f));
  }
}

// y_i = f(x_i). x and y may be the same array.
template <class T>
void smooth_activation_cpu(const T* x,  // [count]
                           T* y,        // [count]
                           SmoothActivation f, int64_t begin, int64_t end);

template <class T>
void smooth_activation_cuda(const T* x, T* y, SmoothActivation f, int64_t count, CUstream_st* stream);

// out_i = grad_i slope<order>(z_i)
template <class T>
void smooth_activation_backward_cpu(const T* grad,  // [count]
                                    const T* z,     // [count]
                                    T* out,         // [count]
                                    SmoothActivation f, int order, int64_t begin, int64_t end);

template <class T>
void smooth_activation_backward_cuda(const T* grad, const T* z, T* out, SmoothActivation f, int order, int64_t count,
                                     CUstream_st* stream);

// The derivative of grad slope<0>(z) along grad_grad, with respect to grad and z:
//   grad_out_i = grad_grad_i slope<0>(z_i),  z_out_i = grad_grad_i grad_i slope<1>(z_i)
template <class T>
void smooth_activation_double_backward_cpu(const T* grad_grad,  // [count]
                                           const T* grad,       // [count]
                                           const T* z,          // [count]
                                           T* grad_out,         // [count]
                                           T* z_out,            // [count]
                                           SmoothActivation f, int64_t begin, int64_t end);

template <class T>
void smooth_activation_double_backward_cuda(const T* grad_grad, const T* grad, const T* z, T* grad_out, T* z_out,
                                            SmoothActivation f, int64_t count, CUstream_st* stream);

}  // namespace wgan_fast
