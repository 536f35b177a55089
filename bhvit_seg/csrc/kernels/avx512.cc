// Kernels for AVX-512 with VPOPCNTDQ: one instruction counts the bits of sixteen words.
#if defined(__AVX512VPOPCNTDQ__)

#define BHVIT_ISA avx512
#include "lanes_avx512.h"
//
#include "vector_kernels.h"

namespace bhvit {
extern const Kernels kAvx512Kernels;
const Kernels kAvx512Kernels = avx512::make_kernels("avx512");
}  // namespace bhvit

#endif
