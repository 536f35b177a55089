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

// Accumulators of kOutputs outputs.
template <int T>
struct Sums {
  U sums[kOutputs][T];
  BHVIT_INLINE U operator()(int o, int t) const { return sums[o][t]; }
};

template <int T>
BHVIT_INLINE void count_outputs(const uint32_t* bits, int stride, int inputs,
                                const uint32_t* weights, int first, Sums<T>& acc) {
  const U start = broadcast(-half(inputs));
  for_block<T>([&](int o, int t) BHVIT_HERE { acc.sums[o][t] = start; });
  const int words = inputs / 32;
  count_differences<T, kOutputs>(bits, stride, weights_of(weights, first, words), words, acc.sums);
}

// The same as for_outputs, by table: tabulate(tables, first word, number) makes those of some
// words.
template <typename Tabulate, typename Finish, typename Tables = Tables>
BHVIT_INLINE void tabulate_outputs(int words, const uint32_t* weights, int outputs,
                                   Tabulate&& tabulate, Finish&& finish) {
  const int together = div_up(words, div_up(words, Tables::kMaxWords));
  Tables tables;
  typename Tables::Sums sums;
  sums.start = -half(words * 32);
  for (int begin = 0; begin < outputs; begin += Tables::kMaxOutputs) {
    const int left = outputs - begin,
              some = left < Tables::kMaxOutputs ? left : Tables::kMaxOutputs;
    for (int from = 0; from < words; from += together) {
      const int number = words - from < together ? words - from : together;
      if (!begin || words > together) tabulate(tables, from, number);
      const uint32_t* part = weights + from * kBlock;
      for (int i = 0; i < some; i += kOutputs) {
        tables.count(weights_of(part, begin + i, words), number, i, from > 0, sums);
        if (from + number < words)
          tables.keep(sums, i);
        else
          finish(begin + i, sums);
      }
    }
  }
}

// All outputs of a product on tiles of T vectors: finish(first, accumulators) takes kOutputs of
// them together, so that whatever depends on the output alone is worked out once for all;
// accumulators(o, t) are those of a vector.
template <int T, typename Finish>
BHVIT_INLINE void for_outputs(const uint32_t* bits, int stride, int inputs, const uint32_t* weights,
                              int outputs, Finish&& finish) {
  if constexpr (T == kTableTokens) {
    const auto tabulate = [&](auto& tables, int from, int number)
                              BHVIT_HERE { tables.tabulate(bits + from * stride, stride, number); };
    tabulate_outputs(inputs / 32, weights, outputs, tabulate, finish);
  } else {
    for (int first = 0; first < outputs; first += kOutputs) {
      Sums<T> acc;
      count_outputs(bits, stride, inputs, weights, first, acc);
      finish(first, acc);
    }
  }
}

// The bits of a word for T vectors of tokens, collected output by output.
template <int T>
class Words {
 public:
  static constexpr int kWords = 1;
  BHVIT_INLINE Words() { clear(); }
  // Bit `o` behind output `first` of a word, first a multiple of kOutputs.
  BHVIT_INLINE void set(int first, int o, const M (&where)[T]) {
    const U bit = broadcast(kBits[first % 32 + o]);
    repeat<T>([&](int t) BHVIT_HERE { words_[t] = or_where(where[t], words_[t], bit); });
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

template <bool First, typename A, typename B>
struct Choose {
  using Type = A;
};
template <typename A, typename B>
struct Choose<false, A, B> {
  using Type = B;
};

// The bits of T vectors of tokens from one layer for the next product: in words
// [words][T * kLanes], or as tables take them.
template <int T>
using Packer = typename Choose<T == kTableTokens, Nibbles, Words<T>>::Type;

// The same as for_outputs, of bits that Packer has written.
template <int T, typename Finish>
BHVIT_INLINE void for_packed_outputs(const uint32_t* bits, int inputs, const uint32_t* weights,
                                     int outputs, Finish&& finish) {
  if constexpr (T == kTableTokens) {
    const auto tabulate = [&](auto& tables, int from, int number)
                              BHVIT_HERE { tables.tabulate(bits + from * 2 * T * kLanes, number); };
    tabulate_outputs(inputs / 32, weights, outputs, tabulate, finish);
  } else {
    for_outputs<T>(bits, T * kLanes, inputs, weights, outputs, finish);
  }
}

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
    const Shortcut<Average> past(shortcut, shortcut_channels, number, first, stride);
    float* __restrict to = out + first * stride;
    repeat<kOutputs>([&](int o) BHVIT_HERE {
      const OutputChannel p = outputs[first + o];
      repeat<T>([&](int t) BHVIT_HERE {
        const F y = activate(p, acc(o, t), past.at(o, t * kLanes));
        store(to + o * stride + t * kLanes,
              fma(y, broadcast(p.post_scale), broadcast(p.post_bias)));
      });
    });
  });
}

void project(const uint32_t* bits, int inputs, const uint32_t* weights,
             const OutputChannel* outputs, int number, const float* shortcut, int shortcut_channels,
             int stride, int vectors, float* out) {
  for_vectors<kProductTokens>(vectors, [&](int v, auto size) {
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
