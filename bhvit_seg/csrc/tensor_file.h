// Reads a packed model file (docs/packed.md): named tensors, checked before anything is used.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "memory.h"

namespace bhvit {

using Shape = std::vector<int64_t>;

class TensorFile {
 public:
  // Throws Error if the file can't be read, is no packed model, or is damaged.
  explicit TensorFile(const std::string& path);

  // Shape of a tensor, for those whose shape is free. Throws Error if it is missing.
  const Shape& shape(const std::string& name) const;

  // Contents; throw Error if the tensor is missing or has another type or shape.
  Aligned<float> floats(const std::string& name, const Shape& shape) const;
  Aligned<uint32_t> words(const std::string& name, const Shape& shape) const;
  std::vector<int32_t> integers(const std::string& name, const Shape& shape) const;

  // For contents that make no model: throws Error.
  [[noreturn]] void unsupported(const std::string& what) const;

 private:
  enum Type : uint8_t { kFloat32 = 0, kFloat16 = 1, kUint32 = 2, kInt32 = 3 };
  struct Tensor {
    Type type;
    Shape shape;
    uint64_t offset;
    uint64_t number;
  };

  const Tensor& find(const std::string& name) const;
  const Tensor& find(const std::string& name, const Shape& shape) const;
  void read_directory(size_t offset, size_t length, uint32_t number);
  [[noreturn]] void damaged(const std::string& what) const;

  std::string path_;
  std::vector<uint8_t> bytes_;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace bhvit
