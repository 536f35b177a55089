// Parameters of a network that nobody trained: tests and measurements need no file.
#pragma once

#include <utility>

#include "tensors.h"

namespace bhvit {

// Random tensors of whatever name and shape is asked for, the same on every processor. Values are
// of a size that keeps maps finite and bits mixed.
class RandomTensors : public Tensors {
 public:
  // `architecture`: 23 numbers, see docs/packed.md.
  explicit RandomTensors(std::vector<int32_t> architecture)
      : architecture_(std::move(architecture)) {}

  Shape shape(const std::string& name) const override;
  Aligned<float> floats(const std::string& name, const Shape& shape) const override;
  Aligned<uint32_t> words(const std::string& name, const Shape& shape) const override;
  std::vector<int32_t> integers(const std::string& name, const Shape& shape) const override;
  [[noreturn]] void unsupported(const std::string& what) const override;

 private:
  const std::vector<int32_t> architecture_;
};

}  // namespace bhvit
