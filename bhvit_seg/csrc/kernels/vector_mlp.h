// The shift-enhanced MLP; part of vector_kernels.h.
#pragma once

#include "kernels.h"
#include "vector_basics.h"
#include "vector_products.h"
#include "vector_tiles.h"

namespace bhvit {
namespace BHVIT_ISA {
namespace {

// Channels that are shifted and packed while they lie in the nearest cache: a word of bits.
constexpr int kWordChannels = 32;

// The MLP's hidden layer: its bits, and the sums of R adjacent channels; R = 0: of however many.
template <int T, int R>
BHVIT_INLINE void hidden_layer(const Mlp& mlp, const uint32_t* bits, const float* normed,
                               float* pooled, uint32_t* hidden_bits) {
  constexpr int L = T * kLanes;
  constexpr int kPool = R ? R : 1;
  const int channels = mlp.channels, ratio = R ? R : mlp.hidden / channels;
  Packer<T> packer;
  F pool[T];
  int wrapped = 0;
  const auto finish = [&](int first, auto& acc) BHVIT_HERE {
    const BitChannel* h = mlp.hidden_channels + first;
    const float* shortcut = normed + wrapped * L;
    float* const sums = pooled + first / ratio * L;
    repeat<kOutputs>([&](int o) BHVIT_HERE {
      const F scale = broadcast(h[o].scale), bias = broadcast(h[o].bias);
      const F slope = broadcast(h[o].slope), threshold = broadcast(h[o].threshold);
      M above[T];
      repeat<T>([&](int t) BHVIT_HERE {
        const F y = add(fma(to_float(acc(o, t)), scale, bias), load(shortcut + o * L + t * kLanes));
        const F p = prelu(y, slope);
        above[t] = greater_equal(p, threshold);
        if constexpr (R > kOutputs) {
          // what several blocks add up lies in memory from one to the next
          pool[t] = o ? add(pool[t], p) : first % R ? add(load(sums + t * kLanes), p) : p;
          if (o == kOutputs - 1) store(sums + t * kLanes, pool[t]);
        } else {
          // a constant where blocks have whole pools
          const int place = R ? o % kPool : (first + o) % ratio;
          pool[t] = place ? add(pool[t], p) : p;
          if (place == ratio - 1) store(pooled + (first + o) / ratio * L + t * kLanes, pool[t]);
        }
      });
      packer.set(first, o, above);
    });
    packer.flush(first, hidden_bits, L);
    wrapped += kOutputs;
    if (wrapped == channels) wrapped = 0;
  };
  for_packed_outputs<T>(bits, channels, mlp.weights1, mlp.hidden, finish);
}

// The second layer, added to the tile `shifted`; vector t of channel c is written to
// out[t][c * stride]. Next: with the bits that are convolved next.
template <int T, bool Next>
BHVIT_INLINE void output_layer(const Mlp& mlp, const uint32_t* hidden_bits, const float* pooled,
                               const float* shifted, float* const (&out)[T], ptrdiff_t stride,
                               const Binarizer& next, uint32_t* out_bits) {
  constexpr int L = T * kLanes;
  const F zero = broadcast(0.0f);
  const F share = broadcast(1.0f / static_cast<float>(mlp.hidden / mlp.channels));
  Words<T> words;
  const auto finish = [&](int first, auto& acc) BHVIT_HERE {
    const float* past = pooled + first * L;
    const float* sum = shifted + first * L;
    float* __restrict to[T];
    for (int t = 0; t < T; ++t) to[t] = out[t] + first * stride;
    repeat<kOutputs>([&](int o) BHVIT_HERE {
      const OutputChannel p = mlp.outputs[first + o];
      M above[T];
      repeat<T>([&](int t) BHVIT_HERE {
        const int at = o * L + t * kLanes;
        F y = fma(to_float(acc(o, t)), broadcast(p.scale), broadcast(p.bias));
        y = prelu(fma(load(past + at), share, y), broadcast(p.slope));
        const F x = fma(y, broadcast(p.post_scale), load(sum + at));
        store(to[t] + o * stride, x);
        if (Next)
          above[t] = greater_equal(
              fma(x, broadcast(next.scale[first + o]), broadcast(next.bias[first + o])), zero);
      });
      if (Next) words.set(first, o, above);
    });
    if (Next) words.flush(first, out_bits, L);
  };
  for_packed_outputs<T>(hidden_bits, mlp.hidden, mlp.weights2, mlp.channels, finish);
}

// Bits of kWordChannels channels of a tile [channels][T * kLanes] plus `bias`.
template <int T>
BHVIT_INLINE void pack_inputs(const float* tile, const float* bias, int first, uint32_t* bits) {
  constexpr int L = T * kLanes;
  const F zero = broadcast(0.0f);
  Packer<T> packer;
  for (int c = first; c < first + kWordChannels; c += kOutputs) {
    repeat<kOutputs>([&](int o) BHVIT_HERE {
      M above[T];
      repeat<T>([&](int t) BHVIT_HERE {
        const F x = load(tile + (c + o) * L + t * kLanes);
        above[t] = greater_equal(add(x, broadcast(bias[c + o])), zero);
      });
      packer.set(c, o, above);
    });
    packer.flush(c, bits, L);
  }
}

// A run of tokens of a tile that lie in one row of a map: N vectors, the last of `count` lanes.
struct Run {
  const float* rows[5];  // of the map, from two above to two below, at the run's first token
  const float* out;      // where the results will lie
  int lane, count;
};

// The stencil of a run and what the MLP takes in, of kWordChannels channels from `first` on. Lanes
// behind the run stay as they are.
template <int N, int L>
BHVIT_INLINE void shift_run(const Mlp& mlp, const Run& run, int first, ptrdiff_t plane,
                            ptrdiff_t out_plane, float* shifted, float* normed) {
  const M last = below(run.count);
  const ptrdiff_t start = first * plane;
  const float *above2 = run.rows[0] + start, *above1 = run.rows[1] + start;
  const float *centre = run.rows[2] + start, *below1 = run.rows[3] + start;
  const float *below2 = run.rows[4] + start, *out = run.out + first * out_plane;
  const OutputChannel* outputs = mlp.outputs + first;
  const float *taps = mlp.taps + 9 * first, *scale = mlp.in_scale + first;
  const float* bias = mlp.in_bias + first;
  shifted += first * L + run.lane;
  normed += first * L + run.lane;
  for (int c = 0; c < kWordChannels; ++c) {
    F sums[N], inputs[N];
    repeat<N>([&](int v) BHVIT_HERE {
      const int at = v * kLanes;
      __builtin_prefetch(below2 + at + kAhead);
      __builtin_prefetch(out + at, 1);
      const F x = load(centre + at);
      F sum = fma(x, broadcast(taps[0]), broadcast(outputs[c].post_bias));
      sum = fma(load(above1 + at), broadcast(taps[1]), sum);
      sum = fma(load(below1 + at), broadcast(taps[2]), sum);
      sum = fma(load(above2 + at), broadcast(taps[3]), sum);
      sum = fma(load(below2 + at), broadcast(taps[4]), sum);
      const Neighbours beside(centre + at, x);
      sum = fma(beside.before1, broadcast(taps[5]), sum);
      sum = fma(beside.after1, broadcast(taps[6]), sum);
      sum = fma(beside.before2, broadcast(taps[7]), sum);
      sums[v] = fma(beside.after2, broadcast(taps[8]), sum);
      inputs[v] = fma(x, broadcast(scale[c]), broadcast(bias[c]));
    });
    repeat<N>([&](int v) BHVIT_HERE {
      const int at = v * kLanes;
      if (v == N - 1) {
        sums[v] = select(last, sums[v], load(shifted + at));
        inputs[v] = select(last, inputs[v], load(normed + at));
      }
      store(shifted + at, sums[v]);
      store(normed + at, inputs[v]);
    });
    above2 += plane;
    above1 += plane;
    centre += plane;
    below1 += plane;
    below2 += plane;
    out += out_plane;
    taps += 9;
    shifted += L;
    normed += L;
  }
}

template <int T, int R>
BHVIT_INLINE void mlp_tile(const Mlp& mlp, const Map& in, const Map& out, const Binarizer* next,
                           const BitMap* next_bits, Tokens tokens, float* scratch) {
  constexpr int L = T * kLanes;
  const int channels = mlp.channels, hidden = mlp.hidden;
  float* normed = scratch;
  float* shifted = normed + channels * L + kLanes;
  float* pooled = shifted + channels * L + kLanes;
  uint32_t* bits = reinterpret_cast<uint32_t*>(pooled + channels * L + kLanes);
  uint32_t* hidden_bits = bits + channels / 32 * L * Packer<T>::kWords;
  uint32_t* out_bits = hidden_bits + hidden / 32 * L * Packer<T>::kWords;

  Span spans[L];
  Run runs[L];
  const int number = cut_into_spans(tokens.token, tokens.count, in.width, spans);
  for (int s = 0; s < number; ++s) {
    runs[s] = {{}, out.at(spans[s].y, 0, spans[s].x), spans[s].lane, spans[s].count};
    for (int dy = -2; dy <= 2; ++dy)
      runs[s].rows[dy + 2] = in.at((spans[s].y + dy + 2 * in.height) % in.height, 0, spans[s].x);
  }
  const bool together = number == T && spans[0].y == spans[T - 1].y;
  if (together) runs[0].count = spans[T - 1].count;
  for (int first = 0; first < channels; first += kWordChannels) {
    if (together)
      shift_run<T, L>(mlp, runs[0], first, in.plane, out.plane, shifted, normed);
    else
      for (int s = 0; s < number; ++s)
        shift_run<1, L>(mlp, runs[s], first, in.plane, out.plane, shifted, normed);
    pack_inputs<T>(normed, mlp.input_bias, first, bits);
  }

  hidden_layer<T, R>(mlp, bits, normed, pooled, hidden_bits);
  // Whole vectors go to the map at once, others in between to where nothing is read any more.
  bool whole = number == T;
  for (int s = 0; s < number; ++s) whole = whole && spans[s].count == kLanes;
  float* to[T];
  for (int t = 0; t < T; ++t)
    to[t] = whole ? out.at(spans[t].y, 0, spans[t].x) : normed + t * kLanes;
  const ptrdiff_t stride = whole ? out.plane : L;
  if (next)
    output_layer<T, true>(mlp, hidden_bits, pooled, shifted, to, stride, *next, out_bits);
  else
    output_layer<T, false>(mlp, hidden_bits, pooled, shifted, to, stride, {}, out_bits);

  if (whole)
    for (int s = 0; s < number; ++s) wrap_span(out, channels, spans[s]);
  else
    store_tile(normed, L, channels, out, tokens, false, true);
  if (next) store_spans(out_bits, L, *next_bits, spans, number);
}

template <int R>
void mlp_tiles(const Mlp& layer, const Map& in, const Map& out, const Binarizer* next,
               const BitMap* next_bits, Tokens tokens, float* scratch) {
  for (int done = 0; done < tokens.count; done += kProductTokens * kLanes) {
    const int left = tokens.count - done;
    const Tokens part = {tokens.token + done,
                         left < kProductTokens * kLanes ? left : kProductTokens * kLanes};
    if (kProductTokens == 2 && part.count > kLanes)
      mlp_tile<kProductTokens, R>(layer, in, out, next, next_bits, part, scratch);
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
