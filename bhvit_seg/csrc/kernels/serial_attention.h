// Attention in windows and what it takes, plainly; part of serial.cc.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels.h"
#include "serial_basics.h"

namespace bhvit {
namespace {

void normalize(const TokenProjections& layer, float* token) {
  const float count = static_cast<float>(layer.channels);
  float sums[4] = {};
  for (int c = 0; c < layer.channels; ++c) sums[c % 4] += token[c];
  const float mean = ((sums[0] + sums[1]) + (sums[2] + sums[3])) / count;
  for (float& sum : sums) sum = 0.0f;
  for (int c = 0; c < layer.channels; ++c) {
    const float centred = token[c] - mean;
    sums[c % 4] = fused(centred, centred, sums[c % 4]);
  }
  const float variance = ((sums[0] + sums[1]) + (sums[2] + sums[3])) / count;
  const float factor = 1.0f / std::sqrt(variance + layer.epsilon);
  for (int c = 0; c < layer.channels; ++c)
    token[c] = fused((token[c] - mean) * factor, layer.norm_weight[c], layer.norm_bias[c]);
}

void project_tokens(const TokenProjections& layer, const Map& map, Tokens tokens, float*,
                    uint32_t* bits, float* sum) {
  const int channels = layer.channels, words = channels / 32;
  std::vector<float> h(channels);
  for (int lane = 0; lane < tokens.count; ++lane) {
    const int token = tokens.token + lane;
    for (int c = 0; c < channels; ++c) {
      const float x = *map.at(token / map.width, c, token % map.width);
      h[c] = layer.in_scale ? fused(x, layer.in_scale[c], layer.in_bias[c]) : x;
    }
    normalize(layer, h.data());
    for (int p = 0; p < 3; ++p) {
      const TokenProjections::Part& part = layer.parts[p];
      std::vector<uint32_t> inputs(words, 0);
      for (int c = 0; c < channels; ++c)
        if (h[c] >= part.input_threshold[c]) inputs[c / 32] |= 1u << (c % 32);
      for (int o = 0; o < channels; ++o) {
        const BitChannel& channel = part.outputs[o];
        const int32_t acc = accumulate_inputs(inputs.data(), 1, channels, part.weights, o);
        const float y = prelu(fused(static_cast<float>(acc), channel.scale, channel.bias) + h[o],
                              channel.slope);
        float& total = sum[o * kTileLanes + lane];
        total = p ? total + y : y;
        uint32_t& word = bits[(p * words + o / 32) * kTileLanes + lane];
        if (o % 32 == 0) word = 0;
        if (y >= channel.threshold) word |= 1u << (o % 32);
      }
    }
  }
}

float softmax_term(const Attention& head, int differences) {
  return head.powers[0][differences % 16] * head.powers[1][differences / 16 % 16] *
         head.powers[2][differences / 256];
}

// clamp(round half to even, 0, 3) without leaving the comparisons.
int quantized(float level) { return level > 2.5f ? 3 : level >= 1.5f ? 2 : level > 0.5f ? 1 : 0; }

// The i-th token of the set that attends in a window: pooled tokens, then those of the window.
const uint32_t* word_of(const TokenBits& bits, int first_word, const Window& window, int i) {
  const int cells = bits.pooled.width;
  if (i < cells) return bits.pooled.at(0, first_word, i);
  i -= cells;
  return bits.map.at(window.y + i / window.columns, first_word, window.x + i % window.columns);
}

void attend(const Attention& head, const TokenBits (&bits)[3], int first_word, const Window& window,
            const HeadContext& to, float*) {
  const TokenBits &queries = bits[0], &keys = bits[1], &values = bits[2];
  const int cells = queries.pooled.width, number = cells + window.rows * window.columns;
  std::vector<float> terms(number);
  std::vector<int32_t> totals(head.head_channels);
  for (int i = 0; i < number; ++i) {
    const uint32_t* query = word_of(queries, first_word, window, i);
    const ptrdiff_t query_plane = i < cells ? queries.pooled.plane : queries.map.plane;
    float sums[2] = {};
    for (int j = 0; j < number; ++j) {
      const uint32_t* key = word_of(keys, first_word, window, j);
      const ptrdiff_t key_plane = j < cells ? keys.pooled.plane : keys.map.plane;
      int differences = 0;
      for (int w = 0; w < head.head_words; ++w)
        differences += popcount(query[w * query_plane] ^ key[w * key_plane]);
      terms[j] = softmax_term(head, differences);
      sums[j % 2] += terms[j];
    }
    const float factor = head.level_scale / (sums[0] + sums[1]);
    std::fill(totals.begin(), totals.end(), 0);
    for (int j = 0; j < number; ++j) {
      const uint32_t* value = word_of(values, first_word, window, j);
      const ptrdiff_t plane = j < cells ? values.pooled.plane : values.map.plane;
      const int level = quantized(fused(terms[j], factor, head.zero_point));
      for (int c = 0; c < head.head_channels; ++c)
        totals[c] += value[c / 32 * plane] >> (c % 32) & 1 ? level : -level;
    }
    for (int c = 0; c < head.head_channels; ++c) {
      if (i < cells)
        to.pooled[c * to.pooled_stride + i] +=
            activate(to.channels[c], totals[c], *to.pooled_rest->at(0, to.first_channel + c, i));
      else
        to.sums[(i / kLanes - cells / kLanes) * to.vector + c * kLanes + i % kLanes] = totals[c];
    }
  }
}

void mix_context(const ContextMixer& mixer, const WindowSums& sums, const float* rest,
                 const float* contexts, Tokens tokens, float* mixed, uint32_t* bits) {
  for (int lane = 0; lane < tokens.count; ++lane) {
    const int y = (tokens.token + lane) / sums.width, x = (tokens.token + lane) % sums.width;
    const int left = x / sums.size * sums.size;
    const int columns = sums.width - left < sums.size ? sums.width - left : sums.size;
    const int cell = y / sums.size * sums.across + x / sums.size;
    const int token = sums.first + y % sums.size * columns + x - left;
    for (int c = 0; c < mixer.channels; ++c) {
      const int at = c * kTileLanes + lane;
      const ptrdiff_t vector = static_cast<ptrdiff_t>(cell) * sums.vectors + token / kLanes;
      const int32_t sum = sums.data[(vector * mixer.channels + c) * kLanes + token % kLanes];
      const float w = activate(mixer.context[c], sum, rest[at]);
      mixed[at] = fused(mixer.balance[c], w, contexts[cell * mixer.channels + c]);
      uint32_t& word = bits[c / 32 * kTileLanes + lane];
      if (c % 32 == 0) word = 0;
      if (mixed[at] >= mixer.threshold[c]) word |= 1u << (c % 32);
    }
  }
}

}  // namespace
}  // namespace bhvit
