// Between maps and tiles, and float work on tiles; part of vector_kernels.h.
#pragma once

#include "constants.h"
#include "kernels.h"
#include "vector_basics.h"

namespace bhvit {
namespace BHVIT_ISA {
namespace {

// Planes of a row lie too far apart for the processor to foresee the next one; the next tile's
// values are asked for while this one is worked on.
constexpr int kAhead = kTileLanes;

// 2^x, in place.
template <int T>
BHVIT_INLINE void exp2_lanes(F (&x)[T]) {
  F rounded[T], p[T];  // with the integer in the low bits
  repeat<T>([&](int t) BHVIT_HERE {
    rounded[t] = add(x[t], broadcast(kRound));
    x[t] = subtract(x[t], subtract(rounded[t], broadcast(kRound)));
    p[t] = broadcast(kExp2[6]);
  });
  repeat<6>([&](int i) BHVIT_HERE {
    repeat<T>([&](int t) BHVIT_HERE { p[t] = fma(p[t], x[t], broadcast(kExp2[5 - i])); });
  });
  repeat<T>([&](int t) BHVIT_HERE {
    const U exponent = shift_left(as_words(rounded[t]), 23);
    x[t] = as_floats(add(as_words(p[t]), exponent));
  });
}

// A vector of tokens that lie in several runs, out of registers: short stores one after another
// could not be read at once.
template <typename T>
class Joined {
 public:
  // `from`: where the run's first token lies, in whose lane the run before ends.
  BHVIT_INLINE void add(const T* from, int lane) {
    from_[number_] = from - lane;
    where_[number_++] = not_(below(lane));
  }
  BHVIT_INLINE auto read(ptrdiff_t offset) const {
    auto x = load(from_[0] + offset);
    for (int i = 1; i < number_; ++i) x = select(where_[i], load(from_[i] + offset), x);
    return x;
  }
  BHVIT_INLINE void prefetch(ptrdiff_t offset) const {
    for (int i = 0; i < number_; ++i) __builtin_prefetch(from_[i] + offset);
  }

 private:
  int number_ = 0;
  const T* from_[kLanes];
  M where_[kLanes];
};

// At most a vector of tokens of a map.
BHVIT_INLINE Joined<float> join_tokens(const Map& map, Tokens tokens) {
  Span spans[kLanes];
  const int number = cut_into_spans(tokens.token, tokens.count, map.width, spans);
  Joined<float> joined;
  for (int s = 0; s < number; ++s) joined.add(map.at(spans[s].y, 0, spans[s].x), spans[s].lane);
  return joined;
}

// Calls run(lane, part) for vectors of a tile: the first lane of each, and its tokens.
template <typename Run>
BHVIT_INLINE void for_parts(Tokens tokens, const Run& run) {
  for (int lane = 0; lane < tokens.count; lane += kLanes) {
    const int left = tokens.count - lane;
    run(lane, Tokens{tokens.token + lane, left < kLanes ? left : kLanes});
  }
}

void load_tile(const Map& map, int channels, Tokens tokens, const float* scale, const float* bias,
               float* tile, int stride) {
  for_parts(tokens, [&](int lane, Tokens part) BHVIT_HERE {
    const Joined<float> joined = join_tokens(map, part);
    for (int c = 0; c < channels; ++c) {
      joined.prefetch(c * map.plane + kAhead);
      F x = joined.read(c * map.plane);
      if (scale) x = fma(x, broadcast(scale[c]), broadcast(bias[c]));
      store(tile + c * stride + lane, x);
    }
  });
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
  const ptrdiff_t plane = map.plane;
  Span spans[kTileLanes];
  const int number = cut_into_spans(tokens.token, tokens.count, map.width, spans);
  for (int s = 0; s < number; ++s) {
    const Span span = spans[s];
    const bool whole = span.count == kLanes;
    const float* from = tile + span.lane;
    float* to = map.at(span.y, 0, span.x);
    for (int c = 0; c < channels; ++c, from += stride, to += plane) {
      F x = load(from);
      if (accumulate) x = add(x, load(to));
      if (whole)
        store(to, x);
      else
        store_first(to, x, span.count);
    }
    if (wrap) wrap_span(map, channels, span);
  }
}

void pack_tile(const float* tile, int stride, int channels, int vectors, const float* scale,
               const float* bias, uint32_t* bits) {
  const F zero = broadcast(0.0f);
  for (int word = 0; word < channels / 32; ++word) {
    for (int v = 0; v < vectors; ++v) {
      U packed = broadcast(0u);
      for (int i = 0; i < 32; ++i) {
        const int c = 32 * word + i;
        const F x = load(tile + c * stride + v * kLanes);
        const F y =
            scale ? fma(x, broadcast(scale[c]), broadcast(bias[c])) : add(x, broadcast(bias[c]));
        packed = or_where(greater_equal(y, zero), packed, broadcast(kBits[i]));
      }
      store(bits + word * stride + v * kLanes, packed);
    }
  }
}

void normalize_bytes(float* tile, int stride, int channels, int vectors, const float* mean,
                     const float* deviation) {
  const U byte = broadcast(255u);
  for (int v = 0; v < vectors; ++v) {
    float* at = tile + v * kLanes;
    for (int row = 0, c = 0; row < 16 * channels; row += 4) {
      U words = load(reinterpret_cast<const uint32_t*>(at));
      for (int i = 0; i < 4; ++i, at += stride, c = c + 1 < channels ? c + 1 : 0) {
        const F value = subtract(to_float(and_(words, byte)), broadcast(mean[c]));
        store(at, divide(value, broadcast(deviation[c])));
        words = shift_right(words, 8);
      }
    }
  }
}

// put(t, GELU) of the vectors at tile + t * stride.
template <int T, typename Put>
BHVIT_INLINE void gelu_vectors(const float* tile, int stride, const Put& put) {
  const F zero = broadcast(0.0f), end = broadcast(kErfcEnd), one = broadcast(1.0f),
          half = broadcast(0.5f);
  F u[T], p[T];
  repeat<T>([&](int t) BHVIT_HERE {
    const F x = load(tile + t * stride);
    u[t] = min(end, max(x, subtract(zero, x)));
    p[t] = broadcast(-kErfc[10]);
  });
  repeat<10>([&](int i) BHVIT_HERE {
    const F next = broadcast(-kErfc[9 - i]);
    repeat<T>([&](int t) BHVIT_HERE { p[t] = fma(p[t], u[t], next); });
  });
  repeat<T>([&](int t) BHVIT_HERE { p[t] = multiply(u[t], p[t]); });
  exp2_lanes(p);
  repeat<T>([&](int t) BHVIT_HERE {
    const F x = load(tile + t * stride), tail = multiply(half, p[t]);
    put(t, multiply(x, select(greater(x, zero), subtract(one, tail), tail)));
  });
}

// put(c, GELU of channel c) of a vector of tokens.
template <typename Put>
BHVIT_INLINE void gelu_channels(const float* tile, int stride, int channels, const Put& put) {
  // several together: each step of a polynomial waits for the one before
  int c = 0;
  for (; c + kChains <= channels; c += kChains, tile += kChains * stride)
    gelu_vectors<kChains>(tile, stride, [&](int t, F y) BHVIT_HERE { put(c + t, y); });
  for (; c < channels; ++c, tile += stride)
    gelu_vectors<1>(tile, stride, [&](int, F y) BHVIT_HERE { put(c, y); });
}

void embed_tile(float* tile, int stride, int channels, bool gelu, const Map& position,
                const Map& to, Tokens tokens) {
  const ptrdiff_t plane = to.plane;
  for_parts(tokens, [&](int lane, Tokens part) BHVIT_HERE {
    const int y = part.token / to.width, x = part.token % to.width;
    float* const at = tile + lane;
    if (part.count == kLanes && x + kLanes <= to.width) {
      // stores between computations: those to lines out of the cache do not wait for each other
      const float* const from = position.at(y, 0, x);
      float* const out = to.at(y, 0, x);
      const auto put = [&](int c, F value) BHVIT_HERE {
        const F sum = add(value, load(from + c * plane));
        store(at + c * stride, sum);
        store(out + c * plane, sum);
      };
      if (gelu)
        gelu_channels(at, stride, channels, put);
      else
        for (int c = 0; c < channels; ++c) put(c, load(at + c * stride));
      return wrap_span(to, channels, {y, x, lane, kLanes});
    }
    if (gelu)
      gelu_channels(at, stride, channels,
                    [&](int c, F value) BHVIT_HERE { store(at + c * stride, value); });
    const Joined<float> joined = join_tokens(position, part);
    const M inside = below(part.count);
    for (int c = 0; c < channels; ++c) {
      const F value = load(at + c * stride);
      store(at + c * stride, select(inside, add(value, joined.read(c * plane)), value));
    }
    store_tile(at, stride, channels, to, part, false, true);
  });
}

template <int T>
BHVIT_INLINE void multiply_column(const float* tile, ptrdiff_t stride, int inputs,
                                  const float* weights, const float* bias, int outputs, float* out,
                                  ptrdiff_t out_stride) {
  for (int first = 0; first < outputs; first += kOutputs) {
    const float* w = weights + first / kBlock * inputs * kBlock + first % kBlock;
    const float* x = tile;
    float* to = out + first * out_stride;
    for (int from = 0; from < inputs; from += kPartialSum) {
      const int number = inputs - from < kPartialSum ? inputs - from : kPartialSum;
      F acc[kOutputs][T];
      for_block<T>([&](int o, int t) BHVIT_HERE { acc[o][t] = broadcast(0.0f); });
      for (int k = 0; k < number; ++k, x += stride, w += kBlock) {
        F a[T];
        repeat<T>([&](int t) BHVIT_HERE { a[t] = load(x + t * kLanes); });
        repeat<kOutputs>([&](int o) BHVIT_HERE {
          const F weight = broadcast(w[o]);
          repeat<T>([&](int t) BHVIT_HERE { acc[o][t] = fma(a[t], weight, acc[o][t]); });
        });
      }
      for_block<T>([&](int o, int t) BHVIT_HERE {
        float* at = to + o * out_stride + t * kLanes;
        store(at, add(from ? load(at) : broadcast(bias[first + o]), acc[o][t]));
      });
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
  const F zero = broadcast(0.0f);
  for (int ky = 0; ky < 2; ++ky) {
    float* taps[2] = {tile + 2 * ky * channels * stride, tile + (2 * ky + 1) * channels * stride};
    const bool inside = 2 * y + ky < map.height;
    // columns 2x + 1 lie inside for this many outputs
    const M odd_inside = below(map.width / 2 - x);
    for (int c = 0; c < channels; ++c) {
      F even = zero, odd = zero;
      if (inside) {
        load_pairs(map.at(2 * y + ky, c, 2 * x), even, odd);
        const F s = broadcast(scale[c]), b = broadcast(bias[c]);
        even = fma(even, s, b);
        odd = select(odd_inside, fma(odd, s, b), zero);
      }
      store(taps[0] + c * stride, even);
      store(taps[1] + c * stride, odd);
    }
  }
}

void pool_rows(const Map& map, int channel, int y0, int y1, float scale, float bias, float* highest,
               float* sum) {
  const F s = broadcast(scale), b = broadcast(bias);
  for (int x = 0; x < map.width; x += kLanes) {
    const int count = map.width - x < kLanes ? map.width - x : kLanes;
    F most = fma(load(map.at(y0, channel, x)), s, b), total = most;
    for (int y = y0 + 1; y < y1; ++y) {
      const F v = fma(load(map.at(y, channel, x)), s, b);
      most = max(v, most);
      total = add(total, v);
    }
    store_first(highest + x, most, count);
    store_first(sum + x, total, count);
  }
}

}  // namespace
}  // namespace BHVIT_ISA
}  // namespace bhvit
