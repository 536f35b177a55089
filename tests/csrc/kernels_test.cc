// Every kernel of every instruction set of this processor against the serial one, to the bit.
//
//   kernels_test
#include <csignal>

#include "dispatch.h"
#include "testing.h"

namespace {

using bhvit::testing::Report;

void report_crash(int) {
  const char* const text = Report::text();
  const char message[] = "CRASHED ";
  // what write returns can't change anything any more
  if (write(2, message, sizeof(message) - 1) < 0 || write(2, text, std::strlen(text)) < 0 ||
      write(2, "\n", 1) < 0) {
    _exit(2);
  }
  _exit(1);
}

}  // namespace

int main() {
  using namespace bhvit;
  std::signal(SIGSEGV, report_crash);
  std::signal(SIGILL, report_crash);
  const Kernels& serial = choose_kernels("serial");
  for (const std::string& name : instruction_sets()) {
    if (name == serial.name) continue;
    const testing::Pair kernels = {serial, choose_kernels(name)};
    const int checks = Report::checks(), failures = Report::failures();
    testing::Random random(1);
    testing::test_tile_kernels(kernels, random);
    testing::test_map_kernels(kernels, random);
    testing::test_product_kernels(kernels, random);
    testing::test_attention_kernels(kernels, random);
    std::printf("%s: %d cases, %d failures\n", kernels.other.name, Report::checks() - checks,
                Report::failures() - failures);
  }
  return Report::failures() ? 1 : 0;
}
