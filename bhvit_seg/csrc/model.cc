#include "model.h"

#include <algorithm>

#include "dispatch.h"
#include "error.h"

namespace bhvit {
namespace {

constexpr size_t kMostPlans = 4;  // sizes that images alternate between without planning anew
constexpr int kMostThreads = 256;
constexpr int64_t kMostPixels = int64_t{1} << 30;

int checked_threads(int threads) {
  if (threads < 1 || threads > kMostThreads) {
    throw Error("threads is " + std::to_string(threads) + ": give a number from 1 to " +
                std::to_string(kMostThreads));
  }
  return threads;
}

}  // namespace

Model::Model(const std::string& path, int threads, const std::string& isa)
    : parameters_(TensorFile(path)),
      kernels_(choose_kernels(isa)),
      pool_(checked_threads(threads)) {}

void Model::check_size(int64_t height, int64_t width) {
  const std::string size = std::to_string(height) + "x" + std::to_string(width);
  if (height < 4 || width < 4) {
    throw Error("the image is " + size +
                " pixels (height x width), smaller than one 4x4 patch: "
                "give a larger image");
  }
  if (height > kMostPixels / width) {
    throw Error("the image is " + size +
                " pixels (height x width), more than fit in memory: "
                "cut it into windows");
  }
}

Plan& Model::plan_for(int height, int width) {
  const auto known = std::find_if(plans_.begin(), plans_.end(), [&](const auto& plan) {
    return plan->height == height && plan->width == width;
  });
  if (known != plans_.end()) {
    plans_.splice(plans_.begin(), plans_, known);
    return *plans_.front();
  }
  while (plans_.size() >= kMostPlans) plans_.pop_back();
  try {
    plans_.push_front(std::make_unique<Plan>(parameters_, height, width, pool_.size()));
  } catch (const std::bad_alloc&) {
    throw Error("there is not enough memory for an image of " + std::to_string(height) + "x" +
                std::to_string(width) + " pixels (height x width): cut it into windows");
  }
  return *plans_.front();
}

Run Model::start(const Image& image, Profile* profile) {
  check_size(image.height, image.width);
  const Run run{parameters_, kernels_, pool_, plan_for(image.height, image.width), profile};
  run_stem(run, image);
  for (int s = 0; s < kStages; ++s) {
    if (s) run_downsampling(run, s);
    run_blocks(run, s);
  }
  run_head(run);
  return run;
}

void Model::predict(const Image& image, uint8_t* labels) {
  const std::lock_guard<std::mutex> lock(mutex_);
  run_labels(start(image, nullptr), labels);
}

void Model::logits(const Image& image, float* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Map& map = start(image, nullptr).plan.logits;
  for (int c = 0; c < parameters_.arch.classes; ++c)
    for (int y = 0; y < map.height; ++y) out = std::copy_n(map.at(y, c, 0), map.width, out);
}

void Model::label(const float* logits, int classes, int height, int width, uint8_t* labels) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int columns = 4 * width;
  const Resize resize(height, width, 4 * height, columns, parameters_.arch.align_corners);
  const auto& runs = resize.runs();
  Aligned<float> memory(planes_size(height, width, classes));
  const Map map = make_planes(memory.data(), height, width, classes);
  pool_.run(height, [&](int y, int) {
    for (int c = 0; c < classes; ++c) {
      const float* row = logits + (static_cast<ptrdiff_t>(c) * height + y) * width;
      std::copy_n(row, width, map.at(y, c, 0));
    }
  });
  pool_.run(static_cast<int>(runs.size()) - 1, [&](int piece, int) {
    kernels_.label_rows(map, classes, resize.view(), runs[piece], runs[piece + 1], columns,
                        labels + static_cast<ptrdiff_t>(runs[piece]) * columns, columns);
  });
}

Profile Model::profile(const Image& image) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Profile profile;
  std::vector<uint8_t> labels(static_cast<size_t>(image.height) * image.width);
  run_labels(start(image, &profile), labels.data());
  return profile;
}

}  // namespace bhvit
