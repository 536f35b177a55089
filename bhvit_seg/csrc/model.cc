#include "model.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "error.h"

namespace bhvit {
namespace {

constexpr size_t kMaxPlans = 4;  // sizes that images alternate between without planning again
constexpr int kMaxThreads = 256;
constexpr int64_t kMaxPixels = int64_t{1} << 30;

int checked_threads(int threads) {
  if (threads < 1 || threads > kMaxThreads) {
    throw Error("threads is " + std::to_string(threads) + ": give a number from 1 to " +
                std::to_string(kMaxThreads));
  }
  return threads;
}

std::string position_of(size_t index, int width, int channels) {
  const size_t pixel = index / channels;
  return "row " + std::to_string(pixel / width) + ", column " + std::to_string(pixel % width) +
         ", channel " + std::to_string(index % channels);
}

// As it is read back, "nan" and "inf" included.
std::string text_of(float value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.9g", static_cast<double>(value));
  return text;
}

[[noreturn]] void throw_too_large(int64_t height, int64_t width) {
  throw Error("there is not enough memory for an image of " + std::to_string(height) + "x" +
              std::to_string(width) + " pixels (height x width): cut it into windows");
}

// Copies an image into a larger one, which continues it as mirrored at its lower and right border,
// without the border itself.
template <typename T>
const T* mirror(const T* image, int height, int width, int channels, int to_height, int to_width,
                std::vector<T>& to) {
  const auto source = [](int at, int length) {
    const int period = std::max(2 * (length - 1), 1);
    return at % period < length ? at % period : period - at % period;
  };
  to.resize(static_cast<size_t>(to_height) * to_width * channels);
  T* out = to.data();
  for (int y = 0; y < to_height; ++y) {
    const T* row = image + static_cast<ptrdiff_t>(source(y, height)) * width * channels;
    out = std::copy_n(row, static_cast<ptrdiff_t>(width) * channels, out);
    for (int x = width; x < to_width; ++x)
      out = std::copy_n(row + static_cast<ptrdiff_t>(source(x, width)) * channels, channels, out);
  }
  return to.data();
}

}  // namespace

Model::Model(const Tensors& tensors, int threads, const Kernels& kernels)
    : parameters_(tensors),
      kernels_(kernels),
      threads_(checked_threads(threads)),
      workspace_(new Workspace(threads)) {}

Model::~Model() {
  Workspace* const own = workspace_;
  if (own->generation == process_generation()) delete own;
}

Model::Workspace& Model::workspace() {
  Workspace* current = workspace_;
  if (current->generation == process_generation()) return *current;
  // In a forked process a thread that is not there may hold the lock for ever: the old workspace is
  // left as it is. Threads of the new process that come here at once agree on one.
  auto own = std::make_unique<Workspace>(threads_);
  if (workspace_.compare_exchange_strong(current, own.get())) return *own.release();
  return *current;
}

void Model::check_size(int64_t height, int64_t width) {
  const std::string size = std::to_string(height) + "x" + std::to_string(width);
  if (height < 4 || width < 4) {
    throw Error("the image is " + size +
                " pixels (height x width), smaller than one 4x4 patch: "
                "give a larger image");
  }
  if (height > kMaxPixels / width) {
    throw Error("the image is " + size +
                " pixels (height x width), more than fit in memory: "
                "cut it into windows");
  }
}

void Model::check(const Image& image) const {
  check_size(image.height, image.width);
  if (!image.floats) return;
  const int channels = parameters_.arch.in_channels;
  const size_t number = static_cast<size_t>(image.height) * image.width * channels;
  const float largest = parameters_.largest_value;
  const auto wrong = [=](float value) { return !(std::fabs(value) <= largest); };
  // counted in 32 bits, a row at a time, for the sake of vectors
  const size_t row = static_cast<size_t>(image.width) * channels;
  size_t count = 0;
  for (const float* p = image.floats; p < image.floats + number; p += row) {
    uint32_t of_row = 0;
    for (size_t i = 0; i < row; ++i) of_row += wrong(p[i]);
    count += of_row;
  }
  if (!count) return;
  const size_t first = std::find_if(image.floats, image.floats + number, wrong) - image.floats;
  throw Error("the image has " + std::to_string(count) + " of " + std::to_string(number) +
              " values that are NaN, infinite or beyond " + text_of(largest) + ", the first, " +
              text_of(image.floats[first]) + ", at " + position_of(first, image.width, channels) +
              ": replace them, for example by the mean of their channel");
}

Plan& Model::plan_for(Workspace& workspace, int height, int width) const {
  auto& plans = workspace.plans;
  const auto known = std::find_if(plans.begin(), plans.end(), [&](const auto& plan) {
    return plan->height == height && plan->width == width;
  });
  if (known != plans.end()) {
    plans.splice(plans.begin(), plans, known);
    return *plans.front();
  }
  while (plans.size() >= kMaxPlans) plans.pop_back();
  try {
    plans.push_front(std::make_unique<Plan>(parameters_, height, width, threads_));
  } catch (const std::bad_alloc&) {
    throw_too_large(height, width);
  }
  return *plans.front();
}

Image Model::mirrored(Workspace& workspace, const Image& image) const {
  const Architecture& arch = parameters_.arch;
  const int height = round_up(image.height, arch.divisor);
  const int width = round_up(image.width, arch.divisor);
  if (height == image.height && width == image.width) return image;
  check_size(height, width);
  const auto larger = [&](const auto* values, auto& to) {
    return mirror(values, image.height, image.width, arch.in_channels, height, width, to);
  };
  try {
    if (image.bytes) return {larger(image.bytes, workspace.bytes), nullptr, height, width};
    return {nullptr, larger(image.floats, workspace.floats), height, width};
  } catch (const std::bad_alloc&) {
    throw_too_large(height, width);
  }
}

Run Model::start(Workspace& workspace, const Image& given, Profile* profile) {
  const Image image = mirrored(workspace, given);
  const Run run{parameters_, kernels_, workspace.pool,
                plan_for(workspace, image.height, image.width), profile};
  run_stem(run, image);
  for (int s = 0; s < kStages; ++s) {
    if (s) run_downsampling(run, s);
    run_blocks(run, s);
  }
  run_head(run);
  return run;
}

void Model::predict(const Image& image, uint8_t* labels) {
  check(image);
  Workspace& own = workspace();
  const std::lock_guard<std::mutex> lock(own.mutex);
  run_labels(start(own, image, nullptr), image.height, image.width, labels);
}

void Model::logits(const Image& image, float* out) {
  check(image);
  Workspace& own = workspace();
  const std::lock_guard<std::mutex> lock(own.mutex);
  const Map& map = start(own, image, nullptr).plan.logits;
  const int rows = div_up(image.height, 4), columns = div_up(image.width, 4);
  for (int c = 0; c < parameters_.arch.classes; ++c)
    for (int y = 0; y < rows; ++y) out = std::copy_n(map.at(y, c, 0), columns, out);
}

void Model::label(const float* logits, int classes, int height, int width, uint8_t* labels) {
  check_size(int64_t{4} * height, int64_t{4} * width);
  Workspace& own = workspace();
  const std::lock_guard<std::mutex> lock(own.mutex);
  const int columns = 4 * width;
  const Resize resize(height, width, 4 * height, columns, parameters_.arch.align_corners);
  const auto& runs = resize.runs();
  Block memory;
  try {
    memory = Block(planes_size(height, width, classes) * sizeof(float));
  } catch (const std::bad_alloc&) {
    throw_too_large(4 * height, columns);
  }
  const Map map = make_planes(reinterpret_cast<float*>(memory.data()), height, width, classes);
  own.pool.run(height, [&](int y, int) {
    for (int c = 0; c < classes; ++c) {
      const float* row = logits + (static_cast<ptrdiff_t>(c) * height + y) * width;
      std::copy_n(row, width, map.at(y, c, 0));
    }
  });
  own.pool.run(static_cast<int>(runs.size()) - 1, [&](int piece, int) {
    kernels_.label_rows(map, classes, resize.view(), runs[piece], runs[piece + 1], columns,
                        labels + static_cast<ptrdiff_t>(runs[piece]) * columns, columns);
  });
}

Profile Model::profile(const Image& image) {
  check(image);
  Workspace& own = workspace();
  const std::lock_guard<std::mutex> lock(own.mutex);
  Profile profile;
  std::vector<uint8_t> labels(static_cast<size_t>(image.height) * image.width);
  run_labels(start(own, image, &profile), image.height, image.width, labels.data());
  return profile;
}

}  // namespace bhvit
