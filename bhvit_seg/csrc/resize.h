// Where the values of an upsampled map lie between those of the smaller one, as torch's
// interpolate has it.
#pragma once

#include <vector>

#include "kernels/kernels.h"
#include "memory.h"

namespace bhvit {

// Tables of a bilinear resize from one map to another. A tile of 16 columns has to lie between at
// most 16 source columns, which holds wherever maps grow or the source is that narrow.
class Resize {
 public:
  Resize() = default;
  Resize(int from_height, int from_width, int height, int width, bool align_corners);

  Upsampling view() const {
    return {y0_.data(), y1_.data(), y_weight_.data(), base_.data(),
            x0_.data(), x1_.data(), x_weight_.data()};
  }
  // First rows of runs of rows that lie between the same two source rows, and the end.
  const std::vector<int>& runs() const { return runs_; }

 private:
  std::vector<int> y0_, y1_, base_, runs_;
  Aligned<float> y_weight_, x_weight_;
  Aligned<uint32_t> x0_, x1_;
};

// Stretches values [size][size] bicubically to [height][width] (a = -0.75, corners not aligned),
// as a published position embedding is; copies them where the sizes are equal.
void resize_bicubic(const float* values, int size, int height, int width, float* out);

}  // namespace bhvit
