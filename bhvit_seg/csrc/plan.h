// Everything that depends on the size of the image alone, worked out once: sizes of maps, one
// block of memory cut into them, resized position embeddings, tables for upsampling.
#pragma once

#include <vector>

#include "maps.h"
#include "memory.h"
#include "parameters.h"
#include "resize.h"

namespace bhvit {

// Tiles that spans are loaded into one after another have room behind each channel.
constexpr int kWideStride = kTileLanes + kLanes;
constexpr int kWindowGroups = 8;

struct StagePlan {
  int height, width;
  Map x, y;      // tokens, before and after: a block's MLP reads one and writes the other
  Map position;  // empty for a stage without
  BitMap bits;   // stages 1 and 2: what MSGDC convolves
  // stages 3 and 4
  int cells_down, cells_across;  // windows, and pooled tokens
  int groups;                    // of windows, whose pooled contexts are summed together
  Map pooled, pooled_rest;       // rest: sum of queries, keys and values
  float* rest;                   // [tiles][channels][kTileLanes]
  TokenBits attending[3];        // queries, keys and values
  WindowSums sums;
  int32_t* window_sums;   // the same memory
  float* pooled_context;  // [groups][channels][cell_stride]
  float* contexts;        // [cells][channels]: what pooled contexts add to their cells' tokens
  int cell_stride;

  int cells() const { return cells_down * cells_across; }
  int tokens() const { return height * width; }
};

struct Plan {
  // Throws std::bad_alloc if the memory can't be had.
  Plan(const Parameters& parameters, int height, int width, int threads);

  // What the maps of an image of this size take.
  static uint64_t bytes(const Parameters& parameters, int height, int width, int threads);

  int height, width;
  StagePlan stages[kStages];
  std::vector<Map> levels;  // the head's maps of each stage
  Map logits;
  Resize to_labels;
  Resize from_stage[kStages];  // to the first stage's size
  // UPerNet
  std::vector<Map> squares, pooled;  // averages of the last map, and their convolutions
  std::vector<Resize> from_square;
  std::vector<Resize> from_above;  // stage i + 1 to stage i
  Map pyramid, joined, top;        // joined: all levels at the first stage's size
  // what 3x3 convolutions read; maps of one's own, since their borders have to stay zero
  BitMap pyramid_bits, joined_bits;
  std::vector<BitMap> level_bits;
  std::vector<Map> outputs;  // of the FPN's convolutions

  std::vector<float*> scratch;  // one for each thread

 private:
  Plan(int height, int width) : height(height), width(width) {}  // with nothing laid out
  uint64_t measure(const Parameters& parameters, int threads);
  void lay_out(const Parameters& parameters, Arena& arena, int threads);
  void lay_out_stage(const Parameters& parameters, int stage, Arena& arena);
  void lay_out_head(const Parameters& parameters, Arena& arena);
  uint64_t scratch_size(const Parameters& parameters) const;

  Block memory_;
};

}  // namespace bhvit
