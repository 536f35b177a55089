// Binary products of tiles, which layers finish in their own ways; part of vector_kernels.h.
#pragma once

#include "kernels.h"
#include "vector_basics.h"

namespace bhvit {
namespace BHVIT_ISA {
namespace {

BHVIT_INLINE int32_t half(int inputs) { return inputs / 2; }

// Counts how T vectors of one word of tokens differ from O weights.
template <int T, int O>
BHVIT_INLINE void add_word(const uint32_t* activations, const uint32_t* weights,
                           Counter (&counters)[O][T]) {
  U a[T];
  repeat<T>([&](int t) BHVIT_HERE { a[t] = load(activations + t * kLanes); });
  repeat<O>([&](int o) BHVIT_HERE {
    const U w = broadcast(weights[o]);
    repeat<T>([&](int t) BHVIT_HERE { counters[o][t].add_differences(a[t], w); });
  });
}

// acc[o][t] += popcount over words of (activations[t] xor weights[o]).
// activations: [words][stride]; weights: [words][8], first of them at `weights`. N: number of words
// if it is known, else 0.
template <int T, int O, int N = 0>
BHVIT_INLINE void count_differences(const uint32_t* activations, int stride,
                                    const uint32_t* weights, int words, U (&acc)[O][T]) {
  static_assert(N <= Counter::kMaxWords, "a counter overflows");
  for (int from = 0; from < words; from += Counter::kMaxWords) {
    const int to = words - from < Counter::kMaxWords ? words : from + Counter::kMaxWords;
    Counter counters[O][T];
    repeat<O>([&](int o) BHVIT_HERE {
      repeat<T>([&](int t) BHVIT_HERE { counters[o][t].start(acc[o][t]); });
    });
    if constexpr (N > 0) {
      repeat<N>([&](int k) BHVIT_HERE {
        add_word(activations + k * stride, weights + k * kBlock, counters);
      });
    } else {
      for (int k = from; k < to; ++k)
        add_word(activations + k * stride, weights + k * kBlock, counters);
    }
    repeat<O>([&](int o) BHVIT_HERE {
      repeat<T>([&](int t) BHVIT_HERE { acc[o][t] = counters[o][t].finish(acc[o][t]); });
    });
    if constexpr (N > 0) return;
  }
}

// Where the weights of outputs [first, first + kOutputs) begin.
BHVIT_INLINE const uint32_t* weights_of(const uint32_t* weights, int first, int words) {
  return weights + first / kBlock * words * kBlock + first % kBlock;
}

template <int T>
BHVIT_INLINE void start_sums(int inputs, U (&acc)[kOutputs][T]) {
  const U start = broadcast(-half(inputs));
  for_block<T>([&](int o, int t) BHVIT_HERE { acc[o][t] = start; });
}

// All outputs of a product on tiles of T vectors: finish(first, accumulators) takes kOutputs of
// them together, so that whatever depends on the output alone is worked out once for all.
template <int T, typename Finish>
BHVIT_INLINE void for_outputs(const uint32_t* bits, int stride, int inputs, const uint32_t* weights,
                              int outputs, Finish&& finish) {
  const int words = inputs / 32;
  for (int first = 0; first < outputs; first += kOutputs) {
    U acc[kOutputs][T];
    start_sums(inputs, acc);
    count_differences<T, kOutputs>(bits, stride, weights_of(weights, first, words), words, acc);
    finish(first, acc);
  }
}

// The bits of a word for T vectors of tokens, collected output by output.
template <int T>
class Words {
 public:
  BHVIT_INLINE Words() { clear(); }
  // Bit `o` behind output `first` of a word, first a multiple of kOutputs.
  BHVIT_INLINE void set(int first, int o, int t, M where) {
    words_[t] = or_where(where, words_[t], broadcast(kBits[first % 32 + o]));
  }
  // After kOutputs outputs: writes the word they end, if they end one, to out[word][stride].
  BHVIT_INLINE void flush(int first, uint32_t* out, int stride) {
    if (first % 32 + kOutputs < 32) return;
    for (int t = 0; t < T; ++t) store(out + first / 32 * stride + t * kLanes, words_[t]);
    clear();
  }

 private:
  BHVIT_INLINE void clear() {
    for (auto& word : words_) word = broadcast(0u);
  }
  U words_[T];
};

// The shortcut to outputs [first, first + kOutputs): channels repeated, or averaged over adjacent
// ones; both numbers of channels are multiples of kOutputs.
template <bool Average>
class Shortcut {
 public:
  BHVIT_INLINE Shortcut(const float* tile, int channels, int outputs, int first, int stride)
      : stride_(stride),
        ratio_(Average ? channels / outputs : 1),
        tile_(tile + first * ratio_ % channels * stride),
        share_(broadcast(1.0f / static_cast<float>(ratio_))) {}
  BHVIT_INLINE F at(int o, int lane) const {
    if (!Average) return load(tile_ + o * stride_ + lane);
    const float* from = tile_ + o * ratio_ * stride_ + lane;
    F sum = load(from);
    for (int i = 1; i < ratio_; ++i) sum = add(sum, load(from + i * stride_));
    return multiply(sum, share_);
  }

 private:
  const int stride_, ratio_;
  const float* tile_;
  const F share_;
};

BHVIT_INLINE F activate(const OutputChannel& p, U acc, F shortcut) {
  const F y = add(fma(to_float(acc), broadcast(p.scale), broadcast(p.bias)), shortcut);
  return prelu(y, broadcast(p.slope));
}

template <int T, bool Average>
void project_tile(const uint32_t* bits, int inputs, const uint32_t* weights,
                  const OutputChannel* outputs, int number, const float* shortcut,
                  int shortcut_channels, int stride, float* out) {
  for_outputs<T>(bits, stride, inputs, weights, number, [&](int first, auto& acc) BHVIT_HERE {
    const OutputChannel* p = outputs + first;
    const Shortcut<Average> past(shortcut, shortcut_channels, number, first, stride);
    float* __restrict to = out + first * stride;
    for_block<T>([&](int o, int t) BHVIT_HERE {
      const F y = activate(p[o], acc[o][t], past.at(o, t * kLanes));
      store(to + o * stride + t * kLanes,
            fma(y, broadcast(p[o].post_scale), broadcast(p[o].post_bias)));
    });
  });
}

void project(const uint32_t* bits, int inputs, const uint32_t* weights,
             const OutputChannel* outputs, int number, const float* shortcut, int shortcut_channels,
             int stride, int vectors, float* out) {
  for_vectors(vectors, [&](int v, auto size) {
    constexpr int T = decltype(size)::kSize;
    const int lane = v * kLanes;
    const auto run = shortcut_channels > number ? project_tile<T, true> : project_tile<T, false>;
    run(bits + lane, inputs, weights, outputs, number, shortcut + lane, shortcut_channels, stride,
        out + lane);
  });
}

}  // namespace
}  // namespace BHVIT_ISA
}  // namespace bhvit
