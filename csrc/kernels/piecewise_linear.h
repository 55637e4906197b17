// Piecewise-linear activations, and the gates that they leave: one bit for each element, in the order of memory.
// Element i has bit i % 8 of byte i / 8; the last byte's unused bits are 0.
#pragma once

#include "formulas.h"
#include "scalar.h"

struct CUstream_st;  // cudaStream_t is a pointer to it; named here so that no CUDA header is needed

namespace wgan_fast {

constexpr int64_t GATES = 64;  // elements that the CPU does at once; where work is cut, it is cut at their multiples

inline int64_t gate_bytes(int64_t count) { return (count + 7) / 8; }

// output_i = f(input_i), gate_i = is_open(input_i); output may be input.
template <class T>
void piecewise_linear_cpu(const T* input,  // [count]
                          T* output,       // [count]
                          uint8_t* gates,  // [gate_bytes(count)]
                          PiecewiseLinear<Accumulate<T>> f, int64_t begin, int64_t end);

template <class T>
void piecewise_linear_cuda(const T* input, T* output, uint8_t* gates, PiecewiseLinear<Accumulate<T>> f, int64_t count,
                           CUstream_st* stream);

// output_i = input_i where gate_i is open, else closed_slope * input_i
template <class T>
void gate_cpu(const T* input,        // [count]
              const uint8_t* gates,  // [gate_bytes(count)]
              T* output,             // [count]
              Accumulate<T> closed_slope, int64_t begin, int64_t end);

template <class T>
void gate_cuda(const T* input, const uint8_t* gates, T* output, Accumulate<T> closed_slope, int64_t count,
               CUstream_st* stream);

}  // namespace wgan_fast
