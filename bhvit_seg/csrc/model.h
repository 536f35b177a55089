// A packed segmenter: the engine's interface.
#pragma once

#include <atomic>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "ops/run.h"

namespace bhvit {

class Model {
 public:
  // `threads`: how many work on a call. The tensors are not needed afterwards. Throws Error.
  Model(const Tensors& tensors, int threads, const Kernels& kernels);
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const Architecture& architecture() const { return parameters_.arch; }
  const char* instruction_set() const { return kernels_.name; }
  int threads() const { return threads_; }
  const Parameters& parameters() const { return parameters_; }

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
  // What calls change, one at a time, and a forked process can't take over.
  struct Workspace {
    explicit Workspace(int threads) : pool(threads) {}
    const unsigned generation = process_generation();
    ThreadPool pool;
    std::mutex mutex;
    std::list<std::unique_ptr<Plan>> plans;  // most recent first
    // of an image that is mirrored
    std::vector<uint8_t> bytes;
    std::vector<float> floats;
  };

  Workspace& workspace();
  void check(const Image& image) const;
  Run start(Workspace& workspace, const Image& image, Profile* profile);
  Plan& plan_for(Workspace& workspace, int height, int width) const;
  Image mirrored(Workspace& workspace, const Image& image) const;

  const Parameters parameters_;
  const Kernels& kernels_;
  const int threads_;
  std::atomic<Workspace*> workspace_;
};

}  // namespace bhvit
