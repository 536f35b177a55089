// What the plain kernels share; part of serial.cc.
#pragma once

#include <cmath>

#include "kernels.h"

namespace bhvit {
namespace {

int popcount(uint32_t x) { return __builtin_popcount(x); }

float fused(float a, float b, float c) { return std::fma(a, b, c); }

float prelu(float x, float slope) { return x > 0.0f ? x : x * slope; }

// p - K/2 for the bits of one token: activations[word * stride] against blocked weights.
int32_t accumulate_words(const uint32_t* activations, int stride, const uint32_t* weights,
                         int words, int output, int32_t start) {
  const uint32_t* row = weights + output / kBlock * words * kBlock + output % kBlock;
  for (int k = 0; k < words; ++k) start += popcount(activations[k * stride] ^ row[k * kBlock]);
  return start;
}

int32_t accumulate_inputs(const uint32_t* bits, int stride, int inputs, const uint32_t* weights,
                          int output) {
  return accumulate_words(bits, stride, weights, inputs / 32, output, -(inputs / 2));
}

float activate(const OutputChannel& p, int32_t acc, float shortcut) {
  return prelu(fused(static_cast<float>(acc), p.scale, p.bias) + shortcut, p.slope);
}

}  // namespace
}  // namespace bhvit
