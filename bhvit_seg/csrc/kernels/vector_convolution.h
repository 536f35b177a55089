// Binary convolutions; part of vector_kernels.h.
#pragma once

#include "kernels.h"
#include "vector_basics.h"
#include "vector_products.h"
#include "vector_tiles.h"

namespace bhvit {
namespace BHVIT_ISA {
namespace {

BHVIT_INLINE U load_tap(const TapRows& taps, int tap, int plane, int x) {
  const uint32_t* row = taps.rows[tap];
  return row ? load(row + plane * taps.plane + x) : broadcast(0u);
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
      const U low = broadcast(0xffffu), high = broadcast(0xffff0000u);
      for (int tap = 0; tap < number; tap += 2, to += stride, odd += stride) {
        const U first = load_tap(taps, tap, plane, x);
        const U second = tap + 1 < number ? load_tap(taps, tap + 1, plane, x) : broadcast(0u);
        store(to, or_(and_(first, low), shift_left(second, 16)));
        store(odd, or_(shift_right(first, 16), and_(second, high)));
      }
      continue;
    }
    const int fields = 32 / inputs, shift = g * inputs % 32;  // of a group in the map's word
    const U field = broadcast((1u << inputs) - 1);
    U word = broadcast(0u);
    for (int tap = 0; tap < number; ++tap) {
      const U bits = load_tap(taps, tap, g * inputs / 32, x);
      word = or_(word, shift_left(and_(shift_right(bits, shift), field), tap % fields * inputs));
      if (tap % fields == fields - 1 || tap == number - 1) {
        store(to, word);
        to += stride;
        word = broadcast(0u);
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
        lanes[kx][t] = or_(below(taps.first[kx] - from), not_(below(taps.last[kx] - from)));
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
  repeat<O>([&](int o) BHVIT_HERE {
    repeat<T>([&](int t) BHVIT_HERE { acc[o][t] = broadcast(start[o]); });
  });
  const int words = N ? N : layer.words;
  count_differences<T, O, N>(gathered, T * kLanes, weights_of(layer.weights, output, words), words,
                             acc);
  const int32_t* missing = layer.border.missing + state * layer.kernel * layer.outputs + output;
#pragma GCC unroll 1
  for (int kx = 0; kx < layer.kernel; ++kx, missing += layer.outputs) {
    if (!outside.columns[kx]) continue;
    repeat<O>([&](int o) BHVIT_HERE {
      repeat<T>([&](int t) BHVIT_HERE {
        acc[o][t] = add_where(outside.lanes[kx][t], acc[o][t], broadcast(missing[o]));
      });
    });
  }
}

// Writes a vector of x, given the sum of its branches; `ahead`: where the next tile's lies.
template <bool Whole>
BHVIT_INLINE void add_branches(const MultiScaleConvolution& layer, int channel, F total, float* at,
                               int count, ptrdiff_t ahead) {
  __builtin_prefetch(at + ahead, 1);
  const F x = Whole ? load(at) : load_first(at, count);
  const F sum =
      fma(total, broadcast(layer.out_scale[channel]), add(x, broadcast(layer.out_bias[channel])));
  if (Whole)
    store(at, sum);
  else
    store_first(at, sum, count);
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
    repeat<O * T>([&](int i) BHVIT_HERE { total[i / T][i % T] = broadcast(0.0f); });
#pragma GCC unroll 1
    for (int d = 0; d < 3; ++d) {
      U acc[O][T];
      accumulate_block<N>(layer.branches[d].convolution, taps[d].state, outside[d],
                          group + d * shape.groups * words * L, output, acc);
      const BranchChannel* channels = layer.branches[d].channels + output;
      repeat<O>([&](int o) BHVIT_HERE {
        const F scale = broadcast(channels[o].scale), bias = broadcast(channels[o].bias);
        const F slope = broadcast(channels[o].slope);
        repeat<T>([&](int t) BHVIT_HERE {
          total[o][t] = add(total[o][t], prelu(fma(to_float(acc[o][t]), scale, bias), slope));
        });
      });
    }
    float* row = map.at(y, output, x);
    repeat<O * T>([&](int i) BHVIT_HERE {
      const int o = i / T, t = i % T;
      add_branches<Whole>(layer, output + o, total[o][t], row + o * map.plane + t * kLanes,
                          map.width - x - t * kLanes, ahead);
    });
  }
}

// The same by table; Lookup's weights lie behind its inputs of three branches.
template <int T, bool Whole, typename Lookup = GroupedLookup>
void look_up_vectors(const MultiScaleConvolution& layer, const TapRows* taps, const Map& map, int y,
                     int x, uint32_t* scratch) {
  constexpr int L = T * kLanes;
  const Convolution& shape = layer.branches[0].convolution;
  const ptrdiff_t ahead = x + L < map.width ? L : map.row - x;
  const int inputs = Lookup::inputs_size(shape), weights = Lookup::weights_size(shape);
  const uint32_t* rows = scratch + 3 * inputs;
  const Outside<T> outside[3] = {
      {taps[0], shape.kernel, x}, {taps[1], shape.kernel, x}, {taps[2], shape.kernel, x}};
  for (int d = 0; d < 3; ++d)
    Lookup::gather(layer.branches[d].convolution, taps[d], x, scratch + d * inputs);
  for (int output = 0; output < shape.outputs; output += kOutputs) {
    typename Lookup::Sums sums[3];
    for (int d = 0; d < 3; ++d)
      Lookup::count(layer.branches[d].convolution, scratch + d * inputs, rows + d * weights, output,
                    sums[d]);
    repeat<kOutputs>([&](int o) BHVIT_HERE {
      const int c = output + o;
      F total[T];
      for (auto& part : total) part = broadcast(0.0f);
#pragma GCC unroll 1
      for (int d = 0; d < 3; ++d) {
        const Border& border = layer.branches[d].convolution.border;
        const BranchChannel channel = layer.branches[d].channels[c];
        const int32_t start = border.start[taps[d].state * shape.outputs + c];
        const int32_t* missing = border.missing + taps[d].state * shape.kernel * shape.outputs + c;
        repeat<T>([&](int t) BHVIT_HERE {
          U acc = sums[d].from(start, o, t);
          for (int kx = 0; kx < shape.kernel; ++kx)
            if (outside[d].columns[kx])
              acc = add_where(outside[d].lanes[kx][t], acc, broadcast(missing[kx * shape.outputs]));
          const F y = fma(to_float(acc), broadcast(channel.scale), broadcast(channel.bias));
          total[t] = add(total[t], prelu(y, broadcast(channel.slope)));
        });
      }
      float* row = map.at(y, c, x);
      repeat<T>([&](int t) BHVIT_HERE {
        add_branches<Whole>(layer, c, total[t], row + t * kLanes, map.width - x - t * kLanes,
                            ahead);
      });
    });
  }
}

template <typename Lookup = GroupedLookup>
BHVIT_INLINE void unpack_weights(const MultiScaleConvolution& layer, uint32_t* scratch) {
  const Convolution& shape = layer.branches[0].convolution;
  uint32_t* rows = scratch + 3 * Lookup::inputs_size(shape);
  for (const GroupedBranch& branch : layer.branches) {
    Lookup::unpack_weights(branch.convolution, rows);
    rows += Lookup::weights_size(shape);
  }
}

template <int N>
void multi_scale_row(const MultiScaleConvolution& layer, const TapRows* taps, const Map& map, int y,
                     uint32_t* scratch) {
  for_vectors<kProductTokens>(div_up(map.width, kLanes), [&](int v, auto size) {
    constexpr int T = decltype(size)::kSize;
    const int x = v * kLanes;
    // of what is left at the end of a row there is little
    const bool whole = map.width - x >= T * kLanes;
    if constexpr (T == kTableTokens) {
      const auto run = whole ? look_up_vectors<T, true> : look_up_vectors<T, false>;
      if (!x) unpack_weights<>(layer, scratch);
      run(layer, taps, map, y, x, scratch);
    } else {
      const auto run =
          whole ? multi_scale_vectors<T, N, T == kTokens> : multi_scale_vectors<T, N, false>;
      run(layer, taps, map, y, x, scratch);
    }
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
      store(out + (first + o) * kLanes, fma(y, broadcast(p.post_scale), broadcast(p.post_bias)));
    });
  });
}

void convolve(const Convolution& layer, const OutputChannel* outputs, const TapRows& taps, int x,
              const float* shortcut, int shortcut_channels, uint32_t* scratch, float* out) {
  const auto run = shortcut_channels > layer.outputs ? convolve_tile<true> : convolve_tile<false>;
  run(layer, outputs, taps, x, shortcut, shortcut_channels, scratch, out);
}

}  // namespace
}  // namespace BHVIT_ISA
}  // namespace bhvit
