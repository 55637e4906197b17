// Shared by the operators over a list of weights: checks, grouping by device, threads.
#pragma once

#include <ATen/MemoryOverlap.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "ops/tensors.h"

namespace wgan_fast {

// A tensor that a kernel may change in place.
inline void check_weights(const Tensor& tensor, const char* name, size_t index) {
  TORCH_CHECK_VALUE(tensor.is_cpu() || tensor.is_cuda(), name, "[", index,
                    "]: expected a tensor on the CPU or a GPU, got ", tensor.device());
  TORCH_CHECK_TYPE(is_supported(tensor.scalar_type()), name, "[", index,
                   "]: expected float16, bfloat16, float32 or float64, got ", tensor.scalar_type());
  TORCH_CHECK_VALUE(at::has_internal_overlap(tensor) != at::MemOverlap::Yes, name, "[", index,
                    "]: several of its elements share one place in memory; pass the tensor that it was expanded from");
  TORCH_CHECK_VALUE(!tensor.is_inference() || c10::InferenceMode::is_enabled(), name, "[", index,
                    "]: an inference tensor can be changed only inside torch.inference_mode()");
}

// Increments the version counters. Kernels write through raw pointers, so autograd would not notice the change.
inline void bump_versions(at::TensorList tensors) {
  for (const Tensor& tensor : tensors) {
    if (!tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
  }
}

// A list's entries, grouped by device.
template <class Entry>
class ByDevice {
 public:
  void add(c10::Device device, Entry entry) {
    auto group = std::find_if(groups_.begin(), groups_.end(), [&](const auto& group) { return group.first == device; });
    if (group == groups_.end()) group = groups_.insert(group, {device, {}});
    group->second.push_back(entry);
  }
  auto begin() const { return groups_.begin(); }
  auto end() const { return groups_.end(); }

 private:
  std::vector<std::pair<c10::Device, std::vector<Entry>>> groups_;
};

// Calls f(entry, begin, end) on PyTorch's threads; the ranges cover every element of the list.
template <class Entry, class F>
void parallel_for_chunks(const std::vector<Entry>& list, F f) {
  constexpr int64_t CHUNK = 16384;  // elements
  int64_t numel = 0;
  std::vector<int64_t> first_chunk(1, 0);
  for (const Entry& entry : list) {
    numel += entry.numel;
    first_chunk.push_back(first_chunk.back() + (entry.numel + CHUNK - 1) / CHUNK);
  }
  const int64_t grain = numel <= GRAIN ? first_chunk.back() : GRAIN / CHUNK;
  at::parallel_for(0, first_chunk.back(), grain, [&](int64_t begin, int64_t end) {
    size_t i = std::upper_bound(first_chunk.begin(), first_chunk.end(), begin) - first_chunk.begin() - 1;
    for (; begin < end; ++i) {
      const int64_t stop = std::min(end, first_chunk[i + 1]);
      f(list[i], (begin - first_chunk[i]) * CHUNK, std::min(list[i].numel, (stop - first_chunk[i]) * CHUNK));
      begin = stop;
    }
  });
}

}  // namespace wgan_fast
