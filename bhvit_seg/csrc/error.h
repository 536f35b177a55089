// The one exception of the engine: something given is wrong, said in one sentence.
#pragma once

#include <stdexcept>
#include <string>

namespace bhvit {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace bhvit
