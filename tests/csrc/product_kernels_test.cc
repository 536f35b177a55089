// Kernels with binary products.
#include "ops/run.h"
#include "parameters.h"
#include "testing.h"

namespace bhvit {
namespace testing {
namespace {

// A convolution with random weights at an address aligned to words alone.
struct RandomConvolution {
  BinaryConvolution owner;
  Array<uint32_t> weights;
  Convolution layer;

  RandomConvolution(int kernel, int groups, int inputs, int outputs, Random& random)
      : owner(make_convolution(rows(kernel, groups, inputs, outputs, random), kernel, groups,
                               inputs, outputs)),
        weights(owner.weights.size(), random),
        layer(owner.layer) {
    std::memcpy(weights.data(), owner.weights.data(), weights.size() * sizeof(uint32_t));
    layer.weights = weights.data();
  }

 private:
  static Aligned<uint32_t> rows(int kernel, int groups, int inputs, int outputs, Random& random) {
    const int bits = kernel * kernel * inputs / groups, words = div_up(bits, 32);
    const Filled<uint32_t> values(static_cast<size_t>(outputs) * words, random);
    Aligned<uint32_t> all(values.data(), values.data() + values.size());
    for (int i = words - 1; i < outputs * words && bits % 32; i += words)
      all[i] &= (1u << bits % 32) - 1;
    return all;
  }
};

// Words of scratch for what gather_words collects.
size_t gathered_size(const Convolution& layer) {
  return static_cast<size_t>(layer.groups) * layer.words * kLanes;
}

int lanes_left(int width, int x) { return width - x < kLanes ? width - x : kLanes; }

void test_multi_scale(const Pair& k, Random& random) {
  for_sizes([&](int height, int width) {
    const int channel_numbers[] = {32, 64, 128};  // groups of 8, 16 and 32
    const int channels = random.below(12) ? random.one_of(channel_numbers) : 256;
    TwinMap map(height, width, channels, random);
    const TwinBitMap bits(height, width, channels / 32, random);
    const Filled<BranchChannel> branch_channels(3 * channels, random);
    const Filled<float> out_scale(channels, random), out_bias(channels, random);
    const RandomConvolution convolutions[3] = {{3, kGroups, channels, channels, random},
                                               {3, kGroups, channels, channels, random},
                                               {3, kGroups, channels, channels, random}};
    MultiScaleConvolution layer;
    for (int d = 0; d < 3; ++d)
      layer.branches[d] = {convolutions[d].layer, branch_channels.data() + d * channels};
    layer.out_scale = out_scale.data();
    layer.out_bias = out_bias.data();
    Filled<uint32_t> scratch(multi_scale_scratch(convolutions[0].layer), random);
    const int rows[] = {0, height - 1, random.below(height)};
    for (int y : rows) {
      Report::context("%s multi_scale map %dx%d channels %d row %d", k.other.name, height, width,
                      channels, y);
      TapRows serial_taps[3], other_taps[3];
      for (int d = 0; d < 3; ++d) {
        serial_taps[d] = taps_of(bits.serial_map, y, kDilations[d]);
        other_taps[d] = taps_of(bits.other_map, y, kDilations[d]);
      }
      k.serial.multi_scale(layer, serial_taps, map.serial_map, y, scratch.data());
      k.other.multi_scale(layer, other_taps, map.other_map, y, scratch.data());
      if (!scratch.surroundings_untouched()) Report::failed("wrote behind the scratch");
      map.expect_equal("map");
    }
  });
}

// Channels of a shortcut for so many outputs: fewer, repeated; as many; or more, averaged.
int shortcut_channels(int outputs, Random& random) {
  const int numbers[] = {32, outputs, 3 * outputs};
  return random.one_of(numbers);
}

// One vector of outputs of a convolution and its accumulators.
void compare_convolution(const Pair& k, const RandomConvolution& convolution,
                         const TapRows& serial_taps, const TapRows& other_taps, int x, int valid,
                         Random& random) {
  const Convolution& layer = convolution.layer;
  const int shortcuts = shortcut_channels(layer.outputs, random);
  const Filled<float> shortcut(shortcuts * kLanes, random);
  const Filled<OutputChannel> outputs(layer.outputs, random);
  Filled<uint32_t> scratch(gathered_size(layer), random);
  Twin<float> out(layer.outputs * kLanes, random);
  k.serial.convolve(layer, outputs.data(), serial_taps, x, shortcut.data(), shortcuts,
                    scratch.data(), out.serial.data());
  k.other.convolve(layer, outputs.data(), other_taps, x, shortcut.data(), shortcuts, scratch.data(),
                   out.other.data());
  out.expect_equal("out", layer.outputs, kLanes, valid);
}

void test_convolutions(const Pair& k, Random& random) {
  for_sizes([&](int height, int width) {
    const int inputs = random.one_of(kChannels), outputs = random.one_of(kChannels);
    const int dilation = random.between(1, 6);
    const TwinBitMap bits(height, width, inputs / 32, random);
    const RandomConvolution convolution(3, 1, inputs, outputs, random);
    const int rows[] = {0, random.below(height)};
    for (int y : rows) {
      const int x = random.below(div_up(width, kLanes)) * kLanes;
      Report::context("%s convolve 3x3 map %dx%d inputs %d outputs %d dilation %d y %d x %d",
                      k.other.name, height, width, inputs, outputs, dilation, y, x);
      compare_convolution(k, convolution, taps_of(bits.serial_map, y, dilation),
                          taps_of(bits.other_map, y, dilation), x, lanes_left(width, x), random);
    }
  });
}

// Downsampling: the taps are tiles of their own.
void test_patch_convolutions(const Pair& k, Random& random) {
  for (int inputs : kChannels)
    for (int outputs : kChannels)
      for (int whole : {0, 1, 7, 15, 16})
        for (int rows = 1; rows <= 2; ++rows) {
          Report::context("%s convolve 2x2 inputs %d outputs %d rows %d whole patches %d",
                          k.other.name, inputs, outputs, rows, whole);
          const int words = inputs / 32;
          Filled<uint32_t> bits(4 * words * kLanes, random);
          const RandomConvolution convolution(2, 1, inputs, outputs, random);
          TapRows taps;
          taps.plane = kLanes;
          taps.state = rows == 2 ? 3 : 1;
          for (int tap = 0; tap < 4; ++tap) {
            uint32_t* const of_tap = bits.data() + tap * words * kLanes;
            for (int i = 0; i < words * kLanes; ++i)
              if (tap % 2 && i % kLanes >= whole) of_tap[i] = 0;
            taps.rows[tap] = tap / 2 < rows ? of_tap : nullptr;
            taps.first[tap % 2] = 0;
            taps.last[tap % 2] = tap % 2 ? whole : kLanes;
          }
          compare_convolution(k, convolution, taps, taps, 0, kLanes, random);
        }
}

// Calls test(inputs, outputs, stride, vectors, blocked weights, bits).
template <typename Test>
void for_products(Random& random, const Test& test) {
  const int sizes[][2] = {{32, 32}, {32, 128},  {128, 32}, {64, 96},
                          {96, 64}, {128, 128}, {1024, 64}};
  for (const auto& size : sizes)
    for (int stride : kStrides)
      for (int vectors = 1; vectors <= stride / kLanes; ++vectors) {
        const Filled<uint32_t> weights(size[0] / 32 * size[1], random);
        const Filled<uint32_t> bits(size[0] / 32 * stride, random);
        test(size[0], size[1], stride, vectors, weights.data(), bits.data());
      }
}

void test_project(const Pair& k, Random& random) {
  for_products(random, [&](int inputs, int outputs, int stride, int vectors,
                           const uint32_t* weights, const uint32_t* bits) {
    const int shortcuts = shortcut_channels(outputs, random);
    Report::context("%s project inputs %d outputs %d shortcut %d stride %d vectors %d",
                    k.other.name, inputs, outputs, shortcuts, stride, vectors);
    const Filled<float> shortcut(shortcuts * stride, random);
    const Filled<OutputChannel> parameters(outputs, random);
    Twin<float> out(outputs * stride, random);
    k.serial.project(bits, inputs, weights, parameters.data(), outputs, shortcut.data(), shortcuts,
                     stride, vectors, out.serial.data());
    k.other.project(bits, inputs, weights, parameters.data(), outputs, shortcut.data(), shortcuts,
                    stride, vectors, out.other.data());
    out.expect_equal("out");
  });
}

void test_mlp(const Pair& k, Random& random) {
  for_sizes([&](int height, int width) {
    const int ratios[] = {1, 2, 3, 4, 8};
    const int channels = random.one_of(kChannels), hidden = channels * random.one_of(ratios);
    const Filled<float> in_scale(channels, random), in_bias(channels, random);
    const Filled<float> input_bias(channels, random), taps(9 * channels, random);
    const Filled<float> next_scale(channels, random), next_bias(channels, random);
    const Filled<uint32_t> weights1(channels / 32 * hidden, random);
    const Filled<uint32_t> weights2(hidden / 32 * channels, random);
    const Filled<BitChannel> hidden_channels(hidden, random);
    const Filled<OutputChannel> outputs(channels, random);
    const Mlp layer = {channels,          hidden,          in_scale.data(),        in_bias.data(),
                       input_bias.data(), weights1.data(), hidden_channels.data(), weights2.data(),
                       outputs.data(),    taps.data()};
    const Binarizer next = {next_scale.data(), next_bias.data()};
    const TwinMap in(height, width, channels, random);
    TwinMap out(height, width, channels, random);
    TwinBitMap bits(height, width, channels / 32, random);
    Filled<float> scratch(mlp_scratch(channels, hidden), random);
    for (bool binarize : {true, false}) {
      const Tokens tokens = some_tokens(height, width, kMaxVectors * kLanes, random);
      Report::context("%s mlp map %dx%d channels %d hidden %d tokens %d+%d binarize %d",
                      k.other.name, height, width, channels, hidden, tokens.token, tokens.count,
                      binarize);
      k.serial.mlp(layer, in.serial_map, out.serial_map, binarize ? &next : nullptr,
                   &bits.serial_map, tokens, scratch.data());
      k.other.mlp(layer, in.other_map, out.other_map, binarize ? &next : nullptr, &bits.other_map,
                  tokens, scratch.data());
      out.expect_equal("map");
      bits.expect_equal("bits");
      if (!scratch.surroundings_untouched()) Report::failed("wrote behind the scratch");
    }
  });
}

}  // namespace

void test_product_kernels(const Pair& kernels, Random& random) {
  test_multi_scale(kernels, random);
  test_convolutions(kernels, random);
  test_patch_convolutions(kernels, random);
  test_project(kernels, random);
  test_mlp(kernels, random);
}

}  // namespace testing
}  // namespace bhvit
