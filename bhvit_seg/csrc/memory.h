// Aligned memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

namespace bhvit {

constexpr size_t kAlignment = 64;

template <typename T>
struct AlignedAllocator {
  using value_type = T;
  AlignedAllocator() = default;
  template <typename U>
  AlignedAllocator(const AlignedAllocator<U>&) {}
  T* allocate(size_t n) {
    const size_t bytes = (n * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    void* p = std::aligned_alloc(kAlignment, bytes ? bytes : kAlignment);
    if (!p) throw std::bad_alloc();
    return static_cast<T*>(p);
  }
  void deallocate(T* p, size_t) { std::free(p); }
  template <typename U>
  bool operator==(const AlignedAllocator<U>&) const { return true; }
  template <typename U>
  bool operator!=(const AlignedAllocator<U>&) const { return false; }
};

template <typename T>
using Aligned = std::vector<T, AlignedAllocator<T>>;

// Hands out parts of one block of memory. Asked twice in the same order, first without a block to
// learn how large it has to be, then with it.
class Arena {
 public:
  explicit Arena(uint8_t* block = nullptr) : block_(block) {}

  template <typename T>
  T* take(size_t number) {
    used_ = (used_ + kAlignment - 1) / kAlignment * kAlignment;
    T* const part = block_ ? reinterpret_cast<T*>(block_ + used_) : nullptr;
    used_ += number * sizeof(T);
    return part;
  }
  size_t used() const { return used_; }
  bool measuring() const { return !block_; }

 private:
  uint8_t* block_;
  size_t used_ = 0;
};

}  // namespace bhvit
