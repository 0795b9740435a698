#include "target_index.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "json.h"
#include "words.h"

namespace hotstart {

static Target target_of(const Json& row) {
  Target made{row["target"].string(), {}, 0, row["sha256"].string(), {}, 0};
  for (const Json& each : row["instructions"].items()) made.instructions.push_back(each.string());
  std::sort(made.instructions.begin(), made.instructions.end());
  made.manifest_bytes = static_cast<size_t>(row["manifest_bytes"].integer(0, INT64_MAX));
  for (const Json& pair : row["ranges"].items())
    made.ranges.push_back({static_cast<size_t>(pair.at(0).integer(0, INT64_MAX)),
                           static_cast<size_t>(pair.at(1).integer(0, INT64_MAX))});
  return made;
}

std::vector<Target> targets_of(const std::string& file, std::string_view text, size_t pool) {
  std::vector<Target> targets;
  try {
    const JsonDocument index(text);
    for (const Json& row : index.root()["targets"].items()) targets.push_back(target_of(row));
    if (targets.empty()) throw Malformed("there is none");
  } catch (const Malformed& reason) {
    throw corrupt(file, "index", "a JSON object with a list of targets",
                  std::string("this: ") + reason.what());
  }
  for (Target& each : targets) {
    const std::string name = shortened(each.name);
    for (const FileRange& range : each.ranges) {
      if (range.size > pool || range.offset > pool - range.size || each.size > INT64_MAX - pool)
        throw corrupt(file, "index", "ranges in a pool of " + std::to_string(pool) + " bytes",
                      "others, of " + name);
      each.size += range.size;
    }
    if (each.size < each.manifest_bytes)
      throw corrupt(file, "index",
                    "a manifest of " + std::to_string(each.manifest_bytes) + " bytes",
                    std::to_string(each.size) + " bytes of " + name);
  }
  return targets;
}

static std::vector<std::string> missing(const Target& target,
                                        const std::vector<std::string>& here) {
  std::vector<std::string> left;
  std::set_difference(target.instructions.begin(), target.instructions.end(), here.begin(),
                      here.end(), std::back_inserter(left));
  return left;
}

size_t best_that_fits(const std::vector<Target>& targets, const std::vector<std::string>& here) {
  const auto found = std::find_if(targets.begin(), targets.end(), [&here](const Target& each) {
    return missing(each, here).empty();
  });
  return found == targets.end() ? targets.size() - 1
                                : static_cast<size_t>(found - targets.begin());
}

std::vector<Difference> target_misfits(const std::vector<Target>& targets,
                                       const std::vector<std::string>& here) {
  std::vector<Difference> found;
  for (const Target& each : targets) {
    const std::vector<std::string> lacking = missing(each, here);
    if (!lacking.empty())
      found.push_back({"instructions of " + shortened(each.name),
                       "a CPU with " + joined(lacking, ", "), "a CPU without"});
  }
  return found;
}

}  // namespace hotstart
