// Images that are the same on every processor.
#pragma once

#include <cstdint>
#include <vector>

#include "model.h"
#include "tensor_file.h"
#include "testing.h"

namespace bhvit {
namespace testing {

struct RandomImage {
  int height, width, channels;
  std::vector<uint8_t> bytes;
  std::vector<float> floats;

  RandomImage(int height, int width, int channels, Random& random)
      : height(height), width(width), channels(channels) {
    bytes.resize(static_cast<size_t>(height) * width * channels);
    for (uint8_t& value : bytes) {
      value = static_cast<uint8_t>(random.word());
      floats.push_back(static_cast<float>(value) + 0.25f);
    }
  }
  Image as_bytes() const { return {bytes.data(), nullptr, height, width}; }
  Image as_floats() const { return {nullptr, floats.data(), height, width}; }
};

// What a model makes of an image.
struct Answer {
  std::vector<float> logits;
  std::vector<uint8_t> labels;

  Answer(Model& model, const Image& image)
      : logits(static_cast<size_t>(model.architecture().classes) * div_up(image.height, 4) *
               div_up(image.width, 4)),
        labels(static_cast<size_t>(image.height) * image.width) {
    model.logits(image, logits.data());
    model.predict(image, labels.data());
  }
  bool operator==(const Answer& other) const {
    return labels == other.labels && logits.size() == other.logits.size() &&
           std::memcmp(logits.data(), other.logits.data(), logits.size() * sizeof(float)) == 0;
  }
  bool operator!=(const Answer& other) const { return !(*this == other); }
};

}  // namespace testing
}  // namespace bhvit
