#include "failure.h"

#include "words.h"

namespace hotstart {

const char* const kNoArtifact =
    "is damaged or not an artifact of hotstart; copy it again or build it again";
const char* const kNoWeights =
    "is damaged, or holds no prepared weights; copy it again, or save_weights again";

Failure error(const std::string& about, const std::string& expected, const std::string& found,
              const std::string& advice) {
  return Failure(HOTSTART_ERROR,
                 about + ": expected " + expected + ", found " + found + ". " + advice);
}

Failure contract(const std::string& argument, const std::string& got, const std::string& takes,
                 const std::string& advice) {
  const std::string hint = advice.empty() ? "" : "; " + advice;
  return Failure(HOTSTART_CONTRACT, argument + ": got " + got + ", takes " + takes + hint);
}

Failure corrupt(const std::string& file, const std::string& part, const std::string& expected,
                const std::string& found, const char* about) {
  return Failure(HOTSTART_CORRUPT, file + ": " + part + ": expected " + expected + ", found " +
                                       found + ". The file " + about + ".");
}

Failure incompatible(const std::string& file, const std::vector<Difference>& differences,
                     const std::string& advice) {
  std::string text = file + " does not fit here:";
  for (const Difference& each : differences)
    text += "\n  " + each.part + ": expected " + each.expected + ", found " +
            cut(each.found, 200);
  return Failure(HOTSTART_INCOMPATIBLE, text + "\n" + advice);
}

}  // namespace hotstart
