// The shift-enhanced MLP; part of vector_kernels.h.
#pragma once

#include "kernels.h"
#include "vector_basics.h"
#include "vector_products.h"
#include "vector_tiles.h"

namespace bhvit {
namespace BHVIT_ISA {
namespace {

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

}  // namespace
}  // namespace BHVIT_ISA
}  // namespace bhvit
