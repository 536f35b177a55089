// A packed segmenter: the engine's interface.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "ops/run.h"

namespace bhvit {

class Model {
 public:
  // `threads`: how many work on a call; `isa`: see choose_kernels. Throws Error.
  Model(const std::string& path, int threads, const std::string& isa);

  const Architecture& architecture() const { return parameters_.arch; }
  const char* instruction_set() const { return kernels_.name; }
  int threads() const { return pool_.size(); }

  // Labels of an image: [height][width]. Calls from several threads take turns.
  void predict(const Image& image, uint8_t* labels);
  // Logits at a quarter of the image's size: [classes][ceil(height / 4)][ceil(width / 4)].
  void logits(const Image& image, float* out);
  // Labels of logits that come from elsewhere, such as the blended ones of several images,
  // [classes][height][width], four times their size: [4 * height][4 * width].
  void label(const float* logits, int classes, int height, int width, uint8_t* labels);
  // The same work as predict, timed by regions.
  Profile profile(const Image& image);

  // Throws Error if the network takes no image of this size.
  static void check_size(int64_t height, int64_t width);

 private:
  Run start(const Image& image, Profile* profile);
  Plan& plan_for(int height, int width);

  Parameters parameters_;
  const Kernels& kernels_;
  ThreadPool pool_;
  std::mutex mutex_;
  std::list<std::unique_ptr<Plan>> plans_;  // most recent first
};

}  // namespace bhvit
