// Upsampled maps, and labels of upsampled logits: a part of vector_kernels.h.
#pragma once

#include <math.h>

#include "kernels.h"
#include "vector_basics.h"

namespace bhvit {
namespace BHVIT_ISA {
namespace {

constexpr int kMaxClasses = 256;  // labels are bytes

// Sixteen columns of an upsampled row. Where a half of them lies between at most kPermuted source
// columns, as it does when maps become larger, both are `narrow`.
struct Columns {
  U left, right;
  F weight;
  bool narrow;
  int second;  // where the second half's source columns begin, if narrow
  Columns() = default;
  BHVIT_INLINE Columns(const Upsampling& to, int tile)
      : left(load(to.x0 + tile * kLanes)),
        right(load(to.x1 + tile * kLanes)),
        weight(load(to.x_weight + tile * kLanes)) {
    const uint32_t *x0 = to.x0 + tile * kLanes, *x1 = to.x1 + tile * kLanes;
    second = static_cast<int>(x0[kLanes / 2]);
    narrow = kPermuted < kLanes && x1[kLanes / 2 - 1] < kPermuted &&
             x1[kLanes - 1] < x0[kLanes / 2] + kPermuted;
    if (!narrow) return;
    static_assert(kPermuted == kLanes || kTokens == 1, "all vectors of a tile have to be narrow");
    const U behind = select(below(kLanes / 2), broadcast(0u), broadcast(second));
    left = subtract(left, behind);
    right = subtract(right, behind);
  }
  // Source columns from `from` on, as upsample<Narrow> takes them.
  template <bool Narrow>
  BHVIT_INLINE F read(const float* from) const {
    return Narrow ? load_halves(from, second) : load(from);
  }
  template <bool Narrow>
  BHVIT_INLINE F upsample(F source) const {
    const F a = Narrow ? permute_halves(source, left) : permute(source, left);
    const F b = Narrow ? permute_halves(source, right) : permute(source, right);
    return fma(weight, subtract(b, a), a);
  }
};

// Both source rows of one row of an upsampled map.
class Rows {
 public:
  BHVIT_INLINE Rows(const Map& map, const Upsampling& to, int y)
      : top_(map.at(to.y0[y], 0, 0)),
        bottom_(map.at(to.y1[y], 0, 0)),
        plane_(map.plane),
        weight_(broadcast(to.y_weight[y])) {}
  // Values at columns of a channel; x: where their source begins.
  template <bool Narrow>
  BHVIT_INLINE F at(int channel, const Columns& columns, int x) const {
    const float* top = top_ + channel * plane_ + x;
    const float* bottom = bottom_ + channel * plane_ + x;
    // planes lie too far apart for the processor to foresee the next ones
    __builtin_prefetch(top + kAhead * plane_);
    __builtin_prefetch(bottom + kAhead * plane_);
    const F a = columns.read<Narrow>(top), b = columns.read<Narrow>(bottom);
    return columns.upsample<Narrow>(fma(weight_, subtract(b, a), a));
  }

 private:
  static constexpr int kAhead = 32;
  const float *top_, *bottom_;
  const ptrdiff_t plane_;
  const F weight_;
};

void upsample_tile(const Map& map, int channels, const Upsampling& to, int y, int column_tile,
                   float* tile, int stride) {
  const Columns columns(to, column_tile);
  const Rows rows(map, to, y);
  const int x = to.base[column_tile];
  for (int c = 0; c < channels; ++c)
    store(tile + c * stride,
          columns.narrow ? rows.at<true>(c, columns, x) : rows.at<false>(c, columns, x));
}

// Bits of values + bias and means of kAveraged adjacent ones; value(channel, vector) is called once
// for each.
template <int T, typename Value>
BHVIT_INLINE void pack_values(int channels, const float* bias, uint32_t* bits, float* means,
                              int stride, Value&& value) {
  const F zero = broadcast(0.0f), share = broadcast(1.0f / kAveraged);
  for (int word = 0; word < channels / 32; ++word, bits += stride) {
    U packed[T];
    for (auto& bits_of : packed) bits_of = broadcast(0u);
    for (int i = 0; i < 32; i += kAveraged, means += stride) {
      F sum[T];
#pragma GCC unroll 4
      for (int j = 0; j < kAveraged; ++j) {
        const int c = 32 * word + i + j;
        const U bit = broadcast(kBits[i + j]);
        const F shift = broadcast(bias[c]);
#pragma GCC unroll 2
        for (int t = 0; t < T; ++t) {
          const F x = value(c, t);
          sum[t] = j ? add(sum[t], x) : x;
          packed[t] = or_where(greater_equal(add(x, shift), zero), packed[t], bit);
        }
      }
      for (int t = 0; t < T; ++t) store(means + t * kLanes, multiply(sum[t], share));
    }
    for (int t = 0; t < T; ++t) store(bits + t * kLanes, packed[t]);
  }
}

void pack_and_average(const float* tile, int stride, int channels, int vectors, const float* bias,
                      uint32_t* bits, float* means) {
  for_vectors(vectors, [&](int v, auto size) {
    const int lane = v * kLanes;
    pack_values<decltype(size)::kSize>(
        channels, bias, bits + lane, means + lane, stride,
        [&](int c, int t) { return load(tile + c * stride + lane + t * kLanes); });
  });
}

void upsample_and_pack(const Map& map, int channels, const Upsampling& to, int y, int column_tile,
                       int vectors, const float* bias, uint32_t* bits, float* means, int stride) {
  const Rows rows(map, to, y);
  for_vectors(vectors, [&](int v, auto size) {
    const int lane = v * kLanes, first = column_tile + v;
    constexpr int T = decltype(size)::kSize;
    Columns columns[T];
    bool narrow = true;
    for (int t = 0; t < T; ++t) {
      columns[t] = Columns(to, first + t);
      narrow = narrow && columns[t].narrow;
    }
    const auto pack = [&](auto&& value) BHVIT_HERE {
      pack_values<T>(channels, bias, bits + lane, means + lane, stride, value);
    };
    if (narrow)
      pack([&](int c, int t) { return rows.at<true>(c, columns[t], to.base[first + t]); });
    else
      pack([&](int c, int t) { return rows.at<false>(c, columns[t], to.base[first + t]); });
  });
}

// Two rows of logits, from a column on.
struct LogitRows {
  const float *top, *bottom;
  ptrdiff_t plane;
};

// Classes that can have the highest value somewhere between two rows and `columns` of logits, of
// which there are at most 16: those that in some cell of four logits reach the highest of all
// classes' minima. An upsampled value lies between its four logits, but for rounding.
BHVIT_INLINE int find_candidates(const LogitRows& rows, int classes, int columns, int* candidates) {
  uint32_t beside[kLanes];
  for (int i = 0; i < kLanes; ++i) beside[i] = i + 1 < columns ? i + 1 : i;
  const U next = load(beside);
  F reached = broadcast(-HUGE_VALF), top_squares = broadcast(0.0f), bottom_squares = top_squares;
  const float *top = rows.top, *bottom = rows.bottom;
  for (int c = 0; c < classes; ++c, top += rows.plane, bottom += rows.plane) {
    __builtin_prefetch(bottom + 2 * kLanes);
    const F a = load(top), b = load(bottom), least = min(a, b);
    reached = max(min(least, permute(least, next)), reached);
    top_squares = fma(a, a, top_squares);
    bottom_squares = fma(b, b, bottom_squares);
  }
  // Values are off by less than 7 roundings of the largest logit, 2^-24 of it each, and two values
  // are compared. Where a logit is infinite or none, so is the sum, and every class is a candidate.
  const F squares = add(top_squares, bottom_squares);
  const F largest = sqrt(add(squares, permute(squares, next)));
  const F bound = subtract(reached, fma(largest, broadcast(0x1p-20f), broadcast(1e-30f)));
  const M cells = below(columns > 1 ? columns - 1 : 1);
  int number = 0;
  top = rows.top;
  bottom = rows.bottom;
  for (int c = 0; c < classes; ++c, top += rows.plane, bottom += rows.plane) {
    const F most = max(load(top), load(bottom));
    const M beaten = greater(bound, max(most, permute(most, next)));
    candidates[number] = c;
    number += any(and_(not_(beaten), cells));
  }
  return number;
}

// Labels of R rows from y on and of a tile of columns, out of candidate classes.
template <int R, bool Narrow>
void label_tile(const LogitRows& rows, const int* candidates, int number, const Upsampling& to,
                const Columns& columns, int y, int count, uint8_t* labels, ptrdiff_t stride) {
  F weights[R], best[R];
  U label[R];
  for (int r = 0; r < R; ++r) {
    weights[r] = broadcast(to.y_weight[y + r]);
    best[r] = broadcast(-HUGE_VALF);
    label[r] = broadcast(0u);
  }
  for (int i = 0; i < number; ++i) {
    const ptrdiff_t plane = candidates[i] * rows.plane;
    const F a = columns.upsample<Narrow>(columns.read<Narrow>(rows.top + plane));
    const F b = columns.upsample<Narrow>(columns.read<Narrow>(rows.bottom + plane));
    const F difference = subtract(b, a);
    const U name = broadcast(candidates[i]);
    for (int r = 0; r < R; ++r) {
      const F value = fma(weights[r], difference, a);
      const M better = greater(value, best[r]);
      best[r] = max(value, best[r]);
      label[r] = select(better, name, label[r]);
    }
  }
  for (int r = 0; r < R; ++r) store_bytes(labels + r * stride, label[r], count);
}

void label_rows(const Map& logits, int classes, const Upsampling& to, int y_begin, int y_end,
                int width, uint8_t* labels, ptrdiff_t stride) {
  const int tiles = div_up(width, kLanes);
  const auto last_column = [&](int tile) {
    return to.base[tile] + static_cast<int>(to.x1[tile * kLanes + kLanes - 1]);
  };
  int candidates[kMaxClasses];
  for (int tile = 0; tile < tiles;) {
    // tiles whose columns of logits fit a vector share their candidates
    const int first = tile, base = to.base[tile];
    while (++tile < tiles && last_column(tile) - base < kLanes) {
    }
    const int columns = last_column(tile - 1) - base + 1;
    const auto rows_at = [&](int x) -> LogitRows {
      return {logits.at(to.y0[y_begin], 0, x), logits.at(to.y1[y_begin], 0, x), logits.plane};
    };
    const int number = find_candidates(rows_at(base), classes, columns, candidates);
    for (int t = first; t < tile; ++t) {
      const LogitRows rows = rows_at(to.base[t]);
      const int x = t * kLanes, count = width - x < kLanes ? width - x : kLanes;
      const Columns columns(to, t);
      const auto four = columns.narrow ? label_tile<4, true> : label_tile<4, false>;
      const auto one = columns.narrow ? label_tile<1, true> : label_tile<1, false>;
      uint8_t* out = labels + x;
      int y = y_begin;
      for (; y + 4 <= y_end; y += 4, out += 4 * stride)
        four(rows, candidates, number, to, columns, y, count, out, stride);
      for (; y < y_end; ++y, out += stride)
        one(rows, candidates, number, to, columns, y, count, out, stride);
    }
  }
}

}  // namespace
}  // namespace BHVIT_ISA
}  // namespace bhvit
