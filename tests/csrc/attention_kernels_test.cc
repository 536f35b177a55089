// Attention in windows: projections of tokens, a head in a window, and what becomes of its sums.
#include <cmath>

#include "testing.h"

namespace bhvit {
namespace testing {
namespace {

void test_project_tokens(const Pair& k, Random& random) {
  for_sizes([&](int height, int width) {
    const int channels = random.one_of(kChannels), words = channels / 32;
    const TwinMap map(height, width, channels, random);
    const Filled<float> in_scale(channels, random), in_bias(channels, random);
    const Filled<float> weight(channels, random), bias(channels, random);
    const Filled<float> thresholds(3 * channels, random);
    const Filled<uint32_t> weights(3 * words * channels, random);
    const Filled<BitChannel> outputs(3 * channels, random);
    TokenProjections layer = {
        channels, in_scale.data(), in_bias.data(), weight.data(), bias.data(), 1e-5f, {}};
    if (random.below(3) == 0) layer.in_scale = nullptr;
    for (int p = 0; p < 3; ++p)
      layer.parts[p] = {thresholds.data() + p * channels, weights.data() + p * words * channels,
                        outputs.data() + p * channels};
    const Tokens tokens = some_tokens(height, width, kTileLanes, random);
    Report::context("%s project_tokens map %dx%d channels %d tokens %d+%d", k.other.name, height,
                    width, channels, tokens.token, tokens.count);
    Filled<float> scratch(project_tokens_scratch(channels), random);
    Twin<uint32_t> bits(3 * words * kTileLanes, random);
    Twin<float> sum(channels * kTileLanes, random);
    k.serial.project_tokens(layer, map.serial_map, tokens, scratch.data(), bits.serial.data(),
                            sum.serial.data());
    k.other.project_tokens(layer, map.other_map, tokens, scratch.data(), bits.other.data(),
                           sum.other.data());
    bits.expect_equal("bits", 3 * words, kTileLanes, tokens.count);
    sum.expect_equal("sum", channels, kTileLanes, tokens.count);
    if (!scratch.surroundings_untouched()) Report::failed("wrote behind the scratch");
  });
}

Attention head_of(int words, float level_scale, float zero_point) {
  Attention head = {words, 32 * words, {}, level_scale, zero_point};
  const float size = static_cast<float>(32 * words), exponent = 1.442695f / std::sqrt(size);
  for (int digit = 0, unit = 1; digit < 3; ++digit, unit *= 16)
    for (int i = 0; i < 16; ++i)
      head.powers[digit][i] =
          std::exp2(exponent * ((digit ? 0.0f : size) - 2.0f * static_cast<float>(unit * i)));
  return head;
}

// Everything that attends around one window, in maps of `words` planes.
struct AttendingBits {
  TwinBitMap map[3], pooled[3];
  TokenBits serial[3], other[3];

  AttendingBits(int height, int width, int cells, int words, Random& random)
      : map{{height, width, words, random},
            {height, width, words, random},
            {height, width, words, random}},
        pooled{{1, cells, words, random}, {1, cells, words, random}, {1, cells, words, random}} {
    for (int p = 0; p < 3; ++p) {
      serial[p] = {map[p].serial_map, pooled[p].serial_map};
      other[p] = {map[p].other_map, pooled[p].other_map};
    }
  }
};

// Runs both kernels on one head, the second of two in the arrays, and compares what they write.
struct AttendRun {
  int first;  // lane of the window's first token
  Twin<int32_t> sums;

  AttendRun(const Pair& k, const Attention& head, const AttendingBits& bits, int first_word,
            const Window& window, Random& random)
      : first(bits.serial[0].pooled.width % kLanes),
        sums(2 * head.head_channels * round_up(first + window.rows * window.columns, kLanes),
             random) {
    const int cells = bits.serial[0].pooled.width, inside = window.rows * window.columns;
    const int channels = head.head_channels, vector = 2 * channels * kLanes;
    const Filled<OutputChannel> outputs(channels, random);
    const TwinMap rest(1, cells, 2 * channels, random);
    const int pooled_stride = round_up(cells, kLanes) + kLanes;
    Twin<float> pooled(channels * pooled_stride, random);
    Filled<float> scratch(attend_scratch(channels, cells + inside), random);
    Report::context("%s attend cells %d window %dx%d words %d", k.other.name, cells, window.rows,
                    window.columns, head.head_words);
    HeadContext to = {sums.serial.data() + channels * kLanes,
                      vector,
                      outputs.data(),
                      &rest.serial_map,
                      channels,
                      pooled.serial.data(),
                      pooled_stride};
    k.serial.attend(head, bits.serial, first_word, window, to, scratch.data());
    to.sums = sums.other.data() + channels * kLanes;
    to.pooled_rest = &rest.other_map;
    to.pooled = pooled.other.data();
    k.other.attend(head, bits.other, first_word, window, to, scratch.data());
    bool equal = true;
    for (int c = 0; c < 2 * channels; ++c)
      for (int i = first; i < first + inside; ++i) {
        const int at = i / kLanes * vector + c * kLanes + i % kLanes;
        equal = equal && sums.serial[at] == sums.other[at];
      }
    if (!equal) Report::failed("sums differ");
    pooled.expect_equal("pooled", channels, pooled_stride, cells);
    if (!sums.other.surroundings_untouched()) Report::failed("wrote beside the sums");
    if (!scratch.surroundings_untouched()) Report::failed("wrote behind the scratch");
  }
};

void test_attend(const Pair& k, Random& random) {
  const int cell_numbers[] = {1, 2, 9, 16, 25, 40, 300};
  for (int cells : cell_numbers)
    for (int words : {1, 2, 4, 8, 31})
      for (int size : {1, 2, 4, 7, 17}) {
        const int height = random.between(size, 20), width = random.between(size, 20);
        const int rows = random.between(1, size), columns = random.between(1, size);
        const AttendingBits bits(height, width, cells, words + 1, random);
        const Window window = {random.between(0, height - rows), random.between(0, width - columns),
                               rows, columns};
        const float spread = 1.0f + random.below(5);  // from hardly ever 1 to mostly 3
        const float keys = static_cast<float>(cells + rows * columns);
        const Attention head =
            head_of(words, spread * keys, 0.1f * static_cast<float>(random.between(-8, 8)));
        AttendRun(k, head, bits, random.below(2), window, random);
      }
}

// Every term 1, so that levels are exact: halves go to the even neighbour. With as many keys of one
// level as there are, counters count the most they may.
void test_exact_levels(const Pair& k, Random& random) {
  const float levels[] = {-0.5f, 0.0f, 0.5f, 1.0f, 1.5f, 2.5f, 3.5f};
  const int rounded[] = {0, 0, 0, 1, 2, 2, 3};
  for (int size : {4, 32})
    for (size_t i = 0; i < 7; ++i) {
      const int cells = size * size, keys = 2 * cells;
      AttendingBits bits(size, size, cells, 1, random);
      for (TwinBitMap* values : {&bits.map[2], &bits.pooled[2]}) {
        for (size_t at = 0; at < values->serial.size(); ++at) values->serial[at] = ~0u;
        values->copy();
      }
      Attention head = head_of(1, 0.5f * static_cast<float>(keys), levels[i] - 0.5f);
      for (auto& digit : head.powers)
        for (float& power : digit) power = 1.0f;
      const AttendRun run(k, head, bits, 0, {0, 0, size, size}, random);
      if (run.sums.serial[head.head_channels * kLanes + run.first] != keys * rounded[i])
        Report::failed("a level is rounded to the wrong integer");
    }
}

void test_mix_context(const Pair& k, Random& random) {
  for_sizes([&](int height, int width) {
    const int sizes[] = {1, 2, 3, 4, 7, 16, 20};
    const int channels = random.one_of(kChannels), size = random.one_of(sizes);
    const int across = div_up(width, size), cells = across * div_up(height, size);
    const int first = cells % kLanes, vectors = div_up(first + size * size, kLanes);
    const size_t values = static_cast<size_t>(cells) * vectors * channels * kLanes;
    const Filled<int32_t> all(values + 2 * kLanes, random);
    const WindowSums sums = {all.data() + kLanes, vectors, first, size, across, width};
    const Filled<OutputChannel> context(channels, random);
    const Filled<float> balance(channels, random), threshold(channels, random);
    const Filled<float> rest(channels * kTileLanes, random), contexts(cells * channels, random);
    const ContextMixer mixer = {channels, context.data(), balance.data(), threshold.data()};
    const Tokens tokens = some_tokens(height, width, kTileLanes, random);
    Report::context("%s mix_context map %dx%d channels %d size %d tokens %d+%d", k.other.name,
                    height, width, channels, size, tokens.token, tokens.count);
    Twin<float> mixed(channels * kTileLanes, random);
    Twin<uint32_t> bits(channels / 32 * kTileLanes, random);
    k.serial.mix_context(mixer, sums, rest.data(), contexts.data(), tokens, mixed.serial.data(),
                         bits.serial.data());
    k.other.mix_context(mixer, sums, rest.data(), contexts.data(), tokens, mixed.other.data(),
                        bits.other.data());
    mixed.expect_equal("mixed", channels, kTileLanes, tokens.count);
    bits.expect_equal("bits", channels / 32, kTileLanes, tokens.count);
  });
}

}  // namespace

void test_attention_kernels(const Pair& kernels, Random& random) {
  test_project_tokens(kernels, random);
  test_attend(kernels, random);
  test_exact_levels(kernels, random);
  test_mix_context(kernels, random);
}

}  // namespace testing
}  // namespace bhvit
