// Whether the kernels compute on this processor what they should.
#pragma once

#include <string>

#include "kernels/kernels.h"

namespace bhvit {

// Runs small networks of random parameters, in which every kernel takes part, and the same with
// the serial kernels. Returns what differs in a few words, or nothing: they are equal to the bit.
std::string self_test(const Kernels& kernels);

}  // namespace bhvit
