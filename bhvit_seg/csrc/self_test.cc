#include "self_test.h"

#include <cstring>

#include "dispatch.h"
#include "model.h"
#include "random_tensors.h"

namespace bhvit {
namespace {

struct Network {
  const char* name;
  std::vector<int32_t> architecture;  // see docs/packed.md
};

// Both heads, both kinds of downsampling, all sizes of groups.
std::vector<Network> networks() {
  return {{"SegFormer",
           {3, 1, 1, 1, 1, 32, 64, 128, 256, 128, 128, 512, 512, 1, 1, 2, 4, 7, 1, 0, 64, 6, 0}},
          {"UPer",
           {4, 1, 1, 1, 1, 64, 128, 128, 128, 64, 256, 128, 256, 1, 1, 1, 4, 4, 0, 1, 32, 3, 1}}};
}

// Whole tiles and not, several windows.
constexpr int kHeight = 39, kWidth = 82;

// Smooth, and noise on top, so that labels are not all the same.
std::vector<float> image_of(int height, int width, int channels) {
  Aligned<float> noise = RandomTensors({}).floats("image", {height, width, channels});
  std::vector<float> values;
  for (float value : noise) {
    const size_t pixel = values.size() / channels;
    values.push_back(static_cast<float>((pixel % width * 3 + pixel / width * 2) % 200) + 25 +
                     20 * value);
  }
  return values;
}

}  // namespace

std::string self_test(const Kernels& kernels) {
  for (const Network& network : networks()) {
    const RandomTensors tensors(network.architecture);
    const std::vector<float> values = image_of(kHeight, kWidth, network.architecture[0]);
    const std::vector<uint8_t> bytes(values.begin(), values.end());
    const bool of_bytes = network.architecture[0] == 3;
    const Image image = {of_bytes ? bytes.data() : nullptr, of_bytes ? nullptr : values.data(),
                         kHeight, kWidth};
    const int rows = div_up(kHeight, 4), columns = div_up(kWidth, 4);
    std::vector<float> logits[2];
    std::vector<uint8_t> labels[2];
    for (int i = 0; i < 2; ++i) {
      Model model(tensors, 1, i ? kernels : choose_kernels("serial"));
      const int classes = model.architecture().classes;
      logits[i].resize(static_cast<size_t>(classes) * rows * columns);
      labels[i].resize(static_cast<size_t>(16) * rows * columns);
      model.logits(image, logits[i].data());
      model.label(logits[i].data(), classes, rows, columns, labels[i].data());
    }
    // compared as bytes, so that -0 is not 0 and a NaN equals itself
    if (std::memcmp(logits[0].data(), logits[1].data(), logits[0].size() * sizeof(float)))
      return std::string("scores of a network with the ") + network.name + " head";
    if (labels[0] != labels[1])
      return std::string("labels of a network with the ") + network.name + " head";
  }
  return "";
}

}  // namespace bhvit
