#include "dispatch.h"

#include <algorithm>
#include <cstdlib>

#include "error.h"

namespace bhvit {

extern const Kernels kSerialKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#elif defined(__aarch64__)
extern const Kernels kNeonKernels;
#endif

namespace {

std::vector<const Kernels*> usable_kernels() {
  std::vector<const Kernels*> usable;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vpopcntdq")) {
    usable.push_back(&kAvx512Kernels);
  }
  if (avx2) usable.push_back(&kAvx2Kernels);
#elif defined(__aarch64__)
  usable.push_back(&kNeonKernels);
#endif
  usable.push_back(&kSerialKernels);
  return usable;
}

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

}  // namespace

const std::vector<std::string>& known_instruction_sets() {
  static const std::vector<std::string> names = {"avx512", "avx2", "neon", "serial"};
  return names;
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Kernels* kernels : usable_kernels()) names.emplace_back(kernels->name);
  return names;
}

const Kernels& choose_kernels(const std::string& name) {
  const char* environment = std::getenv("BHVIT_ISA");
  const std::string wanted = !name.empty() ? name : environment ? environment : "";
  const std::string origin = !name.empty() ? "the instruction set " : "BHVIT_ISA=";
  for (const Kernels* kernels : usable_kernels())
    if (wanted.empty() || wanted == kernels->name) return *kernels;
  const auto& known = known_instruction_sets();
  const bool exists = std::find(known.begin(), known.end(), wanted) != known.end();
  throw Error(origin + wanted +
              (exists ? " is not available on this processor" : " does not exist") +
              ": choose one of " + join(instruction_sets()));
}

}  // namespace bhvit
