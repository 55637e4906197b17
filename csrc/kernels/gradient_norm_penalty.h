#pragma once

#include "formulas.h"

namespace wgan_fast {

// A long row is summed in segments, so that a few long rows occupy all cores. The segments depend on the shape
// alone, so the result is the same for any number of threads.
struct Segments {
  int64_t rows;
  int64_t length;          // elements of a row
  int64_t segment_length;  // elements of a segment; the last one of a row may be shorter
  int64_t per_row;         // segments of a row

  int64_t count() const { return rows * per_row; }
};

Segments segments_cpu(int64_t rows, int64_t length);
Segments segments_cuda(int64_t rows, int64_t length);

// First pass, the only one that reads the gradient: sums of squares of the segments [begin, end).
template <class T>
void sums_of_squares_cpu(const T* gradient,    // [rows, length]
                         Accumulate<T>* sums,  // [rows, per_row]
                         Segments segments, int64_t begin, int64_t end);

// Second pass: norms from the sums, and the sum of p(n) of each block of rows in [begin, end). Blocks have a fixed
// number of rows, so the result is the same for any number of threads.
constexpr int64_t ROWS_EACH = 4096;
template <class A>
void norms_cpu(const A* sums,            // [rows, per_row]; with one segment for each row, they are in `norms`
               A* norms,                 // [rows]
               double* block_penalties,  // [ceil(rows / ROWS_EACH)]
               Segments segments, NormPenalty formula, int64_t begin, int64_t end);

// Both passes. `workspace` holds workspace_size_cuda(segments) values.
int64_t workspace_size_cuda(Segments segments);
template <class T>
void gradient_norm_penalty_cuda(const T* gradient, Accumulate<T>* workspace, Accumulate<T>* norms,
                                Accumulate<T>* penalty, Segments segments, NormPenalty formula, CUstream_st* stream);

// out_i = grad_penalty * weight / rows * s(n_r) * gradient_i, with s = norm_penalty_slope and r the row of element i.
template <class T>
void gradient_norm_penalty_backward_cpu(const Accumulate<T>* grad_penalty,  // []
                                        const T* gradient,                  // [rows, length]
                                        const Accumulate<T>* norms,         // [rows]
                                        T* out,                             // [rows, length]
                                        int64_t rows, int64_t length, NormPenalty formula, int64_t begin, int64_t end);

template <class T>
void gradient_norm_penalty_backward_cuda(const Accumulate<T>* grad_penalty, const T* gradient,
                                         const Accumulate<T>* norms, T* out, int64_t rows, int64_t length,
                                         NormPenalty formula, CUstream_st* stream);

}  // namespace wgan_fast
