// The index of a file with several targets; see Python's `hotstart.artifact.target_index`.

#ifndef HOTSTART_TARGET_INDEX_H
#define HOTSTART_TARGET_INDEX_H

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "failure.h"
#include "file.h"

namespace hotstart {

struct Target {
  std::string name;
  std::vector<std::string> instructions;  // that its code may use, sorted
  size_t manifest_bytes;
  std::string sha256;         // of the manifest
  std::vector<FileRange> ranges;  // of the pool
  size_t size;                // of all ranges
};

// The targets of an index whose digest was checked, the best first.
std::vector<Target> targets_of(const std::string& file, std::string_view text, size_t pool);

// The number of the best that a processor runs; of the last if it runs none.
size_t best_that_fits(const std::vector<Target>& targets, const std::vector<std::string>& here);

// What a processor lacks, by target.
std::vector<Difference> target_misfits(const std::vector<Target>& targets,
                                       const std::vector<std::string>& here);

}  // namespace hotstart

#endif
