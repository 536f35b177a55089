// Enlarged maps, and labels of enlarged logits: a part of vector_kernels.h.
#pragma once

#include <math.h>

#include "kernels.h"

namespace bhvit {
namespace BHVIT_ISA {
namespace {

constexpr int kMostClasses = 256;  // labels are bytes

// Sixteen columns of an enlarged row.
struct Columns {
  U left, right;
  F weight;
  BHVIT_INLINE Columns(const Enlargement& to, int tile)
      : left(load(to.x0 + tile * kLanes)),
        right(load(to.x1 + tile * kLanes)),
        weight(load(to.x_weight + tile * kLanes)) {}
  BHVIT_INLINE F enlarge(F source) const {
    const F a = permute(source, left);
    return fma(weight, subtract(permute(source, right), a), a);
  }
};

void enlarge_tile(const Map& map, int channels, const Enlargement& to, int y, int column_tile,
                  float* tile, int stride) {
  const Columns columns(to, column_tile);
  const int x = to.base[column_tile];
  const float* top = map.at(to.y0[y], 0, x);
  const float* bottom = map.at(to.y1[y], 0, x);
  const F weight = spread(to.y_weight[y]);
  for (int c = 0; c < channels; ++c, top += map.plane, bottom += map.plane) {
    __builtin_prefetch(bottom + kLanes);
    const F a = load(top);
    store(tile + c * stride, columns.enlarge(fma(weight, subtract(load(bottom), a), a)));
  }
}

// Two rows of logits, from a column on.
struct LogitRows {
  const float *top, *bottom;
  ptrdiff_t plane;
};

// Classes that can have the highest value somewhere between two rows and `columns` of logits, of
// which there are at most 16: those that in some cell of four logits reach the highest of all
// classes' minima. An enlarged value lies between its four logits, but for rounding.
BHVIT_INLINE int find_candidates(const LogitRows& rows, int classes, int columns, int* candidates) {
  uint32_t beside[kLanes];
  for (int i = 0; i < kLanes; ++i) beside[i] = i + 1 < columns ? i + 1 : i;
  const U next = load(beside);
  F reached = spread(-HUGE_VALF), top_squares = spread(0.0f), bottom_squares = top_squares;
  const float *top = rows.top, *bottom = rows.bottom;
  for (int c = 0; c < classes; ++c, top += rows.plane, bottom += rows.plane) {
    __builtin_prefetch(bottom + 2 * kLanes);
    const F a = load(top), b = load(bottom), least = smaller(a, b);
    reached = larger(smaller(least, permute(least, next)), reached);
    top_squares = fma(a, a, top_squares);
    bottom_squares = fma(b, b, bottom_squares);
  }
  // Values are off by less than 7 roundings of the largest logit, 2^-24 of it each, and two values
  // are compared. Where a logit is infinite or none, so is the sum, and every class is a candidate.
  const F squares = add(top_squares, bottom_squares);
  const F largest = square_root(add(squares, permute(squares, next)));
  const F bound = subtract(reached, fma(largest, spread(0x1p-20f), spread(1e-30f)));
  const M cells = below(columns > 1 ? columns - 1 : 1);
  int number = 0;
  top = rows.top;
  bottom = rows.bottom;
  for (int c = 0; c < classes; ++c, top += rows.plane, bottom += rows.plane) {
    const F most = larger(load(top), load(bottom));
    const M beaten = above(bound, larger(most, permute(most, next)));
    candidates[number] = c;
    number += any(both(invert(beaten), cells));
  }
  return number;
}

// Labels of R rows from y on and of a tile of columns, out of candidate classes.
template <int R>
BHVIT_INLINE void label_tile(const LogitRows& rows, const int* candidates, int number,
                             const Enlargement& to, int y, int tile, int count, uint8_t* labels,
                             ptrdiff_t stride) {
  const Columns columns(to, tile);
  F weights[R], best[R];
  U label[R];
  for (int r = 0; r < R; ++r) {
    weights[r] = spread(to.y_weight[y + r]);
    best[r] = spread(-HUGE_VALF);
    label[r] = spread(0u);
  }
  for (int i = 0; i < number; ++i) {
    const ptrdiff_t plane = candidates[i] * rows.plane;
    const F a = columns.enlarge(load(rows.top + plane));
    const F difference = subtract(columns.enlarge(load(rows.bottom + plane)), a);
    const U name = spread(candidates[i]);
    for (int r = 0; r < R; ++r) {
      const F value = fma(weights[r], difference, a);
      const M better = above(value, best[r]);
      best[r] = larger(value, best[r]);
      label[r] = select(better, name, label[r]);
    }
  }
  for (int r = 0; r < R; ++r) store_bytes(labels + r * stride, label[r], count);
}

void label_rows(const Map& logits, int classes, const Enlargement& to, int y_begin, int y_end,
                int width, uint8_t* labels, ptrdiff_t stride) {
  const int tiles = div_up(width, kLanes);
  const auto last_column = [&](int tile) {
    return to.base[tile] + static_cast<int>(to.x1[tile * kLanes + kLanes - 1]);
  };
  int candidates[kMostClasses];
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
      uint8_t* out = labels + x;
      int y = y_begin;
      for (; y + 4 <= y_end; y += 4, out += 4 * stride)
        label_tile<4>(rows, candidates, number, to, y, t, count, out, stride);
      for (; y < y_end; ++y, out += stride)
        label_tile<1>(rows, candidates, number, to, y, t, count, out, stride);
    }
  }
}

}  // namespace
}  // namespace BHVIT_ISA
}  // namespace bhvit
