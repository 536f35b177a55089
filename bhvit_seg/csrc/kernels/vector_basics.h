// What several parts of vector_kernels.h share.
#pragma once

#include "kernels.h"

namespace bhvit {
namespace BHVIT_ISA {
namespace {

// One bit of a word each, to be read as an operand.
constexpr uint32_t kBits[32] = {
    1u << 0,  1u << 1,  1u << 2,  1u << 3,  1u << 4,  1u << 5,  1u << 6,  1u << 7,
    1u << 8,  1u << 9,  1u << 10, 1u << 11, 1u << 12, 1u << 13, 1u << 14, 1u << 15,
    1u << 16, 1u << 17, 1u << 18, 1u << 19, 1u << 20, 1u << 21, 1u << 22, 1u << 23,
    1u << 24, 1u << 25, 1u << 26, 1u << 27, 1u << 28, 1u << 29, 1u << 30, 1u << 31};

// Calls body(0) to body(N - 1), with constants from the beginning: arrays of accumulators that
// loops index, even if they are unrolled later, tend to end up in memory.
template <int N, typename Body>
BHVIT_INLINE void repeat(const Body& body) {
  if constexpr (N > 0) {
    repeat<N - 1>(body);
    body(N - 1);
  }
}

// Calls body(o, t) for kOutputs outputs of T vectors.
template <int T, typename Body>
BHVIT_INLINE void for_block(const Body& body) {
  repeat<kOutputs * T>([&](int i) BHVIT_HERE { body(i / T, i % T); });
}

// Numbers of vectors as types.
struct One {
  static constexpr int kSize = 1;
};
struct Two {
  static constexpr int kSize = 2;
};

// Vectors that binary products take together.
constexpr int kProductTokens = kTableTokens ? kTableTokens : kTokens;

// Calls run(first vector, number) until all vectors are done.
template <int Together = kTokens, typename Run>
BHVIT_INLINE void for_vectors(int vectors, Run&& run) {
  int v = 0;
  if constexpr (Together == 2) {
    for (; v + 2 <= vectors; v += 2) run(v, Two());
  }
  for (; v < vectors; ++v) run(v, One());
}

}  // namespace
}  // namespace BHVIT_ISA
}  // namespace bhvit
