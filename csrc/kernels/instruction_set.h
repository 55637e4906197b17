// Several instruction sets in one binary: a function marked INSTRUCTION_SET_CLONES is compiled once for each, and the
// loader chooses the best that the processor supports. Results do not depend on the choice: reductions have a fixed
// number of lanes, and contraction into fused multiply-adds is off.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define INSTRUCTION_SET_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define INSTRUCTION_SET_CLONES
#endif

namespace wgan_fast {

// The instruction set that the loader chose: "x86-64-v4", "x86-64-v3" or "baseline".
const char* instruction_set();

}  // namespace wgan_fast
