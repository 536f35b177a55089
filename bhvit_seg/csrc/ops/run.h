// One run of the network: layers are functions over a Run, each a few parallel regions.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "../parameters.h"
#include "../plan.h"
#include "../thread_pool.h"

namespace bhvit {

// An image [height][width][channels], of bytes or of floats.
struct Image {
  const uint8_t* bytes;
  const float* floats;
  int height, width;
};

// Seconds of each region, by name, in the order in which the network runs.
using Profile = std::vector<std::pair<std::string, double>>;

struct Run {
  const Parameters& parameters;
  const Kernels& kernels;
  ThreadPool& pool;
  Plan& plan;
  Profile* profile;  // or null

  // Calls work(piece, scratch) for all pieces, on all threads.
  template <typename Work>
  void region(const char* name, int pieces, const Work& work) const {
    const auto start = std::chrono::steady_clock::now();
    pool.run(pieces, [&](int piece, int thread) { work(piece, plan.scratch[thread]); });
    if (!profile) return;
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    profile->emplace_back(name, seconds.count());
  }
};

// Tokens of the piece-th tile of a map.
inline Tokens tile_of(const Planes<float>& map, int piece) {
  const int token = piece * kTileLanes, left = map.height * map.width - token;
  return {token, left < kTileLanes ? left : kTileLanes};
}
inline int tiles_of(const Planes<float>& map) { return div_up(map.height * map.width, kTileLanes); }

// Fetches what will be overwritten: stores to planes far apart would wait for it one by one.
inline void expect_stores(const Map& map, Tokens tokens) {
  Span spans[kTileLanes];
  const int number = cut_into_spans(tokens.token, tokens.count, map.width, spans);
  for (int s = 0; s < number; ++s) {
    const float* to = map.at(spans[s].y, 0, spans[s].x);
    for (int p = 0; p < map.planes; ++p, to += map.plane) __builtin_prefetch(to, 1);
  }
  asm volatile(
      "");  // or the compiler takes this for a function without effects and drops its calls
}

// Bits of a tile [words][stride] to their places in a map.
inline void store_bits(const uint32_t* bits, int stride, const BitMap& map, Tokens tokens) {
  Span spans[kTileLanes];
  const int number = cut_into_spans(tokens.token, tokens.count, map.width, spans);
  store_spans(bits, stride, map, spans, number);
}

// Where the taps of a 3x3 convolution lie for outputs in row y.
inline TapRows taps_of(const BitMap& bits, int y, int dilation) {
  TapRows taps;
  taps.plane = bits.plane;
  taps.state = 0;
  for (int ky = 0; ky < 3; ++ky) {
    const int row = y + (ky - 1) * dilation;
    const bool inside = row >= 0 && row < bits.height;
    if (inside) taps.state |= 1 << ky;
    for (int kx = 0; kx < 3; ++kx)
      taps.rows[3 * ky + kx] = inside ? bits.at(row, 0, (kx - 1) * dilation) : nullptr;
  }
  for (int kx = 0; kx < 3; ++kx) {
    const int offset = (kx - 1) * dilation;
    taps.first[kx] = offset < 0 ? -offset : 0;
    taps.last[kx] = bits.width - (offset > 0 ? offset : 0);
  }
  return taps;
}

void run_stem(const Run& run, const Image& image);
void run_downsampling(const Run& run, int stage);  // from stage - 1 to stage
void run_blocks(const Run& run, int stage);
void run_head(const Run& run);  // to plan.logits
// Of the upper left of the image that the plan is for.
void run_labels(const Run& run, int height, int width, uint8_t* labels);

}  // namespace bhvit
