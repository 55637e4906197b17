// The threads of a block as fibers of one thread: they take turns where they meet at a barrier. Far faster than real
// threads, but no sanitizer sees a race between them.
#pragma once

#include <setjmp.h>  // switches between fibers without the system call of swapcontext
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <utility>
#include <vector>

namespace cuda_on_host {

class Threads;
inline Threads* running = nullptr;

class Threads {
 public:
  explicit Threads(unsigned count) : fibers_(count) {
    for (auto& fiber : fibers_) {
      void* stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (stack == MAP_FAILED) std::abort();
      getcontext(&fiber.context);
      fiber.context.uc_stack = {stack, 0, STACK};
      makecontext(&fiber.context, run_fiber, 0);
    }
  }

  unsigned count() const { return static_cast<unsigned>(fibers_.size()); }

  // Calls work() once for each thread of the block, with threadIdx set.
  void run(std::function<void()> work) {
    running = this;
    work_ = std::move(work);
    for (auto& fiber : fibers_) fiber.finished = false;
    for (unsigned unfinished = count(); unfinished > 0;) {
      progress_ = false;
      for (current_ = 0; current_ < count(); ++current_) {
        if (fibers_[current_].finished) continue;
        threadIdx.x = current_;
        resume(fibers_[current_]);
        if (fibers_[current_].finished) --unfinished;
      }
      if (!progress_) {
        std::fputs("cuda_on_host: some threads of a block wait at a barrier that the others do not reach\n", stderr);
        std::abort();
      }
    }
    running = nullptr;
  }

  // Lets the other threads of the block go on.
  void yield() {
    if (_setjmp(fibers_[current_].state) == 0) _longjmp(scheduler_, 1);
  }
  void progressed() { progress_ = true; }

 private:
  static constexpr size_t STACK = 256 << 10;
  struct Fiber {
    ucontext_t context;  // that it begins with
    jmp_buf state;
    bool begun = false;
    bool finished = true;
  };

  void resume(Fiber& fiber) {
    if (_setjmp(scheduler_) != 0) return;
    if (fiber.begun) _longjmp(fiber.state, 1);
    fiber.begun = true;
    setcontext(&fiber.context);
  }

  static void run_fiber() {
    for (;;) {
      running->work_();
      running->fibers_[running->current_].finished = true;
      running->progressed();
      running->yield();
    }
  }

  std::vector<Fiber> fibers_;
  jmp_buf scheduler_;
  std::function<void()> work_;
  unsigned current_ = 0;
  bool progress_ = false;  // since the last round: a thread has ended or the last one has arrived at a barrier
};

class Barrier {
 public:
  explicit Barrier(unsigned expected) : expected_(expected) {}
  void arrive_and_wait() {
    if (++arrived_ == expected_) {
      arrived_ = 0;
      ++phase_;
      running->progressed();
      return;
    }
    for (const unsigned phase = phase_; phase == phase_;) running->yield();
  }

 private:
  unsigned expected_, arrived_ = 0, phase_ = 0;
};

}  // namespace cuda_on_host
