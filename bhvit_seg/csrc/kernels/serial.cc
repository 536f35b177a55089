// The plain version of every kernel: one token at a time, one operation after another. The other
// instruction sets are tested against it for equality to the bit, so the order of operations and
// the places of fused multiply-adds here define the engine's results.
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "constants.h"
#include "kernels.h"
#include "serial_attention.h"
#include "serial_basics.h"

namespace bhvit {
namespace {

float exp2_value(float x) {
  const float rounded = (x + kRound) - kRound;
  const float f = x - rounded;
  float p = kExp2[6];
  for (int i = 5; i >= 0; --i) p = fused(p, f, kExp2[i]);
  return std::ldexp(p, static_cast<int>(rounded));
}

void load_tile(const Map& map, int channels, Tokens tokens, const float* scale, const float* bias,
               float* tile, int stride) {
  for (int c = 0; c < channels; ++c)
    for (int i = 0; i < tokens.count; ++i) {
      const int token = tokens.token + i;
      const float x = *map.at(token / map.width, c, token % map.width);
      tile[c * stride + i] = scale ? fused(x, scale[c], bias[c]) : x;
    }
}

// Writes one value, and its copies in the circular border.
void store_wrapped(const Map& map, int y, int c, int x, float value) {
  *map.at(y, c, x) = value;
  const int borders[4] = {-2, -1, map.width, map.width + 1};
  for (int border : borders)
    if ((border + 2 * map.width) % map.width == x) *map.at(y, c, border) = value;
}

void store_tile(const float* tile, int stride, int channels, const Map& map, Tokens tokens,
                bool accumulate, bool wrap) {
  for (int c = 0; c < channels; ++c)
    for (int i = 0; i < tokens.count; ++i) {
      const int y = (tokens.token + i) / map.width, x = (tokens.token + i) % map.width;
      float value = tile[c * stride + i];
      if (accumulate) value += *map.at(y, c, x);
      if (wrap)
        store_wrapped(map, y, c, x, value);
      else
        *map.at(y, c, x) = value;
    }
}

void pack_tile(const float* tile, int stride, int channels, int vectors, const float* scale,
               const float* bias, uint32_t* bits) {
  for (int word = 0; word < channels / 32; ++word)
    for (int lane = 0; lane < vectors * kLanes; ++lane) {
      uint32_t packed = 0;
      for (int i = 0; i < 32; ++i) {
        const int c = 32 * word + i;
        const float x = tile[c * stride + lane];
        const float y = scale ? fused(x, scale[c], bias[c]) : x + bias[c];
        if (y >= 0.0f) packed |= 1u << i;
      }
      bits[word * stride + lane] = packed;
    }
}

float shortcut_of(const float* tile, int channels, int outputs, int output, int stride) {
  if (channels <= outputs) return tile[output % channels * stride];
  const int ratio = channels / outputs;
  float sum = tile[output * ratio * stride];
  for (int i = 1; i < ratio; ++i) sum += tile[(output * ratio + i) * stride];
  return sum * (1.0f / static_cast<float>(ratio));
}

void pack_and_average(const float* tile, int stride, int channels, int vectors, const float* bias,
                      uint32_t* bits, float* means) {
  pack_tile(tile, stride, channels, vectors, nullptr, bias, bits);
  const int number = channels / kAveraged;
  for (int c = 0; c < number; ++c)
    for (int lane = 0; lane < vectors * kLanes; ++lane)
      means[c * stride + lane] = shortcut_of(tile + lane, channels, number, c, stride);
}

void normalize_bytes(float* tile, int stride, int channels, int vectors, const float* mean,
                     const float* deviation) {
  for (int row = 0; row < 16 * channels; row += 4)
    for (int lane = 0; lane < vectors * kLanes; ++lane) {
      float* at = tile + row * stride + lane;
      uint32_t word;
      std::memcpy(&word, at, 4);
      for (int i = 0; i < 4; ++i, word >>= 8) {
        const int c = (row + i) % channels;
        at[i * stride] = (static_cast<float>(word & 255) - mean[c]) / deviation[c];
      }
    }
}

float gelu_value(float x) {
  const float size = x > 0.0f - x ? x : 0.0f - x;
  const float u = size > kErfcEnd ? kErfcEnd : size;
  float p = kErfc[10];
  for (int i = 9; i >= 0; --i) p = fused(p, u, kErfc[i]);
  const float tail = 0.5f * exp2_value(0.0f - u * p);
  return x * (x > 0.0f ? 1.0f - tail : tail);
}

void embed_tile(float* tile, int stride, int channels, bool gelu, const Map& position,
                const Map& to, Tokens tokens) {
  for (int c = 0; c < channels; ++c)
    for (int i = 0; i < tokens.count; ++i) {
      float& x = tile[c * stride + i];
      if (gelu) x = gelu_value(x);
      x += *position.at((tokens.token + i) / to.width, c, (tokens.token + i) % to.width);
    }
  store_tile(tile, stride, channels, to, tokens, false, true);
}

void multiply(const float* tile, int stride, int inputs, int vectors, const float* weights,
              const float* bias, int outputs, float* out, ptrdiff_t out_stride) {
  for (int o = 0; o < outputs; ++o) {
    const float* row = weights + o / kBlock * inputs * kBlock + o % kBlock;
    for (int lane = 0; lane < vectors * kLanes; ++lane) {
      float sum = bias[o];
      for (int from = 0; from < inputs; from += kPartialSum) {
        float partial = 0.0f;
        for (int k = from; k < from + kPartialSum && k < inputs; ++k)
          partial = fused(tile[k * stride + lane], row[k * kBlock], partial);
        sum += partial;
      }
      out[o * out_stride + lane] = sum;
    }
  }
}

void load_patches(const Map& map, int channels, int y, int x, const float* scale, const float* bias,
                  float* tile, int stride) {
  for (int tap = 0; tap < 4; ++tap)
    for (int c = 0; c < channels; ++c)
      for (int lane = 0; lane < kLanes; ++lane) {
        const int from_y = 2 * y + tap / 2, from_x = 2 * (x + lane) + tap % 2;
        float value = 0.0f;
        if (from_y < map.height && from_x < map.width)
          value = fused(*map.at(from_y, c, from_x), scale[c], bias[c]);
        tile[(tap * channels + c) * stride + lane] = value;
      }
}

void mlp_token(const Mlp& mlp, const Map& in, const Map& out, const Binarizer* next,
               const BitMap* next_bits, int y, int x) {
  const int channels = mlp.channels, hidden = mlp.hidden, ratio = hidden / channels;
  std::vector<float> normed(channels), result(channels), pooled(channels, 0.0f);
  std::vector<uint32_t> bits(channels / 32, 0), hidden_bits(hidden / 32, 0);
  static const int offsets[9][2] = {{0, 0},  {-1, 0}, {1, 0},  {-2, 0}, {2, 0},
                                    {0, -1}, {0, 1},  {0, -2}, {0, 2}};
  for (int c = 0; c < channels; ++c) {
    float sum = mlp.outputs[c].post_bias;
    for (int tap = 0; tap < 9; ++tap) {
      const int from_y = (y + offsets[tap][0] + 2 * in.height) % in.height;
      const int from_x = (x + offsets[tap][1] + 2 * in.width) % in.width;
      sum = fused(*in.at(from_y, c, from_x), mlp.taps[9 * c + tap], sum);
    }
    result[c] = sum;
    normed[c] = fused(*in.at(y, c, x), mlp.in_scale[c], mlp.in_bias[c]);
    if (normed[c] + mlp.input_bias[c] >= 0.0f) bits[c / 32] |= 1u << (c % 32);
  }
  for (int o = 0; o < hidden; ++o) {
    const BitChannel& h = mlp.hidden_channels[o];
    const int32_t acc = accumulate_inputs(bits.data(), 1, channels, mlp.weights1, o);
    const float y1 = fused(static_cast<float>(acc), h.scale, h.bias) + normed[o % channels];
    const float p = prelu(y1, h.slope);
    pooled[o / ratio] += p;
    if (p >= h.threshold) hidden_bits[o / 32] |= 1u << (o % 32);
  }
  const float share = 1.0f / static_cast<float>(ratio);
  for (int o = 0; o < channels; ++o) {
    const OutputChannel& p = mlp.outputs[o];
    const int32_t acc = accumulate_inputs(hidden_bits.data(), 1, hidden, mlp.weights2, o);
    const float y2 = fused(static_cast<float>(acc), p.scale, p.bias);
    const float value = fused(prelu(fused(pooled[o], share, y2), p.slope), p.post_scale, result[o]);
    store_wrapped(out, y, o, x, value);
    if (!next) continue;
    uint32_t& word = *next_bits->at(y, o / 32, x);
    if (o % 32 == 0) word = 0;
    if (fused(value, next->scale[o], next->bias[o]) >= 0.0f) word |= 1u << (o % 32);
  }
}

void mlp(const Mlp& layer, const Map& in, const Map& out, const Binarizer* next,
         const BitMap* next_bits, Tokens tokens, float*) {
  for (int token = tokens.token; token < tokens.token + tokens.count; ++token)
    mlp_token(layer, in, out, next, next_bits, token / in.width, token % in.width);
}

// Accumulator of one output at column x: taps that lie outside the map are left out.
int32_t convolve_token(const Convolution& layer, const TapRows& taps, int x, int output) {
  const int inputs = layer.inputs / layer.groups;
  const int group = output / (layer.outputs / layer.groups);
  const uint32_t* weights =
      layer.weights + output / kBlock * layer.words * kBlock + output % kBlock;
  const int some = std::gcd(inputs, 32);  // channels at once: never across words
  int twice = 0;                          // -product
  for (int tap = 0; tap < layer.kernel * layer.kernel; ++tap) {
    const int kx = tap % layer.kernel;
    if (!taps.rows[tap] || x < taps.first[kx] || x >= taps.last[kx]) continue;
    for (int i = 0; i < inputs; i += some) {
      const int channel = group * inputs + i, k = tap * inputs + i;
      const uint32_t a = taps.rows[tap][channel / 32 * taps.plane + x] >> (channel % 32);
      const uint32_t w = weights[k / 32 * kBlock] >> (k % 32);
      twice += 2 * popcount((a ^ w) << (32 - some)) - some;
    }
  }
  return twice / 2;
}

void multi_scale(const MultiScaleConvolution& layer, const TapRows* taps, const Map& map, int y,
                 uint32_t*) {
  const int outputs = layer.branches[0].convolution.outputs;
  for (int x = 0; x < map.width; ++x)
    for (int o = 0; o < outputs; ++o) {
      float total = 0.0f;
      for (int d = 0; d < 3; ++d) {
        const GroupedBranch& branch = layer.branches[d];
        const int32_t acc = convolve_token(branch.convolution, taps[d], x, o);
        const BranchChannel& channel = branch.channels[o];
        const float p =
            prelu(fused(static_cast<float>(acc), channel.scale, channel.bias), channel.slope);
        total += p;
      }
      const float residual = *map.at(y, o, x) + layer.out_bias[o];
      store_wrapped(map, y, o, x, fused(total, layer.out_scale[o], residual));
    }
}

void convolve(const Convolution& layer, const OutputChannel* outputs, const TapRows& taps, int x,
              const float* shortcut, int shortcut_channels, uint32_t*, float* out) {
  for (int o = 0; o < layer.outputs; ++o)
    for (int lane = 0; lane < kLanes; ++lane) {
      const float y =
          activate(outputs[o], convolve_token(layer, taps, x + lane, o),
                   shortcut_of(shortcut + lane, shortcut_channels, layer.outputs, o, kLanes));
      out[o * kLanes + lane] = fused(y, outputs[o].post_scale, outputs[o].post_bias);
    }
}

void project(const uint32_t* bits, int inputs, const uint32_t* weights,
             const OutputChannel* outputs, int number, const float* shortcut, int shortcut_channels,
             int stride, int vectors, float* out) {
  for (int o = 0; o < number; ++o)
    for (int lane = 0; lane < vectors * kLanes; ++lane) {
      const int32_t acc = accumulate_inputs(bits + lane, stride, inputs, weights, o);
      const float y = activate(outputs[o], acc,
                               shortcut_of(shortcut + lane, shortcut_channels, number, o, stride));
      out[o * stride + lane] = fused(y, outputs[o].post_scale, outputs[o].post_bias);
    }
}

void pool_rows(const Map& map, int channel, int y0, int y1, float scale, float bias, float* highest,
               float* sum) {
  for (int x = 0; x < map.width; ++x) {
    float most = fused(*map.at(y0, channel, x), scale, bias), total = most;
    for (int y = y0 + 1; y < y1; ++y) {
      const float v = fused(*map.at(y, channel, x), scale, bias);
      most = v > most ? v : most;
      total += v;
    }
    highest[x] = most;
    sum[x] = total;
  }
}

float upsample(const float* row, const Upsampling& to, int x) {
  row += to.base[x / kLanes];
  const float a = row[to.x0[x]];
  return fused(to.x_weight[x], row[to.x1[x]] - a, a);
}

void upsample_tile(const Map& map, int channels, const Upsampling& to, int y, int column_tile,
                   float* tile, int stride) {
  for (int c = 0; c < channels; ++c)
    for (int lane = 0; lane < kLanes; ++lane) {
      const int x = column_tile * kLanes + lane;
      const float* top = map.at(to.y0[y], c, to.base[column_tile]);
      const float* bottom = map.at(to.y1[y], c, to.base[column_tile]);
      const auto column = [&](uint32_t i) {
        return fused(to.y_weight[y], bottom[i] - top[i], top[i]);
      };
      const float a = column(to.x0[x]);
      tile[c * stride + lane] = fused(to.x_weight[x], column(to.x1[x]) - a, a);
    }
}

void upsample_and_pack(const Map& map, int channels, const Upsampling& to, int y, int column_tile,
                       int vectors, const float* bias, uint32_t* bits, float* means, int stride) {
  std::vector<float> tile(static_cast<size_t>(channels) * stride);
  for (int v = 0; v < vectors; ++v)
    upsample_tile(map, channels, to, y, column_tile + v, tile.data() + v * kLanes, stride);
  pack_and_average(tile.data(), stride, channels, vectors, bias, bits, means);
}

void label_rows(const Map& logits, int classes, const Upsampling& to, int y_begin, int y_end,
                int width, uint8_t* labels, ptrdiff_t stride) {
  for (int y = y_begin; y < y_end; ++y)
    for (int x = 0; x < width; ++x) {
      float best = -HUGE_VALF;
      int label = 0;
      for (int c = 0; c < classes; ++c) {
        const float a = upsample(logits.at(to.y0[y], c, 0), to, x);
        const float b = upsample(logits.at(to.y1[y], c, 0), to, x);
        const float value = fused(to.y_weight[y], b - a, a);
        if (value > best) {
          best = value;
          label = c;
        }
      }
      labels[(y - y_begin) * stride + x] = static_cast<uint8_t>(label);
    }
}

int64_t busy_count(int rounds, uint32_t* sink) {
  uint32_t sums[4] = {};
  for (int k = 0; k < rounds; ++k)
    for (int i = 0; i < 4; ++i) sums[i] += popcount(sink[i] ^ static_cast<uint32_t>(k));
  sink[0] = sums[0] + sums[1] + sums[2] + sums[3];
  return int64_t{rounds} * 4 * 32;
}

int64_t busy_multiply(int rounds, float* sink) {
  float sums[4] = {};
  for (int k = 0; k < rounds; ++k)
    for (float& sum : sums) sum = fused(sum, 0.5f, sink[0]);
  sink[0] = sums[0] + sums[1] + sums[2] + sums[3];
  return int64_t{rounds} * 4;
}

}  // namespace

extern const Kernels kSerialKernels;
const Kernels kSerialKernels = {
    "serial",        load_tile,    store_tile,    pack_tile,         pack_and_average,
    normalize_bytes, embed_tile,   multiply,      load_patches,      mlp,
    multi_scale,     convolve,     project,       project_tokens,    attend,
    mix_context,     pool_rows,    upsample_tile, upsample_and_pack, label_rows,
    busy_count,      busy_multiply};

}  // namespace bhvit
