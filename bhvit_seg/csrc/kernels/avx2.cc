// Kernels for AVX2 with FMA: bits are counted by table.
#if defined(__AVX2__)

#define BHVIT_ISA avx2
#include "lanes_avx2.h"
//
#include "tables_avx2.h"
//
#include "vector_kernels.h"

namespace bhvit {
extern const Kernels kAvx2Kernels;
const Kernels kAvx2Kernels = avx2::make_kernels("avx2");
}  // namespace bhvit

#endif
