#pragma once

#include "scalar.h"

namespace wgan_fast {

// out_i = t_r fake_i + (1 - t_r) real_i, where r = i / length is the row of element i.
// On the CPU: the elements [begin, end).
template <class T>
void interpolate_cpu(const T* real,           // [rows, length]
                     const T* fake,           // [rows, length]
                     const Accumulate<T>* t,  // [rows]
                     T* out,                  // [rows, length]
                     int64_t length, int64_t begin, int64_t end);

template <class T>
void interpolate_cuda(const T* real, const T* fake, const Accumulate<T>* t, T* out, int64_t rows, int64_t length,
                      CUstream_st* stream);

}  // namespace wgan_fast
