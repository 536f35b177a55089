// Parses a packed model file (docs/packed.md): named tensors, checked before anything is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "memory.h"

namespace bhvit {

using Shape = std::vector<int64_t>;

enum class TensorType : uint8_t { kFloat32 = 0, kFloat16 = 1, kUint32 = 2, kInt32 = 3 };

struct Tensor {
  TensorType type;
  Shape shape;
  uint64_t offset;  // in the file
  uint64_t number;  // of elements
  uint64_t bytes() const { return number * (type == TensorType::kFloat16 ? 2 : 4); }
};

// Contents of a file. Throws Error if it can't be read.
std::vector<uint8_t> read_file(const std::string& path);

class TensorFile {
 public:
  // Parses the contents of a file, which have to outlive this object; `path` is what errors call
  // it. Throws Error if they are not a packed model, or damaged.
  TensorFile(const uint8_t* bytes, size_t size, const std::string& path);

  // The meta data: JSON in UTF-8, not parsed.
  std::string meta() const;
  const std::map<std::string, Tensor>& tensors() const { return tensors_; }

  // Shape of a tensor, for those whose shape is free. Throws Error if it is missing.
  const Shape& shape(const std::string& name) const;

  // Contents; throw Error if the tensor is missing, has another type or shape, or has a value that
  // is not finite.
  Aligned<float> floats(const std::string& name, const Shape& shape) const;
  Aligned<uint32_t> words(const std::string& name, const Shape& shape) const;
  std::vector<int32_t> integers(const std::string& name, const Shape& shape) const;

  // For contents that make no model: throws Error.
  [[noreturn]] void unsupported(const std::string& what) const;

 private:
  const Tensor& find(const std::string& name) const;
  const Tensor& find(const std::string& name, const Shape& shape) const;
  void read_directory(size_t offset, size_t length, uint32_t number);
  void check_places(size_t first) const;
  [[noreturn]] void damaged(const std::string& what) const;

  const uint8_t* bytes_;
  size_t size_;
  std::string path_;
  size_t meta_length_ = 0;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace bhvit
