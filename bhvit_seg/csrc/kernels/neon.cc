// Kernels for NEON on arm64.
#if defined(__aarch64__)

#define BHVIT_ISA neon
#include "lanes_neon.h"
//
#include "vector_kernels.h"

namespace bhvit {
extern const Kernels kNeonKernels;
const Kernels kNeonKernels = neon::make_kernels("neon");
}  // namespace bhvit

#endif
