// Piecewise-linear activations and their mask: one bit for each element, in the order of memory, set where x lies
// strictly between the bounds. Element i has bit i % 8 of byte i / 8; unused bits of the last byte are 0.
#pragma once

#include "formulas.h"
#include "scalar.h"

namespace wgan_fast {

constexpr int64_t MASK_BLOCK = 64;  // the CPU kernels' ranges begin at multiples of it

HOST_DEVICE inline int64_t mask_bytes(int64_t count) { return (count + 7) / 8; }

// output_i = f(input_i), mask_i = is_inside(input_i, f). Input and output may be the same array.
template <class T>
void piecewise_linear_cpu(const T* input,  // [count]
                          T* output,       // [count]
                          uint8_t* mask,   // [mask_bytes(count)]
                          PiecewiseLinear<Accumulate<T>> f, int64_t begin, int64_t end);

template <class T>
void piecewise_linear_cuda(const T* input, T* output, uint8_t* mask, PiecewiseLinear<Accumulate<T>> f, int64_t count,
                           CUstream_st* stream);

// output_i = mask_i ? input_i : negative_slope * input_i
template <class T>
void apply_mask_cpu(const T* input,       // [count]
                    const uint8_t* mask,  // [mask_bytes(count)]
                    T* output,            // [count]
                    Accumulate<T> negative_slope, int64_t begin, int64_t end);

template <class T>
void apply_mask_cuda(const T* input, const uint8_t* mask, T* output, Accumulate<T> negative_slope, int64_t count,
                     CUstream_st* stream);

}  // namespace wgan_fast
