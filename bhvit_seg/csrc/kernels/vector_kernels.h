// The kernels over vectors of tokens, for whichever instruction set's lanes were included before:
// BHVIT_ISA names the namespace. Order of operations and places of fused multiply-adds are those
// of serial.cc.
#pragma once

#include "kernels.h"
#include "vector_attention.h"
#include "vector_convolution.h"
#include "vector_mlp.h"
#include "vector_products.h"
#include "vector_tiles.h"
#include "vector_upsample.h"

namespace bhvit {
namespace BHVIT_ISA {
namespace {

template <typename Tables = Tables>
int64_t busy_count(int rounds, uint32_t* sink) {
  if constexpr (kTableTokens > 0) return Tables::busy_count(rounds, sink);
  constexpr int kTogether = kTokens == 2 ? 8 : 2;
  U a = load(sink), weights[kTogether], sums[kTogether];
  for (int i = 0; i < kTogether; ++i) {
    weights[i] = add(a, broadcast(i));
    sums[i] = broadcast(0u);
  }
  for (int from = 0; from < rounds; from += 16) {
    Counter counters[kTogether];
    for (int i = 0; i < kTogether; ++i) counters[i].start(sums[i]);
    for (int k = 0; k < 16; ++k) {
#pragma GCC unroll 8
      for (int i = 0; i < kTogether; ++i) counters[i].add_differences(a, weights[i]);
      a = add(a, sums[0]);
    }
    for (int i = 0; i < kTogether; ++i) sums[i] = counters[i].finish(sums[i]);
  }
  for (int i = 1; i < kTogether; ++i) sums[0] = add(sums[0], sums[i]);
  store(sink, sums[0]);
  return int64_t{rounds} * kTogether * kLanes * 32;
}

int64_t busy_multiply(int rounds, float* sink) {
  constexpr int kTogether = kTokens == 2 ? 16 : 6;
  const F a = load(sink), b = broadcast(0.5f);
  F sums[kTogether];
  for (auto& sum : sums) sum = a;
  for (int k = 0; k < rounds; ++k) {
#pragma GCC unroll 16
    for (int i = 0; i < kTogether; ++i) sums[i] = fma(sums[i], b, a);
  }
  for (int i = 1; i < kTogether; ++i) sums[0] = add(sums[0], sums[i]);
  store(sink, sums[0]);
  return int64_t{rounds} * kTogether * kLanes;
}

constexpr Kernels make_kernels(const char* name) {
  return {name,
          load_tile,
          store_tile,
          pack_tile,
          pack_and_average,
          normalize_bytes,
          embed_tile,
          multiply_tile,
          load_patches,
          mlp,
          multi_scale,
          convolve,
          project,
          project_tokens,
          attend,
          mix_context,
          pool_rows,
          upsample_tile,
          upsample_and_pack,
          label_rows,
          busy_count<>,
          busy_multiply};
}

}  // namespace
}  // namespace BHVIT_ISA
}  // namespace bhvit
