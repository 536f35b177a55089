// The kernels over vectors of tokens, for whichever instruction set's lanes were included before:
// BHVIT_ISA names the namespace. Order of operations and places of fused multiply-adds are those
// of serial.cc.
#pragma once

#include "constants.h"
#include "kernels.h"
#include "vector_basics.h"
#include "vector_enlarge.h"

namespace bhvit {
namespace BHVIT_ISA {
namespace {

constexpr int kMostSpans = kMaxVectors * kLanes;
// Planes of a row lie too far apart for the processor to foresee the next one; the next tile's
// values are asked for while this one is worked on.
constexpr int kAhead = kMaxVectors * kLanes;

BHVIT_INLINE F exp2_lanes(F x) {
  const F rounded = subtract(add(x, spread(kRound)), spread(kRound));
  const F f = subtract(x, rounded);
  F p = spread(kExp2[6]);
  for (int i = 5; i >= 0; --i) p = fma(p, f, spread(kExp2[i]));
  // rounded + kRound has the integer in its low bits
  const U exponent = shift_left(as_words(add(rounded, spread(kRound))), 23);
  return as_floats(add(as_words(p), exponent));
}

BHVIT_INLINE int32_t half(int inputs) { return inputs / 2; }

// Counts how T vectors of one word of tokens differ from O weights.
template <int T, int O>
BHVIT_INLINE void add_word(const uint32_t* activations, const uint32_t* weights,
                           Counter (&counters)[O][T]) {
  U a[T];
  repeat<T>([&](int t) BHVIT_HERE { a[t] = load(activations + t * kLanes); });
  repeat<O>([&](int o) BHVIT_HERE {
    const U w = spread(weights[o]);
    repeat<T>([&](int t) BHVIT_HERE { counters[o][t].add_differences(a[t], w); });
  });
}

// acc[o][t] += popcount over words of (activations[t] xor weights[o]).
// activations: [words][stride]; weights: [words][8], first of them at `weights`. N: number of words
// if it is known, else 0.
template <int T, int O, int N = 0>
BHVIT_INLINE void count_differences(const uint32_t* activations, int stride,
                                    const uint32_t* weights, int words, U (&acc)[O][T]) {
  static_assert(N <= Counter::kMost, "a counter overflows");
  for (int from = 0; from < words; from += Counter::kMost) {
    const int to = words - from < Counter::kMost ? words : from + Counter::kMost;
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
  const U start = spread(-half(inputs));
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
    words_[t] = or_where(where, words_[t], spread(kBits[first % 32 + o]));
  }
  // After kOutputs outputs: writes the word they end, if they end one, to out[word][stride].
  BHVIT_INLINE void flush(int first, uint32_t* out, int stride) {
    if (first % 32 + kOutputs < 32) return;
    for (int t = 0; t < T; ++t) store(out + first / 32 * stride + t * kLanes, words_[t]);
    clear();
  }

 private:
  BHVIT_INLINE void clear() {
    for (auto& word : words_) word = spread(0u);
  }
  U words_[T];
};

void load_tile(const Map& map, int channels, Tokens tokens, const float* scale, const float* bias,
               float* tile, int stride) {
  Span spans[kMostSpans];
  const int number = cut_into_spans(tokens.token, tokens.count, map.width, spans);
  for (int c = 0; c < channels; ++c) {
    for (int s = 0; s < number; ++s) {
      const float* from = map.at(spans[s].y, c, spans[s].x);
      __builtin_prefetch(from + kAhead);
      F x = load_first(from, spans[s].count);
      if (scale) x = fma(x, spread(scale[c]), spread(bias[c]));
      // what a short run writes beyond itself belongs to the run or channel that comes next
      store(tile + c * stride + spans[s].lane, x);
    }
  }
}

// Copies columns that the circular border repeats: -2, -1, width, width + 1.
BHVIT_INLINE void wrap_span(const Map& map, int channels, const Span& span) {
  const int borders[4] = {-2, -1, map.width, map.width + 1};
  for (int border : borders) {
    const int x = (border + 2 * map.width) % map.width;
    if (x < span.x || x >= span.x + span.count) continue;
    float* row = map.at(span.y, 0, 0);
    for (int c = 0; c < channels; ++c, row += map.plane) row[border] = row[x];
  }
}

void store_tile(const float* tile, int stride, int channels, const Map& map, Tokens tokens,
                bool accumulate, bool wrap) {
  Span spans[kMostSpans];
  const int number = cut_into_spans(tokens.token, tokens.count, map.width, spans);
  for (int c = 0; c < channels; ++c) {
    for (int s = 0; s < number; ++s) {
      float* to = map.at(spans[s].y, c, spans[s].x);
      F x = load(tile + c * stride + spans[s].lane);
      if (accumulate) x = add(x, load_first(to, spans[s].count));
      store_first(to, x, spans[s].count);
    }
  }
  if (wrap)
    for (int s = 0; s < number; ++s) wrap_span(map, channels, spans[s]);
}

void add_map(const Map& map, int channels, Tokens tokens, float* tile, int stride) {
  Span spans[kMostSpans];
  const int number = cut_into_spans(tokens.token, tokens.count, map.width, spans);
  for (int c = 0; c < channels; ++c)
    for (int s = 0; s < number; ++s) {
      const float* from = map.at(spans[s].y, c, spans[s].x);
      __builtin_prefetch(from + kAhead);
      float* at = tile + c * stride + spans[s].lane;
      store_first(at, add(load(at), load_first(from, spans[s].count)), spans[s].count);
    }
}

void pack_tile(const float* tile, int stride, int channels, int vectors, const float* scale,
               const float* bias, uint32_t* bits) {
  const F zero = spread(0.0f);
  for (int word = 0; word < channels / 32; ++word) {
    for (int v = 0; v < vectors; ++v) {
      U packed = spread(0u);
      for (int i = 0; i < 32; ++i) {
        const int c = 32 * word + i;
        const F x = load(tile + c * stride + v * kLanes);
        const F y = scale ? fma(x, spread(scale[c]), spread(bias[c])) : add(x, spread(bias[c]));
        packed = or_where(at_least(y, zero), packed, spread(kBits[i]));
      }
      store(bits + word * stride + v * kLanes, packed);
    }
  }
}

void gelu_tile(float* tile, int stride, int channels, int vectors) {
  const F zero = spread(0.0f), end = spread(kErfcEnd), one = spread(1.0f), half = spread(0.5f);
  for (int c = 0; c < channels; ++c) {
    for (int v = 0; v < vectors; ++v) {
      float* at = tile + c * stride + v * kLanes;
      const F x = load(at);
      const F size = larger(x, subtract(zero, x));
      const F u = select(above(size, end), end, size);
      F p = spread(kErfc[10]);
      for (int i = 9; i >= 0; --i) p = fma(p, u, spread(kErfc[i]));
      const F tail = multiply(half, exp2_lanes(subtract(zero, multiply(u, p))));
      store(at, multiply(x, select(above(x, zero), subtract(one, tail), tail)));
    }
  }
}

template <int T>
BHVIT_INLINE void multiply_column(const float* tile, int stride, int inputs, const float* weights,
                                  const float* bias, int outputs, float* out,
                                  ptrdiff_t out_stride) {
  for (int block = 0; block < outputs; block += kBlock, weights += inputs * kBlock) {
#pragma GCC unroll 2
    for (int part = 0; part < kBlock; part += kOutputs) {
      for (int from = 0; from < inputs; from += kPartialSum) {
        const int to = inputs - from < kPartialSum ? inputs : from + kPartialSum;
        F acc[kOutputs][T];
        for (auto& row : acc)
          for (auto& x : row) x = spread(0.0f);
        for (int k = from; k < to; ++k) {
          F a[T];
          for (int t = 0; t < T; ++t) a[t] = load(tile + k * stride + t * kLanes);
#pragma GCC unroll 8
          for (int o = 0; o < kOutputs; ++o) {
            const F w = spread(weights[k * kBlock + part + o]);
            for (int t = 0; t < T; ++t) acc[o][t] = fma(a[t], w, acc[o][t]);
          }
        }
#pragma GCC unroll 8
        for (int o = 0; o < kOutputs; ++o) {
          const int output = block + part + o;
          for (int t = 0; t < T; ++t) {
            float* at = out + output * out_stride + t * kLanes;
            store(at, add(from ? load(at) : spread(bias[output]), acc[o][t]));
          }
        }
      }
    }
  }
}

void multiply_tile(const float* tile, int stride, int inputs, int vectors, const float* weights,
                   const float* bias, int outputs, float* out, ptrdiff_t out_stride) {
  for_vectors(vectors, [&](int v, auto size) {
    multiply_column<decltype(size)::kSize>(tile + v * kLanes, stride, inputs, weights, bias,
                                           outputs, out + v * kLanes, out_stride);
  });
}

void load_patches(const Map& map, int channels, int y, int x, const float* scale, const float* bias,
                  float* tile, int stride) {
  const F zero = spread(0.0f);
  for (int ky = 0; ky < 2; ++ky) {
    float* taps[2] = {tile + 2 * ky * channels * stride, tile + (2 * ky + 1) * channels * stride};
    const bool inside = 2 * y + ky < map.height;
    // columns 2x + 1 lie inside for this many outputs
    const M odd_inside = below(map.width / 2 - x);
    for (int c = 0; c < channels; ++c) {
      F even = zero, odd = zero;
      if (inside) {
        load_pairs(map.at(2 * y + ky, c, 2 * x), even, odd);
        const F s = spread(scale[c]), b = spread(bias[c]);
        even = fma(even, s, b);
        odd = select(odd_inside, fma(odd, s, b), zero);
      }
      store(taps[0] + c * stride, even);
      store(taps[1] + c * stride, odd);
    }
  }
}

// The MLP's hidden layer: its bits, and the sums of R adjacent channels; R = 0: of however many.
template <int T, int R>
BHVIT_INLINE void hidden_layer(const Mlp& mlp, const uint32_t* bits, const float* normed,
                               float* pooled, uint32_t* hidden_bits) {
  constexpr int L = T * kLanes;
  constexpr int kPool = R ? R : 1;
  const int channels = mlp.channels, ratio = R ? R : mlp.hidden / channels;
  Words<T> words;
  F pool[T];
  int wrapped = 0;
  for_outputs<T>(bits, L, channels, mlp.weights1, mlp.hidden, [&](int first, auto& acc) BHVIT_HERE {
    const BitChannel* h = mlp.hidden_channels + first;
    const float* shortcut = normed + wrapped * L;
    for_block<T>([&](int o, int t) BHVIT_HERE {
      const F y = add(fma(to_float(acc[o][t]), spread(h[o].scale), spread(h[o].bias)),
                      load(shortcut + o * L + t * kLanes));
      const F p = prelu(y, spread(h[o].slope));
      words.set(first, o, t, at_least(p, spread(h[o].threshold)));
      // a constant where blocks have whole pools
      const int place = R && R <= kOutputs ? o % kPool : (first + o) % ratio;
      pool[t] = place ? add(pool[t], p) : p;
      if (place == ratio - 1) store(pooled + (first + o) / ratio * L + t * kLanes, pool[t]);
    });
    words.flush(first, hidden_bits, L);
    wrapped += kOutputs;
    if (wrapped == channels) wrapped = 0;
  });
}

// The second layer, added to what is in `result`; Next: with the bits that are convolved next.
template <int T, bool Next>
BHVIT_INLINE void output_layer(const Mlp& mlp, const uint32_t* hidden_bits, const float* pooled,
                               float* result, const Binarizer& next, uint32_t* out_bits) {
  constexpr int L = T * kLanes;
  const F zero = spread(0.0f);
  const F share = spread(1.0f / static_cast<float>(mlp.hidden / mlp.channels));
  Words<T> words;
  for_outputs<T>(
      hidden_bits, L, mlp.hidden, mlp.weights2, mlp.channels, [&](int first, auto& acc) BHVIT_HERE {
        const OutputChannel* p = mlp.outputs + first;
        const float* past = pooled + first * L;
        float* __restrict to = result + first * L;
        for_block<T>([&](int o, int t) BHVIT_HERE {
          const int at = o * L + t * kLanes;
          F y = fma(to_float(acc[o][t]), spread(p[o].scale), spread(p[o].bias));
          y = prelu(fma(load(past + at), share, y), spread(p[o].slope));
          const F x = fma(y, spread(p[o].post_scale), load(to + at));
          store(to + at, x);
          if (Next)
            words.set(first, o, t,
                      at_least(fma(x, spread(next.scale[first + o]), spread(next.bias[first + o])),
                               zero));
        });
        if (Next) words.flush(first, out_bits, L);
      });
}

template <int T, int R>
BHVIT_INLINE void mlp_tile(const Mlp& mlp, const Map& in, const Map& out, const Binarizer* next,
                           const BitMap* next_bits, Tokens tokens, float* scratch) {
  constexpr int L = T * kLanes;
  const int channels = mlp.channels, hidden = mlp.hidden;
  float* normed = scratch;
  float* result = normed + channels * L + kLanes;
  float* pooled = result + channels * L + kLanes;
  uint32_t* bits = reinterpret_cast<uint32_t*>(pooled + channels * L + kLanes);
  uint32_t* hidden_bits = bits + channels / 32 * L;
  uint32_t* out_bits = hidden_bits + hidden / 32 * L;

  Span spans[T * kLanes];
  const int number = cut_into_spans(tokens.token, tokens.count, in.width, spans);
  const float* rows[T * kLanes][5];
  const float* out_rows[T * kLanes];
  for (int s = 0; s < number; ++s) {
    out_rows[s] = out.at(spans[s].y, 0, spans[s].x);
    for (int dy = -2; dy <= 2; ++dy) {
      const int y = (spans[s].y + dy + 2 * in.height) % in.height;
      rows[s][dy + 2] = in.at(y, 0, spans[s].x);
    }
  }
  for (int c = 0; c < channels; ++c) {
    const ptrdiff_t plane = c * in.plane;
    const F shift = spread(mlp.outputs[c].post_bias);
    const F scale = spread(mlp.in_scale[c]), bias = spread(mlp.in_bias[c]);
    F taps[9];  // read once: the compiler can't know that the stores below don't change them
    for (int i = 0; i < 9; ++i) taps[i] = spread(mlp.taps[9 * c + i]);
    for (int s = 0; s < number; ++s) {
      const float* const* row = rows[s];
      const float* centre = row[2] + plane;
      __builtin_prefetch(row[4] + plane + kAhead);
      __builtin_prefetch(out_rows[s] + c * out.plane, 1);
      const F x = load(centre);
      F sum = fma(x, taps[0], shift);
      sum = fma(load(row[1] + plane), taps[1], sum);
      sum = fma(load(row[3] + plane), taps[2], sum);
      sum = fma(load(row[0] + plane), taps[3], sum);
      sum = fma(load(row[4] + plane), taps[4], sum);
      const Neighbours beside(centre, x);
      sum = fma(beside.before1, taps[5], sum);
      sum = fma(beside.after1, taps[6], sum);
      sum = fma(beside.before2, taps[7], sum);
      sum = fma(beside.after2, taps[8], sum);
      store(result + c * L + spans[s].lane, sum);
      store(normed + c * L + spans[s].lane, fma(x, scale, bias));
    }
  }
  pack_tile(normed, L, channels, T, nullptr, mlp.input_bias, bits);

  hidden_layer<T, R>(mlp, bits, normed, pooled, hidden_bits);
  if (next)
    output_layer<T, true>(mlp, hidden_bits, pooled, result, *next, out_bits);
  else
    output_layer<T, false>(mlp, hidden_bits, pooled, result, {}, out_bits);

  for (int c = 0; c < channels; ++c)
    for (int s = 0; s < number; ++s)
      store_first(out.at(spans[s].y, c, spans[s].x), load(result + c * L + spans[s].lane),
                  spans[s].count);
  for (int s = 0; s < number; ++s) wrap_span(out, channels, spans[s]);
  if (next) store_spans(out_bits, L, *next_bits, spans, number);
}

template <int R>
void mlp_tiles(const Mlp& layer, const Map& in, const Map& out, const Binarizer* next,
               const BitMap* next_bits, Tokens tokens, float* scratch) {
  for (int done = 0; done < tokens.count; done += kTokens * kLanes) {
    const int left = tokens.count - done;
    const Tokens part = {tokens.token + done, left < kTokens * kLanes ? left : kTokens * kLanes};
    if (kTokens == 2 && part.count > kLanes)
      mlp_tile<kTokens, R>(layer, in, out, next, next_bits, part, scratch);
    else
      mlp_tile<1, R>(layer, in, out, next, next_bits, part, scratch);
  }
}

void mlp(const Mlp& layer, const Map& in, const Map& out, const Binarizer* next,
         const BitMap* next_bits, Tokens tokens, float* scratch) {
  const int ratio = layer.hidden / layer.channels;
  const auto run = ratio == 8   ? mlp_tiles<8>
                   : ratio == 4 ? mlp_tiles<4>
                   : ratio == 2 ? mlp_tiles<2>
                                : mlp_tiles<0>;
  run(layer, in, out, next, next_bits, tokens, scratch);
}

BHVIT_INLINE U load_tap(const TapRows& taps, int tap, int plane, int x) {
  const uint32_t* row = taps.rows[tap];
  return row ? load(row + plane * taps.plane + x) : spread(0u);
}

// Words of all groups for one vector of outputs: [groups][words][stride].
BHVIT_INLINE void gather_words(const Convolution& layer, const TapRows& taps, int x,
                               uint32_t* gathered, int stride) {
  const int inputs = layer.inputs / layer.groups;  // of a group
  const int number = layer.kernel * layer.kernel;
  for (int g = 0; g < layer.groups; ++g) {
    uint32_t* to = gathered + g * layer.words * stride;
    if (inputs % 32 == 0) {
      const int words = inputs / 32;
      for (int tap = 0; tap < number; ++tap)
        for (int w = 0; w < words; ++w, to += stride)
          store(to, load_tap(taps, tap, g * words + w, x));
      continue;
    }
    if (inputs == 16) {
      // two groups share the words of the map, and two taps the words of a group
      if (g % 2) continue;
      uint32_t* odd = to + layer.words * stride;
      const int plane = g / 2;
      const U low = spread(0xffffu), high = spread(0xffff0000u);
      for (int tap = 0; tap < number; tap += 2, to += stride, odd += stride) {
        const U first = load_tap(taps, tap, plane, x);
        const U second = tap + 1 < number ? load_tap(taps, tap + 1, plane, x) : spread(0u);
        store(to, bit_or(bit_and(first, low), shift_left(second, 16)));
        store(odd, bit_or(shift_right(first, 16), bit_and(second, high)));
      }
      continue;
    }
    const int fields = 32 / inputs, shift = g * inputs % 32;  // of a group in the map's word
    const U field = spread((1u << inputs) - 1);
    U word = spread(0u);
    for (int tap = 0; tap < number; ++tap) {
      const U bits = load_tap(taps, tap, g * inputs / 32, x);
      word =
          bit_or(word, shift_left(bit_and(shift_right(bits, shift), field), tap % fields * inputs));
      if (tap % fields == fields - 1 || tap == number - 1) {
        store(to, word);
        to += stride;
        word = spread(0u);
      }
    }
  }
}

// The lanes of T vectors of outputs for which a column of taps lies outside the map.
template <int T>
struct Outside {
  bool columns[3] = {};
  M lanes[3][T];
  BHVIT_INLINE Outside(const TapRows& taps, int kernel, int x) {
    for (int kx = 0; kx < kernel; ++kx) {
      columns[kx] = x < taps.first[kx] || x + T * kLanes > taps.last[kx];
      for (int t = 0; t < T; ++t) {
        const int from = x + t * kLanes;
        lanes[kx][t] = either(below(taps.first[kx] - from), invert(below(taps.last[kx] - from)));
      }
    }
  }
};

// Accumulators of `O` outputs from `output` on, corrected for taps outside the map, for the words
// [words][T * kLanes] of their group. N: number of words if it is known, else 0.
template <int N, int T, int O>
BHVIT_INLINE void accumulate_block(const Convolution& layer, int state, const Outside<T>& outside,
                                   const uint32_t* gathered, int output, U (&acc)[O][T]) {
  const int32_t* start = layer.border.start + state * layer.outputs + output;
  repeat<O>([&](int o)
                BHVIT_HERE { repeat<T>([&](int t) BHVIT_HERE { acc[o][t] = spread(start[o]); }); });
  const int words = N ? N : layer.words;
  count_differences<T, O, N>(gathered, T * kLanes, weights_of(layer.weights, output, words), words,
                             acc);
  const int32_t* missing = layer.border.missing + state * layer.kernel * layer.outputs + output;
#pragma GCC unroll 1
  for (int kx = 0; kx < layer.kernel; ++kx, missing += layer.outputs) {
    if (!outside.columns[kx]) continue;
    repeat<O>([&](int o) BHVIT_HERE {
      repeat<T>([&](int t) BHVIT_HERE {
        acc[o][t] = add_where(outside.lanes[kx][t], acc[o][t], spread(missing[o]));
      });
    });
  }
}

// T vectors of outputs, N words a group (0: however many); Whole: no lane lies outside the map.
template <int T, int N, bool Whole>
void multi_scale_vectors(const MultiScaleConvolution& layer, const TapRows* taps, const Map& map,
                         int y, int x, uint32_t* gathered) {
  constexpr int L = T * kLanes;
  constexpr int O = 4;  // three branches' sums and the total stay in registers
  const Convolution& shape = layer.branches[0].convolution;
  const int words = N ? N : shape.words, of_group = shape.outputs / shape.groups;
  const ptrdiff_t ahead = x + L < map.width ? L : map.row - x;  // to the next tile
  const Outside<T> outside[3] = {
      {taps[0], shape.kernel, x}, {taps[1], shape.kernel, x}, {taps[2], shape.kernel, x}};
  for (int d = 0; d < 3; ++d)
    for (int t = 0; t < T; ++t)
      gather_words(layer.branches[d].convolution, taps[d], x + t * kLanes,
                   gathered + d * shape.groups * words * L + t * kLanes, L);
  for (int output = 0; output < shape.outputs; output += O) {
    const uint32_t* group = gathered + output / of_group * words * L;
    F total[O][T];
    repeat<3>([&](int d) BHVIT_HERE {
      U acc[O][T];
      accumulate_block<N>(layer.branches[d].convolution, taps[d].state, outside[d],
                          group + d * shape.groups * words * L, output, acc);
      const BranchChannel* channels = layer.branches[d].channels + output;
      repeat<O>([&](int o) BHVIT_HERE {
        const F scale = spread(channels[o].scale), bias = spread(channels[o].bias);
        const F slope = spread(channels[o].slope);
        repeat<T>([&](int t) BHVIT_HERE {
          const F p = prelu(fma(to_float(acc[o][t]), scale, bias), slope);
          total[o][t] = d ? add(total[o][t], p) : p;
        });
      });
    });
    float* row = map.at(y, output, x);
    repeat<O>([&](int o) BHVIT_HERE {
      const F scale = spread(layer.out_scale[output + o]),
              bias = spread(layer.out_bias[output + o]);
      repeat<T>([&](int t) BHVIT_HERE {
        float* at = row + o * map.plane + t * kLanes;
        const int count = map.width - x - t * kLanes;
        __builtin_prefetch(at + ahead, 1);
        const F residual = add(Whole ? load(at) : load_first(at, count), bias);
        const F sum = fma(total[o][t], scale, residual);
        if (Whole)
          store(at, sum);
        else
          store_first(at, sum, count);
      });
    });
  }
}

template <int N>
void multi_scale_row(const MultiScaleConvolution& layer, const TapRows* taps, const Map& map, int y,
                     uint32_t* scratch) {
  for_vectors(div_up(map.width, kLanes), [&](int v, auto size) {
    constexpr int T = decltype(size)::kSize;
    const int x = v * kLanes;
    const auto run = map.width - x >= T * kLanes ? multi_scale_vectors<T, N, true>
                                                 : multi_scale_vectors<T, N, false>;
    run(layer, taps, map, y, x, scratch);
  });
  wrap_span(map, map.planes, {y, 0, 0, map.width});
}

void multi_scale(const MultiScaleConvolution& layer, const TapRows* taps, const Map& map, int y,
                 uint32_t* scratch) {
  const int words = layer.branches[0].convolution.words;
  // groups of 16 and 32 channels
  const auto run = words == 5   ? multi_scale_row<5>
                   : words == 9 ? multi_scale_row<9>
                                : multi_scale_row<0>;
  run(layer, taps, map, y, scratch);
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
        share_(spread(1.0f / static_cast<float>(ratio_))) {}
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
  const F y = add(fma(to_float(acc), spread(p.scale), spread(p.bias)), shortcut);
  return prelu(y, spread(p.slope));
}

// All outputs of one vector: finish(first, accumulators) takes kOutputs of them together.
template <typename Finish>
BHVIT_INLINE void for_convolved(const Convolution& layer, const TapRows& taps, int x,
                                uint32_t* gathered, Finish&& finish) {
  gather_words(layer, taps, x, gathered, kLanes);
  const Outside<1> outside(taps, layer.kernel, x);
  const int of_group = layer.outputs / layer.groups;
  for (int first = 0; first < layer.outputs; first += kOutputs) {
    U acc[kOutputs][1];
    accumulate_block<0>(layer, taps.state, outside,
                        gathered + first / of_group * layer.words * kLanes, first, acc);
    finish(first, acc);
  }
}

template <bool Average>
void convolve_tile(const Convolution& layer, const OutputChannel* outputs, const TapRows& taps,
                   int x, const float* shortcut, int shortcut_channels, uint32_t* gathered,
                   float* out) {
  for_convolved(layer, taps, x, gathered, [&](int first, auto& acc) BHVIT_HERE {
    const Shortcut<Average> past(shortcut, shortcut_channels, layer.outputs, first, kLanes);
    for_block<1>([&](int o, int t) BHVIT_HERE {
      const OutputChannel& p = outputs[first + o];
      const F y = activate(p, acc[o][t], past.at(o, 0));
      store(out + (first + o) * kLanes, fma(y, spread(p.post_scale), spread(p.post_bias)));
    });
  });
}

void convolve(const Convolution& layer, const OutputChannel* outputs, const TapRows& taps, int x,
              const float* shortcut, int shortcut_channels, uint32_t* scratch, float* out) {
  const auto run = shortcut_channels > layer.outputs ? convolve_tile<true> : convolve_tile<false>;
  run(layer, outputs, taps, x, shortcut, shortcut_channels, scratch, out);
}

void accumulate(const Convolution& layer, const TapRows& taps, int x, uint32_t* scratch,
                int32_t* out) {
  for_convolved(layer, taps, x, scratch, [&](int first, auto& acc) BHVIT_HERE {
    for_block<1>([&](int o, int t) BHVIT_HERE { store(out + (first + o) * kLanes, acc[o][t]); });
  });
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
      store(to + o * stride + t * kLanes, fma(y, spread(p[o].post_scale), spread(p[o].post_bias)));
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

void pool_rows(const Map& map, int channel, int y0, int y1, float scale, float bias, float* highest,
               float* sum) {
  const F s = spread(scale), b = spread(bias);
  for (int x = 0; x < map.width; x += kLanes) {
    const int count = map.width - x < kLanes ? map.width - x : kLanes;
    F most = fma(load(map.at(y0, channel, x)), s, b), total = most;
    for (int y = y0 + 1; y < y1; ++y) {
      const F v = fma(load(map.at(y, channel, x)), s, b);
      most = larger(v, most);
      total = add(total, v);
    }
    store_first(highest + x, most, count);
    store_first(sum + x, total, count);
  }
}

int64_t busy_count(int rounds, uint32_t* sink) {
  constexpr int kTogether = kTokens == 2 ? 8 : 2;
  U a = load(sink), weights[kTogether], sums[kTogether];
  for (int i = 0; i < kTogether; ++i) {
    weights[i] = add(a, spread(i));
    sums[i] = spread(0u);
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
  const F a = load(sink), b = spread(0.5f);
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

}  // namespace
}  // namespace BHVIT_ISA
}  // namespace bhvit

#include "vector_attention.h"

namespace bhvit {
namespace BHVIT_ISA {
namespace {

constexpr Kernels make_kernels(const char* name) {
  return {
      name,         load_tile,        store_tile,     add_map,    pack_tile,    pack_and_average,
      gelu_tile,    multiply_tile,    load_patches,   mlp,        multi_scale,  convolve,
      accumulate,   project,          project_tokens, attend,     mix_context,  pool_rows,
      enlarge_tile, enlarge_and_pack, label_rows,     busy_count, busy_multiply};
}

}  // namespace
}  // namespace BHVIT_ISA
}  // namespace bhvit
