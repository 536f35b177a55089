// What a kernel computes; kernels/serial.cc is the plain version of each and the oracle.
//
// Kernels work on tiles: `vectors` times 16 tokens side by side in lanes, all channels below one
// another, element (c, lane) at tile[c * stride + lane]. One token never touches another's lane,
// so every instruction set does for each token exactly what the serial loop does, in the same
// order and with fused multiply-adds at the same places: results are equal to the bit.
//
// Binary products. Bits are 1 for +1 and 0 for -1, inputs k of an output in bit k % 32 of word
// k / 32, bits beyond the last input 0 in both operands. With p = popcount(a xor w) over K bits
// the product is K - 2p; kernels carry the accumulator p - K/2 and multiply by -2 * scale, which
// the loader has prepared (`scale` below). A tap outside the map has bits 0, which xor counts as
// -1 where nothing should count: the accumulator of such a token starts with a correction of
// -sum(w)/2 for each missing tap (`Border`).
//
// Weights of products are blocked: [outputs / 8][words][8].
#pragma once

#include <cstdint>

#include "../maps.h"

namespace bhvit {

constexpr int kBlock = 8;       // outputs that a micro-kernel computes together
constexpr int kMaxVectors = 2;  // vectors of a tile
constexpr int kTileLanes = kMaxVectors * kLanes;
constexpr int kAveraged = 4;      // channels to a mean of pack_and_average
constexpr int kPartialSum = 128;  // float products are summed in parts: rounding grows with length

// Where a tile lies in a map: tokens [token, token + count) in row-major order.
struct Tokens {
  int token, count;
  BHVIT_INLINE int vectors() const { return div_up(count, kLanes); }
};

// y = prelu(scale * accumulator + bias + shortcut, slope) and the bit y >= threshold.
struct BitChannel {
  float scale, bias, slope, threshold;
};

// y = prelu(scale * accumulator + bias + shortcut, slope), out = post_scale * y + post_bias.
struct OutputChannel {
  float scale, bias, slope, post_scale, post_bias;
};

// Shift-enhanced MLP with both shortcuts; see docs/packed.md for the formulas.
struct Mlp {
  int channels, hidden;
  const float *in_scale, *in_bias, *input_bias;
  const uint32_t* weights1;  // channels -> hidden
  const BitChannel* hidden_channels;
  const uint32_t* weights2;      // hidden -> channels
  const OutputChannel* outputs;  // post_scale, post_bias: LayerScale
  const float* taps;             // [channels][9]: centre, dy -1 +1 -2 +2, dx -1 +1 -2 +2
};

// Bits of scale * x + bias >= 0, for the convolution that follows.
struct Binarizer {
  const float *scale, *bias;
};

// Corrections for taps outside the map: `state` has a bit for each row of taps that lies inside.
struct Border {
  const int32_t* start;    // [states][outputs]: accumulator to start with, -K/2 included
  const int32_t* missing;  // [states][columns of taps][outputs]: added where a column is outside
};

// Binary convolution with kernel k x k; weights [outputs / 8][words][8] with inputs in the order
// (ky, kx, channel in group).
struct Convolution {
  int kernel, groups, inputs, outputs;  // inputs of all groups
  int words;                            // of a group: ceil(k * k * inputs / groups / 32)
  const uint32_t* weights;
  Border border;
};

// Where the taps of a row of outputs lie.
struct TapRows {
  const uint32_t* rows[9];  // (ky, kx): word plane 0 at output column 0; null outside the map
  ptrdiff_t plane;          // from one word plane to the next
  int first[3], last[3];    // output columns [first, last) for which column kx lies inside
  int state;                // bit ky: the row lies inside
};

struct BranchChannel {
  float scale, bias, slope;
};

struct GroupedBranch {
  Convolution convolution;
  const BranchChannel* channels;
};

// x += out_scale * sum over branches of prelu(scale * accumulator + bias, slope) + out_bias.
struct MultiScaleConvolution {
  GroupedBranch branches[3];
  const float *out_scale, *out_bias;
};

// Rows and columns between which a value of an upsampled map lies.
struct Upsampling {
  const int* y0;  // [height]; the other is y1
  const int* y1;
  const float* y_weight;  // of y1
  const int* base;        // [tiles of 16 columns]: first source column that the tile reads
  const uint32_t* x0;     // [width rounded up]: lanes relative to base
  const uint32_t* x1;
  const float* x_weight;
};

// A window of tokens: the rows and columns of it that lie in the map. Its tokens are followed by
// all pooled tokens.
struct Window {
  int y, x, rows, columns;
};

// Queries, keys and values: h = LayerNorm(in_scale * x + in_bias), of x as it is where in_scale is
// null; then for each part the product of the bits h >= input_threshold,
// y = prelu(scale * accumulator + bias + h, slope), and the bits y >= threshold.
struct TokenProjections {
  int channels;
  const float *in_scale, *in_bias, *norm_weight, *norm_bias;
  float epsilon;
  struct Part {
    const float* input_threshold;
    const uint32_t* weights;
    const BitChannel* outputs;
  } parts[3];
};

// Bits of a map's tokens and of the pooled ones.
struct TokenBits {
  BitMap map, pooled;
};

struct Attention {
  int head_words, head_channels;  // head_channels = 32 * head_words
  // The softmax term of p = popcount(q ^ k) is powers[0][p % 16] * powers[1][p / 16 % 16] *
  // powers[2][p / 256]; head_channels < 16^3.
  float powers[3][kLanes];
  float level_scale;  // 3 / alpha
  float zero_point;
};

// Where what a head attends to in a window goes. The pooled tokens come first, so they lie in the
// same lanes in every window.
struct HeadContext {
  // Of the window's tokens, in lanes from cells % kLanes on: [vectors][channels][kLanes], of all
  // heads; the first one's channels are `vector` values before the second one's.
  int32_t* sums;
  ptrdiff_t vector;
  const OutputChannel* channels;  // post_* are not used
  const Map* pooled_rest;
  int first_channel;  // of the head, in pooled_rest
  float* pooled;      // [head_channels][pooled_stride]: added up over windows
  int pooled_stride;
};

// The sums of all windows of a map: [windows][vectors][channels][kLanes], each as in HeadContext.
// May be read a vector before and behind.
struct WindowSums {
  const int32_t* data;
  int vectors;
  int first;         // cells % kLanes
  int size, across;  // of windows
  int width;         // of the map
};

// w = prelu(scale * sum + bias + rest, slope), balance * w + share of the token's cell, and its
// bits: those at or above the threshold.
struct ContextMixer {
  int channels;
  const OutputChannel* context;  // post_* are not used
  const float *balance, *threshold;
};

struct Kernels {
  const char* name;

  // Tokens of a map into a tile, as scale * x + bias, or as they are if scale is null.
  void (*load_tile)(const Map& map, int channels, Tokens tokens, const float* scale,
                    const float* bias, float* tile, int stride);
  // The reverse; `add`: onto what is there; `wrap`: keep the circular border.
  void (*store_tile)(const float* tile, int stride, int channels, const Map& map, Tokens tokens,
                     bool add, bool wrap);
  // Bits of tile * scale + bias >= 0 (of tile + bias if scale is null): [channels / 32][stride].
  void (*pack_tile)(const float* tile, int stride, int channels, int vectors, const float* scale,
                    const float* bias, uint32_t* bits);
  // The bits of tile + bias, and means of kAveraged adjacent channels: [channels / 4][stride].
  void (*pack_and_average)(const float* tile, int stride, int channels, int vectors,
                           const float* bias, uint32_t* bits, float* means);
  // (byte - mean) / deviation of the bytes of each fourth row's words, least significant first, to
  // that row and the next three, of 16 * channels; row r has channel r % channels.
  void (*normalize_bytes)(float* tile, int stride, int channels, int vectors, const float* mean,
                          const float* deviation);
  // tile + position, or x * Phi(x) + position: in place, and into `to` with its circular border.
  void (*embed_tile)(float* tile, int stride, int channels, bool gelu, const Map& position,
                     const Map& to, Tokens tokens);
  // float out = weights * tile + bias, summed kPartialSum inputs at a time;
  // weights [outputs / 8][inputs][8], out [outputs][out_stride].
  void (*multiply)(const float* tile, int stride, int inputs, int vectors, const float* weights,
                   const float* bias, int outputs, float* out, ptrdiff_t out_stride);
  // Tokens (2y + ky, 2x + kx) of a map for output tokens in a row: tile [(ky, kx, channel)],
  // as scale * x + bias; zero outside the map.
  void (*load_patches)(const Map& map, int channels, int y, int x, const float* scale,
                       const float* bias, float* tile, int stride);

  void (*mlp)(const Mlp& mlp, const Map& in, const Map& out, const Binarizer* next,
              const BitMap* next_bits, Tokens tokens, float* scratch);

  // A row, x in place (with its circular border).
  void (*multi_scale)(const MultiScaleConvolution& layer, const TapRows* taps, const Map& map,
                      int y, uint32_t* scratch);
  // One vector of outputs of a row: out tile [outputs][16] = post(prelu(... + shortcut)).
  // The shortcut tile has `shortcut_channels` channels, repeated or averaged to the outputs.
  void (*convolve)(const Convolution& layer, const OutputChannel* outputs, const TapRows& taps,
                   int x, const float* shortcut, int shortcut_channels, uint32_t* scratch,
                   float* out);

  // The 1x1 case on tiles; bits [inputs / 32][stride].
  void (*project)(const uint32_t* bits, int inputs, const uint32_t* weights,
                  const OutputChannel* outputs, int number, const float* shortcut,
                  int shortcut_channels, int stride, int vectors, float* out);

  // Tokens of a map: bits [3][channels / 32][kTileLanes], sum of the three y
  // [channels][kTileLanes].
  void (*project_tokens)(const TokenProjections& layer, const Map& map, Tokens tokens,
                         float* scratch, uint32_t* bits, float* sum);
  // One head in one window. Bits are those of queries, keys and values, from `first_word` on.
  void (*attend)(const Attention& head, const TokenBits (&bits)[3], int first_word,
                 const Window& window, const HeadContext& to, float* scratch);
  // rest, mixed: [channels][kTileLanes], bits: [channels / 32][kTileLanes], contexts:
  // [cells][channels].
  void (*mix_context)(const ContextMixer& mixer, const WindowSums& sums, const float* rest,
                      const float* contexts, Tokens tokens, float* mixed, uint32_t* bits);

  // Maximum and sum of scale * x + bias over the rows [y0, y1) of one channel: [width] each.
  void (*pool_rows)(const Map& map, int channel, int y0, int y1, float scale, float bias,
                    float* highest, float* sum);

  // A row's tile of an upsampled map: [channels][stride] for 16 columns from 16 * column_tile.
  void (*upsample_tile)(const Map& map, int channels, const Upsampling& to, int y, int column_tile,
                        float* tile, int stride);
  // The same for `vectors` tiles from `column_tile` on, of which only what pack_and_average makes
  // of them is kept.
  void (*upsample_and_pack)(const Map& map, int channels, const Upsampling& to, int y,
                            int column_tile, int vectors, const float* bias, uint32_t* bits,
                            float* means, int stride);
  // Labels of the rows [y_begin, y_end), all between the same two rows of logits.
  void (*label_rows)(const Map& logits, int classes, const Upsampling& to, int y_begin, int y_end,
                     int width, uint8_t* labels, ptrdiff_t labels_stride);

  // What the processor can do at best, for profiles: products per call of a loop on registers.
  int64_t (*busy_count)(int rounds, uint32_t* sink);
  int64_t (*busy_multiply)(int rounds, float* sink);
};

// Floats of scratch that mlp needs.
static inline uint64_t mlp_scratch(int channels, int hidden) {
  const uint64_t lanes = kMaxVectors * kLanes;
  return lanes * (3 * static_cast<uint64_t>(channels) + 3 * (channels / 32) + 2 * (hidden / 32)) +
         8 * kLanes;
}
// Words of scratch that multi_scale needs.
static inline uint64_t multi_scale_scratch(const Convolution& branch) {
  return 3 * static_cast<uint64_t>(branch.words) *
         (2 * static_cast<uint64_t>(branch.groups) * kTileLanes + 2 * branch.outputs);
}
// Floats of scratch that project_tokens needs.
static inline uint64_t project_tokens_scratch(int channels) {
  return kTileLanes * (static_cast<uint64_t>(channels) + 2 * 3 * channels / 32);
}
// Floats of scratch that attend needs for so many tokens, pooled ones included.
static inline uint64_t attend_scratch(int head_channels, int tokens) {
  const uint64_t channels = head_channels, words = div_up(tokens, 32);
  return 3 * channels / 32 * round_up(tokens, kLanes) + kLanes + channels * (words + kLanes) +
         kLanes * (32 + 2) * words;
}

}  // namespace bhvit
