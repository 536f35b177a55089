// Where the parameters of a model come from: tensors by name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "memory.h"

namespace bhvit {

using Shape = std::vector<int64_t>;

class Tensors {
 public:
  virtual ~Tensors() = default;

  // Shape of a tensor, for those whose shape is free. Throws Error if it is missing.
  virtual Shape shape(const std::string& name) const = 0;

  // Contents; throw Error if the tensor is missing, has another type or shape, or has a value that
  // is not finite.
  virtual Aligned<float> floats(const std::string& name, const Shape& shape) const = 0;
  virtual Aligned<uint32_t> words(const std::string& name, const Shape& shape) const = 0;
  virtual std::vector<int32_t> integers(const std::string& name, const Shape& shape) const = 0;

  // For contents that make no model: throws Error.
  [[noreturn]] virtual void unsupported(const std::string& what) const = 0;
};

}  // namespace bhvit
