// Which kernels run: chosen once, by what the processor has and what the caller asks for.
#pragma once

#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace bhvit {

// Names of all instruction sets that kernels exist for on any processor.
const std::vector<std::string>& known_instruction_sets();

// Those that this build has kernels for and this processor can run, best first.
std::vector<std::string> instruction_sets();

// Kernels of `name`, or of the environment variable BHVIT_ISA if it is empty, or of the best.
// Throws Error if there are no such kernels or the processor can't run them.
const Kernels& choose_kernels(const std::string& name);

}  // namespace bhvit
