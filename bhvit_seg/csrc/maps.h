// How maps of tokens lie in memory.
//
// Kernels keep tokens in vector lanes and walk over channels, so a map is stored row by row, each
// row as planes: element (y, c, x) lies at data[y * row + c * plane + x]. A plane is padded to
// whole vectors plus one, and that pad serves both as the right border of its own plane and as
// the left border of the next: float maps keep circular copies of two columns there for the
// shift branches, bit maps keep zeros for the convolutions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bhvit {

// Kernels are compiled once for each instruction set, so what they share must never be linked from
// one of them into another: internal linkage or forced inlining, no standard templates.
#define BHVIT_INLINE __attribute__((always_inline)) inline
#define BHVIT_HERE __attribute__((always_inline))  // the same for lambdas

constexpr int kLanes = 16;  // tokens in a vector, whatever the instruction set

static inline int round_up(int value, int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}
static inline int div_up(int value, int divisor) { return (value + divisor - 1) / divisor; }

template <typename T>
struct Planes {
  T* data = nullptr;
  ptrdiff_t row = 0;
  ptrdiff_t plane = 0;
  int height = 0, width = 0, planes = 0;

  BHVIT_INLINE T* at(int y, int p, int x) const { return data + y * row + p * plane + x; }
};

using Map = Planes<float>;  // planes are channels
using BitMap =
    Planes<uint32_t>;  // planes are words of 32 channels: bit i of word w is channel 32w+i

// Floats or words that a map needs: see above; the first and last pad belong to the borders. In 64
// bits: a map that is too large for memory is only measured.
static inline ptrdiff_t plane_stride(int width) { return round_up(width, kLanes) + kLanes; }
static inline uint64_t planes_size(int height, int width, int planes) {
  return static_cast<uint64_t>(height) * planes * plane_stride(width) + 3 * kLanes;
}
template <typename T>
BHVIT_INLINE Planes<T> make_planes(T* memory, int height, int width, int planes) {
  const int64_t row = static_cast<int64_t>(planes) * plane_stride(width);
  return {memory + kLanes, static_cast<ptrdiff_t>(row), plane_stride(width), height, width, planes};
}

// A run of tokens in one row of a map, and the lane of the tile that the first of them has.
struct Span {
  int y, x, lane, count;
};

// Cuts `count` tokens from `token` on, in row-major order, into runs that cross neither a row of
// the map nor a vector of the tile. Returns their number, at most `count`.
static inline int cut_into_spans(int token, int count, int width, Span* spans) {
  int number = 0;
  for (int lane = 0; lane < count;) {
    const int y = (token + lane) / width, x = (token + lane) % width;
    int run = width - x;
    if (run > count - lane) run = count - lane;
    const int to_vector = kLanes - lane % kLanes;
    if (run > to_vector) run = to_vector;
    spans[number++] = {y, x, lane, run};
    lane += run;
  }
  return number;
}

// Words of a tile [planes][stride] to the runs that spans cut it into, and nowhere else.
static inline void store_spans(const uint32_t* tile, int stride, const BitMap& map,
                               const Span* spans, int number) {
  for (int p = 0; p < map.planes; ++p)
    for (int s = 0; s < number; ++s) {
      uint32_t* to = map.at(spans[s].y, p, spans[s].x);
      const uint32_t* from = tile + p * stride + spans[s].lane;
      for (int i = 0; i < spans[s].count; ++i) to[i] = from[i];
    }
}

}  // namespace bhvit
