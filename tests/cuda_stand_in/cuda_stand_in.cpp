// Stands in for the CUDA runtime, the driver and cuBLAS, so that PyTorch's CUDA build runs on a machine without a GPU.
// Loaded with LD_PRELOAD. Two devices, whose memory is the host's. Copies and fills happen. Kernels are counted and
// checked but not run, except those compiled by tests/cuda_on_host, which run. Work happens when it is launched, or at
// each launch of the graph that captured it. Capture has the rules of the CUDA Programming Guide, and the runtime's
// error codes. The functions named cuda_stand_in_* are for tests.
#include <cuda_runtime_api.h>
#include <cxxabi.h>
#include <dlfcn.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

namespace {

constexpr int DEVICES = 2;
constexpr size_t ALIGNMENT = 256;  // of cudaMalloc
constexpr size_t PAGE = 4096;
constexpr unsigned char CANARY = 0xa5;

struct Stream;

// Something that a graph does.
struct Work {
  std::string name;
  std::function<void()> run;  // empty: a kernel that is not run
};

struct Capture {
  unsigned long long id;
  cudaStreamCaptureMode mode;
  std::thread::id owner;
  Stream* origin;
  std::vector<Stream*> streams;
  std::vector<Work> work;
  bool invalid = false;
};

// For each stream of a capture, how much of its work is known to be done before.
using Clock = std::map<const Stream*, size_t>;

struct Stream {
  int id;
  int device;
  bool legacy = false;
  bool blocking = false;  // waits for the legacy stream
  Capture* capture = nullptr;
  Clock clock{};
};

struct Event {
  int device;
  Capture* capture = nullptr;  // that recorded it
  unsigned long long capture_id = 0;
  Clock clock{};
  std::chrono::steady_clock::time_point time{};
};

struct Graph {
  std::vector<Work> work;
};

struct Block {
  size_t size;
  int device;
  char* mapped;
  size_t mapped_size;
};

struct Entry {
  const char* kind;
  int device;
  int stream;
  bool captured;
  std::string name;
};

// One lock for all state. A kernel runs outside of it, because it takes long.
std::recursive_mutex mutex;
using Lock = std::lock_guard<std::recursive_mutex>;

std::vector<Capture*> captures;       // under way
std::map<const char*, Block> blocks;  // of device memory
std::unordered_map<const void*, std::string> kernel_names;
std::array<Stream, DEVICES> legacy_streams{{{0, 0, true}, {0, 1, true}}};
int streams_made = 0;
unsigned long long captures_made = 0;
int fill_byte = 0;     // what new device memory holds
long allocations = 0;  // calls of cudaMalloc
long overruns = 0;     // blocks whose surroundings were written to
bool logging = false;
std::vector<Entry> entries;

thread_local int current_device = 0;
thread_local bool has_context = false;
thread_local cudaError_t last_error = cudaSuccess;
thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

cudaError_t failed(cudaError_t error) { return last_error = error; }

Stream* stream_of(cudaStream_t stream) {
  if (stream == nullptr || stream == cudaStreamLegacy) return &legacy_streams[current_device];
  return reinterpret_cast<Stream*>(stream);
}

void note(const char* kind, const Stream& stream, const std::string& name) {
  if (logging) entries.push_back({kind, stream.device, stream.id, stream.capture != nullptr, name});
}

void invalidate(Capture* capture, const char* reason) {
  if (!capture->invalid) note("invalidated", *capture->origin, reason);
  capture->invalid = true;
}

// Whether a potentially unsafe call is refused to this thread; see cudaThreadExchangeStreamCaptureMode.
bool refused(const char* call) {
  bool result = false;
  for (Capture* capture : captures) {
    const bool ours = capture->owner == std::this_thread::get_id() && capture->mode != cudaStreamCaptureModeRelaxed &&
                      thread_mode != cudaStreamCaptureModeRelaxed;
    const bool global = capture->mode == cudaStreamCaptureModeGlobal && thread_mode == cudaStreamCaptureModeGlobal;
    if (ours || global) {
      invalidate(capture, call);
      result = true;
    }
  }
  return result;
}

// Whether use of the legacy stream is refused: a stream that waits for it is captured.
bool legacy_refused(const Stream& stream, const char* call) {
  bool result = false;
  if (!stream.legacy) return false;
  for (Capture* capture : captures) {
    for (const Stream* captured : capture->streams) {
      if (captured->blocking && captured->device == stream.device) {
        invalidate(capture, call);
        result = true;
      }
    }
  }
  return result;
}

// A synchronous call on the whole device, in the legacy stream.
cudaError_t synchronous(const char* call) {
  const Stream& legacy = legacy_streams[current_device];
  if (legacy_refused(legacy, call)) return failed(cudaErrorStreamCaptureImplicit);
  if (refused(call)) return failed(cudaErrorStreamCaptureUnsupported);
  note("sync", legacy, call);
  return cudaSuccess;
}

// Does the work, or has the capture keep it.
cudaError_t enqueue(const char* kind, cudaStream_t handle, Work work, bool on_current_device = true) {
  has_context = true;
  {
    const Lock lock(mutex);
    Stream& stream = *stream_of(handle);
    if (on_current_device && stream.device != current_device) return failed(cudaErrorInvalidResourceHandle);
    if (legacy_refused(stream, work.name.c_str())) return failed(cudaErrorStreamCaptureImplicit);
    if (stream.capture && stream.capture->invalid) return failed(cudaErrorStreamCaptureInvalidated);
    note(kind, stream, work.name);
    if (stream.capture) {
      ++stream.clock[&stream];
      stream.capture->work.push_back(std::move(work));
      return cudaSuccess;
    }
  }
  if (work.run) work.run();
  return cudaSuccess;
}

// The block that an address belongs to, or the one past the last.
std::map<const char*, Block>::iterator block_of(const void* address) {
  auto after = blocks.upper_bound(static_cast<const char*>(address));
  if (after == blocks.begin()) return blocks.end();
  const auto block = std::prev(after);
  return static_cast<const char*>(address) < block->first + block->second.size ? block : blocks.end();
}

bool surroundings_intact(const char* data, const Block& block) {
  const auto intact = [](const char* from, const char* to) {
    return std::all_of(from, to, [](char byte) { return static_cast<unsigned char>(byte) == CANARY; });
  };
  return intact(block.mapped, data) && intact(data + block.size, block.mapped + block.mapped_size - PAGE);
}

cudaError_t launch(const void* kernel, dim3 grid, dim3 block, cudaStream_t stream) {
  const auto between = [](unsigned value, unsigned most) { return value >= 1 && value <= most; };
  if (!between(grid.x, 2147483647) || !between(grid.y, 65535) || !between(grid.z, 65535) || !between(block.x, 1024) ||
      !between(block.y, 1024) || !between(block.z, 64) || block.x * block.y * block.z > 1024) {
    return failed(cudaErrorInvalidConfiguration);
  }
  std::string name = "?";
  {
    const Lock lock(mutex);
    if (const auto found = kernel_names.find(kernel); found != kernel_names.end()) name = found->second;
  }
  return enqueue("kernel", stream, {name, {}});
}

template <class T>
T* from_handle(void* handle) {
  return static_cast<T*>(handle);
}

}  // namespace

// For tests.

API void cuda_stand_in_fill_memory_with(int byte) { fill_byte = byte; }
API void cuda_stand_in_log(int on) {
  const Lock lock(mutex);
  logging = on != 0;
  entries.clear();
}
API int cuda_stand_in_entries() {
  const Lock lock(mutex);
  return static_cast<int>(entries.size());
}
// kind|device|stream|captured|name
API const char* cuda_stand_in_entry(int i) {
  static std::string text;
  const Lock lock(mutex);
  const Entry& entry = entries.at(i);
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> readable(
      abi::__cxa_demangle(entry.name.c_str(), nullptr, nullptr, &status), &std::free);
  text = std::string(entry.kind) + "|" + std::to_string(entry.device) + "|" + std::to_string(entry.stream) + "|" +
         (entry.captured ? "1" : "0") + "|" + (readable ? readable.get() : entry.name.c_str());
  return text.c_str();
}
API size_t cuda_stand_in_bytes() {
  const Lock lock(mutex);
  size_t bytes = 0;
  for (const auto& [data, block] : blocks) bytes += block.size;
  return bytes;
}
API long cuda_stand_in_allocations() { return allocations; }
API int cuda_stand_in_captures() {
  const Lock lock(mutex);
  return static_cast<int>(captures.size());
}
// Blocks, freed or not, with bytes written before or behind them.
API long cuda_stand_in_overruns() {
  const Lock lock(mutex);
  return overruns + std::count_if(blocks.begin(), blocks.end(),
                                  [](const auto& entry) { return !surroundings_intact(entry.first, entry.second); });
}

// A launch of a kernel that tests/cuda_on_host compiled. What looks like an address of device memory among its
// arguments must be of the current device.
API cudaError_t cuda_stand_in_launch(const cudaLaunchConfig_t* config, const void* kernel, const void* arguments,
                                     size_t bytes, const std::function<void()>* run) {
  {
    const Lock lock(mutex);
    for (size_t at = 0; at + sizeof(void*) <= bytes; at += sizeof(void*)) {
      const void* word;
      std::memcpy(&word, static_cast<const char*>(arguments) + at, sizeof word);
      const auto block = block_of(word);
      if (block != blocks.end() && block->second.device != current_device) return failed(cudaErrorIllegalAddress);
    }
  }
  // Kernels are local to the extension: their place in it is what the symbol table of the file has, too.
  Dl_info place{};
  std::array<char, 32> offset{};
  dladdr(kernel, &place);
  std::snprintf(offset.data(), offset.size(), "%tx",
                static_cast<const char*>(kernel) - static_cast<char*>(place.dli_fbase));
  static std::mutex one_kernel;  // `__shared__` is static storage
  return enqueue("kernel", config->stream, {std::string("wgan_fast+") + offset.data(), [run = *run] {
                                              const std::lock_guard<std::mutex> lock(one_kernel);
                                              run();
                                            }});
}

// Devices.

API cudaError_t cudaGetDeviceCount(int* count) {
  *count = DEVICES;
  return cudaSuccess;
}
API cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}
API cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= DEVICES) return failed(cudaErrorInvalidDevice);
  current_device = device;
  has_context = true;
  return cudaSuccess;
}
// Those of an H100.
API cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  cudaDeviceProp& p = *properties;
  std::memset(&p, 0, sizeof p);
  std::strcpy(p.name, "stand-in");
  p.major = 9;
  p.minor = 0;
  p.multiProcessorCount = 132;
  p.totalGlobalMem = size_t{80} << 30;
  p.sharedMemPerBlock = 49152;
  p.sharedMemPerBlockOptin = 232448;
  p.sharedMemPerMultiprocessor = 233472;
  p.regsPerBlock = p.regsPerMultiprocessor = 65536;
  p.warpSize = 32;
  p.maxThreadsPerBlock = p.maxThreadsDim[0] = p.maxThreadsDim[1] = 1024;
  p.maxThreadsDim[2] = 64;
  p.maxThreadsPerMultiProcessor = 2048;
  p.maxBlocksPerMultiProcessor = 32;
  p.maxGridSize[0] = 2147483647;
  p.maxGridSize[1] = p.maxGridSize[2] = 65535;
  p.l2CacheSize = 50 << 20;
  p.textureAlignment = 512;
  p.totalConstMem = 65536;
  p.memoryBusWidth = 5120;
  p.unifiedAddressing = p.managedMemory = p.concurrentManagedAccess = 1;
  return cudaSuccess;
}
API cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  static const std::map<cudaDeviceAttr, int> values = {
      {cudaDevAttrMultiProcessorCount, 132},
      {cudaDevAttrMaxThreadsPerBlock, 1024},
      {cudaDevAttrComputeCapabilityMajor, 9},
      {cudaDevAttrMaxSharedMemoryPerBlock, 49152},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, 232448},
      {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
      {cudaDevAttrWarpSize, 32},
      {cudaDevAttrMaxGridDimX, 2147483647},
      {cudaDevAttrMaxGridDimY, 65535},
      {cudaDevAttrMaxGridDimZ, 65535},
  };
  const auto found = values.find(attribute);
  *value = found == values.end() ? 0 : found->second;
  return cudaSuccess;
}
API cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
API cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
API cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  *can = 0;
  return cudaSuccess;
}
API cudaError_t cudaDeviceGetPCIBusId(char* id, int size, int device) {
  std::snprintf(id, size, "0000:%02x:00.0", device);
  return cudaSuccess;
}
API cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int) {
  *pool = nullptr;
  return cudaSuccess;
}
API cudaError_t cudaProfilerStart() { return cudaSuccess; }
API cudaError_t cudaProfilerStop() { return cudaSuccess; }

// Errors.

API cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
API cudaError_t cudaPeekAtLastError() { return last_error; }
API const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidResourceHandle:
      return "invalid resource handle";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureMerge:
      return "operation would result in a merge of separate capture sequences";
    case cudaErrorStreamCaptureUnjoined:
      return "capturing stream has unjoined work";
    case cudaErrorStreamCaptureIsolation:
      return "dependency created on uncaptured work in another stream";
    case cudaErrorStreamCaptureImplicit:
      return "operation would make the legacy stream depend on a capturing blocking stream";
    case cudaErrorCapturedEvent:
      return "operation not permitted on an event last recorded in a capturing stream";
    case cudaErrorStreamCaptureWrongThread:
      return "attempt to terminate a thread-local capture sequence from another thread";
    default:
      return "an error that the stand-in has no words for";
  }
}
API const char* cudaGetErrorName(cudaError_t error) { return cudaGetErrorString(error); }

// Memory. A block ends before a page that no one may touch; the bytes around it, in its own pages, are checked.

API cudaError_t cudaMalloc(void** data, size_t size) {
  const Lock lock(mutex);
  has_context = true;
  if (refused("cudaMalloc")) return failed(cudaErrorStreamCaptureUnsupported);
  const size_t aligned = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  const size_t mapped = (aligned + PAGE - 1) / PAGE * PAGE + PAGE;
  void* memory = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return failed(cudaErrorMemoryAllocation);
  char* first = static_cast<char*>(memory);
  char* block = first + mapped - PAGE - aligned;
  std::memset(first, CANARY, block - first);
  if (fill_byte != 0) std::memset(block, fill_byte, size);  // else the pages take no memory until they are written
  std::memset(block + size, CANARY, aligned - size);
  mprotect(first + mapped - PAGE, PAGE, PROT_NONE);
  blocks[block] = {size, current_device, first, mapped};
  ++allocations;
  *data = block;
  return cudaSuccess;
}
API cudaError_t cudaFree(void* data) {
  const Lock lock(mutex);
  has_context = true;
  if (!data) return cudaSuccess;
  if (refused("cudaFree")) return failed(cudaErrorStreamCaptureUnsupported);
  const auto block = blocks.find(static_cast<char*>(data));
  if (block == blocks.end()) return failed(cudaErrorInvalidValue);
  if (!surroundings_intact(block->first, block->second)) ++overruns;
  munmap(block->second.mapped, block->second.mapped_size);
  blocks.erase(block);
  return cudaSuccess;
}
API cudaError_t cudaHostAlloc(void** data, size_t size, unsigned) {
  const Lock lock(mutex);
  if (refused("cudaHostAlloc")) return failed(cudaErrorStreamCaptureUnsupported);
  *data = std::aligned_alloc(PAGE, (size + PAGE - 1) / PAGE * PAGE);
  return *data ? cudaSuccess : failed(cudaErrorMemoryAllocation);
}
API cudaError_t cudaFreeHost(void* data) {
  std::free(data);
  return cudaSuccess;
}
API cudaError_t cudaHostRegister(void*, size_t, unsigned) { return cudaSuccess; }
API cudaError_t cudaHostUnregister(void*) { return cudaSuccess; }
API cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  *total = size_t{80} << 30;
  *available = *total - cuda_stand_in_bytes();
  return cudaSuccess;
}
API cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* address) {
  const Lock lock(mutex);
  std::memset(attributes, 0, sizeof *attributes);
  const auto block = block_of(address);
  const bool on_device = block != blocks.end();
  attributes->type = on_device ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
  attributes->device = on_device ? block->second.device : -2;
  attributes->devicePointer = on_device ? const_cast<void*>(address) : nullptr;
  return cudaSuccess;
}
API cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind kind, cudaStream_t stream) {
  const char* const names[] = {"host to host", "host to device", "device to host", "device to device", "default"};
  return enqueue("copy", stream, {names[kind], [=] { std::memmove(to, from, size); }}, false);
}
API cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind) {
  const Lock lock(mutex);
  if (const cudaError_t error = synchronous("cudaMemcpy"); error != cudaSuccess) return error;
  std::memmove(to, from, size);
  return cudaSuccess;
}
API cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t size, cudaStream_t stream) {
  return enqueue("copy", stream, {"between devices", [=] { std::memmove(to, from, size); }}, false);
}
API cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                                  size_t height, cudaMemcpyKind, cudaStream_t stream) {
  const auto copy = [=] {
    for (size_t row = 0; row < height; ++row) {
      std::memmove(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(from) + row * from_pitch, width);
    }
  };
  return enqueue("copy", stream, {"rows", copy}, false);
}
API cudaError_t cudaMemsetAsync(void* data, int value, size_t size, cudaStream_t stream) {
  return enqueue("fill", stream, {"memset", [=] { std::memset(data, value, size); }}, false);
}
API cudaError_t cudaMemset(void* data, int value, size_t size) {
  return cudaMemsetAsync(data, value, size, cudaStreamLegacy);
}

// Streams.

API cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  const Lock lock(mutex);
  auto* created = new Stream{++streams_made, current_device};
  created->blocking = flags != cudaStreamNonBlocking;
  *stream = reinterpret_cast<cudaStream_t>(created);
  return cudaSuccess;
}
API cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}
API cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithPriority(stream, 0, 0); }
API cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }  // events and clocks may name it still
API cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) {
  *priority = 0;
  return cudaSuccess;
}
API cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
API cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  const Lock lock(mutex);
  Stream& stream = *stream_of(handle);
  if (stream.capture) {
    invalidate(stream.capture, "cudaStreamSynchronize");
    return failed(cudaErrorStreamCaptureUnsupported);
  }
  if (legacy_refused(stream, "cudaStreamSynchronize")) return failed(cudaErrorStreamCaptureImplicit);
  if (refused("cudaStreamSynchronize")) return failed(cudaErrorStreamCaptureUnsupported);
  note("sync", stream, "cudaStreamSynchronize");
  return cudaSuccess;
}
API cudaError_t cudaStreamQuery(cudaStream_t handle) {
  const Lock lock(mutex);
  Stream& stream = *stream_of(handle);
  if (stream.capture) {
    invalidate(stream.capture, "cudaStreamQuery");
    return failed(cudaErrorStreamCaptureUnsupported);
  }
  return legacy_refused(stream, "cudaStreamQuery") ? failed(cudaErrorStreamCaptureImplicit) : cudaSuccess;
}
// A device with a stream under capture cannot be waited for, in any mode.
API cudaError_t cudaDeviceSynchronize() {
  const Lock lock(mutex);
  bool capturing = refused("cudaDeviceSynchronize");
  for (Capture* capture : captures) {
    if (capture->origin->device != current_device) continue;
    invalidate(capture, "cudaDeviceSynchronize");
    capturing = true;
  }
  if (capturing) return failed(cudaErrorStreamCaptureUnsupported);
  note("sync", legacy_streams[current_device], "cudaDeviceSynchronize");
  return cudaSuccess;
}
API cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t call, void* data, unsigned) {
  if (stream_of(stream)->capture) return failed(cudaErrorStreamCaptureUnsupported);
  call(stream, cudaSuccess, data);
  return cudaSuccess;
}
API cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t call, void* data) {
  return enqueue("host", stream, {"function", [=] { call(data); }});
}

// Events.

API cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(new Event{current_device});
  return cudaSuccess;
}
API cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
API cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete from_handle<Event>(event);
  return cudaSuccess;
}
API cudaError_t cudaEventRecordWithFlags(cudaEvent_t handle, cudaStream_t stream_handle, unsigned) {
  const Lock lock(mutex);
  Event& event = *from_handle<Event>(handle);
  Stream& stream = *stream_of(stream_handle);
  if (event.device != stream.device) return failed(cudaErrorInvalidResourceHandle);
  if (legacy_refused(stream, "cudaEventRecord")) return failed(cudaErrorStreamCaptureImplicit);
  event.capture = stream.capture;
  event.capture_id = stream.capture ? stream.capture->id : 0;
  event.clock = stream.clock;
  event.time = std::chrono::steady_clock::now();
  note("event", stream, "record");
  return cudaSuccess;
}
API cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return cudaEventRecordWithFlags(event, stream, 0);
}

namespace {

// The capture that recorded an event, while it is under way.
Capture* capture_of(const Event& event) {
  const auto same = [&](const Capture* capture) { return capture->id == event.capture_id; };
  const auto found = std::find_if(captures.begin(), captures.end(), same);
  return found == captures.end() ? nullptr : *found;
}

cudaError_t ask(cudaEvent_t handle, const char* call) {
  const Event& event = *from_handle<Event>(handle);
  if (Capture* capture = capture_of(event)) invalidate(capture, call);
  if (event.capture_id) return failed(cudaErrorCapturedEvent);
  return refused(call) ? failed(cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}

}  // namespace

API cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Lock lock(mutex);
  return ask(event, "cudaEventQuery");
}
API cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(mutex);
  note("sync", legacy_streams[current_device], "cudaEventSynchronize");
  return ask(event, "cudaEventSynchronize");
}
API cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  const auto elapsed = from_handle<Event>(end)->time - from_handle<Event>(start)->time;
  *milliseconds = std::chrono::duration<float, std::milli>(elapsed).count();
  return cudaSuccess;
}
API cudaError_t cudaStreamWaitEvent(cudaStream_t stream_handle, cudaEvent_t event_handle, unsigned) {
  const Lock lock(mutex);
  Stream& stream = *stream_of(stream_handle);
  const Event& event = *from_handle<Event>(event_handle);
  Capture* capture = capture_of(event);
  note("event", stream, "wait");
  if (capture && stream.legacy) {
    invalidate(capture, "cudaStreamWaitEvent");
    return failed(cudaErrorStreamCaptureImplicit);
  }
  if (capture && stream.capture && stream.capture != capture) {
    invalidate(capture, "cudaStreamWaitEvent");
    invalidate(stream.capture, "cudaStreamWaitEvent");
    return failed(cudaErrorStreamCaptureMerge);
  }
  if (!capture && stream.capture) {
    invalidate(stream.capture, "cudaStreamWaitEvent");
    return failed(cudaErrorStreamCaptureIsolation);
  }
  if (!capture) return cudaSuccess;
  if (!stream.capture) {
    stream.capture = capture;
    stream.clock.clear();
    capture->streams.push_back(&stream);
  }
  for (const auto& [other, done] : event.clock) stream.clock[other] = std::max(stream.clock[other], done);
  return cudaSuccess;
}

// Capture and graphs.

API cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, thread_mode);
  return cudaSuccess;
}
API cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  const Lock lock(mutex);
  Stream& stream = *stream_of(handle);
  if (stream.legacy) return failed(cudaErrorStreamCaptureUnsupported);
  if (stream.capture) return failed(cudaErrorIllegalState);
  auto* capture = new Capture{++captures_made, mode, std::this_thread::get_id(), &stream, {&stream}, {}};
  stream.capture = capture;
  stream.clock.clear();
  captures.push_back(capture);
  return cudaSuccess;
}
API cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  const Lock lock(mutex);
  *graph = nullptr;
  Stream& origin = *stream_of(handle);
  Capture* capture = origin.capture;
  if (!capture) return failed(cudaErrorIllegalState);
  if (capture->origin != &origin) return failed(cudaErrorStreamCaptureUnmatched);
  if (capture->mode != cudaStreamCaptureModeRelaxed && capture->owner != std::this_thread::get_id()) {
    return failed(cudaErrorStreamCaptureWrongThread);
  }
  bool joined = true;
  for (Stream* stream : capture->streams) {
    joined = joined && origin.clock[stream] >= stream->clock[stream];
    stream->capture = nullptr;
  }
  captures.erase(std::find(captures.begin(), captures.end(), capture));
  const std::unique_ptr<Capture> ended(capture);
  if (ended->invalid) return failed(cudaErrorStreamCaptureInvalidated);
  if (!joined) return failed(cudaErrorStreamCaptureUnjoined);
  *graph = reinterpret_cast<cudaGraph_t>(new Graph{std::move(ended->work)});
  return cudaSuccess;
}
API cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  const Lock lock(mutex);
  const Stream& stream = *stream_of(handle);
  if (legacy_refused(stream, "cudaStreamIsCapturing")) return failed(cudaErrorStreamCaptureImplicit);
  *status = !stream.capture           ? cudaStreamCaptureStatusNone
            : stream.capture->invalid ? cudaStreamCaptureStatusInvalidated
                                      : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
API cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status, unsigned long long* id,
                                         cudaGraph_t* graph, const cudaGraphNode_t** dependencies,
                                         const cudaGraphEdgeData** edges, size_t* count) {
  const Lock lock(mutex);
  if (const cudaError_t error = cudaStreamIsCapturing(stream, status); error != cudaSuccess) return error;
  Capture* capture = stream_of(stream)->capture;
  if (id) *id = capture ? capture->id : 0;
  if (graph) *graph = reinterpret_cast<cudaGraph_t>(capture);  // an opaque name of it
  if (dependencies) *dependencies = nullptr;
  if (edges) *edges = nullptr;
  if (count) *count = 0;
  return cudaSuccess;
}
API cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* count) {
  *count = from_handle<Graph>(graph)->work.size();
  return cudaSuccess;
}
API cudaError_t cudaGraphNodeGetDependencies(cudaGraphNode_t, cudaGraphNode_t*, cudaGraphEdgeData*, size_t* count) {
  *count = 0;
  return cudaSuccess;
}
API cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  const Lock lock(mutex);
  if (refused("cudaGraphInstantiate")) return failed(cudaErrorStreamCaptureUnsupported);
  *executable = reinterpret_cast<cudaGraphExec_t>(new Graph(*from_handle<Graph>(graph)));
  return cudaSuccess;
}
API cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  const Graph* graph = from_handle<Graph>(executable);
  const auto run = [graph] {
    for (const Work& work : graph->work) {
      if (work.run) work.run();
    }
  };
  return enqueue("graph", stream, {std::to_string(graph->work.size()), run});
}
API cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete from_handle<Graph>(graph);
  return cudaSuccess;
}
API cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete from_handle<Graph>(executable);
  return cudaSuccess;
}
API cudaError_t cudaGraphDebugDotPrint(cudaGraph_t, const char*, unsigned) { return cudaSuccess; }

// Kernels that nvcc compiled: what its host code calls.

API void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
API void __cudaRegisterFatBinaryEnd(void**) {}
API void __cudaUnregisterFatBinary(void**) {}
API char __cudaInitModule(void**) { return 1; }
API void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
API void __cudaRegisterFunction(void**, const char* kernel, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                                int*) {
  const Lock lock(mutex);
  kernel_names[kernel] = name;
}
API cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}

namespace {

struct Configuration {
  dim3 grid, block;
  size_t shared_memory;
  cudaStream_t stream;
};
thread_local std::vector<Configuration> configurations;

}  // namespace

API unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_memory, cudaStream_t stream) {
  configurations.push_back({grid, block, shared_memory, stream});
  return 0;
}
API cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared_memory, void* stream) {
  const Configuration last = configurations.back();
  configurations.pop_back();
  *grid = last.grid;
  *block = last.block;
  *shared_memory = last.shared_memory;
  *static_cast<cudaStream_t*>(stream) = last.stream;
  return cudaSuccess;
}
API cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void**, size_t, cudaStream_t stream) {
  return launch(kernel, grid, block, stream);
}
API cudaError_t cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void**, size_t, cudaStream_t stream) {
  return launch(kernel, grid, block, stream);
}
API cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* kernel, void**) {
  return launch(kernel, config->gridDim, config->blockDim, config->stream);
}
API cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  std::memset(attributes, 0, sizeof *attributes);
  attributes->maxThreadsPerBlock = 1024;
  attributes->numRegs = 32;
  attributes->binaryVersion = attributes->ptxVersion = 90;
  return cudaSuccess;
}
API cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks_of_it, const void*, int threads,
                                                                       size_t, unsigned) {
  *blocks_of_it = threads ? 2048 / threads : 1;
  return cudaSuccess;
}
API cudaError_t cudaGetSymbolAddress(void** address, const void* symbol) {
  *address = const_cast<void*>(symbol);
  return cudaSuccess;
}
API cudaError_t cudaMemcpyToSymbol(const void*, const void*, size_t, size_t, cudaMemcpyKind) { return cudaSuccess; }

// The driver. PyTorch asks the runtime for its functions; those that it does not call are given one that succeeds.

API int cuda_stand_in_succeed() { return 0; }
API cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long,
                                                 cudaDriverEntryPointQueryResult* result) {
  *function = dlsym(RTLD_DEFAULT, name);
  if (!*function) *function = reinterpret_cast<void*>(&cuda_stand_in_succeed);
  if (result) *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
API int cuCtxGetCurrent(void** context) {
  *context = has_context ? &legacy_streams[current_device] : nullptr;
  return 0;
}
API int cuCtxSetCurrent(void*) {
  has_context = true;
  return 0;
}
API int cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) {
  *flags = 0;
  *active = 1;
  return 0;
}
API int cuDevicePrimaryCtxRetain(void** context, int device) {
  *context = &legacy_streams[device];
  return 0;
}

#define SUCCEEDS(function) \
  API int function() { return 0; }
SUCCEEDS(cuInit)
SUCCEEDS(cuGetErrorString)
SUCCEEDS(cuModuleLoadData)
SUCCEEDS(cuModuleUnload)
SUCCEEDS(cuDeviceGet)
SUCCEEDS(cuDeviceGetAttribute)

// cuBLAS: products are counted and not computed.

namespace {

struct Handle {
  cudaStream_t stream = nullptr;
};

int multiply(void* handle, const char* name) {
  constexpr int CUBLAS_STATUS_EXECUTION_FAILED = 13;
  const cudaError_t error = enqueue("product", static_cast<Handle*>(handle)->stream, {name, {}});
  return error == cudaSuccess ? 0 : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // namespace

API int cublasCreate_v2(void** handle) {
  constexpr int CUBLAS_STATUS_NOT_INITIALIZED = 1;
  const Lock lock(mutex);
  if (refused("cublasCreate")) return CUBLAS_STATUS_NOT_INITIALIZED;  // it allocates
  *handle = new Handle;
  return 0;
}
API int cublasDestroy_v2(void* handle) {
  delete static_cast<Handle*>(handle);
  return 0;
}
API int cublasSetStream_v2(void* handle, cudaStream_t stream) {
  static_cast<Handle*>(handle)->stream = stream;
  return 0;
}
API int cublasGetMathMode(void*, int* mode) { return *mode = 0; }
API int cublasGetPointerMode_v2(void*, int* mode) { return *mode = 0; }
SUCCEEDS(cublasSetMathMode)
SUCCEEDS(cublasSetPointerMode_v2)
SUCCEEDS(cublasSetWorkspace_v2)

#define MULTIPLIES(function) \
  API int function(void* handle, ...) { return multiply(handle, #function); }
MULTIPLIES(cublasSgemm_v2)
MULTIPLIES(cublasDgemm_v2)
MULTIPLIES(cublasGemmEx)
MULTIPLIES(cublasSgemmEx)
MULTIPLIES(cublasGemmStridedBatchedEx)
MULTIPLIES(cublasSgemmStridedBatched)
MULTIPLIES(cublasDgemmStridedBatched)
MULTIPLIES(cublasSgemv_v2)
MULTIPLIES(cublasDgemv_v2)
MULTIPLIES(cublasSdot_v2)
MULTIPLIES(cublasDdot_v2)
MULTIPLIES(cublasDotEx)

API size_t cublasLtGetVersion() { return CUDART_VERSION * 10; }
// Descriptions are opaque and never read.
API int cublasLtMatmulDescCreate(void** description, int, int) {
  *description = std::malloc(1);
  return 0;
}
API int cublasLtMatrixLayoutCreate(void** layout, int, uint64_t, uint64_t, int64_t) {
  *layout = std::malloc(1);
  return 0;
}
API int cublasLtMatmulPreferenceCreate(void** preference) {
  *preference = std::malloc(1);
  return 0;
}
#define FREES(function)           \
  API int function(void* thing) { \
    std::free(thing);             \
    return 0;                     \
  }
FREES(cublasLtMatmulDescDestroy)
FREES(cublasLtMatrixLayoutDestroy)
FREES(cublasLtMatmulPreferenceDestroy)
SUCCEEDS(cublasLtMatmulDescSetAttribute)
SUCCEEDS(cublasLtMatrixLayoutSetAttribute)
SUCCEEDS(cublasLtMatmulPreferenceSetAttribute)
API int cublasLtMatmulAlgoGetHeuristic(void*, void*, void*, void*, void*, void*, void*, int, void* result, int* count) {
  constexpr size_t RESULT = 96;  // bytes of cublasLtMatmulHeuristicResult_t; zeros say CUBLAS_STATUS_SUCCESS
  std::memset(result, 0, RESULT);
  *count = 1;
  return 0;
}
API int cublasLtMatmul(void*, void*, const void*, const void*, void*, const void*, void*, const void*, const void*,
                       void*, void*, void*, const void*, void*, size_t, cudaStream_t stream) {
  return enqueue("product", stream, {"cublasLtMatmul", {}}) == cudaSuccess ? 0 : 13;
}

// NCCL with one process, whose collectives copy.

namespace {

constexpr int NCCL_INVALID_ARGUMENT = 4;
constexpr std::array<size_t, 10> NCCL_SIZES = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};  // by ncclDataType_t

int copy_to_oneself(const char* name, const void* from, void* to, size_t count, int type, cudaStream_t stream) {
  if (type < 0 || type >= static_cast<int>(NCCL_SIZES.size())) return NCCL_INVALID_ARGUMENT;
  const auto copy = [=, size = count * NCCL_SIZES[type]] { std::memmove(to, from, size); };
  return enqueue("collective", stream, {name, copy}) == cudaSuccess ? 0 : 1;
}

int communicator(void** made, int processes) {
  if (processes != 1) return NCCL_INVALID_ARGUMENT;
  *made = std::malloc(1);
  return 0;
}

}  // namespace

struct NcclUniqueId {
  char bytes[128];
};

API int ncclGetVersion(int* version) {
  *version = 22809;
  return 0;
}
API int ncclGetUniqueId(NcclUniqueId* id) {
  std::memset(id, 1, sizeof *id);
  return 0;
}
API int ncclCommInitRank(void** made, int processes, NcclUniqueId, int) { return communicator(made, processes); }
API int ncclCommInitRankConfig(void** made, int processes, NcclUniqueId, int, void*) {
  return communicator(made, processes);
}
API int ncclCommGetAsyncError(void*, int* error) { return *error = 0; }
API int ncclCommCount(void*, int* count) {
  *count = 1;
  return 0;
}
API int ncclCommUserRank(void*, int* rank) { return *rank = 0; }
API const char* ncclGetErrorString(int) { return "an error of the stand-in's NCCL, which has one process"; }
API const char* ncclGetLastError(void*) { return ""; }
API int ncclAllReduce(const void* from, void* to, size_t count, int type, int, void*, cudaStream_t stream) {
  return copy_to_oneself("ncclAllReduce", from, to, count, type, stream);
}
API int ncclBroadcast(const void* from, void* to, size_t count, int type, int, void*, cudaStream_t stream) {
  return copy_to_oneself("ncclBroadcast", from, to, count, type, stream);
}
API int ncclBcast(void* buffer, size_t count, int type, int, void*, cudaStream_t stream) {
  return copy_to_oneself("ncclBcast", buffer, buffer, count, type, stream);
}
FREES(ncclCommDestroy)
FREES(ncclCommAbort)
SUCCEEDS(ncclCommFinalize)
SUCCEEDS(ncclGroupStart)
SUCCEEDS(ncclGroupEnd)
SUCCEEDS(ncclCommRegister)
SUCCEEDS(ncclCommDeregister)
