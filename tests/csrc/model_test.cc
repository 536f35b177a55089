// Whole models: every instruction set and number of threads answers as the serial kernels do on
// one thread, to the bit. Writes the serial answers, for comparison with other processors.
//
//   model_test ANSWERS MODEL...
#include <cstdio>
#include <exception>
#include <stdexcept>

#include "dispatch.h"
#include "random_image.h"

namespace {

using namespace bhvit;
using testing::Answer;

// Whole patches and not, one window and several, wider than a vector, smaller than a window.
constexpr int kSizes[][2] = {{64, 64}, {37, 50}, {4, 4}, {5, 131}, {96, 33}};

void write(const Answer& answer, FILE* file) {
  const size_t logits = answer.logits.size(), labels = answer.labels.size();
  if (std::fwrite(answer.logits.data(), sizeof(float), logits, file) != logits ||
      std::fwrite(answer.labels.data(), 1, labels, file) != labels) {
    throw std::runtime_error("the answers can't be written");
  }
}

int failures_of(const char* path, FILE* file) {
  const TensorFile tensors(path);
  Model serial(tensors, 1, choose_kernels("serial"));
  testing::Random random(1);
  std::vector<testing::RandomImage> images;
  std::vector<Answer> expected;  // to the bytes and to the floats of each
  for (const auto& size : kSizes) {
    images.emplace_back(size[0], size[1], serial.architecture().in_channels, random);
    for (const Image& view : {images.back().as_bytes(), images.back().as_floats()}) {
      expected.emplace_back(serial, view);
      write(expected.back(), file);
    }
  }
  int failures = 0;
  for (const std::string& name : instruction_sets())
    for (int threads : {1, 3}) {
      Model model(tensors, threads, choose_kernels(name));
      for (size_t i = 0; i < expected.size(); ++i) {
        const testing::RandomImage& image = images[i / 2];
        if (Answer(model, i % 2 ? image.as_floats() : image.as_bytes()) == expected[i]) continue;
        std::fprintf(stderr, "FAILED %s: %s with %d threads differs from serial at %dx%d\n", path,
                     name.c_str(), threads, image.height, image.width);
        ++failures;
      }
    }
  return failures;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: model_test ANSWERS MODEL...\n");
    return 2;
  }
  FILE* const answers = std::fopen(argv[1], "wb");
  if (!answers) {
    std::perror(argv[1]);
    return 2;
  }
  int failures = 0;
  try {
    for (int i = 2; i < argc; ++i) failures += failures_of(argv[i], answers);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "FAILED %s\n", error.what());
    ++failures;
  }
  if (std::fclose(answers)) ++failures;
  std::printf("%d models, %d failures\n", argc - 2, failures);
  return failures ? 1 : 0;
}
