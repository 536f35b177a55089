// Reads and parses a packed model file (docs/packed.md): named tensors, checked before anything is
// used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tensors.h"

namespace bhvit {

enum class TensorType : uint8_t { kFloat32 = 0, kFloat16 = 1, kUint32 = 2, kInt32 = 3 };

struct Tensor {
  TensorType type;
  Shape shape;
  uint64_t offset;  // in the file
  uint64_t number;  // of elements
  uint64_t bytes() const { return number * (type == TensorType::kFloat16 ? 2 : 4); }
};

class TensorFile : public Tensors {
 public:
  // Throws Error if the file can't be read, is not a packed model, or is damaged.
  explicit TensorFile(const std::string& path);

  const std::vector<uint8_t>& bytes() const { return bytes_; }
  // The meta data: JSON in UTF-8, not parsed.
  std::string meta() const;
  const std::map<std::string, Tensor>& tensors() const { return tensors_; }

  Shape shape(const std::string& name) const override;
  Aligned<float> floats(const std::string& name, const Shape& shape) const override;
  Aligned<uint32_t> words(const std::string& name, const Shape& shape) const override;
  std::vector<int32_t> integers(const std::string& name, const Shape& shape) const override;
  [[noreturn]] void unsupported(const std::string& what) const override;

 private:
  const Tensor& find(const std::string& name) const;
  const Tensor& find(const std::string& name, const Shape& shape) const;
  void read_directory(size_t offset, size_t length, uint32_t number);
  void check_places(size_t first) const;
  [[noreturn]] void damaged(const std::string& what) const;

  const std::string path_;
  const std::vector<uint8_t> bytes_;
  size_t meta_length_ = 0;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace bhvit
