// Failures, with the words that Python's errors have.

#ifndef HOTSTART_FAILURE_H
#define HOTSTART_FAILURE_H

#include <stdexcept>
#include <string>
#include <vector>

#include "hotstart.h"

namespace hotstart {

class Failure : public std::runtime_error {
 public:
  Failure(hotstart_status status, const std::string& text)
      : std::runtime_error(text), status_(status) {}
  hotstart_status status() const { return status_; }

 private:
  hotstart_status status_;
};

// A part that differs: what it is, what was expected, what was found.
struct Difference {
  std::string part, expected, found;
};

extern const char* const kNoArtifact;
extern const char* const kNoWeights;

Failure error(const std::string& about, const std::string& expected, const std::string& found,
              const std::string& advice);
Failure contract(const std::string& argument, const std::string& got, const std::string& takes,
                 const std::string& advice = "");
Failure corrupt(const std::string& file, const std::string& part, const std::string& expected,
                const std::string& found, const char* about = kNoArtifact);
Failure incompatible(const std::string& file, const std::vector<Difference>& differences,
                     const std::string& advice = "Run it where these fit, or build it again here.");

}  // namespace hotstart

#endif
