#include "resize.h"

#include <algorithm>
#include <cmath>

namespace bhvit {
namespace {

struct Source {
  int low, high;
  float weight;  // of high
};

Source locate(int at, int from, int to, bool align_corners) {
  double x;
  if (align_corners) {
    x = to > 1 ? at * (static_cast<double>(from - 1) / (to - 1)) : 0.0;
  } else {
    x = std::max(0.0, (at + 0.5) * (static_cast<double>(from) / to) - 0.5);
  }
  const int low = std::min(static_cast<int>(x), from - 1);
  return {low, std::min(low + 1, from - 1), static_cast<float>(std::min(x - low, 1.0))};
}

void cubic_weights(double t, double* weights) {
  const double a = -0.75;
  const auto near = [a](double x) { return ((a + 2) * x - (a + 3)) * x * x + 1; };
  const auto far = [a](double x) { return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a; };
  weights[0] = far(t + 1);
  weights[1] = near(t);
  weights[2] = near(1 - t);
  weights[3] = far(2 - t);
}

}  // namespace

Resize::Resize(int from_height, int from_width, int height, int width, bool align_corners) {
  for (int y = 0; y < height; ++y) {
    const Source source = locate(y, from_height, height, align_corners);
    if (y == 0 || source.low != y0_.back()) runs_.push_back(y);
    y0_.push_back(source.low);
    y1_.push_back(source.high);
    y_weight_.push_back(source.weight);
  }
  runs_.push_back(height);
  for (int x = 0; x < round_up(width, kLanes); ++x) {
    const Source source = locate(std::min(x, width - 1), from_width, width, align_corners);
    if (x % kLanes == 0) base_.push_back(source.low);
    x0_.push_back(static_cast<uint32_t>(source.low - base_.back()));
    x1_.push_back(static_cast<uint32_t>(source.high - base_.back()));
    x_weight_.push_back(source.weight);
  }
}

void resize_bicubic(const float* values, int size, int height, int width, float* out) {
  if (height == size && width == size) {
    std::copy(values, values + static_cast<size_t>(size) * size, out);
    return;
  }
  const auto clamp = [size](int i) { return std::min(std::max(i, 0), size - 1); };
  for (int y = 0; y < height; ++y) {
    const double source_y = (y + 0.5) * (static_cast<double>(size) / height) - 0.5;
    double vertical[4];
    cubic_weights(source_y - std::floor(source_y), vertical);
    for (int x = 0; x < width; ++x) {
      const double source_x = (x + 0.5) * (static_cast<double>(size) / width) - 0.5;
      double horizontal[4];
      cubic_weights(source_x - std::floor(source_x), horizontal);
      double sum = 0;
      for (int j = 0; j < 4; ++j) {
        const float* row = values + clamp(static_cast<int>(std::floor(source_y)) - 1 + j) * size;
        double line = 0;
        for (int i = 0; i < 4; ++i)
          line += horizontal[i] * row[clamp(static_cast<int>(std::floor(source_x)) - 1 + i)];
        sum += vertical[j] * line;
      }
      out[static_cast<size_t>(y) * width + x] = static_cast<float>(sum);
    }
  }
}

}  // namespace bhvit
