// Kernels from tile to tile.
#include "testing.h"

namespace bhvit {
namespace testing {
namespace {

// Calls test(channels, stride, vectors).
template <typename Test>
void for_tiles(const Test& test) {
  for (int channels : kChannels)
    for (int stride : kStrides)
      for (int vectors = 1; vectors <= stride / kLanes; ++vectors)
        for (int repetition = 0; repetition < 3; ++repetition) test(channels, stride, vectors);
}

void test_pack(const Pair& k, Random& random) {
  for_tiles([&](int channels, int stride, int vectors) {
    Report::context("%s pack_tile channels %d stride %d vectors %d", k.other.name, channels, stride,
                    vectors);
    const Filled<float> tile(channels * stride, random), scale(channels, random);
    const Filled<float> bias(channels, random);
    Twin<uint32_t> bits(channels / 32 * stride, random);
    const float* const scales = random.below(2) ? scale.data() : nullptr;
    k.serial.pack_tile(tile.data(), stride, channels, vectors, scales, bias.data(),
                       bits.serial.data());
    k.other.pack_tile(tile.data(), stride, channels, vectors, scales, bias.data(),
                      bits.other.data());
    bits.expect_equal("bits");
  });
}

void test_pack_and_average(const Pair& k, Random& random) {
  for_tiles([&](int channels, int stride, int vectors) {
    Report::context("%s pack_and_average channels %d stride %d vectors %d", k.other.name, channels,
                    stride, vectors);
    const Filled<float> tile(channels * stride, random), bias(channels, random);
    Twin<uint32_t> bits(channels / 32 * stride, random);
    Twin<float> means(channels / kAveraged * stride, random);
    k.serial.pack_and_average(tile.data(), stride, channels, vectors, bias.data(),
                              bits.serial.data(), means.serial.data());
    k.other.pack_and_average(tile.data(), stride, channels, vectors, bias.data(), bits.other.data(),
                             means.other.data());
    bits.expect_equal("bits");
    means.expect_equal("means");
  });
}

void test_normalize_bytes(const Pair& k, Random& random) {
  for (int channels : {1, 3, 4, 5})
    for (int stride : kStrides)
      for (int vectors = 1; vectors <= stride / kLanes; ++vectors) {
        Report::context("%s normalize_bytes channels %d stride %d vectors %d", k.other.name,
                        channels, stride, vectors);
        Twin<float> tile(16 * channels * stride, random);
        const Filled<float> mean(channels, random);
        Filled<float> deviation(channels, random);
        for (int c = 0; c < channels; ++c) deviation[c] = 1.0f + deviation[c] * deviation[c];
        k.serial.normalize_bytes(tile.serial.data(), stride, channels, vectors, mean.data(),
                                 deviation.data());
        k.other.normalize_bytes(tile.other.data(), stride, channels, vectors, mean.data(),
                                deviation.data());
        tile.expect_equal("tile");
      }
}

void test_multiply(const Pair& k, Random& random) {
  const int input_numbers[] = {1, 8, 48, 64, kPartialSum - 1, kPartialSum, kPartialSum + 1, 300};
  for (int inputs : input_numbers)
    for (int outputs : {8, 16, 40})
      for (int stride : kStrides)
        for (int vectors = 1; vectors <= stride / kLanes; ++vectors) {
          Report::context("%s multiply inputs %d outputs %d stride %d vectors %d", k.other.name,
                          inputs, outputs, stride, vectors);
          const Filled<float> tile(inputs * stride, random), weights(inputs * outputs, random);
          const Filled<float> bias(outputs, random);
          const int out_stride = stride + random.below(3) * kLanes;
          Twin<float> out(outputs * out_stride, random);
          k.serial.multiply(tile.data(), stride, inputs, vectors, weights.data(), bias.data(),
                            outputs, out.serial.data(), out_stride);
          k.other.multiply(tile.data(), stride, inputs, vectors, weights.data(), bias.data(),
                           outputs, out.other.data(), out_stride);
          out.expect_equal("out");
        }
}

}  // namespace

void test_tile_kernels(const Pair& kernels, Random& random) {
  test_pack(kernels, random);
  test_pack_and_average(kernels, random);
  test_normalize_bytes(kernels, random);
  test_multiply(kernels, random);
}

}  // namespace testing
}  // namespace bhvit
